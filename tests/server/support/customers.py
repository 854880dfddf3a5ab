"""Clients that want every answer: they lose their connection, resume their session and go on.

Each keeps a few tasks of all sorts under way, and remembers whatever it was told of each.
"""

import asyncio
import base64
import itertools
import random
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

import httpcore
import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from tests.server.support.harness import Item, make_image, new_uuid, open_image, upscale

WIDTH, HEIGHT, FACTOR = 24, 16, 2
PICTURES: Final = [make_image(WIDTH, HEIGHT, seed=seed) for seed in range(5)]

_AT_ONCE = 4
_ASK_EVERY = 0.5
_NEVER_CAME = 4
_LOST = (OSError, ConnectionClosed, InvalidHandshake, TimeoutError, EOFError)

Outcome = tuple[str, ...]


class Kind(StrEnum):
    """What a task is about."""

    PLAIN = "plain"
    ASYNC = "async"
    UPLOADED = "uploaded"
    BY_URL = "by url"
    BYTES = "bytes"
    WEBHOOK = "webhook"
    TWICE = "twice"
    CANCELLED = "cancelled"
    MISSING = "missing input"


@dataclass
class Sent:
    """A task, and what came of it.

    Attributes:
        replies: how many items named it: acknowledgements, progress, outcomes.
        outcomes: what they said of its end, each once.
        results: how often a result came.
        picture: which of `PICTURES` it enlarges.
        image: the name of the result in the store.
        unknown: how often in succession the server said, when asked, that there is no such task: it may just
            be at what was sent.
        refused: the database could not be used, perhaps just after the task was recorded: it is sent again.
    """

    task: Item
    kind: Kind
    picture: int
    replies: int = 0
    results: int = 0
    outcomes: set[Outcome] = field(default_factory=set)
    image: str | None = None
    unknown: int = 0
    refused: bool = False

    @property
    def uuid(self) -> str:
        return str(self.task["taskUUID"])

    @property
    def may_come_again(self) -> bool:
        """Whether to send it again does no harm: one that failed would be a new task."""
        return self.kind not in {Kind.CANCELLED, Kind.MISSING}

    def note(self, item: Item) -> None:
        """Remember an item that names this task."""
        if item.get("code") == "serviceUnavailable":
            self.refused = True
            return
        if item["taskType"] == "getResponse":
            assert item["code"] == "taskNotFound", item
            refused = {outcome[:2] for outcome in self.outcomes} == {("error", "insufficientCredits")}
            assert refused or not self.replies, (
                f"LOST: the server told of {self}, and now knows nothing of it"
            )
            self.unknown += 1
            return
        self.replies += 1
        self.unknown = 0
        self.refused = False
        if "code" in item:
            self.outcomes.add(("error", item["code"]))
        elif "imageUUID" in item:
            self.results += 1
            self.outcomes.add(("result", item["imageUUID"], str(item["cost"])))
            if "imageURL" in item:
                self.image = item["imageURL"].rpartition("/")[2]
            if "imageBase64Data" in item:
                picture = open_image(base64.b64decode(item["imageBase64Data"]))
                assert picture.size == (WIDTH * FACTOR, HEIGHT * FACTOR)


class Customer:
    """One session of an account.

    Attributes:
        sent: every task, by its UUID.
        connections: how often it connected.
    """

    def __init__(
        self,
        key: str,
        urls: Sequence[str],
        web_url: str,
        seed: str,
        kinds: Sequence[Kind] = tuple(Kind),
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """
        Args:
            urls: of the servers; any may be used at any time.
            web_url: where inputs come from and webhooks go to.
        """
        self.sent: dict[str, Sent] = {}
        self.connections = 0
        self.key = key
        self._urls = urls
        self._web_url = web_url
        self._chance = random.Random(seed)
        self._kinds = kinds
        self._tls = tls
        self._session = new_uuid()
        self._uploads: dict[int, str] = {}
        self._uploading: dict[str, int] = {}
        self._draining = False
        self._room = asyncio.Event()

    async def work(self) -> None:
        """Send tasks until `drain`, then ask until each has an outcome."""
        while not (self._draining and self.settled()):
            try:
                url = self._chance.choice(self._urls).replace("http", "ws", 1)
                async with connect(
                    f"{url}/v1",
                    max_size=None,
                    open_timeout=5,
                    ping_interval=2,
                    ping_timeout=10,
                    close_timeout=1,
                    ssl=self._tls,
                ) as socket:
                    await self._use(socket)
            except* _LOST:
                await asyncio.sleep(0.02)

    def drain(self) -> None:
        """Send no new tasks."""
        self._draining = True

    def open_tasks(self) -> list[Sent]:
        return [sent for sent in self.sent.values() if not sent.outcomes]

    def settled(self) -> bool:
        """Whether each task has an outcome, or was cancelled before it was accepted."""
        return all(sent.unknown >= _NEVER_CAME for sent in self.open_tasks())

    async def _use(self, socket: ClientConnection) -> None:
        await _send(
            socket,
            {"taskType": "authentication", "apiKey": self.key, "connectionSessionUUID": self._session},
        )
        async with asyncio.timeout(10):
            greeting = msgspec.json.decode(await socket.recv())
        assert greeting["data"][0]["connectionSessionUUID"] == self._session, greeting
        self.connections += 1
        async with asyncio.TaskGroup() as group:
            group.create_task(self._listen(socket))
            group.create_task(self._send_all(socket))

    async def _listen(self, socket: ClientConnection) -> None:
        while True:
            (items,) = msgspec.json.decode(await socket.recv()).values()
            for item in items:
                self._note(item)

    def _note(self, item: Item) -> None:
        uuid = item["taskUUID"]
        if uuid in self.sent:
            self.sent[uuid].note(item)
            self._room.set()
        elif uuid in self._uploading:
            if "imageUUID" in item:
                self._uploads[self._uploading[uuid]] = item["imageUUID"]
        else:
            assert item["taskType"] == "cancel", item

    async def _send_all(self, socket: ClientConnection) -> None:
        await self._take_up(socket)
        while not self._draining:
            if len(self.open_tasks()) < _AT_ONCE:
                await self._send_one(socket)
            else:
                self._room.clear()
                try:
                    async with asyncio.timeout(_ASK_EVERY):
                        await self._room.wait()
                except TimeoutError:
                    await self._ask(socket, self.open_tasks())
        while not self.settled():
            await self._ask(socket, self.open_tasks())
            await asyncio.sleep(_ASK_EVERY)
        await socket.close()

    async def _take_up(self, socket: ClientConnection) -> None:
        """After a new connection: send again, ask, or trust that the answer comes."""
        for sent in self.open_tasks():
            match self._chance.randrange(3):
                case 0 if sent.may_come_again:
                    await _send(socket, sent.task)
                case 1:
                    await self._ask(socket, [sent])

    async def _ask(self, socket: ClientConnection, tasks: list[Sent]) -> None:
        for sent in tasks:
            if sent.refused or (sent.unknown and sent.kind is not Kind.CANCELLED):
                sent.unknown, sent.refused = 0, False
                await _send(socket, sent.task)
            else:
                await _send(socket, {"taskType": "getResponse", "taskUUID": sent.uuid})

    async def _send_one(self, socket: ClientConnection) -> None:
        kind = self._chance.choice(self._kinds)
        picture = self._chance.randrange(len(PICTURES))
        if kind is Kind.UPLOADED and picture not in self._uploads:
            upload = {"taskType": "imageUpload", "taskUUID": new_uuid(), "image": _base64(picture)}
            self._uploading[upload["taskUUID"]] = picture
            await _send(socket, upload)
            kind = Kind.PLAIN
        sent = Sent(self._task(kind, picture), kind, picture)
        self.sent[sent.uuid] = sent
        await _send(socket, *([sent.task] * (2 if kind is Kind.TWICE else 1)))
        if kind is Kind.CANCELLED:
            await asyncio.sleep(self._chance.uniform(0, 0.02))
            cancel = {"taskType": "cancel", "taskUUID": new_uuid(), "targetTaskUUID": sent.uuid}
            await _send(socket, cancel)

    def _task(self, kind: Kind, picture: int) -> Item:
        more: dict[str, Any] = {"includeCost": True, "includeProgress": self._chance.random() < 0.3}
        image = _base64(picture)
        match kind:
            case Kind.ASYNC | Kind.CANCELLED:
                more["deliveryMethod"] = "async"
            case Kind.UPLOADED:
                image = self._uploads[picture]
            case Kind.BY_URL:
                image = f"{self._web_url}/{picture}.png"
            case Kind.MISSING:
                image = f"{self._web_url}/missing.png"
            case Kind.BYTES:
                more["outputType"] = ["URL", "base64Data"]
        task = upscale(image, **more)
        if kind is Kind.WEBHOOK:
            task["webhookURL"] = f"{self._web_url}/told/{task['taskUUID']}"
        return task


class Poster:
    """One who sends tasks by POST, one after the other, each again until there is an answer."""

    def __init__(self, key: str, urls: Sequence[str], seed: str, tls: ssl.SSLContext | None = None) -> None:
        self.sent: dict[str, Sent] = {}
        self.key = key
        self._urls = urls
        self._tls = tls
        self._chance = random.Random(seed)
        self._draining = False

    async def work(self) -> None:
        """Send tasks until `drain`."""
        for number in itertools.count():
            if self._draining:
                return
            picture = number % len(PICTURES)
            method = self._chance.choice(["sync", "async"])
            task = upscale(_base64(picture), includeCost=True, deliveryMethod=method)
            sent = self.sent[task["taskUUID"]] = Sent(task, Kind.PLAIN, picture)
            await self._see_through(sent)

    def drain(self) -> None:
        """Send no new tasks."""
        self._draining = True

    async def _see_through(self, sent: Sent) -> None:
        headers = [("Authorization", f"Bearer {self.key}")]
        while not sent.outcomes:
            ask = {"taskType": "getResponse", "taskUUID": sent.uuid}
            body = msgspec.json.encode([ask if sent.replies and not sent.refused else sent.task])
            try:
                async with httpcore.AsyncConnectionPool(ssl_context=self._tls) as pool:
                    url = f"{self._chance.choice(self._urls)}/v1"
                    response = await pool.request(
                        "POST",
                        url,
                        headers=headers,
                        content=body,
                        extensions={"timeout": {"connect": 5, "read": 30}},
                    )
            except (OSError, httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException):
                await asyncio.sleep(0.02)
                continue
            for items in msgspec.json.decode(response.content).values():
                for item in items:
                    sent.note(item)


def _base64(picture: int) -> str:
    return base64.b64encode(PICTURES[picture]).decode()


async def _send(socket: ClientConnection, *tasks: Item) -> None:
    await socket.send(msgspec.json.encode(tasks).decode())
