"""The log: what a line holds, and that a task can be followed by its id."""

import asyncio
import io
import json
import logging
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from server.telemetry.logs import JsonFormatter, TextFormatter, bound, configure_logging
from tests.server.support.harness import FAST_MODEL, connected, make_image, upscale
from tests.server.support.process import serving
from tests.server.support.scrape import until
from tests.server.support.web import Web

LOG = logging.getLogger("server.test")


def logged(formatter: logging.Formatter, message: str, **options: Any) -> str:
    """The line that a formatter makes of a message."""
    lines: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(formatter.format(record))

    handler = Keep()
    LOG.addHandler(handler)
    try:
        LOG.error(message, **options)
    finally:
        LOG.removeHandler(handler)
    (line,) = lines
    return line


def test_a_line_names_what_is_bound_and_what_is_said_of_it_alone() -> None:
    with bound(task="t1", session=None), bound(model="m"):
        line = json.loads(logged(JsonFormatter(), "done", extra={"ms": 1.5, "model": "other"}))
    assert line["event"] == "done"
    assert (line["task"], line["model"], line["ms"]) == ("t1", "other", 1.5)
    assert "session" not in line
    assert "task" not in json.loads(logged(JsonFormatter(), "later"))


async def test_tasks_and_threads_keep_what_was_bound_when_they_began() -> None:
    with bound(task="t1"):
        work = asyncio.create_task(asyncio.to_thread(logged, JsonFormatter(), "in a thread"))
    assert json.loads(await work)["task"] == "t1"


@pytest.mark.parametrize("formatter", [JsonFormatter(), TextFormatter("%(message)s")])
def test_what_clients_choose_cannot_make_a_line_or_a_field_of_its_own(formatter: logging.Formatter) -> None:
    line = logged(formatter, "refused", extra={"task": "x\ncode=forged " + "y" * 10_000})
    assert len(line.splitlines()) == 1
    assert len(line) < 500
    assert not [word for word in line.split(" ") if word.startswith("code=")]


def test_a_traceback_is_part_of_the_line() -> None:
    try:
        Path("/nowhere").read_bytes()
    except OSError:
        line = json.loads(logged(JsonFormatter(), "failed", exc_info=True))
    assert line["traceback"].splitlines()[-1].startswith("FileNotFoundError")


def test_libraries_are_not_heard_below_warnings(request: Any) -> None:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    output = io.StringIO()
    try:
        configure_logging("debug", "json", Console(file=output))
        logging.getLogger("uvicorn.error").debug("< TEXT tw_secret")
        logging.getLogger("httpcore").info("GET /?secret")
        LOG.debug("ours")
        logging.getLogger("uvicorn.error").warning("theirs")
    finally:
        root.handlers[:], root.level = before[0], before[1]
        for name in ("server", "engines", "onnx_models"):
            logging.getLogger(name).setLevel(logging.NOTSET)
    assert [json.loads(line)["event"] for line in output.getvalue().splitlines()] == ["ours", "theirs"]


async def test_a_task_can_be_followed_by_its_id_and_no_secret_is_logged(
    tmp_path: Path, model_directory: Path, web: Web
) -> None:
    image = make_image()
    web.files["/cat.png?signature=hidden"] = image
    settings = {
        "TILEWIRE_LOG_FORMAT": "json",
        "TILEWIRE_LOG_LEVEL": "debug",
        "TILEWIRE_MODELS": FAST_MODEL,
        "TILEWIRE_PRIVATE_NETWORKS": "true",
    }
    good = upscale(f"{web.url}/cat.png?signature=hidden", webhookURL=f"{web.url}/hook?token=hidden")
    bad = upscale(f"{web.url}/none.png?signature=hidden")
    with serving(tmp_path, model_directory, **settings) as server:
        async with connected(server, key=None) as peer:
            assert (await peer.authenticate("tw_wrong-key"))["code"] == "invalidApiKey"
        async with connected(server, key=None) as peer:
            session = (await peer.authenticate())["connectionSessionUUID"]
            await peer.ask(good, bad)
            await web.receive()
            # A reply is delivered once its client is known to have it.
            await until(server, lambda metrics: metrics["tilewire_outbox_replies"] == 0)
        server.process.terminate()
        _, errors = await asyncio.to_thread(server.ended)
    lines = [json.loads(line) for line in errors.splitlines()]

    def life(task: dict[str, Any]) -> list[dict[str, Any]]:
        return [line for line in lines if line.get("task") == task["taskUUID"]]

    assert [line["event"] for line in life(good)][:4] == [
        "task accepted",
        "task started",
        "task finished",
        "task delivered",
    ]
    assert [line["event"] for line in life(bad)] == ["task accepted", "task failed", "task delivered"]
    finished = life(good)[2]
    assert {"fetch_ms", "decode_ms", "inference_ms", "encode_ms", "total_ms", "cost_usd"} <= finished.keys()
    assert life(bad)[1]["code"] == "downloadFailed"
    assert all(line["session"] == session for line in life(good)[:4])
    assert all(line["model"] == FAST_MODEL for line in life(good)[:3])
    assert not [word for word in ("tw_wrong-key", "tw_test-key", "hidden") if word in errors]
