"""`tilewire models`: what is there, what can be fetched, what was added."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal, InvalidOperation
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import typer
from numpy.typing import NDArray
from rich.padding import Padding
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TaskID,
    TextColumn,
)
from rich.text import Text

from engines import EngineError, Upscaler, find_devices
from engines.devices.runtimes import onnxruntime
from onnx_models import (
    BrokenEntryError,
    CatalogueError,
    Converted,
    Download,
    DuplicateModelError,
    Export,
    Facts,
    Model,
    ModelBuildError,
    Run,
    UnknownModelError,
    add_model,
    built_state,
    entry_files,
    export_model,
    load_catalogue,
    pull_model,
    read_entry,
    remove_entry,
    repair,
)
from server.commands.terminal import ConfigFile, Data, console, effective_settings, give_up, problems
from server.settings import Settings

__all__ = ["commands", "open_part"]

commands = typer.Typer(
    help="The models: list, build and verify them, add your own, fetch others.", no_args_is_help=True
)


@commands.command("list")
def list_models(data: Data = None, config: ConfigFile = None) -> None:
    """List the models that are installed, and those that can be fetched."""
    settings, _ = effective_settings(config, data=data)
    catalogue = load_catalogue(settings.effective_added_models)
    for model in catalogue:
        factors = "any factor up to" if model.fractional else "factors"
        largest = model.factors[-1] if model.fractional else ", ".join(map(str, model.factors))
        note = ", the default" if model is catalogue.default else ""
        _show(model, settings, note, f"{factors} {largest}")
    for export in catalogue.missing_exports:
        offer = f"not installed; to get it: tilewire models export {export.source}"
        _show(export, settings, "", offer)
    for download in catalogue.downloads:
        _show(download, settings, "", f"not installed; to fetch it: tilewire models pull {download.name}")


@commands.command("build")
def build_models(
    names: Annotated[list[str] | None, typer.Argument(help="Default: all.")] = None,
    data: Data = None,
    config: ConfigFile = None,
) -> None:
    """Build the ONNX files now rather than at the first use, and load each once."""
    settings, _ = effective_settings(config, data=data)
    catalogue = load_catalogue(settings.effective_added_models)
    try:
        chosen = [catalogue.get(name) for name in names] if names else list(catalogue)
        devices = find_devices(settings.device, settings.runtime, settings.precision)
        upscaler = Upscaler(devices, settings.model_directory)
    except (UnknownModelError, EngineError) as error:
        give_up(str(error))
    columns = (TextColumn("{task.description}", markup=False), BarColumn())
    try:
        with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
            for model in chosen:
                bar = bars.add_task(model.name, total=1.0)
                upscaler.load(model, partial(_advance, bars, bar))
    except EngineError as error:
        give_up(str(error), status=1)
    finally:
        upscaler.close()
    console.print(f"{', '.join(model.name for model in chosen)}: built in {settings.model_directory}")


@commands.command("verify")
def verify_models(data: Data = None, config: ConfigFile = None) -> None:
    """Compare all ONNX files with their checksums; the exit status is 1 if one is not as it should be."""
    settings, _ = effective_settings(config, data=data)
    directory = settings.effective_added_models
    wrong = 0
    for model in load_catalogue(directory):
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
            told = advice.get(state, state)
            wrong += state in ("damaged", "missing")
            console.print(f"{file}: {told}", style="red" if state in ("damaged", "missing") else None)
    for entry in entry_files(directory):
        try:
            read_entry(entry)
        except BrokenEntryError:  # which it was when the catalogue was loaded, and told there
            wrong += 1
    raise typer.Exit(1 if wrong else 0)


@commands.command("add")
def add(
    file: Annotated[Path, typer.Argument(help="A .pth, .ckpt, .safetensors or .onnx file.")],
    name: Annotated[str | None, typer.Option(help="What to call it; default: as the file.")] = None,
    air: Annotated[str | None, typer.Option(help="Its AIR id; default: local:NAME@1.")] = None,
    title: Annotated[str | None, typer.Option(help="Its name for people.")] = None,
    description: Annotated[str, typer.Option(help="What it is good for.")] = "",
    licence: Annotated[str, typer.Option(help="SPDX identifier of its licence.")] = "unknown",
    licence_url: Annotated[str | None, typer.Option(help="Where the licence is, https.")] = None,
    source_url: Annotated[str | None, typer.Option(help="Where it is from, https.")] = None,
    price: Annotated[str, typer.Option(help="USD per output megapixel.")] = "0",
    scale: Annotated[int | None, typer.Option(help="What its scale must be; default: what it is.")] = None,
    overlap: Annotated[int | None, typer.Option(help="Of tiles, in pixels; default: measured.")] = None,
    tile: Annotated[int | None, typer.Option(help="Largest side of a tile; default: chosen.")] = None,
    data: Data = None,
    config: ConfigFile = None,
) -> None:
    """Add a model of your own: convert it, check it, measure the overlap it needs."""
    settings, _ = effective_settings(config, data=data)
    directory = settings.effective_added_models
    facts = Facts(
        name=name,
        air=air,
        title=title,
        description=description,
        licence=licence,
        licence_url=licence_url,
        source_url=source_url,
        price_per_megapixel=_price(price),
        scale=scale,
        overlap=overlap,
        tile=tile,
    )
    with _one_message(str(file)), _steps() as (bars, bar):
        model, converted = add_model(
            file,
            facts,
            load_catalogue(directory),
            directory,
            _open,
            partial(_step, bars, bar, file.name),
        )
    _tell(model, converted)


@commands.command("pull")
def pull(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="See: tilewire models list.")],
    data: Data = None,
    config: ConfigFile = None,
) -> None:
    """Fetch models whose weights their authors publish; an interrupted download continues."""
    settings, _ = effective_settings(config, data=data)
    directory = settings.effective_added_models
    for name in names:
        catalogue = load_catalogue(directory)
        with _one_message(name):
            if name in {model.name for model in catalogue}:
                console.print(f"{name} is installed already")
                continue
            download = catalogue.get_download(name)
            with _steps(bytes_of=download) as (bars, bar):
                model, converted = pull_model(
                    download,
                    catalogue,
                    directory,
                    _open,
                    partial(_step, bars, bar, name),
                    partial(_received, bars, bar),
                )
            _tell(model, converted)


@commands.command("export")
def export(
    source: Annotated[
        str, typer.Argument(metavar="DIRECTORY-OR-HUB-ID", help="Such as stabilityai/sd-x2-latent-upscaler.")
    ],
    half: Annotated[bool, typer.Option("--fp16", help="Compute in half precision: half the memory.")] = False,
    name: Annotated[str | None, typer.Option(help="What to call it; default: as its authors do.")] = None,
    air: Annotated[str | None, typer.Option(help="Its AIR id; default: its own, or local:NAME@1.")] = None,
    price: Annotated[str | None, typer.Option(help="USD per output megapixel.")] = None,
    window: Annotated[int | None, typer.Option(help="Side of its windows, in input pixels.")] = None,
    data: Data = None,
    config: ConfigFile = None,
) -> None:
    """Add a Stable Diffusion latent upscaler: make ONNX files of a diffusers pipeline, and check them."""
    settings, _ = effective_settings(config, data=data)
    directory = settings.effective_added_models
    facts = Facts(name=name, air=air, tile=window)
    if price is not None:
        facts = msgspec.structs.replace(facts, price_per_megapixel=_price(price))
    with _one_message(source), _steps() as (bars, bar):
        model, differences = export_model(
            source,
            facts,
            load_catalogue(directory),
            directory,
            open_part,
            half=half,
            on_progress=partial(_step, bars, bar, source),
        )
    told = ", ".join(f"{part} {difference:.0e}" for part, difference in differences.items())
    console.print(
        f"{model.name} ({model.air}): windows of {model.tile} px with an overlap of {model.overlap} px, "
        f"{model.price_per_megapixel} USD per megapixel; from PyTorch: {told}"
    )
    console.print("a server that runs has to be started again to offer it")


@commands.command("remove")
def remove(
    name: Annotated[str, typer.Argument(help="A model that was added or fetched.")],
    data: Data = None,
    config: ConfigFile = None,
) -> None:
    """Remove a model that was added or fetched."""
    settings, _ = effective_settings(config, data=data)
    with _one_message(name):
        remove_entry(settings.effective_added_models, name)
    console.print(f"{name} is removed; a server that runs keeps it until it is started again")


def _show(model: Model | Download | Export, settings: Settings, note: str, offer: str) -> None:
    price = settings.prices.get(model.name, model.price_per_megapixel)
    console.print(Text.assemble((model.name, "bold"), f"  ({model.air}{note})"))
    facts = f"{model.title}: {offer}; {price} USD per megapixel; {model.licence}"
    for text in (facts, model.description):
        console.print(Padding(text, (0, 0, 0, 2)), soft_wrap=False)


def _tell(model: Model, converted: Converted) -> None:
    """What was found out."""
    parity = "" if converted.difference is None else f"; {converted.difference:.0e} from PyTorch"
    console.print(
        f"{model.name} ({model.air}): scale {converted.scale}, tiles of {model.tile} px with an overlap of "
        f"{model.overlap} px, {model.price_per_megapixel} USD per megapixel{parity}"
    )
    rule = converted.rule
    if not rule.any_size:
        sides = f"multiples of {rule.multiple}" if rule.multiple > 1 else "any number of pixels"
        least = f", at least {rule.minimum}" if rule.minimum > rule.multiple else ""
        console.print(f"it wants sides of {sides}{least}; other images are reflected at the right and bottom")
    seam = converted.seam
    if seam.visible:
        problems.print(
            f"seams may be seen: with an overlap of {seam.overlap} px tiles differ from the whole image by "
            f"up to {seam.levels} levels of 255 ({seam.psnr:.0f} dB), and more would not help much",
            style="yellow",
        )
    console.print("a server that runs has to be started again to offer it")


@contextmanager
def _one_message(what: str) -> Iterator[None]:
    """End the command with one message, whatever of the expected goes wrong."""
    try:
        yield
    except (UnknownModelError, DuplicateModelError, CatalogueError) as error:
        give_up(str(error))
    except ModelBuildError as error:
        give_up(f"{what}: {error}", status=1)


@contextmanager
def _steps(bytes_of: Download | None = None) -> Iterator[tuple[Progress, TaskID]]:
    columns: list[ProgressColumn] = [SpinnerColumn(), TextColumn("{task.description}", markup=False)]
    if bytes_of is not None:
        columns += [BarColumn(), DownloadColumn()]
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bars:
        yield bars, bars.add_task("", total=bytes_of.size if bytes_of is not None else None)


def _step(bars: Progress, bar: TaskID, what: str, step: str) -> None:
    bars.update(bar, description=f"{what}: {step}")


def _received(bars: Progress, bar: TaskID, count: int) -> None:
    bars.update(bar, completed=count)


def _advance(bars: Progress, bar: TaskID, share: float) -> None:
    bars.update(bar, completed=share)


def _open(path: Path) -> Run:
    """A network on the CPU."""
    run_part = open_part(path)

    def run(batch: NDArray[Any]) -> NDArray[Any]:
        (result,) = run_part([batch])
        return np.asarray(result)

    return run


def open_part(path: Path) -> Callable[[Sequence[NDArray[Any]]], Sequence[NDArray[Any]]]:
    """A part of a model on the CPU; failures are expected here, and the runtime must not print them."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names: list[str] = [each.name for each in session.get_inputs()]

    def run(inputs: Sequence[NDArray[Any]]) -> Sequence[NDArray[Any]]:
        results: list[NDArray[Any]] = session.run(None, dict(zip(names, inputs, strict=True)))
        return results

    return run


def _price(usd: str) -> Decimal:
    try:
        return Decimal(usd)
    except InvalidOperation:
        give_up(f"--price: {usd!r} is not an amount of USD, such as 0.0003")
