"""`tilewire serve`: the server."""

import gc
import logging
import os
import textwrap
from contextlib import ExitStack
from pathlib import Path
from threading import Thread
from typing import Annotated, Final

import typer
from rich.text import Text

from engines import bound_heaps, usable_cores
from onnx_models import ModelBuildError, UnknownModelError, load_catalogue, one_line
from server.commands.building import build_missing
from server.commands.running import noted
from server.commands.sign_in import day_token, local_page, open_in_browser, sign_in_link
from server.commands.terminal import (
    ConfigFile,
    Data,
    console,
    effective_settings,
    give_up,
    problems,
)
from server.errors import StartError
from server.private import private_file
from server.services import Services
from server.serving import serve as serve_forever
from server.state.accounts import DEFAULT_ACCOUNT
from server.telemetry.logs import configure_logging

__all__ = ["serve"]

log = logging.getLogger(__name__)

_FIRST_KEY: Final = "first-key"
"""The file in the data directory that the first key is written to where no terminal shows it."""


def serve(
    host: Annotated[str | None, typer.Option(metavar="ADDRESS", help="Address to listen on.")] = None,
    port: Annotated[
        int | None, typer.Option(metavar="N", help="Port to listen on; 0 takes a free one.")
    ] = None,
    uds: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="Also listen on this Unix socket, for this machine only."),
    ] = None,
    tcp: Annotated[
        bool | None, typer.Option("--tcp/--no-tcp", help="Listen on the address and port. [default: yes]")
    ] = None,
    data: Data = None,
    models: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,...", help="Models to load before the server is ready, separated by commas."
        ),
    ] = None,
    show: Annotated[
        bool, typer.Option("--open", help="Open the page in the browser, signed in: see tilewire open.")
    ] = False,
    config: ConfigFile = None,
) -> None:
    """Start the server.

    It runs until SIGINT, SIGTERM or SIGHUP: then it lets running tasks finish. A second one ends it at once.
    """
    os.umask(0o077)  # what the server writes is nobody else's business
    bound_heaps(usable_cores())
    loaded = tuple(name.strip() for name in models.split(",")) if models else None
    settings, _ = effective_settings(config, host=host, port=port, uds=uds, tcp=tcp, data=data, models=loaded)
    configure_logging(settings.log_level, settings.log_format, problems)
    as_json = settings.log_format == "json"
    with ExitStack() as stack:

        def ready(url: str, services: Services) -> None:
            stack.enter_context(noted(url, services.settings))
            # What there is now stays. To look at it for garbage takes up to half a second every few hundred
            # tasks, and nothing else runs meanwhile.
            gc.freeze()
            (_log_ready if as_json else _announce)(url, services)
            if show:
                _open_page(url, services)

        try:
            catalogue = load_catalogue(settings.effective_added_models)
            build_missing(map(catalogue.get, settings.models), settings.model_directory, console)
            serve_forever(settings, ready)
        except (UnknownModelError, ModelBuildError, StartError, OSError) as error:
            if as_json:
                log.error("the server cannot start: %s", one_line(error))  # noqa: TRY400 - it says all
                raise typer.Exit(1) from None
            give_up(one_line(error), status=1)


def _announce(url: str, services: Services) -> None:
    settings, key = services.settings, services.first_key
    address = f"{url.replace('http', 'ws', 1)}/v1" if settings.tcp else url
    console.print(Text.assemble("Tilewire is ready at ", (address, "bold")))
    if settings.tcp:
        if settings.uds is not None:
            console.print(f"for programs on this machine: unix://{settings.uds.absolute()}")
        console.print(f"by POST: {url}/v1")
        _announce_page(_page(url, services), key)
    if key is not None and console.is_terminal:
        console.print(Text.assemble("API key, shown this once: ", (key, "bold")))
    elif key is not None:
        console.print(f"API key: in {_kept(key, services)}, for this user only")
    for name in _devices(services):
        console.print(f"device: {name}")
    names = ", ".join(_models(services))
    console.print(textwrap.fill(f"models: {names}", 80, subsequent_indent=" " * 8, break_on_hyphens=False))


def _announce_page(page: str, key: str | None) -> None:
    if key is not None and console.is_terminal:
        # In the fragment, which browsers send to nobody.
        console.print(Text.assemble("page: ", (f"{page}#key={key}", "bold"), " (signs you in)"))
    else:
        console.print(f"page: {page}")
    console.print(f"documentation: {page}docs/")


def _open_page(url: str, services: Services) -> None:
    """Open the page in the browser; without one its address has been printed."""
    if not services.settings.tcp:
        return
    token = services.database.run_sync(
        day_token, DEFAULT_ACCOUNT, services.clock(), services.settings.api_key
    )
    if token is not None:
        link = sign_in_link(_page(url, services), token)
        Thread(target=open_in_browser, args=(link,), daemon=True).start()  # some browsers are waited for


def _log_ready(url: str, services: Services) -> None:
    """The same as one line of the log, for machines."""
    uds = services.settings.uds
    more = {} if uds is None else {"uds": str(uds.absolute())}
    if services.first_key is not None:
        more["key_file"] = str(_kept(services.first_key, services))
    log.info(
        "ready",
        extra={
            "url": url,
            "devices": ", ".join(_devices(services)),
            "models": ", ".join(_models(services)),
            **more,
        },
    )


def _page(url: str, services: Services) -> str:
    """Where a person reaches the server, with a slash at the end."""
    if (public := services.settings.public_url) is not None:
        return f"{public.rstrip('/')}/"
    return local_page(url)


def _kept(key: str, services: Services) -> Path:
    """The file with the first key: what is printed without a terminal lands in logs that others read."""
    file = private_file(services.settings.data / _FIRST_KEY)
    file.write_text(f"{key}\n", "utf-8")
    log.warning("the first API key is in %s", file)
    return file


def _devices(services: Services) -> list[str]:
    stand_in = services.upscaler.stand_in
    return [device.name for device in (services.upscaler.devices if stand_in is None else [stand_in])]


def _models(services: Services) -> list[str]:
    return [model.name for model in services.catalogue]
