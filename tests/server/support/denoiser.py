"""A server's directory of models, with a denoiser that is quick to run."""

from decimal import Decimal
from pathlib import Path

from onnx_models import Auxiliary, WeightFile
from onnx_models.entries import write_auxiliary
from onnx_models.ffdnet import convert
from tests.onnx_models.support.ffdnet import tensors


def add_denoiser(directory: Path, price: str = "1") -> Auxiliary:
    auxiliary = Auxiliary(
        kind="denoiser",
        name="tiny-denoiser",
        air="local:tiny-denoiser@1",
        title="Tiny denoiser",
        description="A test.",
        file=WeightFile("", "0" * 64),
        price_per_megapixel=Decimal(price),
        licence="MIT",
    )
    return write_auxiliary(directory, auxiliary, convert(tensors()).SerializeToString())
