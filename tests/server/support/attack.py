"""Sends batches of spoilt frames to a server and judges what comes back."""

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

import httpcore
import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from server.limits.edge import FIRST_FRAME_BYTES
from server.protocol.codec import JSON, MESSAGEPACK, RawTask
from server.protocol.errors import FrameError
from tests.server.support.harness import KEY, Item, new_uuid, socket_url
from tests.server.support.mutations import Batch, Frame
from tests.server.support.process import ServerProcess

__all__ = ["Attack", "Wrong"]

_PATIENCE: Final = 60.0
_QUIET: Final = 0.5
_SHRINK_FOR: Final = 60.0
_STATUSES: Final = {200, 400, 401, 402, 404, 409, 413, 429}
_MAX_FIELDS: Final = 2**14
_REPLY_BYTES: Final = 20_000
_AUTHENTICATION: Final = {"taskType": "authentication", "apiKey": KEY}
_WITHOUT_UUID: Final = ("authentication", "ping")


class Wrong(AssertionError):  # noqa: N818 - what a test finds
    """The server did what it must not do."""


class Expected:
    """The replies that the tasks of some frames must get.

    Tasks under one `taskUUID` may share a reply: it is an idempotency key.
    """

    def __init__(self) -> None:
        self._nameless = 0
        self._named: Counter[str] = Counter()
        self._upscales: set[str] = set()
        self._answers: Counter[str] = Counter()
        self._missing: set[str] = set()

    def add(self, raws: list[RawTask]) -> None:
        for raw in raws:
            if not raw.task_uuid or raw.task_type in _WITHOUT_UUID:
                self._nameless += 1
                continue
            self._named[raw.task_uuid] += 1
            if raw.task_type in ("upscale", "imageUpscale"):
                self._upscales.add(raw.task_uuid)
                self._missing.add(raw.task_uuid)  # again, if the same UUID was answered before: it will be
            elif not self._answers[raw.task_uuid]:
                self._missing.add(raw.task_uuid)

    def add_nameless(self) -> None:
        """A reply without a UUID."""
        self._nameless += 1

    def take(self, item: Item) -> None:
        """A reply has come."""
        name = item.get("taskUUID")
        if name is None or item.get("taskType") in _WITHOUT_UUID:
            self._nameless -= 1
            if self._nameless < 0:
                raise Wrong(f"a reply to nothing: {item}")
            return
        if name not in self._named:
            raise Wrong(f"a reply to a task that was not sent: {item}")
        if item.get("status") == "processing" and name in self._upscales:
            return  # it may have asked for progress, by itself or by getResponse
        self._missing.discard(name)
        self._answers[name] += 1
        if self._answers[name] > self._named[name]:
            raise Wrong(f"more replies than tasks: {item}")

    @property
    def missing(self) -> list[str]:
        """Some of what has not been answered yet."""
        return [*islice(self._missing, 10), *["a task or frame without a taskUUID"] * min(self._nameless, 1)]


class Attack:
    """An attack on one server.

    Attributes:
        sent: frames so far.
        outcomes: how many replies of each code or taskType came.
    """

    def __init__(self, server: ServerProcess) -> None:
        self._server = server
        self._log_read = 0
        self._pool = httpcore.AsyncConnectionPool()
        self.sent = 0
        self.outcomes: Counter[str] = Counter()

    async def run(self, batch: Batch, patience: float = _PATIENCE) -> None:
        """Send a batch.

        Raises:
            Wrong: if a reply is missing, too many or not proper, or the server logged an exception.
        """
        try:
            async with asyncio.timeout(patience + 60):
                if batch.channel.startswith("POST"):
                    await self._post(batch)
                elif batch.channel.startswith("stranger"):
                    await self._knock(batch)
                else:
                    await self._talk(batch, patience)
        except (
            OSError,
            TimeoutError,
            httpcore.NetworkError,
            httpcore.ProtocolError,
            httpcore.TimeoutException,
        ) as error:
            raise Wrong(f"the server did not answer: {error!r}") from error
        finally:
            self.check_log()
        self.sent += len(batch.frames)

    async def find_culprit(self, batch: Batch) -> str:
        """The smallest frame that does it alone, if one does; else the batch."""
        for frame in batch.frames:
            if reason := await self._fails(batch, frame):
                smallest = await self._shrink(batch, frame)
                where = f"batch {batch.number}, {batch.channel}"
                return f"{reason}\n{where}, the frame, made small:\n{str(smallest)[:5000]}"
        frames = "\n".join(map(str, batch.frames))
        return f"batch {batch.number}, {batch.channel}: only all of its frames do it\n{frames[:20_000]}"

    def check_log(self) -> None:
        """
        Raises:
            Wrong: if an exception or error was logged since the last look.
        """
        logged = self._server.logged(self._log_read)
        self._log_read += len(logged)
        text = logged.decode(errors="replace")
        for sign in ("Traceback", "Exception", "ERROR", "error:"):
            if sign in text:
                raise Wrong(f"the server logged:\n{text[-3000:]}")

    async def close(self) -> None:
        await self._pool.aclose()

    async def _fails(self, batch: Batch, frame: Frame) -> str | None:
        try:
            await self.run(Batch(batch.number, batch.channel, (frame,)), patience=5)
        except Wrong as wrong:
            return str(wrong)
        return None

    async def _shrink(self, batch: Batch, frame: Frame) -> Frame:
        """Leave out ever smaller pieces, as long as it still fails (delta debugging), for a while."""
        time = asyncio.get_running_loop().time
        give_up, size = time() + _SHRINK_FOR, len(frame.data) // 2
        while size and time() < give_up:
            start = 0
            while start < len(frame.data) and time() < give_up:
                smaller = Frame(frame.data[:start] + frame.data[start + size :], frame.text)
                if await self._fails(batch, smaller):
                    frame = smaller
                else:
                    start += size
            size //= 2
        return frame

    async def _talk(self, batch: Batch, patience: float) -> None:
        """All frames on one connection, except that one that is no text ends it."""
        frames = list(batch.frames)
        while frames:
            async with self._connect(batch) as socket:
                sessions = [await self._authenticate(socket, batch, None)]
                expected = Expected()
                broken: Frame | None = None
                while frames and broken is None:
                    frame = frames.pop(0)
                    if frame.text and not _is_utf8(frame.data):
                        broken = frame
                        continue
                    await socket.send(frame.data, text=frame.text)
                    _expect(expected, batch, frame)
                await self._receive_all(socket, batch, expected, sessions, patience)
                if broken is not None:
                    await socket.send(broken.data, text=True)
                    await self._expect_close(socket, batch, 1007)

    async def _knock(self, batch: Batch) -> None:
        """Each frame as the first one of a connection."""
        for frame in batch.frames:
            async with self._connect(batch) as socket:
                with contextlib.suppress(ConnectionClosed):  # it is read from, below
                    await socket.send(frame.data, text=frame.text)
                if len(frame.data) > FIRST_FRAME_BYTES:
                    await self._expect_close(socket, batch, 1009)
                elif frame.text and not _is_utf8(frame.data):
                    await self._expect_close(socket, batch, 1007)
                else:
                    await self._expect_close(socket, batch, 1008, unless_welcome=True)

    async def _post(self, batch: Batch) -> None:
        """Each frame as a body."""
        headers = {
            "Authorization": f"Bearer {KEY}",
            "Content-Type": "application/msgpack" if batch.binary else "application/json",
        }
        url = f"{self._server.url}/v1"
        for frame in batch.frames:
            response = await self._pool.request("POST", url, headers=headers, content=frame.data)
            if response.status not in _STATUSES:
                raise Wrong(f"status {response.status}: {response.content[:1000]!r}")
            _judge_answer(batch, frame, self._items(batch, response.content, posted=True))

    def _connect(self, batch: Batch) -> connect:
        subprotocols = [Subprotocol("tilewire.msgpack")] if batch.binary else None
        return connect(
            socket_url(self._server),
            subprotocols=subprotocols,
            max_size=None,
            compression=None,
            ping_interval=None,
            close_timeout=1,
        )

    async def _authenticate(self, socket: ClientConnection, batch: Batch, session: str | None) -> str:
        task = _AUTHENTICATION | ({"connectionSessionUUID": session} if session else {})
        await self._ask(socket, batch, task)
        item = self._items(batch, await socket.recv())[0]
        if item.get("taskType") != "authentication":
            raise Wrong(f"not authenticated: {item}")
        return str(item["connectionSessionUUID"])

    async def _ask(self, socket: ClientConnection, batch: Batch, task: Item) -> None:
        encoded = msgspec.msgpack.encode([task]) if batch.binary else msgspec.json.encode([task])
        await socket.send(encoded, text=not batch.binary)

    async def _receive_all(
        self, socket: ClientConnection, batch: Batch, expected: Expected, sessions: list[str], patience: float
    ) -> None:
        """Receive until nothing is missing, and then what comes in spite of that."""
        loop = asyncio.get_running_loop()
        give_up, turn = loop.time() + patience, 0
        while expected.missing:
            if loop.time() > give_up:
                raise Wrong(f"no reply after {patience:g} s to {expected.missing}")
            try:
                frame = await asyncio.wait_for(socket.recv(), _QUIET)
            except TimeoutError:
                # A frame may have changed the session: what was begun before is the other's to tell.
                turn += 1
                if len(sessions) > 1:
                    expected.add_nameless()
                    session = sessions[turn % len(sessions)]
                    await self._ask(socket, batch, _AUTHENTICATION | {"connectionSessionUUID": session})
                continue
            except ConnectionClosed as closed:
                raise Wrong(f"closed: {closed}; unanswered: {expected.missing}") from closed
            self._take(batch, frame, expected, sessions)
        last = new_uuid()
        await self._ask(socket, batch, {"taskType": "cancel", "taskUUID": last, "targetTaskUUID": "none"})
        while True:
            frame = await asyncio.wait_for(socket.recv(), patience)
            items = self._items(batch, frame)
            if items and items[0].get("taskUUID") == last:
                return
            self._take(batch, frame, expected, sessions)

    def _take(self, batch: Batch, frame: str | bytes, expected: Expected, sessions: list[str]) -> None:
        for item in self._items(batch, frame):
            self.outcomes[str(item.get("code") or item.get("taskType"))] += 1
            if (session := item.get("connectionSessionUUID")) and session not in sessions:
                sessions.append(session)
            expected.take(item)

    async def _expect_close(
        self, socket: ClientConnection, batch: Batch, code: int, *, unless_welcome: bool = False
    ) -> None:
        """Nothing but proper frames until the server closes with this code; or until a session begins."""
        try:
            while True:
                for item in self._items(batch, await asyncio.wait_for(socket.recv(), 20)):
                    self.outcomes[str(item.get("code") or item.get("taskType"))] += 1
                    if unless_welcome and "connectionSessionUUID" in item:
                        return
        except TimeoutError as error:
            raise Wrong(f"not closed, expected {code}") from error
        except ConnectionClosed:
            if socket.close_code != code:
                raise Wrong(f"closed with {socket.close_code}, expected {code}") from None

    def _items(self, batch: Batch, frame: str | bytes, *, posted: bool = False) -> list[Item]:
        """The items of a reply, which must be as the protocol says."""
        if isinstance(frame, bytes) != (batch.binary or posted):
            raise Wrong("a reply in the wrong kind of frame")
        content: Any
        try:
            content = msgspec.msgpack.decode(frame) if batch.binary else json.loads(frame)  # type: ignore[arg-type]
        except (ValueError, msgspec.DecodeError) as error:
            raise Wrong(f"a reply that cannot be read: {frame[:300]!r}") from error
        if not isinstance(content, dict) or not content or content.keys() - {"data", "errors"}:
            raise Wrong(f"not a reply: {frame[:300]!r}")
        if len(content) > 1 and not posted:
            raise Wrong(f"success and failure in one frame: {frame[:300]!r}")
        for error in content.get("errors", ()):
            if error["code"] in ("internalServerError", "serviceUnavailable") or not error["message"]:
                raise Wrong(f"the server failed: {error}")
            if len(str(error)) > _REPLY_BYTES or "Traceback" in str(error) or ".py" in str(error):
                raise Wrong(f"not for clients: {str(error)[:2000]}")
        return [*content.get("data", ()), *content.get("errors", ())]


def _expect(expected: Expected, batch: Batch, frame: Frame) -> None:
    """What the frame must be answered with, by the codec and, where that can tell, by another reader."""
    data = frame.data.decode() if frame.text else frame.data
    try:
        raws = list((MESSAGEPACK if batch.binary else JSON).split(data))
    except FrameError:
        expected.add_nameless()
        return
    with contextlib.suppress(ValueError, RecursionError, msgspec.DecodeError):
        _compare(raws, list(_read(data, batch)))
    expected.add(raws)


def _judge_answer(batch: Batch, frame: Frame, items: list[Item]) -> None:
    """Whether a POST was answered with one item for each task."""
    try:
        raws = list((MESSAGEPACK if batch.binary else JSON).split(frame.data))
    except FrameError:
        if [item.get("code") for item in items] != ["invalidFrame"]:
            raise Wrong(f"not one invalidFrame: {items[:10]}") from None
        return
    if raws and raws[0].task_type == "authentication" and len(items) < len(raws):
        raws = raws[1:]  # a valid one has no reply
    if len(items) != len(raws):
        raise Wrong(f"{len(items)} replies to {len(raws)} tasks: {items[:10]}")
    named = Counter(raw.task_uuid for raw in raws if raw.task_uuid)
    optional = Counter(raw.task_uuid for raw in raws if raw.task_type in _WITHOUT_UUID)
    told = Counter(item["taskUUID"] for item in items if item.get("taskUUID"))
    if told - named or named - told - optional:
        raise Wrong(f"the replies name {told}, the tasks {named}")


def _read(data: str | bytes, batch: Batch) -> Iterator[Any]:
    """The tasks of a frame as a decoder sees them that is not the codec's."""
    content: Any = msgspec.msgpack.decode(data) if batch.binary else json.loads(data)  # type: ignore[arg-type]
    yield from content if isinstance(content, list) else [content]


def _compare(raws: list[RawTask], tasks: list[Any]) -> None:
    if len(raws) != len(tasks):
        raise Wrong(f"the codec sees {len(raws)} tasks, there are {len(tasks)}")
    for raw, task in zip(raws, tasks, strict=True):
        if (
            not isinstance(task, dict)
            or len(task) > _MAX_FIELDS
            or not all(isinstance(key, str) for key in task)
        ):
            continue  # no object that the server reads
        name = task.get("taskUUID")
        if (
            isinstance(name, str)
            and _is_utf8(name.encode(errors="surrogatepass"))
            and raw.task_uuid != name[:128]
        ):
            raise Wrong(f"the codec reads the taskUUID {raw.task_uuid!r}, it is {name!r}")


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
