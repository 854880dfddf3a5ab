"""What can go wrong between the catalogue and an ONNX file.

CatalogueError                    a question that the catalogue cannot answer, or a catalogue that is wrong
├── DuplicateModelError           two models claim one name or AIR identifier
├── UnknownModelError             no model has that name or AIR identifier; also a LookupError
└── FactorTooLargeError           the model has no weights for so large a factor; also a ValueError

ModelBuildError                   an ONNX file cannot be built
├── MissingWeightsError           the distribution with the trained weights is not installed
├── WeightsChecksumError          a weight file is not the one that the catalogue vouches for
└── NcnnFormatError               an ncnn network cannot be read
    └── UnsupportedLayerError     it uses a layer or a parameter that has no ONNX form here
"""

__all__ = [
    "CatalogueError",
    "DuplicateModelError",
    "FactorTooLargeError",
    "MissingWeightsError",
    "ModelBuildError",
    "NcnnFormatError",
    "UnknownModelError",
    "UnsupportedLayerError",
    "WeightsChecksumError",
]


class CatalogueError(Exception):
    """Base of what look-ups raise; the message is fit to be shown to a user."""


class DuplicateModelError(CatalogueError):
    """Two models claim one name or AIR identifier."""


class UnknownModelError(CatalogueError, LookupError):
    """No model has that name or AIR identifier; the message lists the names there are."""


class FactorTooLargeError(CatalogueError, ValueError):
    """The model has no weights for so large a factor; the message gives its largest native scale."""


class ModelBuildError(Exception):
    """Base of what building an ONNX file raises; the message is fit to be shown to a user."""


class MissingWeightsError(ModelBuildError):
    """The distribution with the trained weights is not installed; the message says what to install."""


class WeightsChecksumError(ModelBuildError):
    """A weight file is not the one that the catalogue vouches for."""


class NcnnFormatError(ModelBuildError):
    """The `.param` or `.bin` file is malformed, truncated, or they do not belong together."""


class UnsupportedLayerError(NcnnFormatError):
    """A layer, or one of its parameters, has no ONNX form here; the message names the layer."""
