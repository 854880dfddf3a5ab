"""A device of another machine, as the executor knows devices: each call is one of `host.DeviceHost` there."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from engines.activity import Memory
from engines.devices.parts import Arrays, Part
from engines.devices.sessions import Network
from engines.ray.host import Description
from engines.ray.models import bundle_of, pieces_of

__all__ = ["Link", "RayDevice", "RaySession", "Shipping"]


class Link(Protocol):
    """The way to a host."""

    def call(self, method: str, *arguments: object) -> Any:
        """What a method of the host gives. Blocks.

        Raises:
            DeviceLostError: if the host is gone.
            ModelError: if the method raises one.
        """

    def put(self, piece: bytes) -> object:
        """What can be given to the methods of several hosts in place of bytes that are sent only once."""


class Shipping:
    """Files on their way to several hosts: each piece is read, and put where they fetch it, once."""

    def __init__(self) -> None:
        """Begin with nothing on its way."""
        self._lock = Lock()
        self._pieces: dict[Path, list[object]] = {}
        self._wanted: Counter[Path] = Counter()

    @contextmanager
    def pieces(self, path: Path, link: Link) -> Iterator[list[object]]:
        """The pieces of a file, kept until nobody sends it any longer."""
        with self._lock:
            if path not in self._pieces:
                self._pieces[path] = [link.put(piece) for piece in pieces_of(path)]
            pieces = self._pieces[path]
            self._wanted[path] += 1
        try:
            yield pieces
        finally:
            with self._lock:
                self._wanted[path] -= 1
                if not self._wanted[path]:
                    del self._wanted[path], self._pieces[path]


class RayDevice:
    """A device of a node.

    Attributes:
        name, kind, largest_batch: see `Device`; the name begins with that of the node.
        node: the machine, for people.
        memory: what the host said last.
    """

    def __init__(self, link: Link, node: str, description: Description, shipping: Shipping) -> None:
        """Use the device of a host.

        Args:
            link: the way there.
            node: the machine, for people.
            description: what the host says of its device.
            shipping: what sends the files of models.
        """
        self.node = node
        self.name = f"{node}: {description.name}"
        self.kind, self.largest_batch = description.kind, description.largest_batch
        self.memory: Memory | None = None
        self._link = link
        self._shipping = shipping

    def side_by_side(self, network: Network) -> bool:  # noqa: ARG002 - as in `Device`
        """See `Device.side_by_side`; a device has one run at a time."""
        return False

    def memory_use(self) -> Memory | None:
        """See `Device.memory_use`; as of the last second or so."""
        return self.memory

    def open(self, network: Network) -> "RaySession":
        """See `Device.open`."""
        return RaySession(self._link, self._load(network))

    def open_part(self, part: Part) -> "RaySession":
        """See `Device.open_part`."""
        return RaySession(self._link, self._load(part))

    def _load(self, model: Network | Part) -> str:
        bundle, paths = bundle_of(model)
        if not self._link.call("has", bundle):
            coming = self._link.call("begin")
            for file, path in zip(bundle.files, paths, strict=True):
                with self._shipping.pieces(path, self._link) as pieces:
                    for piece in pieces:
                        self._link.call("add", coming, file.name, piece)
            self._link.call("finish", coming, bundle)
        key: str = self._link.call("load", model, bundle)
        return key


class RaySession:
    """A network, or a part of a model, loaded on a device of a node.

    Attributes:
        seconds: see `TimedSession`.
    """

    def __init__(self, link: Link, key: str) -> None:
        """Use what a host has loaded under this key."""
        self._link, self._key = link, key
        self.seconds = 0.0

    def run(self, tiles: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """See `Session.run`."""
        (upscaled,) = self._run((tiles,))
        return upscaled

    def run_part(self, arrays: Arrays) -> Arrays:
        """See `PartSession.run_part`."""
        return self._run(arrays)

    def _run(self, arrays: Arrays) -> Arrays:
        result: Arrays
        result, self.seconds = self._link.call("run", self._key, arrays)
        return result

    def rates(self, tile: int, largest: int) -> dict[int, float]:
        """See `MeasuringSession.rates`."""
        rates: dict[int, float] = self._link.call("rates", self._key, tile, largest)
        return rates

    def warm_up(self) -> None:
        """See `WarmingSession.warm_up`."""
        self._link.call("warm_up", self._key)

    def release_memory(self) -> None:
        """See `Session.release_memory`."""
        self._link.call("release_memory", self._key)
