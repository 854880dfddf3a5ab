"""Fetching weights, from a server that answers as it is told."""

import hashlib
import re
import threading
from collections.abc import Iterator
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from msgspec.structs import replace

from onnx_models import (
    Download,
    DownloadError,
    DuplicateModelError,
    InstalledError,
    load_catalogue,
    pull_model,
)
from onnx_models.download import fetch
from tests.onnx_models.support.tiny import open_network, upscaler

CONTENT = upscaler(2).SerializeToString()


class Publisher:
    """Serves one file.

    Attributes:
        url: of the file.
        stop_after: how many bytes of it are sent before the connection breaks; None for all.
        ranges: whether it continues where it is asked to.
        status: to answer with in place of the file.
        asked: the `Range` of each request.
    """

    def __init__(self) -> None:
        self.content = CONTENT
        self.stop_after: int | None = None
        self.ranges = True
        self.status = 200
        self.asked: list[str | None] = []
        publisher = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked = self.headers.get("Range")
                publisher.asked.append(asked)
                start = int(re.findall(r"\d+", asked)[0]) if asked and publisher.ranges else 0
                body = publisher.content[start:]
                partial = start > 0 and publisher.status == 200
                self.send_response(206 if partial else publisher.status)
                self.send_header("Content-Length", str(len(body)))
                if partial:
                    size = len(publisher.content)
                    self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
                self.end_headers()
                self.wfile.write(body[: publisher.stop_after])

            def log_message(self, *arguments: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/tiny-x2.onnx"


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    publisher = Publisher()
    thread = threading.Thread(target=publisher.server.serve_forever)
    thread.start()
    yield publisher
    publisher.server.shutdown()
    thread.join()
    publisher.server.server_close()


@pytest.fixture
def download(publisher) -> Download:
    return Download(
        name="tiny-x2",
        air="tilewire:tiny-x2@1",
        title="Tiny",
        description="A test.",
        price_per_megapixel=Decimal("0.0002"),
        licence="MIT",
        licence_url="https://example.org/licence",
        source_url="https://example.org",
        url=publisher.url,
        sha256=hashlib.sha256(CONTENT).hexdigest(),
        size=len(CONTENT),
    )


@pytest.fixture
def target(tmp_path) -> Path:
    return tmp_path / "new" / "tiny.onnx"


def test_a_file_is_fetched_and_progress_told(download, target):
    counts = []
    fetch(download, target, counts.append)
    assert target.read_bytes() == CONTENT
    assert counts == sorted(counts)
    assert counts[-1] == len(CONTENT)


@pytest.mark.parametrize("ranges", [True, False])
def test_an_interrupted_download_continues_or_begins_anew(publisher, download, target, ranges):
    publisher.stop_after = 100
    with pytest.raises(DownloadError, match=f"broke after 100 of {len(CONTENT)} bytes; try again"):
        fetch(download, target)
    publisher.stop_after, publisher.ranges = None, ranges
    fetch(download, target)
    assert publisher.asked == [None, "bytes=100-"]
    assert target.read_bytes() == CONTENT


def test_a_file_that_is_there_is_not_fetched_again(publisher, download, target):
    fetch(download, target)
    fetch(download, target)
    assert publisher.asked == [None]


@pytest.mark.parametrize("damage", [lambda good: good[::-1], lambda good: good + b"more"])
def test_another_file_than_the_one_vouched_for_is_refused_and_removed(publisher, download, target, damage):
    publisher.content = damage(CONTENT)
    with pytest.raises(DownloadError, match=r"has the SHA-256 [0-9a-f]{64}, the catalogue vouches for"):
        fetch(download, target)
    assert not target.exists()


def test_a_beginning_of_something_else_is_found_out_in_the_end(publisher, download, target):
    target.parent.mkdir()
    target.write_bytes(b"x" * 100)
    with pytest.raises(DownloadError, match="has the SHA-256"):
        fetch(download, target)
    fetch(download, target)
    assert target.read_bytes() == CONTENT


def test_what_is_there_and_too_long_is_fetched_anew(publisher, download, target):
    target.parent.mkdir()
    target.write_bytes(CONTENT + b"x")
    fetch(download, target)
    assert publisher.asked == [None]


@pytest.mark.parametrize("status", [404, 500])
def test_a_refusal_is_told(publisher, download, target, status):
    publisher.status = status
    with pytest.raises(DownloadError, match=f"answered with status {status}"):
        fetch(download, target)
    assert not target.exists()


def test_a_server_that_is_not_there_is_told(download, target):
    with pytest.raises(DownloadError, match="cannot be fetched"):
        fetch(replace(download, url="http://127.0.0.1:9/x.onnx"), target)


def test_a_folder_that_cannot_be_written_is_told(download, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DownloadError, match="cannot be fetched"):
        fetch(download, tmp_path / "file" / "x.onnx")


def test_a_model_that_is_pulled_is_one_of_the_catalogue(publisher, download, tmp_path):
    model, _ = pull_model(download, load_catalogue(), tmp_path, open_network)
    assert load_catalogue(tmp_path).get("tiny-x2") == model
    assert (model.licence, model.price_per_megapixel) == ("MIT", Decimal("0.0002"))
    assert not list(tmp_path.glob("*download*"))
    with pytest.raises(DuplicateModelError):
        pull_model(download, load_catalogue(tmp_path), tmp_path, open_network)


def test_of_two_who_pull_one_model_at_once_the_second_waits_and_finds_it(publisher, download, tmp_path):
    """The first begins; the second begins while the first fetches, and is seen to wait."""
    waits, refused = threading.Event(), []

    def second():
        try:
            pull_model(download, load_catalogue(), tmp_path, open_network, lambda _step: waits.set())
        except InstalledError as error:
            refused.append(str(error))
        waits.set()

    other = threading.Thread(target=second)

    def on_bytes(_count):
        if not other.ident:
            other.start()
            waits.wait(30)

    model, _ = pull_model(download, load_catalogue(), tmp_path, open_network, on_bytes=on_bytes)
    other.join()
    assert refused == ["tiny-x2 is installed already"]
    assert load_catalogue(tmp_path).get("tiny-x2") == model
    assert publisher.asked == [None]


def test_what_was_pulled_and_is_no_upscaler_leaves_nothing(publisher, download, tmp_path):
    publisher.content = b"no network"
    download = replace(download, sha256=hashlib.sha256(b"no network").hexdigest(), size=10)
    with pytest.raises(Exception, match="broken"):
        pull_model(download, load_catalogue(), tmp_path, open_network)
    assert not list(tmp_path.glob("[!.]*"))
    assert not list(tmp_path.glob("*download*"))
