"""`cancel`: what is not computed is not paid for."""

import asyncio
import base64
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from server.serving import EmbeddedServer
from server.state import ledger
from server.state.audit import audit
from tests.server.conftest import settings_for
from tests.server.support.harness import (
    Account,
    Item,
    charges,
    connected,
    make_image,
    new_uuid,
    open_account,
    upscale,
)
from tests.server.support.stepped_device import SteppedDevice, stepped_device
from tests.server.support.web import Web


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, model_directory: Path) -> Iterator[EmbeddedServer]:
    """A server that has room for one task at a time, and runs it at once."""
    settings = settings_for(
        tmp_path_factory.mktemp("server"), model_directory, private_networks=True, active_megapixels=0.001
    )
    with stepped_device() as device, EmbeddedServer(settings) as running:
        device.run_freely()
        yield running


@pytest.fixture
def held(server: EmbeddedServer) -> Iterator[SteppedDevice]:
    """The server's device, which runs no tile unasked."""
    (device,) = server.services.upscaler.devices
    assert isinstance(device, SteppedDevice)
    device.hold()
    yield device
    device.run_freely()


@pytest.fixture
def account(server: EmbeddedServer) -> Account:
    return open_account(server, Decimal(1))


@pytest.fixture
def large_image() -> str:
    """Of many tiles."""
    return base64.b64encode(make_image(1500, 190)).decode()


PRICE = 456_000
"""Of the large image, in nanodollars: 4.56 megapixels at 0.0001 USD."""


def enlarge(image: str, **parameters: object) -> Item:
    return upscale(image, upscaleFactor=4, **parameters)


def cancel(target: Item) -> Item:
    return {"taskType": "cancel", "taskUUID": new_uuid(), "targetTaskUUID": target["taskUUID"]}


def has_spent_nothing(server: EmbeddedServer, account: Account) -> bool:
    return charges(server, account.id) == (0, 0) and available(server, account) == 10**9


def available(server: EmbeddedServer, account: Account) -> int | None:
    return server.services.database.run_sync(ledger.statement, account.id).available


async def test_a_running_task_is_stopped_and_costs_nothing(
    server: EmbeddedServer, account: Account, large_image: str, held: SteppedDevice
) -> None:
    task = enlarge(large_image, includeProgress=True)
    async with connected(server, key=account.key) as peer:
        await peer.send(task)
        held.step()
        assert (await peer.receive_item())["status"] == "processing"
        async with connected(server, key=account.key) as other:
            (done,) = await other.ask(cancel(task))
            assert done["status"] == "cancelled"
            assert (await other.finished(task["taskUUID"]))["code"] == "taskCancelled"
            assert has_spent_nothing(server, account)
            held.run_freely()
            (result,) = await other.ask(enlarge(base64.b64encode(make_image()).decode()))
            assert "imageURL" in result, "the next task has its turn"


async def test_the_target_itself_is_answered_with_task_cancelled(
    server: EmbeddedServer, account: Account, web: Web
) -> None:
    task = enlarge(web.hold("/input.png", make_image()))
    async with connected(server, key=account.key) as peer:
        await peer.send(task)
        await web.receive()
        cancelling = cancel(task)
        await peer.send(cancelling)
        frames = [await peer.receive(), await peer.receive()]
    (error,) = next(frame["errors"] for frame in frames if "errors" in frame)
    (done,) = next(frame["data"] for frame in frames if "data" in frame)
    assert (error["code"], error["taskUUID"], error["taskType"]) == (
        "taskCancelled",
        task["taskUUID"],
        "upscale",
    )
    assert done == {
        "taskType": "cancel",
        "taskUUID": cancelling["taskUUID"],
        "targetTaskUUID": task["taskUUID"],
        "status": "cancelled",
        "result": "cancelled",
    }
    assert has_spent_nothing(server, account)


async def test_a_queued_task_never_begins(
    server: EmbeddedServer, account: Account, large_image: str, held: SteppedDevice
) -> None:
    first, second = enlarge(large_image, includeProgress=True), enlarge(large_image)
    async with connected(server, key=account.key) as peer, connected(server, key=account.key) as other:
        await peer.send(first)
        held.step()
        await peer.receive_item()
        await other.send(second)
        async with connected(server, key=account.key) as third:
            reserved = 10**9 - 2 * PRICE
            while available(server, account) != reserved:  # until it has looked at its input
                await third.nothing_more()
            (done,) = await third.ask(cancel(second))
            assert done["status"] == "cancelled"
            assert (await other.receive_item())["code"] == "taskCancelled"
            assert available(server, account) == 10**9 - PRICE
            await third.ask(cancel(first))
    assert has_spent_nothing(server, account)


async def test_other_accounts_cannot_cancel(server: EmbeddedServer, account: Account, web: Web) -> None:
    task = enlarge(web.hold("/input.png", make_image()))
    async with (
        connected(server, key=account.key) as peer,
        connected(server, key=open_account(server).key) as stranger,
    ):
        await peer.send(task)
        await web.receive()
        (refused,) = await stranger.ask(cancel(task))
        assert refused["code"] == "taskNotFound"
        web.release("/input.png")
        assert "imageURL" in await peer.receive_item()


async def test_another_connection_of_the_account_can_cancel(
    server: EmbeddedServer, account: Account, web: Web
) -> None:
    task = enlarge(web.hold("/input.png", make_image()))
    async with connected(server, key=account.key) as peer, connected(server, key=account.key) as other:
        await peer.send(task)
        await web.receive()
        upper = cancel(task) | {"targetTaskUUID": task["taskUUID"].upper()}
        assert (await other.ask(upper))[0]["status"] == "cancelled"
        assert (await peer.receive_item())["code"] == "taskCancelled"


async def test_an_unknown_target_is_not_found(server: EmbeddedServer) -> None:
    async with connected(server) as peer:
        (refused,) = await peer.ask(cancel({"taskUUID": new_uuid()}))
    assert (refused["code"], refused["parameter"]) == ("taskNotFound", "targetTaskUUID")


@pytest.mark.parametrize("target", ["", "nonsense", "x" * 5000])
async def test_a_target_that_is_no_uuid_is_invalid(server: EmbeddedServer, target: str) -> None:
    async with connected(server) as peer:
        (refused,) = await peer.ask(cancel({"taskUUID": target}))
    assert (refused["code"], refused["parameter"]) == ("invalidTargetTaskUUID", "targetTaskUUID")
    assert len(refused["message"]) < 200


async def test_a_finished_target_stays_finished_and_paid(server: EmbeddedServer, account: Account) -> None:
    task = enlarge(base64.b64encode(make_image()).decode())
    async with connected(server, key=account.key) as peer:
        (result,) = await peer.ask(task)
        (refused,) = await peer.ask(cancel(task))
        assert refused["code"] == "taskNotFound"
        assert (await peer.finished(task["taskUUID"]))["imageURL"] == result["imageURL"]
    assert charges(server, account.id)[1] == 1


async def test_a_cancelled_task_may_be_sent_again(server: EmbeddedServer, account: Account, web: Web) -> None:
    task = enlarge(web.hold("/input.png", make_image()))
    async with connected(server, key=account.key) as peer, connected(server, key=account.key) as other:
        await peer.send(task)
        await web.receive()
        await other.ask(cancel(task))
        assert (await peer.receive_item())["code"] == "taskCancelled"
        web.release("/input.png")
        (result,) = await peer.ask(task)
    assert "imageURL" in result
    assert charges(server, account.id)[1] == 1


async def test_a_cancel_right_behind_its_task_finds_it(
    server: EmbeddedServer, account: Account, held: SteppedDevice
) -> None:
    task = enlarge(base64.b64encode(make_image(300, 300)).decode())
    async with connected(server, key=account.key) as peer:
        await peer.send(task, cancel(task))
        told = {item["taskUUID"]: item for item in [await peer.receive_item(), await peer.receive_item()]}
    assert told.pop(task["taskUUID"])["code"] == "taskCancelled"
    assert [item["status"] for item in told.values()] == ["cancelled"]
    assert has_spent_nothing(server, account)


async def test_a_question_right_behind_its_task_finds_it(
    server: EmbeddedServer, account: Account, held: SteppedDevice
) -> None:
    task = enlarge(base64.b64encode(make_image(300, 300)).decode())
    question = {"taskType": "getResponse", "taskUUID": task["taskUUID"]}
    async with connected(server, key=account.key) as peer:
        await peer.send(task, question)
        assert (await peer.receive_item())["status"] == "processing"
        await peer.ask(cancel(task))


async def test_a_task_that_is_cancelled_while_it_is_accepted_does_not_run_on(
    server: EmbeddedServer, account: Account, web: Web
) -> None:
    """Whenever the cancel comes, over another connection: sent again, the task is charged once."""
    async with connected(server, key=account.key) as peer, connected(server, key=account.key) as other:
        for number in range(40):
            task = enlarge(web.hold(f"/{number}.png", make_image()), includeCost=True)
            await peer.send(task)
            await asyncio.sleep(number % 20 * 0.0001)
            await other.send(cancel(task))
            cancelled = (await other.receive_item()).get("status") == "cancelled"
            if cancelled:
                assert (await peer.receive_item())["code"] == "taskCancelled"
                await peer.send(task)
            web.release(f"/{number}.png")
            result = await peer.receive_item()
            assert (result["taskUUID"], result["cost"]) == (task["taskUUID"], 0.000001)
        await peer.nothing_more()
    assert charges(server, account.id) == (40 * 1_000, 40)
    assert server.services.database.snapshot(audit).mistakes == []
