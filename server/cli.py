"""The command line."""

import logging
import time
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from engines import EngineError, Upscaler, find_device
from onnx_models import UnknownModelError, load_catalogue
from server.services import Services
from server.serving import serve as serve_forever
from server.settings import Settings, SettingsError, Sourced, load_settings
from server.state.accounts import (
    DEFAULT_ACCOUNT,
    AmbiguousKeyError,
    account_named,
    create_key,
    list_keys,
    revoke_key,
)
from server.state.database import Database
from server.state.ledger import deposit, to_nanodollars
from server.upscale_command import Options, upscale_files

__all__ = ["main"]

app = typer.Typer(
    name="tilewire",
    help="A WebSocket streaming task server for image upscaling.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
models = typer.Typer(help="The models: list them, build their ONNX files.", no_args_is_help=True)
keys = typer.Typer(help="The API keys.", no_args_is_help=True)
app.add_typer(models, name="models")
app.add_typer(keys, name="keys")

console = Console(highlight=False)
problems = Console(stderr=True, highlight=False)

ConfigFile = Annotated[Path | None, typer.Option("--config", help="A TOML file with settings.")]
Data = Annotated[Path | None, typer.Option(help="Directory of the database and the images.")]


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
    settings, _ = _settings(config, host=host, port=port, data=data, models=loaded)
    logging.basicConfig(
        level=settings.log_level.upper(),
        format="%(name)s: %(message)s",
        handlers=[RichHandler(console=problems, show_path=False, log_time_format="[%X]")],
    )
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    if not serve_forever(settings, _announce):
        raise typer.Exit(1)


@app.command()
def upscale(
    inputs: Annotated[
        list[Path], typer.Argument(metavar="INPUT...", help="Image files, or folders of them.")
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
    quality: Annotated[int | None, typer.Option(help="Of JPG and WEBP, 20 to 99.")] = None,
    keep_metadata: Annotated[bool, typer.Option(help="Keep EXIF and XMP, GPS included.")] = False,
    url: Annotated[
        str | None, typer.Option(help="A running server, ws://host:port/v1; default: one just for this.")
    ] = None,
    key: Annotated[
        str | None, typer.Option(envvar="TILEWIRE_API_KEY", help="API key for the running server.")
    ] = None,
    config: ConfigFile = None,
) -> None:
    """Upscale images, through a running server or one that is started just for this."""
    settings, _ = _settings(config)
    options = Options(
        output=output,
        model=model,
        factor=factor,
        image_format=image_format,
        quality=quality,
        keep_metadata=keep_metadata,
    )
    if url is not None and key is None:
        _give_up("--url needs a key: --key, or TILEWIRE_API_KEY")
    logging.basicConfig(level=logging.ERROR)
    try:
        failures = upscale_files(inputs, options, settings, url, key, console)
    except ValueError as error:
        _give_up(str(error))
    raise typer.Exit(1 if failures else 0)


@app.command()
def config(file: Annotated[Path | None, typer.Argument(help="A TOML file with settings.")] = None) -> None:
    """Print the effective settings and where each comes from."""
    _, sourced = _settings(file)
    table = Table("setting", "value", "from", box=None, pad_edge=False)
    for name, value, source in sourced:
        shown = "(hidden)" if name == "api_key" and value else value
        table.add_row(name, str(shown), source)
    console.print(table)


@models.command("list")
def list_models() -> None:
    """List the models that are installed."""
    table = Table("name", "AIR", "factors", "USD per megapixel", "licence", "title", box=None, pad_edge=False)
    for model in load_catalogue():
        factors = ", ".join(map(str, model.factors)) + (", and between" if model.fractional else "")
        table.add_row(
            model.name, model.air, factors, str(model.price_per_megapixel), model.licence, model.title
        )
    console.print(table)


@models.command("build")
def build_models(
    names: Annotated[list[str] | None, typer.Argument(help="Default: all.")] = None,
    config: ConfigFile = None,
) -> None:
    """Build the ONNX files now rather than at the first use, and load each once."""
    settings, _ = _settings(config)
    catalogue = load_catalogue()
    try:
        chosen = [catalogue.get(name) for name in names] if names else list(catalogue)
        upscaler = Upscaler(find_device(settings.device), settings.model_directory)
    except (UnknownModelError, EngineError) as error:
        _give_up(str(error))
    with Progress(TextColumn("{task.description}"), BarColumn(), console=console) as bars:
        for model in chosen:
            bar = bars.add_task(model.name, total=1.0)
            try:
                upscaler.load(model, lambda share, bar=bar: bars.update(bar, completed=share))
            except EngineError as error:
                _give_up(str(error))
            bars.update(bar, completed=1.0)
    upscaler.close()
    console.print(f"in {settings.model_directory}")


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
    database = _database(config, data)
    now = time.time()
    owner = database.run_sync(account_named, account, now)
    if credit is not None:
        database.run_sync(deposit, owner, to_nanodollars(Decimal(credit)), now)
    print(database.run_sync(create_key, owner, label, now))  # noqa: T201 - for scripts, without any styling


@keys.command("list")
def show_keys(data: Data = None, config: ConfigFile = None) -> None:
    """List the keys, as far as they are known."""
    table = Table("id", "key", "account", "label", "created", "last used", "", box=None, pad_edge=False)
    for key in _database(config, data).run_sync(list_keys):
        table.add_row(
            key.id[:8],
            f"{key.hint}…",
            key.account,
            key.label,
            _day(key.created),
            "never" if key.last_used is None else _day(key.last_used),
            "revoked" if key.revoked else "",
        )
    console.print(table)


@keys.command("revoke")
def revoke(
    key: Annotated[str, typer.Argument(help="The key, or the beginning of its id.")],
    data: Data = None,
    config: ConfigFile = None,
) -> None:
    """Revoke a key."""
    try:
        revoked = _database(config, data).run_sync(revoke_key, key)
    except AmbiguousKeyError as error:
        _give_up(str(error))
    console.print(f"revoked {revoked.hint}… of {revoked.account}")


def _announce(url: str, services: Services) -> None:
    console.print(f"Tilewire is ready at [bold]{url.replace('http', 'ws', 1)}/v1[/]  ({url}/v1 for POST)")
    console.print(f"device: {services.upscaler.device.name}")
    console.print(f"models: {', '.join(model.name for model in services.catalogue)}")
    if services.first_key is not None:
        console.print(f"API key, shown this once: [bold]{services.first_key}[/]")


def _settings(file: Path | None, **flags: Any) -> tuple[Settings, list[Sourced]]:
    try:
        return load_settings(file, flags=flags)
    except SettingsError as error:
        _give_up(str(error))


def _database(file: Path | None, data: Path | None) -> Database:
    settings, _ = _settings(file, data=data)
    settings.data.mkdir(parents=True, exist_ok=True)
    return Database(settings.effective_database_url)


def _day(seconds: float) -> str:
    return time.strftime("%Y-%m-%d", time.localtime(seconds))


def _give_up(message: str) -> NoReturn:
    problems.print(f"[red]{message}[/]")
    raise typer.Exit(2)
