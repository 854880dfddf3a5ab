"""`GET /metrics`: how the server fares, for Prometheus and `tilewire top`."""

import asyncio
import ipaddress
import logging
from typing import Final

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from server.http.hosts import is_own_host
from server.limits.memory import Memory
from server.protocol.errors import DatabaseUnavailableError
from server.services import Services
from server.state import ledger
from server.state.accounts import AccountId, names_of
from server.state.outbox import count_undelivered
from server.state.webhooks import count_pending
from server.telemetry.metrics import Snapshot
from server.transport.peers import is_local_user

__all__ = ["get_metrics"]

log = logging.getLogger(__name__)

_FORWARDED: Final = ("forwarded", "via", "x-forwarded-for", "x-real-ip")
"""What proxies add: then the peer on this machine speaks for someone else."""


async def get_metrics(request: Request) -> Response:
    """The metrics, to whom the settings let see them."""
    services: Services = request.app.state.services
    if services.settings.metrics == "off":
        return PlainTextResponse("metrics are off\n", 404)
    if services.settings.metrics == "local" and not _is_local(request):
        return PlainTextResponse(
            'only this machine may see the metrics; the setting metrics = "open" lets everyone\n', 403
        )
    snapshot = await _snapshot(services, request.app.state.memory)
    body = await asyncio.to_thread(services.telemetry.metrics.render, snapshot)
    return Response(body, media_type=CONTENT_TYPE_PLAIN_0_0_4)


def _is_local(request: Request) -> bool:
    """Whether a program of this machine asks, and no page in its browser that has another name for it."""
    if request.client is None or any(name in request.headers for name in _FORWARDED):
        return False
    if not is_own_host(request.url.netloc, request.app.state.services.settings):
        return False
    if is_local_user(request.client.host):
        return True
    own, _ = request.scope["server"]  # a peer of the same address is this machine as well
    return request.client.host == own or ipaddress.ip_address(request.client.host).is_loopback


async def _snapshot(services: Services, memory: Memory) -> Snapshot:
    outbox = webhooks = reserved = None
    used = services.telemetry.usage.largest(services.settings.metrics_accounts)
    names: dict[AccountId, str] = {}
    try:
        if used:
            names = await services.database.run(names_of, {account for account, _ in used})
        outbox = await services.database.run(count_undelivered)
        webhooks = await services.database.run(count_pending)
        reserved = await services.database.run(ledger.reserved)
    except DatabaseUnavailableError:
        log.warning("metrics are without the database's")
    links = services.sessions.links
    return Snapshot(
        activity=await asyncio.to_thread(services.upscaler.activity),
        tasks=services.runner.count,
        sockets=len(links),
        sessions=services.sessions.count,
        unsent_bytes=sum(link.unsent for link in links),
        incoming=(memory.incoming.used, memory.incoming.limit),
        outgoing=(memory.outgoing.used, memory.outgoing.limit),
        outbox=outbox,
        webhooks=webhooks,
        reserved=reserved,
        accounts={
            (names.get(account, account), model): amounts for (account, model), amounts in used.items()
        },
    )
