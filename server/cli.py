"""The command line."""

import logging
import textwrap
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text
from sqlalchemy.engine import make_url

from onnx_models import ModelBuildError, UnknownModelError, load_catalogue
from server import accounts_command, models_command
from server.accounts_command import amount_of
from server.bench_command import bench
from server.building import build_missing
from server.logs import configure_logging
from server.services import Services
from server.serving import StartError
from server.serving import serve as serve_forever
from server.settings import Sourced
from server.state.accounts import (
    DEFAULT_ACCOUNT,
    AmbiguousKeyError,
    account_named,
    create_key,
    list_keys,
    revoke_key,
)
from server.state.ledger import deposit
from server.terminal import ConfigFile, Data, console, effective_settings, give_up, open_database, problems
from server.top_command import top
from server.upscale_command import upscale_files
from server.upscale_plan import Options

__all__ = ["main"]

app = typer.Typer(
    name="tilewire",
    help="A WebSocket streaming task server for image upscaling.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
keys = typer.Typer(help="The API keys.", no_args_is_help=True)
app.command()(top)
app.add_typer(models_command.commands, name="models")
app.add_typer(keys, name="keys")
app.command()(bench)
app.add_typer(accounts_command.commands, name="accounts")


def main() -> None:
    """Run the command line."""
    app()


@app.command()
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
    loaded = tuple(name.strip() for name in models.split(",")) if models else None
    settings, _ = effective_settings(config, host=host, port=port, data=data, models=loaded)
    configure_logging(settings.log_level, settings.log_format, problems)
    try:
        catalogue = load_catalogue(settings.effective_added_models)
        build_missing(map(catalogue.get, settings.models), settings.model_directory, console)
        serve_forever(settings, _announce)
    except (UnknownModelError, ModelBuildError, StartError) as error:
        give_up(str(error), status=1)


@app.command()
def upscale(
    inputs: Annotated[
        list[Path],
        typer.Argument(metavar="INPUT...", help="Image files, folders of them, or patterns: '**/*.jpg'."),
    ],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="A file, or a folder for several.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Name or AIR id; see: tilewire models list.")] = None,
    factor: Annotated[
        float | None, typer.Option(help="How much larger; default: the model's largest.")
    ] = None,
    image_format: Annotated[
        str | None, typer.Option("--format", help="JPG, PNG or WEBP; default: by OUT, or as the input.")
    ] = None,
    quality: Annotated[int | None, typer.Option(min=20, max=99, help="Of JPG and WEBP.")] = None,
    keep_metadata: Annotated[bool, typer.Option(help="Keep EXIF and XMP, GPS included.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Also do what has a result that is newer than the input.")
    ] = False,
    url: Annotated[
        str | None, typer.Option(help="A running server, ws://host:port/v1; default: one just for this.")
    ] = None,
    key: Annotated[
        str | None, typer.Option(envvar="TILEWIRE_API_KEY", help="API key for the running server.")
    ] = None,
    config: ConfigFile = None,
) -> None:
    """Upscale images, through a running server or one that is started just for this.

    What is done already is skipped: after Ctrl-C the same command goes on. Exit status: 0 when all is done, 1
    when some failed, 2 when the command is wrong or finds no images, 130 after Ctrl-C.
    """
    settings, _ = effective_settings(config)
    options = Options(
        output=output,
        model=model,
        factor=factor,
        image_format=image_format,
        quality=quality,
        keep_metadata=keep_metadata,
        overwrite=overwrite,
    )
    if url is not None and key is None:
        give_up("--url needs a key: --key, or TILEWIRE_API_KEY")
    _log_in_one_line()
    try:
        status = upscale_files(inputs, options, settings, url, key, console, problems)
    except (ValueError, UnknownModelError) as error:
        give_up(str(error))
    except (ModelBuildError, StartError) as error:
        give_up(str(error), status=1)
    raise typer.Exit(status)


@app.command()
def config(file: Annotated[Path | None, typer.Argument(help="A TOML file with settings.")] = None) -> None:
    """Print the effective settings and where each comes from."""
    _, sourced = effective_settings(file)
    width = max(len(setting.name) for setting in sourced)
    for setting in sourced:
        console.print(f"{setting.name:<{width}}  {_shown(setting)}  ({setting.source})")


@keys.command("create")
def create(
    label: Annotated[str, typer.Option(help="What the key is for.")] = "",
    account: Annotated[
        str, typer.Option(help="Whose key it is; made if there is none yet.")
    ] = DEFAULT_ACCOUNT,
    credit: Annotated[
        str | None, typer.Option(help="USD to add to the balance; without any an account has no limit.")
    ] = None,
    data: Data = None,
    config: ConfigFile = None,
) -> None:
    """Make a key and print it, this once."""
    amount = None if credit is None else amount_of("--credit", credit)
    database = open_database(config, data)
    now = time.time()
    owner = database.run_sync(account_named, account, now)
    if amount is not None:
        database.run_sync(deposit, owner, amount, now)
    print(database.run_sync(create_key, owner, label, now))  # noqa: T201 - for scripts, without any styling


@keys.command("list")
def show_keys(data: Data = None, config: ConfigFile = None) -> None:
    """List the keys, as far as they are known."""
    table = Table(box=None, pad_edge=False)
    for heading in ("id", "key", "account", "label", "created", "last used", ""):
        table.add_column(heading, no_wrap=heading not in ("account", "label"), overflow="fold")
    for key in open_database(config, data).run_sync(list_keys):
        table.add_row(
            key.id[:8],
            f"{key.hint}…",
            key.account,
            key.label,
            _day(key.created),
            "never" if key.last_used is None else _day(key.last_used),
            "revoked" if key.revoked else "",
        )
    console.print(table, soft_wrap=False)


@keys.command("revoke")
def revoke(
    key: Annotated[str, typer.Argument(help="The key, or the beginning of its id.")],
    data: Data = None,
    config: ConfigFile = None,
) -> None:
    """Revoke a key."""
    try:
        revoked = open_database(config, data).run_sync(revoke_key, key)
    except AmbiguousKeyError as error:
        give_up(str(error))
    console.print(f"revoked {revoked.hint}… of {revoked.account}")


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


class _OneLine(logging.Formatter):
    """Tells the reason of an error, not where in the program it came up."""

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
        return f"{ei[0].__name__}: {ei[1]}"


def _log_in_one_line() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(_OneLine())
    logging.basicConfig(level=logging.ERROR, handlers=[handler])


def _day(seconds: float) -> str:
    return time.strftime("%Y-%m-%d", time.localtime(seconds))
