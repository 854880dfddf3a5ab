"""The trace that a task is part of, by W3C's Trace Context (www.w3.org/TR/trace-context).

A `traceparent` names the trace and the span that caused the task. The span of the task has an id that follows
from its attempt, so that what is sent later, by whichever server, names it too.
"""

import hashlib
import re
from typing import Annotated, Final

from msgspec import Meta

__all__ = ["TraceParent", "header_parent", "outgoing_headers", "task_span"]

_FORM: Final = r"^00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}$"

TraceParent = Annotated[str, Meta(pattern=_FORM)]

_LATER_VERSION: Final = re.compile(r"^(?!ff|00)[0-9a-f]{2}(-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2})(?:-.*)?$")


def header_parent(header: str | None) -> str | None:
    """What a header `traceparent` says, as version 00; None if it is missing or no such thing."""
    if header is None:
        return None
    if later := _LATER_VERSION.fullmatch(header):
        header = f"00{later[1]}"
    return header if re.fullmatch(_FORM, header) else None


def task_span(attempt: str) -> str:
    """The id of a task's span, in hexadecimal.

    Args:
        attempt: the id of its attempt.
    """
    return hashlib.sha256(attempt.encode()).hexdigest()[:16]


def outgoing_headers(parent: str | None, attempt: str, *, recorded: bool) -> dict[str, str]:
    """What is sent along with an upload or a webhook; nothing if the task is part of no trace.

    Args:
        parent: what the task came with.
        attempt: the id of its attempt.
        recorded: whether this server records a span of the task; if not it passes on what it got.
    """
    if parent is None:
        return {}
    version, trace, _, flags = parent.split("-")
    return {"traceparent": f"{version}-{trace}-{task_span(attempt)}-{flags}" if recorded else parent}
