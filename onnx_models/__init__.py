"""The catalogue: every model as data, and the builders that turn trained weights into ONNX files.

1. `load_catalogue()` tells which models there are, what each can do and what it costs.
2. `ensure_built(model, weights, directory)` gives the ONNX file of a model, built on first use.

Every file takes and gives uint8 NHWC images. Nothing here runs a model.
"""

from onnx_models.build import ensure_built
from onnx_models.catalogue import (
    Catalogue,
    Model,
    WeightFile,
    Weights,
    load_catalogue,
    parse_catalogue,
)
from onnx_models.errors import (
    CatalogueError,
    DuplicateModelError,
    FactorTooLargeError,
    MissingWeightsError,
    ModelBuildError,
    NcnnFormatError,
    UnknownModelError,
    UnsupportedLayerError,
    WeightsChecksumError,
)
from onnx_models.graph import INPUT, OUTPUT

__all__ = [
    "INPUT",
    "OUTPUT",
    "Catalogue",
    "CatalogueError",
    "DuplicateModelError",
    "FactorTooLargeError",
    "MissingWeightsError",
    "Model",
    "ModelBuildError",
    "NcnnFormatError",
    "UnknownModelError",
    "UnsupportedLayerError",
    "WeightFile",
    "Weights",
    "WeightsChecksumError",
    "ensure_built",
    "load_catalogue",
    "parse_catalogue",
]
