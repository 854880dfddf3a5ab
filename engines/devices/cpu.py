"""The CPU, by ONNX Runtime."""

from dataclasses import dataclass
from pathlib import Path

from engines.devices.blocks import BlockSession
from engines.devices.ort import OrtSession, open_ort
from engines.devices.parts import Part, PartSession
from engines.devices.runtimes import onnxruntime_version
from engines.devices.sessions import Network, Session

__all__ = ["CpuDevice"]


@dataclass(frozen=True, slots=True)
class CpuDevice:
    """The CPU, by ONNX Runtime, in fp32.

    A batch gains nothing here (measured: four tiles in one run take 1.1 × as long as one after the other),
    so every run is of one tile.
    """

    threads: int
    """How many one run may use."""

    @property
    def name(self) -> str:
        """See `Device.name`."""
        return f"CPU, {self.threads} threads, {self.runtime}"

    @property
    def runtime(self) -> str:
        """See `CpuRuntime.runtime`."""
        return "ONNX Runtime fp32"

    @property
    def kind(self) -> str:
        """See `Device.kind`."""
        return f"{self.name} {onnxruntime_version()}"

    @property
    def largest_batch(self) -> int:
        """See `Device.largest_batch`."""
        return 1

    def side_by_side(self, _network: Network) -> bool:
        """See `Device.side_by_side`."""
        return False

    def memory_use(self) -> None:
        """See `Device.memory_use`."""

    def open(self, network: Network) -> Session:
        """See `Device.open`."""
        if network.split is None:
            return self._open(network.path)
        body, tail = self._open(network.split.body), self._open(network.split.tail)
        release = body.release_memory, tail.release_memory
        return BlockSession(body.run, tail.run, network.split, network.scale, release)

    def open_part(self, part: Part) -> PartSession:
        """See `Device.open_part`."""
        return self._open(part.path)

    def _open(self, path: Path) -> OrtSession:
        return open_ort(path, self.name, self.threads, "CPUExecutionProvider")
