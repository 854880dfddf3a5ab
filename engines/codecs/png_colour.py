"""What PNG's gAMA and cHRM say of colours, where no profile does.

Samples are brought to the curve of sRGB, in which networks see them as they were taught to. Primaries other
than those of sRGB become a profile, which goes with the picture as an embedded one would.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["ColourChunks"]

_SRGB_GAMMA: Final = 1 / 2.2
"""What PNG-3, 11.3.2.5, has writers give for sRGB."""
_SAME: Final = 0.05
"""As libpng: what differs by less is nothing that anybody could see (PNG_GAMMA_THRESHOLD)."""
_PLAUSIBLE: Final = (0.1, 5.0)
_SRGB_PRIMARIES: Final = (0.3127, 0.3290, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
_D50: Final = np.array([0.9642, 1.0, 0.8249])
_BRADFORD: Final = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


@dataclass(frozen=True, slots=True)
class ColourChunks:
    """What is known of a PNG's colours."""

    gamma: float | None = None
    """gAMA (11.3.2.2): samples are light to this power."""
    primaries: tuple[float, ...] | None = None
    """cHRM (11.3.2.1): x and y of white, red, green and blue."""

    @classmethod
    def read(cls, chunks: Mapping[bytes, bytes]) -> ColourChunks:
        """Of a file's chunks; those that are short, make no sense or are overruled are ignored.

        Where sRGB or cICP is there, gAMA and cHRM are for programs that do not know them (4.3).
        """
        if chunks.get(b"sRGB") or len(chunks.get(b"cICP", b"")) == 4:
            return cls()
        gamma, primaries = None, None
        if len(data := chunks.get(b"gAMA", b"")) == 4:
            value = int.from_bytes(data) / 100_000
            if _PLAUSIBLE[0] <= value <= _PLAUSIBLE[1] and abs(value / _SRGB_GAMMA - 1) > _SAME:
                gamma = value
        if len(data := chunks.get(b"cHRM", b"")) == 32:
            values = tuple(value / 100_000 for value in struct.unpack(">8I", data))
            differ = np.abs(np.subtract(values, _SRGB_PRIMARIES)).max() > 0.005
            if differ and _matrix(values) is not None:
                primaries = values
        return cls(gamma, primaries)

    def curve(self, white: int) -> NDArray[np.uint8] | None:
        """What each sample is in 8 bits on the curve of sRGB (IEC 61966-2-1); None if it is that already.

        Args:
            white: the largest sample, 255 or 65535.
        """
        samples = np.arange(white + 1) / white
        if self.gamma is not None:
            light = samples ** (1 / self.gamma)
            samples = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
        elif white == 255:
            return None
        return np.rint(samples * 255).astype(np.uint8)

    def profile(self) -> bytes | None:
        """An ICC profile of the primaries with the curve of sRGB; None if they are those of sRGB."""
        if self.primaries is None:
            return None
        matrix = _matrix(self.primaries)
        assert matrix is not None
        return _icc_profile(matrix)


def _matrix(primaries: tuple[float, ...]) -> NDArray[np.float64] | None:
    """From RGB to XYZ, adapted to D50 as profiles want it (Bradford); None if there is no such space."""
    x, y = np.array(primaries[0::2]), np.array(primaries[1::2])
    if (y <= 0).any() or (x + y > 1.2).any():
        return None
    white, *colours = np.stack([x / y, np.ones(4), (1 - x - y) / y], axis=1)
    columns = np.array(colours).T
    try:
        amounts = np.linalg.solve(columns, white)
    except np.linalg.LinAlgError:
        return None
    if not (np.isfinite(amounts).all() and (amounts > 1e-3).all()):
        return None
    adapted = _BRADFORD @ _D50 / (_BRADFORD @ white)
    matrix: NDArray[np.float64] = (
        np.linalg.inv(_BRADFORD) @ np.diag(adapted) @ _BRADFORD @ (columns * amounts)
    )
    return matrix if np.abs(matrix).max() < 4 else None


def _icc_profile(matrix: NDArray[np.float64]) -> bytes:
    """A display profile of version 2 (ICC.1:2001-04): header, tag table, tags."""
    steps = np.arange(1024) / 1023
    light = np.where(steps <= 0.04045, steps / 12.92, ((steps + 0.055) / 1.055) ** 2.4)
    curve = b"curv\0\0\0\0" + struct.pack(">I", len(steps)) + np.rint(light * 65535).astype(">u2").tobytes()
    name = b"PNG primaries\0"
    tags = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", len(name)) + name + bytes(78),
        b"cprt": b"text\0\0\0\0" + b"No copyright\0",
        b"wtpt": _xyz(_D50),
        b"rXYZ": _xyz(matrix[:, 0]),
        b"gXYZ": _xyz(matrix[:, 1]),
        b"bXYZ": _xyz(matrix[:, 2]),
        b"rTRC": curve,
        b"gTRC": curve,
        b"bTRC": curve,
    }
    table, body, places = struct.pack(">I", len(tags)), b"", dict[bytes, int]()
    start = 132 + 12 * len(tags)
    for tag, data in tags.items():
        if data not in places:
            places[data] = start + len(body)
            body += data + bytes(-len(data) % 4)
        table += struct.pack(">4sII", tag, places[data], len(data))
    header = struct.pack(
        ">I4sI4s4s4s12s4s", start + len(body), b"", 0x02400000, b"mntr", b"RGB ", b"XYZ ", bytes(12), b"acsp"
    )
    return header.ljust(68, b"\0") + _fixed(_D50) + bytes(48) + table + body


def _xyz(values: NDArray[np.float64]) -> bytes:
    return b"XYZ \0\0\0\0" + _fixed(values)


def _fixed(values: NDArray[np.float64]) -> bytes:
    return np.rint(values * 65536).astype(">i4").tobytes()
