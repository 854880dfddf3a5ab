"""The command line: which commands there are."""

import typer

from server.commands import accounts, keys, models
from server.commands.bench import bench
from server.commands.config import config
from server.commands.serve import serve
from server.commands.top import top
from server.commands.upscale import upscale

__all__ = ["app", "main"]

app = typer.Typer(
    name="tilewire",
    help="A WebSocket streaming task server for image upscaling.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(serve)
app.command()(upscale)
app.add_typer(models.commands, name="models")
app.add_typer(keys.commands, name="keys")
app.add_typer(accounts.commands, name="accounts")
app.command()(bench)
app.command()(top)
app.command()(config)


def main() -> None:
    """Run the command line."""
    app()
