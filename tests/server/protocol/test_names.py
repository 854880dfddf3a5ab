"""The wire has its own names for what the engine can do: here they are held equal."""

import subprocess
import sys
from typing import get_args

import pytest

import engines
from engines.latent.colour_fix import ColourFix
from engines.latent.samplers import Scheduler
from server.protocol import requests
from server.protocol.names import wire_name
from server.specs.schemas import components


def test_the_wire_names_what_the_engine_offers() -> None:
    files = {each.value for each in engines.OutputFormat}
    assert {each.value for each in requests.OutputFormat} == files | {"RAW"}
    assert get_args(requests.Scheduler) == get_args(Scheduler)
    assert get_args(requests.ColorFix) == get_args(ColourFix)
    assert get_args(requests.Preset) == get_args(engines.Preset)
    assert get_args(requests.Style) == get_args(engines.Style) == tuple(engines.STYLES)


def test_the_controls_of_creative_upscalers_have_the_bounds_of_the_engine() -> None:
    fields = components()["UpscaleSettings"]["properties"]
    for knob in engines.KNOBS:
        kinds = fields[wire_name(knob.name)]
        assert (kinds["minimum"], kinds["maximum"]) == (knob.low, knob.high)


HEAVY = {"PIL", "alembic", "engines", "isal", "numpy", "onnx", "onnx_models", "onnxruntime", "sqlalchemy"}


@pytest.mark.parametrize("module", ["server.protocol.codec", "server.protocol.sources"])
def test_importing_the_wire_loads_nothing_of_the_work(module: str) -> None:
    script = f"import sys, {module}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    loaded = subprocess.check_output([sys.executable, "-c", script], encoding="utf-8").split()
    assert not HEAVY.intersection(loaded)
