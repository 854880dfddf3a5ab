"""The process that speaks with Ray, and the one module that knows it.

It is a process of its own because Ray ends the process that it is in when a cluster's head is gone for long,
and until then may hang for ever: whoever started this one can end it, and start another.

What is started on a node outlives the server that started it, and is found again by its name: several servers
share a device, and one that is started again finds its models loaded.
https://docs.ray.io/en/latest/ray-core/actors/named-actors.html
"""

import importlib
import logging
import os
import socket
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import ModuleType
from typing import Any

import numpy as np

from engines.errors import DeviceLostError, EngineError, ModelError
from engines.ray.host import Wanted
from engines.ray.wire import Put, Wire, WireClosedError
from onnx_models import one_line

__all__ = ["main"]

_NAMESPACE = "tilewire"

_CALLS = 32
"""Of a host, that may be under way at once: each server has three, of which two wait for the device."""

_AT_ONCE = 2 << 20
"""Bytes of tiles, or of results, that go with a call, or its answer. More goes by way of Ray's object store,
which is shared memory on one node, and takes ten milliseconds more from one node to another."""

_ENVIRONMENT = {"RAY_max_direct_call_object_size": str(_AT_ONCE)}
"""Of this process, and of those that Ray starts for it (ray_config_def.h of Ray)."""

_FAREWELL = 5.0


class _Process:
    """What answers the messages, each with its number; see `connection`."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._ray: ModuleType
        self._actors: dict[int, Any] = {}
        self._pieces: dict[int, Any] = {}
        # What asks the cluster's head may hang; what comes back may be large. Tiles wait for neither.
        self._control = ThreadPoolExecutor(1, "control")
        self._answers = ThreadPoolExecutor(1, "answers")

    def run(self) -> None:
        """Answer until the server is gone."""
        while True:
            number, method, arguments = self._wire.receive()
            if method == "ask":
                self._ask(number, *arguments)
            else:
                self._control.submit(self._answer, number, getattr(self, method), *arguments)

    def _ask(self, number: int, actor: int, method: str, arguments: tuple[Any, ...]) -> None:
        """Call a method of an actor; the answer follows when there is one."""
        try:
            found = [self._pieces[each.number] if isinstance(each, Put) else each for each in arguments]
            future = getattr(self._actors[actor], method).remote(*found).future()
        except Exception as error:  # noqa: BLE001 - Ray's errors share no base class
            self._answers.submit(self._fail, number, DeviceLostError(one_line(error)))
        else:
            future.add_done_callback(lambda done: self._tell(number, done))

    def _tell(self, number: int, done: "Future[Any]") -> None:
        """Send what an actor gave. In Ray's own thread, which what is large must not hold up."""
        try:
            result = self._result(done)
        except EngineError as error:
            self._fail(number, error)
            return
        if _size_of(result) <= _AT_ONCE:
            self._send(number, result, None)
        else:
            self._answers.submit(self._send, number, result, None)

    def _answer(self, number: int, function: Callable[..., object], *arguments: object) -> None:
        try:
            result = function(*arguments)
        except Exception as error:  # noqa: BLE001 - raised where the answer is waited for
            self._fail(number, error if isinstance(error, EngineError) else ModelError(one_line(error)))
        else:
            self._send(number, result, None)

    def _fail(self, number: int, error: EngineError) -> None:
        self._send(number, None, error)

    def _send(self, number: int, result: object, error: EngineError | None) -> None:
        try:
            self._wire.send((number, result, error))
        except WireClosedError:
            os._exit(0)

    def _result(self, done: "Future[Any]") -> Any:
        """What an actor gave.

        Raises:
            DeviceLostError: if it is gone.
            ModelError: if it raised one.
        """
        errors = self._ray.exceptions
        try:
            return done.result()
        except errors.RayTaskError as error:
            cause = error.cause
            if isinstance(cause, EngineError):
                raise cause from None
            raise DeviceLostError(f"the node failed: {one_line(cause)}") from None
        except Exception as error:  # noqa: BLE001 - Ray's errors share no base class
            raise DeviceLostError(one_line(error, 300)) from None  # Ray explains at length

    def connect(self, address: str) -> None:
        """Join the cluster."""
        self._ray = _import_ray()
        self._ray.init(
            address=address, namespace=_NAMESPACE, log_to_driver=False, logging_level=logging.ERROR
        )

    def nodes(self) -> list[dict[str, Any]]:
        """The machines that are there, as Ray knows them."""
        return [found for found in self._ray.nodes() if found["Alive"]]

    def host(
        self, number: int, name: str, node: str, wanted: Wanted, kind: str, options: dict[str, Any]
    ) -> None:
        """Start the host of that name on a node, unless it is there; known as `number` from now on."""
        module, _, qualified = kind.partition(":")
        needs = {"num_gpus": 1, "num_cpus": 0} if wanted.choice == "cuda" else {"num_cpus": wanted.cores}
        strategies = importlib.import_module("ray.util.scheduling_strategies")
        actor = self._ray.remote(getattr(importlib.import_module(module), qualified)).options(
            name=name,
            get_if_exists=True,
            lifetime="detached",
            max_restarts=0,
            max_concurrency=_CALLS,
            scheduling_strategy=strategies.NodeAffinitySchedulingStrategy(node, soft=False),
            runtime_env={"env_vars": _ENVIRONMENT},
            **needs,
        )
        self._actors[number] = actor.remote(wanted, **options)

    def put(self, number: int, piece: bytes) -> None:
        """Put bytes where all nodes can fetch them; known as `number` from now on."""
        self._pieces[number] = self._ray.put(piece)

    def drop(self, number: int) -> None:
        """Forget what was put."""
        self._pieces.pop(number, None)

    def kill(self, actor: int) -> None:
        """End a host, whoever else uses it."""
        self._ray.kill(self._actors.pop(actor))

    def leave(self) -> None:
        """Leave the cluster; hosts stay."""
        self._ray.shutdown()


def _size_of(result: object) -> int:
    """Bytes of the arrays in what a run gave; nothing of anything else."""
    if isinstance(result, np.ndarray):
        return result.nbytes
    return sum(map(_size_of, result)) if isinstance(result, tuple) else 0


def _import_ray() -> ModuleType:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it reports to its makers otherwise
    os.environ.update(_ENVIRONMENT)
    return importlib.import_module("ray")


def main() -> None:
    """Answer the server at the other end of the socket whose number is the argument, until it is gone."""
    process = _Process(Wire(socket.socket(fileno=int(sys.argv[1]))))
    try:
        process.run()
    except WireClosedError:
        threading.Timer(_FAREWELL, os._exit, [0]).start()
        process.leave()
    os._exit(0)  # Ray's threads may not end


if __name__ == "__main__":
    main()
