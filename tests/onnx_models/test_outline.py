"""ONNX files that are looked at without their numbers."""

import numpy as np
import onnx
import pytest
from google.protobuf.message import DecodeError
from onnx import helper, numpy_helper

from onnx_models.graph import wrap_uint8
from onnx_models.outline import Outline
from tests.onnx_models.support.tiny import network

LARGE = np.arange(3 * 3 * 11 * 11, dtype=np.float32).reshape(3, 3, 11, 11)
FACTORS = np.float32([1, 1, 2, 2])


@pytest.fixture
def whole():
    nodes = [
        helper.make_node("Conv", ["x", "large"], ["features"], pads=[5] * 4),
        helper.make_node("Resize", ["features", "", "factors"], ["y"], mode="nearest"),
    ]
    return wrap_uint8(network(nodes, {"large": LARGE, "factors": FACTORS}), 2)


def test_an_outline_has_all_but_large_data(whole):
    outlined = Outline(whole.SerializeToString()).network
    tensors = {tensor.name: tensor for tensor in outlined.graph.initializer}
    assert tuple(tensors["large"].dims) == LARGE.shape
    assert not tensors["large"].raw_data
    assert np.array_equal(numpy_helper.to_array(tensors["factors"]), FACTORS)
    for model in (outlined, whole):
        del model.graph.initializer[:]
    assert outlined == whole


def test_a_model_of_some_nodes_has_the_constants_that_they_read(whole, open_session):
    outline = Outline(whole.SerializeToString())
    graph = whole.graph
    content = outline.model(graph.node, graph.input[0], graph.output[0])
    image = np.random.default_rng(0).integers(0, 256, (1, 5, 7, 3), np.uint8)
    found, expected = (
        open_session(model).run(None, {"image": image})[0]
        for model in (onnx.load_from_string(content), whole)
    )
    assert np.array_equal(found, expected)
    (resize,) = (node for node in graph.node if node.op_type == "Resize" and "factors" in str(node))
    part = onnx.load_from_string(outline.model([resize], graph.input[0], graph.output[0]))
    assert [numpy_helper.to_array(each).tolist() for each in part.graph.initializer] == [FACTORS.tolist()]


def test_a_file_that_is_cut_short_is_refused_or_outlined(whole):
    """As `onnx.load` does: a message may well end after any of its fields."""
    content = whole.SerializeToString()
    for length in [*range(200), *range(len(content) - 200, len(content))]:
        try:
            Outline(content[:length])
            known = True
        except DecodeError:
            known = False
        try:
            onnx.load_from_string(content[:length])
            loads = True
        except DecodeError:
            loads = False
        assert known == loads, length


@pytest.mark.parametrize("content", [b"\x80", b"\xff" * 20, b"\x3a\xff\xff\x03", b"\x0e\x00"])
def test_bytes_that_are_no_message_are_refused(content):
    with pytest.raises(DecodeError):
        Outline(content)
