"""Keeps what other packages print from the terminal."""

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

__all__ = ["quietly"]


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Silence output, logs and warnings of exporters; what they made is judged by what it computes."""
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    stdout = os.dup(1)  # the tracer, which is C++, prints graphs of thousands of lines when it gives up
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), 1)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        os.dup2(stdout, 1)
        os.close(stdout)
        logging.disable(level)
