"""Stable Diffusion's latent upscaler, diffusers' `StableDiffusionLatentUpscalePipeline`, as parts to export.

The UNet's layers that halve and double the resolution make a kernel for as many channels as they are given,
which cannot be exported; as depthwise convolutions of the channels that they have they compute the same.
"""

from collections.abc import Iterator
from typing import Any

from onnx_models.diffusers.part import (
    Arrays,
    Components,
    Examples,
    Kind,
    Part,
    decoder_part,
    encoder_part,
)
from onnx_models.model import LatentWeights

__all__ = ["LATENT_X2"]

_NOISE_LEVELS = 128  # what precedes the pooled prompt in the UNet's condition


def _architecture(found: Components) -> dict[str, tuple[Any, Any]]:
    channels = found.vae.config.latent_channels
    width = found.text_encoder.config.hidden_size
    unet = found.unet.config
    return {
        "unet takes noise and image": (unet.in_channels, 2 * channels),
        "unet gives latents and a variance": (unet.out_channels, channels + 1),
        "unet's cross attention": (unet.cross_attention_dim, width),
        "unet's condition": (unet.time_cond_proj_dim, _NOISE_LEVELS + width),
        "vae's image": (found.vae.config.in_channels, 3),
    }


def _layout(found: Components) -> dict[str, Any]:
    return {"cell": found.cell, "scale": 2}


def _parts(found: Components, half: bool) -> Iterator[Part]:
    import torch  # noqa: PLC0415

    kind = torch.float16 if half else torch.float32
    examples = Examples(found)
    text_encoder, unet = found.text_encoder, found.unet
    _fix_channels(unet)

    class TextEncoder(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = text_encoder

        def forward(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            found = self.model(tokens, output_hidden_states=True)
            return found.hidden_states[-1].float(), found.pooler_output.float()

    class Unet(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = unet

        def forward(
            self, noisy: torch.Tensor, time: torch.Tensor, context: torch.Tensor, condition: torch.Tensor
        ) -> torch.Tensor:
            found = self.model(
                noisy.to(kind), time, context.to(kind), timestep_cond=condition.to(kind), return_dict=False
            )[0]
            return found[:, :-1].float()  # the last channel is a variance that nobody uses

    def noisy(count: int, height: int, columns: int) -> Arrays:
        shape = count, unet.config.in_channels, height, columns
        condition = examples.normal(count, _NOISE_LEVELS + examples.words)
        context = examples.normal(count, examples.tokens, examples.words)
        return examples.normal(*shape), examples.normal(count), context, condition

    batch, side = {0: "batch"}, examples.side
    yield Part(
        "text_encoder", TextEncoder().eval().to(kind), ("tokens",), ("context", "pooled"),
        {"tokens": batch}, ((examples.ids(2),), (examples.ids(1),)),
    )  # fmt: skip
    yield encoder_part(found, kind, examples)
    yield Part(
        "unet", Unet().eval().to(kind), ("noisy", "time", "context", "condition"), ("denoised",),
        {"noisy": {0: "batch", 2: "height", 3: "width"}, "time": batch, "context": batch, "condition": batch},
        (noisy(2, side, 2 * side), noisy(1, 2 * side, side)),
    )  # fmt: skip
    yield decoder_part(found, kind, examples)


def _fix_channels(unet: Any) -> None:
    """Replace the layers that halve and double the resolution by depthwise convolutions."""
    import torch  # noqa: PLC0415
    from diffusers.models.downsampling import KDownsample2D  # noqa: PLC0415
    from diffusers.models.upsampling import KUpsample2D  # noqa: PLC0415

    class Depthwise(torch.nn.Module):  # type: ignore[misc]
        def __init__(self, layer: Any, channels: int) -> None:
            super().__init__()
            self.up = isinstance(layer, KUpsample2D)
            self.pad, self.mode, self.channels = layer.pad, layer.pad_mode, channels
            self.register_buffer("kernel", layer.kernel[None, None].repeat(channels, 1, 1, 1))

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            functional = torch.nn.functional
            if not self.up:
                padded = functional.pad(inputs, (self.pad,) * 4, self.mode)
                return functional.conv2d(padded, self.kernel, stride=2, groups=self.channels)
            padded = functional.pad(inputs, ((self.pad + 1) // 2,) * 4, self.mode)
            return functional.conv_transpose2d(
                padded, self.kernel, stride=2, padding=self.pad * 2 + 1, groups=self.channels
            )

    channels: dict[Any, int] = {}
    layers = [layer for layer in unet.modules() if isinstance(layer, KDownsample2D | KUpsample2D)]
    hooks = [
        layer.register_forward_pre_hook(lambda layer, inputs: channels.update({layer: inputs[0].shape[1]}))
        for layer in layers
    ]
    config = unet.config
    side = 2 * 2 ** (len(config.block_out_channels) - 1)
    with torch.inference_mode():
        unet(
            torch.zeros(1, config.in_channels, side, side),
            torch.zeros(1),
            torch.zeros(1, 1, config.cross_attention_dim),
            timestep_cond=torch.zeros(1, config.time_cond_proj_dim),
        )
    for hook in hooks:
        hook.remove()
    for parent in list(unet.modules()):
        for name, layer in list(parent.named_children()):
            if layer in channels:
                setattr(parent, name, Depthwise(layer, channels[layer]))


LATENT_X2 = Kind(
    pipelines=("StableDiffusionLatentUpscalePipeline",),
    weights=LatentWeights,
    components=("text_encoder", "tokenizer", "unet", "vae", "scheduler"),
    # Of the others diffusers' pipeline makes noise: it scales as those do that count noise in deviations.
    schedulers=("EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler", "HeunDiscreteScheduler"),
    predictions=("sample",),
    architecture=_architecture,
    parts=_parts,
    layout=_layout,
    window=lambda _pipeline: 512,
)
