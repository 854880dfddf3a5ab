"""Sessions: who is connected, and what is not yet delivered.

A session belongs to an account and outlives its connection. What could not be delivered waits in the outbox,
in the database, and is sent in order when the session resumes. The outcome of a task always goes through the
outbox, so that a crash between the work and the sending loses nothing; everything else is sent straight away
and kept only if that fails.

To have sent a reply is not to have delivered it: a line may be dead for a while before that is noticed. So a
reply is done with when the client has answered a ping that was sent behind it. Until then it stays in the
outbox, or in memory, and may be sent a second time over the next connection.
"""

import asyncio
import contextlib
import logging
import math
import time
import uuid
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Collection, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, Protocol

import msgspec
from msgspec import Struct

from server.delivery.results import Results, too_large
from server.protocol.codec import MESSAGEPACK, Codec, Reply, encode_reply
from server.protocol.errors import DatabaseUnavailableError, UnavailableError
from server.protocol.names import wire_name
from server.state.accounts import AccountId, KeyId
from server.state.database import Database
from server.state.logins import Login
from server.state.outbox import (
    OutboxId,
    UndeliveredReply,
    delivered,
    keep_undelivered,
    kept_frame,
    purge_undelivered,
    sessions_with_mail,
    undelivered,
)
from server.state.records import TaskRecord
from server.state.tasks import find

__all__ = ["KEY_REVOKED", "Disconnected", "Link", "Session", "Sessions"]

KEY_REVOKED: Final = 4001
"""The code that a connection is closed with when its key is revoked."""

log = logging.getLogger(__name__)

_TRIES: Final = 3
"""How often a large result is sent before its URL takes the place of its bytes."""

_LARGE: Final = 2**20
_CUT_REMEMBERED: Final = 100_000
_BOUNDED_REMEMBERED: Final = 10_000
_CLOSE_WITHIN: Final = 2.0
_SETTLE_WITHIN: Final = 1.0
_MOMENT: Final = 0.05
"""Seconds that entries which have arrived stay in the outbox, so that one transaction takes out many."""


class Disconnected(Exception):  # noqa: N818 - an event, not a mistake
    """The client is gone, or does not read."""


class Link(Protocol):
    """What a session needs of a connection."""

    codec: Codec
    base_url: str

    @property
    def unsent(self) -> int:
        """Bytes of frames that wait until the client reads."""

    async def send(self, frame: bytes) -> None:
        """Send one frame; raises Disconnected."""

    def room(self, size: int) -> AbstractAsyncContextManager[None]:
        """Wait until a reply with so many bytes of images may be prepared, and count them until it is.

        Raises:
            Disconnected: if the client is gone.
        """

    def confirm(self, kept: int = 0) -> asyncio.Future[bool]:
        """Becomes True when the client has all frames that were sent before, False if it is gone first.

        Args:
            kept: bytes that are kept until then, to be sent again; they count as unsent.
        """

    async def close(self, code: int, reason: str) -> None:
        """Close the connection; harmless if it is closed."""


class _KeptItem(Struct, rename=wire_name):
    task_uuid: str = ""


class _Kept(Struct):
    """A frame that was kept, as far as it says whose it is."""

    data: list[_KeptItem] = []


class Session:
    """One client's session, while it is connected.

    Attributes:
        name: what its client knows it by.
        uuid: what the account knows it by: for a token another than its name.
        unconfirmed: what was sent and may not have arrived, with the answer that is waited for: entries of
            the outbox by their ids, and other replies.
        sent: the entries of the outbox that were sent over this connection and may still be in it.
        confirmed: those of them that are in it no more.
        confirming: waits for the answers.
        caught_up_at: when all that was in the outbox had been sent over this connection, by the monotonic
            clock. What this server has put into it since can be sent without a look: no look has found it.
            Others may put something into it, too.
    """

    def __init__(self, login: Login, session_uuid: str, link: Link) -> None:
        self.login = login
        self.account, self.key = login.account, login.key
        self.name = session_uuid
        self.uuid = login.session(session_uuid)
        self.link = link
        self.delivering = asyncio.Lock()
        self.unconfirmed: deque[tuple[asyncio.Future[bool], OutboxId | Reply]] = deque()
        self.sent: set[OutboxId] = set()
        self.confirmed: list[OutboxId] = []
        self.confirming: asyncio.Task[None] | None = None
        self.caught_up_at = math.inf

    def go_on_from(self, before: "Session") -> None:
        """What another session has sent over the same connection is not sent over it again."""
        self.delivering, self.sent, self.confirmed = before.delivering, before.sent, before.confirmed

    def forget_confirmed(self) -> None:
        """Remember no longer that entries were sent which are gone from the outbox."""
        self.sent.difference_update(self.confirmed)
        self.confirmed.clear()


class Sessions:
    """The sessions that are connected, and the outbox of all."""

    def __init__(self, database: Database, results: Results, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._results = results
        self._clock = clock
        self._connected: dict[tuple[AccountId, str], Session] = {}
        self._background: set[asyncio.Task[None]] = set()
        self._confirming: defaultdict[tuple[AccountId, str], set[asyncio.Task[None]]] = defaultdict(set)
        self._arrived: list[OutboxId] = []
        self._taking_out: asyncio.Task[None] | None = None
        self._cut: Counter[OutboxId] = Counter()
        self._bounded: dict[tuple[AccountId, str], None] = {}
        self.links: set[Link] = set()
        """Every open connection, authenticated or not."""

    @property
    def count(self) -> int:
        """How many are connected."""
        return len(self._connected)

    async def attach(
        self, login: Login, session_uuid: str | None, link: Link, before: Session | None = None
    ) -> Session:
        """Begin a session or resume one; a connection that it still had is closed.

        A session's UUID means something within its account only, and that of a token within its scope: no
        other can resume it.

        Args:
            login: whose session it is.
            session_uuid: of the one that is resumed, or a new one's; None for any.
            link: its connection.
            before: the session that this connection had, perhaps the same.
        """
        session = Session(login, session_uuid or str(uuid.uuid4()), link)
        if before is not None:
            session.go_on_from(before)
            self.detach(before)
        # The new connection takes over at the end: before the caller has greeted it, nothing may be sent.
        while (previous := self._connected.pop((session.account, session.uuid), None)) is not None:
            await previous.link.close(4000, "the session was resumed by another connection")
        self._connected[session.account, session.uuid] = session
        return session

    def detach(self, session: Session) -> None:
        """The session's connection is gone."""
        if self._connected.get((session.account, session.uuid)) is session:
            del self._connected[session.account, session.uuid]

    def note_too_large(self, session: Session) -> None:
        """The client closed its connection because of a message of more than a mebibyte (1009)."""
        if len(self._bounded) >= _BOUNDED_REMEMBERED:
            del self._bounded[next(iter(self._bounded))]
        self._bounded[session.account, session.uuid] = None

    def largest(self, session: Session) -> float:
        """Give the bytes of a message that the client takes, once it has refused one.

        Runware's SDK for Python and `websockets` take a mebibyte unless told otherwise.
        """
        return _LARGE if (session.account, session.uuid) in self._bounded else math.inf

    def link(self, account: AccountId, session_uuid: str | None) -> Link | None:
        """The connection that a session has, if it has one."""
        session = self._connected.get((account, session_uuid or ""))
        return None if session is None else session.link

    def keys(self) -> set[KeyId]:
        """The keys that are connected."""
        return {session.key for session in self._connected.values() if session.key is not None}

    async def close_keys(self, keys: Collection[KeyId]) -> None:
        """Close the connections of these keys. What they have begun goes on."""
        closing = [session for session in self._connected.values() if session.key in keys]
        await asyncio.gather(
            *(session.link.close(KEY_REVOKED, "the API key was revoked") for session in closing)
        )

    async def send(self, session: Session, reply: Reply) -> None:
        """Send a reply, or keep it until the session resumes."""
        try:
            await session.link.send(frame := encode_reply(session.link.codec, reply))
        except Disconnected:
            await self._keep(session, [reply])
        else:
            self._await_confirmation(session, reply, len(frame))

    async def push(self, account: AccountId, session_uuid: str | None, reply: Reply) -> None:
        """Send news of the moment, such as progress; forgotten if nobody is connected."""
        session = self._connected.get((account, session_uuid or ""))
        if session is not None:
            try:
                await session.link.send(encode_reply(session.link.codec, reply))
            except Disconnected:
                return

    async def deliver(self, account: AccountId, session_uuid: str | None) -> None:
        """Send what waits in the outbox of a session, in order, if it is connected."""
        session = self._connected.get((account, session_uuid or ""))
        if session is None:
            return
        async with session.delivering:
            await self._send_all(session)

    async def deliver_outcome(self, record: TaskRecord) -> None:
        """`deliver`, when an outcome has just been recorded: sent as it is, if no look can have found it."""
        session = self._connected.get((record.account, record.session or ""))
        if session is None:
            return
        async with session.delivering:
            if record.waiting is None or record.waiting.kept_at <= session.caught_up_at:
                await self._send_all(session)
                return
            session.forget_confirmed()
            with contextlib.suppress(Disconnected, DatabaseUnavailableError):  # `look` tries again
                await self._send_entry(session, record.waiting, record)

    async def _send_all(self, session: Session) -> None:
        """Send what the outbox of a session holds."""
        await self._settled(session)
        session.forget_confirmed()
        session.caught_up_at = math.inf
        with contextlib.suppress(Disconnected, DatabaseUnavailableError):  # `look` tries again
            entries = await self._database.run(undelivered, session.account, session.uuid)
            looked_at = time.monotonic()
            for entry in entries:
                await self._send_entry(session, entry)
            session.caught_up_at = looked_at

    async def _send_entry(
        self, session: Session, entry: UndeliveredReply, record: TaskRecord | None = None
    ) -> None:
        """Send an entry of the outbox, unless it was; `record` is the one that it stands for, if known."""
        if entry.id in session.sent:
            return
        if entry.task_uuid is not None and record is None:
            record = await self._database.run(find, session.account, entry.task_uuid)
            if record is None or record.finished != entry.id.created:
                return  # the entry is gone: its task was sent again since
        size = entry.size if record is None else self._results.size(record)
        async with session.link.room(size or 0):
            if record is None:
                frame = await self._kept_frame(session, entry.id)
            else:
                frame = await self._outcome_frame(session, entry.id, record)
        if frame is None:
            return
        self._cut[entry.id] += 1  # until it is confirmed
        await session.link.send(frame)
        session.sent.add(entry.id)
        self._await_confirmation(session, entry.id)
        if entry.task_uuid is not None:
            _log_delivery(session, entry.task_uuid)

    async def look(self) -> None:
        """Deliver what another server put into the outbox of a session that is connected here."""
        if not self._connected:
            return
        for account, session_uuid in await self._database.run(sessions_with_mail, list(self._connected)):
            session = self._connected.get((account, session_uuid))
            if session is not None and not session.delivering.locked():
                self._spawn(self.deliver(account, session_uuid))  # a client may read slowly

    async def settle(self, patience: float) -> None:
        """Give clients some time to confirm what they were sent."""
        if waiting := [task for tasks in self._confirming.values() for task in tasks]:
            await asyncio.wait(waiting, timeout=patience)

    async def close(self) -> None:
        """Keep what may not have arrived, once the connections are closed; end all else."""
        await self.settle(_CLOSE_WITHIN)
        left = [*self._background, *(task for tasks in self._confirming.values() for task in tasks)]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def sweep(self, undelivered_ttl: float) -> int:
        """Drop replies that nobody came for in time; returns how many."""
        if len(self._cut) > _CUT_REMEMBERED:
            self._cut.clear()
        return await self._database.run(purge_undelivered, self._clock() - undelivered_ttl)

    def _await_confirmation(self, session: Session, sent: OutboxId | Reply, kept: int = 0) -> None:
        session.unconfirmed.append((session.link.confirm(kept), sent))
        if len(session.unconfirmed) == 1:
            task = session.confirming = asyncio.create_task(self._confirm(session))
            self._confirming[session.account, session.uuid].add(task)
            task.add_done_callback(lambda task: self._confirmed(session, task))

    def _confirmed(self, session: Session, task: asyncio.Task[None]) -> None:
        key = session.account, session.uuid
        self._confirming[key].discard(task)
        if not self._confirming[key]:
            del self._confirming[key]

    async def _settled(self, session: Session) -> None:
        """Return when all is recorded that an earlier connection of the session got, or soon."""
        own = session.confirming, asyncio.current_task()
        tasks = self._confirming.get((session.account, session.uuid), set())
        if earlier := [task for task in tasks if task not in own]:
            await asyncio.wait(earlier, timeout=_SETTLE_WITHIN)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _confirm(self, session: Session) -> None:
        """Be done with what the client has got; keep the rest if it is gone."""
        while session.unconfirmed:
            arrived, _ = session.unconfirmed[0]
            if not await arrived:
                left = [sent for _, sent in session.unconfirmed]
                session.unconfirmed.clear()
                await self._keep(session, [reply for reply in left if not isinstance(reply, OutboxId)])
                continue
            done = []
            for answer, sent in session.unconfirmed:
                if not (answer.done() and answer.result()):
                    break
                done.append(sent)
            if entries := [sent for sent in done if isinstance(sent, OutboxId)]:
                await self._take_out(entries)
                session.confirmed += entries
                for entry in entries:
                    del self._cut[entry]
            for _ in done:
                session.unconfirmed.popleft()

    async def _take_out(self, entries: list[OutboxId]) -> None:
        """Take entries out of the outbox, with those of other sessions that come within a moment."""
        self._arrived += entries
        if self._taking_out is None:
            self._taking_out = asyncio.create_task(self._take_out_soon())
        await asyncio.shield(self._taking_out)

    async def _take_out_soon(self) -> None:
        await asyncio.sleep(_MOMENT)
        entries, self._arrived, self._taking_out = self._arrived, [], None
        await self._database.insist(delivered, entries)

    async def _keep(self, session: Session, replies: Collection[Reply]) -> None:
        """Put replies into the outbox that a client may not have got."""
        if not replies:
            return
        frames = [encode_reply(MESSAGEPACK, reply) for reply in replies]  # in which bytes are still bytes
        try:
            for frame in frames:
                await self._database.run(
                    keep_undelivered, session.account, session.uuid, self._clock(), frame
                )
        except DatabaseUnavailableError:
            log.warning("replies are lost: their client is gone and the database cannot be used")
            return
        await self.deliver(session.account, session.uuid)  # it may have been resumed meanwhile

    async def _kept_frame(self, session: Session, outbox_id: OutboxId) -> bytes | None:
        """What was kept, as it is sent over this connection; None if it is gone, or cannot be read."""
        frame = await self._database.run(kept_frame, outbox_id)
        if frame is None:
            return None
        codec = session.link.codec
        try:
            if len(frame) > self.largest(session):
                (kept,) = msgspec.msgpack.decode(frame, type=_Kept).data or [_KeptItem()]
                record = await self._database.run(find, session.account, kept.task_uuid.lower())
                if record is not None:
                    why = too_large(len(frame))
                    return encode_reply(codec, await self._outcome(session, record, by_url=why))
            if frame.startswith(b"{"):  # by an earlier version, in JSON
                return codec.encode(msgspec.json.decode(frame)) if codec.binary else frame
            return frame if codec.binary else codec.encode(msgspec.msgpack.decode(frame))
        except msgspec.DecodeError:
            log.exception("a kept reply cannot be read, and is dropped")
            await self._database.run(delivered, [outbox_id])
            return None

    async def _outcome_frame(self, session: Session, outbox_id: OutboxId, record: TaskRecord) -> bytes:
        """What reports an outcome: by its URL if the client cannot take the image, or seems not to."""
        codec = session.link.codec
        frame = encode_reply(codec, await self._outcome(session, record))
        why = ""
        if len(frame) > self.largest(session):
            why = too_large(len(frame))
        elif len(frame) > _LARGE and self._cut[outbox_id] >= _TRIES:
            why = "the connection ended each time that the image was sent"
        return encode_reply(codec, await self._outcome(session, record, by_url=why)) if why else frame

    async def _outcome(self, session: Session, record: TaskRecord, *, by_url: str = "") -> Reply:
        base_url = session.link.base_url
        try:
            return await self._results.item(record, base_url, by_url=by_url)
        except UnavailableError as error:  # the result is safe: it can be asked for again
            request = record.request
            return error.item(request.task_type, request.task_uuid, f"{base_url}/docs/errors")


def _log_delivery(session: Session, task: str) -> None:
    """Whoever delivers may be at another task, whose model would be named."""
    fields = {"task": task, "account": session.account, "session": session.uuid, "model": None}
    log.info("task delivered", extra=fields)
