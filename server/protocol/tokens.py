"""`POST /v1/tokens`: a key asks for a token that a web page may have."""

from decimal import Decimal
from typing import Annotated, Final

from msgspec import UNSET, Meta, Struct, UnsetType

from server.protocol.fields import Name
from server.protocol.names import wire_name

__all__ = ["LONGEST_TOKEN", "NewToken", "NewTokenResult"]

LONGEST_TOKEN: Final = 86_400
"""Seconds that a token may be valid."""

_Origin = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9+.-]*://[^/?#\s]+$", max_length=300)]


class NewToken(Struct, frozen=True, kw_only=True, rename=wire_name, forbid_unknown_fields=True):
    """What a token is to be limited to. All of it may be left out."""

    expires_in: Annotated[
        Annotated[int, Meta(ge=1, le=LONGEST_TOKEN)],
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
