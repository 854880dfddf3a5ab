"""`tilewire config`: the effective settings."""

from pathlib import Path
from typing import Annotated

import typer
from sqlalchemy.engine import make_url

from server.commands.terminal import ConfigFile, console, effective_settings
from server.settings import Sourced

__all__ = ["config"]


def config(
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="The same as --config FILE.", show_default=False)
    ] = None,
    config: ConfigFile = None,
) -> None:
    """Print the effective settings and where each comes from."""
    _, sourced = effective_settings(config or file)
    width = max(len(setting.name) for setting in sourced)
    for setting in sourced:
        console.print(f"{setting.name:<{width}}  {_shown(setting)}  ({setting.source})")


def _shown(setting: Sourced) -> str:
    """A setting as one line, without secrets."""
    match setting.name, setting.value:
        case _, value if value in (None, (), {}):
            return "-"
        case "api_key", _:
            return "(hidden)"
        case "database_url", url:
            return make_url(url).render_as_string(hide_password=True)
        case _, tuple(items):
            return ", ".join(map(str, items))
        case _, dict(entries):
            return ", ".join(f"{name} = {value}" for name, value in entries.items())
    return str(setting.value)
