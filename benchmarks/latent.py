"""Latent upscalers: time per step and per output megapixel against diffusers with the same weights; memory.

    python -m benchmarks.latent [--side PIXELS] [--steps N] [--rounds N] [--width 1..12] [--device cpu|cuda]
                                [--peers NAME ...] [--memory PIXELS ...]

Needs `pip install 'tilewire[bench,export,latent]'`. diffusers saves a pipeline of Stable Diffusion's latent
upscaler with random numbers, and a quarter of its channels unless `--width 12` is given; it is exported, and
both run it on the same photographs, for 1 client and for 8, each in a process of its own and in turn. A step
takes what many steps take longer than few. Then the model that comes with Tilewire does the same alone; and
pictures of several sizes go through it, each in a fresh process, to see what memory they take.
"""

import argparse
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Literal

from rich.console import Console

from benchmarks.latent_peers import PEERS, Run, Subject, tilewire
from benchmarks.photos import photograph
from benchmarks.report import Report, gpu_name, median, peak_memory, ratio
from benchmarks.workers import AbsentError, Worker
from engines import open_on_cpu
from onnx_models import Facts, Model, export_model, load_catalogue

SIDES = {"cpu": 128, "cuda": 512}
WIDTH = 3
STEPS = 20
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
    parser.add_argument("--peers", nargs="+", choices=list(PEERS), default=list(PEERS), metavar="NAME")
    parser.add_argument("--memory", type=int, nargs="*", default=MEMORY_SIDES, help="sides of the inputs")
    options = parser.parse_args()
    side = options.side or SIDES[options.device]
    with tempfile.TemporaryDirectory() as folder:
        subject = exported(Path(folder), options.width, options.device)
        compare(subject, side, options.steps, options.rounds, width=options.width, peers=options.peers)
    measure_memory(options.device, options.memory)


def exported(folder: Path, width: int, device: Literal["cpu", "cuda"]) -> Subject:
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
            half=device == "cuda",
        )
    return Subject(model, pipeline, device)


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
    report.say(f"the above: Stable Diffusion's architecture, {width}/12 of its channels, {steps} steps")
    built_in = load_catalogue().get(BUILT_IN)
    measure(report, {"Tilewire": partial(tilewire, built_in, subject.device)}, side, BUILT_IN_STEPS, rounds)
    report.say(f"the above: {BUILT_IN}, {BUILT_IN_STEPS} steps")
    report.say(
        f"{side} × {side} pixels ×2, medians, alternating rounds: {rounds}; a step is one of one picture, "
        "a megapixel one of results; ratio: their speed / Tilewire's in the same round"
    )
    report.keep()


def opened(name: str, subject: Subject) -> Run:
    return PEERS[name](subject)


def measure(report: Report, openings: dict[str, partial[Run]], side: int, steps: int, rounds: int) -> None:
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
        for clients in CLIENTS:
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
