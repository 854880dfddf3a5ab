"""Which GPUs can be used and what is said of the others, with a driver and a provider that are made up."""

import logging

import numpy as np
import pytest

from engines.devices import runtimes
from engines.devices.cuda import find
from engines.devices.cuda.device import CudaDevice
from engines.devices.cuda.driver import Gpu
from engines.devices.cuda.find import find_gpus, probe_network
from engines.devices.ort import OrtSession
from engines.devices.runtimes import inference_session

H200, B200 = Gpu("NVIDIA H200", (9, 0)), Gpu("NVIDIA B200", (10, 0))
NO_KERNEL = (
    "CUDA failure 209: no kernel image is available for execution on the device ; expr=cudaGetLastError()"
)


def test_looking_for_gpus_ends_in_devices_or_in_words():
    found = find_gpus()
    assert " " in found if isinstance(found, str) else all(isinstance(gpu, CudaDevice) for gpu in found)


def test_the_network_that_probes_a_gpu_gives_a_picture_like_the_one_it_takes():
    session = OrtSession(inference_session(probe_network(), 1, ("CPUExecutionProvider", {})))
    picture = np.random.default_rng(0).integers(60, 120, (2, 9, 14, 3), np.uint8)
    result = session.run(picture)
    assert result.shape == picture.shape
    assert 1 < np.abs(result.astype(int) - picture).mean() < 20


@pytest.fixture
def machine(monkeypatch):
    """Lets the CPU stand in for GPUs; `raises` has what is raised by number, `version` is the driver's."""

    class Machine:
        gpus, raises, version, shift = [H200], {}, (13, 0), 0

    def session(model, threads, provider):
        name, options = provider
        if name == "CPUExecutionProvider":
            return runtimes.inference_session(model, threads, provider)
        assert (options["prefer_nhwc"], options["fuse_conv_bias"]) == ("1", "1")
        if (error := Machine.raises.get(int(options["device_id"]))) is not None:
            raise error
        return Shifted(runtimes.inference_session(model, threads, ("CPUExecutionProvider", {})))

    class Shifted:
        def __init__(self, session):
            self.session = session

        def get_inputs(self):
            return self.session.get_inputs()

        def run(self, *given):
            return [result + np.uint8(Machine.shift) for result in self.session.run(*given)]

    monkeypatch.setattr(
        find.onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    monkeypatch.setattr(find.onnxruntime, "preload_dlls", lambda: print("Failed to load libcudnn"))
    monkeypatch.setattr(find, "inference_session", session)
    monkeypatch.setattr(find, "open_driver", object)
    monkeypatch.setattr(find, "gpus_of", lambda _driver: Machine.gpus)
    monkeypatch.setattr(find, "cuda_version", lambda _driver: Machine.version)
    monkeypatch.setattr(find, "_has_cudnn", lambda: True)
    return Machine


def test_a_gpu_that_computes_as_a_cpu_does_can_be_used(machine, capsys):
    assert find_gpus("fp16") == (CudaDevice(0, "NVIDIA H200", "fp16"),)
    assert capsys.readouterr() == ("", "")


def test_an_old_driver_is_named_with_what_it_lacks(machine):
    machine.version = (12, 8)
    assert find_gpus() == (
        "the NVIDIA driver serves CUDA 12.8 at most, and 13.0 is needed: install driver 580 or later"
    )


def test_a_card_that_there_is_no_code_for_is_named_and_the_others_are_used(machine, caplog):
    machine.gpus, machine.raises = [B200, H200], {0: RuntimeError(NO_KERNEL)}
    with caplog.at_level(logging.WARNING):
        assert find_gpus() == (CudaDevice(1, "NVIDIA H200"),)
    assert "CUDA 0, NVIDIA B200 cannot be used: NVIDIA B200 has the compute capability 10.0" in caplog.text
    assert "is compiled for 7.5, 8.0, 8.6, 8.9, 9.0, 12.0" in caplog.text


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (RuntimeError(NO_KERNEL), "NVIDIA H200 has the compute capability 9.0, and ONNX Runtime"),
        (
            RuntimeError("CUDAExecutionProvider does not start"),
            "the libraries of CUDA 13 are missing or too old; pip install 'tilewire[cuda]' brings them",
        ),
        (
            RuntimeError("libcublasLt.so.13: cannot open shared object file: No such file or directory"),
            "the libraries of CUDA 13 are missing or too old; pip install 'tilewire[cuda]' brings them",
        ),
        (
            RuntimeError("Unable to find symbol cudnnGetVersion"),
            "cuDNN 9 is missing or does not work; pip install 'tilewire[cuda]' brings them",
        ),
        (MemoryError("CUDA failure 2: out of memory"), "CUDA failure 2: out of memory"),
    ],
)
def test_what_is_wrong_with_the_only_gpu_is_why_there_is_none(error, words, machine, caplog):
    machine.raises = {0: error}
    assert find_gpus().startswith(words)
    assert not caplog.records


def test_where_cudnn_is_missing_a_convolution_that_fails_in_other_words_is_put_down_to_it(
    machine, monkeypatch
):
    monkeypatch.setattr(find, "_has_cudnn", lambda: False)
    machine.raises = {0: RuntimeError("Conv failed")}
    assert find_gpus() == (
        "cuDNN 9 is missing or does not work; pip install 'tilewire[cuda]' brings them (Conv failed)"
    )


def test_a_gpu_that_computes_something_else_is_not_used(machine):
    machine.shift = 9
    assert find_gpus().startswith("it computes wrong pictures, by up to ")
