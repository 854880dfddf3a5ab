"""Other runtimes with the weights of a Tilewire model, each with the settings that serve it best.

Every peer is a function that opens a `Network` and gives a `Run`: a photograph in, the larger one out, both
uint8 arrays in the computer's memory, as `Upscaler` takes and gives them. A peer that cannot run here raises
`AbsentError`, which says why.
"""

import asyncio
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from benchmarks.workers import AbsentError
from engines import Picture, Upscaler, find_devices
from engines.devices.runtimes import onnxruntime
from onnx_models import INPUT, OUTPUT, Model, Weights

__all__ = ["PEERS", "REFERENCE", "Network", "Run", "cores"]

Pixels = NDArray[np.uint8]
Run = Callable[[Pixels], Pixels]
"""(H, W, 3) → (scale × H, scale × W, 3)."""


@dataclass(frozen=True)
class Network:
    """What is to be run, and on what."""

    model: Model
    weights: Weights
    path: Path
    """The ONNX file that Tilewire made of the weights."""
    device: Literal["cpu", "cuda"]


def tilewire(network: Network) -> Run:
    """The whole way of a task through the engine: planning, scheduling, running and assembling tiles."""
    upscaler = Upscaler(find_devices(network.device), network.path.parent)
    loop = asyncio.new_event_loop()

    def run(pixels: Pixels) -> Pixels:
        height, width = (length * network.weights.scale for length in pixels.shape[:2])
        work = upscaler.upscale(Picture(pixels), network.model, width=width, height=height)
        return loop.run_until_complete(work).pixels

    return run


def onnx_runtime(network: Network) -> Run:
    """ONNX Runtime alone in fp32 with its defaults; its threads may spin, as they may not beside a server."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cores()
    provider = "CUDAExecutionProvider" if network.device == "cuda" else "CPUExecutionProvider"
    if provider not in onnxruntime.get_available_providers():
        raise AbsentError("this build of ONNX Runtime has no CUDA")
    if network.device == "cuda":
        onnxruntime.preload_dlls()
    session = onnxruntime.InferenceSession(network.path, options, providers=[provider])
    if provider not in session.get_providers():
        raise AbsentError("its CUDA provider does not load")

    def run(pixels: Pixels) -> Pixels:
        (upscaled,) = session.run([OUTPUT], {INPUT: pixels[np.newaxis]})
        return upscaled[0]

    return run


def openvino(network: Network, precision: Literal["f32", "bf16"]) -> Run:
    """OpenVINO alone on the same ONNX file, compiled for one image at a time."""
    try:
        from openvino import Core  # noqa: PLC0415 - optional
    except ImportError:
        raise AbsentError("openvino is not installed") from None
    core = Core()
    if precision == "bf16":
        require_bf16()
    hints = {
        "INFERENCE_PRECISION_HINT": precision,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": cores(),
    }
    request = core.compile_model(network.path, "CPU", hints).create_infer_request()

    def run(pixels: Pixels) -> Pixels:
        request.infer([pixels[np.newaxis]])
        return request.get_output_tensor().data[0].copy()  # the next run writes over it

    return run


def ncnn(network: Network, precision: Literal["fp32", "bf16"]) -> Run:
    """ncnn on the weights as their authors publish them.

    Packing, Winograd and matrix-product convolutions are on by default, and on x86 its fp16 storage changes
    nothing; bf16 storage halves the memory traffic.
    """
    try:
        from ncnn import Mat, Net  # noqa: PLC0415 - optional
    except ImportError:
        raise AbsentError("ncnn is not installed") from None
    files = metadata.distribution(network.weights.distribution)
    net = Net()
    net.opt.num_threads = cores()
    net.opt.use_bf16_storage = net.opt.use_bf16_packed = precision == "bf16"
    net.load_param(str(files.locate_file(network.weights.param.path)))
    net.load_model(str(files.locate_file(network.weights.bin.path)))

    def run(pixels: Pixels) -> Pixels:
        height, width, _ = pixels.shape
        image = Mat.from_pixels(pixels, Mat.PixelType.PIXEL_RGB, width, height)
        image.substract_mean_normalize([], [1 / 255] * 3)
        extractor = net.create_extractor()
        extractor.input(net.input_names()[0], image)
        _, output = extractor.extract(net.output_names()[0])
        output.substract_mean_normalize([-0.5 / 255] * 3, [255.0] * 3)  # 255 y + 0.5, to be cut off
        levels = np.asarray(output)
        np.clip(levels, 0, 255, out=levels)
        return np.ascontiguousarray(levels.astype(np.uint8).transpose(1, 2, 0))

    return run


def pytorch(
    network: Network, precision: Literal["float32", "bfloat16", "float16"], *, compiled: bool = False
) -> Run:
    """PyTorch with the architecture as its authors wrote it, channels last."""
    try:
        import torch  # noqa: PLC0415 - optional
    except ImportError:
        raise AbsentError("torch is not installed") from None
    from benchmarks.torch_networks import load  # noqa: PLC0415 - needs torch

    if network.device == "cuda" and not torch.cuda.is_available():
        raise AbsentError("this PyTorch finds no GPU")
    if precision == "bfloat16" and network.device == "cpu":
        require_bf16()
    logging.getLogger("torch").setLevel(logging.ERROR)  # without a GPU it warns that it finds none
    torch.set_num_threads(cores())
    torch.backends.cudnn.benchmark = True
    dtype = getattr(torch, precision)
    module: Any = load(network.path).to(network.device, dtype, memory_format=torch.channels_last).eval()
    if compiled:
        module = torch.compile(module, dynamic=False, options=_INDUCTOR[network.device])

    @torch.inference_mode()
    def run(pixels: Pixels) -> Pixels:
        image = (
            torch.from_numpy(pixels)[None].to(network.device).permute(0, 3, 1, 2)
        )  # so it is channels last
        levels = module(image.to(dtype) / 255).float() * 255
        upscaled = levels.clamp(0, 255).round().to(torch.uint8)
        return upscaled[0].permute(1, 2, 0).contiguous().cpu().numpy()

    return run


_INDUCTOR: dict[str, dict[str, Any]] = {
    "cpu": {"freezing": True},  # weights are laid out once for the convolutions of oneDNN
    "cuda": {"triton.cudagraphs": True},
}


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def require_bf16() -> None:
    """bf16 without instructions for it is emulated, which is several times slower than fp32.

    Raises:
        AbsentError: if the processor has none.
    """
    try:
        flags = set(Path("/proc/cpuinfo").read_text("utf-8").split())
    except OSError:
        return
    if not flags & {"avx512_bf16", "amx_bf16", "bf16"}:
        raise AbsentError("the processor has no bf16 instructions")


REFERENCE = "ONNX Runtime fp32"

Peer = Callable[[Network], Run]

PEERS: dict[str, dict[str, Peer]] = {
    "cpu": {
        "Tilewire": tilewire,
        REFERENCE: onnx_runtime,
        "OpenVINO f32": lambda network: openvino(network, "f32"),
        "OpenVINO bf16": lambda network: openvino(network, "bf16"),
        "ncnn fp32": lambda network: ncnn(network, "fp32"),
        "ncnn bf16": lambda network: ncnn(network, "bf16"),
        "PyTorch fp32": lambda network: pytorch(network, "float32"),
        "PyTorch fp32, compiled": lambda network: pytorch(network, "float32", compiled=True),
        "PyTorch bf16, compiled": lambda network: pytorch(network, "bfloat16", compiled=True),
    },
    "cuda": {
        "Tilewire": tilewire,
        REFERENCE: onnx_runtime,
        "PyTorch fp16": lambda network: pytorch(network, "float16"),
        "PyTorch fp16, compiled": lambda network: pytorch(network, "float16", compiled=True),
    },
}
"""What is compared on each kind of device; Tilewire first."""
