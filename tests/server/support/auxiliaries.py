"""Networks that work beside upscalers, in a server's directory of models."""

from decimal import Decimal
from pathlib import Path

from onnx import ModelProto

from onnx_models import Auxiliary, WeightFile
from onnx_models.auxiliary import AuxiliaryKind
from onnx_models.entries import write_auxiliary

__all__ = ["add_auxiliary"]


def add_auxiliary(
    directory: Path, kind: AuxiliaryKind, name: str, network: ModelProto, price: str = "0"
) -> Auxiliary:
    """Add one, at so many dollars a megapixel."""
    auxiliary = Auxiliary(
        kind=kind,
        name=name,
        air=f"local:{name}@1",
        title=name.capitalize().replace("-", " "),
        description="A test.",
        file=WeightFile("", "0" * 64),
        price_per_megapixel=Decimal(price),
        licence="MIT",
    )
    return write_auxiliary(directory, auxiliary, network.SerializeToString())
