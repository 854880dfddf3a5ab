"""The checker takes pictures as they are, and gives one score each."""

import numpy as np
import onnxruntime
import pytest

from onnx_models import UnsuitableModelError
from onnx_models.open_nsfw import convert
from tests.onnx_models.support.tiny import upscaler
from tests.server.support.safety_checker import red_network


def test_the_score_is_the_second_number_of_what_the_network_gives_for_bgr_without_the_mean():
    inner = red_network()
    pictures = np.random.default_rng(1).integers(0, 256, (3, 224, 224, 3), np.uint8)
    session = onnxruntime.InferenceSession(convert(inner.SerializeToString()).SerializeToString())
    (scores,) = session.run(None, {"picture": pictures})
    prepared = pictures[..., ::-1].astype(np.float32) - np.array([104, 117, 123], np.float32)
    reference = onnxruntime.InferenceSession(inner.SerializeToString())
    (expected,) = reference.run(None, {"input:0": prepared})
    np.testing.assert_allclose(scores, expected[:, 1], atol=1e-6)
    assert scores.shape == (3,)


@pytest.mark.parametrize(
    "content",
    [b"", b"no network", red_network(side=32).SerializeToString(), upscaler(2, 1).SerializeToString()],
)
def test_what_is_no_such_network_is_refused(content):
    with pytest.raises(UnsuitableModelError, match="open_nsfw"):
        convert(content)
