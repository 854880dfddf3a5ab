"""What all tests share."""

import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from onnx_models import Catalogue, load_catalogue


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--hostile-images", metavar="PATH", help="a source distribution of Pillow, or a folder")
    parser.addoption("--seed", type=int, default=1, help="of test_fuzz, test_crash and the bad networks")
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


@pytest.fixture
def given_images(request: pytest.FixtureRequest) -> Iterator[tuple[str, bytes]]:
    """Names and bytes of the images that `--hostile-images` names."""
    given = request.config.getoption("--hostile-images")
    if given is None:
        pytest.skip("needs --hostile-images")
    return _images_in(Path(given))


def _images_in(path: Path) -> Iterator[tuple[str, bytes]]:
    """The files of a folder, or of `Tests/images` in a source distribution."""
    if path.is_dir():
        for file in sorted(path.rglob("*")):
            if file.is_file():
                yield str(file), file.read_bytes()
        return
    with tarfile.open(path) as archive:
        for member in archive:
            if "/Tests/images/" in member.name and (content := archive.extractfile(member)):
                yield member.name, content.read()
