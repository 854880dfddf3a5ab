"""ONNX files in ONNX Runtime: networks, halves of networks, and parts of latent upscalers."""

import contextlib
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from engines.devices.cores import usable_cores
from engines.devices.failures import as_model_error, loading
from engines.devices.parts import Arrays
from engines.devices.runtimes import import_onnxruntime, inference_session
from engines.errors import ModelError

if TYPE_CHECKING:
    import onnxruntime

__all__ = ["OrtSession", "open_on_cpu", "open_ort"]


_TYPES = {"tensor(float)": np.float32, "tensor(int64)": np.int64, "tensor(uint8)": np.uint8}


class OrtSession:
    """An ONNX file in ONNX Runtime. It is a `Session`, a half of one, or a `PartSession`."""

    def __init__(self, session: "onnxruntime.InferenceSession") -> None:
        self._session = session
        self._inputs: list[str] = [each.name for each in session.get_inputs()]

    def run(self, tiles: NDArray[Any]) -> NDArray[Any]:
        """See `Session.run`; a half of a network takes or gives float32."""
        results = self.run_part((tiles,))
        if len(results) != 1:
            raise ModelError(f"the model gives {len(results)} results, not one")
        return results[0]

    def run_part(self, arrays: Sequence[NDArray[Any]]) -> Arrays:
        """See `PartSession.run_part`."""
        try:
            return tuple(self._session.run(None, dict(zip(self._inputs, arrays, strict=True))))
        except Exception as error:
            shapes = ", ".join(str(array.shape) for array in arrays)
            raise as_model_error(error, f"the model failed on a batch of {shapes}") from error

    def close(self) -> None:
        """Give back all memory now, whoever still refers to this; it cannot be used any longer."""
        del self._session

    def release_memory(self) -> None:
        """See `Session.release_memory`."""
        smallest = {
            each.name: np.zeros(
                [side if isinstance(side, int) else 1 for side in each.shape], _TYPES[each.type]
            )
            for each in self._session.get_inputs()
        }
        with contextlib.suppress(Exception):  # it does not reach the end
            self._session.run(None, smallest, _release())


def open_ort(
    path: Path, device: str, threads: int, provider: str, options: dict[str, str] | None = None
) -> OrtSession:
    """Open an ONNX file in ONNX Runtime.

    Args:
        path: the file.
        device: its name, for messages.
        threads: how many one run may use.
        provider: of ONNX Runtime.
        options: of the provider.

    Raises:
        ModelError: if it cannot be loaded.
    """
    with loading(path.name, device):
        return OrtSession(inference_session(path, threads, (provider, options or {})))


@functools.cache
def _release() -> "onnxruntime.RunOptions":
    """Compute nothing, and give back what is free of the arena at the end.

    What large runs took stays otherwise. The key is in onnxruntime_run_options_config_keys.h.
    """
    options = import_onnxruntime().RunOptions()
    options.terminate = True
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    return options


def open_on_cpu(path: Path) -> OrtSession:
    """Open any ONNX file on this machine's CPU, such as one that is to become a model.

    Raises:
        ModelError: if it cannot be loaded.
    """
    return open_ort(path, "the CPU", usable_cores(), "CPUExecutionProvider")
