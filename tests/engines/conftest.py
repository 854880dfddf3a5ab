"""Tests that need a GPU are skipped where there is none, and say why."""

from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest

from engines import ModelError, find_devices
from engines.devices import runtimes
from engines.devices.cuda import device as cuda_device
from engines.devices.cuda.session import CudaSession
from engines.devices.sessions import Network
from tests.engines.support.fake_gpu import FakeGpuMemory


def pytest_runtest_setup(item):
    if item.get_closest_marker("gpu"):
        try:
            find_devices("cuda")
        except ModelError as error:
            pytest.skip(str(error))


@pytest.fixture(scope="session")
def small_network(catalogue, model_directory):
    """A fast one, of scale 2."""
    model = catalogue.get("realesr-animevideov3")
    return Network.build(model, model.weights[0], model_directory)


class Clock:
    """Stands still until it is told."""

    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


class Opened(NamedTuple):
    """One session that was opened: the file, or its content, and the options of each provider."""

    model: Path | bytes
    providers: dict[str, dict[str, str]]

    @property
    def options(self):
        return self.providers["CUDAExecutionProvider"]

    @property
    def halved(self):
        return isinstance(self.model, bytes)

    @property
    def graphs(self):
        return self.options.get("enable_cuda_graph") == "1"


@pytest.fixture
def opened(monkeypatch):
    """Lets the CPU stand in for GPUs; gives what is opened there."""
    opened = []

    def inference_session(model, threads, *providers):
        opened.append(Opened(model, dict(providers)))
        return runtimes.inference_session(model, threads, ("CPUExecutionProvider", {}))

    monkeypatch.setattr(cuda_device, "inference_session", inference_session)
    monkeypatch.setattr(cuda_device, "open_driver", lambda: None)
    monkeypatch.setattr(cuda_device, "CudaDriver", lambda *_: FakeGpuMemory())
    monkeypatch.setattr(cuda_device, "CudaSession", partial(CudaSession, device_type="cpu"))
    monkeypatch.setattr(cuda_device, "_COMMON_SIDES", (8,))
    return opened
