"""What a token allows: a key that is short-lived, narrow, and may be shown to a web page."""

from msgspec import Struct

__all__ = ["Grant", "Terms"]


class Terms(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the maker of a token limits it to.

    Attributes:
        origins: of the pages that may use it; empty for any, and for programs.
        models: names of those it may use; empty for all.
        max_tasks: upscales that it may begin.
        max_cost: in nanodollars, of all its tasks together.
        max_megapixels: of each result.
    """

    origins: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    max_tasks: int | None = None
    max_cost: int | None = None
    max_megapixels: float | None = None


class Grant(Struct, frozen=True, kw_only=True):
    """What who has authenticated with a token may do.

    Attributes:
        token: its id.
        scope: what its tasks, images and sessions are marked with. It sees no others. A token that took an
            older one's place has that one's scope.
        expires: in seconds since the epoch.
        terms: the limits.
    """

    token: str
    scope: str
    expires: float
    terms: Terms
