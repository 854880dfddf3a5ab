"""What `strength` does with the latent upscaler that comes with Tilewire."""

import numpy as np
from PIL import Image
from skimage import data

from engines import Diffusion
from engines.latent.denoising import upscale_latent
from onnx_models import load_catalogue
from tests.engines.support.model_parts import Parts


def detail(picture):
    grey = picture.mean(2)
    return np.abs(4 * grey - sum(np.roll(grey, by, axis) for by in (-1, 1) for axis in (0, 1))).mean()


def test_the_more_strength_the_more_texture_the_built_in_model_invents():
    weights = load_catalogue().get("tilewire-latent-x2").latent
    photo = data.astronaut()[20:180, 140:300]
    small = np.asarray(Image.fromarray(photo).reduce(2))
    parts, found = Parts(weights), []
    for wanted in (Diffusion(steps=1), *(Diffusion(steps=8, strength=each) for each in (0.25, 0.5, 0.75))):
        calls = upscale_latent(small, None, wanted, weights, side=512, overlap=32)
        found.append(parts.result(calls).clip(0, 1))
    details = [detail(picture) for picture in found]
    errors = [float(np.square(picture - photo / 255).mean()) for picture in found]
    assert details == sorted(details)
    assert details[-1] > 1.2 * details[0]
    assert errors == sorted(errors)
    assert details[-1] < detail(photo / 255)
