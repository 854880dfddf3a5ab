"""The CPU by ncnn, an optional extra: computes models from the weights in ncnn's format, without ONNX.

Its Winograd convolutions make the networks of Real-ESRGAN faster in fp32 than OpenVINO does, and take twice
the memory: 4 GB for the largest tile of x4plus (measured: other pools or convolutions change little). So it
is for machines that have plenty. The results differ by one level of 255 at most, as may those of one picture
cut into other tiles. Where the processor computes in bf16 OpenVINO, which does too, is faster still.

Models that come as ONNX files are left to another runtime.
"""

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from engines.devices.blocks import BlockSession
from engines.devices.cpu_runtime import CpuRuntime
from engines.devices.failures import as_model_error
from engines.devices.parts import Part, PartSession
from engines.devices.sessions import Network, Session
from engines.errors import DeviceOutOfMemoryError, ModelError
from onnx_models import ModelBuildError, NcnnWeights, ncnn_blob, ncnn_files

if TYPE_CHECKING:
    from engines.devices.device import Device

__all__ = ["NcnnDevice", "find_ncnn", "has_ncnn"]


@dataclass(frozen=True, slots=True)
class NcnnDevice(CpuRuntime):
    """The CPU, by ncnn in fp32."""

    other: "Device | None"
    """The same CPU by another runtime, for what ncnn has no weights of; None to refuse that."""

    @property
    def runtime(self) -> str:
        """See `CpuRuntime.runtime`."""
        return "ncnn fp32"

    @property
    def kind(self) -> str:
        """See `Device.kind`."""
        return f"{self.name} {metadata.version('ncnn')}"  # without the memory that to import it takes

    def open(self, network: Network) -> Session:
        """See `Device.open`."""
        if not isinstance(network.weights, NcnnWeights):
            return self._other(network.path).open(network)
        try:
            param, numbers = ncnn_files(network.weights)
        except ModelBuildError as error:
            raise ModelError(str(error)) from error
        ncnn = import_ncnn()
        net = ncnn.Net()
        net.opt.num_threads = self.threads
        # Its own pools cannot be emptied, and after a large tile they keep a gigabyte.
        pools = ncnn.UnlockedPoolAllocator(), ncnn.PoolAllocator()
        net.opt.blob_allocator, net.opt.workspace_allocator = pools
        if net.load_param(str(param)) != 0 or net.load_model(str(numbers)) != 0:
            raise ModelError(f"{network.path.name} cannot be loaded on {self.name}")
        if network.split is None:
            return _NcnnSession(ncnn.Mat, net, pools)
        session = _NcnnSession(ncnn.Mat, net, pools, ncnn_blob(param.read_bytes(), network.split.cut))
        release = [session.release_memory]
        return BlockSession(session.body, session.tail, network.split, network.scale, release)

    def open_part(self, part: Part) -> PartSession:
        """See `Device.open_part`."""
        return self._other(part.path).open_part(part)

    def _other(self, path: Path) -> "Device":
        if self.other is None:
            raise ModelError(f"ncnn has no weights of {path.name}")
        return self.other


class _NcnnSession:
    """A network in ncnn: float32 RGB in planes, from 0 to 1."""

    def __init__(self, mat: Any, net: Any, pools: tuple[Any, ...], cut: str = "") -> None:
        """Use a network.

        Args:
            mat: ncnn's class.
            net: the network.
            pools: what it allocates from.
            cut: the blob between the two parts, if it is to run in two.
        """
        self._pools = pools
        self._mat = mat
        self._net = net
        self._cut = cut
        (self._input,), (self._output,) = net.input_names(), net.output_names()

    def run(self, tiles: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """See `Session.run`."""
        return self._each(
            tiles, lambda tile: _pixels(self._extract(self._input, self._image(tile), self._output))
        )

    def body(self, tiles: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The first part; see `blocks.Body`."""
        return self._each(
            tiles, lambda tile: np.asarray(self._extract(self._input, self._image(tile), self._cut))
        )

    def tail(self, values: NDArray[np.float32]) -> NDArray[np.uint8]:
        """The second part; see `blocks.Tail`."""
        return self._each(
            values, lambda planes: _pixels(self._extract(self._cut, self._mat(planes), self._output))
        )

    def release_memory(self) -> None:
        """See `Session.release_memory`."""
        for pool in self._pools:
            pool.clear()

    def _each(self, batch: NDArray[Any], run: Callable[[NDArray[Any]], NDArray[Any]]) -> NDArray[Any]:
        try:
            return np.stack([run(each) for each in np.ascontiguousarray(batch)])
        except Exception as error:
            raise as_model_error(error, f"the model failed on a batch of {batch.shape}") from error

    def _image(self, tile: NDArray[np.uint8]) -> Any:
        height, width, channels = tile.shape
        if channels != 3:  # it would read them as if there were three
            raise ValueError(f"{channels} channels")
        image = self._mat.from_pixels(tile, self._mat.PixelType.PIXEL_RGB, width, height)
        image.substract_mean_normalize([], [1 / 255] * 3)
        return image

    def _extract(self, begin: str, mat: Any, end: str) -> Any:
        extractor = self._net.create_extractor()
        extractor.input(begin, mat)
        code, result = extractor.extract(end)
        if code == _NO_MEMORY:
            raise DeviceOutOfMemoryError("ncnn has no memory for a tile of this size")
        if code != 0:
            raise RuntimeError(f"ncnn gives the error {code}")
        return result


def _pixels(upscaled: Any) -> NDArray[np.uint8]:
    """(3, H, W) float32 → (H, W, 3) uint8."""
    upscaled.substract_mean_normalize([-0.5 / 255] * 3, [255.0] * 3)  # 255 y + 0.5, to be cut off
    levels = np.asarray(upscaled)
    np.clip(levels, 0, 255, out=levels)
    pixels = np.empty((*levels.shape[1:], 3), np.uint8)
    pixels[...] = levels.transpose(1, 2, 0)
    return pixels


_NO_MEMORY = -100
"""What every layer gives when an allocation fails (https://github.com/Tencent/ncnn, src/layer/*.cpp)."""


def import_ncnn() -> ModuleType:
    """ncnn, which is optional and takes a while: imported on first use."""
    return importlib.import_module("ncnn")


def has_ncnn() -> bool:
    """Whether it is installed; it is not imported, which takes time and memory."""
    return importlib.util.find_spec("ncnn") is not None


def find_ncnn(threads: int, other: "Device") -> NcnnDevice:
    """The CPU by ncnn, and by `other` for what ncnn cannot run.

    Raises:
        ModelError: if ncnn is not installed, or cannot be used; the message says why.
    """
    if not has_ncnn():
        raise ModelError("ncnn is not installed; pip install 'tilewire[ncnn]' brings it")
    try:
        import_ncnn()
    except Exception as error:
        raise as_model_error(error, "ncnn cannot be used") from error
    return NcnnDevice(threads, other)
