"""What a handler knows beside its task."""

from dataclasses import dataclass

from server.protocol.codec import RawTask
from server.services import Services
from server.sessions import Session
from server.state.accounts import AccountId

__all__ = ["Context"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """Whose task it is and how it came.

    Attributes:
        session: where later replies go; None for HTTP, where the one reply is the response.
        base_url: what the client reaches this server as.
        raw: the task as it came.
    """

    services: Services
    account: AccountId
    session: Session | None
    base_url: str
    raw: RawTask
