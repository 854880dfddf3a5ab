"""Runs the exported parts of a model one by one, without anything of the engine's devices."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from onnx_models import DiffusionWeights

__all__ = ["finish", "open_part"]


def open_part(path: Path) -> Callable[[Any], Any]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]
    return lambda inputs: session.run(None, dict(zip(names, inputs, strict=True)))


def finish(calls: Any, weights: DiffusionWeights) -> np.ndarray:
    """What becomes of the engine's calls of a model's parts."""
    parts = {name: open_part(Path(files[0].path)) for name, files in weights.parts.items()}
    runs = next(calls)
    while True:
        results = [parts[runs.part]([array[np.newaxis] for array in arrays]) for arrays in runs.inputs]
        try:
            runs = calls.send([tuple(array[0] for array in result) for result in results])
        except StopIteration as end:
            return np.asarray(end.value)
