"""Builds the ONNX files of models that are used for the first time, with a progress bar."""

from collections.abc import Iterable
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from onnx_models import Model, ensure_built

__all__ = ["build_missing"]


def build_missing(models: Iterable[Model], directory: Path, console: Console) -> None:
    """Build the networks that are not there yet; shows nothing of those that are.

    Raises:
        ModelBuildError: if one cannot be built.
    """
    columns = TextColumn("{task.description}", markup=False), BarColumn(bar_width=24)
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bars:
        for model in models:
            for weights in model.weights:
                bar = bars.add_task(f"building {model.name} ×{weights.scale}", total=1.0, visible=False)
                ensure_built(model, weights, directory, partial(_advance, bars, bar))


def _advance(bars: Progress, bar: TaskID, share: float) -> None:
    bars.update(bar, completed=share, visible=share < 1)
