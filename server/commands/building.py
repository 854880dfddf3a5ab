"""Builds the ONNX files of models that are used for the first time, with a progress bar."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TypeAlias

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from onnx_models import Model, ModelBuildError, ensure_built, one_line

__all__ = ["build_bars", "build_missing"]

Advance: TypeAlias = Callable[[float], None]


def build_missing(models: Iterable[Model], directory: Path, console: Console) -> None:
    """Build the networks that are not there yet; shows nothing of those that are.

    Raises:
        ModelBuildError: One cannot be built, or there is no place for it.

    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ModelBuildError(f"model_directory: {directory} cannot be used: {one_line(error)}") from error
    with build_bars(console) as start_bar:
        for model in models:
            for weights in model.weights:
                advance = start_bar(f"building {model.name} ×{weights.scale}")
                ensure_built(model, weights, directory, advance)


@contextmanager
def build_bars(console: Console) -> Iterator[Callable[[str], Advance]]:
    """Show how far builds have come; what takes no time is not shown.

    Yields:
        Starts a bar with a description; returns what to call with the finished share, 0 to 1.

    """
    columns = TextColumn("{task.description}", markup=False), BarColumn(bar_width=24)
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bars:

        def start(description: str) -> Advance:
            return partial(_advance, bars, bars.add_task(description, total=1.0, visible=False))

        yield start


def _advance(bars: Progress, bar: TaskID, share: float) -> None:
    bars.update(bar, completed=share, visible=share < 1)
