"""All installed models on held-out photographs, at x2 and x4: a table, and sheets of crops.

    python -m benchmarks.quality --pictures DIRECTORY [--photographs MORE] [--models NAME...]

The photographs are scikit-image's, and those of a directory of yours. Models are those that come with
Tilewire and those in the data directory: `tilewire models pull span span-kendata waifu2x-photo
realesr-general-x4v3 ffdnet` fetches the others of the published table. Its other two photographs are
scikit-learn's `china.jpg` and `flower.jpg`.
"""

import argparse
import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import fmean

import numpy as np
from PIL import Image

from benchmarks.quality.measures import Measures, measured
from benchmarks.quality.pictures import KINDS, Photo, photographs, shrunk
from benchmarks.quality.sheets import CROPS, sheet
from benchmarks.quality.st_lpips import STLpips
from benchmarks.report import Report
from engines import Picture, Upscaler, find_devices
from onnx_models import Catalogue, Model, UnknownModelError, load_catalogue
from server.settings import load_settings

Size = tuple[int, int]
Enlarge = Callable[[Image.Image, Size], Awaitable[Image.Image]]

_SHOWN = {("box", 2), ("box", 4), ("noise", 4), ("JPEG", 4)}
"""What there are sheets of."""


async def _filtered(method: Image.Resampling, small: Image.Image, size: Size) -> Image.Image:
    return small.resize(size, method)


class Ways:
    """The ways to enlarge a picture: filters, models, and models with what may go before them."""

    def __init__(self, upscaler: Upscaler, catalogue: Catalogue) -> None:
        self._upscaler, self._catalogue = upscaler, catalogue

    def all(self, names: list[str]) -> Iterator[tuple[str, Enlarge]]:
        """Each with its title; those that are not installed are left out."""
        yield "bicubic", partial(_filtered, Image.Resampling.BICUBIC)
        yield "Lanczos", partial(_filtered, Image.Resampling.LANCZOS)
        for model in self._catalogue:
            if names and model.name not in names:
                continue
            yield model.name, partial(self._upscaled, model, None, 0)
            for level in model.denoise_levels[1::2]:
                yield f"{model.name}, denoise {level}", partial(self._upscaled, model, level, 0)
            if model.name == "span":
                yield "FFDNet 8, span", partial(self._upscaled, model, None, 8)

    async def _upscaled(
        self, model: Model, level: int | None, strength: float, small: Image.Image, size: Size
    ) -> Image.Image:
        picture = Picture(pixels=np.asarray(small))
        if strength:
            denoiser = self._catalogue.auxiliary("denoiser")
            picture = await self._upscaler.auxiliaries.denoise(picture, denoiser, strength)
        width, height = size
        found = await self._upscaler.upscale(picture, model, width=width, height=height, denoise=level)
        return Image.fromarray(found.pixels)


class Comparison:
    """What was measured so far, of each way, kind of small picture and factor."""

    def __init__(self, photos: list[Photo], st_lpips: STLpips, directory: Path) -> None:
        self._photos, self._st_lpips, self._directory = photos, st_lpips, directory
        self._measures: defaultdict[tuple[str, str, int], list[Measures]] = defaultdict(list)
        self._seconds: defaultdict[tuple[str, int], list[float]] = defaultdict(list)
        self.titles: list[str] = []

    async def try_out(self, title: str, enlarge: Enlarge) -> None:
        """Enlarge all photographs in one way, and keep the results."""
        self.titles.append(title)
        for factor in (2, 4):
            first = self._photos[0][1]
            await enlarge(shrunk(first, factor, "box"), first.size)  # it is built and loaded
            for kind in KINDS:
                for name, photo in self._photos:
                    small = shrunk(photo, factor, kind)
                    began = time.perf_counter()
                    found = await enlarge(small, photo.size)
                    seconds = time.perf_counter() - began
                    self._seconds[title, factor].append(seconds * 1e6 / (photo.width * photo.height))
                    self._measures[title, kind, factor].append(measured(photo, found, self._st_lpips))
                    if name in CROPS and (kind, factor) in _SHOWN:
                        found.save(self._file(name, kind, factor, title))
        print(title, flush=True)

    def report(self) -> Report:
        """Means over all photographs; seconds are medians, of a megapixel of the result."""
        columns = "PSNR", "SSIM", "SSIMULACRA 2", "ST-LPIPS", "seconds/MP"
        report = Report("quality", "small picture", "factor", "enlarged by             ", *columns)
        for factor in (2, 4):
            for kind in KINDS:
                for title in self.titles:
                    means = Measures(*map(fmean, zip(*self._measures[title, kind, factor], strict=True)))
                    report.row(
                        kind, f"x{factor}", title,
                        f"{means.psnr:.2f}", f"{means.ssim:.3f}", f"{means.ssimulacra2:.1f}",
                        f"{means.st_lpips:.3f}", f"{np.median(self._seconds[title, factor]):.2f}",
                    )  # fmt: skip
        return report

    def draw(self) -> None:
        """Write the sheets."""
        for kind, factor in sorted(_SHOWN):
            for name, photo in self._photos:
                if name not in CROPS:
                    continue
                small = shrunk(photo, factor, kind).resize(photo.size, Image.Resampling.NEAREST)
                pictures = {"photograph": photo, f"small, {kind}": small}
                for title in self.titles:
                    pictures[title] = Image.open(self._file(name, kind, factor, title))
                sheet(pictures, name, self._directory / f"sheet-{name}-{kind.lower()}-x{factor}.jpg")

    def _file(self, name: str, kind: str, factor: int, title: str) -> Path:
        return self._directory / f"{name}-{kind}-x{factor}-{title.replace(' ', '-').replace(',', '')}.png"


async def _compare(comparison: Comparison, ways: Ways, names: list[str]) -> None:
    for title, enlarge in ways.all(names):
        try:
            await comparison.try_out(title, enlarge)
        except UnknownModelError as error:  # what goes before a model may not be installed
            comparison.titles.remove(title)
            print(f"{title}: {error}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description=__doc__)
    parser.add_argument("--pictures", type=Path, required=True, help="a directory for results and sheets")
    parser.add_argument("--photographs", type=Path, help="a directory with more photographs")
    parser.add_argument("--models", nargs="*", default=[], help="default: all that are installed")
    wanted = parser.parse_args()
    wanted.pictures.mkdir(parents=True, exist_ok=True)
    settings, _ = load_settings()
    upscaler = Upscaler(find_devices("cpu"), settings.model_directory)
    try:
        ways = Ways(upscaler, load_catalogue(settings.effective_added_models))
        st_lpips = STLpips(settings.model_directory)
        comparison = Comparison(list(photographs(wanted.photographs)), st_lpips, wanted.pictures)
        asyncio.run(_compare(comparison, ways, wanted.models))
    finally:
        upscaler.close()
    comparison.report().keep()
    comparison.draw()


if __name__ == "__main__":
    main()
