"""The trained networks as the ONNX files that the runtime takes; see `onnx_models.model.LatentWeights`."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from onnx_models.training.networks import CELL, CHANNELS, Decoder, Encoder
from onnx_models.training.train import Networks

__all__ = ["export"]

_OPSET = 18
_SMALL = 1024
"""Constants of fewer numbers stay as they are."""


def export(networks: Networks, directory: Path) -> list[Path]:
    """Write `vae_encoder.onnx`, `unet.onnx` and `vae_decoder.onnx`: weights in fp16, computed in fp32."""
    directory.mkdir(parents=True, exist_ok=True)
    height, width = 6, 10
    image = torch.zeros(2, CELL * height, CELL * width, 3, dtype=torch.uint8)
    latents = torch.zeros(2, CHANNELS, height, width)
    noisy = torch.zeros(2, 2 * CHANNELS, height, width)
    parts: list[tuple[str, nn.Module, dict[str, Tensor], list[str]]] = [
        ("vae_encoder", _Encode(networks.encoder), {"image": image}, ["mean", "deviation"]),
        ("unet", networks.denoiser, {"noisy": noisy, "time": torch.zeros(2)}, ["denoised"]),
        ("vae_decoder", _Decode(networks.decoder), {"latents": latents}, ["image"]),
    ]
    files = []
    for name, module, inputs, outputs in parts:
        file = directory / f"{name}.onnx"
        _export(module.eval(), inputs, outputs, file)
        files.append(file)
    return files


class _Encode(nn.Module):
    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """A picture has one latent: the deviation is 0."""
        mean = self.encoder(image.permute(0, 3, 1, 2).float() / 255)
        return mean, torch.zeros_like(mean)


class _Decode(nn.Module):
    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, latents: Tensor) -> Tensor:
        found: Tensor = self.decoder(latents).permute(0, 2, 3, 1)
        return found


def _export(module: nn.Module, inputs: dict[str, Tensor], outputs: list[str], file: Path) -> None:
    """Of any batch and size."""
    shapes = {name: dict.fromkeys(_free_axes(name), torch.export.Dim.DYNAMIC) for name in inputs}
    program = torch.onnx.export(
        module.to(memory_format=torch.contiguous_format),
        tuple(inputs.values()),
        input_names=list(inputs),
        output_names=outputs,
        dynamic_shapes=tuple(shapes.values()),
        dynamo=True,
        opset_version=_OPSET,
        verbose=False,
    )
    program.optimize()
    model = program.model_proto
    _halve_weights(model.graph)
    _forget_origins(model)
    onnx.checker.check_model(model, full_check=True)
    file.write_bytes(model.SerializeToString())


def _free_axes(name: str) -> tuple[int, ...]:
    return {"image": (0, 1, 2), "time": (0,)}.get(name, (0, 2, 3))


def _halve_weights(graph: onnx.GraphProto) -> None:
    """Keep weights in fp16 and cast them when the file is loaded, which every runtime does but once."""
    casts = []
    for tensor in graph.initializer:
        array: np.ndarray[Any, Any] = numpy_helper.to_array(tensor)
        if tensor.data_type != TensorProto.FLOAT or array.size < _SMALL:
            continue
        name, half = tensor.name, f"{tensor.name}.half"
        tensor.CopyFrom(numpy_helper.from_array(array.astype(np.float16), half))
        casts.append(helper.make_node("Cast", [half], [name], to=TensorProto.FLOAT))
    for value in [each for each in graph.value_info if each.name in {cast.output[0] for cast in casts}]:
        graph.value_info.remove(value)
    for cast in reversed(casts):
        graph.node.insert(0, cast)


def _forget_origins(model: onnx.ModelProto) -> None:
    """Drop what the exporter notes of the origin of each value: a fifth of a small file, and local paths."""
    graph = model.graph
    values = (*graph.value_info, *graph.initializer, *graph.input, *graph.output)
    for each in (model, graph, *graph.node, *values):
        each.ClearField("metadata_props")
