"""Stable Diffusion's pipelines with random weights, and what goes with them: the real architectures, tiny.

Importing this needs diffusers, torch and transformers.
"""

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    DDIMScheduler,
    EulerDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from safetensors.torch import save_file
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from tests.onnx_models.support.tiny_pipeline import tiny_tokenizer

WIDTH = 32
"""Of the text encoders."""
_TRAINING = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
_BLOCKS: dict[str, Any] = {
    "block_out_channels": [32, 64],
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
}


def save_tiny_sd1(directory: Path) -> None:
    """Write a pipeline like those of Stable Diffusion 1: of 512 pixels, with a UNet that predicts noise."""
    torch.manual_seed(1)
    unet = UNet2DConditionModel(**_BLOCKS, cross_attention_dim=WIDTH, attention_head_dim=8, sample_size=64)
    scheduler = PNDMScheduler(**_TRAINING, skip_prk_steps=True, set_alpha_to_one=False, steps_offset=1)
    _save_single(directory, unet, scheduler)


def save_tiny_sd2(directory: Path) -> None:
    """Write a pipeline like those of Stable Diffusion 2.1: of 768 pixels, whose UNet predicts velocities."""
    torch.manual_seed(2)
    unet = UNet2DConditionModel(
        **_BLOCKS,
        cross_attention_dim=WIDTH,
        attention_head_dim=[2, 4],
        sample_size=96,
        upcast_attention=True,
        use_linear_projection=True,
    )
    scheduler = DDIMScheduler(
        **_TRAINING,
        clip_sample=False,
        prediction_type="v_prediction",
        set_alpha_to_one=False,
        steps_offset=1,
    )
    _save_single(directory, unet, scheduler)


def _save_single(directory: Path, unet: UNet2DConditionModel, scheduler: Any) -> None:
    tokenizer = tiny_tokenizer(directory / "tokenizer-files")
    pipeline = StableDiffusionPipeline(
        vae=_vae(0.18215),
        text_encoder=CLIPTextModel(_text_config(tokenizer, 3)).eval(),
        tokenizer=tokenizer,
        unet=unet.eval(),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(directory)


def save_tiny_xl(directory: Path) -> None:
    """Write a pipeline like those of Stable Diffusion XL."""
    torch.manual_seed(3)
    unet = UNet2DConditionModel(
        **_BLOCKS
        | {
            "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
            "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
        },
        cross_attention_dim=2 * WIDTH,
        attention_head_dim=[2, 4],
        transformer_layers_per_block=[1, 2],
        sample_size=128,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 16,
    )
    tokenizer = tiny_tokenizer(directory / "tokenizer-files")
    other = CLIPTokenizer(
        vocab=str(directory / "tokenizer-files" / "vocab.json"),
        merges=str(directory / "tokenizer-files" / "merges.txt"),
        model_max_length=77,
        pad_token="!",
    )
    pipeline = StableDiffusionXLPipeline(
        vae=_vae(0.13025),
        text_encoder=CLIPTextModel(_text_config(tokenizer, 3)).eval(),
        text_encoder_2=CLIPTextModelWithProjection(_text_config(tokenizer, 4, hidden_act="gelu")).eval(),
        tokenizer=tokenizer,
        tokenizer_2=other,
        unet=unet.eval(),
        scheduler=EulerDiscreteScheduler(**_TRAINING, timestep_spacing="leading", steps_offset=1),
    )
    pipeline.save_pretrained(directory)


def save_tiny_controlnet(directory: Path, pipeline: Path) -> None:
    """Write a ControlNet for a pipeline; what is zero in a new one is random here."""
    torch.manual_seed(4)
    unet = UNet2DConditionModel.from_pretrained(pipeline, subfolder="unet")
    controlnet = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(8, 8, 16, 16))
    blank = (
        *controlnet.controlnet_down_blocks,
        controlnet.controlnet_mid_block,
        controlnet.controlnet_cond_embedding.conv_out,
    )
    for layer in blank:
        torch.nn.init.normal_(layer.weight, std=0.1)
        torch.nn.init.normal_(layer.bias, std=0.1)
    controlnet.save_pretrained(directory)


def save_tiny_ip_adapter(directory: Path, pipeline: Path, *, plus: bool = False) -> Path:
    """Write an IP-Adapter for a pipeline: its file, and its image encoder beside it."""
    torch.manual_seed(5)
    unet = UNet2DConditionModel.from_pretrained(pipeline, subfolder="unet")
    config = CLIPVisionConfig(
        hidden_size=24,
        intermediate_size=37,
        num_attention_heads=4,
        num_hidden_layers=3,
        image_size=224,
        patch_size=56,
        projection_dim=16,
    )
    CLIPVisionModelWithProjection(config).eval().save_pretrained(directory / "image_encoder")
    width = unet.config.cross_attention_dim
    weights = _resampler(24, width) if plus else _projection(16, width)
    weights = {f"image_proj.{name}": value for name, value in weights.items()}
    number = 1
    for name in unet.attn_processors:
        if name.endswith("attn2.processor"):
            old = unet.get_submodule(name.removesuffix(".processor")).to_k.weight
            for each in "kv":
                weights[f"ip_adapter.{number}.to_{each}_ip.weight"] = torch.randn(old.shape) * 0.3
            number += 2
    file = directory / ("ip-adapter-plus_tiny.safetensors" if plus else "ip-adapter_tiny.safetensors")
    save_file(weights, file)
    return file


def _projection(seen: int, width: int) -> dict[str, torch.Tensor]:
    return {
        "proj.weight": torch.randn(4 * width, seen) * 0.3,
        "proj.bias": torch.randn(4 * width) * 0.1,
        "norm.weight": torch.rand(width) + 0.5,
        "norm.bias": torch.randn(width) * 0.1,
    }


def _resampler(seen: int, width: int) -> dict[str, torch.Tensor]:
    inner, heads = 16, 64
    shapes = {
        "latents": (1, 6, inner),
        "proj_in.weight": (inner, seen),
        "proj_in.bias": (inner,),
        "proj_out.weight": (width, inner),
        "proj_out.bias": (width,),
        "norm_out.weight": (width,),
        "norm_out.bias": (width,),
    }
    for layer in range(4):
        shapes |= {
            f"layers.{layer}.0.norm1.weight": (inner,),
            f"layers.{layer}.0.norm1.bias": (inner,),
            f"layers.{layer}.0.norm2.weight": (inner,),
            f"layers.{layer}.0.norm2.bias": (inner,),
            f"layers.{layer}.0.to_q.weight": (heads, inner),
            f"layers.{layer}.0.to_kv.weight": (2 * heads, inner),
            f"layers.{layer}.0.to_out.weight": (inner, heads),
            f"layers.{layer}.1.0.weight": (inner,),
            f"layers.{layer}.1.0.bias": (inner,),
            f"layers.{layer}.1.1.weight": (4 * inner, inner),
            f"layers.{layer}.1.3.weight": (inner, 4 * inner),
        }
    return {name: torch.randn(shape) * 0.3 for name, shape in shapes.items()}


def _vae(scaling_factor: float) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=[8, 8, 16, 16],
        norm_num_groups=4,
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        latent_channels=4,
        scaling_factor=scaling_factor,
    ).eval()


def _text_config(tokenizer: CLIPTokenizer, layers: int, **more: Any) -> CLIPTextConfig:
    return CLIPTextConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        hidden_size=WIDTH,
        intermediate_size=37,
        num_attention_heads=4,
        num_hidden_layers=layers,
        vocab_size=len(tokenizer),
        projection_dim=16,
        **more,
    )
