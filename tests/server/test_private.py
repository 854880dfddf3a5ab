"""Nothing that the server keeps can be read by other users of the machine."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.private import private_directory, private_file
from tests.server.conftest import StartServer
from tests.server.support.harness import connected, make_image, upscale
from tests.server.support.process import serving

pytestmark = pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")


@pytest.fixture(autouse=True)
def open_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def readable_by_others(folder: Path) -> list[Path]:
    """What other users could read, going down from a folder as they would have to."""
    if not folder.stat().st_mode & 0o011:
        return []
    found = [path for path in folder.iterdir() if path.is_file() and path.stat().st_mode & 0o044]
    return [
        *found,
        *(file for path in folder.iterdir() if path.is_dir() for file in readable_by_others(path)),
    ]


def test_a_server_leaves_nothing_readable_whatever_the_umask(tmp_path: Path, model_directory: Path) -> None:
    data = tmp_path / "data"
    with serving(data, model_directory):
        assert data.stat().st_mode & 0o777 == 0o700
        assert not readable_by_others(tmp_path)
        for file in data.glob("tilewire.db*"):
            assert file.stat().st_mode & 0o077 == 0, file


async def test_what_an_earlier_version_left_open_is_closed_with_a_line(
    start_server: StartServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "tilewire.db").touch()
    for path in (tmp_path, tmp_path / "images", tmp_path / "tilewire.db"):
        path.chmod(0o755)
    server = start_server()
    async with connected(server) as peer:
        await peer.ask(upscale(make_image()))
    assert not readable_by_others(tmp_path)
    closed = [record.getMessage() for record in caplog.records if record.name == "server.private"]
    assert len(closed) == 3
    assert all("closed" in line for line in closed)


def test_what_is_private_already_is_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            private_file(private_directory(tmp_path / "new") / "file")
    assert (tmp_path / "new" / "file").stat().st_mode & 0o777 == 0o600
    assert not caplog.records
