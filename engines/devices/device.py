"""What networks run on: the one seam, whatever runtime is behind it.

Whoever wants a model run asks a `Device` to open its ONNX file and gets a `Session`.
"""

from typing import Protocol, runtime_checkable

from engines.activity import Memory
from engines.devices.parts import Part, PartSession
from engines.devices.sessions import Network, Session

__all__ = ["Device", "Distant"]


class Device(Protocol):
    """Where networks run. `open`, and what it gives, is used by one thread, the device's own."""

    @property
    def name(self) -> str:
        """For people, such as "CPU, 8 threads" or "CUDA 0, NVIDIA H200"; unlike every other's."""

    @property
    def kind(self) -> str:
        """What is measured on one device holds for all of equal kind: the hardware and the runtime."""

    @property
    def largest_batch(self) -> int:
        """The most tiles that one run may take. Above 1 tiles are cut to one size, to share runs."""

    def side_by_side(self, network: Network) -> bool:
        """Whether two short runs of a network take less time side by side than one after the other."""

    def memory_use(self) -> Memory | None:
        """Its own memory; None where it has none, or does not say. May be called in any thread."""

    def open(self, network: Network) -> Session:
        """Load a network.

        Raises:
            ModelError: if it cannot be loaded here.
        """

    def open_part(self, part: Part) -> PartSession:
        """Load a part of a model.

        Raises:
            ModelError: if it cannot be loaded here.
        """


@runtime_checkable
class Distant(Protocol):
    """What devices have that are elsewhere, and may come and go.

    What runs there is on its way for a while, so the next run is handed over while one is under way.
    """

    node: str
    """The machine, for people."""
