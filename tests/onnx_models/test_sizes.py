import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_models.graph import INPUT, OUTPUT, wrap_uint8
from onnx_models.sizes import SizeRule, fit_sizes
from tests.onnx_models.support.tiny import upscaler


@pytest.fixture(scope="module")
def padded_inputs(open_session):
    """What a network sees of an image: one that upscales by repeating, cut nowhere."""

    def run(image, rule):
        graph = fit_sizes(wrap_uint8(upscaler(2, 1), 2), 2, rule)
        inner = next(node.output[0] for node in graph.graph.node if "sizes.image" in node.output)
        graph.graph.output[0].name = inner
        return open_session(graph).run([inner], {INPUT: image[np.newaxis]})[0][0]

    return run


def continued(image, height, width):
    """Reflected, and beyond that the edge: as torch pads, one after the other."""
    for axis, length in ((0, height), (1, width)):
        missing = length - image.shape[axis]
        reflected = min(missing, image.shape[axis] - 1)
        for count, mode in ((reflected, "reflect"), (missing - reflected, "edge")):
            if count:
                pads = [(0, 0)] * 3
                pads[axis] = (0, count)
                image = np.pad(image, pads, mode=mode)
    return image


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 21), st.integers(1, 21), st.sampled_from([1, 2, 8]), st.integers(1, 3), st.booleans())
def test_an_image_is_reflected_at_the_right_and_bottom(padded_inputs, height, width, multiple, times, square):
    rule = SizeRule(multiple, multiple * times, square)
    if rule.any_size:
        return
    image = np.arange(height * width * 3, dtype=np.uint32).astype(np.uint8).reshape(height, width, 3)
    expected = continued(image, *rule.fitted(height, width))
    np.testing.assert_array_equal(padded_inputs(image, rule), expected)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 17), st.integers(1, 17), st.sampled_from([SizeRule(8, 16), SizeRule(2, 2, square=True)])
)
def test_the_result_is_as_large_as_the_image_asks(open_session, height, width, rule):
    network = fit_sizes(wrap_uint8(upscaler(3), 3), 3, rule)
    images = np.zeros((2, height, width, 3), np.uint8)
    assert open_session(network).run([OUTPUT], {INPUT: images})[0].shape == (2, 3 * height, 3 * width, 3)


def test_a_network_for_any_size_stays_as_it_is():
    network = wrap_uint8(upscaler(2), 2)
    assert fit_sizes(network, 2, SizeRule()) is network


@pytest.mark.parametrize(
    ("rule", "size", "fitted"),
    [
        (SizeRule(8, 16), (1, 17), (16, 24)),
        (SizeRule(8, 16), (16, 24), (16, 24)),
        (SizeRule(4, 4, square=True), (5, 13), (16, 16)),
        (SizeRule(4, 6), (1, 1), (8, 8)),
    ],
)
def test_the_smallest_size_that_fits_is_taken(rule, size, fitted):
    assert rule.fitted(*size) == fitted
