"""Which devices are found, and what they make of files."""

import pytest

from engines import ModelError, find_devices, stand_in_for
from engines.devices import find as devices
from engines.devices.cuda.device import CudaDevice
from engines.devices.sessions import Network


def test_the_cpu_is_always_there_and_runs_one_tile_at_a_time():
    (device,) = find_devices("cpu")
    assert device.name.startswith("CPU, ")
    assert device.largest_batch == 1
    assert device.threads >= 1


def test_without_a_gpu_auto_means_the_cpu_and_cuda_says_why_not(monkeypatch):
    monkeypatch.setattr(devices, "find_gpus", lambda _precision: "no NVIDIA driver is installed")
    assert find_devices("auto") == find_devices("cpu")
    with pytest.raises(ModelError, match="no GPU can be used: no NVIDIA driver is installed"):
        find_devices("cuda")


def test_half_precision_is_for_gpus(monkeypatch):
    monkeypatch.setattr(devices, "find_gpus", lambda precision: (CudaDevice(0, "H200", precision),))
    assert [device.precision for device in find_devices("auto", precision="fp16")] == ["fp16"]
    with pytest.raises(
        ModelError, match="fp16 needs a GPU: a CPU computes in fp32, or with OpenVINO in bf16"
    ):
        find_devices("cpu", precision="fp16")


def test_every_gpu_is_a_device(monkeypatch):
    monkeypatch.setattr(
        devices, "find_gpus", lambda _precision: (CudaDevice(0, "H200"), CudaDevice(1, "H200"))
    )
    assert [device.name for device in find_devices("auto")] == ["CUDA 0, H200", "CUDA 1, H200"]
    assert len({device.kind for device in find_devices("cuda")}) == 1
    assert all(device.name.startswith("CPU") for device in find_devices("cpu"))


def test_the_cpu_stands_in_for_gpus_unless_they_are_asked_for_by_name():
    gpus = [CudaDevice(0, "H200", "fp16")]
    (cpu,) = find_devices("cpu")
    assert stand_in_for(gpus, "auto", "auto", "fp16")() == cpu
    assert stand_in_for(gpus, "cuda", "auto", "auto") is None
    assert stand_in_for([cpu], "auto", "auto", "auto") is None


@pytest.mark.parametrize("content", [None, b"", b"not a network"])
def test_a_file_that_is_missing_or_no_network_is_a_model_error(content, tmp_path):
    if content is not None:
        (tmp_path / "broken.onnx").write_bytes(content)
    with pytest.raises(ModelError, match=r"broken\.onnx cannot be loaded on CPU"):
        find_devices("cpu")[0].open(Network(tmp_path / "broken.onnx", 2, 64))
