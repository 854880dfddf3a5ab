"""What a creative upscaler costs is what its UNet sees: steps × the pixels of all windows."""

import asyncio
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from engines import Controls, Creative, Diffusion, Picture, Upscaler, looks_drawn, wraps_of
from tests.engines.support.recording import BatchingDevice
from tests.engines.support.tiny_creative import add_tiny_creative
from tests.onnx_models.support.tiny_latent import CELL


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return add_tiny_creative(tmp_path_factory.mktemp("creative"), control=False)


@pytest.mark.parametrize(
    ("source", "factor", "turned", "seamless"),
    [
        ((40, 24), 2, {}, None),
        ((90, 70), 2, {"fractality": 0}, None),
        ((90, 70), 2, {"fractality": 50}, None),
        ((90, 70), 2, {"fractality": 75}, None),
        ((90, 70), 2, {"fractality": 100, "refinement_steps": 1}, None),
        ((60, 100), 4, {"creativity_decay": 50}, None),
        ((60, 100), 3, {"fractality": 70, "guidance": 1.0}, "x"),
        ((50, 50), 1, {"strength": 0.5}, "both"),
    ],
)
def test_the_work_is_what_the_unet_sees(model, model_directory, source, factor, turned, seamless):
    width, height = source
    size = factor * width, factor * height
    wanted = Controls(**turned).diffusion(Diffusion(steps=6, creative=Creative()))
    picture = Picture(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))
    device = BatchingDevice()
    upscaler = Upscaler([device], model_directory)
    try:
        asyncio.run(
            upscaler.upscale(
                picture, model, width=size[0], height=size[1], diffusion=wanted, seamless=seamless
            )
        )
    finally:
        upscaler.close()
    seen = CELL**2 * sum(pixels for part, pixels in device.pixels if part == "unet")
    assert looks_drawn(source, size, wanted, model, wraps_of(seamless)) == Fraction(seen, size[0] * size[1])


def test_the_work_grows_with_steps(model):
    wanted = [Diffusion(steps=steps, creative=Creative()) for steps in (5, 10, 20)]
    works = [looks_drawn((300, 200), (600, 400), each, model) for each in wanted]
    assert works[1] == 2 * works[0]
    assert works[2] == 4 * works[0]
    windows = replace(wanted[0], creative=Creative(window=0.5))
    assert looks_drawn((300, 200), (600, 400), windows, model) != works[0]
