"""Commands that get a model: `tilewire models add`, `pull` and `export`."""

from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal, InvalidOperation
from functools import partial
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TaskID,
    TextColumn,
)

from engines import open_on_cpu
from onnx_models import (
    KINDS,
    Auxiliary,
    CatalogueError,
    Converted,
    DuplicateModelError,
    Facts,
    InstalledError,
    Model,
    ModelBuildError,
    Restorer,
    Run,
    RunPart,
    UnknownModelError,
    Wanted,
    add_model,
    export_model,
    load_catalogue,
    pull_model,
    size_of,
)
from server.commands.terminal import ConfigFile, Data, console, effective_settings, give_up, problems

__all__ = ["add", "export", "one_message", "pull"]


def add(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A .pth, .ckpt, .safetensors or .onnx file.")],
    name: Annotated[str | None, typer.Option(help="Its name. [default: that of the file]")] = None,
    air: Annotated[str | None, typer.Option(help="Its AIR id. [default: local:NAME@1]")] = None,
    title: Annotated[str | None, typer.Option(help="A readable title.")] = None,
    description: Annotated[str, typer.Option(help="What it is good for.")] = "",
    licence: Annotated[str, typer.Option(help="SPDX identifier of its licence.")] = "unknown",
    licence_url: Annotated[str | None, typer.Option(help="https URL of the licence.")] = None,
    source_url: Annotated[str | None, typer.Option(help="https URL of its source.")] = None,
    price: Annotated[str, typer.Option(help="USD per output megapixel.")] = "0",
    scale: Annotated[int | None, typer.Option(help="The scale that it must have.")] = None,
    overlap: Annotated[
        int | None, typer.Option(help="Overlap of tiles in pixels. [default: measured]")
    ] = None,
    tile: Annotated[
        int | None, typer.Option(help="Largest side of a tile in pixels. [default: chosen]")
    ] = None,
    accept_licence: Annotated[
        bool, typer.Option("--accept-licence", help="Accept a licence that excludes commercial use.")
    ] = False,
    data: Data = None,
    config: ConfigFile = None,
) -> None:
    """Add a model of your own: an upscaler, or one that restores faces.

    It is converted and checked, and the overlap that it needs is measured.
    """
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
    with one_message(str(file)), _steps() as (bars, bar):
        model, converted = add_model(
            file,
            facts,
            load_catalogue(directory),
            directory,
            _open,
            partial(_step, bars, bar, file.name),
            open_part=_open_part,
            accept_licence=accept_licence,
        )
    _report(model, converted)


def pull(
    names: Annotated[list[str], typer.Argument(metavar="NAME", help="See: tilewire models list.")],
    accept_licence: Annotated[
        bool, typer.Option("--accept-licence", help="Accept a licence that excludes commercial use.")
    ] = False,
    data: Data = None,
    config: ConfigFile = None,
) -> None:
    """Fetch models that their authors publish.

    An interrupted download continues.
    """
    settings, _ = effective_settings(config, data=data)
    directory = settings.effective_added_models
    for name in names:
        catalogue = load_catalogue(directory)
        with one_message(name), _fine_if_installed():
            download = catalogue.get_download(name)
            with _steps(size_of(download, catalogue.archives)) as (bars, bar):
                model, converted = pull_model(
                    download,
                    catalogue,
                    directory,
                    _open,
                    partial(_step, bars, bar, download.name),
                    partial(_received, bars, bar),
                    accept_licence=accept_licence,
                    open_part=_open_part,
                )
            _report(model, converted)


def export(
    source: Annotated[
        str, typer.Argument(metavar="DIRECTORY-OR-HUB-ID", help="Such as stabilityai/sd-x2-latent-upscaler.")
    ],
    controlnet: Annotated[
        str | None, typer.Option(help="A tile ControlNet: its directory, or its id on the hub.")
    ] = None,
    ip_adapter: Annotated[
        Path | None, typer.Option(help="An IP-Adapter, for style images: its directory or file.")
    ] = None,
    lora: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE[:WEIGHT]", help="A LoRA to add to the weights; may be repeated."),
    ] = None,
    half: Annotated[bool, typer.Option("--fp16", help="Compute in half precision: half the memory.")] = False,
    name: Annotated[str | None, typer.Option(help="Its name. [default: its authors' name]")] = None,
    air: Annotated[str | None, typer.Option(help="Its AIR id. [default: its own, or local:NAME@1]")] = None,
    price: Annotated[str | None, typer.Option(help="USD per output megapixel.")] = None,
    window: Annotated[int | None, typer.Option(help="Side of its windows, in input pixels.")] = None,
    data: Data = None,
    config: ConfigFile = None,
) -> None:
    """Add a Stable Diffusion upscaler: latent, or creative.

    ONNX files are made of a diffusers pipeline, and checked.
    """
    settings, _ = effective_settings(config, data=data)
    directory = settings.effective_added_models
    facts = Facts(name=name, air=air, tile=window)
    if price is not None:
        facts = msgspec.structs.replace(facts, price_per_megapixel=_price(price))
    with one_message(source), _steps() as (bars, bar):
        model, differences = export_model(
            source,
            facts,
            load_catalogue(directory),
            directory,
            _open_part,
            wanted=Wanted(controlnet, ip_adapter, lora or ()),
            half=half,
            on_progress=partial(_step, bars, bar, source),
        )
    told = ", ".join(f"{part} {difference:.0e}" for part, difference in differences.items())
    console.print(
        f"{model.name} ({model.air}): windows of {model.tile} px with an overlap of {model.overlap} px, "
        f"{model.price_per_megapixel} USD per megapixel; from PyTorch: {told}"
    )
    if model.creative is not None and model.creative.controlnet is None:
        problems.print("without --controlnet it keeps less to the picture", style="yellow")
    console.print(_RESTART)


def _report(model: Model | Auxiliary, converted: Converted | Restorer | None) -> None:
    """Print what was measured; of what works beside upscalers, what it is for."""
    if isinstance(model, Auxiliary):
        apart = converted.difference if isinstance(converted, Restorer) else None
        parity = "" if apart is None else f"; {apart:.0e} from PyTorch"
        console.print(
            f"{model.name} ({model.air}) {KINDS[model.kind]}; {model.licence}; "
            f"{model.price_per_megapixel} USD per megapixel{parity}"
        )
        console.print(_RESTART)
        return
    assert isinstance(converted, Converted)
    parity = "" if converted.difference is None else f"; {converted.difference:.0e} from PyTorch"
    scales = " and ".join(dict.fromkeys(str(weights.scale) for weights in model.weights))
    console.print(
        f"{model.name} ({model.air}): scale {scales}, tiles of {model.tile} px with an overlap of "
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
    console.print(_RESTART)


_RESTART = "restart a running server to offer it"


@contextmanager
def one_message(what: str) -> Iterator[None]:
    """End the command with one message, whatever of the expected goes wrong."""
    try:
        yield
    except (UnknownModelError, DuplicateModelError, CatalogueError) as error:
        give_up(str(error))
    except ModelBuildError as error:
        give_up(f"{what}: {error}", status=1)


@contextmanager
def _fine_if_installed() -> Iterator[None]:
    try:
        yield
    except InstalledError as error:
        console.print(str(error))


@contextmanager
def _steps(size: int | None = None) -> Iterator[tuple[Progress, TaskID]]:
    columns: list[ProgressColumn] = [SpinnerColumn(), TextColumn("{task.description}", markup=False)]
    if size is not None:
        columns += [BarColumn(), DownloadColumn()]
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bars:
        yield bars, bars.add_task("", total=size)


def _step(bars: Progress, bar: TaskID, what: str, step: str) -> None:
    bars.update(bar, description=f"{what}: {step}")


def _received(bars: Progress, bar: TaskID, count: int) -> None:
    bars.update(bar, completed=count)


def _open(path: Path) -> Run:
    return open_on_cpu(path).run


def _open_part(path: Path) -> RunPart:
    return open_on_cpu(path).run_part


def _price(usd: str) -> Decimal:
    try:
        return Decimal(usd)
    except InvalidOperation:
        give_up(f"--price: {usd!r} is not an amount of USD, such as 0.0003")
