"""NVIDIA GPUs. Those marked `gpu` need one: `pytest -m gpu`."""

import numpy as np
import onnxruntime
import pytest

from engines import DeviceOutOfMemoryError, ModelError, cuda_device, find_devices
from engines.cuda_device import CudaDevice, find_gpus


def test_looking_for_gpus_ends_in_devices_or_in_words():
    found = find_gpus()
    assert " " in found if isinstance(found, str) else all(isinstance(gpu, CudaDevice) for gpu in found)


def test_the_network_that_probes_a_provider_can_be_run():
    probe = onnxruntime.InferenceSession(cuda_device._SMALLEST_MODEL, providers=["CPUExecutionProvider"])
    assert probe.run(None, {"x": np.ones(1, np.float32)}) == [1]


def test_a_gpu_that_cannot_be_used_is_a_model_error_not_the_cpu(small_network):
    with pytest.raises(ModelError, match=r"cannot be loaded on CUDA 99, none"):
        CudaDevice(99, "none").open(small_network)


@pytest.mark.gpu
def test_a_gpu_gives_what_the_cpu_gives(small_network):
    gpus = find_devices("cuda")
    tiles = np.random.default_rng(0).integers(0, 256, (2, 40, 56, 3), np.uint8)
    expected = find_devices("cpu")[0].open(small_network).run(tiles)
    for gpu in gpus:
        difference = gpu.open(small_network).run(tiles).astype(int) - expected
        assert np.abs(difference).max() <= 2, gpu.name


@pytest.mark.gpu
def test_a_batch_beyond_the_memory_of_a_gpu_is_known_as_such(small_network):
    session = find_devices("cuda")[0].open(small_network)
    with pytest.raises(DeviceOutOfMemoryError):
        session.run(np.zeros((64, 4096, 4096, 3), np.uint8))
    assert session.run(np.zeros((1, 8, 8, 3), np.uint8)).shape == (1, 16, 16, 3)


@pytest.mark.gpu
def test_a_gpu_that_has_a_network_loaded_tells_its_memory(network_file):
    (gpu, *_) = find_devices("cuda")
    gpu.open(network_file)
    memory = gpu.memory_use()
    assert 0 < memory.used < memory.size
