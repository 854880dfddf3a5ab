"""Regions cover the result exactly, and have its pixels."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines import Picture, Upscaler, find_devices
from engines.tiling.regions import Region, RegionReporter
from engines.tiling.tiles import Area
from tests.engines.support.fake_device import FakeDevice

CPU = find_devices("cpu", "onnxruntime")


@pytest.fixture(scope="module")
def upscaler(model_directory):
    upscaler = Upscaler(CPU, model_directory)
    yield upscaler
    upscaler.close()


@pytest.fixture(scope="module")
def small_tiles(catalogue):
    """A fast model that cuts even small pictures into tiles."""
    return msgspec.structs.replace(catalogue.get("realesr-animevideov3"), tile=56)


def noise(height, width, *, alpha=False, grey=False):
    rng = np.random.default_rng(height * 1000 + width)
    pixels = rng.integers(0, 256, (height, width, 1 if grey else 3), dtype=np.uint8)
    return Picture(
        pixels=np.ascontiguousarray(np.broadcast_to(pixels, (height, width, 3))),
        alpha=rng.integers(0, 256, (height, width), dtype=np.uint8) if alpha else None,
        icc_profile=b"icc",
    )


def put_together(regions, width, height):
    """The picture that the regions make; each of its pixels comes from exactly one."""
    times = np.zeros((height, width), int)
    pixels, alpha = np.zeros((height, width, 3), np.uint8), np.zeros((height, width), np.uint8)
    for region in regions:
        assert (region.width, region.height) == (width, height)
        part, (left, top, right, bottom) = region.picture(), region.area
        assert (part.width, part.height) == (region.area.width, region.area.height)
        times[top:bottom, left:right] += 1
        pixels[top:bottom, left:right] = part.pixels
        alpha[top:bottom, left:right] = 255 if part.alpha is None else part.alpha
    assert (times == 1).all()
    return Picture(pixels=pixels, alpha=alpha)


async def upscale(upscaler, picture, model, width, height):
    regions = []
    result = await upscaler.upscale(picture, model, width=width, height=height, on_region=regions.append)
    return regions, result


@pytest.mark.parametrize("kind", [{}, {"alpha": True}, {"grey": True}])
@pytest.mark.parametrize("factor", [2, 4, 1.3, 3.7])
@pytest.mark.parametrize(("height", "width"), [(67, 101), (1, 1), (131, 3)])
async def test_regions_are_the_result_in_parts(upscaler, small_tiles, kind, factor, height, width):
    size = max(1, round(width * factor)), max(1, round(height * factor))
    regions, result = await upscale(upscaler, noise(height, width, **kind), small_tiles, *size)
    whole = put_together(regions, *size)
    assert np.array_equal(whole.pixels, result.pixels)
    assert (whole.alpha == (255 if result.alpha is None else result.alpha)).all()
    assert all(region.picture().icc_profile == b"icc" for region in regions)
    assert len(regions) > 1 or height * width <= small_tiles.tile**2
    pieces = [piece for region in regions for piece in region.pieces(50)]
    assert all(max(piece.area.width, piece.area.height) <= 50 for piece in pieces)
    again = put_together(pieces, *size)
    assert np.array_equal(again.pixels, whole.pixels)
    assert np.array_equal(again.alpha, whole.alpha)


@pytest.mark.parametrize("alpha", [False, True])
async def test_the_result_is_the_same_whether_regions_are_wanted_or_not(upscaler, small_tiles, alpha):
    picture = noise(67, 101, alpha=alpha)
    _, watched = await upscale(upscaler, picture, small_tiles, 404, 268)
    alone = await upscaler.upscale(picture, small_tiles, width=404, height=268)
    assert np.array_equal(watched.pixels, alone.pixels)
    assert not alpha or np.array_equal(watched.alpha, alone.alpha)


@pytest.mark.parametrize("size", [(404, 268), (323, 214)])
async def test_regions_come_row_by_row(model_directory, small_tiles, size):
    upscaler = Upscaler([FakeDevice(scale=4)], model_directory)
    regions, _ = await upscale(upscaler, noise(67, 101, alpha=True), small_tiles, *size)
    upscaler.close()
    places = [(region.area.top, region.area.left) for region in regions]
    assert places == sorted(places)


async def test_a_region_is_told_as_soon_as_both_its_planes_have_run(model_directory, small_tiles):
    device = FakeDevice(scale=4, largest_batch=1)
    upscaler, runs = Upscaler([device], model_directory), []
    await upscaler.upscale(
        noise(67, 101, alpha=True),
        small_tiles,
        width=404,
        height=268,
        on_region=lambda _: runs.append(len(device.batches)),
    )
    upscaler.close()
    assert len(runs) > 3
    assert runs == [2 * number for number in range(1, len(runs) + 1)]


async def test_a_callback_that_raises_does_not_stop_the_upscale(upscaler, small_tiles, caplog):
    def on_region(region):
        raise LookupError(region)

    result = await upscaler.upscale(noise(67, 101), small_tiles, width=404, height=268, on_region=on_region)
    assert result.width == 404
    assert "could not be passed on" in caplog.text


async def test_a_picture_that_is_begun_again_tells_no_pixel_twice(model_directory, small_tiles, caplog):
    class Shrinking(FakeDevice):
        """Has memory for a few tiles, and then for smaller ones only."""

        def __init__(self):
            super().__init__(scale=4, largest_batch=1)

        def open(self, path):
            session = super().open(path)
            run = session.run

            def shrink(tiles):
                if len(self.batches) == 3:
                    self.memory = 100 * 100
                return run(tiles)

            session.run = shrink
            return session

    upscaler, regions = Upscaler([Shrinking()], model_directory), []
    picture = noise(300, 400)
    model = msgspec.structs.replace(small_tiles, tile=128)
    result = await upscaler.upscale(picture, model, width=1600, height=1200, on_region=regions.append)
    upscaler.close()
    assert "not enough memory" in caplog.text
    covered = np.zeros((1200, 1600), int)
    for region in regions:
        left, top, right, bottom = region.area
        covered[top:bottom, left:right] += 1
        assert np.array_equal(region.picture().pixels, result.pixels[top:bottom, left:right])
    assert covered.max() == 1
    assert covered.mean() > 0.5


def test_an_area_waits_for_all_planes_in_whatever_order_they_come():
    picture, regions = noise(4, 4, alpha=True), []
    reporter = RegionReporter(picture, 4, 4, regions.append)
    areas = [Area(0, 0, 4, 2), Area(0, 2, 4, 4)]
    pixels = np.zeros((2, 4, 3), np.uint8)
    reporter.take(0, areas[0], pixels)
    reporter.take(1, areas[1], pixels)
    assert not regions
    reporter.take(0, areas[1], pixels)
    reporter.take(1, areas[0], pixels)
    assert [region.area for region in regions] == areas[::-1]


@settings(deadline=None)
@given(height=st.integers(1, 60), width=st.integers(1, 60), side=st.integers(1, 40))
def test_pieces_are_no_larger_than_asked_and_about_equal(height, width, side):
    picture = noise(height, width)
    region = Region(
        area=Area(7, 5, 7 + width, 5 + height),
        width=100,
        height=100,
        source=picture,
        colours=picture.pixels,
        alpha=None,
    )
    pieces = list(region.pieces(side))
    sides = [(piece.area.width, piece.area.height) for piece in pieces]
    assert all(max(one) <= side for one in sides)
    for lengths in zip(*sides, strict=True):
        assert max(lengths) - min(lengths) <= 1
    shifted = [replace(piece, area=Area(*np.subtract(piece.area, (7, 5, 7, 5)))) for piece in pieces]
    whole = put_together([replace(piece, width=width, height=height) for piece in shifted], width, height)
    assert np.array_equal(whole.pixels, picture.pixels)
