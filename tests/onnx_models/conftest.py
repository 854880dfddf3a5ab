"""Weights as installed, their networks run by ncnn and by ONNX Runtime, and small pictures."""

import threading
from collections.abc import Callable, Iterator
from functools import cache
from importlib import metadata
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from skimage import data

from onnx_models import Catalogue, Model, WeightFile, Weights, load_catalogue, ncnn
from tests.onnx_models.support.ncnn_networks import run_ncnn
from tests.onnx_models.support.publisher import Publisher

Float32 = npt.NDArray[np.float32]
Network = Callable[[Float32], Float32]


@pytest.fixture(scope="session")
def catalogue() -> Catalogue:
    return load_catalogue()


@pytest.fixture(scope="session")
def small_model(catalogue: Catalogue) -> tuple[Model, Weights]:
    """The quickest to build."""
    model = catalogue.get("realesr-animevideov3")
    return model, model.weights_for(2)


@pytest.fixture(scope="session")
def locate() -> Callable[[Weights, WeightFile], Path]:
    """Where a weight file is installed."""
    return lambda weights, file: Path(str(metadata.distribution(weights.distribution).locate_file(file.path)))


@pytest.fixture(scope="session")
def open_session() -> Callable[[onnx.ModelProto | Path], onnxruntime.InferenceSession]:
    def open_session(network: onnx.ModelProto | Path) -> onnxruntime.InferenceSession:
        source = str(network) if isinstance(network, Path) else network.SerializeToString()
        return onnxruntime.InferenceSession(source, providers=["CPUExecutionProvider"])

    return open_session


@pytest.fixture(scope="session")
def core_network(
    locate: Callable[[Weights, WeightFile], Path],
    open_session: Callable[[onnx.ModelProto | Path], onnxruntime.InferenceSession],
) -> Callable[[Weights], Network]:
    """The converted weights, (N, 3, H, W) to (N, 3, scale x H, scale x W), as ONNX Runtime runs them."""

    @cache
    def convert(weights: Weights) -> Network:
        core = ncnn.convert(
            locate(weights, weights.param).read_bytes(), locate(weights, weights.bin).read_bytes()
        )
        session = open_session(core)
        return lambda batch: session.run(None, {session.get_inputs()[0].name: batch})[0]

    return convert


@pytest.fixture(scope="session")
def reference_network(locate: Callable[[Weights, WeightFile], Path]) -> Callable[[Weights], Network]:
    """The weights as ncnn itself runs them, in fp32, (3, H, W) to (3, scale x H, scale x W)."""

    @cache
    def load(weights: Weights) -> Network:
        return run_ncnn(locate(weights, weights.param), locate(weights, weights.bin))

    return load


@pytest.fixture(scope="session")
def photograph() -> Callable[[int, int], npt.NDArray[np.uint8]]:
    """A detailed piece of a photograph, (height, width, 3) uint8."""
    return lambda height, width: np.ascontiguousarray(data.astronaut()[100 : 100 + height, 200 : 200 + width])


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    publisher = Publisher()
    thread = threading.Thread(target=publisher.server.serve_forever)
    thread.start()
    yield publisher
    publisher.server.shutdown()
    thread.join()
    publisher.server.server_close()
