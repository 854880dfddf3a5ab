"""An ONNX file without its numbers, which are nearly all of it.

To parse the file of a large network, copy half of it and write that again takes half a second. Here the
numbers are never looked at: what is encoded is passed on as it stands.

The encoding is that of protobuf, https://protobuf.dev/programming-guides/encoding/, the numbers of the fields
are in https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.
"""

from collections.abc import Iterable, Iterator

import onnx
from google.protobuf.message import DecodeError
from onnx import GraphProto, ModelProto, TensorProto, helper

__all__ = ["Outline"]

_SMALL = 1024
"""Bytes of a tensor's data that are kept: enough for shapes and factors, too little for weights."""

_LENGTH_DELIMITED = 2


class Outline:
    """A network whose constants have a name, a type and dimensions, but no data unless that is small.

    Args:
        content: an ONNX file.

    Raises:
        DecodeError: It is none.

    """

    def __init__(self, content: bytes) -> None:
        self.network = ModelProto()
        self._encoded: dict[str, memoryview] = {}
        rest = []
        for number, field, value in _fields(memoryview(content)):
            if number == ModelProto.GRAPH_FIELD_NUMBER:
                self._read_graph(value)
            else:
                rest.append(field)
        self.network.MergeFromString(b"".join(rest))

    def _read_graph(self, encoded: memoryview) -> None:
        graph = self.network.graph
        rest = []
        for number, field, value in _fields(encoded):
            if number == GraphProto.INITIALIZER_FIELD_NUMBER:
                kept = (part for _, part, data in _fields(value) if len(data) <= _SMALL)
                tensor = TensorProto.FromString(b"".join(kept))
                graph.initializer.append(tensor)
                self._encoded[tensor.name] = field
            else:
                rest.append(field)
        graph.MergeFromString(b"".join(rest))

    def model(
        self, nodes: Iterable[onnx.NodeProto], takes: onnx.ValueInfoProto, gives: onnx.ValueInfoProto
    ) -> bytes:
        """Give an ONNX file of some of the network's nodes, with the constants that they read."""
        nodes = list(nodes)
        read = {name for node in nodes for name in node.input}
        network = self.network
        model = helper.make_model(
            helper.make_graph(nodes, network.graph.name, [takes], [gives]),
            opset_imports=network.opset_import,
            ir_version=network.ir_version,
        )
        constants = [field for name, field in self._encoded.items() if name in read]
        # A second graph in the same message is merged with the first ("Last One Wins" in the encoding).
        graph = _varint(ModelProto.GRAPH_FIELD_NUMBER << 3 | _LENGTH_DELIMITED)
        return b"".join([model.SerializeToString(), graph, _varint(sum(map(len, constants))), *constants])


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview, memoryview]]:
    """The number of each field of a message, all its bytes, and its value if that is of variable length."""
    place = 0
    while place < len(message):
        begin = place
        tag, place = _read_varint(message, place)
        size = 0
        match tag & 7:
            case 0:
                _, place = _read_varint(message, place)
            case 1:
                place += 8
            case 2:
                size, place = _read_varint(message, place)
                place += size
            case 5:
                place += 4
            case kind:
                raise DecodeError(f"there is no wire type {kind}")
        if place > len(message):
            raise DecodeError("the message is truncated")
        yield tag >> 3, message[begin:place], message[place - size : place]


def _read_varint(message: memoryview, place: int) -> tuple[int, int]:
    """A number, and the place behind it."""
    value = 0
    for shift, byte in enumerate(message[place : place + 10]):
        value |= (byte & 0x7F) << 7 * shift
        if byte < 0x80:
            return value, place + shift + 1
    raise DecodeError("a number does not end")


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])
