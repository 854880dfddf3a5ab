"""`tilewire bench`: what it measures, and what it says of it."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import server.commands.bench
from engines import find_devices
from engines.errors import ModelError
from server.commands.bench import faster_way, find_ways
from server.commands.measure import Measurement, photograph
from server.settings import Settings
from tests.server.conftest import Tilewire
from tests.server.support.harness import FAST_MODEL, RUNTIME

QUICK = ("bench", "--model", FAST_MODEL, "--seconds", "1")
ONE_WAY = {"TILEWIRE_RUNTIME": "onnxruntime"}


def test_figures_for_machines_are_json(tilewire: Tilewire) -> None:
    result = tilewire(*QUICK, "--json", **ONE_WAY)
    assert result.exit_code == 0
    report: dict[str, Any] = json.loads(result.stdout)
    (row,) = report["results"]
    assert (row["model"], report["failures"]) == (FAST_MODEL, [])
    assert "ONNX Runtime" in row["device"]
    assert 0 < row["megapixels_per_second"] < 1e5
    assert 0 < row["first_result_seconds"] < 60
    assert row["measured_side"] in (64, 128, 256, 512)
    assert 50e6 < row["memory_bytes"] < 8e9
    # The two figures are of the same work: 4 × 512 squared pixels come out.
    assert row["photo_seconds"] >= 0.9 * (4 * 512) ** 2 / 1e6 / row["megapixels_per_second"]
    assert report["machine"]["cores"] >= 1


def test_the_table_says_what_was_measured_and_how_far_it_can_be_trusted(tilewire: Tilewire) -> None:
    result = tilewire(*QUICK, COLUMNS="140", **ONE_WAY)
    assert result.exit_code == 0
    head, row, *notes = result.stdout.splitlines()
    assert head.split() == ["model", "device", "MP/s", "512×512", "first", "result", "memory"]
    assert row.startswith(FAST_MODEL)
    assert "core" in "".join(notes)
    assert "load" in "".join(notes)


def test_every_model_is_measured_in_every_way(tilewire: Tilewire, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def note(pairs: Any, seconds: float) -> list[Any]:
        asked.extend((model, way.device) for model, way in pairs)
        return []

    monkeypatch.setattr(server.commands.bench, "_measure_all", note)
    assert tilewire("bench", TILEWIRE_RUNTIME="auto").exit_code == 1, "nothing was measured"
    devices = {device for _, device in asked}
    networks = [(model.name, device) for model, device in asked if model.family != "latent"]
    assert len(networks) == len(set(networks)) == 3 * len(devices)
    latent = [device for model, device in asked if model.family == "latent"]
    assert len(latent) == 1
    assert "ONNX Runtime" in latent[0]
    assert all(
        any(runtime in device for device in devices) for runtime in ("ONNX Runtime", "OpenVINO", "ncnn")
    )


@pytest.mark.skipif(RUNTIME == "onnxruntime", reason="one runtime is installed: there is no choice")
def test_what_runs_a_model_is_marked_where_it_is_chosen(
    tilewire: Tilewire, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = server.commands.bench

    def measure_all(pairs: list[Any], _seconds: float) -> list[Measurement]:
        return [result(way.device, 1.0) for _, way in pairs]

    def choose(_work: Any, _models: Any, settings: Settings) -> dict[str, str]:
        ways, _ = bench.find_ways(settings)
        return {FAST_MODEL: ways[-1].device} if settings.runtime == "auto" else {}

    monkeypatch.setattr(bench, "_measure_all", measure_all)
    monkeypatch.setattr(bench, "_in_a_process", choose)
    monkeypatch.setattr(bench.console, "width", 160)
    shown = tilewire("bench", "--model", FAST_MODEL, TILEWIRE_RUNTIME="auto")
    (marked,) = [line for line in shown.stdout.splitlines() if line.startswith(FAST_MODEL) and "*" in line]
    assert "ncnn" in marked
    assert '*: what runs the model with runtime = "auto"' in shown.stdout
    assert "*" not in tilewire("bench", "--model", FAST_MODEL, **ONE_WAY).stdout


def test_a_device_that_is_not_there_is_told(tilewire: Tilewire, monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(*_: Any) -> Any:
        raise ModelError("no GPU can be used: none is there")

    monkeypatch.setattr(server.commands.bench, "find_devices", nowhere)
    result = tilewire("bench")
    assert result.exit_code == 1
    assert "no GPU can be used: none is there" in result.stdout


def test_a_wrong_model_is_told(tilewire: Tilewire) -> None:
    result = tilewire("bench", "--model", "nonsense")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "'nonsense'" in result.stderr


def test_what_is_missing_is_hinted_at(monkeypatch: pytest.MonkeyPatch) -> None:
    def without(device: Any, runtime: Any, precision: Any) -> Any:
        if device == "cuda" or runtime != "onnxruntime":
            raise ModelError(f"pip install {device if device == 'cuda' else runtime} brings it")
        return find_devices(device, runtime, precision)

    monkeypatch.setattr(server.commands.bench, "find_devices", without)
    ways, hints = find_ways(Settings())
    assert [way.settings.runtime for way in ways] == ["onnxruntime"]
    assert hints == [
        "pip install cuda brings it",
        "pip install openvino brings it",
        "pip install ncnn brings it",
    ]


def test_a_way_that_is_clearly_faster_is_hinted_at() -> None:
    ways, _ = find_ways(Settings(device="cpu"))
    settings = Settings(device="cpu", runtime="onnxruntime")
    (own,) = [way for way in ways if way.settings.runtime == "onnxruntime"]
    other = next(way for way in ways if way is not own)

    def hints(speed: float) -> list[str]:
        return faster_way(ways, [result(own.device, 1.0), result(other.device, speed)], settings)

    assert hints(1.1) == []
    (hint,) = hints(3.0)
    assert f'runtime = "{other.settings.runtime}"' in hint
    assert "3.0 times" in hint


def result(device: str, speed: float) -> Measurement:
    return Measurement(
        model=FAST_MODEL,
        device=device,
        megapixels_per_second=speed,
        photo_seconds=1.0,
        measured_side=512,
        first_result_seconds=1.0,
        memory_bytes=None,
    )


def test_settings_limit_the_ways() -> None:
    ways, hints = find_ways(Settings(device="cpu", runtime="onnxruntime", data=Path("/nowhere")))
    assert (len(ways), hints) == (1, [])


def test_the_picture_is_like_a_photograph() -> None:
    data = photograph(512)
    pixels = np.asarray(Image.open(io.BytesIO(data)), np.float32)
    assert pixels.shape == (512, 512, 3)
    assert 50_000 < len(data) < 300_000, "it compresses as photographs do"
    assert pixels.std() > 20
    assert photograph(64, 1) != photograph(64, 2)
