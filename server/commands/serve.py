"""`tilewire serve`: the server."""

import os
import textwrap
from typing import Annotated

import typer
from rich.text import Text

from onnx_models import ModelBuildError, UnknownModelError, load_catalogue
from server.commands.building import build_missing
from server.commands.terminal import (
    ConfigFile,
    Data,
    console,
    effective_settings,
    give_up,
    problems,
)
from server.services import Services
from server.serving import StartError
from server.serving import serve as serve_forever
from server.telemetry.logs import configure_logging

__all__ = ["serve"]


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one.")] = None,
    data: Data = None,
    models: Annotated[
        str | None, typer.Option(help="Models to load before serving, comma-separated.")
    ] = None,
    config: ConfigFile = None,
) -> None:
    """Serve until SIGINT or SIGTERM."""
    os.umask(0o077)  # what the server writes is nobody else's business
    loaded = tuple(name.strip() for name in models.split(",")) if models else None
    settings, _ = effective_settings(config, host=host, port=port, data=data, models=loaded)
    configure_logging(settings.log_level, settings.log_format, problems)
    try:
        catalogue = load_catalogue(settings.effective_added_models)
        build_missing(map(catalogue.get, settings.models), settings.model_directory, console)
        serve_forever(settings, _announce)
    except (UnknownModelError, ModelBuildError, StartError) as error:
        give_up(str(error), status=1)


def _announce(url: str, services: Services) -> None:
    console.print(Text.assemble("Tilewire is ready at ", (f"{url.replace('http', 'ws', 1)}/v1", "bold")))
    console.print(f"by POST: {url}/v1")
    if services.first_key is not None:
        console.print(Text.assemble("API key, shown this once: ", (services.first_key, "bold")))
    stand_in = services.upscaler.stand_in
    for device in services.upscaler.devices if stand_in is None else [stand_in]:
        console.print(f"device: {device.name}")
    names = ", ".join(model.name for model in services.catalogue)
    console.print(textwrap.fill(f"models: {names}", 80, subsequent_indent=" " * 8, break_on_hyphens=False))
