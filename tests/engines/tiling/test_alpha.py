"""Hidden pixels and the bounds of alpha, on small pictures without a network."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from engines.tiling.alpha import bound_alpha, fill_hidden
from engines.tiling.tiles import Area

shapes = st.tuples(st.integers(1, 20), st.integers(1, 20))
alphas = shapes.flatmap(lambda shape: arrays(np.uint8, shape, elements=st.sampled_from([0, 0, 0, 1, 255])))


@given(alphas.map(lambda alpha: np.where(alpha > 0, np.uint8(255), alpha)), st.integers(0, 255))
def test_hidden_pixels_take_the_only_visible_colour_wherever_they_are(alpha, value):
    pixels = np.where(alpha[:, :, np.newaxis] > 0, np.uint8([value, 255 - value, 7]), np.uint8(0))
    filled = fill_hidden(pixels, alpha).astype(int)
    if alpha.any():
        assert np.abs(filled - [value, 255 - value, 7]).max() <= 6  # levels: each halving rounds


@given(alphas, st.sampled_from([1, 3]))
def test_visible_pixels_keep_their_colours(alpha, channels):
    pixels = np.random.default_rng(0).integers(0, 256, (*alpha.shape, channels), dtype=np.uint8)
    pixels = pixels[:, :, 0] if channels == 1 else pixels
    filled = fill_hidden(pixels, alpha)
    assert filled.shape == pixels.shape
    assert np.array_equal(filled[alpha == 255], pixels[alpha == 255])


@given(alphas.map(lambda alpha: alpha // 255), st.integers(1, 255))
def test_where_all_that_is_seen_has_one_alpha_it_keeps_its_colours(hidden, level):
    alpha = np.where(hidden > 0, np.uint8(level), np.uint8(0))
    pixels = np.random.default_rng(0).integers(0, 256, (*alpha.shape, 3), dtype=np.uint8)
    filled = fill_hidden(pixels, alpha)
    assert np.array_equal(filled[alpha > 0], pixels[alpha > 0])


def test_a_colour_counts_by_its_alpha_beside_what_is_opaque():
    """Black that is hardly seen, beside white: the less it is, the more it becomes like it."""
    beside = []
    for level in (0, 1, 4, 16, 40, 128, 254):
        alpha = np.full((20, 20), level, np.uint8)
        alpha[6:14, 6:14] = 255
        pixels = np.where(alpha == 255, np.uint8(255), np.uint8(0))
        beside.append(int(fill_hidden(pixels, alpha)[10, 5]))
    assert beside == sorted(beside, reverse=True)
    assert beside[1] > 150
    assert beside[-1] < 2


def test_a_hidden_pixel_takes_the_colour_of_its_neighbours_rather_than_of_those_far_away():
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[:, :8], pixels[:, 24:] = (255, 0, 0), (0, 0, 255)
    alpha = np.zeros((32, 32), np.uint8)
    alpha[:, :8] = alpha[:, 24:] = 255
    filled = fill_hidden(pixels, alpha).astype(int)
    assert np.abs(filled[:, 8:10] - (255, 0, 0)).max() < 64
    assert np.abs(filled[:, 22:24] - (0, 0, 255)).max() < 64


def test_a_picture_that_is_all_hidden_stays_as_it_is():
    pixels = np.random.default_rng(0).integers(0, 256, (5, 4, 3), dtype=np.uint8)
    assert np.array_equal(fill_hidden(pixels, np.zeros((5, 4), np.uint8)), pixels)


@given(alphas, st.integers(1, 4), st.integers(1, 4))
def test_alpha_stays_within_the_range_of_the_source_around_it(source, vertically, horizontally):
    upscaled = np.random.default_rng(0).integers(
        0, 256, (source.shape[0] * vertically, source.shape[1] * horizontally), dtype=np.uint8
    )
    height, width = upscaled.shape
    bounded = bound_alpha(upscaled, source, Area(0, 0, width, height), width, height)
    for row, column in np.ndindex(upscaled.shape):
        y, x = row // vertically, column // horizontally
        nearby = source[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2]
        assert bounded[row, column] == np.clip(upscaled[row, column], nearby.min(), nearby.max())


@given(alphas, shapes, st.data())
def test_a_part_of_an_alpha_plane_is_bounded_as_it_is_in_the_whole(source, shape, data):
    height, width = shape
    upscaled = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    left, top = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    right, bottom = data.draw(st.integers(left + 1, width)), data.draw(st.integers(top + 1, height))
    whole = bound_alpha(upscaled, source, Area(0, 0, width, height), width, height)
    part = bound_alpha(
        upscaled[top:bottom, left:right], source, Area(left, top, right, bottom), width, height
    )
    assert np.array_equal(part, whole[top:bottom, left:right])
