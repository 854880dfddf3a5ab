"""The types of parameters that several messages share: what may be in them, in words and as JSON Schema.

What the decoder checks is in the types and in `Meta`; what is checked later, with a better message than the
decoder's, is in `extra_json_schema`, for the published schemas. Tests hold both against the server.
"""

from decimal import Decimal
from typing import Annotated, Any, Final, TypeVar
from uuid import UUID

from msgspec import Meta, Raw, UnsetType

__all__ = [
    "MAX_URL",
    "Image",
    "Name",
    "TargetUrl",
    "TaskUuid",
    "TimeToLive",
    "Usd",
    "given",
    "is_uuid",
    "refused",
]

MAX_URL: Final = 8192
"""The longest URL that is taken; RFC 9110 section 4.1 asks for 8000."""

_UUID: Final = r"^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$"

TaskUuid = Annotated[
    str,
    Meta(
        description="A UUID that the client chooses. It names the task in every reply, and is an "
        "idempotency key: the same request again gets the same answer, without new work or cost.",
        extra_json_schema={"format": "uuid", "pattern": _UUID},
    ),
]

Image = Annotated[
    Raw,
    Meta(
        description="The image: the UUID of an upload or of an earlier result, a URL, a data URI, or base64. "
        "In MessagePack also the bytes of the file, or pixels: an object with `width`, `height`, `channels` "
        "(1: grey, 3: RGB, 4: RGBA) and `pixels`, 8 bits each, sRGB, rows from the top.",
        extra_json_schema={"type": "string", "minLength": 1},
    ),
]

TimeToLive = Annotated[
    Annotated[int, Meta(ge=1, le=10 * 365 * 86400)] | None,
    Meta(
        description="Seconds until the image is deleted, at most the server's `max_image_ttl`, 30 days. "
        "Default: its `image_ttl`, 7 days."
    ),
]

Usd = Annotated[Decimal, Meta(description="US dollars.")]

TargetUrl = Annotated[str, Meta(max_length=MAX_URL, extra_json_schema={"pattern": "^https?://"})]

Name = Annotated[str, Meta(max_length=128)]
"""The name of a model, of an operation, and the like."""


def is_uuid(text: str) -> bool:
    """Tell whether `text` is a UUID in its canonical form of 36 characters (RFC 9562 section 4)."""
    try:
        return len(text) == 36 and str(UUID(text)) == text.lower()
    except ValueError:
        return False


T = TypeVar("T")
D = TypeVar("D")


def given(value: T | UnsetType, default: D) -> T | D:
    """The value of a parameter, or a default where a client gave none."""
    return default if isinstance(value, UnsetType) else value


def refused(reason: str, **schema: Any) -> Meta:
    """Says of a parameter that the server refuses it, and which values it takes nevertheless."""
    return Meta(description=f"Refused: {reason}.", extra_json_schema={"x-refused": reason, **schema})
