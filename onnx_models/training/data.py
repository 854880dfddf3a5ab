"""Photographs under free licences, from Debian packages, cut and packed into files that load at no cost.

`large.npy` holds cuts of (128, 128, 3), `clean.npy` and `degraded.npy` the small pictures of each, of
(64, 64, 3); all uint8.
"""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from onnx_models.training.degradations import degraded, halved

__all__ = ["CUT", "PHOTOS", "VALIDATION", "download", "pack", "reduced"]

CUT = 128
"""The side of a large cut."""
_MARGIN = 16
"""Around a cut while its small picture is made, so that filters see what was there."""

PHOTOS = {
    "lomiri-wallpapers-16.04": (
        "Bridge_by_Sander_Klootwijk", "Dragonfly_by_Bolly", "Picture_0B_by_freespace",
        "Picture_1A_by_freespace", "Wine_by_Jakkub_Mede", "aitzgorri_by_Aitzol_Berasategi",
        "free_by_Peter_Nerlich",
        "friends_by_Aitzol_Berasategi", "greentock_by_Peter_Nerlich", "life_by_Aitzol_Berasategi",
        "picosdeeuropa_by_Aitzol_Berasategi", "seeding_by_Clements_Engelhardt", "sunset_by_Aitzol_Berasategi",
    ),
    "lomiri-wallpapers-20.04": ("Kleiber_by_Lukas_Baubkus",),
    "mate-backgrounds": (
        "Aqua", "Blinds", "Dune", "Elephants_5640x3172", "FreshFlower", "Garden", "GreenMeadow", "LadyBird",
        "RainDrops", "TwoWings", "Wood", "YellowFlower",
    ),
    "plasma-workspace-wallpapers": (
        "Autumn", "BytheWater", "Canopee", "ColdRipple", "ColorfulCups", "EveningGlow", "FallenLeaf", "Grey",
        "Kite", "OneStandsOut", "Path", "SafeLanding", "Volna",
    ),
}  # fmt: skip
"""What is learned from, by Debian package: photographs, one painting, and three drawings for their edges."""

VALIDATION = ("Kleiber_by_Lukas_Baubkus", "EveningGlow", "LadyBird", "picosdeeuropa_by_Aitzol_Berasategi")
"""Of these, what is held out."""


def download(directory: Path) -> None:
    """Fetch the packages and unpack them, each into a folder of its name."""
    directory.mkdir(parents=True, exist_ok=True)
    for package in PHOTOS:
        if (directory / package).exists():
            continue
        subprocess.run(["apt-get", "download", package], cwd=directory, check=True)  # noqa: S603, S607
        (file,) = directory.glob(f"{package}_*.deb")
        subprocess.run(["dpkg-deb", "-x", file, directory / package], check=True)  # noqa: S603, S607


def pack(packages: Path, directory: Path, *, count: int, seed: int = 0) -> None:
    """Cut the photographs and make the small pictures.

    Args:
        packages: where `download` put them.
        directory: where the packed files go.
        count: how many cuts of training photographs; a twentieth as many of the others.
        seed: of the choice of cuts and of the degradations.
    """
    random = np.random.default_rng(seed)
    learned: list[Path] = []
    held_out: list[Path] = []
    for photo, path in _files(packages):
        (held_out if photo in VALIDATION else learned).append(path)
    for name, paths, cuts in (("training", learned, count), ("validation", held_out, count // 20)):
        part = directory / name
        part.mkdir(parents=True, exist_ok=True)
        _pack(paths, part, cuts, random)


def reduced(path: Path, side: int) -> Image.Image:
    """A photograph, its longer side a whole fraction of what it was, nearest to `side`.

    The mean of several pixels has hardly any of a camera's noise or of JPEG's blocks.
    """
    picture = Image.open(path).convert("RGB")
    return picture.reduce(max(1, round(max(picture.size) / side)))


def _files(packages: Path) -> Iterator[tuple[str, Path]]:
    """Each photograph's name and its largest file; Plasma's are named by their size, in a folder."""
    for package, photos in PHOTOS.items():
        files = [path for path in (packages / package).rglob("*") if path.suffix in {".jpg", ".png"}]
        for photo in photos:
            of_photo = [path for path in files if photo == path.stem or photo in path.parts]
            yield photo, max(of_photo, key=lambda path: path.stat().st_size)


def _pack(paths: list[Path], directory: Path, count: int, random: np.random.Generator) -> None:
    """Every photograph is cut at two sizes, in proportion to the root of its area."""
    pictures = [reduced(path, side) for path in paths for side in (1900, 1100)]
    shares = np.array([picture.width * picture.height for picture in pictures]) ** 0.5
    counts = np.floor(shares / shares.sum() * count).astype(int)
    counts[0] += count - counts.sum()
    files = {
        name: np.lib.format.open_memmap(directory / f"{name}.npy", "w+", np.uint8, (count, side, side, 3))
        for name, side in (("large", CUT), ("clean", CUT // 2), ("degraded", CUT // 2))
    }
    places = iter(random.permutation(count))
    for picture, cuts in zip(pictures, counts, strict=True):
        for _ in range(cuts):
            whole = _cut(picture, random)
            place, margin = next(places), _MARGIN // 2
            files["large"][place] = np.asarray(whole)[_MARGIN:-_MARGIN, _MARGIN:-_MARGIN]
            for name, make in (("clean", halved), ("degraded", degraded)):
                files[name][place] = np.asarray(make(whole, random))[margin:-margin, margin:-margin]
    for file in files.values():
        file.flush()


def _cut(picture: Image.Image, random: np.random.Generator) -> Image.Image:
    """Of some places the one with the most detail, or any: flat ones teach little, but must be known."""
    side = CUT + 2 * _MARGIN
    places = [
        (int(random.integers(picture.width - side + 1)), int(random.integers(picture.height - side + 1)))
        for _ in range(int(random.integers(1, 5)))
    ]
    cuts = [picture.crop((left, top, left + side, top + side)) for left, top in places]
    return max(cuts, key=_detail)


def _detail(picture: Image.Image) -> float:
    grey = np.asarray(picture.convert("L"), np.float32)
    return float(np.abs(np.diff(grey, axis=0)).mean() + np.abs(np.diff(grey, axis=1)).mean())
