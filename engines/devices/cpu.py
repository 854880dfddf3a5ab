"""The CPU, by ONNX Runtime."""

from dataclasses import dataclass
from pathlib import Path

from engines.devices.blocks import BlockSession
from engines.devices.cpu_runtime import CpuRuntime
from engines.devices.ort import OrtSession, open_ort
from engines.devices.parts import Part, PartSession
from engines.devices.runtimes import onnxruntime_version
from engines.devices.sessions import Network, Session

__all__ = ["CpuDevice"]


@dataclass(frozen=True, slots=True)
class CpuDevice(CpuRuntime):
    """The CPU, by ONNX Runtime, in fp32."""

    @property
    def runtime(self) -> str:
        """See `CpuRuntime.runtime`."""
        return "ONNX Runtime fp32"

    @property
    def kind(self) -> str:
        """See `Device.kind`."""
        return f"{self.name} {onnxruntime_version()}"

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
