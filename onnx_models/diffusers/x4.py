"""Stable Diffusion's x4 upscaler, diffusers' `StableDiffusionUpscalePipeline`, as parts to export.

Its UNet sees the image itself, not its latents, with some noise added, and takes the level of that noise as a
class label. What stands for the VAE's encoder returns mean and deviation of the noisy pixels. The UNet counts
time in steps of its training and returns what `prediction` converts. The VAE overflows in half precision, as
diffusers knows, and stays in single.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_models.diffusers.folder import Config, read_json
from onnx_models.diffusers.part import Arrays, Components, Examples, Kind, Part, decoder_part
from onnx_models.diffusers.prediction import as_velocity, noise_times, training_steps
from onnx_models.diffusers.schedule import read_training
from onnx_models.model import LatentWeights

__all__ = ["X4"]


def _architecture(found: Components) -> dict[str, tuple[Any, Any]]:
    channels = found.vae.config.latent_channels
    unet = found.unet.config
    return {
        "unet takes noise and image": (unet.in_channels, channels + 3),
        "unet gives latents": (unet.out_channels, channels),
        "unet's cross attention": (unet.cross_attention_dim, found.text_encoder.config.hidden_size),
        "unet's levels of noise": (bool(unet.num_class_embeds), True),
        "vae's image": (found.vae.config.in_channels, 3),
        "vae's cell": (2 ** (len(found.vae.config.block_out_channels) - 1), 4),
    }


def _layout(found: Components) -> dict[str, Any]:
    levels = _levels(found)
    return {
        "scale": 4,
        "cell": 1,
        "spread": 1,
        "noise_levels": levels,
        "default_noise_level": min(_DEFAULT_NOISE_LEVEL, levels - 1),
    }


def _levels(found: Components) -> int:
    """How many levels of noise the pipeline takes, of those that the UNet and the schedule have."""
    index = read_json(found.directory / "model_index.json", "it is not a directory of diffusers")
    steps = read_training(found.directory, "low_res_scheduler").noise_steps
    most = Config("pipeline", index, {"max_noise_level": 350}).whole("max_noise_level", 0, 10**6)
    levels: int = min(found.unet.config.num_class_embeds, steps, most + 1)
    return levels


_DEFAULT_NOISE_LEVEL = 20
"""That of diffusers' pipeline."""


def _parts(found: Components, half: bool) -> Iterator[Part]:
    import torch  # noqa: PLC0415

    kind = torch.float16 if half else torch.float32
    examples = Examples(found)
    text_encoder, unet = found.text_encoder, found.unet
    kept = torch.from_numpy(read_training(found.directory, "low_res_scheduler").kept()).float()
    times = noise_times(found.schedule.training)
    prediction = found.schedule.prediction
    scaling = found.vae.config.scaling_factor  # which the engine multiplies by

    class TextEncoder(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = text_encoder

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return self.model(tokens).last_hidden_state.float()

    class NoisyImage(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("kept", kept)

        def forward(self, image: torch.Tensor, level: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            planes = image.float().permute(0, 3, 1, 2) * (2 / 255) - 1
            share: torch.Tensor = self.kept[level][:, None, None, None]
            return planes * (share.sqrt() / scaling), ((1 - share).sqrt() / scaling).expand_as(planes)

    class Unet(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = unet
            self.register_buffer("times", times)

        def forward(
            self, noisy: torch.Tensor, time: torch.Tensor, context: torch.Tensor, level: torch.Tensor
        ) -> torch.Tensor:
            step = training_steps(self.times, time)
            found = self.model(noisy.to(kind), step, context.to(kind), class_labels=level, return_dict=False)[
                0
            ].float()
            return as_velocity(prediction, found, noisy[:, : found.shape[1]], torch.exp(4 * time))

    def noisy(count: int, height: int, columns: int) -> Arrays:
        shape = count, unet.config.in_channels, height, columns
        time = np.linspace(-0.5, 0.5, count, dtype=np.float32)
        words = examples.normal(count, examples.tokens, examples.words)
        return examples.normal(*shape), time, words, level(count)

    def level(count: int) -> NDArray[np.int64]:
        return np.arange(count, dtype=np.int64) % _levels(found)

    images = tuple((image, level(len(image))) for (image,) in examples.images(1))

    batch, side = {0: "batch"}, examples.side
    module = Unet().eval().to(kind)
    module.times = times  # as exact as they were
    yield Part(
        "text_encoder", TextEncoder().eval().to(kind), ("tokens",), ("context",),
        {"tokens": batch}, ((examples.ids(2),), (examples.ids(1),)),
    )  # fmt: skip
    yield Part(
        "vae_encoder", NoisyImage().eval(), ("image", "level"), ("mean", "deviation"),
        {"image": {0: "batch", 1: "height", 2: "width"}, "level": batch}, images,
    )  # fmt: skip
    yield Part(
        "unet", module, ("noisy", "time", "context", "level"), ("denoised",),
        {"noisy": {0: "batch", 2: "height", 3: "width"}, "time": batch, "context": batch, "level": batch},
        (noisy(2, side, 2 * side), noisy(1, 2 * side, side)),
    )  # fmt: skip
    yield decoder_part(found, torch.float32, examples)


X4 = Kind(
    pipelines=("StableDiffusionUpscalePipeline",),
    weights=LatentWeights,
    components=("text_encoder", "tokenizer", "unet", "vae", "scheduler", "low_res_scheduler"),
    schedulers=(
        "DDIMScheduler",
        "EulerDiscreteScheduler",
        "EulerAncestralDiscreteScheduler",
        "HeunDiscreteScheduler",
    ),
    predictions=("epsilon", "v_prediction", "sample"),
    architecture=_architecture,
    parts=_parts,
    layout=_layout,
    window=lambda _pipeline: 256,
)
