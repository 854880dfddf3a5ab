"""NVIDIA GPUs, by ONNX Runtime."""

import logging
from dataclasses import dataclass

from engines.activity import Memory
from engines.cores import usable_cores
from engines.cuda_driver import memory_of_gpu, names_of_gpus, open_driver
from engines.parts import Part, PartSession, open_part
from engines.runtimes import onnxruntime
from engines.sessions import Network, Session, open_network

__all__ = ["CudaDevice", "find_gpus"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CudaDevice:
    """An NVIDIA GPU, by ONNX Runtime."""

    index: int
    """CUDA's number of it, among those that CUDA_VISIBLE_DEVICES leaves."""
    hardware: str
    """Such as "NVIDIA H200"."""

    @property
    def name(self) -> str:
        return f"CUDA {self.index}, {self.hardware}"

    @property
    def kind(self) -> str:
        return f"{self.hardware}, ONNX Runtime {onnxruntime.__version__}"

    @property
    def largest_batch(self) -> int:
        return 16

    def memory_use(self) -> Memory | None:
        """See `Device.memory_use`."""
        return memory_of_gpu(open_driver(), self.index)

    def open(self, network: Network) -> Session:
        """See `Device.open`."""
        provider, options = "CUDAExecutionProvider", self._options()
        return open_network(network.path, network.path, self.name, usable_cores(), provider, options)

    def open_part(self, part: Part) -> PartSession:
        """See `Device.open_part`."""
        return open_part(part, self.name, usable_cores(), "CUDAExecutionProvider", self._options())

    def _options(self) -> dict[str, str]:
        return {
            "device_id": str(self.index),
            # The search that is the default tries every algorithm anew for each shape, and pictures come in
            # all shapes.
            "cudnn_conv_algo_search": "HEURISTIC",
            # Doubling what is taken would run out of memory with half of it unused.
            "arena_extend_strategy": "kSameAsRequested",
        }


def find_gpus() -> tuple[CudaDevice, ...] | str:
    """The GPUs that ONNX Runtime can run on, at least one; or why there is none, in words.

    The driver is asked first: without one, ONNX Runtime's attempt would print errors of several lines.
    """
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        return "this build of ONNX Runtime has no CUDA"
    try:
        driver = open_driver()
    except OSError:
        return "no NVIDIA driver is installed"
    names = names_of_gpus(driver)
    if not names:
        return "the NVIDIA driver finds no device"
    onnxruntime.preload_dlls()
    gpus = tuple(CudaDevice(index, name) for index, name in enumerate(names) if _provider_loads(index))
    return gpus or (
        "the CUDA and cuDNN libraries are missing or too old; pip install 'tilewire[cuda]' brings them"
    )


def _provider_loads(index: int) -> bool:
    """Whether a session of the CUDA provider really gets this GPU."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    providers = [("CUDAExecutionProvider", {"device_id": str(index)}), "CPUExecutionProvider"]
    try:
        session = onnxruntime.InferenceSession(_SMALLEST_MODEL, options, providers=providers)
    except Exception as error:  # noqa: BLE001 - whatever it is, this provider cannot be used
        log.warning("CUDA %d: %s", index, error)
        return False
    return "CUDAExecutionProvider" in session.get_providers()


# An ONNX file of one node, y = Identity(x), float[1]; IR version 8, opset 13.
_SMALLEST_MODEL = bytes.fromhex(
    "080812003a370a100a017812017922084964656e746974791201675a0f0a0178120a0a08080112040a02"
    "0801620f0a0179120a0a08080112040a02080142040a00100d"
)
