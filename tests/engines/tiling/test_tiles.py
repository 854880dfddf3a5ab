"""Tile geometry, by property: nothing lost, nothing twice, context everywhere but at the image's border."""

import contextlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.tiling.tiles import plan_tiles, split_axis

lengths = st.integers(1, 2000)
overlaps = st.integers(0, 40)
cores = st.integers(1, 200)  # what a window has beside its two overlaps
heights = st.integers(1, 90)
menus = st.sampled_from([(), (1.0,), (0.7, 1.0), (0.3, 0.8, 1.0)])
"""Sides that windows may have, in shares of the limit; none: any side."""


def axis(length, core, overlap, menu):
    limit = core + 2 * overlap
    return split_axis(length, limit, overlap, sides=[max(1, round(share * limit)) for share in menu])


@given(lengths, cores, overlaps, menus)
def test_every_pixel_of_an_axis_is_kept_exactly_once(length, core, overlap, menu):
    segments = axis(length, core, overlap, menu)
    kept = [pixel for segment in segments for pixel in range(segment.keep_start, segment.keep_stop)]
    assert kept == list(range(length))


@given(lengths, cores, overlaps, menus)
def test_every_kept_pixel_has_the_overlap_as_context_except_at_the_border(length, core, overlap, menu):
    for start, stop, keep_start, keep_stop in axis(length, core, overlap, menu):
        assert start == 0 or keep_start - start >= overlap
        assert stop >= length or stop - keep_stop >= overlap
        assert start <= keep_start < keep_stop <= stop


@given(lengths, cores, overlaps, menus)
def test_windows_are_equal_and_within_the_limit_and_cover_the_axis(length, core, overlap, menu):
    limit = core + 2 * overlap
    segments = axis(length, core, overlap, menu)
    (size,) = {stop - start for start, stop, _, _ in segments}
    assert size <= limit
    assert segments[0].start == 0
    assert segments[-1].stop == length or (len(segments) == 1 and menu and size > length)
    assert not menu or size in [max(1, round(share * limit)) for share in menu]


@given(lengths, cores, overlaps, menus)
def test_the_side_is_the_one_with_which_windows_have_the_fewest_pixels(length, core, overlap, menu):
    sizes = []
    for share in menu:
        with contextlib.suppress(ValueError):
            segments = axis(length, core, overlap, (share,))
            sizes.append(len(segments) * (segments[0].stop - segments[0].start))
    segments = axis(length, core, overlap, menu)
    assert not menu or len(segments) * (segments[0].stop - segments[0].start) == min(sizes)


@given(lengths, cores, overlaps)
def test_windows_are_as_short_as_their_number_allows_or_the_next_multiple_of_the_step(length, core, overlap):
    limit = core + 2 * overlap
    shortest, stepped = (split_axis(length, limit, overlap, step=step) for step in (1, 32))
    assert len(shortest) == len(stepped)
    short, long = (segments[0].stop - segments[0].start for segments in (shortest, stepped))
    assert long == (length if len(stepped) == 1 else min(limit, -(-short // 32) * 32))


@given(lengths, cores, overlaps)
def test_there_are_as_few_windows_as_the_limit_allows(length, core, overlap):
    limit = core + 2 * overlap
    count = len(split_axis(length, limit, overlap))
    assert count == 1 or (count - 1) * core + 2 * overlap < length


def test_a_window_without_a_core_is_refused():
    for sides in ((), (8, 32)):
        with pytest.raises(ValueError, match="no core between two overlaps of 16 px"):
            split_axis(100, 32, 16, sides=sides)


@given(heights, heights, st.integers(1, 4), st.sampled_from([(), (24,), (13, 24)]))
def test_pasted_tiles_make_up_the_whole_image(height, width, scale, sides):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    canvas = np.zeros((height * scale, width * scale, 3), np.uint8)
    for tile in plan_tiles(height, width, tile=24, overlap=5, sides=sides):
        tile.paste(tile.cut(image).repeat(scale, 0).repeat(scale, 1), canvas, scale)
    assert np.array_equal(canvas, image.repeat(scale, 0).repeat(scale, 1))


@given(heights, heights, st.sampled_from([(), (24,), (13, 24)]))
def test_all_tiles_of_a_plan_have_its_size_and_are_as_many_as_it_says(height, width, sides):
    plan = plan_tiles(height, width, tile=24, overlap=5, sides=sides)
    image = np.zeros((height, width, 3), np.uint8)
    tiles = list(plan)
    assert len(tiles) == len(plan)
    assert {tile.cut(image).shape for tile in tiles} == {(plan.height, plan.width, 3)}
    assert plan.height * plan.width <= 24 * 24


@given(heights, heights, st.sampled_from([(False, False), (False, True)]))
def test_widths_are_multiples_of_the_step_however_an_image_is_cut(height, width, wraps):
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    right = set()
    for limit in (32, 112):
        plan = plan_tiles(height, width, tile=limit, overlap=5, border=2, wraps=wraps, width_step=16)
        canvas = np.zeros_like(image)
        assert plan.width % 16 == 0
        for tile in plan:
            assert tile.cut(image).shape == (plan.height, plan.width, 3)
            tile.paste(tile.cut(image), canvas, 1)
        assert np.array_equal(canvas, image)
        right.add(plan.columns[-1].stop)
    assert len(right) == 1


@pytest.mark.parametrize(("height", "width"), [(1, 1), (24, 24), (4, 144), (576, 1)])
def test_an_image_of_no_more_pixels_than_a_tile_runs_whole(height, width):
    plan = plan_tiles(height, width, tile=24, overlap=5)
    assert (len(plan), plan.height, plan.width) == (1, height, width)
