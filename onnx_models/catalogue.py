"""The catalogue: what every model is, as data.

`catalogue.toml` describes the models that come with Tilewire and those that it can fetch; a directory of the
user's holds those that were added, one JSON file each (see `entries`). All are read into frozen Structs that
refuse unknown fields, missing fields and values out of range.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from onnx_models.auxiliary import KINDS, Auxiliary, AuxiliaryKind
from onnx_models.entries import entry_files, read_entry
from onnx_models.errors import (
    BrokenEntryError,
    CatalogueError,
    DuplicateModelError,
    InstalledError,
    NotInstalledError,
    UnknownModelError,
    one_line,
)
from onnx_models.model import DiffusionWeights, Model, WeightFile, Weights
from onnx_models.published import Archive, Download, Export, Published, Unavailable

__all__ = ["Catalogue", "load_catalogue", "parse_catalogue"]

log = logging.getLogger(__name__)

_PACKAGE = Path(__file__).parent


class Catalogue:
    """The models on offer, in the order in which they are presented; to go through it gives the upscalers.

    Args:
        models: At least the default one.
        default: The name of the model to take when none is asked for.
        downloads: What can be fetched; those that are among the models already are left out.
        exports: What can be exported from diffusers; unlike `missing_exports` with those that are installed.
        archives: The packages that the downloads name.
        unavailable: What is asked for elsewhere and cannot be had here.
        advice: Which model to take for what, in a line.
        auxiliaries: The models that work beside upscalers.

    Raises:
        DuplicateModelError: Two models claim one name or AIR identifier.
        UnknownModelError: No model has the name `default`.
    """

    def __init__(
        self,
        models: Iterable[Model],
        *,
        default: str,
        downloads: Iterable[Download] = (),
        exports: Iterable[Export] = (),
        archives: Mapping[str, Archive] | None = None,
        unavailable: Iterable[Unavailable] = (),
        advice: str = "",
        auxiliaries: Iterable[Auxiliary] = (),
    ) -> None:
        """Index the models by name, AIR identifier and alias."""
        self._models = tuple(models)
        self._downloads = tuple(downloads)
        self.exports = tuple(exports)
        self.auxiliaries = tuple(auxiliaries)
        self._by_key: dict[str, Model] = {}
        self._beside: dict[str, Auxiliary] = {}
        claimants: list[Model | Auxiliary] = [*self._models, *self.auxiliaries]
        for claimant in claimants:
            for key in (claimant.name, claimant.air):
                if (known := self.claimant(key)) is not None:
                    raise DuplicateModelError(
                        f"{key} is claimed by two models: {known.title}, {claimant.title}"
                    )
            for key in (claimant.name, claimant.air):
                if isinstance(claimant, Model):
                    self._by_key[key.casefold()] = claimant
                else:
                    self._beside[key.casefold()] = claimant
        for model in self._models:
            for alias in model.aliases:
                self._by_key.setdefault(alias, model)
        self.archives = archives or {}
        self.unavailable = tuple(unavailable)
        self.advice = advice
        self.default = self.get(default)

    @property
    def downloads(self) -> tuple[Download, ...]:
        """What can be fetched and is not installed."""
        return tuple(filter(self._is_missing, self._downloads))

    @property
    def missing_exports(self) -> tuple[Export, ...]:
        """What can be exported and is not installed."""
        return tuple(filter(self._is_missing, self.exports))

    def _is_missing(self, published: Published) -> bool:
        keys = {*self._by_key, *self._beside}
        return published.name not in keys and published.air not in keys

    def claimant(self, name_or_air: str) -> Model | Auxiliary | None:
        """Whatever model has this name or AIR identifier, or this alias."""
        key = name_or_air.casefold()
        return self._by_key.get(key) or self._beside.get(key)

    def auxiliary(self, kind: AuxiliaryKind, name_or_air: str | None = None) -> Auxiliary:
        """Find a model that works beside upscalers.

        Args:
            kind: What it is for.
            name_or_air: Which one, upper and lower case are the same; None for the first that is installed.

        Raises:
            NotInstalledError: It can be fetched, but has not been; the message says how.
            UnknownModelError: There is none; the message names those there are.
        """
        of_kind = [each for each in self.auxiliaries if each.kind == kind]
        to_fetch = [each for each in self.downloads if each.kind == kind]
        if name_or_air is None:
            if of_kind:
                return of_kind[0]
            names = " or ".join(each.name for each in to_fetch)
            raise NotInstalledError(
                f"no model is installed that {KINDS[kind].partition(':')[0]}; to fetch one: "
                f"tilewire models pull {names}"
            )
        key = name_or_air.casefold()
        for each in of_kind:
            if key in (each.name, each.air):
                return each
        for download in to_fetch:
            if key in (download.name, download.air, *download.aliases):
                raise _not_installed(download)
        names = ", ".join(f"{each.name} ({each.air})" for each in of_kind) or "none"
        what = KINDS[kind].partition(":")[0]
        raise UnknownModelError(
            f"no model called {name_or_air!r} that {what} is installed; there are {names}"
        )

    def with_model(self, model: Model | Auxiliary) -> "Catalogue":
        """Return the catalogue with one more model.

        Raises:
            DuplicateModelError: Another model claims its name or AIR identifier.
        """
        return Catalogue(
            self._models if isinstance(model, Auxiliary) else [*self._models, model],
            default=self.default.name,
            downloads=self._downloads,
            exports=self.exports,
            archives=self.archives,
            unavailable=self.unavailable,
            advice=self.advice,
            auxiliaries=[*self.auxiliaries, model] if isinstance(model, Auxiliary) else self.auxiliaries,
        )

    def get_download(self, name_or_air: str) -> Download:
        """Find what can be fetched by its name, AIR identifier or alias; upper and lower case are the same.

        Raises:
            InstalledError: It is installed already.
            UnknownModelError: There is none; the message names those there are.
        """
        key = name_or_air.casefold()
        if (installed := self.claimant(key)) is not None:
            raise InstalledError(f"{installed.name} is installed already")
        for download in self._downloads:
            if key in (download.name, download.air, *download.aliases):
                return download
        names = ", ".join(f"{download.name} ({download.air})" for download in self.downloads) or "none"
        raise UnknownModelError(f"no model called {name_or_air!r} can be fetched; there are {names}")

    def __iter__(self) -> Iterator[Model]:
        """Yield the models in the order in which they are presented."""
        return iter(self._models)

    def __len__(self) -> int:
        """Count the models."""
        return len(self._models)

    def get(self, name_or_air: str) -> Model:
        """Find a model by its name, AIR identifier or alias; upper and lower case are the same.

        Raises:
            NotInstalledError: It can be fetched, but has not been; the message says how.
            UnknownModelError: There is none; the message names those there are.
        """
        key = name_or_air.casefold()
        try:
            return self._by_key[key]
        except KeyError:
            for download in self.downloads:
                if key in (download.name, download.air, *download.aliases) and download.kind == "upscaler":
                    raise _not_installed(download) from None
            for export in self.missing_exports:
                if key in (export.name, export.air, *export.aliases):
                    raise NotInstalledError(
                        f"{export.name} is not installed; to get it: tilewire models export "
                        f"{export.arguments} (or use {export.alternative}, which comes with Tilewire)"
                    ) from None
            for missing in self.unavailable:
                if key in (missing.name, missing.air):
                    raise UnknownModelError(f"{missing.name} cannot be had: {missing.reason}") from None
            others: list[Auxiliary | Download] = [*self.auxiliaries, *self.downloads]
            for other in others:
                if key in (other.name, other.air) and other.kind != "upscaler":
                    raise UnknownModelError(f"{other.name} is no upscaler: it {KINDS[other.kind]}") from None
            names = ", ".join(f"{model.name} ({model.air})" for model in self._models)
            raise UnknownModelError(f"no model is called {name_or_air!r}; there are {names}") from None


def _not_installed(download: Download) -> NotInstalledError:
    accept = " --accept-licence" if download.non_commercial else ""
    return NotInstalledError(
        f"{download.name} is not installed; to fetch it: tilewire models pull {download.name}{accept}"
    )


class _CatalogueFile(Struct, frozen=True, forbid_unknown_fields=True):
    default: str
    models: tuple[Model, ...]
    downloads: tuple[Download, ...] = ()
    exports: tuple[Export, ...] = ()
    archives: Mapping[str, Archive] = {}
    unavailable: tuple[Unavailable, ...] = ()
    advice: str = ""

    def __post_init__(self) -> None:
        """Check what the types cannot express."""
        for download in self.downloads:
            for file in download.files.values():
                for source in file.sources:
                    if source.archive is not None and source.archive not in self.archives:
                        raise ValueError(f"{download.name} needs {source.archive}, which is no archive")


def parse_catalogue(toml: bytes, directory: Path = _PACKAGE) -> Catalogue:
    """Read a catalogue from TOML laid out like `catalogue.toml`.

    Args:
        toml: Its content.
        directory: Where it lies: what the paths of weights that are ready to run are relative to.

    Raises:
        CatalogueError: It is not such TOML; the message says where.
        DuplicateModelError: Two models claim one name or AIR identifier.
        UnknownModelError: The default model is not in it.
    """
    try:
        file = msgspec.toml.decode(toml, type=_CatalogueFile)
    except msgspec.DecodeError as error:
        raise CatalogueError(f"the catalogue cannot be read: {error}") from error
    models = [
        replace(model, weights=tuple(_located(weights, directory) for weights in model.weights))
        for model in file.models
    ]
    return Catalogue(
        models,
        default=file.default,
        downloads=file.downloads,
        exports=file.exports,
        archives=file.archives,
        unavailable=file.unavailable,
        advice=file.advice,
    )


def _located(weights: Weights, directory: Path) -> Weights:
    def absolute(file: WeightFile) -> WeightFile:
        return replace(file, path=str(directory / file.path))

    return weights.with_files(absolute) if isinstance(weights, DiffusionWeights) else weights


def load_catalogue(added: Path | None = None) -> Catalogue:
    """Read the catalogue that comes with this package, and the models that were added to it.

    An added model that cannot be read, or claims the name or AIR identifier of another, is left out with a
    warning that names it; the others are there all the same. So are those that come with this package if the
    directory cannot be read.

    Args:
        added: The directory of the added models; it need not exist.
    """
    catalogue = parse_catalogue((_PACKAGE / "catalogue.toml").read_bytes())
    for entry in _added(added):
        try:
            catalogue = catalogue.with_model(read_entry(entry))
        except (BrokenEntryError, DuplicateModelError) as error:
            log.warning("the model %s is left out: %s", entry.stem, one_line(error))
    return catalogue


def _added(directory: Path | None) -> list[Path]:
    try:
        return [] if directory is None else entry_files(directory)
    except BrokenEntryError as error:
        log.warning("the models that were added are left out: %s", one_line(error))
        return []
