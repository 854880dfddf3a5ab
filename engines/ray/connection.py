"""The connection to a cluster: the one module that knows Ray.

What is started on a node outlives the server that started it, and is found again by its name: several servers
share a device, and one that is started again finds its models loaded.
"""

import contextlib
import importlib
import importlib.util
import logging
import os
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

from engines.errors import DeviceLostError, EngineError, ModelError
from engines.ray.host import DeviceHost, Wanted
from onnx_models import one_line

__all__ = ["Answer", "Connection", "Node", "RayLink", "check_installed"]

_NAMESPACE = "tilewire"

_CALLS = 32
"""Of a host, that may be under way at once: each server has three, of which two wait for the device."""


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

    def __init__(self, ray: ModuleType, reference: Any) -> None:
        """Wait for what a call to an actor gives."""
        self._ray, self._reference = ray, reference

    def is_there(self) -> bool:
        """Whether `result` gives it at once."""
        done, _ = self._ray.wait([self._reference], timeout=0)
        return bool(done)

    def result(self) -> Any:
        """Give it. Blocks.

        Raises:
            DeviceLostError: if the host is gone.
            ModelError: if it raised one.
        """
        errors = self._ray.exceptions
        try:
            return self._ray.get(self._reference)
        except errors.RayTaskError as error:
            cause = error.cause
            if isinstance(cause, EngineError):
                raise cause from None
            raise DeviceLostError(f"the node failed: {one_line(cause)}") from None
        except (errors.RayError, ConnectionError) as error:
            raise DeviceLostError(_reason(error)) from None


class RayLink:
    """The way to a host that is an actor of Ray."""

    def __init__(self, ray: ModuleType, actor: Any) -> None:
        """Use an actor."""
        self._ray, self._actor = ray, actor

    def call(self, method: str, *arguments: object) -> Any:
        """See `device.Link.call`."""
        return self.ask(method, *arguments).result()

    def ask(self, method: str, *arguments: object) -> Answer:
        """The same without waiting for it."""
        return Answer(self._ray, getattr(self._actor, method).remote(*arguments))

    def put(self, piece: bytes) -> object:
        """See `device.Link.put`."""
        return self._ray.put(piece)

    def kill(self) -> None:
        """End the host, whoever else uses it."""
        with contextlib.suppress(Exception):  # it may be gone, and so may the cluster
            self._ray.kill(self._actor)


class Connection:
    """A connection to a cluster."""

    def __init__(self, address: str, host: Callable[..., DeviceHost] = DeviceHost) -> None:
        """Connect. Blocks.

        Args:
            address: `auto`, `host:port` or `ray://host:port`.
            host: what is started on the nodes.

        Raises:
            ModelError: if that cannot be done.
        """
        self._ray = ray = _import_ray()
        self._host = host
        try:
            ray.init(
                address=address,
                namespace=_NAMESPACE,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        except Exception as error:  # Ray's errors share no base class here
            raise ModelError(_reason(error)) from error

    def nodes(self) -> list[Node]:
        """The machines that are there.

        Raises:
            Exception: of any class, if the cluster is gone.
        """
        return [_node(found) for found in self._ray.nodes() if found["Alive"]]

    def host(self, name: str, node: Node, wanted: Wanted, version: str) -> RayLink:
        """The host of that name on a node; started, unless it is there already. Does not wait for it."""
        options = {"num_gpus": 1, "num_cpus": 0} if wanted.choice == "cuda" else {"num_cpus": wanted.cores}
        affinity = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node.key, soft=False)
        actor = self._ray.remote(self._host).options(
            name=name,
            get_if_exists=True,
            lifetime="detached",
            max_restarts=0,
            max_concurrency=_CALLS,
            scheduling_strategy=affinity,
            **options,
        )
        return RayLink(self._ray, actor.remote(wanted, version=version))

    def close(self) -> None:
        """Leave the cluster; hosts stay."""
        self._ray.shutdown()


def check_installed() -> None:
    """Raise a ModelError if Ray is not installed."""
    if importlib.util.find_spec("ray") is None:
        raise ModelError("ray_address needs Ray; pip install 'tilewire[ray]' brings it")


def _import_ray() -> ModuleType:
    """Ray, which is optional and takes a while: imported on first use, and reports nothing to its makers."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray = importlib.import_module("ray")
    importlib.import_module("ray.util.scheduling_strategies")
    return ray


def _node(found: dict[str, Any]) -> Node:
    resources = found["Resources"]
    key = found["NodeID"]
    name = f"{found['NodeManagerHostname']} {key[:6]}"
    return Node(key, name, int(resources.get("CPU", 0)), int(resources.get("GPU", 0)))


def _reason(error: Exception) -> str:
    return one_line(error)
