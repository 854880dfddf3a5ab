import numpy as np
import pytest
from skimage import data

from engines.latent.colour_fix import fix_colours


@pytest.fixture(scope="module")
def source():
    return np.ascontiguousarray(data.astronaut()[:96, 150:310])


def enlarged(source):
    return source.repeat(2, 0).repeat(2, 1).astype(np.float32) / 255


@pytest.mark.parametrize("method", ["wavelet", "adain"])
def test_a_cast_over_the_whole_picture_goes(source, method):
    picture = enlarged(source)
    spoilt = picture * np.float32(0.8) + np.array([0.1, -0.05, 0.02], np.float32)
    fixed = fix_colours(spoilt, source, method)
    assert np.abs(spoilt - picture).mean() > 0.06
    assert np.abs(fixed - picture).mean() < 0.03
    assert np.abs(fixed.mean((0, 1)) - picture.mean((0, 1))).max() < 0.005


def test_the_wavelet_fix_keeps_details_and_mends_a_cast_of_one_side(source):
    picture = enlarged(source)
    spoilt = picture + np.linspace(-0.2, 0.2, picture.shape[1], dtype=np.float32)[np.newaxis, :, np.newaxis]
    fixed = fix_colours(spoilt, source, "wavelet")
    inside = slice(40, -40)
    assert np.abs(fixed - picture)[:, inside].mean() < 0.01
    assert np.abs(np.diff(fixed - picture, axis=0)).mean() < 0.01


@pytest.mark.parametrize("method", ["wavelet", "adain"])
def test_a_picture_of_one_colour_takes_that_of_the_source(method):
    source = np.full((8, 8, 3), 51, np.uint8)
    fixed = fix_colours(np.full((16, 16, 3), 0.9, np.float32), source, method)
    assert np.allclose(fixed, 0.2, atol=1e-3)
