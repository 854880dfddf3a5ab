"""A decoder's process, taken over: bytes that begin with `#!` are run as Python. All else is the real one."""

import ctypes
import os
import signal
import socket
import sys
import threading
from typing import Any

import numpy as np

from engines.codecs import decoder_process
from engines.codecs.image import ImageInfo
from engines.codecs.picture import Metadata, Picture

REAL_DECODE = decoder_process.decode
REAL_READ = decoder_process.read
NAMES: dict[str, Any] = {
    module.__name__: module for module in (ctypes, np, os, signal, socket, sys, threading)
} | {"leak": []}


def decode(data: bytes, *, max_pixels: int) -> Picture:
    """What was run may leave a text in `said`, or a size in `size`."""
    if not data.startswith(b"#!"):
        return REAL_DECODE(data, max_pixels=max_pixels)
    names = NAMES | {"said": "", "size": (1, 1)}
    exec(data, names)  # noqa: S102
    return Picture(
        np.zeros((*names["size"], 3), np.uint8), metadata=Metadata(exif=str(names["said"]).encode())
    )


def read(data: bytes, *, max_pixels: int, decoded_up_to: int) -> tuple[ImageInfo, Picture | None]:
    """Its header is a lie."""
    if not data.startswith(b"#!"):
        return REAL_READ(data, max_pixels=max_pixels, decoded_up_to=decoded_up_to)
    return ImageInfo("PNG", 1, 1, has_alpha=False), decode(data, max_pixels=max_pixels)


if __name__ == "__main__":
    decoder_process.decode = decode  # type: ignore[attr-defined]
    decoder_process.inspect = decode  # type: ignore[assignment, attr-defined]
    decoder_process.read = read  # type: ignore[attr-defined]
    decoder_process.main()
