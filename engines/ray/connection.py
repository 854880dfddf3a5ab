"""The connection to a cluster: a process that speaks with Ray (`process`), and what is asked of it.

If it ends, or its answers about the cluster do not come, all that was asked of it fails, and it is ended: the
cluster is then connected to anew.
"""

import importlib.util
import itertools
import logging
import os
import socket
import subprocess
import sys
import threading
import weakref
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, NamedTuple

from engines.errors import DeviceLostError, EngineError, ModelError
from engines.ray.host import Wanted
from engines.ray.wire import Put, Wire, WireClosedError

__all__ = ["Answer", "Connection", "Node", "RayLink", "check_installed"]

log = logging.getLogger(__name__)

_HOST = "engines.ray.host:DeviceHost"

_GIVE_UP = "20"
"""Seconds without the head of the cluster, after which Ray ends the process; by default it is a minute."""
_PATIENCE = 30.0
"""Seconds that the process may take to say something about the cluster."""
_FAREWELL = 6.0


class Node(NamedTuple):
    """A machine of the cluster."""

    key: str
    """Ray's name of it, in hexadecimal; a node that is started again has another."""
    name: str
    """For people."""
    cpus: int
    gpus: int


class Answer:
    """What a host will say."""

    def __init__(self, future: "Future[Any]") -> None:
        """Wait for what a call gives."""
        self._future = future

    def is_there(self) -> bool:
        """Whether `result` gives it at once."""
        return self._future.done()

    def result(self) -> Any:
        """Give it. Blocks.

        Raises:
            DeviceLostError: if the host is gone.
            ModelError: if it raised one.
        """
        return self._future.result()


class RayLink:
    """The way to a host that is an actor of Ray."""

    def __init__(self, connection: "Connection", number: int) -> None:
        """Use the host of this number."""
        self._connection, self._number = connection, number

    def call(self, method: str, *arguments: object) -> Any:
        """See `device.Link.call`."""
        return self.ask(method, *arguments).result()

    def ask(self, method: str, *arguments: object) -> Answer:
        """The same without waiting for it."""
        return Answer(self._connection.ask("ask", self._number, method, arguments))

    def put(self, piece: bytes) -> object:
        """See `device.Link.put`."""
        return self._connection.put(piece)

    def kill(self) -> None:
        """End the host, whoever else uses it."""
        self._connection.ask("kill", self._number)


class Connection:
    """A connection to a cluster. Close it when done."""

    def __init__(self, address: str, kind: str = _HOST, options: Mapping[str, object] | None = None) -> None:
        """Connect. Blocks.

        Args:
            address: `auto`, `host:port` or `ray://host:port`.
            kind: what is started on the nodes, `module:class`.
            options: more arguments of that.

        Raises:
            ModelError: if that cannot be done.
        """
        self._kind, self._options = kind, dict(options or {})
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._asked: dict[int, Future[Any]] | None = {}
        self._dropped: deque[int] = deque()
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - of our own
                [sys.executable, "-m", "engines.ray.process", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env={"RAY_gcs_rpc_server_reconnect_timeout_s": _GIVE_UP, **os.environ},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # it ends when we do, not when someone presses Ctrl-C
            )
        self._wire = Wire(ours)
        for work in (self._listen, self._take_down):
            threading.Thread(target=work, name="cluster connection", daemon=True).start()
        try:
            self._wait("connect", address)
        except EngineError:
            self.close()
            raise

    def nodes(self) -> list[Node]:
        """The machines that are there.

        Raises:
            ModelError: if the cluster is gone.
        """
        while self._dropped:
            self.ask("drop", self._dropped.popleft())
        return [_node(found) for found in self._wait("nodes")]

    def host(self, name: str, node: Node, wanted: Wanted) -> RayLink:
        """The host of that name on a node; started, unless it is there already. Does not wait for it."""
        number = next(self._numbers)
        self._wait("host", number, name, node.key, wanted, self._kind, self._options)
        return RayLink(self, number)

    def put(self, piece: bytes) -> Put:
        """Put bytes where all nodes can fetch them, as long as the result is referred to.

        They are dropped with the next look at the nodes: a finalizer may run while a lock is held.
        """
        put = Put(next(self._numbers))
        weakref.finalize(put, self._dropped.append, put.number).atexit = False
        self._wait("put", put.number, piece)
        return put

    def ask(self, method: str, *arguments: object) -> "Future[Any]":
        """What a method of the process gives."""
        number, future = next(self._numbers), Future[Any]()
        with self._lock:
            if self._asked is None:
                future.set_exception(_gone())
                return future
            self._asked[number] = future
        with suppress(WireClosedError):  # then `_listen` fails all
            self._wire.send((number, method, arguments))
        return future

    def close(self) -> None:
        """Leave the cluster, and end the process; hosts stay. Blocks for seconds."""
        self._wire.close()
        try:
            self._process.wait(_FAREWELL)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _wait(self, method: str, *arguments: object) -> Any:
        try:
            return self.ask(method, *arguments).result(_PATIENCE)
        except TimeoutError:
            self._process.kill()
            raise ModelError(f"it has not answered in {_PATIENCE:.0f} seconds") from None

    def _listen(self) -> None:
        try:
            while True:
                number, result, error = self._wire.receive()
                with self._lock:
                    assert self._asked is not None
                    future = self._asked.pop(number)
                if error is None:
                    future.set_result(result)
                else:
                    future.set_exception(error)
        except WireClosedError:
            with self._lock:
                asked, self._asked = self._asked or {}, None
            for future in asked.values():
                future.set_exception(_gone())

    def _take_down(self) -> None:
        """Take down what Ray prints."""
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                log.debug("Ray: %s", line.decode(errors="replace").rstrip())


def check_installed() -> None:
    """Raise a ModelError if Ray is not installed."""
    if importlib.util.find_spec("ray") is None:
        raise ModelError("ray_address needs Ray; pip install 'tilewire[ray]' brings it")


def _gone() -> DeviceLostError:
    return DeviceLostError("the connection to the cluster is gone")


def _node(found: Mapping[str, Any]) -> Node:
    resources, key = found["Resources"], found["NodeID"]
    name = f"{found['NodeManagerHostname']} {key[:6]}"
    return Node(key, name, int(resources.get("CPU", 0)), int(resources.get("GPU", 0)))
