"""`includeTiles`: finished parts of a result come before it, and are in nobody's way."""

import asyncio
import base64
import io
import math
import threading
from collections.abc import Iterator
from typing import Any

import aiohttp
import numpy as np
import pytest
from PIL import Image

import server.upscale.processing
from engines import Picture
from engines.tiling.regions import Region
from engines.tiling.tiles import Area
from server.delivery.previews import MAX_SIDE, MAX_UNSENT, encode_tile
from server.protocol.codec import JSON
from server.protocol.replies import Progress
from server.serving import EmbeddedServer
from server.state.audit import audit
from tests.server.conftest import StartServer
from tests.server.support.harness import (
    FAST_MODEL,
    KEY,
    PATIENCE,
    Item,
    Peer,
    charges,
    connected,
    make_image,
    new_uuid,
    open_account,
    open_image,
    open_socket,
    socket_url,
    upscale,
)
from tests.server.support.stepped_device import SteppedDevice
from tilewire import Result, TileReady, Tilewire

SOME_TILES = (720, 400)
"""Of an image with more pixels than run at once."""


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def noise(width: int, height: int, mode: str = "RGB") -> Image.Image:
    shape = (height, width, len(mode))
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8), mode)


def as_png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=0)
    return buffer.getvalue()


def image_of(tile: Item) -> Image.Image:
    """The image of a tile, of either format."""
    if "image" in tile:
        image = open_image(tile["image"])
        assert Image.MIME[image.format or ""] == tile["mediaType"]
    else:
        header, _, data = tile["imageDataURI"].partition(",")
        image = open_image(base64.b64decode(data))
        assert header == f"data:{Image.MIME[image.format or '']};base64"
    assert image.size == (tile["width"], tile["height"])
    return image


class Mosaic:
    """What a page would show: the tiles in their places."""

    def __init__(self) -> None:
        self.picture: Image.Image
        self.times: Any = None

    def add(self, tile: Item) -> None:
        image = image_of(tile)
        if self.times is None:
            self.picture = Image.new(image.mode, (tile["imageWidth"], tile["imageHeight"]))
            self.times = np.zeros((tile["imageHeight"], tile["imageWidth"]), int)
        assert max(image.size) <= MAX_SIDE
        self.picture.paste(image, (tile["x"], tile["y"]))
        self.times[tile["y"] : tile["y"] + tile["height"], tile["x"] : tile["x"] + tile["width"]] += 1

    @property
    def whole(self) -> bool:
        """Whether each pixel is there, from one tile."""
        return self.times is not None and bool((self.times == 1).all())

    def psnr(self, result: Image.Image) -> float:
        ours, theirs = (np.asarray(image, float) for image in (self.picture, result))
        return float(10 * np.log10(255**2 / np.mean((ours - theirs) ** 2)))


@pytest.fixture
def hold_results(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Results are encoded only when this is set, so that all tiles have time to come."""
    released = threading.Event()
    encode = server.upscale.processing.encode

    def held(*arguments: Any, **options: Any) -> bytes:
        assert released.wait(PATIENCE)
        return encode(*arguments, **options)

    monkeypatch.setattr(server.upscale.processing, "encode", held)
    yield released
    released.set()


async def receive_tile(peer: Peer, task: Item) -> Item:
    item = await peer.receive_item()
    assert (item["taskType"], item["taskUUID"]) == ("upscale", task["taskUUID"])
    assert item["status"] == "processing"
    assert 0 <= item["progress"] <= 100  # a tile may overtake the news of its progress
    tile: Item = item["tile"]
    return tile


@pytest.mark.parametrize(("messagepack", "factor"), [(False, 2), (True, 1.5)])
async def test_tiles_come_before_the_result_and_show_what_it_shows(
    server: EmbeddedServer, hold_results: threading.Event, messagepack: bool, factor: float
) -> None:
    image = make_image(*SOME_TILES)
    task = upscale(image if messagepack else encoded(image), includeTiles=True, upscaleFactor=factor)
    task["outputType"] = "base64Data"
    mosaic = Mosaic()
    async with connected(server, messagepack=messagepack) as peer:
        await peer.send(task)
        while not mosaic.whole:
            mosaic.add(await receive_tile(peer, task))
        hold_results.set()
        result = await peer.receive_item()
        assert not result.keys() & {"tile", "status", "progress"}
        await peer.nothing_more()
        (again,) = await peer.ask(task)
        assert again == result, "tiles are not sent again"
    data = result["imageBase64Data"]
    final = open_image(data if messagepack else base64.b64decode(data))
    assert final.size == (720 * factor, 400 * factor)
    assert mosaic.psnr(final) > 40


async def test_tiles_of_a_turned_picture_are_upright(
    server: EmbeddedServer, hold_results: threading.Event
) -> None:
    hold_results.set()
    exif = Image.Exif()
    exif[0x0112] = 6
    task = upscale(encoded(make_image(300, 90, "JPEG", exif=exif)), includeTiles=True)
    async with connected(server) as peer:
        await peer.send(task)
        tile = await receive_tile(peer, task)
    assert (tile["imageWidth"], tile["imageHeight"]) == (180, 600)


async def test_tiles_of_a_transparent_picture_are_transparent(
    server: EmbeddedServer, hold_results: threading.Event
) -> None:
    picture = open_image(make_image(200, 120)).convert("RGB")
    picture.putalpha(Image.radial_gradient("L").resize(picture.size))
    task = upscale(encoded(as_png(picture)), includeTiles=True, outputType="base64Data")
    mosaic = Mosaic()
    async with connected(server) as peer:
        await peer.send(task)
        while not mosaic.whole:
            mosaic.add(await receive_tile(peer, task))
        hold_results.set()
        final = open_image(base64.b64decode((await peer.receive_item())["imageBase64Data"]))
    assert mosaic.picture.mode == final.mode == "RGBA"
    white = Image.new("RGBA", final.size, "white")
    mosaic.picture = Image.alpha_composite(white, mosaic.picture)
    assert mosaic.psnr(Image.alpha_composite(white, final)) > 35


@pytest.mark.parametrize("kind", ["alpha", "grey", "grey with alpha", "colour"])
@pytest.mark.parametrize("factor", [2, 1.5])
async def test_a_client_that_reads_at_once_gets_all_of_the_picture(
    server: EmbeddedServer, kind: str, factor: float
) -> None:
    """Nothing is held here: the last tiles come before the result, however quickly that is done."""
    picture = open_image(make_image(600, 300)).convert("L" if "grey" in kind else "RGB")
    if "alpha" in kind:
        picture.putalpha(Image.radial_gradient("L").resize(picture.size))
    task = upscale(encoded(as_png(picture)), includeTiles=True, outputType="base64Data", upscaleFactor=factor)
    mosaic = Mosaic()
    async with connected(server) as peer:
        await peer.send(task)
        while "tile" in (item := await peer.receive_item()):
            mosaic.add(item["tile"])
    assert mosaic.whole
    final = open_image(base64.b64decode(item["imageBase64Data"]))
    assert final.mode == {"alpha": "RGBA", "grey": "L", "grey with alpha": "LA", "colour": "RGB"}[kind]
    if "alpha" not in kind:
        assert mosaic.picture.mode == final.mode
        assert mosaic.psnr(final) > 35


async def test_the_client_hands_tiles_over(server: EmbeddedServer, hold_results: threading.Event) -> None:
    mosaic = Mosaic()
    async with Tilewire(socket_url(server), KEY) as tilewire:
        stream = tilewire.events(make_image(*SOME_TILES), model=FAST_MODEL, factor=2, output_format="PNG")
        async for event in stream:
            match event:
                case TileReady():
                    mosaic.add(
                        {"imageWidth": event.image_width, "imageHeight": event.image_height}
                        | {name: getattr(event, name) for name in ("x", "y", "width", "height", "image")}
                        | {"mediaType": event.media_type}
                    )
                    if mosaic.whole:
                        hold_results.set()
                case Result():
                    assert mosaic.psnr(event.to_pillow()) > 40


async def test_tiles_are_sent_while_others_still_wait_to_run(
    device: SteppedDevice, start_server: StartServer
) -> None:
    task = upscale(encoded(make_image(*SOME_TILES)), includeTiles=True, upscaleFactor=4)
    async with connected(start_server()) as peer:
        await peer.send(task)
        device.step()
        tile = await receive_tile(peer, task)
        assert (tile["x"], tile["y"]) == (0, 0)
        device.run_freely()
        while "imageURL" not in await peer.receive_item():
            pass


async def test_a_cancelled_task_sends_no_more_tiles(device: SteppedDevice, start_server: StartServer) -> None:
    task = upscale(encoded(make_image(*SOME_TILES)), includeTiles=True, upscaleFactor=4)
    cancel = {"taskType": "cancel", "taskUUID": new_uuid(), "targetTaskUUID": task["taskUUID"]}
    async with connected(start_server()) as peer:
        await peer.send(task)
        device.step()
        await receive_tile(peer, task)
        await peer.send(cancel)
        replies: list[Item] = []
        while len(replies) < 2:
            item = await peer.receive_item()
            if "tile" in item:
                assert not any("code" in reply for reply in replies), "a tile after the task's end"
            else:
                replies.append(item)
        assert {reply.get("code", reply.get("status")) for reply in replies} == {"taskCancelled", "cancelled"}
        device.run_freely()
        (done,) = await peer.ask(upscale(encoded(make_image()), upscaleFactor=4))
        assert "imageURL" in done
        await peer.nothing_more()


async def cancelled(peer: Peer, task: Item) -> Item:
    """The error that a task ends with as it is cancelled."""
    await peer.send({"taskType": "cancel", "taskUUID": new_uuid(), "targetTaskUUID": task["taskUUID"]})
    while (item := await peer.receive_item()).get("code") != "taskCancelled":
        pass
    return item


async def test_a_picture_whose_tiles_have_all_been_sent_costs_its_price_though_it_is_cancelled(
    server: EmbeddedServer, hold_results: threading.Event
) -> None:
    account = open_account(server)
    task = upscale(encoded(make_image(*SOME_TILES)), includeTiles=True, includeCost=True)
    mosaic = Mosaic()
    async with connected(server, key=account.key) as peer:
        await peer.send(task)
        while not mosaic.whole:
            mosaic.add(await receive_tile(peer, task))
        error = await cancelled(peer, task)
        assert "is charged for the part of the result that was sent" in error["message"]
        hold_results.set()
        (result,) = await peer.ask(task)
        assert result["cost"] == error["cost"], "it is paid for"
    assert charges(server, account.id) == (round(error["cost"] * 1e9), 1)
    assert server.services.database.snapshot(audit).mistakes == []


async def test_a_part_of_a_picture_costs_its_part_of_the_price(
    device: SteppedDevice, start_server: StartServer
) -> None:
    server = start_server()
    account = open_account(server)
    task = upscale(encoded(make_image(*SOME_TILES)), includeTiles=True, includeCost=True, upscaleFactor=4)
    async with connected(server, key=account.key) as peer:
        await peer.send(task)
        device.step()
        tile = await receive_tile(peer, task)
        error = await cancelled(peer, task)
        device.run_freely()
        (result,) = await peer.ask(task)
    part = tile["width"] * tile["height"] / (tile["imageWidth"] * tile["imageHeight"])
    sent = round(error["cost"] / result["cost"] / part)
    assert error["cost"] == math.ceil(1e6 * result["cost"] * part * sent) / 1e6, "pieces of the same size"
    assert charges(server, account.id) == (round(result["cost"] * 1e9), 2), "the rest when it is sent again"
    assert server.services.database.snapshot(audit).mistakes == []


async def test_a_session_that_resumes_gets_the_tiles_that_finish_then(
    device: SteppedDevice, start_server: StartServer
) -> None:
    server, session = start_server(), new_uuid()
    task = upscale(encoded(make_image(*SOME_TILES)), includeTiles=True, upscaleFactor=4)
    async with connected(server, session=session) as peer:
        await peer.send(task)
        device.step()
        first = await receive_tile(peer, task)
        await peer.cut()
    async with connected(server, session=session, messagepack=True) as peer:
        device.run_freely()
        items = [await peer.receive_item()]
        while "imageURL" not in items[-1]:
            items.append(await peer.receive_item())
    places = [(item["tile"]["x"], item["tile"]["y"]) for item in items[:-1]]
    assert places
    assert all("image" in item["tile"] for item in items[:-1])
    assert (first["x"], first["y"]) not in places
    assert len(places) == len(set(places))


async def test_a_client_that_does_not_read_loses_tiles_and_gets_its_result(
    device: SteppedDevice, start_server: StartServer
) -> None:
    server = start_server()
    pieces = (4800 // MAX_SIDE + 1) ** 2
    task = upscale(as_png(noise(1200, 1200)), includeTiles=True, upscaleFactor=4, outputFormat="JPG")
    protocol: Any = ["tilewire.msgpack"]
    async with (
        open_socket(server, subprotocols=protocol, max_queue=1) as socket,
        connected(server) as other,
    ):
        peer = Peer(socket)
        session = (await peer.authenticate())["connectionSessionUUID"]
        await peer.send(task)
        device.step()
        assert await asyncio.to_thread(device.began.acquire, timeout=PATIENCE), "it is under way"
        device.run_freely()
        assert "imageURL" in await other.finished(task["taskUUID"]), "the task is not held up"
        ((account, _),) = (key for key in server.services.sessions._connected if key[1] == session)
        link = server.services.sessions.link(account, session)
        assert link is not None
        assert link.unsent < MAX_UNSENT
        tiles = 0
        while "tile" in (item := await peer.receive_item()):
            tiles += 1
        assert "imageURL" in item
        await peer.nothing_more()
    assert 0 < tiles < pieces


async def test_over_http_tiles_are_refused(server: EmbeddedServer) -> None:
    task = upscale(encoded(make_image()), includeTiles=True)
    headers = {"authorization": f"Bearer {KEY}"}
    async with (
        aiohttp.ClientSession() as web,
        web.post(f"{server.url}/v1", json=[task], headers=headers) as response,
    ):
        assert response.status == 400
        (error,) = (await response.json())["errors"]
    assert (error["code"], error["parameter"]) == ("unsupportedIncludeTiles", "includeTiles")
    assert error["taskUUID"] == task["taskUUID"]
    assert "WebSocket" in error["message"]


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_even_a_tile_of_noise_stays_below_the_limit_of_the_sdk(mode: str) -> None:
    planes = np.asarray(noise(MAX_SIDE, MAX_SIDE, mode))
    alpha = planes[:, :, 3] if mode == "RGBA" else None
    tile = encode_tile(
        Region(
            area=Area(0, 0, MAX_SIDE, MAX_SIDE),
            width=MAX_SIDE,
            height=MAX_SIDE,
            source=Picture(pixels=planes[:, :, :3], alpha=alpha, icc_profile=bytes(2**16)),
            colours=planes[:, :, :3],
            alpha=alpha,
        ),
        binary=False,
    )
    item = Progress(task_type="upscale", task_uuid=new_uuid(), status="processing", progress=50, tile=tile)
    assert len(JSON.data([item])) < 2**20
