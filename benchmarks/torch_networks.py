"""The two Real-ESRGAN architectures in PyTorch, after https://github.com/xinntao/Real-ESRGAN (BSD-3-Clause).

They are filled from the ONNX file that Tilewire made, so that all peers run the same numbers.
"""

from itertools import chain, pairwise
from pathlib import Path

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["load"]


def load(path: Path) -> nn.Module:
    """The network of an ONNX file of Tilewire's, from (N, 3, H, W) to (N, 3, 4 H, 4 W), RGB in [0, 1]."""
    graph = onnx.load(path).graph
    numbers = {
        tensor.name: torch.from_numpy(numpy_helper.to_array(tensor).copy()) for tensor in graph.initializer
    }
    trained = [
        [numbers[name] for name in node.input if name in numbers]
        for node in graph.node
        if node.op_type in {"Conv", "PRelu"}
    ]
    convolutions = sum(node.op_type == "Conv" for node in graph.node)
    features = trained[0][0].shape[0]
    module: nn.Module
    if any(node.op_type == "PRelu" for node in graph.node):
        module = SRVGGNetCompact(features, convolutions - 2)
    else:
        module = RRDBNet(features, (convolutions - 6) // 15, growth=trained[1][0].shape[0])
    # Both list their layers in the order in which the graph runs them.
    for parameter, tensor in zip(module.parameters(), chain.from_iterable(trained), strict=True):
        parameter.data = tensor.reshape(parameter.shape)
    return module.requires_grad_(requires_grad=False)


def convolution(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, 1, 1)


class SRVGGNetCompact(nn.Module):
    """`realesrgan/archs/srvgg_arch.py`: convolutions in a chain, added to the enlarged image."""

    def __init__(self, features: int, depth: int) -> None:
        super().__init__()
        widths = [3, *[features] * (depth + 1)]
        layers = ((convolution(a, b), nn.PReLU(b)) for a, b in pairwise(widths))
        self.body = nn.Sequential(*chain.from_iterable(layers), convolution(features, 3 * 4**2))

    def forward(self, image: Tensor) -> Tensor:
        return functional.pixel_shuffle(self.body(image), 4) + functional.interpolate(image, scale_factor=4)


class DenseBlock(nn.Module):
    """Five convolutions, each of which sees the results of all before it."""

    def __init__(self, features: int, growth: int) -> None:
        super().__init__()
        outputs = [growth] * 4 + [features]
        self.layers = nn.ModuleList(
            convolution(features + index * growth, width) for index, width in enumerate(outputs)
        )

    def forward(self, block: Tensor) -> Tensor:
        *growing, last = self.layers
        seen = [block]
        for layer in growing:
            seen.append(functional.leaky_relu(layer(torch.cat(seen, 1)), 0.2))
        return block + 0.2 * last(torch.cat(seen, 1))


class ResidualDenseBlocks(nn.Sequential):
    """Three dense blocks, a fifth of whose result is added to what they began with."""

    def forward(self, block: Tensor) -> Tensor:
        return block + 0.2 * super().forward(block)


class RRDBNet(nn.Module):
    """`basicsr/archs/rrdbnet_arch.py`: many dense blocks, then twice an enlargement by two."""

    def __init__(self, features: int, blocks: int, growth: int) -> None:
        super().__init__()
        self.first = convolution(3, features)
        self.body = nn.Sequential(
            *(ResidualDenseBlocks(*(DenseBlock(features, growth) for _ in range(3))) for _ in range(blocks)),
            convolution(features, features),
        )
        self.enlarge = nn.ModuleList(convolution(features, features) for _ in range(2))
        self.refine = convolution(features, features)
        self.last = convolution(features, 3)

    def forward(self, image: Tensor) -> Tensor:
        first = self.first(image)
        block = first + self.body(first)
        for layer in self.enlarge:
            block = functional.leaky_relu(layer(functional.interpolate(block, scale_factor=2)), 0.2)
        return self.last(functional.leaky_relu(self.refine(block), 0.2))
