"""Latent upscalers: time per step and per output megapixel against diffusers with the same weights; memory.

    python -m benchmarks.latent [--side PIXELS] [--steps N] [--rounds N] [--width 1..12] [--device cpu|cuda]
                                [--fp16] [--peers NAME ...] [--memory PIXELS ...]

Needs `pip install 'tilewire[bench,export,latent]'`. diffusers saves a pipeline of Stable Diffusion's latent
upscaler with random numbers, and half of its channels, a UNet of 93 million parameters, unless `--width` says
otherwise; it is exported, and both run it on the same photographs, for 1 client and for 8, each in a process
of its own and in turn. A step takes what many steps take longer than few. `--fp16`: Tilewire's files are in
half precision, diffusers in the one that PyTorch is fast in: float16 on a GPU, bfloat16 on a CPU.

What several windows take in one run of the UNet is measured as well: it decides whether steps of several
windows, and of several requests, share one. Then the model that comes with Tilewire does the same alone; and
pictures of several sizes go through it, each in a fresh process, to see what memory they take.
"""

import argparse
import math
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from rich.console import Console

from benchmarks.latent_peers import PEERS, Run, Subject, tilewire
from benchmarks.photos import photograph
from benchmarks.report import Report, gpu_name, median, peak_memory, ratio
from benchmarks.workers import AbsentError, Worker
from engines import open_on_cpu
from onnx_models import Facts, Model, export_model, load_catalogue
from onnx_models.model import LatentWeights

SIDES = {"cpu": 128, "cuda": 512}
WIDTH = 6
STEPS = 8
TOGETHER = (1, 2, 4)
"""Windows in one run of the UNet."""
FEW = 1
BUILT_IN_STEPS = 4
ROUNDS = 5
CLIENTS = (1, 8)
MEMORY_SIDES = (256, 512, 1024, 2048)
BUILT_IN = "tilewire-latent-x2"

Times = dict[str, list[float]]


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.latent")
    parser.add_argument("--side", type=int, help="pixels of the input; default: by device")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--width", type=int, default=WIDTH, help="12 is Stable Diffusion's")
    parser.add_argument("--device", choices=list(SIDES), default="cuda" if gpu_name() else "cpu")
    parser.add_argument("--fp16", action="store_true", help="half precision; always on a GPU")
    parser.add_argument("--peers", nargs="+", choices=list(PEERS), default=list(PEERS), metavar="NAME")
    parser.add_argument("--memory", type=int, nargs="*", default=MEMORY_SIDES, help="sides of the inputs")
    options = parser.parse_args()
    side = options.side or SIDES[options.device]
    with tempfile.TemporaryDirectory() as folder:
        half = options.fp16 or options.device == "cuda"
        subject = exported(Path(folder), options.width, options.device, half=half)
        compare(subject, side, options.steps, options.rounds, width=options.width, peers=options.peers)
    measure_memory(options.device, options.memory)


def exported(folder: Path, width: int, device: Literal["cpu", "cuda"], *, half: bool) -> Subject:
    """The pipeline, and what Tilewire makes of it."""
    from benchmarks.latent_pipeline import save_pipeline  # noqa: PLC0415 - needs diffusers

    with Console(stderr=True).status("exporting the pipeline"):
        pipeline = folder / "pipeline"
        save_pipeline(pipeline, width)
        facts = Facts(name="random", air="local:random@1")
        model, _ = export_model(
            str(pipeline),
            facts,
            load_catalogue(),
            folder / "models",
            lambda path: open_on_cpu(path).run_part,
            half=half,
        )
    return Subject(model, pipeline, device, half)


def compare(
    subject: Subject, side: int, steps: int, rounds: int, *, width: int, peers: Sequence[str]
) -> None:
    """One table: all peers with the random pipeline, then the built-in model."""
    report = Report(
        "latent",
        "runtime".rjust(30), "clients", "s a step", "ratio", "s a megapixel", "ratio", "peak MB",
        device=gpu_name() if subject.device == "cuda" else None,
    )  # fmt: skip
    openings = {name: partial(opened, name, subject) for name in peers}
    measure(report, openings, side, steps, rounds)
    parameters = parameters_of(subject.model)
    kind = "half" if subject.half else "single"
    report.say(
        f"the above: Stable Diffusion's architecture, {width}/12 of its channels, a UNet of "
        f"{parameters / 1e6:.0f} million parameters in {kind} precision, {steps} steps"
    )
    if subject.device == "cpu":
        report.say(
            f"seconds a window, of {side} × {side} pixels: {windows_together(subject.model, side, rounds)}"
        )
    built_in = load_catalogue().get(BUILT_IN)
    measure(report, {"Tilewire": partial(tilewire, built_in, subject.device)}, side, BUILT_IN_STEPS, rounds)
    report.say(f"the above: {BUILT_IN}, {BUILT_IN_STEPS} steps")
    report.say(
        f"{side} × {side} pixels ×2, medians, alternating rounds: {rounds}; a step is one of one picture, "
        "a megapixel one of results; ratio: their speed / Tilewire's in the same round"
    )
    report.keep()


def unet_of(model: Model) -> Path:
    """The file of the UNet."""
    (weights,) = model.weights
    assert isinstance(weights, LatentWeights)
    return Path(weights.unet[0].path)


def parameters_of(model: Model) -> int:
    """How many numbers the UNet was trained to."""
    graph = onnx.load(unet_of(model), load_external_data=False).graph
    return sum(math.prod(each.dims) for each in graph.initializer if len(each.dims) > 1)


def windows_together(model: Model, side: int, rounds: int) -> str:
    """What a window takes alone and with others in one run of the UNet, alternating, on the CPU."""
    session = open_on_cpu(unet_of(model))
    described = onnx.load(unet_of(model), load_external_data=False).graph.input
    cells = side * 2 // 8
    taken: dict[int, list[float]] = {count: [] for count in TOGETHER}
    for number in range(rounds + 1):
        for count, seconds in taken.items():
            arrays = [_random(each, count, cells) for each in described]
            begun = time.perf_counter()
            session.run_part(arrays)
            if number:  # the first is the warm-up
                seconds.append((time.perf_counter() - begun) / count)
    return ", ".join(f"{count} in one run {median(seconds):.3f}" for count, seconds in taken.items())


def _random(described: onnx.ValueInfoProto, count: int, cells: int) -> NDArray[np.float32]:
    """An input of so many windows; sizes that are not fixed are those of a window."""
    sizes = [each.dim_value or cells for each in described.type.tensor_type.shape.dim]
    return np.random.default_rng(0).random((count, *sizes[1:]), np.float32)


def opened(name: str, subject: Subject) -> Run:
    return PEERS[name](subject)


def measure(
    report: Report,
    openings: dict[str, partial[Run]],
    side: int,
    steps: int,
    rounds: int,
    numbers: Sequence[int] = CLIENTS,
) -> None:
    """One row for each peer and number of clients."""
    with ExitStack() as stack:
        status = stack.enter_context(Console(stderr=True).status(""))
        workers: dict[str, Worker] = {}
        for name, opening in openings.items():
            status.update(f"{name} warms up")
            try:
                workers[name] = stack.enter_context(Worker(opening, [photograph(side)], FEW))
            except AbsentError as error:
                report.say(f"{name.rjust(30)}  missing: {error}")
        for clients in numbers:
            photographs = [photograph(side, index) for index in range(clients)]
            # A batch of one is what it would be without batches.
            chosen = {name: workers[name] for name in workers if clients > 1 or "one batch" not in name}
            for worker in chosen.values():
                worker.run(photographs, FEW)
            by_step: Times = {name: [] for name in chosen}
            by_run: Times = {name: [] for name in chosen}
            for number in range(1, rounds + 1):
                for name, worker in chosen.items():
                    status.update(f"{clients} clients, round {number} of {rounds}: {name}")
                    few, many = (worker.run(photographs, count) for count in (FEW, steps))
                    by_step[name].append((many - few) / (steps - FEW) / clients)
                    by_run[name].append(many)
            for name, worker in chosen.items():
                report.row(
                    name,
                    clients,
                    median(by_step[name]),
                    ratio(by_step, "Tilewire", name),
                    median(by_run[name]) / (clients * (2 * side) ** 2 / 1e6),
                    ratio(by_run, "Tilewire", name),
                    f"{peak_memory(worker.pid) / 1e6:.0f}",
                )


def measure_memory(device: Literal["cpu", "cuda"], sides: list[int]) -> None:
    """How much more memory a larger picture takes: some for each pixel of the result, and no more."""
    model = load_catalogue().get(BUILT_IN)
    report = Report(
        "latent-memory", "input", "megapixels out", "peak MB", "bytes a further pixel",
        device=gpu_name() if device == "cuda" else None,
    )  # fmt: skip
    before: tuple[float, float] | None = None
    for side in sides:
        megapixels, peak = (2 * side) ** 2 / 1e6, peak_of(model, device, side) / 1e6
        more = "-" if before is None else f"{(peak - before[1]) / (megapixels - before[0]):.0f}"
        report.row(f"{side} × {side}", megapixels, f"{peak:.0f}", more)
        before = megapixels, peak
    report.say(f"{BUILT_IN} ×2, {model.tile} pixel windows, 1 step, resident memory of the whole process")
    report.keep()


def peak_of(model: Model, device: Literal["cpu", "cuda"], side: int) -> int:
    with Worker(partial(tilewire, model, device), [photograph(side)], 1, warm_ups=1) as worker:
        return peak_memory(worker.pid)


if __name__ == "__main__":
    main()
