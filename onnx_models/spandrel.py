"""PyTorch checkpoints (`.pth`, `.ckpt`, `.safetensors`) as ONNX graphs.

spandrel (https://github.com/chaiNNer-org/spandrel) finds out which architecture a checkpoint belongs to and
builds the network; PyTorch exports it. Only numbers are read from a checkpoint: a pickle can hold code, and
that is refused, not run. Both packages are large and come with `pip install 'tilewire[convert]'`.
"""

import io
import logging
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_models.errors import MissingConverterError, UnsuitableModelError, one_line
from onnx_models.quiet import quietly
from onnx_models.sizes import SizeRule
from onnx_models.swin import traceable

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

__all__ = ["SUFFIXES", "Checkpoint", "read_checkpoint", "require"]

SUFFIXES = (".pth", ".ckpt", ".safetensors")

_OPSETS = {"traced": 17, "exported": 18}
_SIDE = 48
_PURPOSES = {
    "FaceSR": "restores faces",
    "Inpainting": "fills holes in images",
    "Restoration": "restores images without enlarging them",
}


class Checkpoint:
    """A network as PyTorch runs it.

    Attributes:
        architecture: Its name, such as SwinIR.
        scale: Output side / input side.
        rule: The sizes that it takes, as far as spandrel knows.
    """

    def __init__(self, descriptor: Any) -> None:
        requirements = descriptor.size_requirements
        self.architecture: str = descriptor.architecture.name
        self.scale: int = descriptor.scale
        self.rule = SizeRule(requirements.multiple_of, max(requirements.minimum, 1), requirements.square)
        self._descriptor = descriptor.eval()

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N, 3, H, W) float32 RGB, H and W as the rule wants them, as PyTorch computes it; not clipped."""
        import torch  # noqa: PLC0415 - large, and only there with the extra

        network = self._network()
        with torch.inference_mode():
            # Copies, because some networks write into their input.
            images = [torch.from_numpy(image[np.newaxis].copy()) for image in batch]
            return np.concatenate([network(image).numpy() for image in images])

    def graphs(self) -> Iterator[onnx.ModelProto]:
        """The network as ONNX, in different ways, the quicker first; none is sure to compute the same.

        Tracing is quick, but takes what a network does with one image for what it does with all; exporting
        follows the program and may give up.
        """
        for way, export in (("traced", _trace), ("exported", _export)):
            height, width = self.rule.fitted(_SIDE, _SIDE + 8)
            try:
                with quietly(), traceable(self._descriptor.model):
                    graph = export(self._network(), height, width, _OPSETS[way])
            except Exception as error:  # noqa: BLE001 - whatever a network does that ONNX or the exporter cannot
                log.debug("%s cannot be %s: %s", self.architecture, way, error)
            else:
                yield graph

    def _network(self) -> "torch.nn.Module":
        import torch  # noqa: PLC0415

        call: Callable[[Any, Any], Any] = self._descriptor._call_fn
        model = self._descriptor.model

        class Network(torch.nn.Module):  # type: ignore[misc]
            def __init__(self) -> None:
                super().__init__()
                self.model = model

            def forward(self, image: torch.Tensor) -> torch.Tensor:
                result: torch.Tensor = call(self.model, image)
                return result

        return Network().eval()


def require(suffix: str) -> None:
    """Make sure that files of this kind can be read.

    Raises:
        MissingConverterError: PyTorch or spandrel is not installed.

    """
    try:
        import onnxscript  # noqa: F401, PLC0415
        import spandrel  # noqa: F401, PLC0415
        import torch  # noqa: F401, PLC0415
    except ImportError as error:
        raise MissingConverterError(
            f"{suffix} files need PyTorch and spandrel: pip install 'tilewire[convert]'"
        ) from error


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint of an architecture that spandrel knows.

    Raises:
        MissingConverterError: PyTorch or spandrel is not installed.
        UnsuitableModelError: The file is broken, holds code, or is no network that upscales RGB images.

    """
    require(path.suffix)
    import spandrel  # noqa: PLC0415

    state = _read_state(path)
    try:
        descriptor: Any = spandrel.ModelLoader(device="cpu").load_from_state_dict(state)
    except spandrel.UnsupportedModelError as error:
        raise UnsuitableModelError("it is of no architecture that is known to upscale images") from error
    except Exception as error:  # what a detector or a loader makes of numbers that do not fit together
        raise UnsuitableModelError(
            f"its weights do not fit together: {type(error).__name__}: {one_line(error, 200)}"
        ) from error
    name = descriptor.architecture.name
    if descriptor.purpose != "SR":
        purpose = _PURPOSES.get(descriptor.purpose, descriptor.purpose)
        raise UnsuitableModelError(f"it is a {name} network, which {purpose}; an upscaler is needed")
    channels = (descriptor.input_channels, descriptor.output_channels)
    if channels != (3, 3):
        raise UnsuitableModelError(
            f"it takes images of {channels[0]} channels and gives {channels[1]}; RGB has 3"
        )
    return Checkpoint(descriptor)


def _read_state(path: Path) -> Any:
    import spandrel  # noqa: PLC0415
    import torch  # noqa: PLC0415
    from safetensors import SafetensorError  # noqa: PLC0415
    from safetensors.torch import load_file  # noqa: PLC0415

    try:
        if path.suffix.lower() == ".safetensors":
            state: Any = load_file(path, device="cpu")
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UnsuitableModelError(
            f"it is broken, or holds more than numbers, which is not read: {one_line(error, 200)}"
        ) from error
    except (OSError, SafetensorError, RuntimeError, ValueError, EOFError, KeyError) as error:
        raise UnsuitableModelError(f"it is broken: {one_line(error, 200)}") from error
    if not isinstance(state, dict):
        raise UnsuitableModelError("it holds no weights by name")
    return spandrel.canonicalize_state_dict(state)


def _trace(network: "torch.nn.Module", height: int, width: int, opset: int) -> onnx.ModelProto:
    """What the network does with one image."""
    import torch  # noqa: PLC0415

    file = io.BytesIO()
    with torch.inference_mode():
        torch.onnx.export(
            network,
            (torch.rand(1, 3, height, width),),
            file,
            dynamo=False,
            verbose=False,
            opset_version=opset,
            input_names=["x"],
            output_names=["y"],
            dynamic_axes={"x": {0: "n", 2: "h", 3: "w"}, "y": {0: "n"}},
        )
    return onnx.load_model_from_string(file.getvalue())


def _export(network: "torch.nn.Module", height: int, width: int, opset: int) -> onnx.ModelProto:
    """What the network does, symbolically."""
    import torch  # noqa: PLC0415

    free = torch.export.Dim.DYNAMIC
    with torch.no_grad():
        program = torch.onnx.export(
            network,
            (torch.rand(2, 3, height, width),),
            dynamo=True,
            opset_version=opset,
            input_names=["x"],
            output_names=["y"],
            dynamic_shapes={"image": {0: free, 2: free, 3: free}},
            verbose=False,
        )
    assert program is not None
    graph: onnx.ModelProto = program.model_proto
    return graph
