"""Parts of models that are more than one network: any arrays in, any arrays out.

They run in ONNX Runtime on every device: none of the other runtimes has been tried with them.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from numpy.typing import NDArray

from engines.devices.runtimes import inference_session, onnxruntime
from engines.devices.sessions import as_model_error

__all__ = ["Arrays", "Part", "PartSession", "open_part"]

Arrays: TypeAlias = tuple[NDArray[Any], ...]


@dataclass(frozen=True, slots=True)
class Part:
    """An ONNX file. The first axis of each of its inputs and outputs is the batch."""

    path: Path


class PartSession(Protocol):
    """A part loaded on a device."""

    def run(self, arrays: Arrays) -> Arrays:
        """What it makes of a batch; all arrays have its length.

        Raises:
            DeviceOutOfMemoryError: if the batch is too large for the device.
            DeviceLostError: if the device does not work any longer.
            ModelError: if the run fails.
        """


class _OrtPart:
    """A part in ONNX Runtime."""

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self._session = session
        self._inputs: list[str] = [each.name for each in session.get_inputs()]

    def run(self, arrays: Arrays) -> Arrays:
        """See `PartSession.run`."""
        try:
            found = self._session.run(None, dict(zip(self._inputs, arrays, strict=True)))
        except Exception as error:
            shapes = ", ".join(str(array.shape) for array in arrays)
            raise as_model_error(error, f"the model failed on a batch of {shapes}") from error
        return tuple(found)


def open_part(
    part: Part, device: str, threads: int, provider: str, options: dict[str, str] | None = None
) -> PartSession:
    """Load a part in ONNX Runtime.

    Args:
        part: what to load.
        device: its name, for messages.
        threads: how many one run may use.
        provider, options: of ONNX Runtime.

    Raises:
        ModelError: if it cannot be loaded.
    """
    try:
        return _OrtPart(inference_session(part.path, threads, (provider, options or {})))
    except Exception as error:  # ONNX Runtime's errors share no base class
        raise as_model_error(error, f"{part.path.name} cannot be loaded on {device}") from error
