"""Output megapixels per second of the engine against other runtimes with the same weights; how exact it is.

    python -m benchmarks.engine [MODEL ...] [--side PIXELS] [--rounds N] [--device cpu|cuda]

A photograph of PIXELS × PIXELS goes in as an array and comes out four times as large as an array; no file is
read or written. Each runtime lives in a process of its own, warms up, and then takes its turn in every round;
those that are not installed are listed as missing (pip install ncnn openvino torch). Exactness is measured
against ONNX Runtime's CPU provider in fp32. On a GPU the rate of a large bf16 matrix product says how much of
the device the convolutions use.
"""

import argparse
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from importlib import metadata
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from rich.console import Console

from benchmarks.peers import PEERS, REFERENCE, Network
from benchmarks.photos import photograph
from benchmarks.report import Report, gpu_name, median, peak_memory, ratio
from benchmarks.workers import AbsentError, Worker
from engines import find_devices
from onnx_models import ensure_built, load_catalogue
from server.settings import load_settings

SIDES = {
    "cpu": {"realesrgan-x4plus": 160, "realesr-animevideov3": 256},
    "cuda": {"realesrgan-x4plus": 512, "realesr-animevideov3": 1024},
}
WARM_UPS = {"cpu": 2, "cuda": 5}
"""On a GPU algorithms are chosen and graphs captured in the first runs."""
ROUNDS = 5
OTHER_SIDE = 192
LIBRARIES = ("ncnn", "openvino", "torch")


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engine")
    parser.add_argument("model", nargs="*", default=list(SIDES["cpu"]), help="default: one large, one small")
    parser.add_argument("--side", type=int, help="pixels of the input; default: by model")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--device", choices=list(PEERS), default="cuda" if gpu_name() else "cpu")
    options = parser.parse_args()
    settings, _ = load_settings()
    for name in options.model:
        model = load_catalogue().get(name)
        weights = model.weights_for(4)
        path = ensure_built(model, weights, settings.model_directory)
        network = Network(model, weights, path, options.device)
        compare(network, options.side or SIDES[options.device].get(model.name, OTHER_SIDE), options.rounds)


def compare(network: Network, side: int, rounds: int) -> None:
    """One table: one model, all peers."""
    on_gpu = network.device == "cuda"
    columns = ["runtime".rjust(22), "MP/s", "ratio", "PSNR dB", "max difference", "peak MB"]
    report = Report(
        f"engine-{network.model.name}",
        *columns,
        *(["TFLOP/s", "of matrix rate"] if on_gpu else []),
        device=gpu_name() if on_gpu else None,
    )
    megapixels = (network.weights.scale * side) ** 2 / 1e6
    with ExitStack() as stack:
        status = stack.enter_context(Console(stderr=True).status("the reference"))
        reference = reference_of(network, side)
        workers: dict[str, Worker] = {}
        absent: dict[str, str] = {}
        for name in PEERS[network.device]:
            status.update(f"{name} warms up")
            try:
                opening = partial(opened, name, network, side)
                workers[name] = stack.enter_context(Worker(opening, warm_ups=WARM_UPS[network.device]))
            except AbsentError as error:
                absent[name] = str(error)
        times: dict[str, list[float]] = {name: [] for name in workers}
        for number in range(1, rounds + 1):
            for name, worker in workers.items():
                status.update(f"round {number} of {rounds}: {name}")
                times[name].append(worker.run())
        matrix = matrix_rate() if on_gpu else None
        for name in PEERS[network.device]:
            if name in absent:
                report.say(f"{name.rjust(22)}  missing: {absent[name]}")
                continue
            worker = workers[name]
            cells = [
                name,
                megapixels / median(times[name]),
                ratio(times, "Tilewire", name),
                *closeness(worker.output, reference),
                f"{peak_memory(worker.pid) / 1e6:.0f}",
            ]
            if on_gpu:
                rate = operations(network.path, side) / median(times[name]) / 1e12
                cells += [rate, "unknown" if matrix is None else f"{rate / matrix:.0%}"]
            report.row(*cells)
    report.say(
        f"{side} × {side} pixels ×{network.weights.scale}, medians, alternating rounds: {rounds}; "
        "ratio: their speed / Tilewire's in the same round"
    )
    if "Tilewire" in workers:
        report.say("Tilewire on " + ", ".join(device.name for device in find_devices(network.device)))
    report.say("exactness: against ONNX Runtime's CPU provider in fp32, in levels of 255; " + versions())
    report.keep()


def opened(name: str, network: Network, side: int) -> Callable[[], NDArray[np.uint8]]:
    """What enlarges the photograph."""
    run, pixels = PEERS[network.device][name](network), photograph(side)
    return lambda: run(pixels)


def reference_of(network: Network, side: int) -> NDArray[np.uint8]:
    """The photograph as ONNX Runtime's CPU provider enlarges it in fp32."""
    on_cpu = Network(network.model, network.weights, network.path, "cpu")
    with Worker(partial(opened, REFERENCE, on_cpu, side)) as worker:
        pixels: NDArray[np.uint8] = worker.output
        return pixels


def closeness(output: NDArray[np.uint8], reference: NDArray[np.uint8]) -> tuple[str, int]:
    """Peak signal-to-noise ratio in dB, and the largest difference in levels."""
    difference = output.astype(np.int16) - reference
    error = np.square(difference, dtype=np.float64).mean()
    psnr = f"{10 * np.log10(255**2 / error):.1f}" if error else "exact"
    return psnr, int(np.abs(difference).max())


def operations(path: Path, side: int) -> int:
    """Floating-point operations of all convolutions for one image; a multiplication with addition is two."""
    model = onnx.load(path)
    for dimension, value in zip(
        model.graph.input[0].type.tensor_type.shape.dim, (1, side, side, 3), strict=True
    ):
        dimension.dim_value = value
    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    pixels = {
        value.name: [dimension.dim_value for dimension in value.type.tensor_type.shape.dim][2:]
        for value in graph.value_info
    }
    weights = {tensor.name: tensor.dims for tensor in graph.initializer}
    return sum(
        2 * int(np.prod([*weights[node.input[1]], *pixels[node.output[0]]]))
        for node in graph.node
        if node.op_type == "Conv"
    )


def matrix_rate() -> float | None:
    """TFLOP/s of a bf16 matrix product of 8192 × 8192, PyTorch's; None without it."""
    try:
        import torch  # noqa: PLC0415 - optional
    except ImportError:
        return None
    if not torch.cuda.is_available():
        return None
    side, times = 8192, []
    matrix = torch.randn(side, side, device="cuda", dtype=torch.bfloat16)
    for _ in range(20):
        torch.cuda.synchronize()
        begun = time.perf_counter()
        for _ in range(10):
            matrix @ matrix
        torch.cuda.synchronize()
        times.append((time.perf_counter() - begun) / 10)
    return 2 * side**3 / median(times) / 1e12


def versions() -> str:
    """Of the peers' libraries that are installed."""
    found = []
    for library in LIBRARIES:
        try:
            found.append(f"{library} {metadata.version(library)}")
        except metadata.PackageNotFoundError:
            continue
    return ", ".join(found)


if __name__ == "__main__":
    main()
