"""The catalogue: every model as data, and the builders that turn trained weights into ONNX files.

1. `load_catalogue()` lists the models: what each can do and what it costs.
2. `ensure_built(model, weights, directory)` returns the ONNX file of a model, built on first use;
   `ensure_network` also its parts, where its end can run in blocks.
3. `add_model(file, ...)` adds a model of the user's own, `pull_model(...)` fetches one that its authors
   publish, `export_model(...)` makes one of a diffusers pipeline.

Every file takes and returns uint8 NHWC images. Nothing here runs a model.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from onnx_models.auxiliary import KINDS, Auxiliary, AuxiliaryKind, verified_file
from onnx_models.build import State, built_state, ensure_built, ncnn_files, repair
from onnx_models.catalogue import Catalogue, load_catalogue, parse_catalogue
from onnx_models.cells import CELL, pack
from onnx_models.entries import entry_files, read_entry, remove_entry
from onnx_models.errors import (
    BrokenEntryError,
    CatalogueError,
    DownloadError,
    DuplicateModelError,
    FactorTooLargeError,
    InstalledError,
    LicenceError,
    MissingConverterError,
    MissingWeightsError,
    ModelBuildError,
    NcnnFormatError,
    NoSuchLevelError,
    NotInstalledError,
    UnknownModelError,
    UnsuitableModelError,
    UnsupportedLayerError,
    WeightsChecksumError,
    one_line,
)
from onnx_models.files import sha256_of, write_atomically
from onnx_models.model import (
    LARGEST_FACTOR,
    CreativeWeights,
    DiffusionWeights,
    LatentWeights,
    Model,
    NcnnWeights,
    OnnxWeights,
    WeightFile,
    Weights,
)
from onnx_models.ncnn_file import ncnn_blob
from onnx_models.network import BuiltNetwork, Split, ensure_network
from onnx_models.probe import OpenNetwork, OpenPart, Run, RunPart
from onnx_models.published import (
    Archive,
    Download,
    Export,
    Published,
    PublishedFile,
    PublishedNetwork,
    Source,
)

if TYPE_CHECKING:
    from onnx_models.activations import largest_activation
    from onnx_models.add import add_model
    from onnx_models.convert import Converted
    from onnx_models.diffusers.additions import Wanted
    from onnx_models.export import export_model
    from onnx_models.face_restorer import Restorer
    from onnx_models.facts import Facts
    from onnx_models.graph import (
        FROM_UNIT,
        INPUT,
        OUTPUT,
        TO_FLOAT,
        TO_NCHW,
        TO_NHWC,
        TO_UINT8,
        TO_UNIT,
        wrap_uint8,
    )
    from onnx_models.pull import pull_model
    from onnx_models.sources import size_of
else:

    def __getattr__(name: str) -> object:
        """The rest is loaded on first use: what is built needs neither onnx nor the converters."""
        if name not in _LATER:
            raise AttributeError(f"module 'onnx_models' has no attribute {name!r}")
        return getattr(import_module(_LATER[name]), name)

    _LATER = {
        "Converted": "onnx_models.convert",
        "FROM_UNIT": "onnx_models.graph",
        "Facts": "onnx_models.facts",
        "INPUT": "onnx_models.graph",
        "OUTPUT": "onnx_models.graph",
        "Restorer": "onnx_models.face_restorer",
        "TO_FLOAT": "onnx_models.graph",
        "TO_NCHW": "onnx_models.graph",
        "TO_NHWC": "onnx_models.graph",
        "TO_UINT8": "onnx_models.graph",
        "TO_UNIT": "onnx_models.graph",
        "Wanted": "onnx_models.diffusers.additions",
        "add_model": "onnx_models.add",
        "export_model": "onnx_models.export",
        "largest_activation": "onnx_models.activations",
        "pull_model": "onnx_models.pull",
        "size_of": "onnx_models.sources",
        "wrap_uint8": "onnx_models.graph",
    }

__all__ = [
    "CELL",
    "FROM_UNIT",
    "INPUT",
    "KINDS",
    "LARGEST_FACTOR",
    "OUTPUT",
    "TO_FLOAT",
    "TO_NCHW",
    "TO_NHWC",
    "TO_UINT8",
    "TO_UNIT",
    "Archive",
    "Auxiliary",
    "AuxiliaryKind",
    "BrokenEntryError",
    "BuiltNetwork",
    "Catalogue",
    "CatalogueError",
    "Converted",
    "CreativeWeights",
    "DiffusionWeights",
    "Download",
    "DownloadError",
    "DuplicateModelError",
    "Export",
    "FactorTooLargeError",
    "Facts",
    "InstalledError",
    "LatentWeights",
    "LicenceError",
    "MissingConverterError",
    "MissingWeightsError",
    "Model",
    "ModelBuildError",
    "NcnnFormatError",
    "NcnnWeights",
    "NoSuchLevelError",
    "NotInstalledError",
    "OnnxWeights",
    "OpenNetwork",
    "OpenPart",
    "Published",
    "PublishedFile",
    "PublishedNetwork",
    "Restorer",
    "Run",
    "RunPart",
    "Source",
    "Split",
    "State",
    "UnknownModelError",
    "UnsuitableModelError",
    "UnsupportedLayerError",
    "Wanted",
    "WeightFile",
    "Weights",
    "WeightsChecksumError",
    "add_model",
    "built_state",
    "ensure_built",
    "ensure_network",
    "entry_files",
    "export_model",
    "largest_activation",
    "load_catalogue",
    "ncnn_blob",
    "ncnn_files",
    "one_line",
    "pack",
    "parse_catalogue",
    "pull_model",
    "read_entry",
    "remove_entry",
    "repair",
    "sha256_of",
    "size_of",
    "verified_file",
    "wrap_uint8",
    "write_atomically",
]
