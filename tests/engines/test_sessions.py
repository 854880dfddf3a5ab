"""Devices and sessions. What needs a GPU is left to machines that have one."""

import numpy as np
import onnxruntime
import pytest

from engines import ModelError, find_device, sessions
from onnx_models import ensure_built


@pytest.fixture(scope="module")
def session(catalogue, model_directory):
    model = catalogue.get("realesr-animevideov3")
    return find_device("cpu").open(ensure_built(model, model.weights[0], model_directory))


def test_the_cpu_is_always_there_and_runs_one_tile_at_a_time():
    device = find_device("cpu")
    assert (device.provider, device.largest_batch) == ("CPUExecutionProvider", 1)
    assert device.threads >= 1


def test_without_a_gpu_auto_means_the_cpu_and_cuda_says_why_not(monkeypatch):
    monkeypatch.setattr(sessions, "_why_no_cuda", lambda: "no NVIDIA driver is installed")
    assert find_device("auto") == find_device("cpu")
    with pytest.raises(ModelError, match="no GPU can be used: no NVIDIA driver is installed"):
        find_device("cuda")


def test_looking_for_a_gpu_ends_in_a_device_or_in_words():
    reason = sessions._why_no_cuda()
    assert reason is None or " " in reason


def test_the_network_that_probes_a_provider_can_be_run():
    probe = onnxruntime.InferenceSession(sessions._SMALLEST_MODEL, providers=["CPUExecutionProvider"])
    assert probe.run(None, {"x": np.ones(1, np.float32)}) == [1]


def test_a_session_takes_and_gives_batches_of_uint8_images(session):
    upscaled = session.run(np.zeros((2, 5, 7, 3), np.uint8))
    assert (upscaled.shape, upscaled.dtype) == ((2, 10, 14, 3), np.uint8)


def test_what_a_network_cannot_take_is_a_model_error(session):
    with pytest.raises(ModelError, match=r"the model failed on a batch of \(1, 5, 7, 4\)"):
        session.run(np.zeros((1, 5, 7, 4), np.uint8))


@pytest.mark.parametrize("content", [None, b"", b"not a network"])
def test_a_file_that_is_missing_or_no_network_is_a_model_error(content, tmp_path):
    if content is not None:
        (tmp_path / "broken.onnx").write_bytes(content)
    with pytest.raises(ModelError, match=r"broken\.onnx cannot be loaded on CPU"):
        find_device("cpu").open(tmp_path / "broken.onnx")
