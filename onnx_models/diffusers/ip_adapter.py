"""IP-Adapters, which let a UNet see an image beside the prompt (Ye et al., IP-Adapter, 2023).

One is a file of weights beside a folder `image_encoder`, CLIP's: a projection makes tokens of what that
returns, and each cross attention of the UNet has keys and values for them. The plain layout projects CLIP's
embedding of the image, "plus" resamples its last layer but one. The layouts of the files are those of
https://huggingface.co/h94/IP-Adapter.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from onnx_models.diffusers.folder import Config, read_json
from onnx_models.diffusers.part import Components, Examples, Part
from onnx_models.diffusers.tensors import read_header
from onnx_models.errors import UnsuitableModelError

if TYPE_CHECKING:
    import torch

__all__ = ["IMAGE", "IpAdapter", "find_ip_adapter", "image_encoder_part", "read_image_encoder"]

IMAGE = "ip_hidden_states"
"""The keyword by which a UNet of diffusers hands the image's tokens and their weight to its attention."""

_SIDE = 224
_MEAN = (0.48145466, 0.4578275, 0.40821073)
_DEVIATION = (0.26862954, 0.26130258, 0.27577711)
"""What CLIP was trained with: https://github.com/openai/CLIP, `clip/clip.py`."""

_OTHERS = {
    "image_proj.proj.3.weight": "one for whole faces",
    "image_proj.perceiver_resampler.proj_in.weight": "a FaceID plus one",
    "image_proj.proj.0.weight": "a FaceID one",
}
"""Layouts that are not read, by what tells them."""


class IpAdapter(Struct, frozen=True):
    """Where the files of an IP-Adapter are."""

    weights: Path
    image_encoder: Path
    """A folder."""
    plus: bool


def find_ip_adapter(path: Path) -> IpAdapter:
    """Find the files of an IP-Adapter, and see which layout it has.

    Args:
        path: The folder of the only one, or its file. Its image encoder is the folder `image_encoder` beside
            it, or that of the folder `models` beside its own, whichever it was trained with.

    Raises:
        UnsuitableModelError: There is none, there are several, or its layout is not read.
    """
    weights = path if path.is_file() else _only(path)
    shapes = read_header(weights).shapes
    for key, what in _OTHERS.items():
        if key in shapes:
            raise UnsuitableModelError(f"the IP-Adapter {weights.name} is {what}, which is not offered")
    plain, plus = (shapes.get(f"image_proj.{key}") for key in ("proj.weight", "proj_in.weight"))
    shape = plain or plus
    if shape is None or len(shape) != 2 or not any(key.startswith("ip_adapter.") for key in shapes):
        raise UnsuitableModelError(f"{weights.name} is no IP-Adapter whose layout is known")
    width = "hidden_size" if plain is None else "projection_dim"
    folders = [weights.parent / "image_encoder", weights.parent.parent / "models" / "image_encoder"]
    found = {folder: _width(folder, width) for folder in folders if (folder / "config.json").exists()}
    for folder, wide in found.items():
        if wide == shape[1]:
            return IpAdapter(weights, folder, plus is not None)
    if found:
        raise UnsuitableModelError(
            f"the IP-Adapter {weights.name} was trained with another image encoder: {width} {shape[1]}, not "
            f"{' or '.join(map(str, found.values()))}"
        )
    raise UnsuitableModelError(f"the IP-Adapter's folder image_encoder is missing beside {weights.name}")


def _only(folder: Path) -> Path:
    if not folder.is_dir():
        raise UnsuitableModelError(f"there is no IP-Adapter {folder}")
    files = sorted(folder.glob("ip-adapter*.safetensors"))
    if len(files) == 1:
        return files[0]
    if files:
        names = ", ".join(file.name for file in files)
        raise UnsuitableModelError(f"there are several IP-Adapters in {folder}; give one of them: {names}")
    if any(folder.glob("ip-adapter*.bin")):
        raise UnsuitableModelError(
            "the IP-Adapter is a pickle (.bin), which may hold code: take .safetensors"
        )
    raise UnsuitableModelError(f"there is no IP-Adapter in {folder}: ip-adapter*.safetensors is missing")


def _width(folder: Path, key: str) -> int:
    config = read_json(folder / "config.json", "the IP-Adapter's image_encoder is missing")
    values = Config("image_encoder", config, {"hidden_size": 768, "projection_dim": 512, "image_size": 224})
    values.choice("image_size", [_SIDE])
    return values.whole(key, 1, 10**6)


def read_image_encoder(adapter: IpAdapter, encoder: Any, unet: Any) -> Any:
    """Read an IP-Adapter: give the UNet's attention its weights, and return what makes tokens of pixels.

    Args:
        adapter: Where it is.
        encoder: CLIP's, of transformers.
        unet: Of diffusers; it is changed.

    Returns:
        A module, from pixels (N, 3, 224, 224) as CLIP takes them to (tokens, those of no image), (N, K, D)
        each; its `tokens` is K.

    Raises:
        UnsuitableModelError: It is for another UNet.
    """
    import torch  # noqa: PLC0415
    from safetensors.torch import load_file  # noqa: PLC0415

    weights = load_file(adapter.weights)
    of_unet, of_projection = (
        {key.removeprefix(each): value.float() for key, value in weights.items() if key.startswith(each)}
        for each in ("ip_adapter.", "image_proj.")
    )
    _install(of_unet, unet)
    projection = unet._convert_ip_adapter_image_proj_to_diffusers(of_projection, low_cpu_mem_usage=False)

    class ImageEncoder(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.projection = encoder, projection

        def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            found, nothing = (self.seen(each) for each in (pixels, torch.zeros_like(pixels)))
            return self.projection(found), self.projection(nothing)

        def seen(self, pixels: torch.Tensor) -> torch.Tensor:
            return self.encoder(pixels, output_hidden_states=True).hidden_states[-2]

    class PlainImageEncoder(ImageEncoder):
        def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            found = self.encoder(pixels).image_embeds
            return self.projection(found), self.projection(torch.zeros_like(found))

    module = (ImageEncoder if adapter.plus else PlainImageEncoder)().eval()
    with torch.inference_mode():
        module.tokens = module(torch.zeros(1, 3, _SIDE, _SIDE))[0].shape[1]
    return module


def image_encoder_part(found: Components, kind: "torch.dtype", examples: Examples) -> Part:
    """What makes tokens of an image, with CLIP's scaling of its pixels."""
    import torch  # noqa: PLC0415

    class Tokens(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = found.image_encoder

        def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            pixels = (image.float() / 255 - torch.tensor(_MEAN)) / torch.tensor(_DEVIATION)
            tokens, nothing = self.model(pixels.permute(0, 3, 1, 2).to(kind))
            return tokens.float(), nothing.float()

    return Part(
        "image_encoder", Tokens().eval().to(kind), ("image",), ("image_tokens", "unconditional"),
        {"image": {0: "batch"}}, ((examples.image(2, _SIDE, _SIDE),), (examples.image(1, _SIDE, _SIDE),)),
    )  # fmt: skip


def _install(weights: Mapping[str, "torch.Tensor"], unet: Any) -> None:
    """Give each cross attention of a UNet keys and values for an image's tokens.

    Args:
        weights: By names such as `1.to_k_ip.weight`: the odd numbers count the cross attentions.
        unet: Of diffusers; it is changed.

    Raises:
        UnsuitableModelError: They are for another UNet.
    """
    import torch  # noqa: PLC0415
    from torch.nn.functional import linear, scaled_dot_product_attention  # noqa: PLC0415

    class ImageAttention(torch.nn.Module):  # type: ignore[misc]
        """What diffusers' `IPAdapterAttnProcessor2_0` does, with a weight that is an input."""

        def __init__(self, key: torch.Tensor, value: torch.Tensor) -> None:
            super().__init__()
            self.key, self.value = (torch.nn.Parameter(each, requires_grad=False) for each in (key, value))

        def __call__(
            self,
            attn: Any,
            hidden_states: torch.Tensor,
            encoder_hidden_states: torch.Tensor,
            attention_mask: None = None,  # noqa: ARG002 - diffusers gives it
            *,
            ip_hidden_states: tuple[torch.Tensor, torch.Tensor],
        ) -> torch.Tensor:
            tokens, weight = ip_hidden_states

            def heads(values: torch.Tensor) -> torch.Tensor:
                return values.unflatten(2, (attn.heads, -1)).transpose(1, 2)

            query = heads(attn.to_q(hidden_states))
            text, image = (
                scaled_dot_product_attention(query, heads(key), heads(value))
                for key, value in (
                    (attn.to_k(encoder_hidden_states), attn.to_v(encoder_hidden_states)),
                    (linear(tokens, self.key), linear(tokens, self.value)),
                )
            )
            both = (text + weight[:, None, None, None] * image).transpose(1, 2).flatten(2)
            return attn.to_out[1](attn.to_out[0](both))

    layers = [unet.get_submodule(name.removesuffix(".processor")) for name in unet.attn_processors]
    layers = [layer for layer in layers if layer.is_cross_attention]
    names = [[f"{2 * index + 1}.to_{each}_ip.weight" for each in "kv"] for index in range(len(layers))]
    if {*weights} != {name for pair in names for name in pair}:
        raise UnsuitableModelError(
            f"the IP-Adapter is for another UNet: it has {len(weights) // 2} layers, not {len(layers)}"
        )
    for layer, pair in zip(layers, names, strict=True):
        for old, name in zip((layer.to_k, layer.to_v), pair, strict=True):
            if old.weight.shape != weights[name].shape:
                raise UnsuitableModelError(
                    f"the IP-Adapter is for another UNet: {name} is {[*weights[name].shape]}, not "
                    f"{[*old.weight.shape]}"
                )
        layer.set_processor(ImageAttention(*(weights[name] for name in pair)))
