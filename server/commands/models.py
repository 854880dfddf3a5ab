"""`tilewire models`: what is installed and what can be had; building, checking and removing it."""

from typing import Annotated

import typer
from rich.padding import Padding
from rich.text import Text

from engines import EngineError, Upscaler, find_devices
from onnx_models import (
    KINDS,
    Auxiliary,
    BrokenEntryError,
    Model,
    ModelBuildError,
    Published,
    UnknownModelError,
    built_state,
    entry_files,
    load_catalogue,
    read_entry,
    remove_entry,
    repair,
    size_of,
    verified_file,
)
from server.commands.building import build_bars
from server.commands.get_models import add, export, one_message, pull
from server.commands.terminal import ConfigFile, Data, console, effective_settings, give_up
from server.settings import Settings

__all__ = ["commands"]

commands = typer.Typer(
    help="The models: list, build and verify them, add your own, fetch others.", no_args_is_help=True
)


@commands.command("list")
def list_models(data: Data = None, config: ConfigFile = None) -> None:
    """List the models, and what each is good for.

    Those that are not installed can be fetched or exported.
    """
    settings, _ = effective_settings(config, data=data)
    catalogue = load_catalogue(settings.effective_added_models)
    _print(Text(f"Which one? {catalogue.advice}"), indent=0)
    _head("Installed", "tilewire upscale --model NAME, or the word in brackets")
    for model in catalogue:
        factors = (
            f"×{model.reach} in one pass" if model.fractional else f"×{', ×'.join(map(str, model.factors))}"
        )
        _show(model, settings, factors, "the default" if model is catalogue.default else "")
    if catalogue.auxiliaries:
        _head("Installed beside them", "each is named by a parameter of its own")
    for auxiliary in catalogue.auxiliaries:
        _show(auxiliary, settings, KINDS[auxiliary.kind])
    if catalogue.downloads:
        _head("To fetch", "tilewire models pull NAME")
    for download in catalogue.downloads:
        _show(download, settings, f"{size_of(download, catalogue.archives) / 1e6:.0f} MB to fetch")
    if catalogue.missing_exports:
        _head("To export", "pip install 'tilewire[export,latent]'; tilewire models export SOURCE")
    for export_ in catalogue.missing_exports:
        _show(export_, settings, export_.arguments)


@commands.command("build")
def build_models(
    names: Annotated[list[str] | None, typer.Argument(metavar="NAME", help="Default: all.")] = None,
    data: Data = None,
    config: ConfigFile = None,
) -> None:
    """Build the ONNX files of models.

    They are built now rather than at the first use, and loaded once.
    """
    settings, _ = effective_settings(config, data=data)
    catalogue = load_catalogue(settings.effective_added_models)
    try:
        chosen = [catalogue.get(name) for name in names] if names else list(catalogue)
        devices = find_devices(settings.device, settings.runtime, settings.precision)
        upscaler = Upscaler(devices, settings.model_directory)
    except (UnknownModelError, EngineError) as error:
        give_up(str(error))
    try:
        with build_bars(console) as start_bar:
            for model in chosen:
                upscaler.load(model, start_bar(f"building {model.name}"))
    except EngineError as error:
        give_up(str(error), status=1)
    finally:
        upscaler.close()
    console.print(f"{', '.join(model.name for model in chosen)}: built in {settings.model_directory}")


@commands.command("verify")
def verify_models(data: Data = None, config: ConfigFile = None) -> None:
    """Compare all ONNX files with their checksums.

    The exit status is 1 if one is not as it should be.
    """
    settings, _ = effective_settings(config, data=data)
    directory = settings.effective_added_models
    catalogue, wrong = load_catalogue(directory), 0
    for model in catalogue:
        for weights in model.weights:
            try:
                file, state = built_state(model, weights, settings.model_directory)
            except ModelBuildError as error:
                give_up(str(error), status=1)
            advice = {
                "not built": "not built yet; it will be at the first use",
                "outdated": "built by another version; it will be built again at the first use",
                "damaged": f"DAMAGED; {repair(model, file)}",
                "missing": f"MISSING; {repair(model, file)}",
            }
            bad = state in ("damaged", "missing")
            wrong += bad
            console.print(f"{file}: {advice.get(state, state)}", style="red" if bad else None)
    for auxiliary in catalogue.auxiliaries:
        try:
            console.print(f"{verified_file(auxiliary)}: good")
        except ModelBuildError as error:
            wrong += 1
            console.print(str(error), style="red")
    try:
        for entry in entry_files(directory):
            read_entry(entry)
    except BrokenEntryError:  # reported when the catalogue was loaded
        wrong += 1
    raise typer.Exit(1 if wrong else 0)


for command in (add, pull, export):
    commands.command(command.__name__)(command)


@commands.command("remove")
def remove(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A model that was added or fetched.")],
    data: Data = None,
    config: ConfigFile = None,
) -> None:
    """Remove a model that was added or fetched."""
    settings, _ = effective_settings(config, data=data)
    with one_message(name):
        remove_entry(settings.effective_added_models, name)
    console.print(f"{name} is removed; a running server keeps it until it is restarted")


def _head(what: str, how: str) -> None:
    console.print(Text.assemble((what, "bold"), f" ({how})"))


def _show(model: Model | Auxiliary | Published, settings: Settings, facts: str, note: str = "") -> None:
    """Print what a newcomer chooses by: what it is good for, and below that the facts; 80 columns at most."""
    price = settings.prices.get(model.name, model.price_per_megapixel)
    words = () if isinstance(model, Auxiliary) else model.aliases
    aliases = f" ({', '.join(words)})" if words else ""
    name = Text.assemble((model.name, "bold"), aliases, f", {note}" if note else "")
    details = f"{model.air} · {facts} · {price} USD/MP · {model.licence}"
    for text, indent in ((name, 2), (Text(model.description), 4), (Text(details, style="dim"), 4)):
        _print(text, indent)


def _print(text: Text, indent: int) -> None:
    padding = Padding(text, (0, 0, 0, indent), expand=False)
    console.print(padding, soft_wrap=False, width=min(console.width, 80))
