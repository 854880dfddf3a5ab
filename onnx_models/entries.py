"""The models that a user added: a directory with two files for each.

`NAME.json` is the entry, a `Model`; `NAME-4x-0123456789ab.onnx` is the network, named by its scale and the
beginning of its SHA-256. A latent upscaler has a directory of files in place of the network, `NAME-2x-` and
the beginning of its UNet's SHA-256; a creative one, too, `NAME-creative-`. A model that works beside
upscalers has an `Auxiliary` as its entry, and `NAME-0123456789ab.onnx`. The network is written first and the
entry last, so that an entry that exists is complete; removal goes the other way round. As each model has its
own files, a broken one harms no other. Whoever changes the directory locks it, so that two who add one name
do not overwrite each other.
"""

import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from onnx_models.auxiliary import Auxiliary
from onnx_models.errors import (
    BrokenEntryError,
    DuplicateModelError,
    ModelBuildError,
    UnknownModelError,
    one_line,
)
from onnx_models.files import locked, remove_leftovers, write_atomically
from onnx_models.model import DiffusionWeights, Model, NcnnWeights, OnnxWeights, WeightFile, Weights

__all__ = [
    "entry_files",
    "is_added",
    "new_folder",
    "read_entry",
    "refuse_taken",
    "remove_entry",
    "write_auxiliary",
    "write_entry",
    "write_latent_entry",
]


def entry_files(directory: Path) -> list[Path]:
    """Return the entries of a directory, by name; none if it does not exist.

    Raises:
        BrokenEntryError: It cannot be listed.
    """
    try:
        return sorted(path for path in directory.iterdir() if path.match("[!.]*.json"))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise BrokenEntryError(f"the directory of added models cannot be read: {one_line(error)}") from error


class _Kind(Struct):
    """What tells the two sorts of entries apart: only one has a kind."""

    kind: str | None = None


def read_entry(path: Path) -> Model | Auxiliary:
    """Read one entry; the paths of its weights become absolute.

    The weights are not verified here, which takes long; `ensure_built` does it before they are used.

    Raises:
        BrokenEntryError: It is no such entry, or weights that it names are missing.
    """
    try:
        content = path.read_bytes()
        model: Model | Auxiliary
        if msgspec.json.decode(content, type=_Kind).kind is None:
            model = msgspec.json.decode(content, type=Model)
        else:
            model = msgspec.json.decode(content, type=Auxiliary)
    except (OSError, ValueError, RecursionError) as error:  # msgspec's are ValueErrors; so is a wrong byte
        raise BrokenEntryError(f"{path} cannot be read: {one_line(error)}") from error
    if model.name != path.stem:
        raise BrokenEntryError(f"{path} is the entry of a model called {model.name}")
    if isinstance(model, Auxiliary):
        return replace(model, file=_file(model.file, path))
    return replace(model, weights=tuple(_located(each, path) for each in model.weights))


def _located(weights: Weights, entry: Path) -> Weights:
    if isinstance(weights, NcnnWeights):
        raise BrokenEntryError(f"{entry} has weights of the format ncnn, which comes with Tilewire only")
    if isinstance(weights, OnnxWeights):
        return replace(weights, file=_file(weights.file, entry))
    return weights.with_files(lambda file: _file(file, entry))


def _file(file: WeightFile, entry: Path) -> WeightFile:
    path = entry.parent.absolute() / file.path
    try:
        is_there = path.is_file()
    except OSError as error:  # such as a name that is too long
        raise BrokenEntryError(f"a file of {entry.stem} cannot be read: {one_line(error)}") from error
    if not is_there:
        raise BrokenEntryError(f"{path} is missing")
    return replace(file, path=str(path))


def is_added(directory: Path, name: str) -> bool:
    """Whether a model was added under this name, and its entry can be read."""
    try:
        read_entry(directory / f"{name}.json")
    except BrokenEntryError:
        return False
    return True


def refuse_taken(directory: Path, name: str, air: str = "") -> None:
    """Make sure that no added model has a name or an AIR identifier.

    Raises:
        DuplicateModelError: One has.
        BrokenEntryError: The directory cannot be listed.
    """
    for entry in entry_files(directory):
        try:
            known = read_entry(entry)
        except BrokenEntryError as error:
            if entry.stem == name:
                raise DuplicateModelError(
                    f"{name} was added, but its entry is broken; remove it first"
                ) from error
            continue
        for key, other in ((name, known.name), (air, known.air)):
            if key == other:
                raise DuplicateModelError(f"{key} is taken by {known.title}; choose another one")


def write_entry(directory: Path, model: Model, networks: Sequence[bytes]) -> Model:
    """Add a model; the directory is made if it is missing.

    Args:
        directory: Of the added models.
        model: What is known of it; the files of its weights are still missing.
        networks: The ONNX file of each of its weights.

    Returns:
        The model as `read_entry` gives it.

    Raises:
        DuplicateModelError: The name or the AIR identifier has been taken in the meantime.
        ModelBuildError: A file cannot be written.
    """
    files: dict[str, bytes] = {}
    weights = []
    for each, network in zip(model.weights, networks, strict=True):
        sha256 = hashlib.sha256(network).hexdigest()
        name = f"{model.name}-{each.label}-{sha256[:12]}.onnx"
        files[name] = network
        weights.append(OnnxWeights(each.scale, WeightFile(name, sha256), each.denoise))
    written = _write(directory, replace(model, weights=tuple(weights)), files)
    assert isinstance(written, Model)
    return written


def write_auxiliary(directory: Path, auxiliary: Auxiliary, network: bytes) -> Auxiliary:
    """Add a model that works beside upscalers; see `write_entry`.

    Args:
        directory: Of the added models.
        auxiliary: What is known of it; its file is still missing.
        network: The ONNX file.

    Raises:
        DuplicateModelError: The name or the AIR identifier has been taken in the meantime.
        ModelBuildError: A file cannot be written.
    """
    sha256 = hashlib.sha256(network).hexdigest()
    name = f"{auxiliary.name}-{sha256[:12]}.onnx"
    written = _write(directory, replace(auxiliary, file=WeightFile(name, sha256)), {name: network})
    assert isinstance(written, Auxiliary)
    return written


def _write(directory: Path, model: Model | Auxiliary, files: Mapping[str, bytes]) -> Model | Auxiliary:
    entry = directory / f"{model.name}.json"
    try:
        with locked(directory):
            refuse_taken(directory, model.name, model.air)
            remove_leftovers(directory)
            for name, network in files.items():
                write_atomically(directory / name, network)
            write_atomically(entry, msgspec.json.format(msgspec.json.encode(model)))
    except OSError as error:
        raise ModelBuildError(f"{model.name} cannot be added: {error}") from error
    return read_entry(entry)


@contextmanager
def new_folder(directory: Path, name: str, on_wait: Callable[[], None] = lambda: None) -> Iterator[Path]:
    """Make a folder for the files of a latent or creative upscaler; what is left in it at the end is removed.

    Args:
        directory: Of the added models.
        name: Of the upscaler; others who would write its files wait.
        on_wait: Called if somebody else writes them now.

    Raises:
        DuplicateModelError: Somebody else has added it.
        ModelBuildError: The folder cannot be made.
    """
    folder = directory / f".{name}.{secrets.token_hex(8)}.partial"
    with locked(directory, name, on_wait):
        refuse_taken(directory, name)
        try:
            remove_leftovers(directory)
            folder.mkdir()
        except OSError as error:
            raise ModelBuildError(f"{name} cannot be added: {error}") from error
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def write_latent_entry(directory: Path, model: Model, folder: Path) -> Model:
    """Add a latent or creative upscaler.

    Args:
        directory: Of the added models.
        model: What is known of it; its weights are relative to `folder`.
        folder: With its files, in `directory`; it is renamed.

    Returns:
        The model as `read_entry` gives it.

    Raises:
        DuplicateModelError: The name or the AIR identifier has been taken in the meantime.
        ModelBuildError: A file cannot be written.
    """
    (weights,) = model.weights
    assert isinstance(weights, DiffusionWeights)
    target = directory / f"{model.name}-{weights.label}-{weights.unet[0].sha256[:12]}"
    entry = directory / f"{model.name}.json"
    weights = weights.with_files(lambda file: replace(file, path=f"{target.name}/{file.path}"))
    try:
        for file in folder.iterdir():
            with file.open("rb+") as written:
                os.fsync(written.fileno())
        with locked(directory):
            refuse_taken(directory, model.name, model.air)
            shutil.rmtree(target, ignore_errors=True)  # of an entry that was never written
            folder.rename(target)
            content = msgspec.json.encode(replace(model, weights=(weights,)))
            write_atomically(entry, msgspec.json.format(content))
    except OSError as error:
        raise ModelBuildError(f"{model.name} cannot be added: {error}") from error
    added = read_entry(entry)
    assert isinstance(added, Model)
    return added


def remove_entry(directory: Path, name: str) -> None:
    """Remove an added model, even one whose entry is broken.

    Raises:
        UnknownModelError: No model of this name was added; the message names those that were.
        BrokenEntryError: The directory cannot be listed.
        ModelBuildError: A file cannot be removed.
    """
    known = {path.stem: path for path in entry_files(directory)}
    if name not in known:
        names = ", ".join(known) or "none"
        raise UnknownModelError(f"no model called {name!r} was added; there are {names}")
    network = re.compile(re.escape(name) + r"(-creative|-\d+x(-denoise\d)?)?-[0-9a-f]{12}(\.onnx)?")
    try:
        with locked(directory):
            known[name].unlink(missing_ok=True)
            for path in directory.iterdir():
                if network.fullmatch(path.name):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
    except OSError as error:
        raise ModelBuildError(f"{name} cannot be removed: {error}") from error
