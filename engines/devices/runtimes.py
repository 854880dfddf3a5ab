"""The runtimes that compute networks, imported so that they report nothing to their makers.

Both send usage data over the network by default. Tilewire is self-hosted: nobody is to learn from it what
runs where, unless whoever runs it wants that and has set the variable to something else.
"""

import functools
import importlib
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

__all__ = [
    "import_onnxruntime",
    "import_openvino",
    "inference_session",
    "onnxruntime",
    "onnxruntime_version",
    "plugin_session",
]

if TYPE_CHECKING:
    onnxruntime: ModuleType
else:

    def __getattr__(name: str) -> object:
        """`onnxruntime`, for modules that need it as soon as they are imported."""
        if name == "onnxruntime":
            return import_onnxruntime()
        raise AttributeError(f"module 'engines.devices.runtimes' has no attribute {name!r}")


_PRIMITIVES = 256
"""Operations that oneDNN, in OpenVINO, keeps compiled for sizes seen before, until the process ends. Of its
1024, 40 MB stay after 60 sizes of animevideov3; of 256 half of that, and runs take as long (measured).
https://oneapi-src.github.io/oneDNN/dev_guide_primitive_cache.html
"""

_CONVERTER = "openvino.tools.ovc"
"""Of models of other frameworks; `import openvino` goes on without it."""


@functools.cache
def import_onnxruntime() -> ModuleType:
    """ONNX Runtime, which a server may do without, and which takes memory: imported on first use."""
    # Read when it is first imported: https://github.com/microsoft/onnxruntime/blob/main/docs/Privacy.md
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    module = importlib.import_module("onnxruntime")
    # What goes wrong is raised; it would also be printed, as would warnings at each session on a GPU.
    module.set_default_logger_severity(4)
    return module


def onnxruntime_version() -> str:
    """Which ONNX Runtime is installed, without importing it."""
    for package in ("onnxruntime-gpu", "onnxruntime"):
        with suppress(metadata.PackageNotFoundError):
            return metadata.version(package)
    return str(import_onnxruntime().__version__)  # a build of one's own


def inference_session(
    model: Path | bytes,
    threads: int,
    *providers: tuple[str, dict[str, str]],
) -> Any:
    """An ONNX file, by its path or its content, in ONNX Runtime.

    Args:
        model: the file.
        threads: how many one run may use.
        providers: what computes it, and their options, the first before the others; the first must start.

    Raises:
        Exception: of any class, if it cannot be loaded.
    """
    provider, options = providers[0][0], _session_options(threads)
    # Otherwise it would go on with the CPU, now or when a run fails, and print that.
    session = import_onnxruntime().InferenceSession(
        model, options, providers=list(providers), enable_fallback=0
    )
    return _started(session, provider)


def plugin_session(model: bytes, threads: int, device: Any, options: Mapping[str, str]) -> Any:
    """An ONNX file in ONNX Runtime, computed by a provider that is a plugin.

    Args:
        model: the content of the file.
        threads: how many one run may use.
        device: what computes it, one of `onnxruntime.get_ep_devices()`.
        options: of its provider.

    Raises:
        Exception: of any class, if it cannot be loaded.
    """
    session_options = _session_options(threads)
    session_options.add_provider_for_devices([device], dict(options))
    return _started(import_onnxruntime().InferenceSession(model, session_options), device.ep_name)


def _session_options(threads: int) -> Any:
    options = import_onnxruntime().SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # what goes wrong is raised
    # A plan for each size of pictures keeps the memory of those before.
    options.enable_mem_pattern = False
    # Threads that spin while they wait would take the cores from the event loop and the codecs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _started(session: Any, provider: str) -> Any:
    if provider not in session.get_providers():
        raise RuntimeError(f"{provider} does not start")
    return session


def import_openvino() -> ModuleType:
    """OpenVINO, which takes a while and is not everywhere: imported on first use.

    None in `sys.modules` makes a module seem not to be installed. So its converter of models is left out, to
    which half of the time and 8 of 22 MB go: nothing is converted here. It would also report every import,
    through the package openvino-telemetry: that is left out for good.

    Raises:
        ImportError: if it is not installed, or cannot be loaded.
    """
    if "openvino" in sys.modules:
        return importlib.import_module("openvino")
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(_PRIMITIVES))
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    sys.modules[_CONVERTER] = None  # type: ignore[assignment]
    try:
        return importlib.import_module("openvino")
    finally:
        sys.modules.pop(_CONVERTER, None)  # whoever uses this as a library may want it
