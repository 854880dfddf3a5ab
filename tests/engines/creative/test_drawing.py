"""What a creative upscaler draws, with a tiny model whose result is known."""

import math
from dataclasses import replace
from itertools import pairwise

import msgspec
import numpy as np
import pytest

from engines import Diffusion
from engines.creative.drawing import draw_anew
from engines.latent.diffusion import Creative
from engines.latent.runs import levels_of
from engines.tiling.tiles import Wraps
from onnx_models import ensure_built
from tests.engines.support.model_parts import Parts
from tests.engines.support.tiny_creative import (
    PER_STYLE,
    PER_TOKEN,
    add_tiny_creative,
    denoised,
)
from tests.onnx_models.support.tiny_latent import CELL, SCALING, TOKENS

TOKENS_OF_PROMPT = np.full(TOKENS, 40), np.full(TOKENS, 10)
FREE = Diffusion(steps=8, seed=7, strength=0.5, creative=Creative(control=0.0))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return add_tiny_creative(tmp_path_factory.mktemp("creative"), style=True).creative


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """Without ControlNet and IP-Adapter."""
    return add_tiny_creative(tmp_path_factory.mktemp("plain"), control=False).creative


def pixels(height, width, seed=0):
    """Blocks of one colour, as large as a latent, so that nothing is lost in it."""
    random = np.random.default_rng(seed)
    blocks = random.integers(40, 200, (-(-height // CELL), -(-width // CELL), 3), np.uint8)
    return blocks.repeat(CELL, 0).repeat(CELL, 1)[:height, :width]


def latents(image):
    """As the tiny encoder has them, times its factor."""
    colours = image[::CELL, ::CELL].transpose(2, 0, 1).astype(np.float32) / np.float32(127.5) - 1
    return np.concatenate((colours, colours.mean(0, keepdims=True))) * np.float32(SCALING)


def drawn(weights, image, wanted, *, side=512, overlap=64, tokens=TOKENS_OF_PROMPT, **more):
    parts = Parts(weights)
    result = parts.result(draw_anew(image, tokens, wanted, weights, side=side, overlap=overlap, **more))
    return result, parts


@pytest.mark.parametrize("strength", [0.3, 1.0])
@pytest.mark.parametrize("guidance", [1.0, 7.0])
@pytest.mark.parametrize("control", [0.0, 0.4])
def test_one_window_gives_what_image_to_image_with_a_controlnet_gives(weights, strength, guidance, control):
    """The steps of diffusers' pipeline with Euler's scheduler, written out."""
    image = pixels(64, 96)
    wanted = Diffusion(
        steps=10, seed=3, strength=strength, guidance=guidance, prompt="a", creative=Creative(control=control)
    )
    z = latents(image)
    noise = np.random.default_rng(3)
    noise.standard_normal(z.shape, np.float32)  # the encoder's, whose deviation is 0
    levels = levels_of("Euler", 10, 10, weights)[10 - int(10 * strength) :]
    x = z + noise.standard_normal(z.shape, np.float32) * np.float32(levels[0])
    for level, following in pairwise(levels):
        found = [denoised(x, level, mean * PER_TOKEN + control * z) for mean in (40, 10)]
        guess = found[1] + guidance * (found[0] - found[1]) if guidance > 1 else found[0]
        x = x + (x - guess) / level * (following - level)
    expected = (x[:3] / SCALING * 0.5 + 0.5).transpose(1, 2, 0).repeat(CELL, 0).repeat(CELL, 1)
    result, _ = drawn(weights, image, wanted)
    assert np.abs(result - expected).max() < 1e-4


def test_more_strength_and_less_control_lead_farther_from_the_picture(weights):
    image = pixels(64, 64)

    def distance(**creative):
        strength = creative.pop("strength", 0.5)
        wanted = replace(FREE, strength=strength, creative=Creative(**creative))
        return float(np.abs(drawn(weights, image, wanted)[0] - image / 255).mean())

    strengths = [distance(strength=each, control=0.5) for each in (0.1, 0.3, 0.6, 1.0)]
    controls = [distance(control=each) for each in (1.0, 0.6, 0.2, 0.0)]
    ends = [distance(control=1.0, control_end=each) for each in (1.0, 0.7, 0.4)]
    noises = [distance(control=0.5, extra_noise=each) for each in (0.0, 0.05, 0.1)]
    for rising in (strengths, controls, ends, noises):
        assert rising == sorted(rising)
        assert len(set(rising)) == len(rising)


def test_understated_noise_leaves_more_detail_and_overstated_less(plain):
    grey = np.full((128, 128, 3), 128, np.uint8)
    details = [
        float(drawn(plain, grey, replace(FREE, creative=Creative(understated=each)))[0].std())
        for each in (-0.2, 0.0, 0.2)
    ]
    assert details[0] < details[1] < details[2]


def test_windows_leave_no_seams_and_no_run_is_larger_than_one(weights):
    image = np.full((200, 328, 3), 128, np.uint8)
    wanted = replace(FREE, creative=Creative(control=0.7))
    whole, _ = drawn(weights, image, wanted, side=512)
    windowed, parts = drawn(weights, image, wanted, side=128, overlap=32)
    assert np.abs(whole - windowed).max() < 1e-4
    sides = {
        part: max(inputs[0].shape[-2:]) for part, inputs in parts.asked if part in {"unet", "controlnet"}
    }
    assert sides == {"unet": 128 // CELL, "controlnet": 128 // CELL}


@pytest.mark.parametrize(("wraps", "count"), [(Wraps(False, True), 4), (Wraps(True, True), 8)])
def test_what_wraps_is_seen_across_its_edge(weights, wraps, count):
    image = pixels(64, 192)
    result, parts = drawn(weights, image, FREE, side=64, overlap=16, wraps=wraps)
    assert result.shape == image.shape
    seen = [inputs[0] for part, inputs in parts.asked if part == "vae_encoder"]
    assert len(seen) == count
    for rows in (0, 32) if wraps.rows else (0,):
        around = np.roll(image, (-rows, -144), (0, 1))[:64, :64]
        assert any(np.array_equal(around, each) for each in seen)


@pytest.mark.parametrize("skip", [0, 2])
def test_only_the_prompt_skips_layers(weights, skip):
    wanted = replace(FREE, guidance=3.0, creative=Creative(clip_skip=skip))
    _, parts = drawn(weights, pixels(32, 32), wanted)
    assert [int(inputs[1]) for part, inputs in parts.asked if part == "text_encoder"] == [skip, 0]


def test_the_unet_gets_the_controlnets_residuals_times_its_weight(weights):
    image = pixels(32, 32)
    wanted = Diffusion(steps=1, strength=1, creative=Creative(control=0.5))
    _, parts = drawn(weights, image, wanted)
    (unet,) = (inputs for part, inputs in parts.asked if part == "unet")
    down, middle = unet[3:5]
    assert np.allclose(down, latents(image) / 4, atol=1e-6)
    assert np.allclose(middle, latents(image) / 4, atol=1e-6)


def test_a_controlnet_that_counts_for_nothing_is_asked_once_for_its_shapes(weights):
    wanted = replace(FREE, creative=Creative(control=0.0))
    _, parts = drawn(weights, pixels(200, 200), wanted, side=128, overlap=32)
    assert sum(part == "controlnet" for part, _ in parts.asked) == 1
    assert all(not inputs[3].any() for part, inputs in parts.asked if part == "unet")


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0])
def test_a_style_image_counts_by_its_weight_and_not_for_the_negative_prompt(weights, weight):
    white = np.full((40, 60, 3), 255, np.uint8)
    wanted = replace(FREE, guidance=2.0, creative=Creative(control=0.0, style_weight=weight))
    _, parts = drawn(weights, pixels(32, 32), wanted, styles=[white])
    unets = [inputs for part, inputs in parts.asked if part == "unet"]
    assert {float(inputs[-2].mean()) for inputs in unets[::2]} == {PER_STYLE}
    assert {float(inputs[-2].mean()) for inputs in unets[1::2]} == {0.0}
    assert {float(inputs[-1]) for inputs in unets} == {weight}


def test_without_a_style_image_the_adapter_counts_for_nothing(weights):
    _, parts = drawn(weights, pixels(32, 32), FREE)
    assert all(float(inputs[-1]) == 0 for part, inputs in parts.asked if part == "unet")


def test_matched_tiles_take_the_style_of_what_is_where_they_are(weights):
    left_black = np.zeros((100, 200, 3), np.uint8)
    left_black[:, 100:] = 255
    wanted = replace(FREE, creative=Creative(control=0.0, style_weight=1.0, match_tiles=True))
    result, _ = drawn(
        weights, np.full((64, 256, 3), 128, np.uint8), wanted, side=64, overlap=16, styles=[left_black]
    )
    assert result[:, :32].mean() < result[:, -32:].mean() - 0.02


def test_an_empty_negative_prompt_is_zeros_where_the_pipeline_has_it_so(plain):
    blank = msgspec.structs.replace(plain, blank_negative=True)
    contexts = []
    for each, negative in ((plain, ""), (blank, ""), (blank, "ugly")):
        wanted = replace(FREE, guidance=2.0, negative_prompt=negative)
        _, parts = drawn(each, pixels(32, 32), wanted)
        unets = [inputs for part, inputs in parts.asked if part == "unet"]
        contexts.append(float(unets[1][2].mean()))
    assert contexts == [10, 0, 10]


def test_xl_is_told_the_size_of_the_window(tmp_path, plain):
    """With it the UNet takes pooled and sizes between context and residuals."""
    xl = msgspec.structs.replace(plain, xl=True)
    calls = draw_anew(pixels(96, 64), TOKENS_OF_PROMPT, FREE, xl, side=512, overlap=64)
    text = next(calls)
    context, pooled = np.zeros((TOKENS, 1), np.float32), np.ones(3, np.float32)
    encode = calls.send([(context, pooled)] * len(text.inputs))
    unet = calls.send([(np.zeros((4, 12, 8), np.float32),) * 2] * len(encode.inputs))
    (noisy, time, _context, given, sizes) = unet.inputs[0]
    assert noisy.shape == (4, 12, 8)
    assert np.array_equal(given, pooled)
    assert sizes.tolist() == [96, 64, 0, 0, 96, 64]
    assert time == pytest.approx(math.log(levels_of("Euler", 8, 4, xl)[0]) / 4)


def test_passes_have_noise_of_their_own_and_each_is_reproducible(plain):
    image = pixels(32, 32)
    first, again, second = (drawn(plain, image, FREE, number=number)[0] for number in (0, 0, 1))
    assert first.tobytes() == again.tobytes()
    assert first.tobytes() != second.tobytes()


def test_its_files_are_verified(tmp_path):
    model = add_tiny_creative(tmp_path)
    assert ensure_built(model, model.weights[0], tmp_path).name.startswith("clarity-creative-")
