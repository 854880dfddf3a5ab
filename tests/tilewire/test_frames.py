"""The client's streams of frames."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator

import numpy as np
import pytest

from server.serving import EmbeddedServer
from tests.server.conftest import StartServer
from tests.server.support.harness import FAST_MODEL, KEY, charges, open_account, until
from tests.server.support.stepped_device import SteppedDevice
from tilewire import PixelOptions, Tilewire

FAST: PixelOptions = {"model": FAST_MODEL, "factor": 2}


def pixels(number: int) -> "np.ndarray[tuple[int, int], np.dtype[np.uint8]]":
    array = np.full((16, 24), number, np.uint8)
    array[0, 0] = 255 - number
    return array


async def camera(count: int) -> AsyncIterator["np.ndarray[tuple[int, int], np.dtype[np.uint8]]"]:
    for number in range(count):
        yield pixels(number)


async def test_every_frame_comes_in_order(server: EmbeddedServer) -> None:
    async with Tilewire(server.url, KEY, concurrency=1) as tilewire:
        for frames in (camera(6), [pixels(number) for number in range(6)], iter(map(pixels, range(6)))):
            got = [frame async for frame in tilewire.stream(frames, in_flight=3, **FAST)]
            assert [frame.number for frame in got] == list(range(6))
            assert [frame.pixels.shape for frame in got] == [(32, 48)] * 6
            assert [int(frame.pixels[-1, -1]) for frame in got] == pytest.approx(range(6), abs=2)


async def test_of_live_video_the_latest_comes(start_server: StartServer, device: SteppedDevice) -> None:
    server = start_server()
    account = open_account(server)
    asked = 0

    async def live() -> AsyncIterator["np.ndarray[tuple[int, int], np.dtype[np.uint8]]"]:
        nonlocal asked
        for number in range(30):
            asked = number
            yield pixels(number)
            await asyncio.sleep(0)
        await until(lambda: server.services.runner.count > 0)
        device.run_freely()

    async with Tilewire(server.url, account.key) as tilewire:
        stream = tilewire.stream(live(), latest=True, in_flight=1, model=FAST_MODEL, factor=4)
        numbers = [frame.number async for frame in stream]
    assert asked == 29, "the camera is never waited for"
    assert numbers == sorted(numbers)
    assert (numbers[0], numbers[-1], len(numbers) < 30) == (0, 29, True)
    assert charges(server, account.id)[1] == len(numbers)


async def test_a_loop_that_is_left_stops_what_is_under_way(server: EmbeddedServer) -> None:
    asked: list[int] = []

    def frames() -> Iterator["np.ndarray[tuple[int, int], np.dtype[np.uint8]]"]:
        for number in range(1000):
            asked.append(number)
            yield pixels(number)

    async with Tilewire(server.url, KEY) as tilewire:
        async with contextlib.aclosing(tilewire.stream(frames(), **FAST)) as stream:
            async for frame in stream:
                if frame.number == 3:
                    break
        await until(lambda: server.services.runner.count == 0)
    assert len(asked) < 20, "no more is read than there is room for"


async def test_what_a_source_raises_is_raised_after_its_frames(server: EmbeddedServer) -> None:
    async def broken() -> AsyncIterator["np.ndarray[tuple[int, int], np.dtype[np.uint8]]"]:
        yield pixels(0)
        raise OSError("the camera is gone")

    numbers = []
    async with Tilewire(server.url, KEY) as tilewire:
        stream = tilewire.stream(broken(), **FAST)
        numbers.append((await anext(stream)).number)
        with pytest.raises(OSError, match="the camera is gone"):
            await anext(stream)
        with pytest.raises(ValueError, match="uint8"):
            await anext(tilewire.stream([np.zeros((4, 4))], **FAST))
        for in_flight in (0, 65):
            with pytest.raises(ValueError, match="from 1 to 64"):
                await anext(tilewire.stream(camera(1), in_flight=in_flight, **FAST))
    assert numbers == [0]


async def test_frames_are_sent_again_after_a_connection_was_lost(server: EmbeddedServer) -> None:
    async with Tilewire(server.url, KEY) as tilewire:
        numbers = []
        async for frame in tilewire.stream(camera(6), **FAST):
            numbers.append(frame.number)
            if frame.number == 2:
                tilewire._link._socket.transport.abort()
    assert numbers == list(range(6))
