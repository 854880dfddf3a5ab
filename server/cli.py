"""The command line: which commands there are. Each is imported when it is called, and none for the help."""

import gc
import sys
from importlib import import_module
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup
from typer.main import get_command, get_group

from server.specs.version import VERSION

__all__ = ["app", "main"]

_COMMANDS: Final = {
    "serve": "Start the server.",
    "open": "Open a running server's page, signed in.",
    "upscale": "Upscale image files and folders.",
    "models": "List, build, verify, add and fetch models.",
    "keys": "Create, list, rotate and revoke API keys.",
    "accounts": "Show balances, add credit, audit the books.",
    "backup": "Copy all data of a server to a directory.",
    "restore": "Restore a back-up to an empty place.",
    "bench": "Measure how fast this machine upscales.",
    "top": "Watch a running server.",
    "config": "Print the effective settings and where each comes from.",
}
"""Name and help of each. The module `server.commands.NAME` has a function NAME or a Typer `commands`."""

_INTERRUPTED: Final = 130
"""The exit status after Ctrl-C, as of a shell: 128 + SIGINT."""


class _Commands(TyperGroup):
    """The commands: stand-ins for the list in the help, the real ones when they are called."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:  # while the command was imported, or by one that has nothing to clean up
            raise typer.Exit(_INTERRUPTED) from None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        return name, _load(name) if name in _COMMANDS else command, rest


def _load(name: str) -> Any:
    module = _import(f"server.commands.{name}")
    if hasattr(module, "commands"):
        module.commands.rich_markup_mode = None
        return get_group(module.commands)
    alone = typer.Typer(add_completion=False, rich_markup_mode=None)
    alone.command(name)(getattr(module, name))
    return get_command(alone)


def _import(name: str) -> Any:
    """Import a module, and have the garbage collector not look at what stays: a tenth of the time of both."""
    if name in sys.modules:
        return sys.modules[name]
    gc.disable()
    try:
        return import_module(name)
    finally:
        gc.freeze()
        gc.enable()


app = typer.Typer(
    name="tilewire",
    cls=_Commands,
    no_args_is_help=True,
    rich_markup_mode=None,  # its boxes take half of 80 columns, and half of the time
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _name, _help in _COMMANDS.items():
    app.command(_name, help=_help)(lambda: None)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(VERSION)  # noqa: T201 - for scripts, without any styling
        raise typer.Exit


@app.callback()
def _tilewire(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """A WebSocket streaming task server for image upscaling."""


def main() -> None:
    """Run the command line."""
    app(prog_name="tilewire")
