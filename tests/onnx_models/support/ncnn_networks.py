"""Small networks in ncnn's format, with random numbers; and ncnn itself, which says what they compute."""

from collections.abc import Callable
from pathlib import Path

import ncnn as runtime
import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]

FLOAT32_TAG = bytes(4)


def param(*layers: str) -> bytes:
    """A `.param` file."""
    return "\n".join(["7767517", f"{len(layers)} 99", *layers]).encode()


def run_ncnn(param_file: Path, bin_file: Path) -> Callable[[Float32], Float32]:
    """A network as ncnn runs it, in fp32, (3, H, W) to (3, scale x H, scale x W)."""
    network = runtime.Net()
    network.opt.use_vulkan_compute = False
    network.opt.use_fp16_packed = network.opt.use_fp16_storage = network.opt.use_fp16_arithmetic = False
    network.opt.use_bf16_storage = False
    network.load_param(str(param_file))
    network.load_model(str(bin_file))

    def run(image: Float32) -> Float32:
        extractor = network.create_extractor()
        kept = np.ascontiguousarray(image)  # a Mat of it does not keep it
        extractor.input(network.input_names()[0], runtime.Mat(kept))
        status, output = extractor.extract(network.output_names()[0])
        assert status == 0
        return np.array(output)

    return run


def like_span(scale: int = 2, seed: int = 0) -> tuple[bytes, bytes]:
    """A `.param` and a `.bin` with the layers of SPAN: a mean taken away, attention without parameters."""
    wide = 3 * scale * scale
    layers = param(
        "Input input.1 0 1 data",
        "MemoryData mean 0 1 mean 0=1 1=1 2=3",
        "BinaryOp /Sub 2 1 data mean centred 0=1",
        "BinaryOp /Mul 1 1 centred levels 0=2 1=1 2=2.550000e+02",
        f"Convolution first 1 1 levels planes 0={wide} 1=3 4=1 5=1 6={27 * wide}",
        "Split split 1 2 planes kept given",
        "Swish act 1 1 given curved",
        "Sigmoid gate 1 1 curved open",
        "BinaryOp half 1 1 open halved 0=1 1=1 2=0.5",
        "BinaryOp product 2 1 kept halved found 0=2",
        f"PixelShuffle shuffle 1 1 found output 0={scale}",
    )
    random = np.random.default_rng(seed)
    mean = np.array([0.4, 0.45, 0.5], "<f4").tobytes()
    kernel = random.normal(0, 0.01, 27 * wide).astype("<f4").tobytes()
    bias = random.normal(0, 0.1, wide).astype("<f4").tobytes()
    return layers, mean + FLOAT32_TAG + kernel + bias


def like_waifu2x(seed: int = 0) -> tuple[bytes, bytes]:
    """The same with the layers of waifu2x: x2, and two pixels of the input are lost at every border."""
    layers = param(
        "Input input 0 1 Input1 0=156 1=156 2=3",
        "Convolution conv1 1 1 Input1 planes 0=8 1=3 5=1 6=216 9=2 -23310=1,0.100000",
        "Deconvolution conv2 1 1 planes output 0=3 1=4 3=2 4=3 5=1 6=384",
    )
    random = np.random.default_rng(seed)
    parts = [
        part
        for count, channels in ((216, 8), (384, 3))
        for part in (
            FLOAT32_TAG + random.normal(0.05, 0.1, count).astype("<f4").tobytes(),
            random.normal(0, 0.05, channels).astype("<f4").tobytes(),
        )
    ]
    return layers, b"".join(parts)
