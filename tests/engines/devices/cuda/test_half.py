"""Half precision: what is converted, what stays as it is, and how near the result is."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from engines import ModelError
from engines.devices.cuda import half
from engines.devices.cuda.half import halved
from engines.devices.ort import OrtSession
from engines.devices.parity import LEAST_DECIBELS, parity
from engines.devices.runtimes import inference_session
from onnx_models.graph import INPUT, OUTPUT, wrap_uint8
from onnx_models.sizes import SizeRule, fit_sizes
from tests.engines.support.tiny_networks import by_way_of


def run_by(model):
    return OrtSession(inference_session(model, 1, ("CPUExecutionProvider", {})))


def saved(model, directory):
    path = directory / "network.onnx"
    onnx.save(model, path)
    return path


def test_a_network_in_half_precision_is_half_as_large_and_nearly_the_same(small_network):
    content = halved(small_network.path)
    assert len(content) < 0.52 * small_network.path.stat().st_size
    onnx.checker.check_model(onnx.load_from_string(content), full_check=True)
    decibels = parity(run_by(content), run_by(small_network.path))
    assert LEAST_DECIBELS < decibels < float("inf")


def test_pixels_go_in_and_out_as_before_and_are_scaled_and_rounded_in_single_precision(small_network):
    graph = onnx.load_from_string(halved(small_network.path)).graph
    assert [value.name for value in (*graph.input, *graph.output)] == [INPUT, OUTPUT]
    kinds = {tensor.name: tensor.data_type for tensor in graph.initializer}
    assert {kinds[name] for name in kinds if name.startswith("wrap.")} == {TensorProto.FLOAT}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    assert {kinds[name] for node in convolutions for name in node.input[1:]} == {TensorProto.FLOAT16}
    outer = [node for node in graph.node if node.name.startswith("wrap.")]
    assert len(outer) == 8
    assert all(node.input[1:] == ["wrap.255"] for node in outer if node.op_type in {"Mul", "Div"})


def test_what_fits_images_to_a_network_is_left_alone(tmp_path):
    path = saved(fit_sizes(wrap_uint8(by_way_of(1), 2), 2, SizeRule(8, 16)), tmp_path)
    tiles = np.random.default_rng(0).integers(0, 256, (2, 5, 21, 3), np.uint8)
    assert np.array_equal(run_by(halved(path)).run(tiles), tiles.repeat(2, 1).repeat(2, 2))


def test_a_network_that_overflows_is_far_from_what_it_was(tmp_path):
    path = saved(wrap_uint8(by_way_of(1e6), 2), tmp_path)
    assert parity(run_by(path), run_by(path)) == float("inf")
    assert parity(run_by(halved(path)), run_by(path)) < LEAST_DECIBELS


def test_a_network_that_takes_pixels_in_a_way_of_its_own_is_not_converted(tmp_path):
    with pytest.raises(ModelError, match="it takes pixels in a way of its own"):
        halved(saved(by_way_of(1), tmp_path))


def test_a_network_that_the_converter_fails_at_is_a_model_error(small_network, monkeypatch):
    def fail():
        raise AssertionError("no such type")

    monkeypatch.setattr(half, "_converter", fail)
    with pytest.raises(ModelError, match="no such type"):
        halved(small_network.path)
