"""Latent upscalers of diffusers' with random weights: the architectures of the real ones, but tiny.

Importing this needs diffusers, torch and transformers.
"""

import json
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMScheduler,
    EulerDiscreteScheduler,
    StableDiffusionLatentUpscalePipeline,
    StableDiffusionUpscalePipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer


def save_tiny_pipeline(directory: Path, seed: int = 0) -> None:
    """Write a pipeline as `save_pretrained` does."""
    torch.manual_seed(seed)
    unet = UNet2DConditionModel(
        act_fn="gelu",
        attention_head_dim=8,
        norm_num_groups=None,
        block_out_channels=[32, 32, 64, 64],
        time_cond_proj_dim=128 + 32,
        conv_in_kernel=1,
        conv_out_kernel=1,
        cross_attention_dim=32,
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
    vae = AutoencoderKL(
        block_out_channels=[8, 8, 16, 16],
        norm_num_groups=4,
        in_channels=3,
        out_channels=3,
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        latent_channels=4,
    )
    tokenizer = tiny_tokenizer(directory / "tokenizer-files")
    text = _text_encoder(tokenizer)
    scheduler = EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type="sample"
    )
    pipeline = StableDiffusionLatentUpscalePipeline(
        vae=vae.eval(), text_encoder=text.eval(), tokenizer=tokenizer, unet=unet.eval(), scheduler=scheduler
    )
    pipeline.save_pretrained(directory)


def save_tiny_x4_pipeline(directory: Path) -> None:
    """Write a pipeline of the x4 upscaler as `save_pretrained` does.

    Its sampler ends without noise; that of the real one leaves a hundredth.
    """
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        attention_head_dim=8,
        block_out_channels=[32, 32, 64],
        cross_attention_dim=32,
        down_block_types=["DownBlock2D", *["CrossAttnDownBlock2D"] * 2],
        in_channels=7,
        layers_per_block=1,
        num_class_embeds=100,
        only_cross_attention=[True, True, False],
        out_channels=4,
        up_block_types=[*["CrossAttnUpBlock2D"] * 2, "UpBlock2D"],
        use_linear_projection=True,
    )
    vae = AutoencoderKL(
        block_out_channels=[8, 8, 16],
        norm_num_groups=4,
        down_block_types=["DownEncoderBlock2D"] * 3,
        up_block_types=["UpDecoderBlock2D"] * 3,
        latent_channels=4,
        scaling_factor=0.08333,
    )
    tokenizer = tiny_tokenizer(directory / "tokenizer-files")
    training = {"beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "scaled_linear"}
    pipeline = StableDiffusionUpscalePipeline(
        vae=vae.eval(),
        text_encoder=_text_encoder(tokenizer),
        tokenizer=tokenizer,
        unet=unet.eval(),
        low_res_scheduler=DDPMScheduler(**training),
        scheduler=DDIMScheduler(
            **training,
            clip_sample=False,
            prediction_type="v_prediction",
            steps_offset=1,
            set_alpha_to_one=True,
        ),
    )
    pipeline.save_pretrained(directory)


def _text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    config = CLIPTextConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        hidden_size=32,
        intermediate_size=37,
        num_attention_heads=4,
        num_hidden_layers=3,
        vocab_size=len(tokenizer),
        projection_dim=32,
    )
    return CLIPTextModel(config)


def tiny_tokenizer(directory: Path) -> CLIPTokenizer:
    """CLIP's tokenizer with the letters as its only words."""
    directory.mkdir(parents=True)
    letters = [*map(chr, range(33, 127)), *map(chr, range(161, 173)), *map(chr, range(174, 256))]
    letters += [chr(256 + number) for number in range(256 - len(letters))]
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (directory / "vocab.json").write_text(
        json.dumps({word: number for number, word in enumerate(words)}), encoding="utf-8"
    )
    (directory / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    return CLIPTokenizer(
        vocab=str(directory / "vocab.json"), merges=str(directory / "merges.txt"), model_max_length=77
    )
