"""Which NVIDIA GPUs can be used, and what is wrong with the others.

What is installed tells little: ONNX Runtime loads cuDNN when it first convolves, and a card runs only code
that was compiled for its kind. So each GPU has to compute a picture as it will have to compute all others, by
convolutions in fp16 with channels last, and what comes out is compared with what a CPU makes of it.
"""

import contextlib
import ctypes
import io
import logging
import os

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from engines.devices.cuda.device import CudaDevice, GpuPrecision
from engines.devices.cuda.driver import Gpu, cuda_version, gpus_of, open_driver
from engines.devices.cuda.half import halve
from engines.devices.ort import OrtSession
from engines.devices.runtimes import inference_session, onnxruntime
from onnx_models import one_line, wrap_uint8

__all__ = ["ARCHITECTURES", "find_gpus", "probe_network"]

log = logging.getLogger(__name__)

_CUDA = (13, 0)
"""What ONNX Runtime is built for; a driver serves its own major version and those before."""

ARCHITECTURES = ((7, 5), (8, 0), (8, 6), (8, 9), (9, 0), (12, 0))
"""The compute capabilities that onnxruntime-gpu 1.31 has code for, and none to compile for others; each also
runs on later cards of its major version. For messages: the probe decides."""

_INSTALL = "pip install 'tilewire[cuda]' brings them"


def find_gpus(precision: GpuPrecision = "auto") -> tuple[CudaDevice, ...] | str:
    """The GPUs that ONNX Runtime can compute on, at least one; or why there is none, in words.

    The driver is asked first: without one, ONNX Runtime's attempt would print errors of several lines.
    """
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        return "this build of ONNX Runtime has no CUDA"
    try:
        driver = open_driver()
    except OSError:
        return "no NVIDIA driver is installed"
    if not (found := gpus_of(driver)):
        return "the NVIDIA driver finds no device"
    if (version := cuda_version(driver)) < _CUDA:
        return (
            f"the NVIDIA driver serves CUDA {version[0]}.{version[1]} at most, and {_CUDA[0]}.{_CUDA[1]} is "
            "needed: install driver 580 or later"
        )
    with contextlib.redirect_stdout(io.StringIO()):  # what cannot be loaded is named below
        onnxruntime.preload_dlls()
    devices = [CudaDevice(index, gpu.name, precision) for index, gpu in enumerate(found)]
    wrong = {device: _what_is_wrong(device, gpu) for device, gpu in zip(devices, found, strict=True)}
    reasons = {device.name: reason for device, reason in wrong.items() if reason is not None}
    if len(reasons) == len(devices):
        return "; ".join(dict.fromkeys(reasons.values()))
    for name, reason in reasons.items():
        log.warning("%s cannot be used: %s", name, reason)
    return tuple(device for device, reason in wrong.items() if reason is None)


def probe_network() -> bytes:
    """A small network in fp16 as all others are: bytes, two 3 × 3 convolutions with biases, bytes again."""
    random = np.random.default_rng(0)
    weights = [random.normal(0, 0.02, shape).astype(np.float32) for shape in ((8, 3, 3, 3), (3, 8, 3, 3))]
    for weight in weights:  # a picture comes out much as it went in
        weight[(0, 1, 2), (0, 1, 2), 1, 1] += 1
    constants = [numpy_helper.from_array(weight, f"weight{index}") for index, weight in enumerate(weights)]
    for index, channels in enumerate((8, 3)):
        constants.append(numpy_helper.from_array(np.full(channels, 0.03, np.float32), f"bias{index}"))
    nodes = [
        helper.make_node("Conv", ["x", "weight0", "bias0"], ["wide"], pads=[1] * 4),
        helper.make_node("LeakyRelu", ["wide"], ["active"], alpha=0.2),
        helper.make_node("Conv", ["active", "weight1", "bias1"], ["y"], pads=[1] * 4),
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3, "height", "width"])
        for name in ("x", "y")
    ]
    graph = helper.make_graph(nodes, "probe", ends[:1], ends[1:], constants)
    core = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(core)
    return halve(wrap_uint8(core, 1), "the probe")


def _what_is_wrong(device: CudaDevice, gpu: Gpu) -> str | None:
    """Why this GPU cannot be used; None if it computes as it should."""
    content = probe_network()
    picture = np.random.default_rng(1).integers(0, 256, (1, 32, 32, 3), np.uint8)
    expected = OrtSession(inference_session(content, 1, ("CPUExecutionProvider", {}))).run(picture)
    try:
        options = device.half_precision()
        found = OrtSession(inference_session(content, 1, ("CUDAExecutionProvider", options))).run(picture)
    except Exception as error:  # noqa: BLE001 - whatever it is, this GPU cannot be used
        return _diagnosis(one_line(error), gpu)
    levels = np.abs(found.astype(np.int16) - expected).max()
    return None if levels <= _TOLERANCE else f"it computes wrong pictures, by up to {levels} levels of 255"


def _diagnosis(error: str, gpu: Gpu) -> str:
    known = error.lower()
    if "no kernel image" in known or "arch_mismatch" in known:
        capabilities = ", ".join(f"{major}.{minor}" for major, minor in ARCHITECTURES)
        return (
            f"{gpu.name} has the compute capability {gpu.capability[0]}.{gpu.capability[1]}, "
            f"and ONNX Runtime {onnxruntime.__version__} is compiled for {capabilities}"
        )
    if "does not start" in known or "cannot open shared object" in known:
        return f"the libraries of CUDA 13 are missing or too old; {_INSTALL} ({error})"
    if "cudnn" in known or not _has_cudnn():
        return f"cuDNN 9 is missing or does not work; {_INSTALL} ({error})"
    return error


def _has_cudnn() -> bool:
    try:
        ctypes.CDLL("cudnn64_9.dll" if os.name == "nt" else "libcudnn.so.9")
    except OSError:
        return False
    return True


_TOLERANCE = 2
"""Levels of 255; rounding in fp16 makes one."""
