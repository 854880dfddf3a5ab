"""Runware's official Python SDK against this server, used as its users use it."""

import asyncio
import base64
import io
import json
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import aiohttp
import numpy as np
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from PIL import Image
from runware import RunOptions, Runware, RunwareError
from runware.logger import LogEntry
from runware.types.sdk import RuntimeDependencies
from websockets.asyncio.client import ClientConnection, connect

from server.money import to_nanodollars
from server.serving import EmbeddedServer
from server.state import ledger
from server.state.accounts import AccountId, account_named, create_key, list_keys, revoke_key
from server.state.logins import authenticate
from tests.server.conftest import StartServer
from tests.server.support.harness import (
    FAST_MODEL,
    KEY,
    PATIENCE,
    Item,
    make_image,
    new_uuid,
    open_image,
    socket_url,
    until,
)
from tests.server.support.stepped_device import SteppedDevice

both_transports = pytest.mark.parametrize("transport", ["websocket", "rest"])
websocket = "websocket"

SOME_TILES = (1500, 190)
"""Of an image with more pixels than run at once: it is cut into tiles, and its progress has several steps."""


class NoNames(AbstractResolver):
    """Resolves nothing.

    The SDK looks models up in a registry on the internet, and waits up to 3 s for it, unless a call names
    both its `taskType` and its model's AIR id. Without names it falls back at once on its own list.
    """

    async def resolve(self, host: str, *_: Any, **__: Any) -> list[ResolveResult]:
        raise OSError(f"tests do not look up {host}")

    async def close(self) -> None:
        pass


class Wire:
    """What the SDK sends and receives after the authentication, from its own log."""

    def __init__(self, on_sent: Callable[[Item], None] = lambda _: None) -> None:
        self.sent: list[Item] = []
        self.received: list[Item] = []
        self.retries = 0
        self._on_sent = on_sent

    def __call__(self, entry: LogEntry) -> None:
        if entry.category == "send":
            for task in json.loads(entry.message):
                self.sent.append(task)
                self._on_sent(task)
        elif entry.category == "receive":
            for items in json.loads(entry.message).values():
                self.received += items
        elif entry.category == "retry":
            self.retries += 1

    def sent_types(self) -> list[str]:
        return [task["taskType"] for task in self.sent]


@asynccontextmanager
async def runware(
    server: EmbeddedServer,
    transport: str = websocket,
    *,
    key: str = KEY,
    wire: Wire | None = None,
    connections: list[ClientConnection] | None = None,
    retry_delay: int = 0,
) -> AsyncIterator[Runware]:
    """The SDK's client, connected.

    Args:
        connections: where its WebSocket connections are put.
        retry_delay: milliseconds before it connects again; it adds up to a second.
    """

    async def open_socket(url: str) -> ClientConnection:
        connection = await connect(url)
        if connections is not None:
            connections.append(connection)
        return connection

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(resolver=NoNames())) as session:
        client = Runware(
            api_key=key,
            transport=transport,
            ws_base_url=socket_url(server),
            http_base_url=f"{server.url}/v1",
            dependencies=RuntimeDependencies(session=session, ws_connect=open_socket),
            debug=wire is not None,
            log_sink=wire,
            retry_delay=retry_delay,
        )
        async with client:
            yield client


def data_uri(width: int = 24, height: int = 16, **options: Any) -> str:
    return f"data:image/png;base64,{base64.b64encode(make_image(width, height, **options)).decode()}"


def upscale(image: str, **parameters: Any) -> Item:
    return {
        "taskType": "upscale",
        "model": f"tilewire:{FAST_MODEL}@1",
        "upscaleFactor": 2,
        "inputs": {"image": image},
        **parameters,
    }


def size_of(result: Item) -> tuple[int, int]:
    return open_image(base64.b64decode(result["imageBase64Data"])).size


def make_account(server: EmbeddedServer, credit: Decimal | None = None) -> tuple[AccountId, str]:
    """A new account and a key of it."""
    balance = None if credit is None else to_nanodollars(credit)
    database = server.services.database
    account = database.run_sync(account_named, new_uuid(), time.time(), balance=balance)
    return account, database.run_sync(create_key, account, "test", time.time())


def charges(server: EmbeddedServer, account: AccountId) -> int:
    """How many tasks the account was charged for."""
    return server.services.database.run_sync(ledger.spent, account)[1]


@pytest.fixture
def hold_upscales(monkeypatch: pytest.MonkeyPatch) -> Callable[[EmbeddedServer], threading.Event]:
    """Has the upscales of a server wait for the event that it returns, for those that outlast something."""

    def hold(server: EmbeddedServer) -> threading.Event:
        released = threading.Event()
        original = server.services.upscaler.upscale

        async def upscale(*arguments: Any, **options: Any) -> Any:
            assert await asyncio.to_thread(released.wait, PATIENCE)
            return await original(*arguments, **options)

        monkeypatch.setattr(server.services.upscaler, "upscale", upscale)
        return released

    return hold


@pytest.fixture
def cut_after_submission(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Has a server close all its connections right after it took on the next task, before any reply."""

    def arrange(server: EmbeddedServer, then: Callable[[], None] = lambda: None) -> None:
        services = server.services
        original = services.runner.submit

        async def submit(*arguments: Any, **options: Any) -> Any:
            monkeypatch.setattr(services.runner, "submit", original)
            taken = await original(*arguments, **options)
            for session in list(services.sessions._connected.values()):
                await session.link.close(1001, "going away")
            then()
            return taken

        monkeypatch.setattr(services.runner, "submit", submit)

    return arrange


@both_transports
async def test_runwares_own_example_works(server: EmbeddedServer, transport: str) -> None:
    async with runware(server, transport) as client, aiohttp.ClientSession() as web:
        (result,) = await client.run(
            {
                "model": "runware:504@1",
                "upscaleFactor": 4,
                "inputs": {"image": data_uri()},
                "includeCost": True,
            }
        )
        async with web.get(result["imageURL"]) as response:
            image = await response.read()
            assert response.content_type == "image/jpeg"
    assert open_image(image).size == (96, 64)
    assert result["taskType"] == "upscale"
    assert result["cost"] > 0


@both_transports
async def test_the_model_may_be_left_out(server: EmbeddedServer, transport: str) -> None:
    task = {"taskType": "upscale", "inputs": {"image": data_uri(12, 8)}, "outputType": "base64Data"}
    async with runware(server, transport) as client:
        (result,) = await client.run(task)
    assert size_of(result) == (48, 32)


@both_transports
async def test_the_classic_form_works(server: EmbeddedServer, transport: str) -> None:
    task = upscale("", taskType="imageUpscale", inputImage=data_uri(), outputType="base64Data")
    del task["inputs"]
    async with runware(server, transport) as client:
        (result,) = await client.run(task)
    assert result["taskType"] == "imageUpscale"
    assert size_of(result) == (48, 32)


@both_transports
async def test_an_upload_can_be_upscaled_by_its_uuid(server: EmbeddedServer, transport: str) -> None:
    image = base64.b64encode(make_image(20, 10)).decode()
    async with runware(server, transport) as client:
        (upload,) = await client.image_upload({"image": image})
        (result,) = await client.run(upscale(upload["imageUUID"], outputType="base64Data"))
    assert upload["imageURL"].startswith(server.url)
    assert result["inputImageUUID"] == upload["imageUUID"]
    assert size_of(result) == (40, 20)


@both_transports
@pytest.mark.parametrize("delivery", ["sync", "async"])
async def test_both_delivery_methods_give_the_result(
    server: EmbeddedServer, transport: str, delivery: str
) -> None:
    async with runware(server, transport) as client:
        (result,) = await client.run(
            upscale(data_uri(), deliveryMethod=delivery, outputType="dataURI", outputFormat="WEBP")
        )
    header, _, encoded = result["imageDataURI"].partition(",")
    assert header == "data:image/webp;base64"
    assert open_image(base64.b64decode(encoded)).size == (48, 32)


@both_transports
async def test_a_quick_task_is_answered_without_polling(server: EmbeddedServer, transport: str) -> None:
    wire = Wire()
    async with runware(server, transport, wire=wire) as client:
        await client.run(upscale(data_uri()))
    assert wire.sent_types() == ["upscale"]


@both_transports
async def test_a_slow_task_is_acknowledged_and_polled_for(
    start_server: StartServer, hold_upscales: Callable[[EmbeddedServer], threading.Event], transport: str
) -> None:
    server = start_server(acknowledge_after=0.05)
    released = hold_upscales(server)
    wire = Wire(lambda task: released.set() if task["taskType"] == "getResponse" else None)
    async with runware(server, transport, wire=wire) as client:
        (result,) = await client.run(upscale(data_uri(), outputType="base64Data"))
    assert size_of(result) == (48, 32)
    assert wire.received[0] == {"taskType": "upscale", "taskUUID": result["taskUUID"]}
    assert "getResponse" in wire.sent_types()


async def test_the_progress_callback_gets_rising_numbers(server: EmbeddedServer) -> None:
    shares: list[float] = []
    options = RunOptions(on_progress=lambda item: shares.append(item["progress"]))
    async with runware(server) as client:
        (result,) = await client.run(upscale(data_uri(*SOME_TILES), includeProgress=True), options)
    assert "imageURL" in result
    assert len(shares) >= 2
    assert shares == sorted(shares)
    assert all(0 <= share < 100 for share in shares)


async def test_a_result_that_is_too_large_for_the_sdk_comes_by_url(server: EmbeddedServer) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (400, 400, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "PNG")
    image = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    account, key = make_account(server)
    connections: list[ClientConnection] = []
    async with runware(server, key=key, connections=connections) as client:
        (result,) = await client.run(upscale(image, outputType="base64Data", outputFormat="PNG"))
        refusal = connections[0].protocol.close_sent
        assert refusal is not None
        assert refusal.code == 1009
        (again,) = await client.get_response({"taskUUID": result["taskUUID"]})
    assert again["imageURL"] == result["imageURL"]
    assert "more than your client accepts in one message" in result["warnings"][0]
    assert len(connections) == 2
    assert charges(server, account) == 1


@both_transports
async def test_the_url_of_a_result_is_an_input(server: EmbeddedServer, transport: str) -> None:
    _, key = make_account(server)
    async with runware(server, transport) as client:
        (result,) = await client.run(upscale(data_uri(), outputFormat="PNG"))
        (larger,) = await client.run(upscale(result["imageURL"], outputType="base64Data"))
        uploaded = await client.image_upload({"image": result["imageURL"]})
        with pytest.raises(RunwareError) as caught:
            await client.run(upscale(f"{server.url}/images/none.png"))
    assert size_of(larger) == (96, 64)
    assert uploaded
    assert caught.value.code == "notFound"
    async with runware(server, transport, key=key) as other:
        (result,) = await other.run(upscale(result["imageURL"], outputType="base64Data"))
    assert size_of(result) == (96, 64)


async def test_tiles_are_progress_to_a_caller_that_asks_for_them(server: EmbeddedServer) -> None:
    items: list[Item] = []
    options = RunOptions(on_progress=items.append)
    async with runware(server) as client:
        (result,) = await client.run(upscale(data_uri(*SOME_TILES), includeTiles=True), options)
    assert "imageURL" in result
    tiles = [item["tile"] for item in items if "tile" in item]  # it polls too, and then gets bare progress
    assert tiles
    assert all("imageDataURI" in tile for tile in tiles)


@both_transports
async def test_concurrent_runs_of_one_client_each_get_their_own_result(
    server: EmbeddedServer, transport: str
) -> None:
    widths = range(10, 30)
    async with runware(server, transport) as client:
        results = await asyncio.gather(
            *(client.run(upscale(data_uri(width, 8), outputType="base64Data")) for width in widths)
        )
    assert [size_of(result) for (result,) in results] == [(2 * width, 16) for width in widths]


@both_transports
async def test_the_account_can_be_looked_at(server: EmbeddedServer, transport: str) -> None:
    _, key = make_account(server, Decimal("0.5"))
    async with runware(server, transport, key=key) as client:
        await client.run(upscale(data_uri(100, 100)))
        (account,) = await client.account_management({"operation": "getDetails"})
    assert account["balance"] == {"amount": 0.499996, "currency": "USD"}
    assert [entry["apiKey"] for entry in account["apiKeys"]] == [f"{key[:8]}…"]
    assert account["usage"]["total"] == {"credits": 0.000004, "requests": 1}


@both_transports
async def test_models_can_be_searched(server: EmbeddedServer, transport: str) -> None:
    async with runware(server, transport) as client:
        (found,) = await client.model_search({"search": "real-esrgan"})
        (nothing,) = await client.model_search({"search": "no such model"})
    assert found["totalResults"] == len(found["results"])
    assert "runware:504@1" in [model["air"] for model in found["results"]]
    assert nothing["results"] == []


@both_transports
async def test_a_result_can_be_asked_for_again(server: EmbeddedServer, transport: str) -> None:
    task_uuid = new_uuid()
    async with runware(server, transport) as client:
        (result,) = await client.run(upscale(data_uri(), taskUUID=task_uuid))
        (again,) = await client.get_response({"taskUUID": task_uuid})
        with pytest.raises(RunwareError) as caught:
            await client.get_response({"taskUUID": new_uuid()})
    assert again == result | {"status": "success"}
    assert caught.value.code == "notFound"


@both_transports
@pytest.mark.parametrize("delivery", ["sync", "async"])
@pytest.mark.parametrize(
    ("mistake", "code", "parameter"),
    [
        ({"upscaleFactor": 100}, "validation", "upscaleFactor"),
        ({"upscaleFactor": "4"}, "validation", "upscaleFactor"),
        ({"model": "runware:1@1"}, "validation", "model"),
        ({"inputs": {}}, "validation", "inputImage"),
        ({"inputs": {"image": "not an image"}}, "validation", "inputs.image"),
        ({"inputs": {"image": "0c1c5d2f-8f0c-4f4e-9a57-27a1de1a5bfb"}}, "notFound", "inputs.image"),
        ({"taskType": "imageInference"}, "validation", "taskType"),
    ],
)
async def test_mistakes_are_told_as_the_errors_of_the_sdk(
    server: EmbeddedServer, transport: str, delivery: str, mistake: Item, code: str, parameter: str
) -> None:
    task = upscale(data_uri(), taskUUID=new_uuid(), deliveryMethod=delivery) | mistake
    wire = Wire()
    async with runware(server, transport, wire=wire) as client:
        with pytest.raises(RunwareError) as caught:
            await client.run(task)
    error = caught.value
    assert (error.code, error.parameter, error.task_uuid) == (code, parameter, task["taskUUID"])
    assert error.task_type == task["taskType"]
    assert not error.retryable
    assert wire.retries == 0


@both_transports
async def test_a_task_that_the_account_cannot_pay_is_a_quota_error(
    server: EmbeddedServer, transport: str
) -> None:
    account, key = make_account(server, Decimal("0.000001"))
    task = upscale(data_uri(100, 100), taskUUID=new_uuid())
    async with runware(server, transport, key=key) as client:
        with pytest.raises(RunwareError) as caught:
            await client.run(task)
        (result,) = await client.run(upscale(data_uri(50, 50), includeCost=True))
    assert caught.value.code == "quota"
    assert caught.value.task_uuid == task["taskUUID"]
    assert "0.000004 USD" in caught.value.message
    assert result["cost"] == 0.000001
    assert charges(server, account) == 1


async def test_one_failure_among_concurrent_runs_fails_alone(server: EmbeddedServer) -> None:
    factors = [2, 100, 4, 70, 3]
    async with runware(server) as client:
        outcomes = await asyncio.gather(
            *(client.run(upscale(data_uri(), upscaleFactor=factor)) for factor in factors),
            return_exceptions=True,
        )
    assert [isinstance(outcome, RunwareError) for outcome in outcomes] == [False, True, False, True, False]


async def test_a_wrong_key_fails_the_connection_at_once(server: EmbeddedServer) -> None:
    connections: list[ClientConnection] = []
    with pytest.raises(RunwareError) as caught:
        async with runware(server, key="tw_wrong", connections=connections):
            pass
    assert caught.value.code == "auth"
    assert "not valid" in caught.value.message
    assert len(connections) == 1


async def test_a_wrong_key_fails_a_post_without_retries(server: EmbeddedServer) -> None:
    wire = Wire()
    async with runware(server, "rest", key="tw_wrong", wire=wire) as client:
        with pytest.raises(RunwareError) as caught:
            await client.run(upscale(data_uri()))
    assert (caught.value.code, caught.value.status_code) == ("auth", 401)
    assert wire.sent_types() == ["upscale"]
    assert wire.retries == 0


async def test_a_task_whose_connection_is_cut_is_done_once_and_its_result_kept(
    server: EmbeddedServer, cut_after_submission: Callable[..., None]
) -> None:
    account, key = make_account(server)
    cut_after_submission(server)
    connections: list[ClientConnection] = []
    async with runware(server, key=key, connections=connections, retry_delay=1000) as client:
        (result,) = await client.run(upscale(data_uri(), outputType="base64Data"))
    assert size_of(result) == (48, 32)
    assert len(connections) == 2
    assert charges(server, account) == 1


async def test_a_task_still_under_way_when_its_client_is_back_is_acknowledged_again(
    start_server: StartServer,
    cut_after_submission: Callable[..., None],
    hold_upscales: Callable[[EmbeddedServer], threading.Event],
) -> None:
    # The acknowledgement is due while there is no connection. When the SDK is back it sends the task again,
    # and fails unless something comes for it within 30 s.
    server = start_server(acknowledge_after=0.05)
    account, key = make_account(server)
    cut_after_submission(server)
    released = hold_upscales(server)
    wire = Wire(lambda task: released.set() if task["taskType"] == "getResponse" else None)
    async with runware(server, key=key, wire=wire, retry_delay=1000) as client:
        (result,) = await client.run(upscale(data_uri(), outputType="base64Data"))
    assert size_of(result) == (48, 32)
    assert wire.sent_types()[:3] == ["upscale", "upscale", "getResponse"]
    assert charges(server, account) == 1


async def test_a_task_whose_connection_breaks_amid_its_progress_is_done_once(
    device: SteppedDevice, start_server: StartServer
) -> None:
    server = start_server()
    account, key = make_account(server)
    connections: list[ClientConnection] = []

    def break_first_connection(_: Item) -> None:
        if len(connections) == 1:
            connections[0].transport.abort()

    async with runware(server, key=key, connections=connections) as client:
        task = upscale(data_uri(*SOME_TILES), upscaleFactor=4, includeProgress=True)
        running = asyncio.create_task(client.run(task, RunOptions(on_progress=break_first_connection)))
        device.step()
        await until(lambda: len(connections) == 2)
        device.run_freely()
        (result,) = await running
    assert "imageURL" in result
    assert len(connections) == 2
    assert charges(server, account) == 1


async def test_a_client_whose_key_was_revoked_meanwhile_gives_up(
    server: EmbeddedServer, cut_after_submission: Callable[..., None]
) -> None:
    account, key = make_account(server)
    database = server.services.database

    def revoke() -> None:
        (only,) = database.run_sync(list_keys, account)
        database.run_sync(revoke_key, only.id)

    cut_after_submission(server, revoke)
    connections: list[ClientConnection] = []
    async with runware(server, key=key, connections=connections) as client:
        with pytest.raises(RunwareError) as caught:
            await client.run(upscale(data_uri()))
    assert caught.value.code == "auth"
    assert len(connections) == 2
    assert database.run_sync(authenticate, key, time.time()) is None
