"""Writes a part of a pipeline as an ONNX file, and sees how far that is from PyTorch."""

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_models.diffusers.part import Arrays, Part
from onnx_models.errors import UnsuitableModelError, one_line
from onnx_models.probe import OpenPart

__all__ = ["compute", "difference", "write"]

_OPSET = 18
_LARGEST = 32 * 2**20
"""Bytes of numbers beside the graph in one file. Those in a file of their own are mapped, not read."""


def compute(part: Part, inputs: Arrays) -> list[NDArray[Any]]:
    """What PyTorch computes."""
    import torch  # noqa: PLC0415

    with torch.inference_mode():
        found = part.module(*map(torch.from_numpy, inputs))
    return [each.numpy() for each in (found if isinstance(found, tuple) else (found,))]


def write(part: Part, directory: Path, *, half: bool) -> None:
    """Write a part; its numbers go into a file of their own where they are many.

    Args:
        part: What to write.
        directory: Where to: `NAME.onnx`, and maybe `NAME.onnx.data`.
        half: Whether it is in half precision.
    """
    import torch  # noqa: PLC0415

    size = sum(each.numel() for each in part.module.parameters()) * (2 if half else 4)
    with torch.inference_mode():
        program = torch.onnx.export(
            part.module,
            tuple(map(torch.from_numpy, part.examples[0])),
            input_names=part.inputs,
            output_names=part.outputs,
            dynamic_shapes=_dynamic_shapes(part),
            dynamo=True,
            opset_version=_OPSET,
            verbose=False,
        )
        _keep_transposed(program.model.graph)
        program.save(directory / f"{part.name}.onnx", external_data=size > _LARGEST)


def _keep_transposed(graph: Any) -> None:
    """Store the weights of products as PyTorch does, and transpose them in the graph.

    OpenVINO takes them like that from the file; of those that were transposed it keeps a copy in memory.
    """
    import onnx_ir  # noqa: PLC0415 - comes with the exporter

    for node in list(graph):
        if node.op_type != "MatMul":
            continue
        weights = node.inputs[1]
        if weights.name not in graph.initializers or len(weights.shape) != 2 or len(weights.uses()) > 1:
            continue
        stored = np.ascontiguousarray(weights.const_value.numpy().T)
        weights.const_value = onnx_ir.tensor(stored, name=weights.name)
        weights.shape = onnx_ir.Shape(stored.shape)
        transpose = onnx_ir.node("Transpose", [weights], {"perm": [1, 0]})
        graph.insert_before(node, transpose)
        node.replace_input_with(1, transpose.outputs[0])


def _dynamic_shapes(part: Part) -> dict[str, Any]:
    """The dynamic axes by parameter; those of `*more` are together."""
    import torch  # noqa: PLC0415

    shapes = [dict.fromkeys(part.axes[name], torch.export.Dim.DYNAMIC) for name in part.inputs]
    found: dict[str, Any] = {}
    for place, parameter in enumerate(inspect.signature(part.module.forward).parameters.values()):
        if parameter.kind is not inspect.Parameter.VAR_POSITIONAL:
            found[parameter.name] = shapes[place]
        elif place < len(shapes):
            found[parameter.name] = tuple(shapes[place:])
    return found


def difference(open_part: OpenPart, directory: Path, part: Part, expected: Sequence[Arrays]) -> float:
    """How far a file is from PyTorch: the largest difference, relative to the largest value.

    Args:
        open_part: The runtime.
        directory: Where the file is.
        part: What was written.
        expected: What PyTorch makes of its examples.

    Raises:
        UnsuitableModelError: It does not run.
    """
    try:
        run = open_part(directory / f"{part.name}.onnx")
        found = [run(each) for each in part.examples]
    except Exception as error:  # whatever the runtime raises
        raise UnsuitableModelError(f"its {part.name} does not run as ONNX: {one_line(error, 300)}") from error
    worst = 0.0
    for sizes in zip(found, expected, strict=True):
        for computed, reference in zip(*sizes, strict=True):
            if computed.shape != reference.shape:
                return float("inf")
            apart = np.abs(computed - reference).max() / max(np.abs(reference).max(), 1e-6)
            worst = float(np.fmax(worst, apart)) if np.isfinite(apart) else float("inf")
    return worst
