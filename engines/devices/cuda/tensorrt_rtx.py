"""NVIDIA's RTX cards by TensorRT for RTX, which comes as a plugin of ONNX Runtime with all its libraries.

Its precision is that of the graph. Options, and the cards that it knows: `tensorrt_rtx_provider_options.h` in
the wheel onnxruntime-ep-nv-tensorrt-rtx-cu13 0.5.0.
"""

import importlib
import logging
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from engines.devices.cores import usable_cores
from engines.devices.cuda.device import GATE, CudaDevice, GatedSession, GpuSession
from engines.devices.cuda.driver import Gpu, gpus_of, index_of_bus, open_driver
from engines.devices.cuda.tensorrt import TensorRtDevice, engine_directory, profile, with_casts_outside
from engines.devices.failures import loading
from engines.devices.ort import OrtSession
from engines.devices.runtimes import onnxruntime, plugin_session
from engines.devices.sessions import Network
from engines.errors import ModelError

__all__ = ["RtxDevice", "find_tensorrt_rtx"]

log = logging.getLogger(__name__)

_MODULE = "onnxruntime_ep_nv_tensorrt_rtx"


@dataclass(frozen=True, slots=True)
class RtxDevice(TensorRtDevice):
    """An RTX card by TensorRT for RTX, and by CUDA for what that cannot run."""

    product: str = "TensorRT for RTX"
    plugin: Any = field(default=None, compare=False)
    """Of `onnxruntime.get_ep_devices()`."""

    def _open_model(self, network: Network, model: Path | bytes, _options: dict[str, str]) -> GpuSession:
        if isinstance(model, Path):  # and it has no option to turn TF32 off
            raise ModelError("it computes in fp32")
        content, image = with_casts_outside(model)
        engine = {
            "nv_runtime_cache_path": str(engine_directory(self, network, content)),
            **profile(network, image, "nv_profile_{}_shapes"),
        }
        with loading(network.path.name, self.name), GATE.use():
            return GatedSession(OrtSession(plugin_session(content, usable_cores(), self.plugin, engine)))


def find_tensorrt_rtx(gpus: tuple[CudaDevice, ...]) -> tuple[RtxDevice, ...]:
    """Those of the GPUs that it knows, at least one.

    Raises:
        ModelError: if it is not installed, or cannot be used; the message says why.
    """
    try:
        module = importlib.import_module(_MODULE)
    except ImportError as error:
        raise ModelError(
            "TensorRT for RTX is not installed; pip install onnxruntime-ep-nv-tensorrt-rtx-cu13 brings it"
        ) from error
    driver = open_driver()
    cards = gpus_of(driver)
    known = [gpu for gpu in gpus if _is_known(cards[gpu.index])]
    reasons = [_why_unknown(cards[gpu.index]) for gpu in gpus if gpu not in known]
    if not known:
        raise ModelError(reasons[0])
    plugins = {
        0 if len(cards) == 1 else index_of_bus(driver, plugin.device.metadata.get("pci_bus_id", "")): plugin
        for plugin in _plugins(module)
    }
    found = [
        RtxDevice(gpu.index, gpu.hardware, gpu.precision, module.__version__, plugin=plugins[gpu.index])
        for gpu in known
        if gpu.index in plugins
    ]
    if not found:
        raise ModelError(
            f"TensorRT for RTX {module.__version__} finds none of the GPUs; is the driver too old?"
        )
    for reason in reasons:
        log.warning("%s", reason)
    return tuple(found)


def _is_known(card: Gpu) -> bool:
    """As `IsComputeCapabilitySupported` has it."""
    return card.capability in {(8, 6), (8, 9)} or card.capability >= (12, 0)


def _why_unknown(card: Gpu) -> str:
    verdict = "too old for" if card.capability < (8, 0) else "no card for"
    capability = ".".join(map(str, card.capability))
    return (
        f"{card.name} (compute capability {capability}) is {verdict} TensorRT for RTX, "
        'which needs 8.6, 8.9, or 12.0 and above; use runtime = "auto"'
    )


def _plugins(module: Any) -> list[Any]:
    name: str = module.get_ep_name()
    try:
        _register(name, module.get_library_path())
    except Exception as error:  # of ONNX Runtime's classes, or that the file is missing
        raise ModelError(f"TensorRT for RTX cannot be loaded: {error}") from error
    return [device for device in onnxruntime.get_ep_devices() if device.ep_name == name]


@cache
def _register(name: str, library: str) -> None:
    """Once in a process; a second time is an error.

    The plugin uses the CUDA runtime that `onnxruntime.preload_dlls` loads: its own has another file name.
    """
    onnxruntime.register_execution_provider_library(name, library)
