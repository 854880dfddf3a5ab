"""Restored faces in their picture: where they belong, with no edges, and nothing else changed."""

import numpy as np
import pytest

from engines.faces.blending import RestoredFace, blend
from engines.faces.geometry import SIDE, TEMPLATE, cut, inverse
from tests.engines.faces.test_geometry import moved, picture, scene, turned

PLACES = [
    pytest.param(0, 0.5, 300, 250, id="upright"),
    pytest.param(30, 0.6, 300, 250, id="turned"),
    pytest.param(-90, 0.2, 100, 400, id="lying, small"),
    pytest.param(180, 1.4, 300, 250, id="upside down, as large as the picture"),
    pytest.param(12, 0.5, 5, 8, id="in a corner"),
    pytest.param(-25, 0.7, 595, 250, id="at the border"),
]


def noise(height: int = 500, width: int = 600) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize(("degrees", "scale", "x", "y"), PLACES)
def test_a_face_that_comes_back_as_it_went_leaves_the_picture_as_it_is(degrees, scale, x, y):
    pixels = noise()
    matrix = inverse(turned(degrees, scale, x, y))
    result, _ = blend(pixels.copy(), [RestoredFace(cut(pixels, matrix), matrix)], 1)
    assert np.abs(result.astype(int) - pixels).max() <= 2


def test_so_do_forty_and_none():
    pixels = noise()
    matrices = [
        inverse(turned(9 * k, 0.15 + 0.005 * k, 60 + 70 * (k % 8), 50 + 95 * (k // 8))) for k in range(40)
    ]
    faces = [RestoredFace(cut(pixels, matrix), matrix) for matrix in matrices]
    result, areas = blend(pixels.copy(), faces, 1)
    assert np.abs(result.astype(int) - pixels).max() <= 2
    assert len(areas) == 40
    result, areas = blend(pixels, [], 1)
    np.testing.assert_array_equal(result, noise())
    assert areas == []


@pytest.mark.parametrize(("degrees", "scale", "x", "y"), PLACES)
def test_what_is_painted_on_the_template_is_where_the_face_is(degrees, scale, x, y):
    """The restorer gives the scene as it is seen from the face; a grey picture becomes the scene there."""
    there = turned(degrees, scale, x, y)
    v, u = np.mgrid[:SIDE, :SIDE] + 0.5
    places = moved(np.stack([u.ravel(), v.ravel()], -1), there).reshape(SIDE, SIDE, 2)
    restored = np.rint(scene(places[..., 0], places[..., 1])).astype(np.uint8)
    result, (area,) = blend(
        np.full((500, 600, 3), 128, np.uint8), [RestoredFace(restored, inverse(there))], 1
    )
    expected = picture(500, 600).astype(int)
    rows, columns = np.mgrid[:500, :600] + 0.5
    face = moved(np.stack([columns.ravel(), rows.ravel()], -1), inverse(there)).reshape(500, 600, 2)
    middle = ((face > 80) & (face < SIDE - 80)).all(-1)
    outside = ((face < 16) | (face > SIDE - 16)).any(-1)
    assert middle.any()
    assert np.abs(result.astype(int) - expected)[middle].max() <= 2
    assert (result[outside] == 128).all()
    assert (area.left >= 0, area.right <= 600, area.top >= 0, area.bottom <= 500) == (True,) * 4


def test_the_points_of_a_face_are_at_the_points_of_the_template():
    there = turned(25, 0.4, 300, 260)
    restored = np.zeros((SIDE, SIDE, 3), np.uint8)
    for x, y in TEMPLATE.astype(int):
        restored[y - 8 : y + 9, x - 8 : x + 9] = 255
    result, _ = blend(np.zeros((500, 600, 3), np.uint8), [RestoredFace(restored, inverse(there))], 1)
    for x, y in moved(TEMPLATE, there):
        near = result[int(y) - 6 : int(y) + 7, int(x) - 6 : int(x) + 7, 0].astype(float)
        rows, columns = np.mgrid[int(y) - 6 : int(y) + 7, int(x) - 6 : int(x) + 7] + 0.5
        centre = (columns * near).sum() / near.sum(), (rows * near).sum() / near.sum()
        assert np.abs(np.array(centre) - [x, y]).max() < 0.7


@pytest.mark.parametrize("visibility", [0.0, 0.25, 1.0])
def test_visibility_is_the_share_of_the_change(visibility):
    pixels = np.full((400, 400, 3), 60, np.uint8)
    matrix = inverse(turned(0, 0.6, 200, 200))
    result, _ = blend(pixels, [RestoredFace(np.full((SIDE, SIDE, 3), 160, np.uint8), matrix)], visibility)
    assert (result[200, 200] == 60 + 100 * visibility).all()
    row = result[200, :, 0].astype(int)
    assert np.abs(np.diff(row)).max() <= 1 + 6 * visibility  # no edge


def test_detail_that_is_finer_than_a_restorer_knows_stays():
    """A face of 2000 pixels that is made lighter keeps its texture."""
    pixels = np.random.default_rng(0).integers(60, 120, (2000, 2000, 3), np.uint8)
    matrix = inverse(turned(7, 4, 1000, 1000))
    lighter = np.clip(cut(pixels, matrix).astype(int) + 50, 0, 255).astype(np.uint8)
    result, _ = blend(pixels.copy(), [RestoredFace(lighter, matrix)], 1)
    middle = (slice(800, 1200), slice(800, 1200))
    assert np.abs(result[middle].astype(int) - pixels[middle] - 50).max() <= 1


def test_of_two_faces_beside_each_other_each_keeps_its_own():
    pixels = np.full((300, 500, 3), 100, np.uint8)
    left, right = (inverse(turned(0, 0.4, x, 150)) for x in (180, 320))
    faces = [
        RestoredFace(np.full((SIDE, SIDE, 3), level, np.uint8), matrix)
        for level, matrix in ((200, left), (20, right))
    ]
    result, _ = blend(pixels, faces, 1)
    assert (result[163, 180, 0] > 198, result[163, 320, 0] < 22) == (True, True)
    between = result[163, 180:320, 0].astype(int)
    assert (np.diff(between) <= 0).all()
    again, _ = blend(np.full((300, 500, 3), 100, np.uint8), faces[::-1], 1)
    assert np.abs(again.astype(int) - result).max() <= 1  # whichever comes first


def test_grey_pictures_stay_grey_and_those_that_are_read_only_are_copied():
    grey = noise()[..., 0].copy()
    grey.flags.writeable = False
    matrix = inverse(turned(0, 0.5, 300, 250))
    result, _ = blend(grey, [RestoredFace(np.full((SIDE, SIDE, 3), 200, np.uint8), matrix)], 1)
    assert result.shape == grey.shape
    assert (result != grey).any()
