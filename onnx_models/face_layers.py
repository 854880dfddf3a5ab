"""What face restorers compute, in ways that PyTorch's tracing can follow, and for several faces at once.

StyleGAN2's modulated convolutions, which GFPGAN consists of, multiply their weights with a style of each
face, and so have as many weights as there are faces: ONNX knows no such convolution. To multiply what goes in
instead, and what comes out, is the same, as a convolution is linear (Karras et al., Analyzing and Improving
the Image Quality of StyleGAN, 2020, section 2.2). CodeFormer finds its layers by the size of the image in
words, which a trace spells differently.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any

__all__ = ["exportable"]

_MODULATED = "ModulatedConv2d"
"""The class in spandrel's `GFPGAN/__arch/stylegan2_clean_arch.py`."""


@contextmanager
def exportable(network: Any) -> Iterator[None]:
    """Have a network computed in these ways, while in the block.

    Args:
        network: A module of PyTorch's.
    """
    layers = [layer for layer in network.modules() if type(layer).__name__ == _MODULATED]
    program: Any = sys.modules[type(network).__module__]
    for layer in layers:
        layer.forward = MethodType(_forward, layer)
    program.str = lambda size: f"{int(size)}"
    try:
        yield
    finally:
        del program.str
        for layer in layers:
            del layer.forward


def _forward(layer: Any, image: Any, style: Any) -> Any:
    """(N, C, H, W) and (N, S) to (N, D, H', W')."""
    from torch.nn import functional  # noqa: PLC0415 - large, and only there with the extra

    scale = layer.modulation(style)
    weight = layer.weight[0]
    if layer.sample_mode is not None:
        factor = {"upsample": 2, "downsample": 0.5}[layer.sample_mode]
        image = functional.interpolate(image, scale_factor=factor, mode="bilinear", align_corners=False)
    result = functional.conv2d(image * scale[:, :, None, None], weight, padding=layer.padding)
    if layer.demodulate:
        lengths = scale.square() @ weight.square().sum((2, 3)).T
        result = result * (lengths + layer.eps).rsqrt()[:, :, None, None]
    return result
