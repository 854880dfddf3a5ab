"""Which nodes there are, and the devices of all of them in the use of an executor.

Once a second a thread looks at the cluster:

1. Each node has places: one for each GPU or, without GPUs, for its CPUs. In each a host is started, or found
   if another server, or this one before it was started again, has started it.
2. A host that has said what device it has is added to the executor.
3. Hosts are shown that this server is still there; one that is gone, or whose node is, is taken from the
   executor, and so is one that the executor has given up. It is started again after a while.
4. If the cluster is gone all devices are; it is connected to again.

All that happens to tiles meanwhile is the executor's: see `scheduling.dispatcher`.
"""

import contextlib
import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from hashlib import sha256
from typing import Protocol

from engines.devices.find import DeviceChoice, PrecisionChoice, RuntimeChoice
from engines.errors import ModelError
from engines.ray.connection import Answer, Connection, Node, RayLink, check_installed
from engines.ray.device import RayDevice, Shipping
from engines.ray.host import Wanted, installed_version
from engines.scheduling.executor import Executor
from onnx_models import one_line

__all__ = ["ClusterOptions", "Place", "RayCluster", "places_of"]

log = logging.getLogger(__name__)

_LOOK_EVERY = 1.0
_CONNECT_EVERY = 5.0
_AGAIN = 30.0
"""Seconds until a host that could not be started, or was given up, is started again."""
_FIRST = 30.0
"""Seconds that the first device may take, to start a process and load libraries."""
_EMPTY = 3
"""Looks that find no place for a host, after which `start` does not wait any longer."""
_LONG = 60.0
"""Seconds of waiting for a place, after which that is said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterOptions:
    """Which devices of which cluster."""

    address: str
    """`auto`, `host:port` or `ray://host:port`."""
    choice: DeviceChoice = "auto"
    """`auto`: the GPUs of a node or, without any, its CPUs; `cuda`: only GPUs; `cpu`: only CPUs."""
    runtime: RuntimeChoice = "auto"
    precision: PrecisionChoice = "auto"
    cpus: int | None = None
    """The CPUs of one device; default: all of a node's."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a host can run: a GPU of a node, or some of its CPUs."""

    node: Node
    wanted: Wanted
    index: int

    @property
    def name(self) -> str:
        """For people."""
        what = "GPU" if self.wanted.choice == "cuda" else "CPU"
        return f"{self.node.name}, {what} {self.index}"


def places_of(nodes: Iterable[Node], options: ClusterOptions) -> list[Place]:
    """Where hosts are to run.

    Args:
        nodes: of the cluster.
        options: which devices are wanted.
    """
    places = []
    for node in nodes:
        runtime, precision = options.runtime, options.precision
        if options.choice != "cpu" and node.gpus:
            wanted = Wanted("cuda", runtime, precision, None)
            places += [Place(node, wanted, index) for index in range(node.gpus)]
        elif options.choice != "cuda" and node.cpus:
            each = min(options.cpus or node.cpus, node.cpus)
            wanted = Wanted("cpu", runtime, precision, each)
            places += [Place(node, wanted, index) for index in range(node.cpus // each)]
    return places


class _Cluster(Protocol):
    """What of `Connection` is used."""

    def nodes(self) -> list[Node]: ...
    def host(self, name: str, node: Node, wanted: Wanted) -> RayLink: ...
    def close(self) -> None: ...


@dataclass(slots=True, eq=False)
class _Host:
    """A host in its place."""

    link: RayLink
    since: float
    description: Answer
    device: RayDevice | None = None
    beat: Answer | None = None
    is_late: bool = False


class RayCluster:
    """The devices of a cluster, for an executor. Close it when done.

    Attributes:
        options: which devices of which cluster.
    """

    def __init__(
        self,
        options: ClusterOptions,
        *,
        connect: Callable[[str], _Cluster] = Connection,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin with nothing.

        Args:
            options: which devices of which cluster.
            connect: opens the connection; see `Connection`.
            clock: the time in seconds.

        Raises:
            ModelError: if Ray is not installed.
        """
        if connect is Connection:
            check_installed()
        self.options = options
        self._connect = connect
        self._clock = clock
        self._server = uuid.uuid4().hex
        self._version = installed_version()
        self._shipping = Shipping()
        self._executor: Executor | None = None
        self._cluster: _Cluster | None = None
        self._hosts: dict[Place, _Host] = {}
        self._not_before: dict[Place, float] = {}
        self._empty = 0
        self._settled = threading.Event()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="cluster", daemon=True)

    def start(self, executor: Executor) -> None:
        """Have an executor use the devices from now on, as they come and go. Blocks until it has one.

        If none comes soon the executor's stand-in is used until one does.
        """
        self._executor = executor
        self._thread.start()
        self._settled.wait(_FIRST)
        executor.use_stand_in()

    def close(self) -> None:
        """Use the devices no longer; those that no other server uses are freed. Blocks."""
        self._closed.set()
        if self._thread.ident is not None:
            self._thread.join(_FIRST)

    def _watch(self) -> None:
        reason = ""
        while True:
            pause = _LOOK_EVERY
            try:
                if self._cluster is None:
                    self._cluster = self._connect(self.options.address)
                    log.info("connected to the Ray cluster at %s", self.options.address)
                self.look()
                reason = ""
            except Exception as error:  # noqa: BLE001 - whatever is wrong with the cluster, others can go on
                if (new := one_line(error)) != reason:
                    log.error(  # noqa: TRY400 - it says all
                        "the Ray cluster at %s cannot be used: %s", self.options.address, new
                    )
                reason, pause = new, _CONNECT_EVERY
                self._disconnect()
                self._settled.set()
            if self._closed.wait(pause):
                break
        self._say_goodbye()
        self._disconnect()

    def look(self) -> None:
        """Do once what is done every second.

        Raises:
            Exception: of any class, if the cluster is gone.
        """
        assert self._cluster is not None
        places = places_of(self._cluster.nodes(), self.options)
        for place in [place for place in self._hosts if place not in places]:
            self._drop(place, f"{place.node.name} has left the cluster")
        for place in places:
            host = self._hosts.get(place)
            if host is None:
                if self._clock() >= self._not_before.get(place, 0.0):
                    self._hosts[place] = self._started(place)
            elif host.device is None:
                self._greet(place, host)
            else:
                self._look_after(place, host, host.device)
        for place in [place for place in self._not_before if place not in places]:
            del self._not_before[place]
        self._empty = 0 if self._hosts else self._empty + 1
        if any(host.device for host in self._hosts.values()) or self._empty >= _EMPTY:
            self._settled.set()

    def _started(self, place: Place) -> _Host:
        assert self._cluster is not None
        # Hosts of other versions or options are others'.
        distinction = sha256(repr((self._version, place.node.key, place.wanted, place.index)).encode())
        link = self._cluster.host(distinction.hexdigest()[:32], place.node, place.wanted)
        return _Host(link, self._clock(), link.ask("describe"))

    def _greet(self, place: Place, host: _Host) -> None:
        """Use the device of a host that has begun, once it says what that is."""
        assert self._executor is not None
        if not host.description.is_there():
            if not host.is_late and self._clock() - host.since > _LONG:
                host.is_late = True
                log.warning("%s is not free yet", place.name)
            return
        try:
            description = host.description.result()
        except ModelError as error:
            log.error("%s cannot be used: %s", place.name, error)  # noqa: TRY400 - it says all
            self._drop(place, str(error))
            return
        if description.version != self._version:
            log.error("%s has version %s of Tilewire", place.name, description.version)
            self._drop(place, "another version")
            return
        host.device = RayDevice(host.link, place.node.name, description, self._shipping)
        log.info("%s is used", host.device.name)
        self._executor.add(host.device)

    def _look_after(self, place: Place, host: _Host, device: RayDevice) -> None:
        assert self._executor is not None
        if device not in self._executor.devices:
            host.link.kill()  # it may work again in a new process
            self._drop(place, "it was given up")
            return
        if host.beat is not None:
            if not host.beat.is_there():
                return
            try:
                device.memory = host.beat.result()
            except ModelError as error:
                self._drop(place, str(error))
                return
        host.beat = host.link.ask("beat", self._server)

    def _drop(self, place: Place, reason: str) -> None:
        assert self._executor is not None
        host = self._hosts.pop(place)
        self._not_before[place] = self._clock() + _AGAIN
        if host.device is not None:
            self._executor.lose(host.device, reason)

    def _disconnect(self) -> None:
        for place in list(self._hosts):
            self._drop(place, "the Ray cluster is gone")
        self._not_before.clear()
        cluster, self._cluster = self._cluster, None
        if cluster is not None:
            try:
                cluster.close()
            except Exception:
                log.exception("the connection to the Ray cluster could not be closed")

    def _say_goodbye(self) -> None:
        for host in self._hosts.values():
            if host.device is not None:
                with contextlib.suppress(ModelError):  # what is gone need not know
                    host.link.call("say_goodbye", self._server)
