"""Parts of models that are more than one network: any arrays in, any arrays out.

They run in ONNX Runtime, on CPUs those that remove noise in OpenVINO where it is installed.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from numpy.typing import NDArray

__all__ = ["Arrays", "Part", "PartSession"]

Arrays: TypeAlias = tuple[NDArray[Any], ...]


@dataclass(frozen=True, slots=True)
class Part:
    """An ONNX file. The first axis of each of its inputs and outputs is the batch."""

    path: Path
    batches: bool = True
    """Whether it may run on several at once."""
    inexact: bool = False
    """Whether it may be computed in bf16: what it gives has noise of its own."""
    data: tuple[Path, ...] = field(default=(), compare=False)
    """The files with its weights, if they are not in the first one, which knows their names."""


class PartSession(Protocol):
    """A part loaded on a device."""

    def run_part(self, arrays: Arrays) -> Arrays:
        """What it makes of a batch; all arrays have its length.

        Raises:
            DeviceOutOfMemoryError: if the batch is too large for the device.
            DeviceLostError: if the device does not work any longer.
            ModelError: if the run fails.
        """

    def release_memory(self) -> None:
        """Give back the main memory that large runs took; the next ones take it again."""
