from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.latent.windows import Blend, Windows

SIDES = st.integers(1, 60)


@given(SIDES, SIDES, st.integers(4, 24), st.data())
def test_windows_cover_everything_with_weights_that_add_up_to_one(height, width, side, data):
    overlap = data.draw(st.integers(0, side // 2))
    windows = Windows(height, width, side=side, overlap=overlap)
    total = np.zeros((2 * height, 2 * width))
    for window in windows:
        weights = windows.weights(window, 2)
        assert weights.min() > 0
        window.cut(total, 2)[...] += weights
    assert np.allclose(total, 1, atol=1e-5)


@given(SIDES, SIDES, st.integers(4, 24), st.tuples(st.booleans(), st.booleans()), st.data())
def test_rings_of_windows_keep_what_all_agree_on_and_cross_every_edge(height, width, side, rings, data):
    overlap = data.draw(st.integers(0, side // 2))
    windows = Windows(height, width, side=side, overlap=overlap, rings=rings)
    planes = np.random.default_rng(0).random((3, height, width), np.float32)
    blend = Blend(windows, (3,))
    for window in windows:
        blend.add(window, window.cut(planes))
    assert np.allclose(blend.planes, planes, atol=1e-5)
    crossing = [any(window.top + window.height > height for window in windows)]
    crossing += [any(window.left + window.width > width for window in windows)]
    assert all(
        crosses == (ring and (length > 1))
        for crosses, ring, length in zip(crossing, rings, (height, width), strict=True)
        if overlap > 0
    )


@given(st.integers(1, 400), st.integers(8, 40), st.sampled_from([1, 4, 8]), st.data())
def test_windows_are_as_few_as_can_be_and_no_larger_than_those_need(length, side, step, data):
    overlap = data.draw(st.integers(0, side // 2))
    windows = list(Windows(1, length, side=side, overlap=overlap, step=step))
    assert len(windows) == max(1, -(-(length - overlap) // (side - overlap)))
    assert windows[0].left == 0
    assert windows[-1].left + windows[-1].width == length
    assert all(after.left - before.left <= side - overlap for before, after in pairwise(windows))
    if len(windows) > 1:
        needed = length + (len(windows) - 1) * overlap
        assert needed <= len(windows) * windows[0].width < needed + len(windows) * step
        assert windows[0].width in (side, windows[0].width // step * step)


@given(SIDES, SIDES, st.integers(4, 24), st.data())
def test_what_all_windows_agree_on_is_kept(height, width, side, data):
    overlap = data.draw(st.integers(0, side // 2))
    windows = Windows(height, width, side=side, overlap=overlap)
    planes = np.random.default_rng(0).random((3, height, width), np.float32)
    blend = Blend(windows, (3,))
    for window in windows:
        blend.add(window, window.cut(planes))
    assert np.allclose(blend.planes, planes, atol=1e-5)


def test_what_fits_is_one_window_and_is_kept_to_the_bit():
    windows = Windows(5, 9, side=9, overlap=3)
    planes = np.random.default_rng(0).random((5, 9), np.float32)
    (window,) = windows
    blend = Blend(windows, ())
    blend.add(window, planes)
    assert np.array_equal(blend.planes, planes)


@pytest.mark.parametrize("length", [17, 30, 64])
def test_windows_overlap_at_least_as_much_as_wanted_and_no_row_changes_suddenly(length):
    windows = Windows(1, length, side=16, overlap=8)
    places = [window.left for window in windows]
    assert all(after - before <= 8 for before, after in pairwise(places))
    shares = [windows.weights(window, 4)[0] for window in windows]
    assert max(np.abs(np.diff(share)).max() for share in shares) <= 0.07
    assert all(share[0] < 0.1 for share in shares[1:])
    assert all(share[-1] < 0.1 for share in shares[:-1])
