"""The runtimes that compute networks, imported so that they report nothing to their makers.

Both send usage data over the network by default. Tilewire is self-hosted: nobody is to learn from it what
runs where, unless whoever runs it wants that and has set the variable to something else.
"""

import importlib
import os
import sys
from types import ModuleType

__all__ = ["import_openvino", "onnxruntime"]

# Read when it is first imported: https://github.com/microsoft/onnxruntime/blob/main/docs/Privacy.md
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime


def import_openvino() -> ModuleType:
    """OpenVINO, which is optional and takes a while: imported on first use.

    It reports every import through the package openvino-telemetry, and uses a stub where there is none
    (openvino/tools/ovc/telemetry_utils.py). None in `sys.modules` makes it seem so.

    Raises:
        ImportError: if it is not installed, or cannot be loaded.
    """
    if "openvino" not in sys.modules:
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    return importlib.import_module("openvino")
