"""The options of `tilewire upscale`, and its exit status."""

import asyncio
import logging
import sys
import time
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
import typer

from onnx_models import ModelBuildError, UnknownModelError, load_catalogue, one_line
from server.commands.address import socket_address
from server.commands.building import build_missing
from server.commands.embedded import Embedded, embedded_server, space_runs_out
from server.commands.interrupts import interrupts
from server.commands.memory import Limit, largest_result
from server.commands.output import console, lost_output, printable, problems
from server.commands.terminal import ConfigFile, effective_settings, give_up
from server.commands.upscale.estimate import seconds_for, work_of
from server.commands.upscale.plan import Faces, Options, Plan, is_folder, make_plan
from server.commands.upscale.record import Record
from server.commands.upscale.report import Report
from server.commands.upscale.sizing import Offer, Wanted, choose_offer
from server.commands.upscale.sources import STANDARD, Found, find_sources
from server.commands.upscale.targets import is_standard_output
from server.commands.upscale.work import FILES_AT_ONCE, upscale_all
from server.errors import StartError
from server.settings import Settings
from server.upscale.creative import default_enlarger
from tilewire import Tilewire, TilewireError, UnreachableError

__all__ = ["upscale"]

_ENOUGH: Final = 0.5
"""Megapixels that tell how fast a model is; with fewer it is the start that takes the time."""

_LOCAL_PATIENCE: Final = 5.0
"""Seconds to wait for a server that is in the same process: what it cannot do now it cannot do later."""


def upscale(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT",
            help="Image files, folders, patterns such as '**/*.jpg', http(s) addresses; - is standard input.",
        ),
    ],
    output: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--output",
            metavar="OUT",
            help="A file, a folder, or - for standard output. [default: beside the input]",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="A model's name, AIR identifier, or a word such as fast; see: tilewire models list.",
        ),
    ] = None,
    factor: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="Enlarge width and height by X. [default: the largest sensible factor that fits]",
        ),
    ] = None,
    width: Annotated[
        int | None, typer.Option(min=1, metavar="PIXELS", help="Width of the result, instead of a factor.")
    ] = None,
    height: Annotated[
        int | None,
        typer.Option(min=1, metavar="PIXELS", help="Height of the result, instead of a factor."),
    ] = None,
    resize_mode: Annotated[
        Literal["fit", "fill", "crop", "stretch"] | None,
        typer.Option(
            help="If both are given: fit within them, cover them, crop or stretch to them. [default: fit]"
        ),
    ] = None,
    megapixels: Annotated[
        float | None,
        typer.Option(metavar="MP", help="Size of the result in million pixels, instead of a factor."),
    ] = None,
    image_format: Annotated[
        str | None,
        typer.Option(
            "--format", metavar="FORMAT", help="JPG, PNG or WEBP. [default: as OUT, or as the input]"
        ),
    ] = None,
    quality: Annotated[
        int | None,
        typer.Option(min=20, max=99, metavar="20-99", help="Quality of JPG and WEBP. [default: 95]"),
    ] = None,
    keep_metadata: Annotated[
        bool,
        typer.Option(
            "--keep-metadata",
            help="Keep EXIF (including GPS), XMP, IPTC, texts and the resolution.",
        ),
    ] = False,
    keep_hidden_colors: Annotated[
        bool,
        typer.Option(
            "--keep-hidden-colors", help="Keep the colours of transparent pixels, for textures; not in JPG."
        ),
    ] = False,
    denoise: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=75,
            metavar="0-75",
            help="Remove noise first: its standard deviation in levels of 255; needs: tilewire models pull "
            "ffdnet. [default: 0]",
        ),
    ] = None,
    restore_faces: Annotated[
        bool,
        typer.Option(
            "--restore-faces", help="Restore faces; needs: tilewire models pull centerface gfpgan-1.4."
        ),
    ] = False,
    face_model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="The model that restores faces. [default: the first that is installed]"
        ),
    ] = None,
    face_visibility: Annotated[
        float,
        typer.Option(min=0, max=1, metavar="0-1", help="How visible the restored faces are."),
    ] = 1.0,
    face_weight: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            metavar="0-1",
            help="For CodeFormer: how similar to the input faces stay. [default: 0.5]",
        ),
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="A setting that only some models have, such as denoise=1 or steps=4; may be repeated.",
        ),
    ] = None,
    seamless: Annotated[
        Literal["x", "y", "both"] | None,
        typer.Option(help="For textures: join opposite edges without a seam."),
    ] = None,
    tta: Annotated[
        bool,
        typer.Option("--tta", help="Average over all flips and rotations: better, for eight times the work."),
    ] = False,
    blend: Annotated[
        str | None, typer.Option(metavar="NAME", help="A second model, mixed into the result of the first.")
    ] = None,
    visibility: Annotated[
        float | None,
        typer.Option(min=0, max=1, metavar="0-1", help="The share of the second model. [default: 0.5]"),
    ] = None,
    nsfw: Annotated[
        Literal["flag", "refuse"] | None,
        typer.Option(help="Flag or refuse what is not safe for work; needs: tilewire models pull open-nsfw."),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Redo finished work, and replace existing files."),
    ] = False,
    url: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="A running server, such as http://host:8080 or unix:///path. "
            "[default: one is started just for this]",
        ),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(
            envvar="TILEWIRE_API_KEY",
            show_envvar=False,
            metavar="KEY",
            help="Its API key, or a file that contains one. [default: $TILEWIRE_API_KEY]",
        ),
    ] = None,
    config: ConfigFile = None,
) -> None:
    """Upscale image files and folders.

    The results are written beside the inputs: photo.jpg becomes photo-4x.jpg. Finished work is skipped, so
    after Ctrl-C the same command continues.

    Exit status: 0 when all is done, 1 when something failed, 2 when the command is wrong or finds no images,
    130 after Ctrl-C.
    """
    settings, _ = effective_settings(config)
    _log_in_one_line()
    with interrupts() as coming:
        try:
            wanted = Wanted(
                factor=factor, width=width, height=height, megapixels=megapixels, mode=resize_mode
            )
            options = Options(
                output=_output(output, inputs),
                model=model,
                wanted=wanted,
                image_format=image_format,
                quality=quality,
                keep_metadata=keep_metadata,
                keep_hidden_colors=keep_hidden_colors,
                denoise=denoise,
                faces=Faces(face_model, face_visibility, face_weight) if restore_faces else None,
                settings=_settings(setting or []),
                seamless=seamless,
                tta=tta,
                blend=_blend(blend, visibility),
                nsfw=nsfw,
                overwrite=overwrite,
            )
            run = _Run(inputs, options)
            status = run.here(settings) if url is None else run.at(_socket(url), _key(key))
        except (ValueError, UnknownModelError) as error:
            give_up(printable(error))
        except (ModelBuildError, StartError, TilewireError, OSError) as error:
            give_up(printable(one_line(error)), status=1)
        except KeyboardInterrupt:
            status = coming.status
    if (lost := lost_output()) is not None:
        problems.print(lost, style="red")
        status = status or 1
    raise typer.Exit(status)


class _Run:
    """The pictures, and what is done with them."""

    def __init__(self, inputs: list[str], options: Options) -> None:
        self._options = options
        self._into_folder = options.output is not None and is_folder(options.output, inputs)
        folder = Path(options.output) if self._into_folder and options.output is not None else None
        with problems.status("looking for pictures"):
            self._found: Found = find_sources(inputs, folder)
        self._record = Record()

    def here(self, settings: Settings) -> int:
        """Have a server do it that is there just for this; returns the exit status.

        Raises:
            ValueError: if there is nothing to do, or the options contradict each other.
            UnknownModelError: if there is no such model.
            ModelBuildError: if its network cannot be built.
            StartError: if the server cannot be started.
        """
        catalogue = load_catalogue(settings.effective_added_models)
        model = catalogue.default if self._options.model is None else catalogue.get(self._options.model)
        if self._options.denoise:
            catalogue.auxiliary("denoiser")  # found out before anything is started
        if self._options.faces is not None:
            catalogue.auxiliary("faceRestorer", self._options.faces.model)
            catalogue.auxiliary("faceDetector")
        if self._options.nsfw is not None:
            catalogue.auxiliary("safetyChecker")
        offer = msgspec.structs.replace(choose_offer([model], None), seconds=self._record.seconds(model.air))
        models = [model] if self._options.blend is None else [model, catalogue.get(self._options.blend[0])]
        if any(each.creative is not None for each in models) and "enlarger" not in self._options.settings:
            models += filter(None, [default_enlarger(catalogue)])
        plan = self._plan(offer, largest_result(settings))
        report = self._report(plan, show_cost=False)
        report.expect(seconds_for(plan.jobs, self._options, offer))
        if plan.jobs:
            build_missing(models, settings.model_directory, problems)
            with report.summary(), embedded_server(settings) as server:
                asyncio.run(self._work(server, plan, offer, report))
        else:
            report.summarize()
        return report.status

    def at(self, url: str, key: str) -> int:
        """Have a running server do it; returns the exit status.

        Args:
            url: of its socket.
            key: an API key of it.

        Raises:
            ValueError: if there is nothing to do, the options contradict each other, or there is no such
                model.
            TilewireError: if the server cannot be reached, or does not take the key.
        """
        return asyncio.run(self._at(url, key))

    async def _at(self, url: str, key: str) -> int:
        async with Tilewire(url, key, concurrency=FILES_AT_ONCE) as tilewire:
            offer = choose_offer(await tilewire.models(), _spelt_out(self._options.model))
            plan = await asyncio.to_thread(
                self._plan, offer, Limit(Settings().max_output_megapixels, "max_output_megapixels")
            )
            report = self._report(plan, show_cost=True)
            report.expect(seconds_for(plan.jobs, self._options, offer))
            with report.summary():
                await upscale_all(tilewire, plan.jobs, self._options, offer, self._record, report)
        return report.status

    async def _work(self, server: Embedded, plan: Plan, offer: Offer, report: Report) -> None:
        async with Tilewire(
            server.url, server.key, concurrency=FILES_AT_ONCE, patience=_LOCAL_PATIENCE
        ) as tilewire:
            try:
                async with asyncio.TaskGroup() as group:
                    watch = group.create_task(space_runs_out(server.directory))
                    began = time.monotonic()
                    await upscale_all(tilewire, plan.jobs, self._options, offer, self._record, report)
                    self._learn(plan, offer, report, time.monotonic() - began)
                    watch.cancel()
            except* OSError as errors:
                report.stop(str(errors.exceptions[0]))

    def _learn(self, plan: Plan, offer: Offer, report: Report, seconds: float) -> None:
        """Keep how fast the model was, if all was done."""
        work = work_of(plan.jobs, self._options, offer)
        if work is not None and work >= _ENOUGH and not report.status:
            self._record.learn(offer.air, seconds / work)

    def _plan(self, offer: Offer, limit: Limit) -> Plan:
        with problems.status("looking at the pictures"):
            return make_plan(
                self._found, self._options, offer, limit, self._record, into_folder=self._into_folder
            )

    def _report(self, plan: Plan, *, show_cost: bool) -> Report:
        into_output = any(is_standard_output(job.target) for job in plan.jobs)
        return Report(plan, problems if into_output else console, problems, show_cost=show_cost)


def _settings(given: list[str]) -> dict[str, Any]:
    """What the models' own settings were given as: numbers, true and false as such, else text."""
    settings: dict[str, Any] = {}
    for each in given:
        name, separator, value = each.partition("=")
        if not (name and separator):
            raise ValueError(f"--setting {each}: give NAME=VALUE, such as denoise=1")
        try:
            settings[name] = msgspec.json.decode(value)
        except msgspec.DecodeError:
            settings[name] = value
    return settings


def _blend(model: str | None, visibility: float | None) -> tuple[str, float] | None:
    """The second model and its visibility, if one was given."""
    if model is None and visibility is not None:
        raise ValueError("--visibility is that of a second model: give --blend too")
    return None if model is None else (_spelt_out(model) or model, 0.5 if visibility is None else visibility)


def _output(given: str | None, inputs: list[str]) -> str | None:
    """Where the results go: a picture from standard input goes to standard output if nothing else is said."""
    if given is None and STANDARD in inputs:
        if len(inputs) > 1:
            raise ValueError("standard input beside others needs a folder for the results: -o")
        given = STANDARD
    if given == STANDARD and sys.stdout is not None and sys.stdout.isatty():
        raise ValueError("standard output is a terminal, which shows no pictures: give -o, or > and a file")
    return given


def _spelt_out(model: str | None) -> str | None:
    """The name of a model, where a word such as `fast` stands for it."""
    try:
        return None if model is None else load_catalogue().get(model).name
    except UnknownModelError:
        return model  # the server may have others


def _socket(url: str) -> str:
    try:
        return socket_address(url)
    except ValueError as error:
        raise UnreachableError(str(error)) from error


def _key(given: str | None) -> str:
    """The API key: what was given, or what is in the file of that name."""
    if not given:
        raise ValueError("--url needs a key: --key, or TILEWIRE_API_KEY")
    file = Path(given).expanduser()
    try:
        return file.read_text("utf-8").strip() if file.is_file() else given
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"--key: {file} cannot be read as a file with a key") from error


class _OneLine(logging.Formatter):
    """Gives the reason of an error, not where in the program it came up."""

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
        return f"{ei[0].__name__}: {ei[1]}"


def _log_in_one_line() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(_OneLine())
    logging.basicConfig(level=logging.ERROR, handlers=[handler])
