"""How networks are opened on NVIDIA GPUs, with the CPU in their place; test_gpu.py has the real thing."""

import logging
import re
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest

from engines import DeviceLostError, ModelError, find_devices
from engines.devices.cuda import device as cuda_device
from engines.devices.cuda.device import CudaDevice, find_gpus
from engines.devices.sessions import Network
from onnx_models.graph import wrap_uint8
from tests.engines.support.tiny_networks import by_way_of


def test_looking_for_gpus_ends_in_devices_or_in_words():
    found = find_gpus()
    assert " " in found if isinstance(found, str) else all(isinstance(gpu, CudaDevice) for gpu in found)


def test_the_network_that_probes_a_provider_can_be_run():
    probe = onnxruntime.InferenceSession(cuda_device._SMALLEST_MODEL, providers=["CPUExecutionProvider"])
    assert probe.run(None, {"x": np.ones(1, np.float32)}) == [1]


def test_a_gpu_that_cannot_be_used_is_a_model_error_not_the_cpu(small_network):
    with pytest.raises(ModelError, match=r"cannot be loaded on CUDA 99, none"):
        CudaDevice(99, "none").open(small_network)


def saved(model, path):
    onnx.save(model, path)
    return Network(path, 2, 16)


@pytest.fixture
def network(tmp_path):
    return saved(wrap_uint8(by_way_of(1), 2), tmp_path / "double.onnx")


@pytest.fixture
def overflowing(tmp_path):
    return saved(wrap_uint8(by_way_of(1e6), 2), tmp_path / "huge.onnx")


def test_a_network_that_stays_near_itself_runs_in_half_precision(small_network, opened):
    session = CudaDevice(0, "H200").open(replace(small_network, tile=16))
    half, full = opened
    assert (half.halved, half.graphs) == (True, True)
    assert (full.halved, full.graphs) == (False, False)
    tiles = np.random.default_rng(0).integers(0, 256, (2, 12, 16, 3), np.uint8)
    expected = find_devices("cpu", "onnxruntime")[0].open(small_network).run(tiles)
    assert np.abs(session.run(tiles).astype(int) - expected).max() <= 1


def test_tf32_is_off_exactly_where_single_precision_is_wanted(network, opened):
    CudaDevice(3, "H200").open(network)
    CudaDevice(3, "H200", "fp32").open(network)
    assert [(each.halved, each.options.get("use_tf32")) for each in opened] == [
        (True, None),
        (False, "0"),
        (False, "0"),
    ]
    assert all(each.options["device_id"] == "3" for each in opened)


def test_a_network_that_overflows_runs_in_single_precision_and_one_line_says_so(overflowing, opened, caplog):
    caplog.set_level(logging.INFO)
    session = CudaDevice(0, "H200").open(overflowing)
    assert [each.halved for each in opened] == [True, False, False]
    tiles = np.full((1, 8, 8, 3), 77, np.uint8)
    assert np.array_equal(session.run(tiles), tiles.repeat(2, 1).repeat(2, 2))
    (line,) = [record.message for record in caplog.records]
    assert re.fullmatch(r"CUDA 0, H200 computes in fp32: in fp16 huge\.onnx is within -?\d+ dB only", line)


def test_half_precision_that_is_asked_for_by_name_is_given_unseen(overflowing, opened):
    CudaDevice(0, "H200", "fp16").open(overflowing)
    assert [each.halved for each in opened] == [True]


def test_half_precision_that_cannot_be_had_is_an_error_only_where_it_is_asked_for(tmp_path, opened):
    network = saved(by_way_of(1), tmp_path / "own.onnx")
    with pytest.raises(ModelError, match=r"own\.onnx has no fp16 form: it takes pixels in a way of its own"):
        CudaDevice(0, "H200", "fp16").open(network)
    assert not opened


def test_graphs_are_left_out_where_onnx_runtime_has_the_fault(network, opened, monkeypatch):
    monkeypatch.setattr(cuda_device.onnxruntime, "__version__", "1.30.2")
    CudaDevice(0, "H200", "fp32").open(network)
    assert [each.graphs for each in opened] == [False]


def test_a_device_that_is_lost_while_it_loads_is_lost(network, opened, monkeypatch):
    def lose(*_):
        raise RuntimeError("CUDA failure 719: unspecified launch failure")

    monkeypatch.setattr(cuda_device, "inference_session", lose)
    with pytest.raises(DeviceLostError, match="cannot be loaded on CUDA 0, H200"):
        CudaDevice(0, "H200").open(network)


def test_what_is_measured_holds_for_equal_hardware_and_precision():
    assert CudaDevice(0, "H200").kind == CudaDevice(1, "H200").kind
    assert CudaDevice(0, "H200").kind != CudaDevice(0, "H200", "fp32").kind
