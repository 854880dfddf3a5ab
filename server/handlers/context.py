"""What a handler knows besides its task."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from server.delivery.results import ClientResults
from server.delivery.sessions import Session
from server.protocol.codec import RawTask
from server.services import Services
from server.state.accounts import AccountId
from server.state.logins import Login
from server.state.records import TaskRecord
from server.state.requests import Service

__all__ = ["Context"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """Whose task it is and how it came.

    Attributes:
        login: what the client's key or token opens.
        session: where later replies go; None for HTTP, where the one reply is the response.
        base_url: the address under which the client reaches this server.
        raw: the task as it came.
        results: reads the results that this client gets.
        acknowledge_after: seconds that HTTP waits for an asynchronous task; None: as the setting says.
        service: in whose shape the task came.
        traceparent: of the HTTP request, if it had one.
        accepting: upscales that came before over the same connection and may not be taken on yet, by UUID.
    """

    services: Services
    login: Login
    session: Session | None
    base_url: str
    raw: RawTask
    results: ClientResults
    accepting: Mapping[str, asyncio.Task[None]] = field(default_factory=dict)
    acknowledge_after: float | None = None
    service: Service = "runware"
    traceparent: str | None = None

    @property
    def account(self) -> AccountId:
        """Whose task it is."""
        return self.login.account

    @property
    def scope(self) -> str | None:
        """Of the token that it came with, which sees only what is marked with it; None for a key."""
        return self.login.scope

    def sees(self, record: TaskRecord) -> bool:
        """Whether the client may see a task of its account."""
        return self.scope is None or record.is_of(self.scope)

    async def settled(self, task_uuid: str) -> None:
        """Return when a task of this connection is taken on, or refused: one may be sent right behind it."""
        if (earlier := self.accepting.get(task_uuid.lower())) is not None:
            await asyncio.wait([earlier])
