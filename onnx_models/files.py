"""Files that are seen whole or not at all, and their checksums."""

import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from onnx_models.errors import ModelBuildError

__all__ = ["locked", "remove_leftovers", "sha256_of", "write_atomically"]

_FILE_AGE = 3600.0  # seconds; no file takes so long to write
_FOLDER_AGE = 86400.0  # seconds; nor does an export
_SETTLED = 2e9  # nanoseconds; file systems do not tell changes that are closer together apart

_known: dict[tuple[int, ...], str] = {}


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal; one that was not changed is read once."""
    with path.open("rb") as file:
        now = os.fstat(file.fileno())
        this = (now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns, now.st_ctime_ns)
        if (known := _known.get(this)) is not None:
            return known
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if time.time_ns() - max(now.st_mtime_ns, now.st_ctime_ns) > _SETTLED:
        _known[this] = found
    return found


def write_atomically(target: Path, content: bytes) -> None:
    """Write a file that is seen whole or not at all, even when the process or the machine stops midway."""
    partial = target.with_name(f".{target.name}.{secrets.token_hex(8)}.partial")
    try:
        with partial.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def remove_leftovers(directory: Path) -> None:
    """Free the space of partial files whose process was killed; younger ones may still be written."""
    for partial in directory.glob(".*.partial"):
        with suppress(FileNotFoundError):  # another process may do the same
            age = time.time() - partial.stat().st_mtime
            if partial.is_dir() and age > _FOLDER_AGE:
                shutil.rmtree(partial)
            elif partial.is_file() and age > _FILE_AGE:
                partial.unlink()


@contextmanager
def locked(directory: Path, name: str = "", on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Keep out who else locks the same, in this process or in another.

    The lock is a hidden file, which stays: to remove it would let two in that wait for it.

    Args:
        directory: Where the lock is; made if it is missing.
        name: What is locked in it; default: the directory.
        on_wait: Called when somebody else is in.

    Raises:
        ModelBuildError: The lock cannot be made.
    """
    lock = FileLock(directory / (f".{name}.lock" if name else ".lock"))
    try:
        directory.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            on_wait()
            lock.acquire()
    except OSError as error:
        raise ModelBuildError(f"{directory} cannot be written: {error}") from error
    try:
        yield
    finally:
        lock.release()
