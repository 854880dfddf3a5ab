"""PyTorch checkpoints (`.pth`, `.ckpt`, `.safetensors`) as ONNX graphs.

spandrel (https://github.com/chaiNNer-org/spandrel) finds out which architecture a checkpoint belongs to and
builds the network; PyTorch exports it. Only numbers are read from a checkpoint: a pickle can hold code, and
that is refused, not run. Both packages are large and come with `pip install 'tilewire[convert]'`.
"""

import io
import logging
import pickle
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_models.errors import MissingConverterError, UnsuitableModelError, one_line
from onnx_models.face_layers import exportable
from onnx_models.quiet import quietly
from onnx_models.sizes import SizeRule
from onnx_models.swin import traceable

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

__all__ = ["SUFFIXES", "Checkpoint", "FaceCheckpoint", "read_checkpoint", "require"]

SUFFIXES = (".pth", ".ckpt", ".safetensors")

_OPSETS = {"traced": 17, "exported": 18}
_SIDE = 48
_PURPOSES = {
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


class FaceCheckpoint:
    """A network that restores faces, as PyTorch runs it: (N, 3, S, S) in [-1, 1], both ways.

    It is called as its authors do: what spandrel has for it leaves that range to the caller in some cases.

    Attributes:
        architecture: Its name, such as GFPGAN.
        takes_weight: Whether it can be told how near to stay to what is seen.
    """

    def __init__(self, descriptor: Any) -> None:
        self.architecture: str = descriptor.architecture.name
        self.takes_weight = self.architecture == "CodeFormer"
        self._model = descriptor.eval().model

    def run(self, face: NDArray[np.float32], weight: float | None) -> NDArray[np.float32]:
        """What it makes of one face, (3, S, S) in [-1, 1]; not clipped."""
        import torch  # noqa: PLC0415 - large, and only there with the extra

        beside = () if weight is None else (torch.tensor([weight]),)
        with torch.inference_mode():
            found: NDArray[np.float32] = self._network()(torch.from_numpy(face[np.newaxis].copy()), *beside)[
                0
            ].numpy()
        return found

    def graph(self, side: int) -> onnx.ModelProto:
        """The network as ONNX: from `face` and maybe `weight`, (N), to `restored`, with N dynamic."""
        import torch  # noqa: PLC0415

        file = io.BytesIO()
        inputs: list[torch.Tensor] = [torch.rand(1, 3, side, side) * 2 - 1]
        names = ["face"]
        if self.takes_weight:
            inputs.append(torch.tensor([0.5]))
            names.append("weight")
        with quietly(), torch.inference_mode(), exportable(self._model):
            torch.onnx.export(
                self._network(),
                tuple(inputs),
                file,
                dynamo=False,
                verbose=False,
                opset_version=_OPSETS["traced"],
                input_names=names,
                output_names=["restored"],
                dynamic_axes={name: {0: "n"} for name in [*names, "restored"]},
            )
        return onnx.load_model_from_string(file.getvalue())

    def _network(self) -> "torch.nn.Module":
        import torch  # noqa: PLC0415

        model, architecture = self._model, self.architecture

        class Network(torch.nn.Module):  # type: ignore[misc]
            def __init__(self) -> None:
                super().__init__()
                self.model = model

            def forward(self, face: torch.Tensor, *weight: torch.Tensor) -> torch.Tensor:
                if architecture == "GFPGAN":  # with the noise that it was stored with, not another each time
                    found = self.model(face, return_rgb=False, randomize_noise=False)
                elif weight:
                    found = self.model(face, weight=weight[0].reshape(-1, 1, 1, 1))
                else:
                    found = self.model(face)
                restored: torch.Tensor = found[0]
                return restored

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


def read_checkpoint(path: Path) -> Checkpoint | FaceCheckpoint:
    """Read a checkpoint of an architecture that spandrel knows, to upscale or to restore faces.

    Raises:
        MissingConverterError: PyTorch or spandrel is not installed.
        UnsuitableModelError: The file is broken, holds code, or is no network that upscales RGB images.
    """
    require(path.suffix)
    import spandrel  # noqa: PLC0415

    state = _read_state(path)
    with suppress(ImportError):  # CodeFormer's is there, for those who have accepted its licence
        from spandrel_extra_arches.architectures.CodeFormer import CodeFormerArch  # noqa: PLC0415

        support = spandrel.ArchSupport.from_architecture(CodeFormerArch())
        spandrel.MAIN_REGISTRY.add(support, ignore_duplicates=True)
    try:
        descriptor: Any = spandrel.ModelLoader(device="cpu").load_from_state_dict(state)
    except spandrel.UnsupportedModelError as error:
        if "position_emb" in state and "idx_pred_layer.1.weight" in state:
            raise MissingConverterError(
                "CodeFormer networks need spandrel's architectures for non-commercial use: "
                "pip install spandrel_extra_arches"
            ) from error
        raise UnsuitableModelError("it is of no architecture that is known to upscale images") from error
    except Exception as error:  # what a detector or a loader makes of numbers that do not fit together
        raise UnsuitableModelError(
            f"its weights do not fit together: {type(error).__name__}: {one_line(error, 200)}"
        ) from error
    name = descriptor.architecture.name
    if descriptor.purpose == "FaceSR":
        return FaceCheckpoint(descriptor)
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
