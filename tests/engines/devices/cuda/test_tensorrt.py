"""What is asked of TensorRT, with the CPU in its place."""

import logging
from dataclasses import replace

import numpy as np
import onnx
import pytest

from engines import DeviceLostError, ModelError, find_devices
from engines.devices import find as devices
from engines.devices.cuda import device as cuda_device
from engines.devices.cuda import tensorrt as tensorrt_device
from engines.devices.cuda.device import CudaDevice
from engines.devices.cuda.tensorrt import TensorRtDevice, with_casts_outside
from engines.devices.ort import OrtSession
from engines.devices.runtimes import inference_session
from engines.devices.sessions import Network
from onnx_models.graph import INPUT, OUTPUT, wrap_uint8
from onnx_models.sizes import SizeRule, fit_sizes
from tests.engines.support.tiny_networks import by_way_of

TENSORRT = "TensorrtExecutionProvider"
DEVICE = TensorRtDevice(0, "H200", "auto", "101301")


@pytest.fixture
def network(tmp_path):
    path = tmp_path / "double.onnx"
    onnx.save(wrap_uint8(by_way_of(1), 2), path)
    return Network(path, 2, 16)


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)


def doubled(tiles):
    return tiles.repeat(2, 1).repeat(2, 2)


def test_the_casts_come_first_and_last_and_the_result_is_the_same(small_network):
    content, image = with_casts_outside(small_network.path.read_bytes())
    (first,) = [node for node in onnx.load_from_string(content).graph.node if INPUT in node.input]
    (last,) = [node for node in onnx.load_from_string(content).graph.node if OUTPUT in node.output]
    assert (first.op_type, last.op_type, image) == ("Cast", "Cast", INPUT)
    before, after = (
        OrtSession(inference_session(model, 2, ("CPUExecutionProvider", {})))
        for model in (small_network.path, content)
    )
    assert np.array_equal(before.run(noise(2, 12, 9)), after.run(noise(2, 12, 9)))


def test_the_image_of_a_network_that_fits_sizes_is_the_fitted_one(tmp_path):
    model = fit_sizes(wrap_uint8(by_way_of(1), 2), 2, SizeRule(8, 16))
    content, image = with_casts_outside(model.SerializeToString())
    assert image == "sizes.image"
    session = OrtSession(inference_session(content, 1, ("CPUExecutionProvider", {})))
    assert np.array_equal(session.run(noise(1, 5, 9)), doubled(noise(1, 5, 9)))


def test_engines_are_kept_by_network_and_version_and_bounded_by_the_tile(network, opened):
    session = DEVICE.open(network)
    options = opened[0].providers[TENSORRT]
    assert list(opened[0].providers) == [TENSORRT, "CUDAExecutionProvider"]
    assert options["trt_fp16_enable"] == "True"
    assert options["trt_profile_max_shapes"] == "image:4x16x16x3"
    assert options["trt_engine_cache_path"].startswith(str(network.path.parent / "tensorrt" / "double-"))
    assert options["trt_engine_cache_path"].endswith("-101301")
    assert np.array_equal(session.run(noise(4, 16, 12)), doubled(noise(4, 16, 12)))
    replace(DEVICE, precision="fp32").open(network)
    other = opened[-1].providers[TENSORRT]
    assert other["trt_fp16_enable"] == "False"
    assert other["trt_engine_cache_path"] != options["trt_engine_cache_path"]


def test_what_is_beyond_an_engine_is_left_to_cuda(network, opened, monkeypatch):
    monkeypatch.setattr(cuda_device, "_COMMON_SIDES", ())
    session = DEVICE.open(network)
    session.run(noise(1, 16, 16))
    assert sum(TENSORRT not in each.providers for each in opened) == 1  # the reference
    for shape in [(1, 40, 6), (5, 8, 8)]:
        assert np.array_equal(session.run(noise(*shape)), doubled(noise(*shape)))
    assert [list(each.providers) for each in opened[2:]] == [["CUDAExecutionProvider"]] * 2


def test_a_network_that_tensorrt_cannot_run_is_left_to_cuda_and_one_line_says_so(network, opened, caplog):
    caplog.set_level(logging.INFO)
    onnx.save(by_way_of(1), network.path)
    with pytest.raises(ModelError):  # nor can the CPU stand in for it, as it gives floats
        DEVICE.open(network).run(noise(1, 8, 8))
    assert (
        "CUDA 0, H200, TensorRT leaves double.onnx to CUDA: it takes pixels in a way of its own"
        in caplog.text
    )


def test_a_device_that_is_lost_while_an_engine_is_built_is_lost(network, opened, monkeypatch):
    def lose(*_):
        raise RuntimeError("CUDA failure 700: an illegal memory access was encountered")

    monkeypatch.setattr(cuda_device, "inference_session", lose)
    with pytest.raises(DeviceLostError):
        DEVICE.open(network)


def test_without_its_libraries_it_is_an_error_to_ask_for_tensorrt_and_auto_means_cuda(monkeypatch):
    def missing():
        raise OSError("libnvinfer.so.10: cannot open shared object file")

    gpus = (CudaDevice(0, "H200"),)
    monkeypatch.setattr(devices, "find_gpus", lambda _precision: gpus)
    monkeypatch.setattr(tensorrt_device, "_load_libraries", missing)
    with pytest.raises(ModelError, match=r"TensorRT 10 is not installed, pip install .* libnvinfer\.so\.10"):
        find_devices("auto", "tensorrt")
    assert find_devices("auto", "auto") == gpus


def test_tensorrt_is_for_gpus(monkeypatch):
    monkeypatch.setattr(devices, "find_gpus", lambda _precision: "no NVIDIA driver is installed")
    with pytest.raises(ModelError, match="no GPU can be used: no NVIDIA driver is installed"):
        find_devices("auto", "tensorrt")
    with pytest.raises(ModelError, match="TensorRT needs a GPU"):
        find_devices("cpu", "tensorrt")


def test_every_gpu_is_a_device_of_tensorrt(monkeypatch):
    monkeypatch.setattr(
        devices, "find_gpus", lambda _precision: (CudaDevice(0, "H200"), CudaDevice(1, "H200"))
    )
    monkeypatch.setattr(tensorrt_device, "_load_libraries", lambda: 101301)
    found = find_devices("auto", "tensorrt")
    assert [device.name for device in found] == ["CUDA 0, H200, TensorRT", "CUDA 1, H200, TensorRT"]
    assert len({device.kind for device in found}) == 1
