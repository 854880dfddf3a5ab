"""`tilewire top`: how a running server fares, from its `/metrics`."""

import time
from pathlib import Path
from typing import Annotated

import httpcore
import typer
from rich.live import Live

from server.commands.address import http_address
from server.commands.running import running_servers
from server.commands.terminal import ConfigFile, console, effective_settings, give_up
from server.commands.top_view import Scrape, parse, view
from tilewire.socket import unix_path

__all__ = ["top"]

_TIMEOUT = 10.0


class _UnreachableError(Exception):
    """There is nothing to show; the message says why."""


def top(
    url: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="A running server, such as http://host:8080 or unix:///path. "
            "[default: the one on this machine]",
        ),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Print the figures once and exit.")] = False,
    interval: Annotated[float, typer.Option(min=0.1, metavar="SECONDS", help="Time between updates.")] = 1.0,
    config: ConfigFile = None,
) -> None:
    """Watch a running server.

    It shows devices, queue, speed, stages, sockets, errors and money, until Ctrl-C.
    """
    try:
        address = _of_this_machine(config) if url is None else http_address(url)
    except ValueError:
        give_up(f"{url} is not a server's address, such as http://host:8080 or unix:///path", status=1)
    try:
        before = _scrape(address)
        time.sleep(interval)
        after = _scrape(address)
        if once:
            console.print(view(before, after, address))
            return
        with Live(view(before, after, address), console=console, screen=True, auto_refresh=False) as live:
            while True:
                time.sleep(interval)
                before, after = after, _scrape(address)
                live.update(view(before, after, address), refresh=True)
    except KeyboardInterrupt:
        return
    except _UnreachableError as error:
        give_up(str(error), status=1)


def _of_this_machine(config: Path | None) -> str:
    """The address of the server that this user runs, or else of the one that the settings are for."""
    running = running_servers()
    if len(running) == 1:
        return running[0].url
    settings, _ = effective_settings(config)
    if not settings.tcp and settings.uds is not None:
        return f"unix://{settings.uds.absolute()}"
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104 - asked, not bound
    return f"http://[{host}]:{settings.port}" if ":" in host else f"http://{host}:{settings.port}"


def _scrape(address: str) -> Scrape:
    timeouts = dict.fromkeys(("connect", "read", "write", "pool"), _TIMEOUT)
    path = unix_path(address)
    page = f"{address if path is None else 'http://localhost'}/metrics"
    try:
        with httpcore.ConnectionPool(uds=path) as connections:
            response = connections.request("GET", page, extensions={"timeout": timeouts})
    except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError, OSError) as error:
        raise _UnreachableError(f"{address} cannot be reached: {error or 'no answer'}") from error
    except (httpcore.UnsupportedProtocol, ValueError) as error:
        raise _UnreachableError(f"{address} is not a server's address, such as http://host:8080") from error
    text = response.content.decode("utf-8", "replace")
    if response.status != 200:
        raise _UnreachableError(f"{address} answers {response.status}: {text.strip()[:200]}")
    try:
        return parse(text, time.monotonic())
    except ValueError as error:
        raise _UnreachableError(f"{address}/metrics: {error}") from error
