"""ncnn's file format: the network's layers from a `.param` file, their trained numbers from a `.bin` file.

The format is documented in ncnn's wiki, "param and model file structure"
(https://github.com/Tencent/ncnn/wiki/param-and-model-file-structure); the files named in comments are
those of https://github.com/Tencent/ncnn.
"""

import math

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from onnx_models.errors import NcnnFormatError, UnsupportedLayerError

__all__ = ["BinReader", "Float32", "Layer", "ncnn_blob", "parse_param"]

_PARAM_MAGIC = "7767517"  # src/net.cpp, load_param
_FLOAT16_TAG = 0x01306B47  # src/modelbin.cpp: fp16 numbers follow, padded to four bytes
_FLOAT32_TAG = 0  # src/modelbin.cpp: fp32 numbers follow
_ARRAY_KEY = -23300  # src/paramdict.cpp: an array's key is this less the parameter's number

Float32 = npt.NDArray[np.float32]


class Layer(Struct):
    """One line of the `.param` file."""

    type: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    params: dict[int, tuple[float, ...]]
    """Parameters by number. Those that have been read are removed: what remains is not understood."""

    def pop(self, number: int, default: float) -> float:
        """Read a scalar parameter."""
        values = self.pop_array(number, (default,))
        if len(values) != 1:
            raise self.unsupported(f"parameter {number} as an array")
        return values[0]

    def pop_array(self, number: int, default: tuple[float, ...]) -> tuple[float, ...]:
        """Read an array parameter."""
        return self.params.pop(number, default)

    def unsupported(self, what: str) -> UnsupportedLayerError:
        """Name the layer in an error."""
        return UnsupportedLayerError(f"ncnn layer {self.name} ({self.type}): {what} is not supported")


class BinReader:
    """Reads trained numbers one after the other, as `ModelBinFromDataReader` of `src/modelbin.cpp` does."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._offset = 0

    @property
    def exhausted(self) -> bool:
        """Whether all numbers have been read."""
        return self._offset == len(self._data)

    def read_tagged(self, count: int, layer: Layer) -> Float32:
        """Read numbers stored behind a tag that says how (`load` with type 0): convolution kernels."""
        tag = int.from_bytes(self._read(4, layer), "little")
        if tag == _FLOAT16_TAG:
            size = 2 * count
            padded = (size + 3) & ~3
            stored = self._read(padded, layer)[:size]
            return np.frombuffer(stored, "<f2").astype(np.float32)
        if tag == _FLOAT32_TAG:
            return self.read_float32(count, layer)
        raise layer.unsupported(f"weight storage {tag:#010x}")

    def read_float32(self, count: int, layer: Layer) -> Float32:
        """Read bare fp32 numbers (`load` with type 1): biases and slopes."""
        return np.frombuffer(self._read(4 * count, layer), "<f4").astype(np.float32, copy=False)

    def _read(self, size: int, layer: Layer) -> bytes:
        chunk = self._data[self._offset : self._offset + size]
        if len(chunk) != size:
            raise NcnnFormatError(f"the .bin file ends within layer {layer.name} ({layer.type})")
        self._offset += size
        return chunk


def parse_param(data: bytes) -> list[Layer]:
    """Read the layers of a `.param` file, in the order of execution.

    Raises:
        NcnnFormatError: The bytes are not such a file.
    """
    lines = [line.split() for line in data.decode(errors="replace").splitlines() if line.strip()]
    match lines:
        case [[magic], [count, _blobs], *rest] if magic == _PARAM_MAGIC and count == str(len(rest)):
            return [_parse_layer(fields) for fields in rest]
        case [[magic], [count, _blobs], *rest] if magic == _PARAM_MAGIC:
            raise NcnnFormatError(f"the .param file announces {count} layers and has {len(rest)}")
        case _:
            raise NcnnFormatError(
                f"this is no ncnn .param file: it does not begin with {_PARAM_MAGIC} and counts"
            )


def _parse_layer(fields: list[str]) -> Layer:
    """Read `type name input_count output_count inputs... outputs... key=value...`."""
    try:
        kind, name, input_count, output_count, *rest = fields
        outputs_from = int(input_count)
        params_from = outputs_from + int(output_count)
        params = dict(map(_parse_param, rest[params_from:]))
    except ValueError as error:
        raise NcnnFormatError(f"the .param file has a malformed line: {' '.join(fields)}") from error
    inputs, outputs = tuple(rest[:outputs_from]), tuple(rest[outputs_from:params_from])
    if not 0 <= outputs_from < params_from <= len(rest):
        raise NcnnFormatError(f"the .param file has a malformed line: {' '.join(fields)}")
    return Layer(kind, name, inputs, outputs, params)


def _parse_param(field: str) -> tuple[int, tuple[float, ...]]:
    """Read `number=value`, or `-23300-number=count,value,...` for an array (`src/paramdict.cpp`)."""
    key, _, values = field.partition("=")
    number = int(key)
    if number > _ARRAY_KEY:
        return number, (_parse_number(values),)
    count, *items = values.split(",")
    if int(count) != len(items):
        raise ValueError(field)
    return _ARRAY_KEY - number, tuple(map(_parse_number, items))


def _parse_number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


def ncnn_blob(param: bytes, value: str) -> str:
    """Return the blob that a value of the converted network is.

    Args:
        param: The content of the `.param` file.
        value: What a layer computes in the ONNX model that `convert` makes.

    Raises:
        NcnnFormatError: It is no such file, or no layer computes that value.
    """
    for layer in parse_param(param):
        if value in (layer.name, f"{layer.name}.activation"):
            return layer.outputs[0]
    raise NcnnFormatError(f"no layer of the .param file computes {value}")
