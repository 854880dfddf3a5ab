"""The client: what it takes, what it gives, and what it raises."""

import asyncio
import base64
import io
import os
import socket
import uuid
import warnings
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from server.serving import EmbeddedServer
from tests.server.conftest import StartServer
from tests.server.support.harness import (
    FAST_MODEL,
    KEY,
    charges,
    make_image,
    new_uuid,
    open_account,
    open_image,
    request,
    socket_url,
    until,
)
from tests.server.support.stepped_device import SteppedDevice
from tests.server.support.web import Web
from tilewire import (
    AuthenticationFailedError,
    BusyError,
    Finished,
    InsufficientCreditsError,
    NotFoundError,
    Options,
    Progress,
    Result,
    Source,
    TaskCancelledError,
    TaskFailedError,
    TileReady,
    Tilewire,
    UnreachableError,
    sources,
)

FAST: Options = {"model": FAST_MODEL, "factor": 2, "output_format": "PNG"}


def client(server: EmbeddedServer, key: str = KEY, **options: Any) -> Tilewire:
    return Tilewire(socket_url(server), key, **options)


async def test_an_image_becomes_a_larger_one(server: EmbeddedServer) -> None:
    async with client(server) as tilewire:
        result = await tilewire.upscale(make_image(30, 20), **FAST)
    assert (result.width, result.height) == (60, 40)
    assert result.image is not None
    assert open_image(result.image).format == "PNG"
    assert result.url.startswith(f"{server.url}/images/")
    assert result.cost > 0


async def test_every_kind_of_source_gives_the_same_result(server: EmbeddedServer, tmp_path: Path) -> None:
    data = make_image()
    path = tmp_path / "photo.png"
    path.write_bytes(data)
    pixels = np.asarray(open_image(data))
    async with client(server) as tilewire:
        upload = await tilewire.upload(path)
        given: list[Source] = [
            data,
            path,
            str(path),
            pixels,
            pixels[:, ::-1][:, ::-1],
            open_image(data),
            upload,
            upload.uuid,
            uuid.UUID(upload.uuid),
            bytearray(data),
            memoryview(data),
            io.BytesIO(data),
            path.open("rb"),
            f"data:image/png;base64,{base64.b64encode(data).decode()}",
        ]
        results = [await tilewire.upscale(source, **FAST) for source in given]
        again = await tilewire.upscale(results[0], **FAST)
    for result in results:
        assert np.array_equal(result.to_array(), results[0].to_array())
    assert again.width == 2 * (results[0].width or 0)


@pytest.mark.parametrize("shape", [(16, 24), (16, 24, 3), (16, 24, 4)])
async def test_an_array_becomes_an_array(server: EmbeddedServer, shape: tuple[int, ...]) -> None:
    pixels = np.asarray(open_image(make_image(24, 16)).convert("RGBA"))[..., : shape[-1]]
    pixels = pixels[..., 0] if len(shape) == 2 else pixels
    async with client(server) as tilewire:
        larger = await tilewire.upscale(pixels, model=FAST_MODEL, factor=2)
        (finished,) = [one async for one in tilewire.upscale_many([pixels], model=FAST_MODEL, factor=2)]
        result = finished.result()
        again = await tilewire.upscale(result, model=FAST_MODEL, factor=2)
        kept = await tilewire.upscale(pixels, model=FAST_MODEL, factor=2, output_format="RAW", store=True)
    assert (larger.shape[:2], larger.shape[2:]) == ((32, 48), pixels.shape[2:])
    larger += 0  # it may be changed
    assert np.array_equal(result.to_array(), larger)
    assert (result.uuid, result.url, result.image) == ("", "", None)
    assert (again.width, result.height, result.to_pillow().size) == (96, 32, (48, 32))
    assert np.array_equal(kept.to_array(), larger)
    file = open_image((await request(kept.url)).body).convert(result.to_pillow().mode)
    assert np.array_equal(np.asarray(file), larger)


async def test_pixels_are_saved_as_a_file_of_any_format(server: EmbeddedServer, tmp_path: Path) -> None:
    async with client(server) as tilewire:
        result = await tilewire.upscale(make_image(), model=FAST_MODEL, factor=2, output_format="RAW")
    result.save(tmp_path / "a.png")
    result.save(tmp_path / "a.webp")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "a.png")), result.to_array())
    assert Image.open(tmp_path / "a.webp").format == "WEBP"


async def test_an_array_that_is_too_large_for_a_message_of_pixels_is_sent_as_a_file(
    server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "_LARGEST_RAW", 100)
    async with client(server) as tilewire:
        assert (await tilewire.upscale(np.zeros((16, 16), np.uint8), factor=1)).shape == (16, 16)


async def test_a_url_is_fetched_by_the_server(start_server: StartServer, web: Web) -> None:
    web.files["/a.png"] = make_image()
    async with client(start_server(private_networks=True)) as tilewire:
        result = await tilewire.upscale(f"{web.url}/a.png", **FAST)
    assert result.to_pillow().size == (48, 32)


async def test_transparency_comes_back(server: EmbeddedServer) -> None:
    pixels = np.full((16, 16, 4), 128, np.uint8)
    async with client(server) as tilewire:
        result = await tilewire.upscale(pixels, **FAST)
    assert result.to_array().shape == (32, 32, 4)


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "La", "P", "CMYK", "YCbCr", "LAB", "HSV", "RGBA", "RGBa", "RGBX", "I;16"]
)
async def test_pillow_images_of_all_modes_are_taken(server: EmbeddedServer, mode: str) -> None:
    image = open_image(make_image(16, 12))
    if mode == "LAB":
        profiles = [ImageCms.createProfile(name) for name in ("sRGB", "LAB")]
        image = ImageCms.applyTransform(image, ImageCms.buildTransform(*profiles, "RGB", "LAB"))
    else:
        for step in {"La": ["LA", "La"], "RGBa": ["RGBA", "RGBa"]}.get(mode, [mode]):
            image = Image.new(mode, (16, 12)) if mode == "I;16" else image.convert(step)
    assert image.mode == mode
    async with client(server) as tilewire:
        assert (await tilewire.upscale(image, **FAST)).to_pillow().size == (32, 24)


async def test_the_orientation_of_a_pillow_image_is_kept(server: EmbeddedServer) -> None:
    image = open_image(make_image(20, 10))
    image.getexif()[0x0112] = 6  # turned by a quarter
    async with client(server) as tilewire:
        assert (await tilewire.upscale(image, **FAST)).to_pillow().size == (20, 40)


@pytest.mark.parametrize(
    ("source", "error", "told"),
    [
        (np.zeros((4, 4, 2), np.uint8), ValueError, r"\(4, 4, 2\) uint8"),
        (np.zeros((4, 4, 3), np.float32), ValueError, "float32"),
        (np.zeros((0, 4, 3), np.uint8), ValueError, r"\(0, 4, 3\)"),
        (Path("no/such/file.png"), FileNotFoundError, "no/such/file.png"),
        (17, TypeError, "int"),
        (io.StringIO("text"), TypeError, "mode 'rb'"),
    ],
)
async def test_what_is_no_picture_is_told_before_anything_is_sent(
    server: EmbeddedServer, source: Any, error: type[Exception], told: str
) -> None:
    async with client(server) as tilewire:
        with pytest.raises(error, match=told):
            await tilewire.upscale(source, **FAST)


async def test_an_option_that_there_is_not_is_told(server: EmbeddedServer) -> None:
    async with client(server) as tilewire:
        with pytest.raises(TypeError, match="'faktor'"):
            await tilewire.upscale(make_image(), faktor=2)  # type: ignore[call-arg]


async def test_options_that_are_none_are_the_servers_defaults(server: EmbeddedServer) -> None:
    async with client(server) as tilewire:
        result = await tilewire.upscale(make_image(), model=FAST_MODEL, factor=None, output_quality=None)
    assert result.to_pillow().format == "JPEG"
    assert result.width == 96


async def test_a_result_without_its_image_has_the_url(server: EmbeddedServer) -> None:
    async with client(server) as tilewire:
        result = await tilewire.upscale(make_image(), include_image=False, **FAST)
    assert (result.image, result.width, result.height) == (None, None, None)
    assert result.url
    with pytest.raises(ValueError, match="include_image"):
        result.to_pillow()


async def test_a_result_is_saved_whole(server: EmbeddedServer, tmp_path: Path) -> None:
    async with client(server) as tilewire:
        result = await tilewire.upscale(make_image(), **FAST)
    result.save(tmp_path / "out.png")
    assert (tmp_path / "out.png").read_bytes() == result.image
    assert os.listdir(tmp_path) == ["out.png"]  # noqa: PTH208 - this is not on the loop's time
    with pytest.raises(FileNotFoundError) as caught:
        result.save(tmp_path / "nowhere" / "out.png")
    assert caught.value.filename == str(tmp_path / "nowhere" / "out.png")
    assert f"image=<{len(result.image)} bytes>" in repr(result)


def transparent() -> bytes:
    """A picture that fades out to the right."""
    image = open_image(make_image(16, 16)).convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize((16, 16)).rotate(90))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


async def test_transparency_is_kept_unless_the_name_of_the_file_cannot(
    server: EmbeddedServer, tmp_path: Path
) -> None:
    async with client(server) as tilewire:
        result = await tilewire.upscale(transparent(), model=FAST_MODEL, factor=2)
    result.save(tmp_path / "y.png")
    kept = Image.open(tmp_path / "y.png")
    assert (kept.format, kept.has_transparency_data) == ("PNG", True)
    with pytest.warns(UserWarning, match=r"y\.jpg loses the transparency"):
        result.save(tmp_path / "y.jpg")
    flat = Image.open(tmp_path / "y.jpg")
    assert (flat.format, flat.mode) == ("JPEG", "RGB")
    clearest = min(range(32), key=lambda x: kept.getpixel((x, 16))[3])  # type: ignore[index]
    assert min(flat.getpixel((clearest, 16))) > 240  # type: ignore[arg-type, type-var]


async def test_the_name_decides_the_format(server: EmbeddedServer, tmp_path: Path) -> None:
    async with client(server) as tilewire:
        result = await tilewire.upscale(make_image(), model=FAST_MODEL, factor=2)
    assert result.to_pillow().format == "JPEG"
    with pytest.warns(UserWarning, match="converted from a JPEG"):
        result.save(tmp_path / "y.png")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "y.png")), result.to_array())
    with warnings.catch_warnings(action="error"):
        for name in ("y.jpeg", "y.JPG", "result", "result.bin"):
            result.save(tmp_path / name)
            assert (tmp_path / name).read_bytes() == result.image
    with pytest.raises(ValueError, match="Pillow cannot write"):
        result.save(tmp_path / "y.psd")


async def test_links_devices_and_modes_of_targets_are_kept(server: EmbeddedServer, tmp_path: Path) -> None:
    async with client(server) as tilewire:
        result = await tilewire.upscale(make_image(), **FAST)
    private, link, device = tmp_path / "private.png", tmp_path / "link.png", tmp_path / "null.png"
    private.touch(mode=0o600)
    link.symlink_to(private)
    device.symlink_to(os.devnull)
    result.save(link)
    result.save(device)
    assert link.is_symlink()
    assert device.is_symlink()
    assert private.read_bytes() == result.image
    assert private.stat().st_mode & 0o777 == 0o600
    result.save(tmp_path / ("a" * 251 + ".png"))


def test_results_of_any_size_are_opened() -> None:
    large = io.BytesIO()
    Image.new("1", (15_000, 12_500)).save(large, "PNG")  # 187 megapixels
    result = Result(task_uuid=new_uuid(), uuid=new_uuid(), image=large.getvalue())
    with warnings.catch_warnings(action="error"):
        assert (result.width, result.height) == (15_000, 12_500)
        assert result.to_pillow().size == (15_000, 12_500)


async def test_a_stream_tells_progress_and_tiles_and_last_the_result(
    device: SteppedDevice, start_server: StartServer
) -> None:
    device.run_freely()
    async with client(start_server()) as tilewire:
        stream = tilewire.events(make_image(1500, 190), model=FAST_MODEL, factor=4)
        events = [event async for event in stream]
    assert isinstance(events[-1], Result)
    assert all(isinstance(event, Progress | TileReady) for event in events[:-1])
    shares = [event.share for event in events if isinstance(event, Progress)]
    assert shares
    assert shares == sorted(shares)
    for tile in (event for event in events if isinstance(event, TileReady)):
        assert tile.to_pillow().size == (tile.width, tile.height)
        assert (tile.image_width, tile.image_height) == (6000, 760)


async def test_many_are_given_as_they_finish(server: EmbeddedServer) -> None:
    pictures = [make_image(10 + n, 10, seed=n) for n in range(12)]
    async with client(server, concurrency=3) as tilewire:
        done = [finished async for finished in tilewire.upscale_many(iter([*pictures, b"none"]), **FAST)]
    sizes = {finished.source: finished.result().width for finished in done if finished.source in pictures}
    assert sizes == {picture: 2 * (10 + n) for n, picture in enumerate(pictures)}
    (bad,) = [finished for finished in done if finished.source == b"none"]
    with pytest.raises(TaskFailedError):
        bad.result()


async def test_leaving_many_early_gives_the_rest_up(start_server: StartServer, web: Web) -> None:
    server = start_server(private_networks=True)
    account = open_account(server)
    held = [web.hold(f"/{n}.png", make_image(seed=n)) for n in range(2)]
    before = asyncio.all_tasks()
    async with client(server, account.key) as tilewire:
        async for finished in tilewire.upscale_many([make_image(), *held], **FAST):
            assert isinstance(finished, Finished)
            for _ in held:
                await web.receive()
            break
    assert asyncio.all_tasks() - before == set(), "nothing is left running"
    assert charges(server, account.id)[1] == 1
    await until(lambda: server.services.runner.count == 0)


async def test_no_more_are_on_the_server_than_asked_for(start_server: StartServer, web: Web) -> None:
    urls = [web.hold(f"/{n}.png", make_image(seed=n)) for n in range(6)]
    async with client(start_server(private_networks=True), concurrency=2) as tilewire:
        results = asyncio.gather(*(tilewire.upscale(url, **FAST) for url in urls))
        for first in (0, 2, 4):
            asked = [(await web.receive()).path for _ in range(2)]
            assert web.waiting() == 0, "a third one would be here by now"
            assert sorted(asked) == [f"/{first}.png", f"/{first + 1}.png"]
            await tilewire.account()  # what was sent before it has been taken by the server
            assert web.waiting() == 0
            for path in asked:
                web.release(path)
        assert len(await results) == 6


async def test_cancelling_a_call_cancels_its_task(start_server: StartServer, web: Web) -> None:
    server = start_server(private_networks=True)
    account = open_account(server)
    async with client(server, account.key) as tilewire:
        waiting = asyncio.create_task(tilewire.upscale(web.hold("/a.png", make_image()), **FAST))
        await web.receive()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await until(lambda: server.services.runner.count == 0)
    assert charges(server, account.id) == (0, 0)


async def test_a_call_that_is_cancelled_as_soon_as_it_is_sent_costs_nothing(
    device: SteppedDevice, start_server: StartServer
) -> None:
    server = start_server()
    account = open_account(server)
    async with client(server, account.key) as tilewire:
        for steps in range(12):
            call = tilewire.upscale(make_image(seed=steps), model=FAST_MODEL, factor=4)
            waiting = asyncio.create_task(call)
            for _ in range(steps):
                await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        await until(lambda: server.services.runner.count == 0)
    assert charges(server, account.id) == (0, 0)


async def test_leaving_a_stream_early_cancels_its_task(
    device: SteppedDevice, start_server: StartServer
) -> None:
    server = start_server()
    account = open_account(server)
    async with client(server, account.key) as tilewire:
        stream = tilewire.events(make_image(1500, 190), model=FAST_MODEL, factor=4)
        device.step()
        await anext(stream)
        await stream.aclose()
        await until(lambda: server.services.runner.count == 0)
    assert charges(server, account.id)[0] < 100_000, "it pays for the tiles that were sent"


async def test_a_task_is_cancelled_by_its_uuid(start_server: StartServer, web: Web) -> None:
    task_uuid = new_uuid()
    async with client(start_server(private_networks=True)) as tilewire:
        url = web.hold("/a.png", make_image())
        waiting = asyncio.create_task(tilewire.upscale(url, task_uuid=task_uuid, **FAST))
        await web.receive()
        with pytest.raises(ValueError, match="under way already"):
            await tilewire.upscale(url, task_uuid=task_uuid, **FAST)
        assert await tilewire.cancel(task_uuid) is True
        with pytest.raises(TaskCancelledError):
            await waiting
        assert await tilewire.cancel(task_uuid) is False


async def test_the_same_task_uuid_is_the_same_task(server: EmbeddedServer) -> None:
    account, task_uuid, image = open_account(server), new_uuid(), make_image()
    async with client(server, account.key) as tilewire:
        first, second = [await tilewire.upscale(image, task_uuid=task_uuid, **FAST) for _ in range(2)]
        assert first.uuid == second.uuid
        with pytest.raises(TaskFailedError) as caught:
            await tilewire.upscale(make_image(seed=1), task_uuid=task_uuid, **FAST)
    assert caught.value.code == "conflictTaskUUID"
    assert charges(server, account.id)[1] == 1


@pytest.mark.parametrize("wrong", ["", "7", 7, "a" * 200, "3a8f4b0e-6d0b-4c8e-9a54-1f2f3b4c5d6e0"])
async def test_a_task_uuid_that_is_none_is_refused_at_once_and_alone(
    start_server: StartServer, web: Web, wrong: Any
) -> None:
    async with client(start_server(private_networks=True)) as tilewire:
        other = asyncio.create_task(tilewire.upscale(web.hold("/a.png", make_image()), **FAST))
        await web.receive()
        with pytest.raises(ValueError, match="must be a UUID"):
            await tilewire.upscale(make_image(), task_uuid=wrong, **FAST)
        with pytest.raises(ValueError, match="must be a UUID"):
            await tilewire.cancel(wrong)
        web.release("/a.png")
        assert (await other).width == 48


async def test_a_task_uuid_may_be_spelt_in_any_way(server: EmbeddedServer) -> None:
    account, task_uuid = open_account(server), uuid.uuid4()
    async with client(server, account.key) as tilewire:
        for spelling in (task_uuid, str(task_uuid), str(task_uuid).upper(), f"{{{task_uuid}}}"):
            result = await tilewire.upscale(make_image(), task_uuid=spelling, **FAST)
            assert result.task_uuid == str(task_uuid)
    assert charges(server, account.id)[1] == 1


async def test_use_outside_of_the_block_or_its_event_loop_says_so(server: EmbeddedServer) -> None:
    tilewire = client(server)
    for use in (tilewire.upscale(make_image()), tilewire.account(), tilewire.upload(make_image())):
        with pytest.raises(RuntimeError, match="async with"):
            await use
    with pytest.raises(RuntimeError, match="async with"):
        await anext(tilewire.upscale_many([make_image()]))
    async with tilewire:
        with pytest.raises(RuntimeError, match="open already"):
            await tilewire.__aenter__()
        for use in (tilewire.upscale(make_image()), tilewire.account()):
            with pytest.raises(RuntimeError, match="event loop"):
                await asyncio.to_thread(asyncio.run, use)
        assert await tilewire.account()
    with pytest.raises(UnreachableError, match="closed"):
        await tilewire.account()
    async with tilewire:
        assert (await tilewire.upscale(make_image(), **FAST)).width == 48


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"])
async def test_this_machine_is_never_reached_through_a_proxy(
    server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    for scheme in ("http", "https", "all", "socks", "ws"):
        monkeypatch.setenv(f"{scheme}_proxy", "http://127.0.0.1:9")
    port = server.url.rpartition(":")[2]
    async with Tilewire(f"ws://{host}:{port}/v1", KEY) as tilewire:
        assert await tilewire.account()
    with pytest.raises(UnreachableError, match="Connection refused"):  # by the proxy
        async with Tilewire("ws://tilewire.invalid/v1", KEY):
            pass


async def test_the_address_of_the_page_will_do(server: EmbeddedServer) -> None:
    for url in (server.url, f"{server.url}/", f"{socket_url(server)}/"):
        async with Tilewire(url, KEY) as tilewire:
            assert await tilewire.account()
    with pytest.raises(UnreachableError, match="no TLS at that port"):
        async with Tilewire(socket_url(server).replace("ws:", "wss:"), KEY):
            pass


async def test_models_and_account_are_told(server: EmbeddedServer) -> None:
    async with client(server) as tilewire:
        models = await tilewire.models()
        account = await tilewire.account()
    assert FAST_MODEL in {model.name for model in models}
    assert account.organization_name == "default"
    assert account.usage["total"].requests >= 0


async def test_a_failure_is_raised_for_its_task_alone(server: EmbeddedServer) -> None:
    async with client(server) as tilewire:
        good, bad = await asyncio.gather(
            tilewire.upscale(make_image(), **FAST),
            tilewire.upscale(b"no image", **FAST),
            return_exceptions=True,
        )
    assert isinstance(good, Result)
    assert isinstance(bad, TaskFailedError)
    assert (bad.parameter, bad.retry_after) == ("inputs.image", None)
    assert str(bad) == bad.message


async def test_errors_are_of_their_kinds(start_server: StartServer) -> None:
    server = start_server(prices={FAST_MODEL: Decimal(1000)})
    async with client(server, open_account(server, credit=Decimal("0.01")).key) as tilewire:
        with pytest.raises(InsufficientCreditsError):
            await tilewire.upscale(make_image(), **FAST)
        with pytest.raises(NotFoundError) as caught:
            await tilewire.upscale(new_uuid(), **FAST)
        assert caught.value.code == "imageNotFound"
    with pytest.raises(AuthenticationFailedError) as refused:
        async with client(server, "wrong"):
            pass
    assert refused.value.code == "invalidApiKey"


async def test_where_nobody_listens_is_unreachable() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"ws://127.0.0.1:{closed.getsockname()[1]}/v1"
        with pytest.raises(UnreachableError, match=f"{url} cannot be reached: Connection refused"):
            async with Tilewire(url, KEY):
                pass


async def test_what_is_no_socket_is_unreachable(server: EmbeddedServer, web: Web) -> None:
    for url in (f"{socket_url(server)}/nothing", web.url.replace("http", "ws", 1)):
        with pytest.raises(UnreachableError, match="cannot be reached"):
            async with Tilewire(url, KEY):
                pass


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/v1", "127.0.0.1:8080", "", "ws://"])
async def test_an_address_of_another_form_is_told(url: str) -> None:
    with pytest.raises(UnreachableError, match="ws://host:port/v1"):
        async with Tilewire(url, KEY):
            pass


def test_no_room_for_any_task_is_refused() -> None:
    with pytest.raises(ValueError, match="concurrency"):
        Tilewire("ws://127.0.0.1/v1", KEY, concurrency=0)


async def test_a_server_that_is_full_is_asked_again(start_server: StartServer, web: Web) -> None:
    server = start_server(private_networks=True, max_tasks_in_flight=1)
    async with client(server) as tilewire:
        first = asyncio.create_task(tilewire.upscale(web.hold("/a.png", make_image()), **FAST))
        await web.receive()
        second = asyncio.create_task(tilewire.upscale(make_image(), **FAST))
        async with client(server, patience=0.001) as impatient:
            with pytest.raises(BusyError) as caught:
                await impatient.upscale(make_image(), **FAST)
        assert caught.value.retry_after
        assert not second.done()
        web.release("/a.png")
        assert await first
        assert await second


async def test_calls_that_wait_when_the_client_closes_fail(start_server: StartServer, web: Web) -> None:
    async with client(start_server(private_networks=True, drain_timeout=0.01)) as tilewire:
        url = web.hold("/input.png", make_image())
        waiting = asyncio.create_task(tilewire.upscale(url, **FAST))
        await web.receive()
    with pytest.raises(UnreachableError, match="the connection was closed"):
        await waiting


async def test_nothing_is_left_running(server: EmbeddedServer) -> None:
    before = asyncio.all_tasks()
    async with client(server):
        pass
    assert asyncio.all_tasks() == before
    async with client(server) as tilewire:
        await tilewire.upscale(make_image(), **FAST)
    assert asyncio.all_tasks() == before
