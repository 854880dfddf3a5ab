"""What the parts of a latent upscaler are asked, without any part."""

import numpy as np
import pytest
from msgspec.structs import replace

from engines import Diffusion
from engines.latent.denoising import upscale_latent
from tests.onnx_models.support.tiny_latent import write_parts


def asked(weights, wanted):
    """The last inputs of encoder and UNet; they answer with zeros."""
    found = {}
    calls = upscale_latent(np.full((32, 32, 3), 128, np.uint8), None, wanted, weights, side=128, overlap=32)
    runs = next(calls)
    while True:
        found[runs.part] = runs.inputs[0]
        image = runs.inputs[0][0]
        side = image.shape[0 if runs.part == "vae_encoder" else 1]
        shape = {
            "vae_encoder": (4, side // 8, side // 8),
            "unet": (4, side, side),
            "vae_decoder": (8 * side, 8 * side, 3),
        }[runs.part]
        answers = 2 if runs.part == "vae_encoder" else 1
        try:
            runs = calls.send(
                [tuple(np.full(shape, 0.5, np.float32) for _ in range(answers))] * len(runs.inputs)
            )
        except StopIteration:
            return found


@pytest.mark.parametrize(("level", "expected"), [(None, 20), (0, 0), (29, 29)])
def test_the_level_of_noise_goes_to_encoder_and_unet_of_models_that_have_some(tmp_path, level, expected):
    weights = write_parts(tmp_path, prompts=False)
    wanted = Diffusion(steps=1, noise_level=level)
    plain, noisy = (asked(each, wanted) for each in (weights, replace(weights, noise_levels=30)))
    assert {part: len(noisy[part]) - len(inputs) for part, inputs in plain.items()} == {
        "vae_encoder": 1,
        "unet": 1,
        "vae_decoder": 0,
    }
    for part in ("vae_encoder", "unet"):
        assert noisy[part][-1].dtype == np.int64
        assert noisy[part][-1] == expected
