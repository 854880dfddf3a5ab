"""What is not safe for work is flagged or refused, as tasks and the server want it. The checker sees red."""

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpcore
import msgspec
import pytest
from PIL import Image

from server.errors import StartError
from server.serving import EmbeddedServer
from tests.server.conftest import StartServer, Tilewire, settings_for
from tests.server.support.harness import (
    KEY,
    Item,
    charges,
    connected,
    make_image,
    new_uuid,
    open_account,
    socket_url,
    upscale,
)
from tests.server.support.safety_checker import add_checker
from tilewire import TaskFailedError
from tilewire import Tilewire as Client


def flat(colour: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (24, 16), colour).save(buffer, "PNG")
    return buffer.getvalue()


def encoded(colour: str) -> str:
    return base64.b64encode(flat(colour)).decode()


RED, BLUE = encoded("#f00000"), encoded("#0000ff")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("models")
    add_checker(directory)
    return directory


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, model_directory: Path, models: Path
) -> Iterator[EmbeddedServer]:
    """Has a checker, and looks where a task asks for it."""
    settings = settings_for(tmp_path_factory.mktemp("server"), model_directory, added_models=models)
    with EmbeddedServer(settings) as running:
        yield running


@pytest.mark.parametrize(
    "asked",
    [
        {"checkNSFW": True},
        {"safety": {"checkContent": True}},
        {"safety": {"checkContent": True, "mode": "none"}},
        {"safety": {"mode": "fast"}},
        {"safety": {"action": "flag"}},
    ],
    ids=repr,
)
async def test_a_task_that_asks_is_told_what_was_found(server: EmbeddedServer, asked: Item) -> None:
    async with connected(server) as peer:
        red, blue = await peer.ask(upscale(RED, **asked), upscale(BLUE, **asked))
    assert (red["NSFWContent"], blue["NSFWContent"]) == (True, False)
    assert red["NSFWScores"] == {"input": pytest.approx(0.9, 0.05), "result": pytest.approx(0.9, 0.05)}
    assert blue["NSFWScores"]["input"] < 0.1


async def test_a_task_that_does_not_ask_is_not_looked_at(server: EmbeddedServer) -> None:
    async with connected(server) as peer:
        (plain, off) = await peer.ask(
            upscale(RED), upscale(RED, checkNSFW=False, safety={"checkContent": False, "mode": "none"})
        )
    for result in (plain, off):
        assert not {"NSFWContent", "NSFWScores", "errors"} & result.keys()
        assert "imageURL" in result


async def test_what_is_refused_costs_nothing_and_is_an_error_again_when_sent_again(
    server: EmbeddedServer,
) -> None:
    account = open_account(server)
    task = upscale(RED, safety={"action": "refuse"})
    async with connected(server, key=account.key) as peer:
        refused, taken = await peer.ask(task, upscale(BLUE, safety={"action": "refuse"}))
        (again,) = await peer.ask(task)
        (details,) = await peer.ask({"taskType": "getTaskDetails", "taskUUID": task["taskUUID"]})
    assert refused == again
    assert refused["code"] == "nsfwContentDetected"
    assert "the input may not be safe for work (score 0." in refused["message"]
    assert taken["NSFWContent"] is False
    assert charges(server, account.id)[1] == 1
    assert details["request"][0]["safety"] == {"checkContent": True, "action": "refuse"}


async def test_parts_of_what_may_be_refused_come_after_the_look(server: EmbeddedServer) -> None:
    wanted: dict[str, Any] = {"includeTiles": True, "safety": {"action": "refuse"}, "upscaleFactor": 4}
    picture = base64.b64encode(make_image(300, 200)).decode()
    async with connected(server) as peer:
        await peer.send(upscale(picture, **wanted))
        tiles, item = [], await peer.receive_item()
        while item.get("status") == "processing":
            tiles.append(item["tile"])
            item = await peer.receive_item()
        await peer.send(upscale(RED, **wanted))
        error = await peer.receive_item()
    assert sum(tile["width"] * tile["height"] for tile in tiles) == 1200 * 800
    assert item["NSFWContent"] is False
    assert error["code"] == "nsfwContentDetected", "nothing of it was shown"


async def test_by_post_and_through_the_client(server: EmbeddedServer) -> None:
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    tasks = [upscale(RED, checkNSFW=True), upscale(RED, safety={"action": "refuse"})]
    async with httpcore.AsyncConnectionPool() as pool:
        content = msgspec.json.encode(tasks)
        response = await pool.request("POST", f"{server.url}/v1", headers=headers, content=content)
    body = msgspec.json.decode(response.content)
    assert [item["NSFWContent"] for item in body["data"]] == [True]
    assert [item["code"] for item in body["errors"]] == ["nsfwContentDetected"]
    async with Client(socket_url(server), KEY) as tilewire:
        result = await tilewire.upscale(flat("#f00000"), factor=2, nsfw="flag")
        plain = await tilewire.upscale(flat("#f00000"), factor=2)
        with pytest.raises(TaskFailedError) as caught:
            await tilewire.upscale(flat("#f00000"), factor=2, nsfw="refuse")
        assert all("checkNSFW" in model.options for model in await tilewire.models())
    assert (result.nsfw, plain.nsfw) == (True, None)
    assert result.nsfw_scores.keys() == {"input", "result"}
    assert caught.value.code == "nsfwContentDetected"


def test_the_command_line_reports_and_refuses(
    server: EmbeddedServer, tilewire: Tilewire, tmp_path: Path
) -> None:
    red = tmp_path / "red.png"
    red.write_bytes(flat("#f00000"))
    at = ("--url", socket_url(server), "--key", KEY)
    flagged = tilewire("upscale", red, "--factor", "2", "--nsfw", "flag", *at)
    assert flagged.exit_code == 0
    assert "red.png: may not be safe for work (input 0." in flagged.stdout
    refused = tilewire("upscale", red, "--factor", "3", "--nsfw", "refuse", *at)
    assert refused.exit_code == 1
    assert "may not be safe for work" in refused.stderr
    missing = tilewire("upscale", red, "--nsfw", "flag")
    assert missing.exit_code == 2
    assert "tilewire models pull open-nsfw" in missing.stderr


@pytest.mark.parametrize(
    ("asked", "parameter"),
    [
        ({"checkNSFW": True}, "checkNSFW"),
        ({"safety": {"checkContent": True}}, "safety.checkContent"),
        ({"safety": {"mode": "full"}}, "safety.mode"),
        ({"safety": {"action": "flag"}}, "safety.action"),
    ],
)
async def test_without_a_checker_a_task_that_asks_is_told_what_to_do(
    start_server: StartServer, asked: Item, parameter: str
) -> None:
    async with connected(start_server()) as peer:
        (error,) = await peer.ask(upscale(RED, **asked))
    assert error["parameter"] == parameter
    assert error["code"].startswith("unsupported")
    assert "tilewire models pull open-nsfw" in error["message"]


@pytest.mark.parametrize(
    ("safety", "parameter"),
    [
        ({"action": "blur"}, "safety.action"),
        ({"mode": "slow"}, "safety.mode"),
        ({"checkContent": 1}, "safety.checkContent"),
    ],
)
async def test_a_wrong_value_is_one_error(server: EmbeddedServer, safety: Item, parameter: str) -> None:
    async with connected(server) as peer:
        (error,) = await peer.ask(upscale(RED, safety=safety))
        await peer.nothing_more()
    assert error["parameter"] == parameter


async def test_a_server_may_flag_or_refuse_whatever_tasks_want(
    start_server: StartServer, models: Path
) -> None:
    """And by whatever API they come."""
    flagging = start_server(added_models=models, nsfw="flag")
    form = {"image": flat("#f00000")}
    async with connected(flagging) as peer:
        flagged, refused = await peer.ask(upscale(RED), upscale(RED, safety={"action": "refuse"}))
    assert (flagged["NSFWContent"], refused["code"]) == (True, "nsfwContentDetected")
    answer = stability(flagging, form)
    assert (answer.status, msgspec.json.decode(answer.content)["finish_reason"]) == (200, "CONTENT_FILTERED")
    detection = {"confidence": pytest.approx(90, abs=5), "valid": True}
    assert novita(flagging)["images"][0]["nsfw_detection_result"] == detection
    flagging.stop()
    refusing = start_server(added_models=models, nsfw="refuse", nsfw_threshold=0.5)
    async with connected(refusing) as peer:
        refused, taken = await peer.ask(upscale(RED), upscale(BLUE, taskUUID=new_uuid()))
    assert (refused["code"], taken["NSFWContent"]) == ("nsfwContentDetected", False)
    answer = stability(refusing, form)
    assert (answer.status, msgspec.json.decode(answer.content)["name"]) == (403, "content_moderation")


def stability(server: EmbeddedServer, form: dict[str, bytes]) -> httpcore.Response:
    boundary = "tilewire"
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="image"\r\n\r\n'.encode()
    headers = {
        "Authorization": f"Bearer {KEY}",
        "Accept": "application/json",
        "Content-Type": f"multipart/form-data; boundary={boundary}",
    }
    return httpcore.request(
        "POST",
        f"{server.url}/v2beta/stable-image/upscale/fast",
        headers=headers,
        content=head + form["image"] + f"\r\n--{boundary}--\r\n".encode(),
    )


def novita(server: EmbeddedServer) -> Item:
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    body = {"request": {"image_base64": RED, "scale_factor": 2}, "extra": {"enable_nsfw_detection": True}}
    taken = httpcore.request(
        "POST", f"{server.url}/v3/async/upscale", headers=headers, content=msgspec.json.encode(body)
    )
    path = f"/v3/async/task-result?task_id={msgspec.json.decode(taken.content)['task_id']}"
    while True:
        item: Item = msgspec.json.decode(httpcore.request("GET", server.url + path, headers=headers).content)
        if item["task"]["status"] not in ("TASK_STATUS_QUEUED", "TASK_STATUS_PROCESSING"):
            return item


def test_a_server_that_is_to_look_does_not_start_blind(start_server: StartServer) -> None:
    with pytest.raises(StartError, match="tilewire models pull open-nsfw"):
        start_server(nsfw="refuse")
