"""Where faces are, and how they come upright."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage.transform import SimilarityTransform

from engines.faces.geometry import SIDE, TEMPLATE, cut, inverse, scale_of, scaled, similarity


def turned(degrees: float, scale: float, x: float, y: float) -> np.ndarray:
    """From the template to a picture."""
    angle = math.radians(degrees)
    turn = scale * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    middle = np.array([SIDE / 2, SIDE / 2])
    return np.column_stack([turn, np.array([x, y]) - turn @ middle])


def moved(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    return points @ matrix[:, :2].T + matrix[:, 2]


def scene(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A smooth picture, at any place of it."""
    waves = [128 + 90 * np.sin(x / (40 + 9 * c)) * np.cos(y / (50 - 7 * c)) for c in range(3)]
    return np.stack(waves, axis=-1)


def picture(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width] + 0.5
    return np.rint(scene(x, y)).astype(np.uint8)


@given(
    degrees=st.floats(-180, 180),
    scale=st.floats(0.05, 20),
    x=st.floats(-1000, 5000),
    y=st.floats(-1000, 5000),
)
def test_a_turn_and_a_scaling_of_the_template_are_found(degrees, scale, x, y):
    there = turned(degrees, scale, x, y)
    found = similarity(moved(TEMPLATE, there), TEMPLATE)
    np.testing.assert_allclose(moved(moved(TEMPLATE, there), found), TEMPLATE, atol=1e-6)
    assert scale_of(found) == pytest.approx(1 / scale)
    np.testing.assert_allclose(inverse(found), there, atol=1e-6 * max(1, abs(x), abs(y)))


def test_of_points_that_do_not_fit_the_nearest_similarity_is_taken_as_scikit_image_has_it():
    random = np.random.default_rng(0)
    for _ in range(20):
        points = random.normal(0, 100, (5, 2))
        expected = SimilarityTransform.from_estimate(points, TEMPLATE)
        np.testing.assert_allclose(similarity(points, TEMPLATE), expected.params[:2], atol=1e-6)
        assert np.linalg.det(similarity(points, TEMPLATE)[:, :2]) > 0  # never mirrored


@pytest.mark.parametrize(("degrees", "scale"), [(0, 1), (33, 0.4), (-120, 1.7), (180, 3.1)])
def test_a_face_is_cut_as_the_picture_would_look_from_there(degrees, scale):
    height, width = 1500, 1700
    there = turned(degrees, scale, 850, 750)
    found = cut(picture(height, width), inverse(there)).astype(float)
    v, u = np.mgrid[:SIDE, :SIDE] + 0.5
    places = moved(np.stack([u.ravel(), v.ravel()], -1), there).reshape(SIDE, SIDE, 2)
    inside = ((places > 12) & (places < [width - 12, height - 12])).all(-1)
    expected = scene(places[..., 0], places[..., 1])
    assert np.abs(found - expected)[inside].max() < 3


def test_beyond_the_picture_its_nearest_pixel_goes_on():
    pixels = np.full((60, 80, 3), 50, np.uint8)
    pixels[:, :40] = 200
    found = cut(pixels, inverse(turned(20, 1, 0, 30)))  # most of it is outside
    assert set(np.unique(found)) <= set(range(20, 236))
    assert (found[200:300, :100] == 200).all()


def test_in_a_larger_picture_the_same_matrix_leads_to_the_same_face():
    there = turned(10, 0.3, 100, 90)
    small, large = picture(200, 220), picture(400, 660)
    matrix = inverse(there)
    larger = scaled(matrix, 3, 2)
    points = np.array([[10.0, 20.0], [100, 50]])
    np.testing.assert_allclose(moved(points, matrix), moved(points * [3, 2], larger))
    assert cut(small, matrix).shape == cut(large, larger).shape == (SIDE, SIDE, 3)
