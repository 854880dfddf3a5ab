"""Which picture becomes which file: the plan of `tilewire upscale`, made before anything is done."""

import os
from collections.abc import Iterator
from glob import has_magic
from itertools import count
from pathlib import Path
from typing import Any, Final, Literal

from msgspec import Struct

from engines import ImageError, OutputFormat
from server.commands.memory import Limit
from server.commands.upscale.record import Record, recipe_of
from server.commands.upscale.sizing import Offer, Wanted, check_wanted, factor_for
from server.commands.upscale.sources import STANDARD, Found, Source
from server.commands.upscale.targets import cannot_be_written, has_content, is_stream, place_of
from tilewire import Options as TaskOptions

__all__ = ["Faces", "Job", "Options", "Plan", "is_folder", "make_plan", "recipe"]

Format = Literal["JPG", "PNG", "WEBP"]

_SUFFIXES: Final[dict[str, Format]] = {
    ".jpg": "JPG",
    ".jpeg": "JPG",
    ".jpe": "JPG",
    ".jfif": "JPG",
    ".png": "PNG",
    ".webp": "WEBP",
}
_WRITES: Final = ".jpg, .jpeg, .png and .webp"
_OF_CONTENT: Final[dict[str, Format]] = {"JPEG": "JPG", "PNG": "PNG", "WEBP": "WEBP"}


class Faces(Struct, frozen=True):
    """How faces are to be restored; a model or weight of None is the server's default."""

    model: str | None
    visibility: float
    weight: float | None


class Options(Struct, frozen=True, kw_only=True):
    """What the command was given; None means not given."""

    output: str | None = None
    model: str | None = None
    wanted: Wanted = Wanted()
    image_format: str | None = None
    quality: int | None = None
    keep_metadata: bool = False
    keep_hidden_colors: bool = False
    denoise: float | None = None
    faces: Faces | None = None
    settings: dict[str, Any] = {}
    seamless: Literal["x", "y", "both"] | None = None
    tta: bool = False
    blend: tuple[str, float] | None = None
    """The second model, and its visibility."""
    nsfw: Literal["flag", "refuse"] | None = None
    overwrite: bool = False

    def of_task(self) -> TaskOptions:
        """What the task says beside model, size and format, as options of the client; only what was given."""
        given: TaskOptions = {}
        if self.denoise:
            given["denoise"] = self.denoise
        if self.settings:
            given["settings"] = self.settings
        if self.seamless is not None:
            given["seamless"] = self.seamless
        if self.tta:
            given["tta"] = 8
        if self.blend is not None:
            given["blend"] = {"model": self.blend[0], "visibility": self.blend[1]}
        if self.faces is not None:
            given["restore_faces"] = self.faces.model or True
            given["face_visibility"] = self.faces.visibility
            given["face_weight"] = self.faces.weight
        if self.nsfw is not None:
            given["nsfw"] = self.nsfw
        if self.wanted.box is not None:
            given["width"], given["height"] = self.wanted.box
            given["resize_mode"] = self.wanted.mode
        return given


class Job(Struct, frozen=True, eq=False):
    """One picture to upscale.

    Attributes:
        source: what is read.
        target: where its result goes.
        image_format: of the result.
        factor: by how much; of a picture that is cut or stretched the larger of both.
        box: width and height of the result, of such a picture.
    """

    source: Source
    target: Path
    image_format: Format
    factor: float
    box: tuple[int, int] | None = None

    @property
    def megapixels(self) -> float:
        """Of the result."""
        info = self.source.look.info
        wide, high = self.box or (info.width * self.factor, info.height * self.factor)
        return wide * high / 1e6


class Plan(Struct, frozen=True):
    """What is to be done.

    Attributes:
        jobs: in the order of the inputs, folders sorted by name.
        done: the files that are there already, made from the same picture in the same way.
        results: other files left out because they are results of earlier runs.
        skipped: files left out of folders because they are no pictures, or of formats that are not read.
        failures: what cannot be done, each with the reason.
    """

    jobs: list[Job]
    done: list[Path]
    results: list[Path]
    skipped: list[Path]
    failures: list[tuple[str, str]]


def recipe(job: Job, source: bytes, options: Options, offer: Offer) -> bytes:
    """What decides how a result looks, as one digest.

    Args:
        job: what is made.
        source: digest of the picture that it is made from.
        options: what the command was given.
        offer: of the model.
    """
    keeps = options.keep_metadata, options.keep_hidden_colors
    how = (offer.air, job.factor, job.image_format, options.quality, *keeps)
    more = options.of_task()
    steps = (("denoise", options.denoise),) if more.pop("denoise", None) else ()
    return recipe_of(source, (*how, *steps, *([more] if more else [])))


def is_folder(output: str, inputs: list[str]) -> bool:
    """Whether the output is meant as a folder, be it there or not."""
    if output == STANDARD:
        return False
    if output.endswith(("/", os.sep)) or Path(output).exists():
        return not Path(output).exists() or Path(output).is_dir()
    suffix = Path(output).suffix.lower()
    several = len(inputs) > 1 or Path(inputs[0]).is_dir() or has_magic(inputs[0])
    return suffix not in _SUFFIXES and (several or not suffix)


def make_plan(
    found: Found, options: Options, offer: Offer, limit: Limit, record: Record, *, into_folder: bool
) -> Plan:
    """Decide what becomes of each picture; what is found keeps its place in the tree below the output folder.

    Args:
        found: the pictures.
        options: what the command was given.
        offer: of the model.
        limit: the largest result.
        record: what was done before.
        into_folder: whether the output is a folder.

    Raises:
        ValueError: if there is no picture, several would go to one file, one would overwrite an input, the
            format is not one that can be written, or the model does not offer what is asked for.
    """
    check_wanted(options.wanted, offer)
    earlier = _earlier_results(found.sources, record)
    sources = [source for source in found.sources if source not in earlier]
    if not sources:
        raise ValueError(_nothing([source.path for source in earlier], found.skipped))
    output = None if options.output is None else Path(options.output)
    if len(sources) > 1 and output is not None and not into_folder:
        raise ValueError(f"{output} is one file, but there are {len(sources)} inputs")
    inputs = {place_of(source.path) for source in sources if source.is_file}
    if output is not None and not into_folder and place_of(output) in inputs:
        raise ValueError(f"{output} is an input and would be overwritten")
    asked = _asked_format(options, None if into_folder else output)
    plan = Plan([], [], [], found.skipped, [])
    sized = dict(_sized(sources, options, offer, limit, asked, plan))
    targets = _targets(sized, output, into_folder, taken=inputs, box=options.wanted.box)
    own = {place_of(target) for target in targets.values()}
    plan.results.extend(source.path for source in earlier if place_of(source.path) not in own)
    for source, (factor, image_format) in sized.items():
        _settle(
            Job(source, targets[source], image_format, factor, options.wanted.box),
            options,
            offer,
            record,
            plan,
        )
    return plan


def _nothing(results: list[Path], skipped: list[Path]) -> str:
    message = "there are no images to upscale"
    if results:
        return f"{message}: {results[0]} is the result of an earlier run; name it to upscale it"
    return f"{message}: {skipped[0]} is of no known format" if skipped else message


def _earlier_results(sources: list[Source], record: Record) -> list[Source]:
    """Those that earlier runs made; of those that were named, those made of another one here."""
    made = {source: record.origins(source.path) for source in sources if source.is_file}
    found = [source for source, origins in made.items() if origins and not source.named]
    named = [source for source, origins in made.items() if origins and source.named]
    for source in named:
        others = {other.look.digest for other in sources if other is not source and other not in named}
        if others & set(made[source].values()):
            found.append(source)
    return found


def _sized(
    sources: list[Source], options: Options, offer: Offer, limit: Limit, asked: Format | None, plan: Plan
) -> Iterator[tuple[Source, tuple[float, Format]]]:
    """The factor and format of each; those that cannot be upscaled so are put down as failures."""
    for source in sources:
        try:
            yield source, _size(source, options.wanted, offer, limit, asked)
        except OSError as error:
            plan.failures.append((source.name, error.strerror or str(error)))
        except (ImageError, ValueError) as error:
            plan.failures.append((source.name, str(error)))


def _size(
    source: Source, wanted: Wanted, offer: Offer, limit: Limit, asked: Format | None
) -> tuple[float, Format]:
    image_format = asked or _format_of(source)
    info = source.look.info
    factor = factor_for(wanted, offer, (info.width, info.height), limit, OutputFormat(image_format).max_side)
    return factor, image_format


def _asked_format(options: Options, target: Path | None) -> Format | None:
    """The format that the options say; None if it depends on the picture."""
    if options.image_format is not None:
        image_format = _SUFFIXES.get(f".{options.image_format.lower()}")
        if image_format is None:
            raise ValueError(f"the format must be JPG, PNG or WEBP, not {options.image_format}")
        if image_format == "JPG" and options.keep_hidden_colors:
            raise ValueError("JPG has no transparency: --keep-hidden-colors needs --format PNG or WEBP")
        return image_format
    if target is None or is_stream(target):
        return None
    if target.suffix.lower() not in _SUFFIXES:
        raise ValueError(f"{target}: only {_WRITES} can be written; or give --format")
    return _SUFFIXES[target.suffix.lower()]


def _format_of(source: Source) -> Format:
    """As the picture's own; what cannot be written again becomes PNG."""
    if source.is_file and source.path.suffix:
        return _SUFFIXES.get(source.path.suffix.lower(), "PNG")
    return _OF_CONTENT.get(source.look.info.format, "PNG")


def _targets(
    sized: dict[Source, tuple[float, Format]],
    output: Path | None,
    into_folder: bool,
    taken: set[str],
    box: tuple[int, int] | None,
) -> dict[Source, Path]:
    """Where each result goes. Names that would be the same are made different; inputs are never targets."""
    if output is not None and not into_folder:
        return dict.fromkeys(sized, output)
    targets: dict[Source, Path] = {}
    # Those that keep their format first: of a.bmp and a.png the latter becomes a-2x.png.
    for source in sorted(sized, key=lambda each: _SUFFIXES.get(each.path.suffix.lower()) != sized[each][1]):
        factor, image_format = sized[source]
        parent = source.path.parent if output is None else output / source.folder
        size = f"{factor:.4g}x" if box is None else f"{box[0]}x{box[1]}"
        end = f"-{size}.{image_format.lower()}"
        target = next(
            target for name in _names(source) if place_of(target := parent / f"{name}{end}") not in taken
        )
        taken.add(place_of(target))
        targets[source] = target
    return targets


def _names(source: Source) -> Iterator[str]:
    yield source.path.stem
    yield source.path.name
    yield from (f"{source.path.name} ({number})" for number in count(2))


def _settle(job: Job, options: Options, offer: Offer, record: Record, plan: Plan) -> None:
    """Put a job down as to be done, as done, or as one that cannot be done."""
    target = job.target
    if (reason := cannot_be_written(target)) is not None:
        plan.failures.append((job.source.name, reason))
    elif options.overwrite or is_stream(target) or not has_content(target):
        plan.jobs.append(job)
    elif not (origins := record.origins(target)):
        reason = f"{target} exists already, and is no result of this command; --overwrite replaces it"
        plan.failures.append((job.source.name, reason))
    elif recipe(job, job.source.look.digest, options, offer) in origins:
        plan.done.append(target)
    else:
        plan.jobs.append(job)
