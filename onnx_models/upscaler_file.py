"""The ONNX file of an upscaler, made of weights in ncnn's format."""

import onnx
from onnx import helper

from onnx_models import ncnn
from onnx_models.folding import fold_factors
from onnx_models.graph import wrap_uint8
from onnx_models.model import Model

__all__ = ["upscaler_file"]


def upscaler_file(model: Model, scale: int, param: bytes, numbers: bytes, version: int) -> bytes:
    """Convert weights; the same give the same bytes.

    Args:
        model: An entry of the catalogue.
        scale: Of the network.
        param: The content of the `.param` file.
        numbers: The content of the `.bin` file.
        version: The builder's.

    Raises:
        NcnnFormatError: The weights cannot be converted.
    """
    core = ncnn.convert(param, numbers)
    fold_factors(core)
    network = wrap_uint8(core, scale)
    _describe(network, model, scale, version)
    content: bytes = network.SerializeToString(deterministic=True)
    return content


def _describe(network: onnx.ModelProto, model: Model, scale: int, version: int) -> None:
    """Put into the file what its reader should know of it, above all whose work the weights are."""
    network.producer_name = "tilewire"
    network.producer_version = str(version)
    network.doc_string = f"{model.title}, scale {scale}"
    properties = {
        "air": model.air,
        "licence": model.licence,
        "licence_url": model.licence_url or "",
        "name": model.name,
        "scale": str(scale),
        "source_url": model.source_url or "",
    }
    helper.set_model_props(network, properties)
