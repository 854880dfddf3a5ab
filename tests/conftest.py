"""What all tests share."""

from pathlib import Path

import pytest

from onnx_models import Catalogue, load_catalogue


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seed", type=int, default=1, help="of the frames of test_fuzz")
    parser.addoption("--frames", type=int, default=100_000, help="how many the slow one of them sends")


@pytest.fixture(scope="session")
def seed(request: pytest.FixtureRequest) -> int:
    value: int = request.config.getoption("--seed")
    return value


@pytest.fixture(scope="session")
def frames(request: pytest.FixtureRequest) -> int:
    value: int = request.config.getoption("--frames")
    return value


@pytest.fixture(scope="session")
def model_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where ONNX files are built, once for all tests."""
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="session")
def catalogue() -> Catalogue:
    return load_catalogue()
