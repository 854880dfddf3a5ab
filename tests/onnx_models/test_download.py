"""Fetching files by their address, from a server that answers as it is told."""

import hashlib
from pathlib import Path

import pytest

from onnx_models import DownloadError
from onnx_models.download import fetch
from tests.onnx_models.support.publisher import CONTENT, Publisher


@pytest.fixture
def file(publisher: Publisher) -> tuple[str, str, int]:
    """The address of what is published, its SHA-256 and its size."""
    return publisher.url, hashlib.sha256(CONTENT).hexdigest(), len(CONTENT)


@pytest.fixture
def target(tmp_path) -> Path:
    return tmp_path / "new" / "tiny.onnx"


def test_a_file_is_fetched_and_progress_told(file, target):
    counts = []
    fetch(*file, target, counts.append)
    assert target.read_bytes() == CONTENT
    assert counts == sorted(counts)
    assert counts[-1] == len(CONTENT)


@pytest.mark.parametrize("ranges", [True, False])
def test_an_interrupted_download_continues_or_begins_anew(publisher, file, target, ranges):
    publisher.stop_after = 100
    with pytest.raises(DownloadError, match=f"broke after 100 of {len(CONTENT)} bytes; try again"):
        fetch(*file, target)
    publisher.stop_after, publisher.ranges = None, ranges
    fetch(*file, target)
    assert publisher.asked == [None, "bytes=100-"]
    assert target.read_bytes() == CONTENT


def test_a_file_that_is_there_is_not_fetched_again(publisher, file, target):
    fetch(*file, target)
    fetch(*file, target)
    assert publisher.asked == [None]


@pytest.mark.parametrize("damage", [lambda good: good[::-1], lambda good: good + b"more"])
def test_another_file_than_the_one_vouched_for_is_refused_and_removed(publisher, file, target, damage):
    publisher.content = damage(CONTENT)
    with pytest.raises(DownloadError, match=r"has the SHA-256 [0-9a-f]{64}, the catalogue vouches for"):
        fetch(*file, target)
    assert not target.exists()


def test_a_beginning_of_something_else_is_found_out_in_the_end(publisher, file, target):
    target.parent.mkdir()
    target.write_bytes(b"x" * 100)
    with pytest.raises(DownloadError, match="has the SHA-256"):
        fetch(*file, target)
    fetch(*file, target)
    assert target.read_bytes() == CONTENT


def test_what_is_there_and_too_long_is_fetched_anew(publisher, file, target):
    target.parent.mkdir()
    target.write_bytes(CONTENT + b"x")
    fetch(*file, target)
    assert publisher.asked == [None]


@pytest.mark.parametrize("status", [404, 500])
def test_a_refusal_is_told(publisher, file, target, status):
    publisher.status = status
    with pytest.raises(DownloadError, match=f"answered with status {status}"):
        fetch(*file, target)
    assert not target.exists()


def test_a_server_that_is_not_there_is_told(file, target):
    with pytest.raises(DownloadError, match="cannot be fetched"):
        fetch("http://127.0.0.1:9/x.onnx", *file[1:], target)


def test_a_folder_that_cannot_be_written_is_told(file, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DownloadError, match="cannot be fetched"):
        fetch(*file, tmp_path / "file" / "x.onnx")
