"""`tilewire bench`: what this machine can do, in about a minute."""

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from statistics import geometric_mean
from typing import Annotated, Final, ParamSpec, TypeVar, get_args

import msgspec
import typer
from msgspec import Struct
from rich.console import Console
from rich.table import Table

from engines import Device, EngineError, RuntimeChoice, fastest_runtime, find_devices, usable_cores
from onnx_models import Model, ModelBuildError, UnknownModelError, load_catalogue
from server.commands.building import build_missing
from server.commands.measure import PHOTO_SIDE, Failure, Measurement, measure
from server.commands.terminal import ConfigFile, console, effective_settings, give_up, problems
from server.settings import Settings
from server.specs.version import VERSION

__all__ = ["bench"]

P = ParamSpec("P")
T = TypeVar("T")

RUNTIMES: Final[tuple[RuntimeChoice, ...]] = tuple(
    runtime for runtime in get_args(RuntimeChoice) if runtime not in {"auto", "tensorrt", "tensorrt-rtx"}
)
"""What may compute on a CPU."""

_NOTABLE: Final = 1.2
"""How many times as fast another way must be to be hinted at; less may be chance."""


class Machine(Struct, frozen=True, kw_only=True):
    """What was measured on. `load`: the average of the last minute, before; None where there is none."""

    cores: int
    load: float | None
    version: str


class Report(Struct, frozen=True, kw_only=True):
    """All that is told, and printed by `--json`. `chosen`: the devices of models, where several may be."""

    machine: Machine
    results: list[Measurement]
    chosen: dict[str, str]
    failures: list[Failure]
    hints: list[str]


class Way(Struct, frozen=True):
    """One way to compute on this machine: the devices' names, and the settings that choose them."""

    device: str
    settings: Settings


def bench(
    model: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A model; may be repeated. [default: all]"),
    ] = None,
    seconds: Annotated[float, typer.Option(min=1, metavar="SECONDS", help="About how long to measure.")] = 60,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    config: ConfigFile = None,
) -> None:
    """Measure how fast this machine upscales.

    Times each model on each device and runtime, in about a minute altogether.
    """
    settings, _ = effective_settings(config)
    shown = Console(quiet=True) if as_json else console
    try:
        catalogue = load_catalogue(settings.effective_added_models)
        models = [catalogue.get(name) for name in model] if model else list(catalogue)
        build_missing(models, settings.model_directory, shown)
    except UnknownModelError as error:
        give_up(str(error))
    except ModelBuildError as error:
        give_up(str(error), status=1)
    machine = Machine(cores=usable_cores(), load=_load(), version=VERSION)
    ways, hints = find_ways(settings)
    pairs = list(_pairs(models, ways))
    outcomes = list(_measure_all(pairs, seconds))
    results = [outcome for outcome in outcomes if isinstance(outcome, Measurement)]
    failures = [outcome for outcome in outcomes if isinstance(outcome, Failure)]
    measured = {result.model for result in results}
    chosen = _in_a_process(chosen_devices, [model for model in models if model.name in measured], settings)
    hints += faster_way(ways, results, settings)
    if left := len(pairs) - len(outcomes):
        hints.append(f"{left} more were not measured, as the time was up; --seconds gives them more")
    report = Report(machine=machine, results=results, chosen=chosen, failures=failures, hints=hints)
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(report)).decode())  # noqa: T201 - without any styling
    else:
        _show(report)
    for failure in failures:
        problems.print(f"{failure.model} on {failure.device}: {failure.reason}", style="red")
    raise typer.Exit(1 if failures or not results else 0)


def find_ways(settings: Settings) -> tuple[list[Way], list[str]]:
    """All ways that the settings leave, the GPUs first; and why there are no others, with what would help."""
    tries: list[Settings] = []
    if settings.device != "cpu":
        tries.append(msgspec.structs.replace(settings, device="cuda"))
    if settings.device != "cuda":
        tries += [
            msgspec.structs.replace(settings, device="cpu", runtime=runtime)
            for runtime in RUNTIMES
            if settings.runtime in ("auto", runtime)
        ]
    ways: list[Way] = []
    hints: list[str] = []
    for chosen in tries:
        try:
            devices = find_devices(chosen.device, chosen.runtime, chosen.precision)
        except EngineError as error:
            hints.append(str(error))
        else:
            ways.append(Way(_named(devices), chosen))
    return ways, hints


def faster_way(ways: list[Way], results: list[Measurement], settings: Settings) -> list[str]:
    """A hint, if another way was clearly faster than the one that the settings choose."""
    speeds = {
        way.device: geometric_mean(
            result.megapixels_per_second for result in results if result.device == way.device
        )
        for way in ways
        if any(result.device == way.device for result in results)
    }
    if not speeds:
        return []
    best = max(ways, key=lambda way: speeds.get(way.device, 0))
    chosen = _named(find_devices(settings.device, settings.runtime, settings.precision))
    if chosen not in speeds or speeds[best.device] < _NOTABLE * speeds[chosen]:
        return []
    return [
        f'with device = "{best.settings.device}" and runtime = "{best.settings.runtime}" models were '
        f"{speeds[best.device] / speeds[chosen]:.1f} times as fast as with what is set now"
    ]


def _named(devices: tuple[Device, ...]) -> str:
    return " + ".join(device.name for device in devices)


def _pairs(models: list[Model], ways: list[Way]) -> Iterator[tuple[Model, Way]]:
    """Every model in every way; diffusion in one on a CPU, as ONNX Runtime has it in all."""
    first = next((way for way in ways if way.settings.device == "cpu"), None)
    for way in ways:
        for model in models:
            if model.diffusion is None or way.settings.device != "cpu" or way is first:
                yield model, way


def _measure_all(pairs: list[tuple[Model, Way]], seconds: float) -> Iterator[Measurement | Failure]:
    """Each pair, until the time is up."""
    until = time.time() + seconds
    with problems.status("") as status:
        for number, (model, way) in enumerate(pairs):
            status.update(f"{number + 1} of {len(pairs)}: {model.name} on {way.device}")
            share = (until - time.time()) / (len(pairs) - number)
            if number and share <= 0:
                return
            # Each in a process of its own: its memory is measured, and nothing is left for the next.
            try:
                yield _in_a_process(measure, model.name, way.device, way.settings, time.time() + share)
            except BrokenProcessPool:
                yield Failure(model=model.name, device=way.device, reason="the process was ended")


def chosen_devices(models: list[Model], settings: Settings) -> dict[str, str]:
    """What runs each model where the runtime is chosen for it; measured now if it was not before."""
    devices = find_devices(settings.device, settings.runtime, settings.precision)
    names = {model.name: fastest_runtime(devices[0], model, settings.model_directory) for model in models}
    return {model: name for model, name in names.items() if name is not None}


def _in_a_process(work: Callable[P, T], *arguments: P.args, **more: P.kwargs) -> T:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as process:
        return process.submit(work, *arguments, **more).result()


def _show(report: Report) -> None:
    table = Table(box=None, pad_edge=False)
    table.add_column("model", overflow="fold")
    table.add_column("device", overflow="fold")
    for heading in ("MP/s", f"{PHOTO_SIDE}×{PHOTO_SIDE}", "first result", "memory"):
        table.add_column(heading, justify="right", no_wrap=True)
    for result in report.results:
        chosen = report.chosen.get(result.model) == result.device
        about = "" if result.measured_side == PHOTO_SIDE else "~"
        table.add_row(
            result.model,
            f"{result.device} *" if chosen else result.device,
            _digits(result.megapixels_per_second),
            f"{about}{_digits(result.photo_seconds)} s",
            f"{_digits(result.first_result_seconds)} s",
            "-" if result.memory_bytes is None else f"{result.memory_bytes / 1e6:.0f} MB",
        )
    console.print(table, soft_wrap=False)
    console.print()
    for line in _notes(report):
        console.print(line)


def _notes(report: Report) -> Iterator[str]:
    """What the figures are, and how far they can be trusted."""
    yield "MP/s: output megapixels a second through the socket, JPEG in and out, at the largest factor."
    if any(result.measured_side < PHOTO_SIDE for result in report.results):
        yield f"~: computed from a smaller picture, as {PHOTO_SIDE}×{PHOTO_SIDE} would take too long."
    if any(report.chosen.get(result.model) == result.device for result in report.results):
        yield '*: what runs the model with runtime = "auto", as it was the fastest at its first load.'
    yield "first result: a small picture right after the start, with loading the model. memory: main memory."
    cores = f"{report.machine.cores} cores" if report.machine.cores > 1 else "one core"
    if report.machine.load is None:
        yield f"Measured on {cores}; figures vary, and are lower while other work runs."
    elif report.machine.load > report.machine.cores / 4:
        yield (
            f"This machine was busy before ({cores}, load {report.machine.load:.1f}): alone it is faster. "
            "Measure again when it is idle."
        )
    else:
        yield f"Measured on {cores}, load {report.machine.load:.1f} before; figures vary from run to run."
    for hint in report.hints:
        yield f"hint: {hint}"


def _digits(value: float) -> str:
    """Two digits that count, without an exponent."""
    return f"{value:.0f}" if value >= 10 else f"{float(f'{value:.2g}')}"


def _load() -> float | None:
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None
