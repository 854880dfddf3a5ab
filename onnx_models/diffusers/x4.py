"""Stable Diffusion's x4 upscaler, diffusers' `StableDiffusionUpscalePipeline`, as parts to export.

Its UNet sees the image itself, not its latents, with some noise added, and takes the level of that noise as a
class label. What stands for the VAE's encoder returns mean and deviation of the noisy pixels. The UNet counts
time in steps of its training and returns the velocity of Salimans and Ho, Progressive Distillation (2022);
the exported UNet converts both into what `LatentWeights` describes. The VAE overflows in half precision, as
diffusers knows, and stays in single.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from onnx_models.diffusers.part import Arrays, Components, Examples, Kind, Part, decoder_part

__all__ = ["X4"]

_NOISE_LEVEL = 20
"""The step of the noise that is added to the image: the default of diffusers."""


def _architecture(found: Components) -> dict[str, tuple[Any, Any]]:
    channels = found.vae.config.latent_channels
    unet = found.unet.config
    return {
        "unet takes noise and image": (unet.in_channels, channels + 3),
        "unet gives latents": (unet.out_channels, channels),
        "unet's cross attention": (unet.cross_attention_dim, found.text_encoder.config.hidden_size),
        "unet's levels of noise": ((unet.num_class_embeds or 0) > _NOISE_LEVEL, True),
        "vae's image": (found.vae.config.in_channels, 3),
        "vae's cell": (2 ** (len(found.vae.config.block_out_channels) - 1), 4),
    }


def _layout(_found: Components) -> dict[str, Any]:
    return {"scale": 4, "cell": 1, "spread": 1, "spacing": "leading"}


def _parts(found: Components, half: bool) -> Iterator[Part]:
    import torch  # noqa: PLC0415
    from diffusers import DDIMScheduler, DDPMScheduler  # noqa: PLC0415

    kind = torch.float16 if half else torch.float32
    examples = Examples(found)
    text_encoder, unet = found.text_encoder, found.unet
    of_image = DDPMScheduler.from_pretrained(found.directory, subfolder="low_res_scheduler")
    kept = float(of_image.alphas_cumprod[_NOISE_LEVEL])
    trained = DDIMScheduler.from_pretrained(found.directory, subfolder="scheduler").alphas_cumprod.double()
    levels = (((1 - trained) / trained).sqrt().log() / 4).float()
    scaling = found.vae.config.scaling_factor  # which the engine multiplies by

    class TextEncoder(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = text_encoder

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return self.model(tokens).last_hidden_state.float()

    class NoisyImage(torch.nn.Module):  # type: ignore[misc]
        def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            planes = image.float().permute(0, 3, 1, 2) * (2 / 255) - 1
            return planes * (kept**0.5 / scaling), torch.full_like(planes, (1 - kept) ** 0.5 / scaling)

    class Unet(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = unet
            self.register_buffer("levels", levels)

        def forward(self, noisy: torch.Tensor, time: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
            known: torch.Tensor = self.levels
            below = (known[None] <= time[:, None]).sum(1).clamp(1, len(levels) - 1) - 1
            step = below + (time - known[below]) / (known[below + 1] - known[below])
            level = torch.full_like(below, _NOISE_LEVEL)
            velocity = self.model(
                noisy.to(kind), step, context.to(kind), class_labels=level, return_dict=False
            )[0]
            return -velocity.float()

    def noisy(count: int, height: int, columns: int) -> Arrays:
        shape = count, unet.config.in_channels, height, columns
        time = np.linspace(-0.5, 0.5, count, dtype=np.float32)
        return examples.normal(*shape), time, examples.normal(count, examples.tokens, examples.words)

    batch, side = {0: "batch"}, examples.side
    module = Unet().eval().to(kind)
    module.levels = levels  # as exact as they were
    yield Part(
        "text_encoder", TextEncoder().eval().to(kind), ("tokens",), ("context",),
        {"tokens": batch}, ((examples.ids(2),), (examples.ids(1),)),
    )  # fmt: skip
    yield Part(
        "vae_encoder", NoisyImage().eval(), ("image",), ("mean", "deviation"),
        {"image": {0: "batch", 1: "height", 2: "width"}}, examples.images(1),
    )  # fmt: skip
    yield Part(
        "unet", module, ("noisy", "time", "context"), ("denoised",),
        {"noisy": {0: "batch", 2: "height", 3: "width"}, "time": batch, "context": batch},
        (noisy(2, side, 2 * side), noisy(1, 2 * side, side)),
    )  # fmt: skip
    yield decoder_part(found.vae, torch.float32, examples)


X4 = Kind(
    pipeline="StableDiffusionUpscalePipeline",
    components=("text_encoder", "tokenizer", "unet", "vae", "scheduler", "low_res_scheduler"),
    schedule={
        "_class_name": {"DDIMScheduler"},
        "beta_schedule": {"scaled_linear"},
        "clip_sample": {False},
        "prediction_type": {"v_prediction"},
        "rescale_betas_zero_snr": {False},
        "steps_offset": {1},
        "thresholding": {False},
        "timestep_spacing": {"leading"},
        "trained_betas": {None},
    },
    architecture=_architecture,
    parts=_parts,
    layout=_layout,
)
