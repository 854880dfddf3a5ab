"""A server's directory of models, with networks that find and restore faces and are quick to run."""

import io
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from engines import open_on_cpu
from onnx_models import Auxiliary, Facts, add_model, load_catalogue
from onnx_models.centerface import convert
from tests.onnx_models.support.faces import like_centerface, restorer
from tests.server.support.auxiliaries import add_auxiliary

HEIGHT, WIDTH = 260, 400
CENTRES = ((100, 120), (300, 140))
"""Of faces: x and y."""


def portrait(*centres: tuple[int, int]) -> bytes:
    """A dull picture with a red mark in the middle of each face."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    wave = 100 + 30 * np.sin(x / 17) * np.cos(y / 13)
    pixels = np.stack([wave, wave + 5, wave + 10], -1).astype(np.uint8)
    for x0, y0 in centres:
        pixels[y0 : y0 + 4, x0 : x0 + 4] = (255, 0, 0)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def add_detector(directory: Path) -> Auxiliary:
    network = convert(like_centerface().SerializeToString())
    return add_auxiliary(directory, "faceDetector", "tiny-detector", network)


def add_restorer(directory: Path, name: str, price: str = "2", **how: Any) -> Auxiliary:
    """The way that `tilewire models add` goes."""
    directory.mkdir(parents=True, exist_ok=True)
    file = directory.parent / f"{name}.onnx"
    file.write_bytes(restorer(**how).SerializeToString())
    added, _ = add_model(
        file,
        Facts(name=name, price_per_megapixel=Decimal(price)),
        load_catalogue(directory),
        directory,
        lambda path: open_on_cpu(path).run,
        open_part=lambda path: open_on_cpu(path).run_part,
        accept_licence=True,
    )
    assert isinstance(added, Auxiliary)
    return added
