"""The examples of README and documentation run as written: only the key and the address are put in."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from jsonschema import Draft202012Validator
from markdown_it import MarkdownIt

from server.docs.pages import EXAMPLE_ADDRESS
from server.serving import EmbeddedServer
from server.specs.schemas import standalone
from tests.server.support.harness import KEY, make_image
from tests.server.support.npm import npm_install
from tests.server.support.page import PATIENCE_MS, running_browser
from tests.server.support.process import REPOSITORY

RUN_PATIENCE = 240
PICTURES = ("photo.jpg",)


class Example(NamedTuple):
    """A block of code of a document."""

    document: str
    line: int
    code: str


def examples(language: str, naming: str = "") -> list[Example]:
    """The blocks of code of a language; of those, the ones in which something is named."""
    return [
        Example(path.name, token.map[0] + 1, token.content)
        for path in (REPOSITORY / "README.md", *sorted((REPOSITORY / "server" / "docs").glob("*.md")))
        for token in MarkdownIt().parse(path.read_text("utf-8"))
        if token.type == "fence" and token.map and token.info == language and naming in token.content
    ]


def each(found: list[Example]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("example", found, ids=[f"{one.document}-{one.line}" for one in found])


def put_in(example: Example, server: EmbeddedServer) -> str:
    """The code with the key and the address of this server."""
    assert EXAMPLE_ADDRESS in example.code
    assert "YOUR_KEY" in example.code
    return example.code.replace(EXAMPLE_ADDRESS, server.url.removeprefix("http://")).replace("YOUR_KEY", KEY)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Where the examples run, with the pictures that they name; small ones, so that it does not take long."""
    (tmp_path / "cv2.py").write_text(OPENCV, encoding="utf-8")
    for name in PICTURES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(make_image(image_format="JPEG"))
    return tmp_path


@pytest.fixture(scope="module")
def node_modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("node")
    npm_install(directory, "@runware/sdk-js@1")
    return directory / "node_modules"


OPENCV = """
from pathlib import Path
from PIL import Image
import numpy as np

class VideoCapture:
    def __init__(self, source):
        self.frames = [np.asarray(Image.open("photo.jpg"))[..., ::-1]] * 5

    def read(self):
        return (True, self.frames.pop()) if self.frames else (False, None)

def imshow(title, frame):
    assert frame.dtype == np.uint8

def pollKey():
    return -1
"""
"""What an example needs of a camera and a screen, under the name of the library that has them."""


def run(directory: Path, *command: str) -> str:
    """What an example prints."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TILEWIRE_")}
    done = subprocess.run(
        command,
        cwd=directory,
        env=environment | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        encoding="utf-8",
        timeout=RUN_PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@each(examples("python", EXAMPLE_ADDRESS))
def test_examples_in_python_run(example: Example, server: EmbeddedServer, directory: Path) -> None:
    script = directory / "example.py"
    script.write_text(put_in(example, server), encoding="utf-8")
    printed = run(directory, sys.executable, str(script))
    seen = f"{server.url}/images/" in printed or (directory / "photo-2x.jpg").exists()
    assert seen or "frame 4 (32, 48, 3)" in printed


@each(examples("js"))
def test_examples_in_javascript_run(
    example: Example, server: EmbeddedServer, directory: Path, node_modules: Path
) -> None:
    (directory / "node_modules").symlink_to(node_modules)
    (directory / "example.mjs").write_text(put_in(example, server), encoding="utf-8")
    assert f"{server.url}/images/" in run(directory, "node", "example.mjs")


@each(
    [example for example in examples("bash", naming="curl ") if EXAMPLE_ADDRESS in example.code]
)  # the others install and start the server
def test_examples_for_the_shell_run(example: Example, server: EmbeddedServer, directory: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    printed = run(directory, "bash", "-euo", "pipefail", "-c", put_in(example, server))
    if (written := re.search(r"(?:-o|>|tee) (photo-4x.\w+|result.json)", example.code)) is not None:
        data = (directory / written[1]).read_bytes()
        assert len(data) > 500 if written[1] != "result.json" else b"/images/" in data
        return
    answer = json.loads(printed)
    if "/v1/tokens" in example.code:
        assert answer["token"].startswith("twt_")
    else:
        assert answer["data"][0]["imageURL"].startswith(f"{server.url}/images/")


@each(examples("html", "YOUR_KEY"))
def test_examples_of_pages_run(example: Example, server: EmbeddedServer, directory: Path) -> None:
    (directory / "page.html").write_text(put_in(example, server), encoding="utf-8")
    with running_browser() as browser:
        tab = browser.new_page()
        tab.set_default_timeout(PATIENCE_MS)
        tab.goto((directory / "page.html").as_uri())
        tab.wait_for_selector("input:enabled")
        tab.set_input_files("input", directory / "photo.jpg")
        tab.wait_for_function("document.querySelector('img').naturalWidth === 48")


@each(examples("json"))
def test_examples_of_frames_are_valid(example: Example) -> None:
    frame = json.loads(example.code)
    Draft202012Validator(standalone("Tasks" if isinstance(frame, list) else "Item")).validate(frame)
