"""Measurements that are made once and kept in a file beside the networks they are of."""

import logging
import threading
from pathlib import Path
from typing import Generic, TypeVar

import msgspec

from onnx_models import write_atomically

__all__ = ["Kept"]

log = logging.getLogger(__name__)

T = TypeVar("T")


class Kept(Generic[T]):
    """Results by what they hold for, in a JSON file; may be used from any thread."""

    def __init__(self, file: Path, content: type[dict[str, T]]) -> None:
        """Use what a file holds.

        Args:
            file: where they are kept; a missing or broken one means that all is measured again.
            content: what the file must hold.
        """
        self._file = file
        self._content = content
        self._writing = threading.Lock()

    def get(self, key: str) -> T | None:
        """The result of an earlier measurement, of this process or another; None if there was none."""
        return self._read().get(key)

    def keep(self, key: str, result: T) -> None:
        """Keep a result; where that is not possible it is measured again after the next start."""
        with self._writing:
            content = msgspec.json.format(msgspec.json.encode(self._read() | {key: result}))
            try:
                write_atomically(self._file, content)
            except OSError as error:
                log.warning("%s cannot be written: %s", self._file, error)

    def _read(self) -> dict[str, T]:
        try:
            return msgspec.json.decode(self._file.read_bytes(), type=self._content)
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            log.warning("%s is of no use and is made anew: %s", self._file, error)
            return {}
