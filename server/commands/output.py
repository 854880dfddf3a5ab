"""Where commands print: consoles that survive names and outputs of all kinds."""

import os
import re
import sys
from typing import Any, Final, TextIO

from rich.console import Console
from rich.text import Text

__all__ = ["console", "lost_output", "printable", "problems"]

_UNSAFE: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters but tab and newline, marks that turn the direction of writing, lone surrogates."""


def printable(text: object) -> str:
    """A name or message as it can be shown: one line, control characters spelt out."""
    return _spelt_out(str(text)).replace("\n", "\\n").replace("\t", "\\t")


def _spelt_out(text: str) -> str:
    return _UNSAFE.sub(lambda match: _escape(match[0]), text)


def _escape(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # a byte of a file name that is no text (PEP 383)
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


class _Output:
    """Standard output or error, found anew at each use; what cannot be written is dropped.

    A closed pipe (`| head -1`), a full disk or a terminal that is gone must not end the work.

    Attributes:
        failure: why the output is incomplete; None while all is well, or if the reader has just left.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self.failure: OSError | None = None

    def write(self, text: str) -> int:
        stream = self._stream()
        if stream is not None:
            encoding = stream.encoding or "utf-8"
            try:
                stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
            except OSError as error:
                self._lose(stream, error)
        return len(text)

    def flush(self) -> None:
        stream = self._stream()
        if stream is not None:
            try:
                stream.flush()
            except OSError as error:
                self._lose(stream, error)

    def isatty(self) -> bool:
        stream = self._stream()
        return stream is not None and stream.isatty()

    def fileno(self) -> int:
        stream = self._stream()
        if stream is None:
            raise OSError("there is no such stream")
        return stream.fileno()

    @property
    def encoding(self) -> str:
        stream = self._stream()
        return (stream and stream.encoding) or "utf-8"

    def _stream(self) -> TextIO | None:
        stream: TextIO | None = getattr(sys, self._name)
        stream = getattr(stream, "rich_proxied_file", stream)  # bars redirect what is printed to themselves
        return None if stream is None or stream.closed else stream

    def _lose(self, stream: TextIO, error: OSError) -> None:
        if not isinstance(error, BrokenPipeError):
            self.failure = self.failure or error
        # What is still buffered would fail again when the interpreter ends.
        # https://docs.python.org/3/library/signal.html#note-on-sigpipe
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


class _Console(Console):
    """Shows names and labels as they are: no markup, no highlighting, nothing that a terminal obeys."""

    def __init__(self, output: _Output, **more: Any) -> None:
        super().__init__(file=output, highlight=False, markup=False, emoji=False, soft_wrap=True, **more)  # type: ignore[arg-type]

    def render_str(self, text: str, **more: Any) -> Text:
        return super().render_str(_spelt_out(text), **more)


_stdout, _stderr = _Output("stdout"), _Output("stderr")
console: Final = _Console(_stdout)
problems: Final = _Console(_stderr)


def lost_output() -> str | None:
    """Why what was printed did not all arrive; None if it did."""
    return None if _stdout.failure is None else f"standard output: {_stdout.failure.strerror}"
