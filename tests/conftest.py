"""What all tests share."""

from pathlib import Path

import pytest

from onnx_models import Catalogue, load_catalogue


@pytest.fixture(scope="session")
def model_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where ONNX files are built, once for all tests."""
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="session")
def catalogue() -> Catalogue:
    return load_catalogue()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--hostile-images", metavar="PATH", help="a source distribution of Pillow, or a folder")
