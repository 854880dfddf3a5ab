"""How many connections to the outside one account may have, and how many may lead to one host."""

from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from typing import Final

from server.limits.fair_gate import FairGate

__all__ = ["OutwardShares"]

_CONNECTIONS: Final = 64
_SHARE: Final = 0.25


class OutwardShares:
    """Connections of one purpose. Who has its share, or names hosts that have theirs, waits for itself."""

    def __init__(self, connections: int = _CONNECTIONS) -> None:
        """Share out so many connections, of which no account and no host has more than a quarter."""
        self._of_accounts = FairGate(connections, connections * _SHARE)
        self._of_hosts = FairGate(connections, connections * _SHARE)

    @asynccontextmanager
    async def place(self, account: Hashable, host: str | None) -> AsyncIterator[None]:
        """Wait for a connection, and have it for the time of the block."""
        async with self._of_accounts.hold(account, 1), self._of_hosts.hold(host, 1):
            yield
