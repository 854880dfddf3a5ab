import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx import TensorProto, helper, numpy_helper

from onnx_models import INPUT, OUTPUT
from onnx_models.graph import wrap_uint8


def core_of(gain: float, offset: float) -> onnx.ModelProto:
    """A stand-in for a network: gain * x + offset, each pixel made four."""
    nodes = [
        helper.make_node("Mul", ["x", "gain"], ["scaled"]),
        helper.make_node("Add", ["scaled", "offset"], ["shifted"]),
        helper.make_node("Resize", ["shifted", "", "scales"], ["y"], mode="nearest"),
    ]
    values = {"gain": gain, "offset": offset, "scales": [1, 1, 2, 2]}
    graph = helper.make_graph(
        nodes,
        "core",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, "h", "w"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3, None, None])],
        [numpy_helper.from_array(np.array(value, np.float32), name) for name, value in values.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture(scope="module")
def run(open_session):
    def run(images, gain=1.0, offset=0.0):
        return open_session(wrap_uint8(core_of(gain, offset), 2)).run([OUTPUT], {INPUT: images})[0]

    return run


def test_the_interface_is_uint8_nhwc_of_any_size():
    graph = wrap_uint8(core_of(1, 0), 2).graph
    shapes = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    }
    assert shapes == {
        "image": ["batch", "height", "width", 3],
        "upscaled": ["batch", "2*height", "2*width", 3],
    }
    assert {v.type.tensor_type.elem_type for v in (*graph.input, *graph.output)} == {TensorProto.UINT8}
    onnx.checker.check_model(wrap_uint8(core_of(1, 0), 2), full_check=True)


def test_every_level_survives_a_network_that_changes_nothing(run):
    levels = np.arange(256 * 3, dtype=np.uint16).astype(np.uint8).reshape(1, 16, 16, 3)
    np.testing.assert_array_equal(run(levels), levels.repeat(2, axis=1).repeat(2, axis=2))


@given(
    arrays(np.uint8, st.tuples(st.integers(1, 2), st.integers(1, 5), st.integers(1, 5), st.just(3))),
    st.floats(-3, 3, width=32),
    st.floats(-1, 1, width=32),
)
def test_the_output_is_the_core_scaled_clipped_and_rounded(run, images, gain, offset):
    core = images.astype(np.float32) / np.float32(255) * np.float32(gain) + np.float32(offset)
    levels = np.clip(core * np.float32(255), 0, 255).repeat(2, axis=1).repeat(2, axis=2)
    upscaled = run(images, gain, offset)
    assert upscaled.dtype == np.uint8
    assert upscaled.shape == levels.shape
    assert np.abs(upscaled - levels).max() <= 0.5 + 1e-3  # a runtime may fuse multiply and add


@pytest.mark.parametrize(("value", "level"), [(0.1, 26), (0.3, 76), (0.5, 128), (0.7, 178)])
def test_halves_are_rounded_to_the_even_level(run, value, level):
    """All four values are exactly half way: 25.5, 76.5, 127.5 and 178.5."""
    assert np.float32(value) * np.float32(255) % 1 == 0.5
    assert (run(np.zeros((1, 1, 1, 3), np.uint8), 1, value) == level).all()


def test_what_lies_outside_the_range_is_clipped_not_wrapped(run):
    black, white = np.zeros((1, 1, 1, 3), np.uint8), np.full((1, 1, 1, 3), 255, np.uint8)
    assert (run(white, 1, 0.25) == 255).all()
    assert (run(black, 1, -0.25) == 0).all()
