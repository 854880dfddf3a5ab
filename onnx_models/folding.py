"""Constant factors behind convolutions, moved into their weights: the same network with fewer operations.

An ESRGAN multiplies the last convolution of each dense block by 0.2. Runtimes can fold that themselves, and
ONNX Runtime does when it loads a network; a graph without it is right for those, too, that do not.
"""

from collections import Counter

import numpy as np
import onnx
from onnx import numpy_helper

__all__ = ["fold_factors"]


def fold_factors(network: onnx.ModelProto) -> None:
    """Multiply the weights and the bias of each convolution by the number that its result is multiplied by.

    Only where nothing else reads that result, or those weights. What the network computes stays the same up
    to rounding.

    Args:
        network: With its weights; it is changed.
    """
    graph = network.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    readers = Counter(name for node in graph.node for name in node.input)
    readers.update(result.name for result in graph.output)
    convolutions = {node.output[0]: node for node in graph.node if node.op_type == "Conv"}
    for product in [node for node in graph.node if node.op_type == "Mul"]:
        value, factor = product.input if product.input[1] in constants else reversed(product.input)
        convolution = convolutions.get(value)
        if convolution is None or factor not in constants or readers[value] != 1:
            continue
        number = numpy_helper.to_array(constants[factor])
        weights = [name for name in convolution.input[1:] if name]
        if any(name not in constants or readers[name] != 1 for name in weights) or number.size != 1:
            continue
        for name in weights:
            scaled = numpy_helper.to_array(constants[name]) * np.float32(number.item())
            constants[name].CopyFrom(numpy_helper.from_array(scaled, name))
        convolution.output[0] = product.output[0]
        graph.node.remove(product)
        readers[factor] -= 1
        if not readers[factor]:
            graph.initializer.remove(constants.pop(factor))
