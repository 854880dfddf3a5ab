"""`POST /v1/tokens`: a key asks for a token that a web page may have."""

from decimal import Decimal
from typing import Annotated, Final

from msgspec import UNSET, Meta, Struct, UnsetType

from onnx_models import Catalogue, UnknownModelError
from server.money import to_nanodollars
from server.protocol.errors import invalid
from server.protocol.fields import Name
from server.protocol.names import wire_name
from server.state.grants import Terms

__all__ = ["NewToken", "NewTokenResult", "terms_of"]

_DAY: Final = 86_400
_LARGEST_COST: Final = 10**9

_Origin = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9+.-]*://[^/?#\s]+$", max_length=300)]


class NewToken(Struct, frozen=True, kw_only=True, rename=wire_name, forbid_unknown_fields=True):
    """What a token is to be limited to. All of it may be left out."""

    expires_in: Annotated[
        Annotated[int, Meta(ge=1, le=_DAY)],
        Meta(description="Seconds that it is valid; if its key ends before, it ends with that."),
    ] = 600
    allowed_origins: Annotated[
        Annotated[tuple[_Origin, ...], Meta(max_length=100)],
        Meta(description="Origins of the pages that may use it. Default: any, and programs."),
    ] = ()
    models: Annotated[
        Annotated[tuple[Name, ...], Meta(max_length=100)],
        Meta(description="Names or AIR ids of the models that it may use. Default: all."),
    ] = ()
    max_tasks: Annotated[
        Annotated[int, Meta(ge=1, le=2**31)] | UnsetType,
        Meta(
            description="Upscales that it may begin, whatever becomes of them. Default: as many as it likes."
        ),
    ] = UNSET
    max_cost: Annotated[
        Annotated[Decimal, Meta(description="USD")] | UnsetType,
        Meta(description="USD that its tasks may cost together. Default: what the account has."),
    ] = UNSET
    max_megapixels: Annotated[
        Annotated[float, Meta(gt=0, le=1e6)] | UnsetType,
        Meta(description="Million pixels that each result may have. Default: what the server allows."),
    ] = UNSET


class NewTokenResult(Struct, frozen=True, rename=wire_name):
    """The token; this is the one time that it is shown."""

    token: Annotated[str, Meta(description="Goes wherever an API key goes.")]
    expires_at: Annotated[str, Meta(description="ISO 8601, UTC.")]


def terms_of(wanted: NewToken, catalogue: Catalogue) -> Terms:
    """What a token is limited to.

    Raises:
        ParameterError: if there is no such model, or the cost is no amount.
    """
    try:
        models = tuple(dict.fromkeys(catalogue.get(name).name for name in wanted.models))
    except UnknownModelError as error:
        raise invalid("models", str(error)) from error
    return Terms(
        origins=wanted.allowed_origins,
        models=models,
        max_tasks=None if wanted.max_tasks is UNSET else wanted.max_tasks,
        max_cost=None if wanted.max_cost is UNSET else _nanodollars(wanted.max_cost),
        max_megapixels=None if wanted.max_megapixels is UNSET else wanted.max_megapixels,
    )


def _nanodollars(usd: Decimal) -> int:
    if not usd.is_finite() or not 0 <= usd <= _LARGEST_COST:
        raise invalid("maxCost", f"maxCost must be from 0 to {_LARGEST_COST} USD", "number")
    try:
        return to_nanodollars(usd)
    except ValueError as error:
        raise invalid("maxCost", f"maxCost: {error}", "number") from error
