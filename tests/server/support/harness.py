"""What server tests talk through: a bare socket, with the protocol spelt out by each test."""

import asyncio
import base64
import io
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from importlib.util import find_spec
from typing import Any, Literal, NamedTuple, Protocol

import httpcore
import msgspec
import numpy as np
from PIL import Image
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from server.money import to_nanodollars
from server.serving import EmbeddedServer
from server.state import ledger
from server.state.accounts import AccountId, account_named, create_key

KEY = "tw_test-key-of-all-tests"
FAST_MODEL = "realesr-animevideov3"
RUNTIME: Literal["onnxruntime", "openvino"] = "openvino" if find_spec("openvino") else "onnxruntime"
"""Of all servers that do not say otherwise: to measure which one is the fastest takes seconds, and chance."""

PATIENCE = 120.0
"""Seconds until what does not come is given up; nothing is waited for as long where all is well."""

Item = dict[str, Any]


def new_uuid() -> str:
    return str(uuid.uuid4())


def make_image(
    width: int = 24, height: int = 16, image_format: str = "PNG", seed: int = 0, **save: Any
) -> bytes:
    """A small smooth picture, different for each seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, image_format, **save)
    return buffer.getvalue()


async def until(condition: Callable[[], bool | Awaitable[bool]]) -> None:
    """Wait for what cannot be awaited, by looking again and again."""
    async with asyncio.timeout(PATIENCE):
        while True:
            holds = condition()
            if holds if isinstance(holds, bool) else await holds:
                return
            await asyncio.sleep(0.01)


def open_image(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


class Address(Protocol):
    """A server that runs somewhere."""

    url: str


class Account(NamedTuple):
    """An account and a key of it."""

    id: AccountId
    key: str


def open_account(server: EmbeddedServer, credit: Decimal | None = None) -> Account:
    """A new account; without credit it has no limit."""
    run, now = server.services.database.run_sync, time.time()
    balance = None if credit is None else to_nanodollars(credit)
    account = run(account_named, new_uuid(), now, balance=balance)
    return Account(account, run(create_key, account, "test", now))


def charges(server: EmbeddedServer, account: AccountId) -> tuple[int, int]:
    """What the account was charged in all, in nanodollars, and how many times."""
    return server.services.database.run_sync(ledger.spent, account)


def socket_url(server: Address) -> str:
    return f"{server.url.replace('http', 'ws', 1)}/v1"


class Peer:
    """One socket. JSON, or MessagePack after the subprotocol was agreed on."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.codec = msgspec.msgpack if socket.subprotocol else msgspec.json

    async def send(self, *tasks: Item) -> None:
        frame = self.codec.encode(list(tasks))
        await self.socket.send(frame if self.codec is msgspec.msgpack else frame.decode())

    async def receive(self) -> Item:
        """The next frame."""
        async with asyncio.timeout(PATIENCE):  # `wait_for` of Python 3.11 can swallow a cancellation
            frame: Item = self.codec.decode(await self.socket.recv())
        assert ("data" in frame) != ("errors" in frame), "a frame is success or failure, never both"
        return frame

    async def receive_item(self) -> Item:
        """The one item of the next frame, of `data` or of `errors`."""
        (items,) = (await self.receive()).values()
        item: Item
        (item,) = items
        return item

    async def ask(self, *tasks: Item) -> list[Item]:
        """Send one frame of tasks; their replies, in the order of the tasks, whatever order they come in."""
        await self.send(*tasks)
        replies: dict[str, Item] = {}
        while len(replies) < len(tasks):
            (items,) = (await self.receive()).values()
            replies |= {item["taskUUID"]: item for item in items if item.get("status") != "processing"}
        return [replies[task["taskUUID"]] for task in tasks]

    async def authenticate(self, key: str = KEY, session: str | None = None) -> Item:
        task: Item = {"taskType": "authentication", "apiKey": key}
        await self.send(task | ({"connectionSessionUUID": session} if session else {}))
        return await self.receive_item()

    async def cut(self) -> None:
        """Break the connection off, as a lost network would."""
        self.socket.transport.abort()
        await self.socket.wait_closed()

    async def nothing_more(self) -> None:
        """Nothing is there to be received: the answer to a ping is next."""
        await self.send({"taskType": "ping"})
        assert await self.receive_item() == {"taskType": "ping", "pong": True}

    async def finished(self, task_uuid: str) -> Item:
        """The outcome of a task that was sent elsewhere, once it has one; outcomes of others are skipped."""
        while True:
            await self.send({"taskType": "getResponse", "taskUUID": task_uuid})
            while (item := await self.receive_item())["taskUUID"] != task_uuid:
                pass
            if item.get("status") != "processing":
                return item
            await asyncio.sleep(0.01)  # questions are limited to so many per second


def open_socket(server: Address, **options: Any) -> connect:
    """A connection to be made, that gives up nothing by itself because a busy machine is slow."""
    patient = {"open_timeout": PATIENCE, "ping_interval": None, "max_size": None}
    return connect(socket_url(server), **patient | options)


@asynccontextmanager
async def connected(
    server: Address, *, key: str | None = KEY, session: str | None = None, messagepack: bool = False
) -> AsyncIterator[Peer]:
    """A peer that is authenticated, unless `key` is None."""
    subprotocols = [Subprotocol("tilewire.msgpack")] if messagepack else None
    async with open_socket(server, subprotocols=subprotocols) as socket:
        peer = Peer(socket)
        if key is not None:
            await peer.authenticate(key, session)
        yield peer


def upscale(image: Any, **parameters: Any) -> Item:
    """An upscale task for a fast model."""
    return {
        "taskType": "upscale",
        "taskUUID": new_uuid(),
        "model": FAST_MODEL,
        "upscaleFactor": 2,
        "outputFormat": "PNG",
        "inputs": {"image": image},
        **parameters,
    }


class Reply:
    """An HTTP response; the names of `headers` are in lower case."""

    def __init__(self, response: httpcore.Response) -> None:
        self.status = response.status
        self.body = response.content
        self.headers = {name.decode().lower(): value.decode() for name, value in response.headers}


async def request(url: str, method: str = "GET", **headers: str) -> Reply:
    """Ask over HTTP; in the names of headers `_` stands for `-`."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    async with httpcore.AsyncConnectionPool() as pool:
        return Reply(await pool.request(method, url, headers=list(sent.items())))


async def upload(server: Address, data: bytes, **parameters: int) -> Item:
    """The reply to an upload of an image."""
    task = {"taskType": "imageUpload", "taskUUID": new_uuid(), "image": base64.b64encode(data).decode()}
    async with connected(server) as peer:
        return (await peer.ask(task | parameters))[0]


def name_of(item: Item) -> str:
    """The name of the image that a reply tells of."""
    return str(item["imageURL"]).partition("?")[0].rpartition("/")[2]
