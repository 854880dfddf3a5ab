"""Raw pixels: in and out without a file around them, and stored only where that is asked for."""

import asyncio
import base64
import io
from typing import Any

import httpcore
import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from server.images.raw_images import RawImages
from server.protocol.errors import BusyError, RateLimitError
from server.protocol.raw_image import RawImage
from server.serving import EmbeddedServer
from server.state.accounts import AccountId
from server.state.audit import audit
from server.state.records import Attempt
from tests.server.conftest import StartServer
from tests.server.support.harness import (
    KEY,
    Item,
    charges,
    connected,
    make_image,
    new_uuid,
    open_account,
    open_image,
    request,
    until,
    upscale,
)
from tests.server.support.stepped_device import SteppedDevice

Pixels = NDArray[np.uint8]


def make_pixels(channels: int = 3, seed: int = 0) -> Pixels:
    """(16, 24) or (16, 24, channels): smooth, and partly transparent where there is alpha."""
    picture = open_image(make_image(24, 16, seed=seed))
    if channels == 1:
        return np.asarray(picture.convert("L"))
    if channels == 4:
        picture.putalpha(open_image(make_image(24, 16, seed=seed + 1)).convert("L"))
    return np.asarray(picture)


def wire(pixels: Pixels) -> Item:
    height, width = pixels.shape[:2]
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    return {"width": width, "height": height, "channels": channels, "pixels": pixels.tobytes()}


def array(image: Item) -> Pixels:
    shape = (image["height"], image["width"], image["channels"])
    pixels = np.frombuffer(image["pixels"], np.uint8).reshape(shape)
    return pixels[..., 0] if image["channels"] == 1 else pixels


def raw(pixels: Pixels, **parameters: Any) -> Item:
    return upscale(wire(pixels), outputFormat="RAW", includeCost=True, **parameters)


def stepped(**second: Any) -> tuple[Item, Item]:
    """Two tasks for the stepped device, which enlarges four times."""
    return raw(make_pixels(), upscaleFactor=4), raw(make_pixels(seed=2), upscaleFactor=4, **second)


async def ask(server: EmbeddedServer, task: Item, key: str = KEY) -> Item:
    async with connected(server, key=key, messagepack=True) as peer:
        return (await peer.ask(task))[0]


def stored_files(server: EmbeddedServer) -> int:
    return sum(1 for _ in (server.services.settings.data / "images").glob("*.*"))


@pytest.mark.parametrize("channels", [1, 3, 4])
async def test_pixels_become_what_they_would_as_a_file_and_nothing_is_stored(
    server: EmbeddedServer, channels: int
) -> None:
    pixels, before = make_pixels(channels), stored_files(server)
    item = await ask(server, raw(pixels))
    assert (item.keys() - {"cost"}) == {"taskType", "taskUUID", "image"}
    assert item["cost"] > 0
    result = array(item["image"])
    assert result.shape == (32, 48, *pixels.shape[2:])
    assert stored_files(server) == before
    stored = await ask(server, upscale(wire(pixels)))  # PNG, which loses nothing
    assert (np.asarray(open_image((await request(stored["imageURL"])).body)) == result).all()
    assert "inputImageUUID" not in stored


async def test_opaque_alpha_stays_though_it_takes_no_work(server: EmbeddedServer) -> None:
    colours = make_pixels()
    opaque = np.dstack((colours, np.full(colours.shape[:2], 255, np.uint8)))
    result = array((await ask(server, raw(opaque)))["image"])
    assert (result[..., :3] == array((await ask(server, raw(colours)))["image"])).all()
    assert (result[..., 3] == 255).all()


async def test_what_is_to_be_stored_is_a_file_of_the_same_pixels(server: EmbeddedServer) -> None:
    pixels = make_pixels(4)
    item = await ask(server, raw(pixels, store=True, ttl=3600))
    file = (await request(item["imageURL"])).body
    assert (np.asarray(open_image(file)) == array(item["image"])).all()
    again = await ask(server, upscale(item["inputImageUUID"], outputFormat="RAW"))
    assert (array(again["image"]) == array(item["image"])).all()
    upload = {"taskType": "imageUpload", "taskUUID": new_uuid(), "image": wire(pixels)}
    assert (await ask(server, upload))["imageUUID"] == item["inputImageUUID"]


async def test_a_file_becomes_pixels_in_the_channels_that_it_has(server: EmbeddedServer) -> None:
    for mode, channels in (("L", 1), ("RGB", 3), ("RGBA", 4)):
        task = upscale(as_png(make_pixels(channels)), outputFormat="RAW")
        item = await ask(server, task)
        assert (item["image"]["channels"], mode) == (channels, mode)
        assert item["inputImageUUID"]


def as_png(pixels: Pixels) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


async def test_they_go_by_post_as_well(server: EmbeddedServer) -> None:
    task = raw(make_pixels())
    headers = {"authorization": f"Bearer {KEY}", "content-type": "application/msgpack"}
    async with httpcore.AsyncConnectionPool() as pool:
        reply = await pool.request(
            "POST", f"{server.url}/v1", headers=headers, content=msgspec.msgpack.encode([task])
        )
    (item,) = msgspec.msgpack.decode(reply.content)["data"]
    assert (array(item["image"]) == array((await ask(server, task))["image"])).all()


WRONG: list[tuple[str, Item, str]] = [
    ("too few bytes", {"inputs": {"image": wire(make_pixels()) | {"pixels": b"1"}}}, "inputs.image.pixels"),
    ("two channels", {"inputs": {"image": wire(make_pixels()) | {"channels": 2}}}, "inputs.image.channels"),
    ("no width", {"inputs": {"image": wire(make_pixels()) | {"width": 0}}}, "inputs.image.width"),
    ("text", {"inputs": {"image": wire(make_pixels()) | {"pixels": 5}}}, "inputs.image.pixels"),
    ("unknown", {"inputs": {"image": wire(make_pixels()) | {"stride": 5}}}, "inputs.image"),
    ("empty", {"inputs": {"image": {}}}, "inputs.image.width"),
    ("classic", {"inputs": {}, "inputImage": {"width": 1}}, "inputImage.height"),
    ("base64", {"outputType": "base64Data"}, "outputType"),
    ("webhook", {"webhookURL": "https://example.org/"}, "webhookURL"),
    ("upload", {"uploadEndpoint": "https://example.org/"}, "uploadEndpoint"),
    ("metadata", {"keepMetadata": True}, "keepMetadata"),
    ("ttl", {"ttl": 60}, "ttl"),
    ("store of a file", {"inputs": {"image": make_image()}, "outputFormat": "PNG", "store": False}, "store"),
    ("too large", {"inputs": {"image": wire(np.zeros((8000, 4001), np.uint8))}}, "inputs.image"),
]


@pytest.mark.parametrize(
    ("change", "parameter"), [case[1:] for case in WRONG], ids=[case[0] for case in WRONG]
)
async def test_what_makes_no_sense_is_refused(server: EmbeddedServer, change: Item, parameter: str) -> None:
    item = await ask(server, raw(make_pixels()) | change)
    assert item["parameter"] == parameter, item
    assert parameter in item["message"] or parameter == "inputs.image"


async def test_json_has_no_pixels_but_gives_those_of_others_in_base64(server: EmbeddedServer) -> None:
    task = raw(make_pixels())
    image = (await ask(server, task))["image"]
    async with connected(server) as peer:
        (asked,) = await peer.ask({"taskType": "getResponse", "taskUUID": task["taskUUID"]})
        assert base64.b64decode(asked["image"]["pixels"]) == image["pixels"]
        (details,) = await peer.ask({"taskType": "getTaskDetails", "taskUUID": task["taskUUID"]})
        assert details["request"][0]["outputFormat"] == "RAW"
        assert details["request"][0]["inputs"]["image"] == {"width": 24, "height": 16, "channels": 3}
        (refused,) = await peer.ask(upscale(base64.b64encode(make_image()).decode(), outputFormat="RAW"))
        assert refused["code"] == "unsupportedOutputFormat"
        (refused,) = await peer.ask(upscale({"width": 1, "height": 1, "channels": 1, "pixels": "AA=="}))
        assert refused["code"] == "unsupportedInputsImage"
        assert "MessagePack" in refused["message"]


async def test_sent_again_it_is_the_same_task(server: EmbeddedServer) -> None:
    account = open_account(server)
    task = raw(make_pixels())
    first = await ask(server, task, account.key)
    assert await ask(server, task, account.key) == first
    other = await ask(server, task | {"inputs": {"image": wire(make_pixels(seed=1))}}, account.key)
    assert other["code"] == "conflictTaskUUID"
    assert charges(server, account.id)[1] == 1


async def test_who_comes_back_gets_it_and_who_cancels_pays_nothing(
    start_server: StartServer, device: SteppedDevice
) -> None:
    server = start_server()
    account, (task, cancelled) = open_account(server), stepped()
    async with connected(server, key=None, messagepack=True) as peer:
        session = (await peer.authenticate(account.key))["connectionSessionUUID"]
        await peer.send(task, cancelled)
        await until(lambda: server.services.runner.count == 2)
        await peer.cut()
    async with connected(server, key=account.key, session=session, messagepack=True) as peer:
        stop = {"taskType": "cancel", "taskUUID": new_uuid(), "targetTaskUUID": cancelled["taskUUID"]}
        await peer.send(stop)
        codes = {(await peer.receive_item()).get("code", "stopped") for _ in range(2)}
        assert codes == {"taskCancelled", "stopped"}
        await peer.send(task)  # joins what is under way
        device.run_freely()
        assert (await peer.receive_item())["image"]["width"] == 96
    assert charges(server, account.id)[1] == 1


async def test_pixels_that_were_in_the_memory_of_a_server_that_is_gone_are_asked_for_again(
    start_server: StartServer, device: SteppedDevice
) -> None:
    server = start_server(drain_timeout=0.01)
    account, (task, kept) = open_account(server), stepped(store=True)
    session = new_uuid()
    async with connected(server, key=account.key, session=session, messagepack=True) as peer:
        await peer.send(task, kept)
        await until(lambda: server.services.runner.count == 2)
        stopping = asyncio.create_task(asyncio.to_thread(server.stop))
        await peer.socket.wait_closed()
    device.run_freely()
    await stopping
    server = start_server()
    async with connected(server, key=account.key, session=session, messagepack=True) as peer:
        items = {item["taskUUID"]: item for item in [await peer.receive_item() for _ in range(2)]}
        lost, found = items[task["taskUUID"]], items[kept["taskUUID"]]
        assert (lost["code"], lost["retryAfter"]) == ("serviceUnavailable", 1)
        assert "not stored" in lost["message"]
        assert found["image"]["width"] == 96
        assert charges(server, account.id)[1] == 1
        (again,) = await peer.ask(task)
        assert again["image"]["width"] == 96
    assert charges(server, account.id)[1] == 2
    assert server.services.database.snapshot(audit).mistakes == []


@pytest.mark.each_database
async def test_what_another_server_takes_over_fails_unless_it_is_stored_whatever_the_first_still_does(
    start_server: StartServer, device: SteppedDevice
) -> None:
    first, second = start_server(), start_server()
    account, (task, kept) = open_account(first), stepped(store=True)
    async with connected(first, key=account.key, messagepack=True) as peer:
        await peer.send(task, kept)
        await until(lambda: first.services.runner.count == 2)
        with pytest.MonkeyPatch.context() as patch:
            # As if the first had lost its connection to the database for a moment: it lives, and works on.
            patch.setattr(second.services.runner._lock, "is_dead", lambda *_: True)
            lost = await peer.receive_item()
            await until(lambda: second.services.runner.count == 1)
        assert (lost["taskUUID"], lost["code"], lost["retryAfter"]) == (
            task["taskUUID"],
            "serviceUnavailable",
            1,
        )
        assert charges(first, account.id) == (0, 0)
        device.step()  # for what the first is still at
        device.run_freely()
        found = await peer.receive_item()
        assert (found["taskUUID"], found["image"]["width"]) == (kept["taskUUID"], 96)
        (again,) = await peer.ask(task)
        assert again["image"]["width"] == 96
    assert charges(first, account.id)[1] == 2
    assert first.services.database.snapshot(audit).mistakes == []


async def test_a_result_that_is_no_longer_in_memory_comes_from_the_store_or_is_gone(
    start_server: StartServer,
) -> None:
    server = start_server()
    tasks = [raw(make_pixels()), *(raw(make_pixels(1, seed), store=True) for seed in (1, 2))]
    first = [await ask(server, task) for task in tasks]
    server.stop()
    server = start_server()
    spoilt = first[2]["imageURL"].rpartition("/")[2]
    (server.services.settings.data / "images" / spoilt).write_bytes(b"not a picture")
    lost, kept, damaged = [await ask(server, task) for task in tasks]
    assert (lost["code"], "not stored" in lost["message"]) == ("imageExpired", True)
    assert kept["image"] == first[1]["image"]
    assert (damaged["code"], "cannot be read" in damaged["message"]) == ("imageExpired", True)


def held(size: int) -> RawImage:
    return RawImage(width=size, height=1, channels=1, pixels=memoryview(bytes(size)))


def test_inputs_in_memory_are_bounded_for_each_account_and_for_all() -> None:
    images, one, other = RawImages(1000), AccountId("one"), AccountId("other")
    first = images.take(one, held(200))
    with pytest.raises(RateLimitError):
        images.take(one, held(100))
    large = images.take(other, held(700))
    with pytest.raises(BusyError):
        images.take(AccountId("third"), held(200))
    first.release()
    first.release()
    large.release()
    images.take(one, held(5000)).release()  # alone one may be as large as it is


def test_results_in_memory_make_room_at_the_cost_of_who_has_most() -> None:
    images, one, other = RawImages(100), AccountId("one"), AccountId("other")
    theirs, *mine = [Attempt.of(other, new_uuid()), *(Attempt.of(one, new_uuid()) for _ in range(3))]
    for attempt, size in zip((theirs, *mine), (20, 40, 30, 30), strict=True):
        images.keep(attempt, held(size), 0.0)
    assert [images.find(attempt) is not None for attempt in (theirs, *mine)] == [True, False, True, True]
    images.sweep(10_000.0)
    assert images.find(theirs) is None
