"""What runs on a node: one device, and what is loaded there. Any number of servers may use it at once.

An actor of Ray calls the methods in many threads; all that concerns the device is done in one, in the order
in which it came. Servers show that they are still there (`beat`); once none does, the host leaves, and frees
its device.
"""

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple, TypeVar, cast

from platformdirs import user_cache_path

from engines.activity import Memory
from engines.devices.device import Device
from engines.devices.failures import as_model_error
from engines.devices.find import DeviceChoice, PrecisionChoice, RuntimeChoice, find_devices
from engines.devices.heap import trim_heap
from engines.devices.parts import Arrays, Part, PartSession
from engines.devices.sessions import Network, Session, warmed_up
from engines.errors import DeviceLostError
from engines.ray.models import Bundle, ModelStore
from engines.scheduling.calibration import measure_rates

__all__ = ["Description", "DeviceHost", "Wanted", "installed_version"]

T = TypeVar("T")

_LEASE = 60.0
"""Seconds without a sign of any server, after which the host leaves."""


def installed_version() -> str:
    """Which version of the engines this is."""
    try:
        return version("tilewire")
    except PackageNotFoundError:  # run from its source
        return "0+unknown"


class Wanted(NamedTuple):
    """What device a host is to have; see `find_devices`."""

    choice: DeviceChoice
    runtime: RuntimeChoice
    precision: PrecisionChoice
    cores: int | None


class Description(NamedTuple):
    """The device of a host; see `Device`."""

    name: str
    kind: str
    largest_batch: int
    version: str
    """Of the engines on that node."""


class _Loaded(NamedTuple):
    """A network, or a part."""

    run: Callable[[Arrays], Arrays]
    session: Session | PartSession


class DeviceHost:
    """A device, for those who are elsewhere."""

    def __init__(
        self,
        wanted: Wanted,
        *,
        version: str | None = None,
        directory: Path | None = None,
        leave: Callable[[], object] = lambda: os._exit(0),  # no other way ends an actor from within
        find: Callable[..., tuple[Device, ...]] = find_devices,
    ) -> None:
        """Take a device of this machine.

        Args:
            wanted: what device.
            version: see `Description`; default: what is installed here.
            directory: where the files of models are kept; default: in the user's cache.
            leave: ends this process.
            find: as `find_devices`.

        Raises:
            ModelError: if there is no such device.
        """
        self._version = version or installed_version()
        self._models = ModelStore(directory or user_cache_path("tilewire", appauthor=False) / "nodes")
        self._leave = leave
        self._servers: dict[str, float] = {}
        self._seen = time.monotonic()
        self._loaded: dict[str, _Loaded] = {}
        self._warm: set[str] = set()
        # CUDA's contexts and graphs belong to the thread that made them.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="device")
        self._device = self._do(lambda: find(*wanted)[0])
        threading.Thread(target=self._watch, name="lease", daemon=True).start()

    def describe(self) -> Description:
        """What device it is."""
        device = self._device
        return Description(device.name, device.kind, device.largest_batch, self._version)

    def beat(self, server: str) -> Memory | None:
        """Take note that a server is still there; gives the memory of the device."""
        self._servers[server] = self._seen = time.monotonic()
        return self._device.memory_use()

    def say_goodbye(self, server: str) -> None:
        """Take note that a server needs it no longer; leave, if none does."""
        self._servers.pop(server, None)
        if not self._servers:
            threading.Timer(0.1, self._leave).start()  # once this has been answered

    def has(self, bundle: Bundle) -> bool:
        """Whether the files of a model are here; see `ModelStore`, as for the next three."""
        return self._models.has(bundle)

    def begin(self) -> str:
        """Begin to take files."""
        return self._models.begin()

    def add(self, coming: str, name: str, piece: bytes) -> None:
        """Take the next piece of a file."""
        self._models.add(coming, name, piece)

    def finish(self, coming: str, bundle: Bundle) -> None:
        """All pieces came."""
        self._models.finish(coming, bundle)

    def load(self, model: Network | Part, bundle: Bundle) -> str:
        """Load a network or a part whose files are here, unless it is loaded; gives what `run` names.

        Raises:
            ModelError: if it cannot be loaded.
        """
        key = f"{bundle.name} {'' if isinstance(model, Part) else (model.scale, model.tile, model.overlap)}"
        self._do(lambda: self._load(key, model, bundle))
        return key

    def _load(self, key: str, model: Network | Part, bundle: Bundle) -> None:
        if key in self._loaded:
            return
        if isinstance(model, Part):
            part = self._device.open_part(self._models.part(model, bundle))
            self._loaded[key] = _Loaded(part.run_part, part)
        else:
            session = self._device.open(self._models.network(model, bundle))
            self._loaded[key] = _Loaded(lambda arrays: (session.run(arrays[0]),), session)

    def run(self, key: str, arrays: Arrays) -> tuple[Arrays, float]:
        """What a network, or a part, makes of a batch; and the seconds that the device worked.

        Raises:
            ModelError: see `Session.run`.
        """

        def timed() -> tuple[Arrays, float]:
            run = self._of(key).run
            begun = time.perf_counter()
            result = run(arrays)
            return result, time.perf_counter() - begun

        return self._do(timed)

    def rates(self, key: str, tile: int, largest: int) -> dict[int, float]:
        """See `MeasuringSession.rates`."""
        return self._do(lambda: measure_rates(cast(Session, self._of(key).session), tile, largest))

    def warm_up(self, key: str) -> None:
        """See `WarmingSession.warm_up`; done once, whoever asks."""

        def warm() -> None:
            if key not in self._warm:
                warmed_up(cast(Session, self._of(key).session))
                self._warm.add(key)

        self._do(warm)

    def release_memory(self, key: str) -> None:
        """See `Session.release_memory`."""

        def release() -> None:
            self._of(key).session.release_memory()
            trim_heap()

        self._do(release)

    def _of(self, key: str) -> "_Loaded":
        if key not in self._loaded:
            raise DeviceLostError("the node was started again meanwhile")
        return self._loaded[key]

    def _do(self, what: Callable[[], T]) -> T:
        """What is done in the device's thread; whatever goes wrong is an EngineError, which can be sent."""
        try:
            return self._thread.submit(what).result()
        except OSError as error:  # a full disk, say: it is the node's fault, not the model's
            raise DeviceLostError(str(error)) from None
        except Exception as error:  # noqa: BLE001 - the runtimes' errors share no base class
            raise as_model_error(error, "the node failed") from None

    def _watch(self) -> None:
        while time.monotonic() - self._seen < _LEASE:
            now = time.monotonic()
            gone = [server for server, seen in list(self._servers.items()) if now - seen > _LEASE]
            for server in gone:
                self._servers.pop(server, None)
            time.sleep(1.0)
        self._leave()
