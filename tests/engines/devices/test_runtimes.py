"""Nothing is reported to anyone. Each in a process of its own: what is imported is imported once."""

import os
import subprocess
import sys
from importlib.util import find_spec

import pytest


def run(program, **environment):
    inherited = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    return subprocess.run(
        [sys.executable, "-c", program],
        env=inherited | environment,
        capture_output=True,
        encoding="utf-8",
        check=True,
    ).stdout.strip()


def test_onnx_runtime_is_told_not_to_report_before_it_is_imported(tmp_path):
    program = """
import os
from engines.devices.runtimes import import_onnxruntime
import_onnxruntime()
print(os.environ["ORT_DISABLE_TELEMETRY"])
"""
    assert run(program, HOME=str(tmp_path)) == "1"
    assert not list(tmp_path.rglob("*onnxruntime*"))  # where it would keep what it is to report


def test_what_a_server_may_do_without_is_not_imported_with_it():
    program = """
import sys
import server.commands.serve
from engines import find_devices
find_devices("cpu", "onnxruntime")
print([name for name in ("ncnn", "onnx", "onnxruntime", "openvino", "torch") if name in sys.modules])
"""
    assert run(program) == "[]"


def test_whoever_wants_to_report_can():
    program = "import engines, os; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    assert run(program, ORT_DISABLE_TELEMETRY="0") == "0"


@pytest.mark.skipif(find_spec("openvino") is None, reason="OpenVINO is not installed")
def test_openvino_finds_no_telemetry_to_report_with(tmp_path):
    program = """
import sys
from engines import find_devices
find_devices("cpu", "openvino")
print([name for name, module in sys.modules.items() if name.startswith("openvino_telemetry") and module])
"""
    assert run(program, HOME=str(tmp_path)) == "[]"
    assert not list(tmp_path.rglob("*openvino*"))


@pytest.mark.skipif(find_spec("openvino") is None, reason="OpenVINO is not installed")
def test_openvino_comes_without_its_converter_of_models_which_others_may_import_later():
    program = """
import sys
from engines import find_devices
find_devices("cpu", "openvino")
print([name for name in sys.modules if name.startswith("openvino.tools.ovc")])
import openvino.tools.ovc
"""
    assert run(program) == "[]"
