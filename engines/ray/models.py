"""The files of models by name and checksum, so that a node is sent each of them once.

`Bundle` says what a network or a part of a model is made of, `ModelStore` keeps the files on a node: each
bundle in a directory of its own, which appears when it is complete.
"""

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import msgspec

from engines.devices.parts import Part
from engines.devices.sessions import Network
from engines.errors import ModelError
from onnx_models import sha256_of

__all__ = ["Bundle", "ModelFile", "ModelStore", "bundle_of", "pieces_of"]

_PIECE = 32 << 20
"""Bytes that are sent at once: a part of a model may have gigabytes."""

_ABANDONED = 3600.0
"""Seconds after which files that came in part are thrown away."""


class ModelFile(NamedTuple):
    """A file of a model."""

    name: str
    """Its path relative to the first file's directory, as that one may refer to it."""
    sha256: str


class Bundle(NamedTuple):
    """What a network, or a part of a model, is made of."""

    files: tuple[ModelFile, ...]

    @property
    def name(self) -> str:
        """Equal for equal files of equal names, and for nothing else."""
        lines = "".join(f"{file.sha256}  {file.name}\n" for file in self.files)
        return sha256(lines.encode()).hexdigest()


def bundle_of(model: Network | Part) -> tuple[Bundle, list[Path]]:
    """What a network or a part is made of, and where the files are. Reads them, the first time.

    Raises:
        ModelError: if a file cannot be read.
    """
    if isinstance(model, Part):
        paths = [model.path, *model.data]
    else:
        split = model.split
        paths = [model.path] if split is None else [model.path, split.body, split.tail]
    try:
        return Bundle(tuple(_file(path, model.path.parent) for path in paths)), paths
    except (OSError, ValueError) as error:
        raise ModelError(f"{model.path.name} cannot be sent: {error}") from error


def _file(path: Path, directory: Path) -> ModelFile:
    status = path.stat()
    return ModelFile(
        path.relative_to(directory).as_posix(), _checksum(path, status.st_size, status.st_mtime_ns)
    )


@lru_cache(256)
def _checksum(path: Path, _size: int, _changed: int) -> str:
    return sha256_of(path)


def pieces_of(path: Path) -> Iterator[bytes]:
    """The content of a file, in pieces that can be sent; at least one."""
    with path.open("rb") as file:
        yield file.read(_PIECE)
        while piece := file.read(_PIECE):
            yield piece


@dataclass(frozen=True, slots=True)
class ModelStore:
    """The files on one node; several processes may use the same directory."""

    directory: Path

    def has(self, bundle: Bundle) -> bool:
        """Whether all files are there, and are what they should be; if not, they are removed."""
        place = self.directory / bundle.name
        if _is_intact(place, bundle):
            return True
        shutil.rmtree(place, ignore_errors=True)
        return False

    def begin(self) -> str:
        """Begin to take files; gives what the following calls name."""
        self.directory.mkdir(parents=True, exist_ok=True)
        for coming in self.directory.glob(".coming-*"):
            with suppress(FileNotFoundError):  # another process has just removed it, or has all of its files
                if time.time() - coming.stat().st_mtime > _ABANDONED:
                    shutil.rmtree(coming, ignore_errors=True)
        return Path(tempfile.mkdtemp(prefix=".coming-", dir=self.directory)).name

    def add(self, coming: str, name: str, piece: bytes) -> None:
        """Take the next piece of a file."""
        file = self.directory / coming / name
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("ab") as opened:
            opened.write(piece)

    def finish(self, coming: str, bundle: Bundle) -> None:
        """All pieces came.

        Raises:
            ModelError: if the files are not what they should be.
        """
        came = self.directory / coming
        try:
            if not _is_intact(came, bundle):
                raise ModelError("the files of a model came to a node damaged")
            came.replace(self.directory / bundle.name)
        except OSError:
            if not self.has(bundle):  # another process may have been faster
                raise
        finally:
            shutil.rmtree(came, ignore_errors=True)

    def network(self, network: Network, bundle: Bundle) -> Network:
        """A network that is the same, of the files on this node."""
        place = self.directory / bundle.name
        paths = [place / file.name for file in bundle.files]
        split = network.split
        if split is not None:
            split = msgspec.structs.replace(split, body=paths[1], tail=paths[2])
        return replace(network, path=paths[0], split=split)

    def part(self, part: Part, bundle: Bundle) -> Part:
        """A part that is the same, of the files on this node."""
        first, *data = (self.directory / bundle.name / file.name for file in bundle.files)
        return replace(part, path=first, data=tuple(data))


def _is_intact(place: Path, bundle: Bundle) -> bool:
    try:
        return all(sha256_of(place / file.name) == file.sha256 for file in bundle.files)
    except OSError:
        return False
