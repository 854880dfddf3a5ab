"""What a file of safetensors holds, read without PyTorch: names, shapes, notes, but no numbers.

The format begins with the length of a header, 8 bytes, and the header in JSON:
https://github.com/huggingface/safetensors#format.
"""

import json
from pathlib import Path
from typing import Any

from msgspec import Struct

from onnx_models.errors import UnsuitableModelError

__all__ = ["Header", "read_header"]

_LONGEST = 100_000_000
"""Bytes of a header: what the format's own library allows."""


class Header(Struct, frozen=True):
    """The tensors in a file."""

    shapes: dict[str, tuple[int, ...]]
    notes: dict[str, Any]
    """Whatever its author noted."""


def read_header(file: Path) -> Header:
    """Read the header of a file.

    Raises:
        UnsuitableModelError: It cannot be read, or is no such file.
    """
    try:
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            header = json.loads(opened.read(min(length, _LONGEST)))
        notes = header.pop("__metadata__", {})
        shapes = {str(name): tuple(map(int, facts["shape"])) for name, facts in header.items()}
        return Header(shapes, dict(notes))
    except OSError as error:
        raise UnsuitableModelError(f"{file.name} cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UnsuitableModelError(f"{file.name} is no file of safetensors, or it is broken") from error
