"""Stable Diffusion 1, 2 and XL, diffusers' `StableDiffusionPipeline` and its like, as parts to export.

What image-to-image upscaling needs of them, with a ControlNet and an IP-Adapter if there are some: see
`CreativeWeights` for the parts. A pipeline that was saved as one of image-to-image, or with a ControlNet, has
the same components. XL's VAE overflows in half precision, as diffusers knows, and stays in single.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from onnx_models.diffusers.denoisers import controlnet_part, residuals_of, unet_part
from onnx_models.diffusers.folder import Config, read_json
from onnx_models.diffusers.ip_adapter import image_encoder_part
from onnx_models.diffusers.part import Arrays, Components, Examples, Kind, Part, decoder_part, encoder_part
from onnx_models.diffusers.text_encoders import text_encoder_part
from onnx_models.model import CreativeWeights

__all__ = ["STABLE_DIFFUSION", "STABLE_DIFFUSION_XL"]

_CELL = 8
_SIZES = 6
"""The numbers beside XL's pooled prompt: size of the original, crop, size of the target."""


def _architecture(found: Components) -> dict[str, tuple[Any, Any]]:
    channels = found.vae.config.latent_channels
    unet, vae = found.unet.config, found.vae.config
    return {
        "unet takes latents": (unet.in_channels, channels),
        "unet gives latents": (unet.out_channels, channels),
        "unet's cross attention": (unet.cross_attention_dim, _words(found)),
        "unet's classes": (unet.class_embed_type or unet.num_class_embeds, None),
        "unet's guidance": (unet.time_cond_proj_dim, None),
        "unet's projection of the prompt": (unet.encoder_hid_dim_type, None),
        "vae's image": (vae.in_channels, 3),
        "vae's cell": (found.cell, _CELL),
        "vae's mean of latents": (vae.get("latents_mean"), None),
        **_addition(found),
        **(_controlnet(found) if found.controlnet is not None else {}),
    }


def _words(found: Components) -> int:
    words: int = found.text_encoder.config.hidden_size
    return words if found.text_encoder_2 is None else words + int(found.text_encoder_2.config.hidden_size)


def _addition(found: Components) -> dict[str, tuple[Any, Any]]:
    """What the UNet takes beside prompt and time."""
    unet = found.unet.config
    if found.text_encoder_2 is None:
        return {"unet's addition": (unet.addition_embed_type, None)}
    text = found.text_encoder_2.config
    pooled = text.projection_dim + _SIZES * (unet.addition_time_embed_dim or 0)
    same = found.tokenizer.get_vocab() == found.tokenizer_2.get_vocab()
    tokens = text.max_position_embeddings, found.tokenizer_2.model_max_length
    return {
        "unet's addition": (unet.addition_embed_type, "text_time"),
        "unet's pooled prompt and sizes": (unet.projection_class_embeddings_input_dim, pooled),
        "text_encoder_2's tokens": (tokens, (found.tokenizer.model_max_length,) * 2),
        "the same words in both tokenizers": (same, True),
    }


def _controlnet(found: Components) -> dict[str, tuple[Any, Any]]:
    control, unet = found.controlnet.config, found.unet.config
    same = ("cross_attention_dim", "block_out_channels", "layers_per_block", "addition_embed_type")
    stride = 2 ** (len(control.conditioning_embedding_out_channels) - 1)
    return {f"controlnet's {key}": (_plain(control[key]), _plain(unet[key])) for key in same} | {
        "controlnet's latents": (control.in_channels, found.vae.config.latent_channels),
        "controlnet's cell": (stride, _CELL),
    }


def _plain(value: Any) -> Any:
    """A value of a configuration, which is a list in a file and a tuple among diffusers' defaults."""
    return list(value) if isinstance(value, tuple) else value


def _layout(found: Components) -> dict[str, Any]:
    index = read_json(found.directory / "model_index.json", "it is not a directory of diffusers")
    xl = found.text_encoder_2 is not None
    # The class of diffusers blanks it unless told otherwise; what is saved always says.
    blank = Config("pipeline", index, {"force_zeros_for_empty_prompt": True})
    return {
        "cell": found.cell,
        "xl": xl,
        "blank_negative": xl and blank.choice("force_zeros_for_empty_prompt", [True, False]),
        "largest_clip_skip": _largest_skip(found),
    }


def _largest_skip(found: Components) -> int:
    """How many layers before the pipeline's own the first layer of the text encoders is."""
    if found.text_encoder_2 is None:
        return int(found.text_encoder.config.num_hidden_layers) - 1
    layers = (each.config.num_hidden_layers for each in (found.text_encoder, found.text_encoder_2))
    return max(0, int(min(layers)) - 2)


def _window(pipeline: Path) -> int:
    """The side of the images that the UNet was trained with."""
    config = read_json(pipeline / "unet" / "config.json", "its component unet is missing")
    return _CELL * Config("unet", config, {"sample_size": 64}).whole("sample_size", 8, 512)


def _parts(found: Components, half: bool) -> Iterator[Part]:
    import torch  # noqa: PLC0415

    kind = torch.float16 if half else torch.float32
    upcast = found.text_encoder_2 is not None and found.vae.config.get("force_upcast", True)
    vae_kind = torch.float32 if upcast else kind
    examples = Examples(found)
    yield text_encoder_part(found, kind, examples, _largest_skip(found))
    yield encoder_part(found, vae_kind, examples)
    residuals: tuple[Arrays, ...] = ()
    if found.controlnet is not None:
        part = controlnet_part(found, kind, examples)
        residuals = residuals_of(part)
        yield part
    if found.image_encoder is not None:
        yield image_encoder_part(found, kind, examples)
    yield unet_part(found, kind, examples, residuals)
    yield decoder_part(found, vae_kind, examples)


def _kind(name: str, components: tuple[str, ...]) -> Kind:
    return Kind(
        pipelines=tuple(
            name.replace("Pipeline", f"{variant}Pipeline")
            for variant in ("", "Img2Img", "ControlNet", "ControlNetImg2Img")
        ),
        weights=CreativeWeights,
        components=components,
        schedulers=(
            "DDIMScheduler",
            "EulerDiscreteScheduler",
            "EulerAncestralDiscreteScheduler",
            "HeunDiscreteScheduler",
        ),
        other_schedulers=(
            "PNDMScheduler",
            "DPMSolverMultistepScheduler",
            "DPMSolverSinglestepScheduler",
            "UniPCMultistepScheduler",
            "DEISMultistepScheduler",
            "LMSDiscreteScheduler",
            "DDPMScheduler",
        ),
        predictions=("epsilon", "v_prediction", "sample"),
        architecture=_architecture,
        parts=_parts,
        layout=_layout,
        window=_window,
    )


_COMPONENTS = ("text_encoder", "tokenizer", "unet", "vae", "scheduler")
STABLE_DIFFUSION = _kind("StableDiffusionPipeline", _COMPONENTS)
STABLE_DIFFUSION_XL = _kind("StableDiffusionXLPipeline", (*_COMPONENTS, "text_encoder_2", "tokenizer_2"))
