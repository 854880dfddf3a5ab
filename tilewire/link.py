"""The client's connection, which comes back when it is lost.

A task is sent, and its replies are read, until it has its outcome. Whenever the connection was lost in
between, the session is resumed and the task sent again under the same `taskUUID`: to the server it is the
same task, which is done and charged once.

One asyncio task, the keeper, reads and reconnects; it lives as long as the `async with` block. While nobody
waits for anything it does not reconnect.
"""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncGenerator
from types import TracebackType
from typing import Final

import msgspec
from msgspec import Raw
from websockets.exceptions import ConnectionClosed

from tilewire.call import Call, Reply, WireTask
from tilewire.errors import NotFoundError, TaskFailedError, TilewireError, UnreachableError, failure
from tilewire.socket import Socket, backoff, open_socket
from tilewire.wire import ErrorItem, decode_frame, decode_head

__all__ = ["Link"]

_MAX_LOSSES: Final = 20
"""A task during which the connection is lost so often is taken for the reason."""

_CANCEL_WITHIN: Final = 5.0
"""Seconds that a cancelled call waits for the server to have stopped its task."""

_BEGUN_WITHIN: Final = 0.05
"""Seconds after which a task is cancelled again that the server was not aware of yet."""

_MESSAGE_TOO_BIG: Final = 1009  # RFC 6455 section 7.4.1

_AUTHENTICATED_WITHIN: Final = 15.0


class Link:
    """One session with a server; any number of tasks at once."""

    def __init__(self, url: str, key: str, patience: float) -> None:
        self._url = url
        self._key = key
        self._patience = patience
        self._session: str | None = None
        self._calls: dict[str, Call] = {}
        self._to_cancel: set[str] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._socket: Socket
        self._open: asyncio.Future[Socket]  # done while there is a connection
        self._wanted = asyncio.Event()
        self._keeper: asyncio.Task[None]

    async def __aenter__(self) -> "Link":
        """Connect and authenticate; tried once, so that a wrong address is told at once.

        Raises:
            UnreachableError: if there is no server.
            AuthenticationFailedError: if the key is not valid.
            RuntimeError: if it is open already.
        """
        if self._loop is not None and not self._keeper.done():
            raise RuntimeError("this client is open already")
        self._socket = await self._connect()
        self._loop = asyncio.get_running_loop()
        self._open = self._loop.create_future()
        self._open.set_result(self._socket)
        self._keeper = asyncio.create_task(self._keep(), name="tilewire connection")
        self._keeper.add_done_callback(lambda _: self._end())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connection; calls that still wait fail."""
        self._keeper.cancel()
        try:
            (end,) = await asyncio.gather(self._keeper, return_exceptions=True)
        finally:
            await self._socket.close()
        if isinstance(end, Exception):
            raise end

    def check_use(self) -> None:
        """See that the caller may use this.

        Raises:
            RuntimeError: before `async with`, and in another event loop than that.
        """
        if self._loop is None:
            raise RuntimeError("a client is used within `async with Tilewire(...) as tilewire:`")
        if asyncio.get_running_loop() is not self._loop:
            raise RuntimeError("a client belongs to the event loop in which its `async with` began")

    async def ask(self, task: WireTask) -> Raw:
        """Give the one reply to a task; raises as `replies`."""
        async with contextlib.aclosing(self.replies(task)) as replies:
            return await anext(replies)

    async def cancel(self, task_uuid: str) -> bool:
        """Stop a task; False if none of this UUID is under way."""
        task = {"taskType": "cancel", "taskUUID": str(uuid.uuid4()), "targetTaskUUID": task_uuid}
        try:
            await self.ask(task)
        except NotFoundError:
            return False
        return True

    async def replies(self, task: WireTask, *, stop: bool = False) -> AsyncGenerator[Raw, None]:
        """Send a task and give its replies, the outcome last.

        Args:
            task: what is sent.
            stop: whether the server is to stop the task if this is cancelled, or closed, before the outcome.

        Raises:
            TaskFailedError: the outcome, if it is an error.
            UnreachableError: if the connection was lost for longer than the client is patient.
            ValueError: if the same task is under way here.
            RuntimeError: see `check_use`.
        """
        self.check_use()
        if task["taskUUID"] in self._calls:
            raise ValueError(f"task {task['taskUUID']} is under way already")
        call = self._calls[task["taskUUID"]] = Call(task)
        impatient_at = _now() + self._patience
        ended = False
        try:
            while not ended:
                reply = await self._next(call)
                if reply is None:
                    continue
                content, ended = reply
                if isinstance(content, Raw):
                    yield content
                elif (wait := _retry_after(content)) and _now() + wait < impatient_at:
                    ended, call.sent_on = False, None
                    await asyncio.sleep(wait)
                else:
                    raise content
        finally:
            try:
                if stop and not ended and call.sent_on is not None:
                    await self._stop(call)
            finally:
                self._calls.pop(call.uuid, None)

    async def _next(self, call: Call) -> tuple[Reply, bool] | None:
        """Give the next reply, after the task was sent if need be; None if the connection was lost first."""
        if call.unread and call.sent_on is not None:
            return await call.get()
        if not self._open.done():
            self._wanted.set()
        socket = await asyncio.shield(self._open)
        if call.losses > _MAX_LOSSES:
            raise UnreachableError(f"the connection was lost {call.losses} times")
        if call.sent_on is not socket:
            call.begin(socket)
            with contextlib.suppress(ConnectionClosed):  # the keeper sees it too
                await socket.send(call.frame)
        return await call.get()

    async def _stop(self, call: Call) -> None:
        """Have the server stop a task; if there is no connection, as soon as there is one."""
        self._to_cancel.add(call.uuid)
        if not self._open.done() or self._keeper.done():
            return
        with contextlib.suppress(TilewireError, TimeoutError):
            async with asyncio.timeout(_CANCEL_WITHIN):
                while not (await self.cancel(call.uuid) or await call.ends_within(_BEGUN_WITHIN)):
                    pass
                self._to_cancel.discard(call.uuid)

    async def _keep(self) -> None:
        """Read; and reconnect when the connection is lost and somebody waits for something."""
        while True:
            await self._read(self._socket)
            self._refuse_too_large(self._socket)
            while True:
                self._open = asyncio.get_running_loop().create_future()
                self._wanted.clear()
                for call in self._calls.values():
                    call.lose()
                await self._wanted.wait()
                try:
                    self._socket = await self._reconnect()
                    break
                except TilewireError as error:
                    self._give_up(error)
            self._open.set_result(self._socket)

    def _end(self) -> None:
        """There will be no more replies."""
        closed = UnreachableError("the connection was closed")
        if self._open.done():
            self._open = asyncio.get_running_loop().create_future()
        self._give_up(closed)
        for call in self._calls.values():
            call.put(closed, last=True)

    def _give_up(self, error: TilewireError) -> None:
        self._open.set_exception(error)
        self._open.exception()  # nobody may be waiting

    async def _read(self, socket: Socket) -> None:
        """Hand over what comes, until the connection is lost."""
        watch = asyncio.create_task(socket.watch(), name="tilewire keepalive")
        try:
            with contextlib.suppress(ConnectionClosed, msgspec.DecodeError):
                while True:
                    frame = decode_frame(await socket.recv(decode=False))
                    for item in frame.data:
                        head = decode_head(item)
                        # What is sent twice finds nobody the second time.
                        if (call := self._calls.get(head.task_uuid.lower())) is not None:
                            call.put(item, last=head.status != "processing")
                    for error in frame.errors:
                        for call in self._concerned(error, socket):
                            call.put(failure(error), last=True)
        finally:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)
        # asyncio's transport fails so if it is aborted right after its last bytes were written.
        with contextlib.suppress(AttributeError):
            await socket.close()

    def _concerned(self, error: ErrorItem, socket: Socket) -> list[Call]:
        """The calls that an error is about.

        One that names no task is about a frame that could not be read: of the kind that it names, if it names
        one, and nothing else can have been said about it.
        """
        if error.task_uuid:
            call = self._calls.get(error.task_uuid.lower())
            return [] if call is None else [call]
        return [
            call
            for call in self._calls.values()
            if call.sent_on is socket and not call.answered and error.task_type in ("", call.type)
        ]

    def _refuse_too_large(self, socket: Socket) -> None:
        """If a message was too large for the server, the largest was: it must not be sent again."""
        sent = [call for call in self._calls.values() if call.sent_on is socket]
        if socket.close_code == _MESSAGE_TOO_BIG and sent:
            largest = max(sent, key=lambda call: len(call.frame))
            message = f"the image is larger than the server takes, in a message of {len(largest.frame)} bytes"
            item = ErrorItem(code="invalidFrameSize", message=message, task_uuid=largest.uuid)
            largest.put(failure(item), last=True)

    async def _reconnect(self) -> Socket:
        """Give a new connection of the same session.

        Raises:
            UnreachableError: if there was none for as long as the client is patient.
            TaskFailedError: if the key is no longer valid.
        """
        impatient_at = _now() + self._patience
        for delay in backoff():
            try:
                return await self._connect()
            except TilewireError as error:
                wait = max(delay, _retry_after(error))
                final = isinstance(error, TaskFailedError) and not error.retry_after
                if final or _now() + wait >= impatient_at:
                    raise
            await asyncio.sleep(wait)
        raise AssertionError("backoff never ends")

    async def _connect(self) -> Socket:
        socket = await open_socket(self._url)
        try:
            async with asyncio.timeout(_AUTHENTICATED_WITHIN):
                await self._authenticate(socket)
        except BaseException as error:
            await socket.close()
            if isinstance(error, ConnectionClosed | TimeoutError | msgspec.DecodeError | ValueError):
                raise UnreachableError(f"{self._url} does not answer as Tilewire does") from error
            raise
        return socket

    async def _authenticate(self, socket: Socket) -> None:
        """Begin the session or resume it; have tasks stopped that were given up meanwhile."""
        task = {"taskType": "authentication", "apiKey": self._key}
        if self._session is not None:
            task["connectionSessionUUID"] = self._session
        await socket.send(msgspec.msgpack.encode([task]))
        frame = decode_frame(await socket.recv(decode=False))
        for error in frame.errors:
            raise failure(error)
        (item,) = frame.data
        self._session = decode_head(item).connection_session_uuid
        while self._to_cancel:
            cancel = {
                "taskType": "cancel",
                "taskUUID": str(uuid.uuid4()),
                "targetTaskUUID": self._to_cancel.pop(),
            }
            await socket.send(msgspec.msgpack.encode([cancel]))


def _retry_after(error: TilewireError) -> float:
    return (error.retry_after or 0) if isinstance(error, TaskFailedError) else 0


def _now() -> float:
    return asyncio.get_running_loop().time()
