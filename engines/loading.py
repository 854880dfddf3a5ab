"""Models on their first use: built and loaded once, whoever wants them, in threads of their own.

To build a model takes seconds, and to load it waits for what the devices are at: neither must hold up the
threads that other work shares. A model that cannot be loaded is refused for a minute without another try, as
each would cost everybody's time on the devices.
"""

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Generic, TypeAlias, TypeVar

from engines.creative.upscaler import CreativeUpscaler
from engines.devices.parts import Part
from engines.devices.sessions import Network
from engines.errors import ModelError
from engines.latent.upscaler import LatentUpscaler
from engines.progress import Progress
from engines.scheduling.executor import Executor
from engines.threads import Threads
from onnx_models import (
    Auxiliary,
    CreativeWeights,
    LatentWeights,
    Model,
    ModelBuildError,
    Weights,
    ensure_built,
    verified_file,
)

__all__ = ["LoadedModels", "Loads"]

T = TypeVar("T")
Key: TypeAlias = tuple[str, str]
"""The name of a model, and the label of its weights."""

_THREADS = 4
_REFUSED = 60.0
"""Seconds until what could not be loaded is tried again."""


class Loads(Generic[T]):
    """Things that are loaded once, on first use; may be used from any thread."""

    def __init__(self, threads: Threads, clock: Callable[[], float]) -> None:
        """Begin with nothing loaded.

        Args:
            threads: what loads.
            clock: the time in seconds.
        """
        self._threads = threads
        self._clock = clock
        self._lock = threading.Lock()
        self._loads: dict[Key, Future[T]] = {}
        self._refused_until: dict[Key, float] = {}

    @property
    def ready(self) -> dict[Key, T]:
        """What is loaded."""
        with self._lock:
            loads = list(self._loads.items())
        return {key: load.result() for key, load in loads if load.done() and load.exception() is None}

    def get(self, key: Key, load: Callable[[], T]) -> Future[T]:
        """The one load of something; it begins now if nobody has wanted it before.

        Args:
            key: what it is.
            load: loads it; called in another thread.

        Raises:
            ModelError: if the threads are closed.
        """
        with self._lock:
            known = self._loads.get(key)
            if known is None or self._is_to_be_tried_again(key, known):
                self._loads[key] = known = self._threads.submit(self._load, key, load)
            return known

    def _is_to_be_tried_again(self, key: Key, load: Future[T]) -> bool:
        failed = load.done() and load.exception() is not None
        return failed and self._clock() >= self._refused_until[key]

    def _load(self, key: Key, load: Callable[[], T]) -> T:
        try:
            return load()
        except BaseException:
            self._refused_until[key] = self._clock() + _REFUSED
            raise


class LoadedModels:
    """The models of an upscaler."""

    def __init__(
        self,
        executor: Executor,
        directory: Path,
        pixels: Threads,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin with nothing loaded.

        Args:
            executor: where they are loaded.
            directory: where ONNX files are kept, built there on first use.
            pixels: threads for the work of latent and creative upscalers beside the devices.
            clock: the time in seconds.
        """
        self._executor = executor
        self._directory = directory
        self._pixels = pixels
        self._threads = Threads(_THREADS, "loads")
        self._networks: Loads[Network] = Loads(self._threads, clock)
        self._latents: Loads[LatentUpscaler] = Loads(self._threads, clock)
        self._creatives: Loads[CreativeUpscaler] = Loads(self._threads, clock)
        self._parts: Loads[Part] = Loads(self._threads, clock)

    async def network(self, model: Model, weights: Weights) -> Network:
        """A model's network, built and loaded on first use.

        Raises:
            ModelError: if it cannot be built or loaded.
        """
        return await _result(self._network(model, weights))

    async def latent(self, model: Model, weights: LatentWeights) -> LatentUpscaler:
        """A latent upscaler, verified and loaded on first use.

        Raises:
            ModelError: if it is not as it should be, or cannot be loaded.
        """
        return await _result(self._latent(model, weights))

    async def creative(self, model: Model, weights: CreativeWeights) -> CreativeUpscaler:
        """A creative upscaler, verified and loaded on first use.

        Raises:
            ModelError: if it is not as it should be, or cannot be loaded.
        """
        return await _result(self._creative(model, weights))

    async def part(self, auxiliary: Auxiliary) -> Part:
        """The network of a model that works beside upscalers, verified and loaded on first use.

        Raises:
            ModelError: if it is not as it should be, or cannot be loaded.
        """

        def load() -> Part:
            try:
                part = Part(verified_file(auxiliary), auxiliary.batches)
            except ModelBuildError as error:
                raise ModelError(f"{auxiliary.name} cannot be used: {error}") from error
            self._executor.load(part)
            return part

        return await _result(self._parts.get((auxiliary.name, auxiliary.kind), load))

    def load(self, model: Model, on_progress: Progress | None = None) -> None:
        """Build and load all native scales of a model; see `Upscaler.load`. Blocks."""
        for done, weights in enumerate(model.weights, start=1):
            load: Future[Network] | Future[LatentUpscaler] | Future[CreativeUpscaler]
            if isinstance(weights, LatentWeights):
                load = self._latent(model, weights)
            elif isinstance(weights, CreativeWeights):
                load = self._creative(model, weights)
            else:
                load = self._network(model, weights)
            if (error := load.exception()) is not None:
                raise _again(error)
            if on_progress:
                on_progress(done / len(model.weights))

    def names(self) -> dict[Network | Part, str]:
        """The models that all loaded networks and parts are of."""
        names: dict[Network | Part, str] = {
            network: name for (name, _), network in self._networks.ready.items()
        }
        for loaded in (self._latents, self._creatives):
            for (name, _), upscaler in loaded.ready.items():
                names |= dict.fromkeys(upscaler.parts, name)
        names |= {part: name for (name, _), part in self._parts.ready.items()}
        return names

    def close(self) -> None:
        """Wait for the loads under way; the executor must have been closed. Blocks."""
        self._threads.close()

    def _network(self, model: Model, weights: Weights) -> Future[Network]:
        def load() -> Network:
            network = Network.build(model, weights, self._directory)
            self._executor.load(network)
            return network

        return self._networks.get((model.name, weights.label), load)

    def _latent(self, model: Model, weights: LatentWeights) -> Future[LatentUpscaler]:
        def load() -> LatentUpscaler:
            self._verify(model, weights)
            return LatentUpscaler(weights, self._executor, self._pixels)

        return self._latents.get((model.name, weights.label), load)

    def _creative(self, model: Model, weights: CreativeWeights) -> Future[CreativeUpscaler]:
        def load() -> CreativeUpscaler:
            self._verify(model, weights)
            return CreativeUpscaler(weights, self._executor, self._pixels)

        return self._creatives.get((model.name, weights.label), load)

    def _verify(self, model: Model, weights: Weights) -> None:
        try:
            ensure_built(model, weights, self._directory)
        except ModelBuildError as error:
            raise ModelError(f"{model.name} cannot be built: {error}") from error


async def _result(load: Future[T]) -> T:
    """The result of a load, once it is there. If the call is cancelled, the load goes on for others."""
    if not load.done():
        with suppress(Exception):  # it is raised below
            await asyncio.shield(asyncio.wrap_future(load))
    if (error := load.exception()) is not None:
        raise _again(error)
    return load.result()


def _again(error: BaseException) -> BaseException:
    """A copy of an error for each caller: one that many raise would keep the frames of all of them."""
    return type(error)(*error.args).with_traceback(None)
