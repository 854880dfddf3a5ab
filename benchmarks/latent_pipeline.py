"""Stable Diffusion's latent upscaler with random numbers: how fast it is does not depend on them.

Importing this needs diffusers, torch and transformers.
"""

from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    StableDiffusionLatentUpscalePipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer
from transformers.utils.logging import disable_progress_bar

from tests.onnx_models.support.tiny_pipeline import tiny_tokenizer

__all__ = ["REAL_WIDTH", "random_text_encoder", "save_pipeline"]

REAL_WIDTH = 12


def save_pipeline(directory: Path, width: int) -> None:
    """Write a pipeline as `save_pretrained` does.

    Args:
        directory: where to.
        width: 12 has the layers and channels of `stabilityai/sd-x2-latent-upscaler`, as its configuration
            files tell them; less has fewer channels in all layers.
    """
    disable_progress_bar()
    torch.manual_seed(0)
    words = 64 * width
    unet = UNet2DConditionModel(
        act_fn="gelu",
        attention_head_dim=64 if width % 2 == 0 else 32,
        norm_num_groups=None,
        layers_per_block=4,
        block_out_channels=[32 * width, 32 * width, 64 * width, 64 * width],
        time_cond_proj_dim=128 + words,
        conv_in_kernel=1,
        conv_out_kernel=1,
        cross_attention_dim=words,
        down_block_types=("KDownBlock2D", *["KCrossAttnDownBlock2D"] * 3),
        in_channels=8,
        mid_block_type=None,
        only_cross_attention=False,
        out_channels=5,
        resnet_time_scale_shift="scale_shift",
        time_embedding_type="fourier",
        timestep_post_act="gelu",
        up_block_types=(*["KCrossAttnUpBlock2D"] * 3, "KUpBlock2D"),
    )
    of_vae = 32 * max(1, width // 3)
    vae = AutoencoderKL(
        block_out_channels=[of_vae, 2 * of_vae, 4 * of_vae, 4 * of_vae],
        layers_per_block=2,
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        latent_channels=4,
    )
    tokenizer, text = random_text_encoder(directory / "tokenizer-files", words, width)
    scheduler = EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type="sample"
    )
    pipeline = StableDiffusionLatentUpscalePipeline(
        vae=vae.eval(), text_encoder=text, tokenizer=tokenizer, unet=unet.eval(), scheduler=scheduler
    )
    pipeline.save_pretrained(directory)


def random_text_encoder(files: Path, width: int, heads: int) -> tuple[CLIPTokenizer, CLIPTextModel]:
    """A tokenizer of a few words, whose files go to a folder, and a text encoder of CLIP's 12 layers."""
    tokenizer = tiny_tokenizer(files)
    config = CLIPTextConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        hidden_size=width,
        intermediate_size=4 * width,
        num_attention_heads=heads,
        num_hidden_layers=12,
        vocab_size=len(tokenizer),
    )
    return tokenizer, CLIPTextModel(config).eval()
