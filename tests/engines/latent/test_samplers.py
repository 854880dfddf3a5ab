"""Samplers with denoisers whose result is known: one picture, or a normal distribution."""

import math
from typing import get_args

import numpy as np
import pytest

from engines.latent.samplers import Scheduler, evaluations, noise_levels, sample

SCHEDULERS = get_args(Scheduler)
TRAINING = {"beta_start": 0.00085, "beta_end": 0.012, "trained": 1000}
ORDERS = {"Euler": 1, "Euler Karras": 1, "Heun": 2, "Heun Karras": 2, "DPM++ 2M": 2, "DPM++ 2M Karras": 2}


def levels_of(scheduler, steps):
    return noise_levels(scheduler, steps, **TRAINING)


def run(scheduler, steps, denoise, start=None, levels=None):
    random = np.random.default_rng(0)
    levels = levels or levels_of(scheduler, steps)
    if start is None:
        start = random.standard_normal((4, 8, 8), np.float32) * np.float32(levels[0])
    sampling = sample(scheduler, start, levels, lambda: random.standard_normal(start.shape, np.float32))
    asked = 0
    try:
        noisy, level = next(sampling)
        while True:
            asked += 1
            noisy, level = sampling.send(denoise(noisy, level))
    except StopIteration as end:
        return end.value, asked


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("steps", [1, 2, 20])
def test_a_denoiser_that_knows_the_picture_gets_it(scheduler, steps):
    picture = np.random.default_rng(1).standard_normal((4, 8, 8), np.float32)
    result, asked = run(scheduler, steps, lambda _noisy, _level: picture)
    assert np.abs(result - picture).max() < 1e-5
    assert asked == evaluations(scheduler, steps)


@pytest.mark.parametrize(("scheduler", "order"), ORDERS.items())
def test_twice_the_steps_err_less_by_the_order_of_the_method(scheduler, order):
    """Of data with deviation s the denoiser and the exact way are known: x is as root(s² + level²)."""
    deviation = 0.5

    def denoise(noisy, level):
        return noisy * np.float32(deviation**2 / (deviation**2 + level**2))

    def error(steps):
        ends = np.exp(np.linspace(math.log(10), math.log(0.5), steps + 1)).tolist()
        start = np.full((1, 1, 1), math.hypot(deviation, ends[0]), np.float32)
        result, _ = run(scheduler, steps, denoise, start, ends)
        return abs(float(result[0, 0, 0]) - math.hypot(deviation, ends[-1]))

    gained = error(20) / error(40)
    assert 2**order * 0.7 < gained < 2**order * 1.6


def test_the_ancestral_sampler_keeps_the_deviation_of_the_data():
    deviation = 0.5
    start = np.random.default_rng(2).standard_normal((1, 64, 64), np.float32)
    levels = levels_of("Euler a", 200)
    result, _ = run(
        "Euler a", 200, lambda noisy, level: noisy * np.float32(deviation**2 / (deviation**2 + level**2)),
        start * np.float32(math.hypot(deviation, levels[0])), levels,
    )  # fmt: skip
    assert abs(result.std() - deviation) < 0.03


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_noise_falls_from_the_most_that_was_trained_to_none(scheduler):
    levels = levels_of(scheduler, 20)
    assert levels == sorted(levels, reverse=True)
    assert levels[0] == pytest.approx(14.6146, abs=1e-4)  # as in k-diffusion, for Stable Diffusion
    assert levels[-2] == pytest.approx(0.0292, abs=1e-4)
    assert levels[-1] == 0


def test_what_is_left_of_the_noise_is_none_or_the_least_of_the_training():
    known = noise_levels("Euler", 1000, **TRAINING)
    assert noise_levels("Euler", 10, **TRAINING, last="least")[-1] == pytest.approx(known[-2])
    assert noise_levels("Heun", 10, **TRAINING, last="least")[-1] == 0


def test_leading_steps_end_where_their_offset_says():
    known = noise_levels("Euler", 1000, **TRAINING)[::-1][1:]
    for offset in (0, 1):
        levels = noise_levels("Euler", 10, **TRAINING, spacing="leading", offset=offset)
        np.testing.assert_allclose(levels[-2::-1], known[offset::100])


def test_beta_or_its_square_root_rises_evenly():
    linear = noise_levels("Euler", 2, **TRAINING, curve="linear")
    scaled = noise_levels("Euler", 2, **TRAINING, curve="scaled_linear")
    assert linear[1] == pytest.approx(scaled[1])
    assert linear[0] > scaled[0]


def test_levels_after_karras_are_denser_where_there_is_little_noise():
    even, karras = levels_of("Euler", 20), levels_of("Euler Karras", 20)
    assert karras[10] < even[10]


@pytest.mark.parametrize("steps", [1, 2, 7, 1000])
def test_trailing_steps_begin_with_the_most_noise_however_few_they_are(steps):
    levels = noise_levels("Euler", steps, **TRAINING, spacing="trailing")
    assert len(levels) == steps + 1
    assert levels == sorted(levels, reverse=True)
    assert levels[0] == pytest.approx(14.6146, abs=1e-4)
    assert levels[-1] == 0
    if steps > 1:  # evenly: the last is one stride from the beginning of the training's
        known = noise_levels("Euler", 1000, **TRAINING)[::-1][1:]
        assert levels[-2] == pytest.approx(known[round(1000 / steps) - 1])
