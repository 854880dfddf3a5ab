"""Crops of what all models made of one picture, side by side, to look at."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from PIL import Image, ImageDraw, ImageFont

__all__ = ["CROPS", "sheet"]

CROPS: Final[Mapping[str, tuple[int, int]]] = {
    "astronaut": (98, 4),
    "chelsea": (78, 60),
    "motorcycle": (150, 150),
    "china": (56, 96),
}
"""Left and top of the part of a photograph that is shown: a face, an eye, an engine, roofs."""

_SIDE: Final = 128
_ZOOM: Final = 2
_COLUMNS: Final = 5
_TITLE: Final = 22


def sheet(pictures: Mapping[str, Image.Image], name: str, file: Path) -> None:
    """Write a sheet as a JPEG.

    Args:
        pictures: the photograph and the results by their titles, all of the photograph's size.
        name: of the photograph.
        file: where to.
    """
    left, top = CROPS[name]
    shown = _SIDE * _ZOOM
    rows = -(-len(pictures) // _COLUMNS)
    page = Image.new("RGB", (_COLUMNS * (shown + 4), rows * (shown + _TITLE + 4)), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(15)
    for number, (title, picture) in enumerate(pictures.items()):
        x, y = number % _COLUMNS * (shown + 4), number // _COLUMNS * (shown + _TITLE + 4)
        draw.text((x + 2, y + 2), title, "black", font)
        part = picture.crop((left, top, left + _SIDE, top + _SIDE))
        page.paste(part.resize((shown, shown), Image.Resampling.NEAREST), (x, y + _TITLE))
    page.save(file, quality=85, optimize=True)
