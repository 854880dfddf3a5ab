"""Parts of latent and creative upscalers in OpenVINO, in bf16 where the processor has it.

Measured on two cores with AMX, a UNet like Stable Diffusion's with 78 million parameters and 256 × 256
pixels: 0.15 s in bf16 and 0.36 s in fp32, where ONNX Runtime takes 0.43 s.

bf16 has 8 bits of a number: too few for the noise's deviation, of which a step of the training differs from
the next one by less. What a part computes of such single numbers alone stays in fp32.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from engines.devices.failures import as_model_error
from engines.devices.heap import drop_mapped, dropping_mapped
from engines.devices.parts import Arrays
from engines.devices.runtimes import import_openvino

__all__ = ["Compile", "OpenVinoPart"]

Compile: TypeAlias = Callable[[Any], Any]
"""Compiles one of OpenVINO's models."""

_FOR_BF16 = frozenset({"MatMul", "Convolution", "GroupConvolution"})


class OpenVinoPart:
    """A part in OpenVINO: a `PartSession`."""

    def __init__(self, file: Path, in_fp32: Compile, in_bf16: Compile | None) -> None:
        """Load it.

        Args:
            file: of the part; its weights may be in one beside it.
            in_fp32: compiles what is computed in fp32.
            in_bf16: compiles what may be computed in bf16; None if nothing may.

        Raises:
            Exception: of any class, if it cannot be loaded.
        """
        self._directory = file.parent
        with dropping_mapped(self._directory):
            model = import_openvino().Core().read_model(file)
            self._inputs = [each.get_friendly_name() for each in model.get_parameters()]
            if in_bf16 is None:
                self._pieces = [_Piece(model, in_fp32)]
            else:
                *exact, rest = _split(model)
                self._pieces = [*(_Piece(each, in_fp32) for each in exact), _Piece(rest, in_bf16)]
        # The first run brings the weights into an order of its own.
        self._around_run: Callable[[], AbstractContextManager[None]] = partial(
            dropping_mapped, self._directory
        )

    def run_part(self, arrays: Sequence[Any]) -> Arrays:
        """See `PartSession.run_part`."""
        values = dict(zip(self._inputs, arrays, strict=True))
        try:
            with self._around_run():
                for piece in self._pieces:
                    found = piece.run(values)
                    values |= found
        except Exception as error:
            shapes = ", ".join(str(array.shape) for array in arrays)
            raise as_model_error(error, f"the model failed on a batch of {shapes}") from error
        self._around_run = nullcontext
        return tuple(found.values())

    def release_memory(self) -> None:
        """See `PartSession.release_memory`."""
        for piece in self._pieces:
            piece.release_memory()
        drop_mapped(self._directory)


class _Piece:
    """Something compiled that takes and gives values by name."""

    def __init__(self, model: Any, compile_it: Compile) -> None:
        self._inputs = [each.get_friendly_name() for each in model.get_parameters()]
        self._outputs = [each.get_friendly_name() for each in model.get_results()]
        self._compiled = compile_it(model)
        self._request = self._compiled.create_infer_request()

    def run(self, values: dict[str, Any]) -> dict[str, Any]:
        """What it gives, in its order."""
        # Not `infer`: see `engines.devices.openvino`.
        self._request.start_async({index: values[name] for index, name in enumerate(self._inputs)})
        self._request.wait()
        found = (tensor.data.copy() for tensor in self._request.output_tensors)
        return dict(zip(self._outputs, found, strict=True))

    def release_memory(self) -> None:
        """Give back what large runs took."""
        self._compiled.release_memory()


def _split(model: Any) -> list[Any]:
    """A model in two: what it computes of single numbers alone, and the rest; in one if that is all."""
    openvino = import_openvino()
    constant: set[str] = set()
    exact: set[str] = set()
    nodes = model.get_ordered_ops()
    for node in nodes:
        makers = {each.get_source_output().get_node().get_name() for each in node.inputs()}
        kind = node.get_type_name()
        if kind == "Constant" or (makers and makers <= constant):
            constant.add(node.get_name())
        elif kind == "Parameter":
            if node.get_element_type() == openvino.Type.f32 and len(node.get_partial_shape()) == 1:
                exact.add(node.get_name())
        elif kind not in _FOR_BF16 | {"Result"} and makers & exact and makers <= exact | constant:
            exact.add(node.get_name())
    results, parameters = [], []
    for output in (each for node in nodes if node.get_name() in exact for each in node.outputs()):
        takers = [each for each in output.get_target_inputs() if each.get_node().get_name() not in exact]
        if not takers:
            continue
        parameter = openvino.op.Parameter(output.get_element_type(), output.get_partial_shape())
        for each in takers:
            each.replace_source_output(parameter.output(0))
        result = openvino.op.Result(output)
        result.set_friendly_name(parameter.get_friendly_name())
        results.append(result)
        parameters.append(parameter)
    if not results:
        return [model]
    taken = {
        known: [each for each in model.get_parameters() if (each.get_name() in exact) == known]
        for known in (True, False)
    }
    return [
        openvino.Model(results, taken[True]),
        openvino.Model(model.get_results(), [*taken[False], *parameters]),
    ]
