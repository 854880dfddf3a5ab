"""The log: one line per thing that happened, for people or as JSON, with what it was about.

1. `bound` names the task, the account, the session and the model in everything that is logged within it.
2. What is passed as `extra` to a logger of this program is in that one line, and wins over what is bound.
3. Libraries are heard from warnings on: at finer levels some of them print what keys and URLs are in.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Final

import msgspec
from rich.console import Console
from rich.logging import RichHandler

from server.settings import LogFormat

__all__ = ["JsonFormatter", "TextFormatter", "bound", "configure_logging"]

_OURS: Final = ("server", "engines", "onnx_models")
_LONGEST_FIELD: Final = 256
_bound: ContextVar[Mapping[str, object]] = ContextVar("bound", default=MappingProxyType({}))

# What every record has; the rest came as `extra`. Python 3.12 added taskName.
_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


@contextmanager
def bound(**fields: object) -> Iterator[None]:
    """Add fields to whatever is logged in this block, and in the tasks and threads it starts."""
    token = _bound.set({**_bound.get(), **{name: value for name, value in fields.items() if value}})
    try:
        yield
    finally:
        _bound.reset(token)


def configure_logging(level: str, log_format: LogFormat, console: Console) -> None:
    """Have everything logged to the console's file.

    Args:
        level: debug, info, warning or error, for this program's own events.
        log_format: text for people, json for machines.
        console: a terminal gets colours.
    """
    handler: logging.Handler
    if log_format == "json":
        handler = logging.StreamHandler(console.file)
        handler.setFormatter(JsonFormatter())
    elif console.is_terminal:
        handler = RichHandler(console=console, show_path=False, log_time_format="[%X]")
        handler.setFormatter(TextFormatter("%(name)s: %(message)s"))
    else:
        handler = logging.StreamHandler(console.file)
        handler.setFormatter(TextFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    own = level.upper()
    logging.basicConfig(level="ERROR" if own == "ERROR" else "WARNING", handlers=[handler], force=True)
    for name in _OURS:
        logging.getLogger(name).setLevel(own)


class TextFormatter(logging.Formatter):
    """For people: the message, then the fields as name=value."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """The line without a traceback."""
        fields = [f"{name}={_plain(value)}" for name, value in _fields(record).items()]
        return " ".join([super().formatMessage(record), *fields])


class JsonFormatter(logging.Formatter):
    """For machines: one JSON object a line, times in UTC."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        line |= {name: value for name, value in _fields(record).items() if name not in line}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line, enc_hook=str).decode()


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    ours = record.name.partition(".")[0] in _OURS
    extra = {name: value for name, value in vars(record).items() if name not in _STANDARD} if ours else {}
    return {name: _as_logged(value) for name, value in {**_bound.get(), **extra}.items() if value is not None}


def _as_logged(value: object) -> object:
    """Numbers as they are, all else as a short text: clients choose some of it."""
    return value if isinstance(value, int | float) else str(value)[:_LONGEST_FIELD]


def _plain(value: object) -> str:
    """Without anything that could be taken for another field, or another line."""
    text = str(value)
    return text if text.isprintable() and " " not in text else repr(text)
