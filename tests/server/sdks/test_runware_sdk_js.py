"""Runware's official JavaScript SDK, on Node, against this server. Skipped where it cannot be installed."""

import asyncio
import base64
import json
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from server.serving import EmbeddedServer
from tests.server.conftest import StartServer
from tests.server.support.harness import KEY, Item, make_image, open_image, socket_url
from tests.server.support.npm import npm_install

SCRIPTS = Path(__file__).parents[1] / "support" / "js"
SCRIPT_PATIENCE = 240


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the scripts, where the SDK is installed."""
    directory = tmp_path_factory.mktemp("js") / "project"
    shutil.copytree(SCRIPTS, directory)
    npm_install(directory, "@runware/sdk-js@1")
    return directory


def run_script(project: Path, name: str, *arguments: str) -> Any:
    """What a script prints. It must end by itself: the SDK lets go of a closed connection."""
    script = subprocess.run(
        ["node", name, *arguments], cwd=project, capture_output=True, timeout=SCRIPT_PATIENCE, check=False
    )
    assert script.returncode == 0, script.stderr.decode()
    return json.loads(script.stdout)


def test_images_are_uploaded_and_upscaled_in_every_way(server: EmbeddedServer, project: Path) -> None:
    image = base64.b64encode(make_image(20, 10)).decode()
    answers: dict[str, Item] = run_script(project, "upscale.mjs", socket_url(server), KEY, image)
    upload = answers["upload"]
    results = [answers[name] for name in ("byUUID", "byDataURI", "byBase64", "byInputs", "asynchronous")]
    assert [result["inputImageUUID"] for result in results] == [upload["imageUUID"]] * 5
    assert upload["imageURL"].startswith(f"{server.url}/images/")
    for name in ("byUUID", "byInputs", "asynchronous"):
        assert answers[name]["imageURL"].startswith(f"{server.url}/images/")
    by_base64 = answers["byBase64"]
    assert open_image(base64.b64decode(by_base64["imageBase64Data"])).size == (40, 20)
    assert by_base64["cost"] == 0.000001
    header, _, encoded = answers["byDataURI"]["imageDataURI"].partition(",")
    assert header == "data:image/png;base64"
    assert open_image(base64.b64decode(encoded)).size == (40, 20)
    assert answers["asynchronous"]["status"] == "success"
    assert "runware:504@1" in [model["air"] for model in answers["models"]["results"]]


def test_a_slow_asynchronous_task_is_acknowledged_and_polled_for(
    start_server: StartServer, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start_server(acknowledge_after=0.05)
    upscaler, runner = server.services.upscaler, server.services.runner
    upscale, find = upscaler.upscale, runner.find
    polled = threading.Event()

    async def upscale_once_polled_for(*arguments: Any, **options: Any) -> Any:
        assert await asyncio.to_thread(polled.wait, SCRIPT_PATIENCE)
        return await upscale(*arguments, **options)

    def find_for_poll(*arguments: Any) -> Any:
        polled.set()
        return find(*arguments)

    monkeypatch.setattr(upscaler, "upscale", upscale_once_polled_for)
    monkeypatch.setattr(runner, "find", find_for_poll)
    image = base64.b64encode(make_image(20, 10)).decode()
    answers = run_script(project, "upscale.mjs", socket_url(server), KEY, image)
    assert polled.is_set()
    assert answers["asynchronous"]["imageURL"].startswith(f"{server.url}/images/")


def test_mistakes_reject_with_the_errors_of_the_server(server: EmbeddedServer, project: Path) -> None:
    image = base64.b64encode(make_image()).decode()
    errors = run_script(project, "errors.mjs", socket_url(server), KEY, image)
    told = {name: (thrown["error"]["code"], thrown["error"]["parameter"]) for name, thrown in errors.items()}
    assert told == {
        "badFactor": ("invalidUpscaleFactor", "upscaleFactor"),
        "unknownImage": ("imageNotFound", "inputImage"),
        "badModelAsync": ("invalidModel", "model"),
        "notOffered": ("unsupportedTaskType", "taskType"),
    }


def test_a_wrong_key_is_told_as_such(server: EmbeddedServer, project: Path) -> None:
    thrown = run_script(project, "wrong_key.mjs", socket_url(server), "tw_wrong")
    assert thrown["error"]["code"] == "invalidApiKey"
