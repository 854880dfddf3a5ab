"""Sessions: who is connected, and what is not yet delivered.

A session belongs to an account and outlives its connection. What could not be delivered waits in the outbox,
in the database, and is sent in order when the session resumes. The outcome of a task always goes through the
outbox, so that a crash between the work and the sending loses nothing; everything else is sent straight away
and kept only if that fails.
"""

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Collection
from typing import Final, Protocol

import msgspec

from server.delivery.results import Results
from server.protocol.codec import MESSAGEPACK, Codec, Reply, encode_reply
from server.protocol.errors import DatabaseUnavailableError, UnavailableError
from server.state.accounts import AccountId, KeyId, Login
from server.state.database import Database
from server.state.outbox import (
    UndeliveredReply,
    delivered,
    keep_undelivered,
    purge_undelivered,
    sessions_with_mail,
    undelivered,
)
from server.state.tasks import find

__all__ = ["KEY_REVOKED", "Disconnected", "Link", "Session", "Sessions"]

KEY_REVOKED: Final = 4001
"""The code that a connection is closed with when its key is revoked."""

log = logging.getLogger(__name__)


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

    async def close(self, code: int, reason: str) -> None:
        """Close the connection; harmless if it is closed."""


class Session:
    """One client's session, while it is connected."""

    def __init__(self, login: Login, session_uuid: str, link: Link) -> None:
        self.account, self.key = login
        self.uuid = session_uuid
        self.link = link
        self.delivering = asyncio.Lock()


class Sessions:
    """The sessions that are connected, and the outbox of all."""

    def __init__(self, database: Database, results: Results, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._results = results
        self._clock = clock
        self._connected: dict[tuple[AccountId, str], Session] = {}
        self._deliveries: set[asyncio.Task[None]] = set()
        self.links: set[Link] = set()
        """Every open connection, authenticated or not."""

    @property
    def count(self) -> int:
        """How many are connected."""
        return len(self._connected)

    async def attach(self, login: Login, session_uuid: str | None, link: Link) -> Session:
        """Begin a session or resume one; a connection that it still had is closed.

        A session's UUID means something within its account only: no other account can resume it.
        """
        session = Session(login, session_uuid or str(uuid.uuid4()), link)
        # The new connection takes over at the end: before the caller has greeted it, nothing may be sent.
        while (previous := self._connected.pop((session.account, session.uuid), None)) is not None:
            await previous.link.close(4000, "the session was resumed by another connection")
        self._connected[session.account, session.uuid] = session
        return session

    def detach(self, session: Session) -> None:
        """The session's connection is gone."""
        if self._connected.get((session.account, session.uuid)) is session:
            del self._connected[session.account, session.uuid]

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
            await session.link.send(encode_reply(session.link.codec, reply))
        except Disconnected:
            frame = encode_reply(MESSAGEPACK, reply)  # in which bytes are still bytes
            try:
                await self._database.run(
                    keep_undelivered, session.account, session.uuid, self._clock(), frame
                )
            except DatabaseUnavailableError:
                log.warning("a reply is lost: its client is gone and the database cannot be used")
                return
            await self.deliver(session.account, session.uuid)  # it may have been resumed meanwhile

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
            try:
                for entry in await self._database.run(undelivered, account, session.uuid):
                    await session.link.send(await self._frame(session, entry))
                    await self._database.run(delivered, entry.id)
                    if entry.task_uuid is not None:
                        _log_delivery(session, entry.task_uuid)
            except (Disconnected, DatabaseUnavailableError):
                return  # what was not sent stays in the outbox; `look` tries again

    async def look(self) -> None:
        """Deliver what another server put into the outbox of a session that is connected here."""
        if not self._connected:
            return
        for account, session_uuid in await self._database.run(sessions_with_mail, list(self._connected)):
            session = self._connected.get((account, session_uuid))
            if session is not None and not session.delivering.locked():
                delivery = asyncio.create_task(self.deliver(account, session_uuid))
                self._deliveries.add(delivery)  # not awaited here: a client may read slowly
                delivery.add_done_callback(self._deliveries.discard)

    async def close(self) -> None:
        """End what `look` began."""
        for delivery in self._deliveries:
            delivery.cancel()
        await asyncio.gather(*self._deliveries, return_exceptions=True)

    async def sweep(self, undelivered_ttl: float) -> int:
        """Drop replies that nobody came for in time; returns how many."""
        return await self._database.run(purge_undelivered, self._clock() - undelivered_ttl)

    async def _frame(self, session: Session, entry: UndeliveredReply) -> bytes:
        codec = session.link.codec
        if entry.frame is not None:
            if entry.frame.startswith(b"{"):  # by an earlier version, in JSON
                return codec.encode(msgspec.json.decode(entry.frame)) if codec.binary else entry.frame
            return entry.frame if codec.binary else codec.encode(msgspec.msgpack.decode(entry.frame))
        record = await self._database.run(find, session.account, entry.task_uuid or "")
        assert record is not None, "the outbox names a task that is not there"
        reply: Reply
        try:
            reply = await self._results.item(record, session.link.base_url)
        except UnavailableError as error:  # the result is safe: it can be asked for again
            request = record.request
            reply = error.item(request.task_type, request.task_uuid, f"{session.link.base_url}/docs/errors")
        return encode_reply(codec, reply)


def _log_delivery(session: Session, task: str) -> None:
    """Whoever delivers may be at another task, whose model would be named."""
    fields = {"task": task, "account": session.account, "session": session.uuid, "model": None}
    log.info("task delivered", extra=fields)
