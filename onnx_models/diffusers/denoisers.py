"""The UNet of Stable Diffusion and its ControlNet as parts to export: see `CreativeWeights`."""

from typing import TYPE_CHECKING, Any

import numpy as np

from onnx_models.diffusers.ip_adapter import IMAGE
from onnx_models.diffusers.part import Arrays, Components, Examples, Part
from onnx_models.diffusers.prediction import as_velocity, noise_times, training_steps

if TYPE_CHECKING:
    import torch

__all__ = ["controlnet_part", "residuals_of", "unet_part"]

_AREA = {0: "batch", 2: "height", 3: "width"}
_BATCH = {0: "batch"}
_SIZES = (1024, 768, 0, 0, 512, 640)


def controlnet_part(found: Components, kind: "torch.dtype", examples: Examples) -> Part:
    """The ControlNet, which sees the picture and returns what is added inside the UNet."""
    import torch  # noqa: PLC0415

    times = noise_times(found.schedule.training)
    xl = found.text_encoder_2 is not None

    class ControlNet(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = found.controlnet
            self.register_buffer("times", times)

        def forward(
            self, noisy: torch.Tensor, time: torch.Tensor, context: torch.Tensor, *more: torch.Tensor
        ) -> tuple[torch.Tensor, ...]:
            down, middle = self.model(
                noisy.to(kind),
                training_steps(self.times, time),
                context.to(kind),
                (more[-1].float().permute(0, 3, 1, 2) / 255).to(kind),
                added_cond_kwargs=_added(more) if xl else None,
                return_dict=False,
            )
            return (*(each.float() for each in down), middle.float())

    module = ControlNet().eval().to(kind)
    module.times = times  # as exact as they were
    cell = found.cell
    tried = [
        (*_inputs(found, examples, *sizes), examples.image(count, cell * height, cell * width))
        for sizes in _tried_sizes(examples)
        for count, height, width in [sizes]
    ]
    inputs, axes = _conditions(xl)
    levels = _count(module, tried[0]) - 1
    return Part(
        "controlnet",
        module,
        (*inputs, "image"),
        _residual_names(levels),
        axes | {"image": {0: "batch", 1: "pixel_height", 2: "pixel_width"}},
        tuple(tried),
    )


def residuals_of(controlnet: Part) -> tuple[Arrays, ...]:
    """What a ControlNet adds inside the UNet, for each of its examples."""
    import torch  # noqa: PLC0415

    with torch.inference_mode():
        return tuple(
            [each.numpy() for each in controlnet.module(*map(torch.from_numpy, example))]
            for example in controlnet.examples
        )


def unet_part(
    found: Components, kind: "torch.dtype", examples: Examples, residuals: tuple[Arrays, ...] = ()
) -> Part:
    """The UNet.

    Args:
        found: The pipeline.
        kind: What it computes in.
        examples: Inputs to try it with.
        residuals: What its ControlNet adds, if it has one: see `residuals_of`.
    """
    import torch  # noqa: PLC0415

    times = noise_times(found.schedule.training)
    prediction = found.schedule.prediction
    xl, adapted = found.text_encoder_2 is not None, found.image_encoder is not None
    added = len(residuals[0]) if residuals else 0

    class Unet(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = found.unet
            self.register_buffer("times", times)

        def forward(
            self, noisy: torch.Tensor, time: torch.Tensor, context: torch.Tensor, *more: torch.Tensor
        ) -> torch.Tensor:
            control = [each.to(kind) for each in more[2 * xl :][:added]]
            image = (more[-2].to(kind), more[-1].to(kind)) if adapted else None
            predicted = self.model(
                noisy.to(kind),
                training_steps(self.times, time),
                context.to(kind),
                added_cond_kwargs=_added(more) if xl else None,
                down_block_additional_residuals=tuple(control[:-1]) if control else None,
                mid_block_additional_residual=control[-1] if control else None,
                cross_attention_kwargs={IMAGE: image} if adapted else None,
                return_dict=False,
            )[0]
            return as_velocity(prediction, predicted.float(), noisy, torch.exp(4 * time))

    module = Unet().eval().to(kind)
    module.times = times  # as exact as they were
    inputs, axes = _conditions(xl)
    control = _residual_names(added - 1) if added else ()
    for index, name in enumerate(control):
        axes[name] = {0: "batch", 2: f"height_{index}", 3: f"width_{index}"}
    tried = [_inputs(found, examples, *sizes) for sizes in _tried_sizes(examples)]
    if residuals:
        tried = [(*each, *more) for each, more in zip(tried, residuals, strict=True)]
    image: tuple[str, ...] = ()
    if adapted:
        image = ("image_tokens", "image_weight")
        axes |= {"image_tokens": {0: "batch", 1: "tokens"}, "image_weight": _BATCH}
        tried = [
            (*each, *_image(found, examples, len(each[0]), images)) for images, each in enumerate(tried, 1)
        ]
    return Part("unet", module, (*inputs, *control, *image), ("denoised",), axes, tuple(tried))


def _added(more: tuple["torch.Tensor", ...]) -> dict[str, "torch.Tensor"]:
    """XL's conditions beside the prompt, in single precision: diffusers joins them before it casts them."""
    pooled, sizes, *_ = more
    return {"text_embeds": pooled, "time_ids": sizes}


def _conditions(xl: bool) -> tuple[tuple[str, ...], dict[str, dict[int, str]]]:
    """The inputs that UNet and ControlNet have in common, and their dynamic axes."""
    inputs = ("noisy", "time", "context", *(("pooled", "sizes") if xl else ()))
    return inputs, {"noisy": _AREA} | dict.fromkeys(inputs[1:], _BATCH)


def _residual_names(down: int) -> tuple[str, ...]:
    return (*(f"down_{index}" for index in range(down)), "mid")


def _tried_sizes(examples: Examples) -> tuple[tuple[int, int, int], ...]:
    return (2, examples.side, 2 * examples.side), (1, 2 * examples.side, examples.side)


def _inputs(found: Components, examples: Examples, count: int, height: int, width: int) -> Arrays:
    unet = found.unet.config
    noisy = examples.normal(count, unet.in_channels, height, width)
    time = np.linspace(-0.5, 0.5, count, dtype=np.float32)
    context = examples.normal(count, examples.tokens, unet.cross_attention_dim)
    if found.text_encoder_2 is None:
        return noisy, time, context
    pooled = examples.normal(count, found.text_encoder_2.config.projection_dim)
    return noisy, time, context, pooled, np.tile(np.array(_SIZES, np.float32), (count, 1))


def _image(found: Components, examples: Examples, count: int, images: int) -> Arrays:
    """The tokens of so many images, and their weights."""
    tokens = examples.normal(
        count, images * found.image_encoder.tokens, found.unet.config.cross_attention_dim
    )
    return tokens, np.linspace(0.5, 1, count, dtype=np.float32)


def _count(module: Any, inputs: Arrays) -> int:
    """How many outputs a part has."""
    import torch  # noqa: PLC0415

    with torch.inference_mode():
        return len(module(*map(torch.from_numpy, inputs)))
