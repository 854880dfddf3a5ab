"""The catalogue: every model as data, and the builders that turn trained weights into ONNX files.

1. `load_catalogue()` tells which models there are, what each can do and what it costs.
2. `ensure_built(model, weights, directory)` gives the ONNX file of a model, built on first use.

Every file takes and gives uint8 NHWC images. Nothing here runs a model.
"""

from onnx_models.build import State, built_state, ensure_built
from onnx_models.catalogue import Catalogue, load_catalogue, parse_catalogue
from onnx_models.errors import (
    BrokenEntryError,
    CatalogueError,
    DownloadError,
    DuplicateModelError,
    FactorTooLargeError,
    MissingConverterError,
    MissingWeightsError,
    ModelBuildError,
    NcnnFormatError,
    NotInstalledError,
    UnknownModelError,
    UnsuitableModelError,
    UnsupportedLayerError,
    WeightsChecksumError,
)
from onnx_models.graph import INPUT, OUTPUT
from onnx_models.model import Download, Model, NcnnWeights, OnnxWeights, WeightFile, Weights

__all__ = [
    "INPUT",
    "OUTPUT",
    "BrokenEntryError",
    "Catalogue",
    "CatalogueError",
    "Download",
    "DownloadError",
    "DuplicateModelError",
    "FactorTooLargeError",
    "MissingConverterError",
    "MissingWeightsError",
    "Model",
    "ModelBuildError",
    "NcnnFormatError",
    "NcnnWeights",
    "NotInstalledError",
    "OnnxWeights",
    "State",
    "UnknownModelError",
    "UnsuitableModelError",
    "UnsupportedLayerError",
    "WeightFile",
    "Weights",
    "WeightsChecksumError",
    "built_state",
    "ensure_built",
    "load_catalogue",
    "parse_catalogue",
]
