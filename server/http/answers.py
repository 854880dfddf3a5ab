"""Answers to POSTs: the images in them count as what waits to go out, for the account that asked."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.requests import Request

from server.delivery.results import ClientResults
from server.http.gate import ANSWER
from server.limits.memory import Memory
from server.protocol.errors import RateLimitError
from server.services import Services
from server.state.accounts import AccountId
from server.transport.http import OWNER

__all__ = ["results_for"]


def results_for(request: Request, account: AccountId) -> ClientResults:
    """What reads the results that go into the answer to a request; they are counted until it is written.

    Args:
        request: that is answered.
        account: whose it is.
    """
    services: Services = request.app.state.services
    memory: Memory = request.app.state.memory
    may_go_on = asyncio.Event()
    is_refused = False

    def refuse() -> None:
        nonlocal is_refused
        is_refused = True
        may_go_on.set()
        holding.release()

    @asynccontextmanager
    async def room(size: int) -> AsyncIterator[None]:
        while size and not is_refused and not holding.has_room():
            may_go_on.clear()
            await may_go_on.wait()
        if is_refused:
            raise RateLimitError(
                "replyRateLimit",
                "too many answers wait to be read; ask for this one by getResponse",
                retry_after=1,
            )
        holding.add(min(size, memory.outgoing.share // 2))  # one image may be as large as it is
        yield

    holding = request.scope[ANSWER] = memory.outgoing.holding(account, refuse, may_go_on.set)
    setattr(request.state, OWNER, account)
    base_url = request.app.state.base_url(request)
    return ClientResults(services.results, base_url, room, services.settings.max_unsent_bytes)
