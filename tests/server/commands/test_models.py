"""`tilewire models`, as its users see it."""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from onnx_models import Catalogue, Source, load_catalogue
from server.commands import get_models
from tests.onnx_models.support.publisher import published, tiny_download
from tests.onnx_models.support.tiny import save, upscaler
from tests.server.conftest import Tilewire
from tests.server.support.harness import make_image
from tests.server.support.web import Web


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return save(tmp_path / "tiny.onnx", upscaler(2))


def added(tmp_path: Path) -> list[str]:
    """The names of the files of added models."""
    folder = tmp_path / "data" / "models"
    return sorted(path.name for path in folder.glob("[!.]*")) if folder.exists() else []


def test_a_model_is_added_listed_used_and_removed(tilewire: Tilewire, tiny: Path, tmp_path: Path) -> None:
    result = tilewire("models", "add", tiny, "--name", "mine", "--price", "0.002", "--licence", "MIT")
    assert result.exit_code == 0
    assert result.stdout.startswith(
        "mine (local:mine@1): scale 2, tiles of 520 px with an overlap of 8 px, 0.002 USD per megapixel\n"
    )
    shown = tilewire("models", "list").stdout
    assert re.search(r"^    local:mine@1 · ×2 in one pass · 0.002 USD/MP · MIT$", shown, re.MULTILINE)

    photo = tmp_path / "photo.png"
    photo.write_bytes(make_image(13, 9, "PNG"))
    assert tilewire("upscale", photo, "-o", tmp_path / "large.png", "--model", "mine").exit_code == 0
    assert Image.open(tmp_path / "large.png").size == (26, 18)

    assert tilewire("models", "remove", "mine").exit_code == 0
    assert added(tmp_path) == []
    assert tilewire("models", "remove", "mine").exit_code == 2


@pytest.mark.parametrize(
    ("options", "status", "told"),
    [
        (("--name", "realesrgan-x4plus"), 2, "realesrgan-x4plus is taken by Real-ESRGAN x4plus"),
        (("--price", "much"), 2, "--price: 'much' is not an amount of USD"),
        (("--scale", "4"), 1, "tiny.onnx: its scale is 2, not 4"),
    ],
)
def test_a_wrong_option_is_told_in_one_message(
    tilewire: Tilewire, tiny: Path, tmp_path: Path, options: tuple[str, ...], status: int, told: str
) -> None:
    result = tilewire("models", "add", tiny, *options)
    assert (result.exit_code, result.stdout) == (status, "")
    assert told in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert added(tmp_path) == []


def test_a_file_that_is_no_network_is_told_in_one_message(tilewire: Tilewire, tmp_path: Path) -> None:
    file = tmp_path / "[x].onnx"
    file.write_bytes(b"")
    result = tilewire("models", "add", file)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"{file}: it is ")
    assert len(result.stderr.splitlines()) == 1
    assert tilewire("models", "add", tmp_path / "none.onnx").exit_code == 1
    assert added(tmp_path) == []


def test_without_the_converter_a_checkpoint_says_what_to_install(
    tilewire: Tilewire, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    file = tmp_path / "x.pth"
    file.touch()
    result = tilewire("models", "add", file)
    assert result.exit_code == 1
    assert "pip install 'tilewire[convert]'" in result.stderr
    result = tilewire("models", "pull", "swinir-x4")
    assert result.exit_code == 1
    assert "pip install 'tilewire[convert]'" in result.stderr
    assert added(tmp_path) == []


def test_a_broken_entry_is_named_and_the_others_are_served(
    tilewire: Tilewire, tiny: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("bad", "good"):
        tilewire("models", "add", tiny, "--name", name)
    (tmp_path / "data" / "models" / "bad.json").write_text("{", encoding="utf-8")
    shown = tilewire("models", "list").stdout
    assert "local:good@1" in shown
    assert "local:bad@1" not in shown
    assert "the model bad is left out" in caplog.text
    assert tilewire("models", "verify").exit_code == 1
    assert tilewire("models", "remove", "bad").exit_code == 0
    assert tilewire("models", "verify").exit_code == 0


def test_verify_tells_of_each_file_whether_it_is_as_it_was(
    tilewire: Tilewire, tiny: Path, tmp_path: Path
) -> None:
    directory = {"TILEWIRE_MODEL_DIRECTORY": str(tmp_path / "built")}
    tilewire("models", "add", tiny, "--name", "mine")
    tilewire("models", "build", "realesr-animevideov3", **directory)
    result = tilewire("models", "verify", **directory)
    told = dict(line.split(": ", 1) for line in result.stdout.splitlines())
    assert result.exit_code == 0
    assert told[str(tmp_path / "built" / "realesr-animevideov3-4x.onnx")] == "good"
    assert "not built yet" in told[str(tmp_path / "built" / "realesrgan-x4plus-4x.onnx")]

    (mine,) = (tmp_path / "data" / "models").glob("*.onnx")
    for file in (mine, tmp_path / "built" / "realesr-animevideov3-2x.onnx"):
        file.write_bytes(file.read_bytes()[:-1])
    manifest = tmp_path / "built" / "realesr-animevideov3-3x.json"
    manifest.write_text(
        json.dumps(json.loads(manifest.read_text("utf-8")) | {"builder_version": 0}), encoding="utf-8"
    )
    result = tilewire("models", "verify", **directory)
    told = dict(line.split(": ", 1) for line in result.stdout.splitlines())
    assert result.exit_code == 1
    assert told[str(mine)] == "DAMAGED; remove mine and add it again"
    assert "DAMAGED" in told[str(tmp_path / "built" / "realesr-animevideov3-2x.onnx")]
    assert "another version" in told[str(tmp_path / "built" / "realesr-animevideov3-3x.onnx")]


def test_the_list_fits_80_columns_and_says_which_to_take(tilewire: Tilewire) -> None:
    shown = tilewire("models", "list", COLUMNS="200").stdout
    assert max(map(len, shown.splitlines())) <= 80
    for alias, name in {"restore": "realesrgan-x4plus", "faithful": "span", "crisp": "span-kendata"}.items():
        assert alias in shown.splitlines()[0]
        assert f"  {name} ({alias})" in shown
    assert "To fetch (tilewire models pull NAME)" in shown


def test_what_can_be_fetched_is_said_when_it_is_wanted(tilewire: Tilewire, tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    photo.write_bytes(make_image(13, 9, "PNG"))
    for name in ("swinir-x4", "runware:503@1"):
        result = tilewire("upscale", photo, "--model", name)
        assert result.exit_code == 2
        assert result.stderr == "swinir-x4 is not installed; to fetch it: tilewire models pull swinir-x4\n"


@pytest.fixture
def publish(web: Web, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes a model that can be fetched from a server of the test."""

    def publish(content: bytes, **changes: Any) -> None:
        web.files["/tiny-x2.onnx"] = content
        download = tiny_download(f"{web.url}/tiny-x2.onnx", content, **changes)

        def with_download(directory: Path | None = None) -> Catalogue:
            known = load_catalogue(directory)
            return Catalogue(known, default=known.default.name, downloads=[download])

        monkeypatch.setattr(get_models, "load_catalogue", with_download)

    return publish


def test_a_model_is_fetched_once(tilewire: Tilewire, publish: Callable[..., None], tmp_path: Path) -> None:
    publish(upscaler(2).SerializeToString())
    result = tilewire("models", "pull", "tiny-x2")
    assert result.exit_code == 0
    assert result.stdout.startswith("tiny-x2 (tilewire:tiny-x2@1): scale 2")
    assert "tiny-x2" in tilewire("models", "list").stdout
    again = tilewire("models", "pull", "tiny-x2")
    assert (again.exit_code, again.stdout) == (0, "tiny-x2 is installed already\n")
    assert len(added(tmp_path)) == 2


@pytest.mark.parametrize(
    ("changes", "status", "told"),
    [
        (
            {"files": {"tiny-x2.onnx": published(b"x" * 999, Source(url="http://127.0.0.1:9/x"))}},
            1,
            "cannot be",
        ),
        (
            {"licence": "CC-BY-NC-4.0", "non_commercial": True},
            1,
            "tilewire models pull tiny-x2 --accept-licence",
        ),
        ({"name": "other"}, 2, "no model called 'tiny-x2' can be fetched; there are other"),
    ],
)
def test_what_cannot_be_fetched_is_told_in_one_message(
    tilewire: Tilewire, publish: Callable[..., None], changes: dict[str, Any], status: int, told: str
) -> None:
    publish(upscaler(2).SerializeToString(), **changes)
    result = tilewire("models", "pull", "tiny-x2")
    assert (result.exit_code, result.stdout) == (status, "")
    assert told in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_help_is_shown_for_every_command(tilewire: Tilewire) -> None:
    for command in ("list", "build", "verify", "add", "pull", "remove"):
        assert "Usage" in tilewire("models", command, "-h").stdout
