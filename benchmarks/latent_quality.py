"""How good the built-in latent upscaler is beside the usual filters: photographs halved and enlarged again.

They are scikit-image's, of which the model learned nothing; the small pictures are clean, or slightly spoilt
as in its training. SSIMULACRA 2 is the perceptual measure: 100 is no difference, and 90 hard to see.
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import ssimulacra2
from numpy.typing import NDArray
from PIL import Image
from skimage import data
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from benchmarks.report import Report
from engines.devices.ort import open_on_cpu
from engines.latent.denoising import upscale_latent
from engines.latent.diffusion import Diffusion
from onnx_models import LatentWeights, load_catalogue
from onnx_models.training.degradations import degraded

Pixels = NDArray[np.uint8]
Enlarge = Callable[[Image.Image], Image.Image]

PHOTOS = ("astronaut", "chelsea", "coffee", "hubble_deep_field", "rocket", "stereo_motorcycle")
SIDE = 512
"""The most of a photograph that is looked at: its middle."""


def photograph(name: str) -> Image.Image:
    """With sides that are multiples of 4."""
    found = getattr(data, name)()
    photo = Image.fromarray(found[0] if isinstance(found, tuple) else found)
    width, height = (min(length, SIDE) // 4 * 4 for length in photo.size)
    left, top = (photo.width - width) // 2, (photo.height - height) // 2
    return photo.crop((left, top, left + width, top + height))


def filtered(method: Image.Resampling, small: Image.Image) -> Image.Image:
    return small.resize((2 * small.width, 2 * small.height), method)


def halved(method: Image.Resampling, photo: Image.Image) -> Image.Image:
    return photo.resize((photo.width // 2, photo.height // 2), method)


def spoilt(photo: Image.Image) -> Image.Image:
    return degraded(photo, np.random.default_rng(0))


class Upscaler:
    """The model, a window at a time."""

    def __init__(self, weights: LatentWeights, *, side: int, overlap: int) -> None:
        self._weights, self._side, self._overlap = weights, side, overlap
        parts = {"vae_encoder": weights.vae_encoder, "unet": weights.unet, "vae_decoder": weights.vae_decoder}
        self._parts = {name: open_on_cpu(Path(files[0].path)) for name, files in parts.items()}

    def enlarged(self, steps: int, small: Image.Image) -> Image.Image:
        calls = upscale_latent(
            np.asarray(small), None, Diffusion(steps=steps), self._weights,
            side=self._side, overlap=self._overlap,
        )  # fmt: skip
        runs = next(calls)
        while True:
            part = self._parts[runs.part]
            found = [part.run_part(tuple(array[np.newaxis] for array in arrays)) for arrays in runs.inputs]
            try:
                runs = calls.send([tuple(array[0] for array in arrays) for arrays in found])
            except StopIteration as end:
                pixels = (end.value * 255).round().clip(0, 255).astype(np.uint8)
                return Image.fromarray(pixels)


def measures(photo: Image.Image, found: Image.Image, directory: Path) -> tuple[float, float, float]:
    """PSNR in dB, SSIM, SSIMULACRA 2."""
    files = directory / "photo.png", directory / "found.png"
    for image, file in zip((photo, found), files, strict=True):
        image.save(file)
    pair = np.asarray(photo), np.asarray(found)
    return (
        float(peak_signal_noise_ratio(*pair)),
        float(structural_similarity(*pair, channel_axis=2)),
        float(ssimulacra2.compute_ssimulacra2(*map(str, files))),
    )


def compare(upscaler: Upscaler, steps: list[int], directory: Path) -> Report:
    """The mean over all photographs; the pictures are kept in the directory."""
    report = Report("latent_quality", "small picture", "enlarged by", "PSNR", "SSIM", "SSIMULACRA 2")
    smaller: dict[str, Enlarge] = {
        "box": partial(halved, Image.Resampling.BOX),
        "bicubic": partial(halved, Image.Resampling.BICUBIC),
        "spoilt": spoilt,
    }
    larger: dict[str, Enlarge] = {
        "bicubic": partial(filtered, Image.Resampling.BICUBIC),
        "Lanczos": partial(filtered, Image.Resampling.LANCZOS),
        **{f"{count} step{'s' * (count > 1)}": partial(upscaler.enlarged, count) for count in steps},
    }
    for kind, shrink in smaller.items():
        for method, enlarge in larger.items():
            rows = []
            for name in PHOTOS:
                photo = photograph(name)
                found = enlarge(shrink(photo))
                found.save(directory / f"{name}-{kind}-{method.replace(' ', '-')}.png")
                rows.append(measures(photo, found, directory))
            psnr, ssim, perceived = np.mean(rows, 0)
            report.row(kind, method, f"{psnr:.2f}", f"{ssim:.4f}", f"{perceived:.1f}")
    return report


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.latent_quality", description=__doc__)
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--pictures", type=Path, required=True, help="a directory for them")
    wanted = parser.parse_args()
    wanted.pictures.mkdir(parents=True, exist_ok=True)
    model = load_catalogue().get("tilewire-latent-x2")
    assert model.latent is not None
    upscaler = Upscaler(model.latent, side=model.tile, overlap=model.overlap)
    compare(upscaler, wanted.steps, wanted.pictures).keep()


if __name__ == "__main__":
    main()
