"""How near an enlarged picture is to the photograph, by four measures."""

import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import ssimulacra2
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from benchmarks.quality.st_lpips import STLpips

__all__ = ["Measures", "measured"]


class Measures(NamedTuple):
    """PSNR in dB and SSIM compare pixels; SSIMULACRA 2, at most 100, and ST-LPIPS, at least 0, the eye."""

    psnr: float
    ssim: float
    ssimulacra2: float
    st_lpips: float


def measured(photo: Image.Image, found: Image.Image, st_lpips: STLpips) -> Measures:
    """Compare a result with the photograph; both RGB, of one size."""
    pair = np.asarray(photo), np.asarray(found)
    with tempfile.TemporaryDirectory() as folder:  # ssimulacra2 reads files only
        files = Path(folder, "photo.png"), Path(folder, "found.png")
        for image, file in zip((photo, found), files, strict=True):
            image.save(file, compress_level=1)
        perceived = float(ssimulacra2.compute_ssimulacra2(*map(str, files)))
    return Measures(
        float(peak_signal_noise_ratio(*pair)),
        float(structural_similarity(*pair, channel_axis=2)),
        perceived,
        st_lpips.distance(photo, found),
    )
