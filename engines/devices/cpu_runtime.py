"""What the CPU is as a device, by whichever runtime."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from engines.devices.parts import Part, PartSession
from engines.devices.sessions import Network, Session

__all__ = ["CpuRuntime"]


@dataclass(frozen=True, slots=True)
class CpuRuntime(ABC):
    """The CPU, by one runtime in one precision.

    A batch gains nothing here (measured in ONNX Runtime: four tiles in one run take 1.1 × as long as one
    after the other), so every run is of one tile.
    """

    threads: int
    """How many one run may use."""

    @property
    @abstractmethod
    def runtime(self) -> str:
        """For people, such as "OpenVINO bf16"."""

    @property
    def name(self) -> str:
        """See `Device.name`."""
        return f"CPU, {self.threads} threads, {self.runtime}"

    @property
    @abstractmethod
    def kind(self) -> str:
        """See `Device.kind`."""

    @property
    def largest_batch(self) -> int:
        """See `Device.largest_batch`."""
        return 1

    def side_by_side(self, _network: Network) -> bool:
        """See `Device.side_by_side`."""
        return False

    def memory_use(self) -> None:  # noqa: B027 - there is none of its own
        """See `Device.memory_use`."""

    @abstractmethod
    def open(self, network: Network) -> Session:
        """See `Device.open`."""

    @abstractmethod
    def open_part(self, part: Part) -> PartSession:
        """See `Device.open_part`."""
