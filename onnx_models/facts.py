"""What a user says of a model that is to be added, checked; and the entry that comes of it."""

import re
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta, Struct

from onnx_models.auxiliary import Auxiliary
from onnx_models.catalogue import Catalogue
from onnx_models.entries import refuse_taken
from onnx_models.errors import CatalogueError, DuplicateModelError
from onnx_models.model import Air, Model, Name

__all__ = ["Facts", "as_entry", "checked", "refuse_duplicates"]

Entry = TypeVar("Entry", Model, Auxiliary)


class Facts(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a file does not say about its model; None is measured, or derived from the file's name."""

    name: Name | None = None
    aliases: tuple[Name, ...] = ()
    air: Air | None = None
    title: str | None = None
    description: str = ""
    licence: str = "unknown"
    licence_url: str | None = None
    source_url: str | None = None
    price_per_megapixel: Decimal = Decimal(0)
    scale: Annotated[int, Meta(ge=2)] | None = None
    """What the scale must be; another one is refused."""
    overlap: Annotated[int, Meta(ge=1)] | None = None
    tile: Annotated[int, Meta(ge=1)] | None = None


def checked(facts: Facts) -> Facts:
    """Make sure that facts may stand in an entry.

    Raises:
        CatalogueError: One may not.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{0,63}", facts.name or ""):
        raise CatalogueError(
            f"{facts.name!r} cannot be a model's name: lower-case letters, digits, dots and hyphens can"
        )
    try:
        return msgspec.convert(msgspec.to_builtins(facts), Facts)
    except msgspec.ValidationError as error:
        raise CatalogueError(_field(error)) from error


def _field(error: msgspec.ValidationError) -> str:
    """The message of an error with the field's name in front."""
    message, _, path = str(error).partition(" - at `$.")
    return f"{path.rstrip('`')}: {message}" if path else message


def as_entry(values: Mapping[str, object], kind: type[Entry]) -> Entry:
    """Make an entry of its values.

    Raises:
        CatalogueError: One of them is wrong.
    """
    try:
        return msgspec.convert(msgspec.to_builtins(values), kind)
    except msgspec.ValidationError as error:
        raise CatalogueError(_field(error)) from error


def refuse_duplicates(name: str, air: str, catalogue: Catalogue, directory: Path) -> None:
    """Make sure that no model has a name or an AIR identifier.

    Raises:
        DuplicateModelError: One has, or an entry of this name is broken.
    """
    for key in (name, air):
        if (known := catalogue.claimant(key)) is not None:
            raise DuplicateModelError(f"{key} is taken by {known.title}; choose another one")
    refuse_taken(directory, name, air)
