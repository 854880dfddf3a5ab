"""A server's directory of models, with a denoiser that is quick to run."""

from pathlib import Path

from onnx_models import Auxiliary
from onnx_models.ffdnet import convert
from tests.onnx_models.support.ffdnet import tensors
from tests.server.support.auxiliaries import add_auxiliary


def add_denoiser(directory: Path, price: str = "1") -> Auxiliary:
    return add_auxiliary(directory, "denoiser", "tiny-denoiser", convert(tensors()), price)
