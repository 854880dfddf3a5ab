"""Stable Diffusion 1.5 and a ControlNet with random numbers: how fast they are does not depend on them.

Importing this needs diffusers, torch and transformers.
"""

from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from transformers.utils.logging import disable_progress_bar

from benchmarks.latent_pipeline import random_text_encoder

__all__ = ["REAL_WIDTH", "save_pipeline"]

REAL_WIDTH = 10


def save_pipeline(directory: Path, controlnet: Path, width: int) -> None:
    """Write both as `save_pretrained` does.

    Args:
        directory: where the pipeline goes.
        controlnet: where the ControlNet goes.
        width: 10 has the layers and channels of `stable-diffusion-v1-5`; less has fewer channels in all.
    """
    disable_progress_bar()
    torch.manual_seed(0)
    words = 768 * width // REAL_WIDTH // 8 * 8
    unet = UNet2DConditionModel(
        block_out_channels=[32 * width, 64 * width, 128 * width, 128 * width],
        cross_attention_dim=words,
        attention_head_dim=8,
        sample_size=64,
    )
    of_vae = 128 * width // REAL_WIDTH // 32 * 32 or 32
    vae = AutoencoderKL(
        block_out_channels=[of_vae, 2 * of_vae, 4 * of_vae, 4 * of_vae],
        layers_per_block=2,
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        latent_channels=4,
        sample_size=512,
        scaling_factor=0.18215,
    )
    tokenizer, text = random_text_encoder(directory / "tokenizer-files", words, 8)
    scheduler = EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1
    )
    pipeline = StableDiffusionPipeline(
        vae=vae.eval(),
        text_encoder=text,
        tokenizer=tokenizer,
        unet=unet.eval(),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(directory)
    ControlNetModel.from_unet(unet).save_pretrained(controlnet)
