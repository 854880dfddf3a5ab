"""What is installed, beside an application that has a package `server` of its own."""

import asyncio
import re
import subprocess
import sys
import venv
from collections.abc import Iterator
from email import message_from_bytes
from pathlib import Path
from zipfile import ZipFile

import pytest

from server.specs.version import VERSION
from tests.server.support.harness import FAST_MODEL, KEY, make_image
from tests.server.support.process import REPOSITORY, ServerProcess, environment
from tilewire import Options, Tilewire

FAST: Options = {"model": FAST_MODEL, "factor": 2, "output_format": "PNG"}

UPSCALE = """
import asyncio, sys
import server
from tilewire import Tilewire

async def main():
    async with Tilewire(sys.argv[1], sys.argv[2]) as tilewire:
        print((await tilewire.upscale("photo.png", model=sys.argv[3], factor=2)).width, server.OWN)

asyncio.run(main())
"""


@pytest.fixture
def application(tmp_path: Path) -> Path:
    """An application's folder, with packages whose names are ours."""
    folder = tmp_path / "application"
    for name in ("server", "engines", "onnx_models"):
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text("OWN = 'of the application'\n", encoding="utf-8")
    (folder / "photo.png").write_bytes(make_image())
    (folder / "upscale.py").write_text(UPSCALE, encoding="utf-8")
    return folder


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """The Python of a fresh environment that the wheel is installed in; our dependencies are lent to it."""
    builder = pytest.importorskip("hatchling.builders.wheel", reason="hatchling builds the wheel")
    (wheel,) = builder.WheelBuilder(str(REPOSITORY)).build(directory=str(tmp_path), versions=["standard"])
    venv.create(tmp_path / "venv", symlinks=True, with_pip=False)
    (site,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    lent = [path for path in sys.path if path.endswith("site-packages")]
    (site / "lent.pth").write_text(
        "\n".join(lent), encoding="utf-8"
    )  # plain paths: what is installed to be edited is not lent
    python = tmp_path / "venv/bin/python"
    target = ["--python", str(python), "install", "--quiet", "--no-deps", "--no-index", "--ignore-installed"]
    subprocess.run([sys.executable, "-m", "pip", *target, wheel], check=True)
    return python


@pytest.fixture
def serving(
    python: Path, application: Path, tmp_path: Path, model_directory: Path
) -> Iterator[ServerProcess]:
    """`tilewire serve`, from the folder of the application and with it first on the path."""
    env = environment(tmp_path / "data", model_directory, PYTHONPATH=str(application), TILEWIRE_API_KEY=KEY)
    with (tmp_path / "log").open("w+") as errors:
        process = subprocess.Popen(
            [python.with_name("tilewire"), "serve", "--port", "0", "--models", FAST_MODEL],
            cwd=application,
            env=env,
            stdout=subprocess.PIPE,
            stderr=errors,
            encoding="utf-8",
        )
        try:
            yield ServerProcess(process, errors)
        finally:
            process.kill()
            process.communicate()


async def test_an_application_with_a_server_of_its_own_can_use_both(
    serving: ServerProcess, python: Path, application: Path
) -> None:
    async with Tilewire(serving.url, KEY) as tilewire:
        assert (await tilewire.upscale(make_image(), **FAST)).width == 48
    run = await asyncio.create_subprocess_exec(
        *[python, "-W", "error", "upscale.py", serving.url, KEY, FAST_MODEL],
        cwd=application,
        env={"PYTHONPATH": str(application)},
        stdout=subprocess.PIPE,
    )
    assert (await run.communicate())[0].decode().strip() == "48 of the application"
    assert run.returncode == 0


def test_the_command_finds_its_own_packages_first(application: Path) -> None:
    env = {"PYTHONPATH": f"{application}:{REPOSITORY}"}
    run = subprocess.run(
        [sys.executable, "-m", "tilewire", "--version"],
        check=False,
        cwd=application,
        env=env,
        capture_output=True,
        encoding="utf-8",
    )
    assert run.stdout.strip() == VERSION, run.stderr


def test_what_a_package_index_shows_is_complete(tmp_path: Path) -> None:
    builder = pytest.importorskip("hatchling.builders.wheel", reason="hatchling builds the wheel")
    (wheel,) = builder.WheelBuilder(str(REPOSITORY)).build(directory=str(tmp_path), versions=["standard"])
    with ZipFile(wheel) as files:
        (name,) = (name for name in files.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = message_from_bytes(files.read(name))
        assert "tilewire/py.typed" in files.namelist()
    links = re.findall(r"\]\(([^)]+)\)", str(metadata.get_payload()))
    assert links
    assert not [link for link in links if not link.startswith(("https://", "#"))]
    assert metadata["Author"] == "The Tilewire authors"
    assert {url.partition(",")[0] for url in metadata.get_all("Project-URL")} >= {
        "Source",
        "Documentation",
        "Changelog",
    }
    classifiers = metadata.get_all("Classifier")
    assert {"Typing :: Typed", "Programming Language :: Python :: 3.11"} <= set(classifiers)
