"""Streams of frames: in order, a few at a time, and of live video the latest."""

import asyncio
from typing import Any

import pytest

from server.serving import EmbeddedServer
from server.state.audit import audit
from tests.server.conftest import StartServer
from tests.server.support.harness import (
    Item,
    Peer,
    charges,
    connected,
    new_uuid,
    open_account,
    until,
    upscale,
)
from tests.server.support.stepped_device import SteppedDevice


def frame(number: int, *, side: int = 16, **sequence: Any) -> Item:
    grey = bytes((number + 7 * at) % 256 for at in range(side * side))  # what is flat takes no device
    return upscale(
        {"width": side, "height": side, "channels": 1, "pixels": grey},
        upscaleFactor=4,
        outputFormat="RAW",
        sequence={"name": "camera", "number": number, **sequence},
    )


async def outcomes(peer: Peer, count: int) -> list[Item]:
    return [await peer.receive_item() for _ in range(count)]


def told(frames: list[Item], items: list[Item]) -> list[tuple[int, str]]:
    """Which frame each outcome is of, and what became of it."""
    numbers = {task["taskUUID"]: task["sequence"]["number"] for task in frames}
    return [(numbers[item["taskUUID"]], item.get("code", "done")) for item in items]


async def test_results_come_in_order_though_later_ones_are_done_first(server: EmbeddedServer) -> None:
    frames = [frame(number, side=400 if number % 4 == 0 else 8, inFlight=8) for number in range(8)]
    async with connected(server, messagepack=True) as peer:
        await peer.send(*frames)
        assert told(frames, await outcomes(peer, 8)) == [(number, "done") for number in range(8)]


async def test_one_that_takes_longer_to_take_on_is_not_overtaken(server: EmbeddedServer) -> None:
    slow = {"width": 1100, "height": 1100, "channels": 1, "pixels": bytes(1100**2)}
    frames = [frame(0) | {"inputs": {"image": slow}, "upscaleFactor": 1, "store": True}]
    frames += [frame(number) for number in (1, 2)]
    async with connected(server, messagepack=True) as peer:
        await peer.send(*frames)
        assert told(frames, await outcomes(peer, 3)) == [(number, "done") for number in range(3)]


async def test_errors_come_in_order_too_and_hold_nothing_up(server: EmbeddedServer) -> None:
    frames = [frame(number, side=200 if number == 0 else 8, inFlight=1) for number in range(4)]
    frames[1]["inputs"]["image"] = new_uuid()  # is not there, which is found out when its turn comes
    async with connected(server, messagepack=True) as peer:
        await peer.send(*frames)
        assert told(frames, await outcomes(peer, 4)) == [
            (0, "done"),
            (1, "imageNotFound"),
            (2, "done"),
            (3, "done"),
        ]


async def test_of_live_video_those_that_wait_are_dropped_and_cost_nothing(
    start_server: StartServer, device: SteppedDevice
) -> None:
    server = start_server()
    account = open_account(server)
    frames = [frame(number, inFlight=1, latest=True) for number in range(5)]
    async with connected(server, key=account.key, messagepack=True) as peer:
        for one in frames:
            await peer.send(one)
        await until(lambda: server.services.runner.count == 5)
        await peer.nothing_more()  # the first is under way, and all come in order
        device.run_freely()
        dropped = [(number, "frameDropped") for number in (1, 2, 3)]
        assert told(frames, await outcomes(peer, 5)) == [(0, "done"), *dropped, (4, "done")]
        again = await peer.ask(frames[2])  # it is a new task now
        assert told(frames, again) == [(2, "done")]
    assert charges(server, account.id)[1] == 3
    assert server.services.database.snapshot(audit).mistakes == []


async def test_one_that_is_cancelled_lets_others_go_on(
    start_server: StartServer, device: SteppedDevice
) -> None:
    server = start_server()
    frames = [frame(number, inFlight=1) for number in range(3)]
    async with connected(server, messagepack=True) as peer:
        await peer.send(*frames)
        await until(lambda: server.services.runner.count == 3)
        stops = {one["taskUUID"]: new_uuid() for one in frames[:2]}
        for target, stop in stops.items():
            await peer.send({"taskType": "cancel", "taskUUID": stop, "targetTaskUUID": target})
        items = await outcomes(peer, 4)
        device.run_freely()
        items += await outcomes(peer, 1)
        assert told(frames, [one for one in items if one["taskUUID"] not in stops.values()]) == [
            (0, "taskCancelled"),
            (1, "taskCancelled"),
            (2, "done"),
        ]


async def test_streams_and_accounts_do_not_wait_for_each_other(
    start_server: StartServer, device: SteppedDevice
) -> None:
    server = start_server()
    first, other = frame(1, inFlight=1), frame(0, inFlight=1)
    other["sequence"]["name"] = "another camera"
    async with connected(server, messagepack=True) as peer:
        await peer.send(frame(0, inFlight=1), first, other)
        await until(lambda: server.services.runner.count == 3)
        device.step()
        device.step()
        device.run_freely()
        await outcomes(peer, 3)
    account = open_account(server)
    async with connected(server, key=account.key, messagepack=True) as peer:
        (item,) = await peer.ask(frame(0))
        assert item["image"]["width"] == 64


async def test_frames_that_are_stored_are_finished_in_order_after_the_next_start(
    start_server: StartServer, device: SteppedDevice
) -> None:
    server, session = start_server(drain_timeout=0.01), new_uuid()
    frames = [frame(number, inFlight=2) | {"store": True} for number in range(4)]
    async with connected(server, session=session, messagepack=True) as peer:
        await peer.send(*frames)
        await until(lambda: server.services.runner.count == 4)
        stopping = asyncio.create_task(asyncio.to_thread(server.stop))
        await peer.socket.wait_closed()
    device.run_freely()
    await stopping
    server = start_server()
    async with connected(server, session=session, messagepack=True) as peer:
        assert told(frames, await outcomes(peer, 4)) == [(number, "done") for number in range(4)]


@pytest.mark.parametrize(
    ("change", "parameter"),
    [
        ({"number": -1}, "sequence.number"),
        ({"number": 2**53}, "sequence.number"),
        ({"name": ""}, "sequence.name"),
        ({"inFlight": 0}, "sequence.inFlight"),
        ({"inFlight": 65}, "sequence.inFlight"),
        ({"latest": 1}, "sequence.latest"),
        ({"latests": True}, "sequence.latests"),
    ],
)
async def test_what_makes_no_sense_is_refused(server: EmbeddedServer, change: Item, parameter: str) -> None:
    async with connected(server, messagepack=True) as peer:
        sequence = {"name": "camera", "number": 0} | change
        (item,) = await peer.ask(frame(0) | {"sequence": sequence})
    assert item["parameter"] == parameter, item
