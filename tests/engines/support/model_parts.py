"""The parts of a diffusion model, run one after another without anything of the engine's devices."""

from collections.abc import Generator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engines import open_on_cpu
from engines.devices.parts import Arrays
from engines.latent.runs import Runs
from onnx_models import DiffusionWeights


class Parts:
    """Those of one model.

    Attributes:
        asked: of each run so far, the part and its inputs.
    """

    def __init__(self, weights: DiffusionWeights) -> None:
        """Open them."""
        self._parts = {name: open_on_cpu(Path(files[0].path)) for name, files in weights.parts.items()}
        self.asked: list[tuple[str, Arrays]] = []

    def result(self, calls: Generator[Runs, list[Arrays], NDArray[np.float32]]) -> NDArray[np.float32]:
        """What calls give in the end."""
        runs = next(calls)
        while True:
            self.asked += [(runs.part, inputs) for inputs in runs.inputs]
            found = [
                self._parts[runs.part].run_part(tuple(array[np.newaxis] for array in inputs))
                for inputs in runs.inputs
            ]
            try:
                runs = calls.send([tuple(array[0] for array in arrays) for arrays in found])
            except StopIteration as end:
                return np.asarray(end.value)
