"""The CPU by whichever runtime is the fastest for a network: measured at its first load, and kept.

Which one that is depends on the processor and on the network. OpenVINO in bf16 takes a half to a third of
ONNX Runtime's time where the processor has it; where it does not, ncnn takes two thirds of OpenVINO's for
x4plus.

1. Each runtime enlarges a photograph, in its fastest form first; a part of it, where that takes long enough.
2. A form that is not within 45 dB of ONNX Runtime in fp32 is passed over for the next.
3. What was the fastest is kept in `runtimes.json` beside the network, for this processor and these versions.
"""

import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from engines.devices.cores import processor
from engines.devices.cpu_runtime import CpuRuntime
from engines.devices.device import Device
from engines.devices.failures import as_model_error
from engines.devices.heap import trim_heap
from engines.devices.kept import Kept
from engines.devices.parity import LEAST_DECIBELS, decibels, photograph
from engines.devices.parts import Part, PartSession
from engines.devices.sessions import Network, Session, run_checked
from engines.errors import ModelError
from onnx_models import Model

__all__ = ["FastestRuntime", "fastest_runtime"]

log = logging.getLogger(__name__)

_SIDES = (32, 64, 96)
"""Of the picture, in pixels: the next one is for those who need less than `_SHORT` for the one before."""
_SHORT = 0.12
_ENOUGH_SECONDS = 0.5
_RUNS = 4


class _Choice(Struct, frozen=True):
    """What is kept. `megapixels_per_second`: of output, by runtime."""

    runtime: str
    megapixels_per_second: dict[str, float]


@dataclass(frozen=True, slots=True)
class FastestRuntime:
    """The CPU. Every run is of one tile: a batch gains nothing on a CPU."""

    runtimes: tuple[tuple[CpuRuntime, ...], ...]
    """Of each runtime its forms, the fastest first. The first runtime is ONNX Runtime, in fp32: it runs all
    networks, and the others are compared with it."""
    clock: Callable[[], float] = field(default=time.perf_counter, compare=False, repr=False)
    """The time in seconds."""
    _chosen: dict[Network, CpuRuntime] = field(default_factory=dict, compare=False, repr=False)
    _one_at_a_time: threading.Lock = field(default_factory=threading.Lock, compare=False, repr=False)

    @property
    def name(self) -> str:
        """See `Device.name`."""
        *names, last = [forms[0].runtime for forms in self.runtimes]
        return f"CPU, {self.threads} threads, {', '.join(names)} or {last}"

    @property
    def threads(self) -> int:
        """How many one run may use."""
        return self.runtimes[0][0].threads

    @property
    def kind(self) -> str:
        """See `Device.kind`."""
        return "; ".join([processor(), *(form.kind for forms in self.runtimes for form in forms)])

    @property
    def largest_batch(self) -> int:
        """See `Device.largest_batch`."""
        return 1

    def side_by_side(self, network: Network) -> bool:
        """See `Device.side_by_side`."""
        chosen = self._chosen.get(network)
        return chosen is not None and chosen.side_by_side(network)

    def memory_use(self) -> None:
        """See `Device.memory_use`."""

    def open(self, network: Network) -> Session:
        """See `Device.open`; takes seconds more where the runtimes are measured first."""
        return self.choose(network).open(network)

    def open_part(self, part: Part) -> PartSession:
        """See `Device.open_part`; what may be inexact is left to the first runtime that can load it."""
        (reference,), *others = self.runtimes
        for form in (forms[0] for forms in others if part.inexact):
            try:
                return form.open_part(part)
            except ModelError as error:
                log.info("%s: not by %s: %s", part.path.name, form.runtime, error)
        return reference.open_part(part)

    def choose(self, network: Network) -> CpuRuntime:
        """What runs a network: measured now, if it was not before. Blocks.

        Raises:
            ModelError: if not even ONNX Runtime can run it.
        """
        with self._one_at_a_time:
            if (chosen := self._chosen.get(network)) is None:
                self._chosen[network] = chosen = self._known(network) or self._measured(network)
            return chosen

    def _known(self, network: Network) -> CpuRuntime | None:
        choice = _kept(network).get(self._key(network)) if network.sha256 else None
        for form in (form for forms in self.runtimes for form in forms):
            if choice is not None and form.runtime == choice.runtime:
                log.info("%s: %s, as measured before", network.path.name, form.runtime)
                return form
        return None

    def _measured(self, network: Network) -> CpuRuntime:
        (reference,), *others = self.runtimes
        session = reference.open(network)
        picture = self._picture(session, network)
        seconds: dict[CpuRuntime, float] = {}
        expected, seconds[reference] = self._timed(session, network, picture)
        del session
        for forms in others:
            for form in forms:
                try:
                    result, took = self._timed(form.open(network), network, picture)
                except Exception as error:  # noqa: BLE001 - a runtime that may be missed
                    failure = as_model_error(error, "it fails")
                    log.info("%s: not by %s: %s", network.path.name, form.runtime, failure)
                    continue
                if (near := decibels(result, expected)) >= LEAST_DECIBELS:
                    seconds[form] = took
                    break
                log.info("%s: not by %s, which is within %.0f dB", network.path.name, form.runtime, near)
        trim_heap()
        megapixels = expected[..., 0].size / 1e6
        rates = {form.runtime: float(f"{megapixels / took:.3g}") for form, took in seconds.items()}
        chosen = min(seconds, key=seconds.__getitem__)
        shown = ", ".join(f"{runtime} {rate:g}" for runtime, rate in rates.items())
        log.info("%s: %s (output megapixels/s: %s)", network.path.name, chosen.runtime, shown)
        if network.sha256:
            _kept(network).keep(self._key(network), _Choice(chosen.runtime, rates))
        return chosen

    def _picture(self, session: Session, network: Network) -> NDArray[np.uint8]:
        """As much of the photograph as can be enlarged in a moment: its middle."""
        whole = photograph()
        for side in _SIDES:
            size = min(side, network.tile)
            start = (whole.shape[1] - size) // 2
            part = np.ascontiguousarray(whole[:, start : start + size, start : start + size])
            began = self.clock()
            run_checked(session, network, part)
            if size < side or self.clock() - began > _SHORT:
                break
        return part

    def _timed(
        self, session: Session, network: Network, picture: NDArray[np.uint8]
    ) -> tuple[NDArray[np.uint8], float]:
        """What a session makes of a picture, and the seconds of its fastest run: all else was disturbed."""
        fastest, until = math.inf, self.clock() + _ENOUGH_SECONDS
        for _ in range(_RUNS):  # the first one also gets kernels ready, which is little beside a long run
            began = self.clock()
            result = run_checked(session, network, picture)
            ended = self.clock()
            fastest = min(fastest, ended - began)
            if ended > until:
                break
        return result, fastest

    def _key(self, network: Network) -> str:
        return f"{self.kind}; {network.path.name} {network.sha256[:16]}"


def fastest_runtime(device: Device, model: Model, directory: Path) -> str | None:
    """The name of what runs a model at its largest scale; None if none is to be chosen.

    Args:
        device: what `find_devices` found.
        model: an entry of the catalogue.
        directory: where ONNX files are kept.

    Raises:
        ModelError: if it cannot be built or run.
    """
    if not isinstance(device, FastestRuntime) or model.latent is not None:
        return None
    weights = max(model.weights, key=lambda each: each.scale)
    return device.choose(Network.build(model, weights, directory)).name


def _kept(network: Network) -> Kept[_Choice]:
    return Kept(network.path.with_name("runtimes.json"), dict[str, _Choice])
