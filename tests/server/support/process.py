"""`tilewire serve` as users run it: a process of its own."""

import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from tests.server.support.harness import KEY, PATIENCE, RUNTIME

REPOSITORY = Path(__file__).parents[3]


def environment(data: Path, model_directory: Path, **more: str) -> dict[str, str]:
    """The environment without any settings but those of tests."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("TILEWIRE_")}
    return own | {
        "COLUMNS": "80",
        "PYTHONPATH": str(REPOSITORY),
        "XDG_STATE_HOME": f"{data}-state",
        "TILEWIRE_DATA": str(data),
        "TILEWIRE_MODEL_DIRECTORY": str(model_directory),
        "TILEWIRE_DEVICE": "cpu",
        "TILEWIRE_RUNTIME": RUNTIME,
        **more,
    }


class ServerProcess:
    """A server that is ready.

    Attributes:
        url: what it is reached as.
        process: for signals.
        announced: what it printed when it was ready.
    """

    def __init__(self, process: subprocess.Popen[str], errors: IO[str], *, in_json: bool = False) -> None:
        self.process = process
        self._errors = errors
        self.announced = ""
        if in_json:
            self.url = self._logged_url()
            return
        assert process.stdout is not None
        while "models:" not in self.announced:
            line = process.stdout.readline()
            assert line, f"the server did not start: {self.ended()}"
            self.announced += line
        match = re.search(r"ready at ws(://\S+)/v1", self.announced)
        assert match is not None
        self.url = f"http{match[1]}"

    def _logged_url(self) -> str:
        """The URL in the line of the log that says that the server is ready."""
        while (match := re.search(rb'"event":"ready".*?"url":"([^"]+)"', self.logged())) is None:
            assert self.process.poll() is None, f"the server did not start: {self.ended()}"
            time.sleep(0.02)
        return match[1].decode()

    def logged(self, start: int = 0) -> bytes:
        """What was written to stderr so far, from a byte on."""
        file = self._errors.fileno()  # the position in it is the server's as well: it is left alone
        return os.pread(file, os.fstat(file).st_size, start)

    def ended(self) -> tuple[int, str]:
        """Wait for the end; the exit status and what was written to stderr."""
        self.process.communicate(timeout=PATIENCE)
        self._errors.seek(0)
        return self.process.returncode, self._errors.read()


@contextmanager
def reserved_port() -> Iterator[int]:
    """A port on which servers may listen one after the other, and that the system gives to nobody else."""
    with socket.socket() as keeper:  # bound, never listening: Linux lets others bind it who ask for it alone
        keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        keeper.bind(("127.0.0.1", 0))
        yield keeper.getsockname()[1]


@contextmanager
def serving(data: Path, model_directory: Path, *, port: int = 0, **more: str) -> Iterator[ServerProcess]:
    """A running server, on a free port if none is given; killed at the end if the test has not ended it."""
    # Not a pipe: nobody reads it while the test runs, and a server whose log is not taken waits.
    # No model is loaded before it is needed: most tests need another one than the default.
    defaults = {"TILEWIRE_API_KEY": KEY, "TILEWIRE_MODELS": ""}
    with tempfile.TemporaryFile("w+", encoding="utf-8") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "server", "serve", "--port", str(port)],
            env=environment(data, model_directory, **defaults | more),
            stdout=subprocess.PIPE,
            stderr=errors,
            encoding="utf-8",
        )
        try:
            yield ServerProcess(process, errors, in_json=more.get("TILEWIRE_LOG_FORMAT") == "json")
        finally:
            if process.poll() is None:
                process.kill()
                process.communicate()
