"""Servers that are killed again and again, and start as fast as a process can."""

import multiprocessing
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

from rich.console import Console

from server.delivery import webhooks
from server.serving import serve
from server.settings import Settings
from server.telemetry.logs import configure_logging
from tests.processes import wait_for
from tests.server.support.harness import PATIENCE

# What a start imports is imported once: each server is forked from there, before it has any threads.
_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(["server.serving", "server.cli", __name__])


class KillableServer:
    """One server after another on the same settings.

    Attributes:
        url: what they are reached as, whichever runs.
        start_takes: seconds until the last one that was waited for was ready.
        started: when the last one was started.
    """

    def __init__(self, settings: Settings, log: Path) -> None:
        """
        Args:
            settings: with a port that is free.
            log: what all of them write.
        """
        self.url = f"http://{settings.host}:{settings.port}"
        self.start_takes = 0.5
        self._settings = settings
        self._log = log

    def start(self) -> None:
        """Begin a start, and do not wait for it."""
        self._ready, told = _forks.Pipe(duplex=False)
        self._process = _forks.Process(target=_serve, args=(self._settings, self._log, told))
        self._process.start()
        told.close()
        self._began, self.started = time.monotonic(), time.time()
        self._is_ready = False

    def wait_until_ready(self) -> None:
        if self._is_ready:
            return
        assert self._ready.poll(PATIENCE), "the server does not get ready"
        try:
            self._ready.recv()
        except EOFError:
            raise AssertionError(f"the server did not start:\n{self.log()}") from None
        self._is_ready = True
        self.start_takes = time.monotonic() - self._began

    @property
    def is_ready(self) -> bool:
        """Whether it has said so by now."""
        return self._is_ready or self._ready.poll()

    def kill(self) -> None:
        """SIGKILL; whatever it had started has to end by itself."""
        pid = self._process.pid
        assert pid is not None
        self._process.kill()
        self._process.join()
        self._ready.close()
        assert self._process.exitcode == -9, f"it ended by itself:\n{self.log()}"
        wait_for(lambda: not _of_session(pid))

    def stop(self) -> None:
        """SIGTERM; it ends in order."""
        self._process.terminate()
        self._process.join(PATIENCE)
        assert self._process.exitcode == 0, self.log()

    def log(self) -> str:
        """What all of them have written."""
        return self._log.read_text("utf-8") if self._log.exists() else ""


@contextmanager
def killed_at_last(*servers: KillableServer) -> Iterator[None]:
    """Leave none of them running, whatever happens."""
    try:
        yield
    finally:
        for server in servers:
            if server._process.is_alive():
                server._process.kill()


def _serve(settings: Settings, log: Path, ready: Connection) -> None:
    os.setsid()  # its decoders have the number of this session, and can be found by it
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for standard in (1, 2):
        os.dup2(descriptor, standard)
    webhooks._LOOK_EVERY = 0.5  # for those that were claimed by a server that was killed
    configure_logging("warning", "text", Console(file=sys.stderr))
    serve(settings, lambda url, _services: ready.send(url))


def _of_session(leader: int) -> list[int]:
    """The processes of a session that have not ended."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                after_name = (process / "stat").read_text("utf-8").rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            state, session = after_name[0], int(after_name[3])
            if session == leader and state != "Z":
                found.append(int(process.name))
    return found
