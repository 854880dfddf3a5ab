"""What can go wrong between the catalogue and an ONNX file.

CatalogueError                    a question that the catalogue cannot answer, or a catalogue that is wrong
├── DuplicateModelError           two models claim one name or AIR identifier
│   └── InstalledError            what was asked for is installed already
├── BrokenEntryError              the entry of an added model cannot be used
├── UnknownModelError             no model has that name or AIR identifier; also a LookupError
│   └── NotInstalledError         there is such a model, but its weights have to be fetched first
├── NoSuchLevelError              the model has no weights for such a level of noise; also a ValueError
└── FactorTooLargeError           the model has no weights for so large a factor; also a ValueError

ModelBuildError                   an ONNX file cannot be built
├── MissingWeightsError           the distribution with the trained weights is not installed
├── WeightsChecksumError          a weight file is not the one that the catalogue vouches for
├── NcnnFormatError               an ncnn network cannot be read
│   └── UnsupportedLayerError     it uses a layer or a parameter that has no ONNX form here
├── DownloadError                 a file of weights cannot be fetched
├── LicenceError                  a licence has to be accepted first
├── MissingConverterError         what reads this kind of file is not installed
└── UnsuitableModelError          the file is no network that upscales RGB images
"""

__all__ = [
    "BrokenEntryError",
    "CatalogueError",
    "DownloadError",
    "DuplicateModelError",
    "FactorTooLargeError",
    "InstalledError",
    "LicenceError",
    "MissingConverterError",
    "MissingWeightsError",
    "ModelBuildError",
    "NcnnFormatError",
    "NoSuchLevelError",
    "NotInstalledError",
    "UnknownModelError",
    "UnsuitableModelError",
    "UnsupportedLayerError",
    "WeightsChecksumError",
    "one_line",
]


class CatalogueError(Exception):
    """Base of what look-ups raise; the message is fit to be shown to a user."""


class DuplicateModelError(CatalogueError):
    """Two models claim one name or AIR identifier."""


class InstalledError(DuplicateModelError):
    """What was asked for is installed already."""


class BrokenEntryError(CatalogueError):
    """The entry of an added model cannot be read, or its weights are not there; the message says which."""


class UnknownModelError(CatalogueError, LookupError):
    """No model has that name or AIR identifier; the message lists the names there are."""


class NotInstalledError(UnknownModelError):
    """There is such a model, but its weights have to be fetched first; the message says how."""


class NoSuchLevelError(CatalogueError, ValueError):
    """The model has no weights for such a level of noise."""


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


class DownloadError(ModelBuildError):
    """A file of weights cannot be fetched, or is not the one that the catalogue vouches for."""


class LicenceError(ModelBuildError):
    """The weights are for non-commercial use only, and nobody has accepted that; the message says how."""


class MissingConverterError(ModelBuildError):
    """What reads this kind of file is not installed; the message says what to install."""


class UnsuitableModelError(ModelBuildError):
    """The file is broken, or no network that upscales RGB images; the message says what is wrong."""


def one_line(error: BaseException, longest: int | None = None) -> str:
    """What an error says, in one line: its message may have pages, or be empty.

    Args:
        error: The error; if it says nothing, its type is named; of the system's, file and reason.
        longest: Where to cut, in characters.
    """
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"[:longest]
    return " ".join(str(error).split())[:longest] or type(error).__name__
