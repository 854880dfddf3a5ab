"""The weights of the latent upscaler that comes with Tilewire, as ONNX Runtime runs them."""

import math
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image
from skimage import data

import onnx_models

FOLDER = Path(onnx_models.__file__).parent / "weights" / "tilewire-latent-x2"
SCALING = 29.5013
LEVEL = 150.0


@pytest.fixture(scope="module")
def run():
    sessions = {}
    for name in ("vae_encoder", "unet", "vae_decoder"):
        sessions[name] = onnxruntime.InferenceSession(
            FOLDER / f"{name}.onnx", providers=["CPUExecutionProvider"]
        )

    def run(name, *arrays):
        inputs = [each.name for each in sessions[name].get_inputs()]
        return sessions[name].run(None, dict(zip(inputs, arrays, strict=True)))

    return run


@pytest.fixture(scope="module")
def photo():
    return data.astronaut()[20:180, 140:300]


def psnr(found, photo):
    return -10 * math.log10(np.mean((found / 255 - photo / 255.0) ** 2))


def test_a_photograph_survives_its_latents(run, photo):
    mean, deviation = run("vae_encoder", photo[np.newaxis])
    assert mean.shape == deviation.shape == (1, 32, 40, 40)
    assert not deviation.any()
    (found,) = run("vae_decoder", mean)
    assert psnr(found[0] * 255, photo) > 42


def test_one_step_from_nothing_but_noise_is_closer_to_the_photograph_than_bicubic(run, photo):
    small = Image.fromarray(photo).reduce(2)
    latents = run("vae_encoder", np.asarray(small)[np.newaxis])[0] * np.float32(SCALING)
    repeated = latents.repeat(2, 2).repeat(2, 3)
    noise = np.random.default_rng(0).standard_normal(repeated.shape, np.float32)
    norm = np.float32(math.sqrt(LEVEL**2 + 1))
    noisy = np.concatenate((noise * np.float32(LEVEL) / norm, repeated), 1)
    (output,) = run("unet", noisy, np.array([math.log(LEVEL) / 4], np.float32))
    denoised = noise * np.float32(LEVEL) / norm**2 + output * np.float32(LEVEL) / norm
    (found,) = run("vae_decoder", denoised / np.float32(SCALING))
    bicubic = np.asarray(small.resize((160, 160), Image.Resampling.BICUBIC))
    assert psnr(found[0].clip(0, 1) * 255, photo) > psnr(bicubic, photo) + 0.3
