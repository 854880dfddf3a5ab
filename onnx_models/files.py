"""Files that are seen whole or not at all, and their checksums."""

import hashlib
import os
import secrets
import shutil
import time
from contextlib import suppress
from pathlib import Path

__all__ = ["remove_leftovers", "sha256_of", "write_atomically"]

_LEFTOVER_AGE = 3600.0  # seconds; no write takes so long


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
            if time.time() - partial.stat().st_mtime > _LEFTOVER_AGE:
                shutil.rmtree(partial) if partial.is_dir() else partial.unlink()
