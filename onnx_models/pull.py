"""Fetches a model whose weights are published, and adds it to the user's."""

import shutil
from collections.abc import Callable, Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import onnx

from onnx_models import centerface, ffdnet, ncnn, open_nsfw, spandrel
from onnx_models.add import add_model
from onnx_models.auxiliary import Auxiliary
from onnx_models.catalogue import Catalogue
from onnx_models.convert import Converted, convert_core
from onnx_models.entries import is_added, write_auxiliary, write_entry
from onnx_models.errors import DownloadError, InstalledError, LicenceError, MissingConverterError
from onnx_models.face_restorer import Restorer
from onnx_models.facts import Facts, refuse_duplicates
from onnx_models.files import locked
from onnx_models.model import NOT_WRITTEN, Model, OnnxWeights
from onnx_models.probe import OpenNetwork, OpenPart
from onnx_models.published import Download, PublishedNetwork
from onnx_models.sources import obtain
from onnx_models.stages import in_stages, with_margin
from onnx_models.torch_file import read_tensors

__all__ = ["pull_model"]


def pull_model(
    download: Download,
    catalogue: Catalogue,
    directory: Path,
    open_network: OpenNetwork,
    on_progress: Callable[[str], None] = lambda _step: None,
    on_bytes: Callable[[int], None] = lambda _count: None,
    *,
    accept_licence: bool = False,
    open_part: OpenPart | None = None,
) -> tuple[Model, Converted] | tuple[Auxiliary, Restorer | None]:
    """Fetch a model's weights and add it to the catalogue.

    Args:
        download: An entry of the catalogue.
        catalogue: The models there are, and the packages that downloads name.
        directory: Of the added models; what has been fetched stays there until everything is complete.
        open_network: The runtime to try it with.
        on_progress: Called with each step, in words.
        on_bytes: Called with how much has been fetched.
        accept_licence: Whether the user has accepted a licence for non-commercial use only.
        open_part: The same for networks of several inputs, which face restorers need.

    Returns:
        The model, and what was measured on its network (of several on the one with the widest seam), if
        anything was.

    Raises:
        LicenceError: The licence has to be accepted first.
        DownloadError: A file cannot be fetched, or is not the one that the catalogue vouches for.
        InstalledError: Another process has just fetched it.
        DuplicateModelError: The name or the AIR identifier is taken.
        ModelBuildError: The model cannot be used, or cannot be written.
    """
    if download.non_commercial and not accept_licence:
        raise LicenceError(
            f"its licence, {download.licence}, excludes commercial use; read {download.licence_url} and, to "
            f"accept it: tilewire models pull {download.name} --accept-licence"
        )
    refuse_duplicates(download.name, download.air, catalogue, directory)
    suffix = Path(download.checkpoint or "").suffix
    if suffix in spandrel.SUFFIXES and download.kind not in _CONVERTERS:
        spandrel.require(suffix)
    if download.needs is not None and find_spec(download.needs) is None:
        raise MissingConverterError(
            f"{download.name} needs a package of its own: pip install {download.needs}"
        )
    folder = directory / f".{download.name}.download"
    with locked(directory, download.name, lambda: on_progress("waiting for another download")):
        if is_added(directory, download.name):  # by the other one
            raise InstalledError(f"{download.name} is installed already")
        on_progress("fetching")
        try:
            files = obtain(download, catalogue.archives, folder, on_bytes)
            added: tuple[Model, Converted] | tuple[Auxiliary, Restorer | None]
            if download.networks:
                added = _add_networks(download, files, directory, open_network, on_progress)
            elif download.kind in _CONVERTERS:
                added = _add_auxiliary(download, files, directory), None
            else:
                (file,) = files.values()
                facts = _facts_of(download)
                added = add_model(
                    file,
                    facts,
                    catalogue,
                    directory,
                    open_network,
                    on_progress,
                    open_part=open_part,
                    accept_licence=accept_licence,
                )
        except DownloadError:  # what is there of it is not fetched again
            raise
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        shutil.rmtree(folder, ignore_errors=True)
        return added


def _facts_of(download: Download) -> Facts:
    return Facts(
        **{each: getattr(download, each) for each in Facts.__struct_fields__ if hasattr(download, each)}
    )


def _add_auxiliary(download: Download, files: Mapping[str, Path], directory: Path) -> Auxiliary:
    assert download.kind != "upscaler"
    (file,) = files.values()
    network = _CONVERTERS[download.kind](file.read_bytes())
    auxiliary = Auxiliary(
        kind=download.kind,
        file=NOT_WRITTEN,
        **{each: getattr(download, each) for each in _SHARED},
    )
    return write_auxiliary(directory, auxiliary, network.SerializeToString(deterministic=True))


_CONVERTERS: Final[Mapping[str, Callable[[bytes], onnx.ModelProto]]] = {
    "denoiser": lambda content: ffdnet.convert(read_tensors(content)),
    "faceDetector": centerface.convert,
    "safetyChecker": open_nsfw.convert,
}
"""What makes a network of a file that is known; any other is looked at as one of the user's."""

_SHARED = (
    "name",
    "air",
    "title",
    "description",
    "price_per_megapixel",
    "licence",
    "licence_url",
    "source_url",
)


def _add_networks(
    download: Download,
    files: Mapping[str, Path],
    directory: Path,
    open_network: OpenNetwork,
    on_progress: Callable[[str], None],
) -> tuple[Model, Converted]:
    found: list[Converted] = []
    for number, network in enumerate(download.networks, start=1):
        count = f" {number} of {len(download.networks)}" if len(download.networks) > 1 else ""
        core = _core(network, files, download.margin)
        found.append(convert_core(core, network.scale, open_network, partial(_numbered, on_progress, count)))
    widest = max(found, key=lambda each: each.seam.overlap)
    overlap = download.overlap or widest.seam.overlap
    model = Model(
        name=download.name,
        aliases=download.aliases,
        air=download.air,
        title=download.title,
        description=download.description,
        family=download.family,
        weights=tuple(
            OnnxWeights(network.scale, NOT_WRITTEN, network.denoise) for network in download.networks
        ),
        factors=tuple(range(2, download.networks[-1].scale + 1)),
        fractional=True,
        overlap=overlap,
        tile=download.tile or max(min(each.tile for each in found), 8 * overlap),
        price_per_megapixel=download.price_per_megapixel,
        licence=download.licence,
        licence_url=download.licence_url,
        source_url=download.source_url,
        parameters=("denoise",) if any(each.denoise is not None for each in download.networks) else (),
    )
    return write_entry(directory, model, [each.network for each in found]), widest


def _numbered(on_progress: Callable[[str], None], count: str, step: str) -> None:
    on_progress(step + count)


def _core(network: PublishedNetwork, files: Mapping[str, Path], margin: int) -> onnx.ModelProto:
    stages = [
        ncnn.convert(files[param].read_bytes(), files[numbers].read_bytes())
        for param, numbers in network.stages
    ]
    return in_stages([with_margin(stage, margin) for stage in stages])
