"""What all tests share."""

import gc
import os
import signal
import tarfile
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from onnx_models import Catalogue, load_catalogue

# The same examples on each run, however slow the machine. Others: pytest --hypothesis-profile explore
settings.register_profile(
    "steady", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.register_profile("explore", settings.get_profile("steady"), derandomize=False, max_examples=1000)
settings.load_profile("steady")

# Ignored where the tests run in the background of a shell; the processes that they start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What is imported and collected stays: to look through it again and again takes seconds."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


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
    """Where ONNX files are built, once for all tests: of all workers, where there are several."""
    base = tmp_path_factory.getbasetemp()
    directory = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "models"
    directory.mkdir(exist_ok=True)
    return directory


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
