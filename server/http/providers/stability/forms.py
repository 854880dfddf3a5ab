"""What both versions have in common: fields of forms, what is said of a result, names of errors."""

from collections.abc import Mapping
from typing import Final, TypeVar

import msgspec
from msgspec import UNSET

from server.http.providers.caller import status_of, wrong
from server.protocol.errors import ErrorItem
from server.protocol.replies import UpscaleResult

__all__ = ["data_of", "finish_reason", "image_of", "named", "number_of", "seed_of", "text_of"]

T = TypeVar("T", int, float)

_NAMES: Final = {
    401: "unauthorized",
    402: "insufficient_balance",
    403: "permission_denied",
    404: "not_found",
    409: "cancelled",
    413: "payload_too_large",
    429: "rate_limit_exceeded",
    500: "internal_error",
    503: "service_unavailable",
    504: "timeout",
}
"""What Stability calls errors, by their status."""


def image_of(form: Mapping[str, bytes]) -> bytes:
    """The image of a form.

    Raises:
        ParameterError: if there is none.
    """
    if not form.get("image"):
        raise wrong("image", "image: is required")
    return form["image"]


def text_of(form: Mapping[str, bytes], name: str) -> str:
    """A field, without space around it; "" if there is none.

    Raises:
        ParameterError: if it is not UTF-8.
    """
    try:
        return form.get(name, b"").decode().strip()
    except UnicodeDecodeError as error:
        raise wrong(name, f"{name}: must be UTF-8") from error


def number_of(
    form: Mapping[str, bytes], name: str, kind: type[T], least: float, most: float, default: T | None = None
) -> T:
    """A number from `least` to `most`.

    Raises:
        ParameterError: if it is none, or another; or if there is none, and no default.
    """
    text = text_of(form, name)
    if not text and default is not None:
        return default
    try:
        value: T = msgspec.convert(text, kind, strict=False)
    except msgspec.ValidationError as error:
        raise wrong(name, f"{name}: must be a number") from error
    if not least <= value <= most:
        raise wrong(name, f"{name}: must be from {least:g} to {most:g}")
    return value


def finish_reason(item: UpscaleResult) -> str:
    """Stability says so where its filter has found something; here the image is not blurred."""
    return "CONTENT_FILTERED" if item.nsfw_content is True else "SUCCESS"


def data_of(item: UpscaleResult) -> bytes:
    """The bytes of a result."""
    assert item.image_base64_data is not UNSET
    return item.image_base64_data


def seed_of(item: UpscaleResult) -> int:
    """The seed of a result; 0 where nothing was random."""
    return 0 if item.seed is UNSET else item.seed


def named(item: ErrorItem) -> tuple[str, int]:
    """What an error is called, and its status."""
    if item.code == "nsfwContentDetected":
        return "content_moderation", 403
    status = status_of(item)
    return _NAMES.get(status, "bad_request"), status
