"""Tests that need a GPU are skipped where there is none, and say why."""

import pytest

from engines import ModelError, find_devices
from engines.sessions import Network
from onnx_models import ensure_built


def pytest_runtest_setup(item):
    if item.get_closest_marker("gpu"):
        try:
            find_devices("cuda")
        except ModelError as error:
            pytest.skip(str(error))


@pytest.fixture(scope="session")
def small_network(catalogue, model_directory):
    """A fast one, of scale 2."""
    model = catalogue.get("realesr-animevideov3")
    weights = model.weights[0]
    return Network(ensure_built(model, weights, model_directory), weights.scale, model.tile, weights)


class Clock:
    """Stands still until it is told."""

    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()
