"""Pixels as they are, for programs that have them anyway: in MessagePack frames, both ways."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

__all__ = ["Channels", "RawImage"]

Channels = Literal[1, 3, 4]


class RawImage(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An image without a file around it: 8 bits a channel, sRGB."""

    width: Annotated[int, Meta(ge=1, le=1_000_000, description="In pixels.")]
    height: Annotated[int, Meta(ge=1, le=1_000_000, description="In pixels.")]
    channels: Annotated[
        Channels, Meta(description="1: grey; 3: RGB; 4: RGBA, whose alpha is not premultiplied.")
    ]
    pixels: Annotated[
        memoryview, Meta(description="`height` rows from the top, of `width` times `channels` bytes.")
    ]
