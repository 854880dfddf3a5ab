"""Models that work beside an upscaler: what is known of them, and which kinds there are.

What each kind of network takes and gives is documented where it is made: `ffdnet`, `centerface`,
`face_restorer`, `open_nsfw`. The first axis of every input and output is the batch.
"""

from decimal import Decimal
from pathlib import Path
from typing import Final, Literal

from msgspec import Struct

from onnx_models.errors import MissingWeightsError, ModelBuildError, WeightsChecksumError
from onnx_models.files import sha256_of
from onnx_models.model import Air, Name, Url, WeightFile, check_price

__all__ = ["KINDS", "Auxiliary", "AuxiliaryKind", "verified_file"]

AuxiliaryKind = Literal["denoiser", "faceDetector", "faceRestorer", "safetyChecker"]

KINDS: Final[dict[AuxiliaryKind, str]] = {
    "denoiser": "removes noise before upscaling: denoise.model",
    "faceDetector": "finds faces, to have them restored",
    "faceRestorer": "restores faces: faceRestoration.model",
    "safetyChecker": "recognizes what is not safe for work: checkNSFW, safety",
}
"""What each is for, and the parameter of a task that names it."""


class Auxiliary(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A network that works beside an upscaler: its names, what it costs, whose work it is."""

    kind: AuxiliaryKind
    name: Name
    air: Air
    title: str
    description: str
    file: WeightFile
    """The ONNX file; relative to the entry's own file, absolute once the entry is loaded."""
    price_per_megapixel: Decimal
    """USD per million pixels: of a denoiser those of the input, of a face restorer those of the result."""
    licence: str
    """The SPDX identifier of the weights' licence, or what else is known of it."""
    licence_url: Url | None = None
    source_url: Url | None = None
    parameters: tuple[Literal["weight"], ...] = ()
    """What a task may say beside its name: `weight`, how near a restored face stays to what is seen."""
    batches: bool = True
    """Whether it gives the same for several at once as for each alone."""

    def __post_init__(self) -> None:
        """Check what the types cannot express."""
        check_price(self.price_per_megapixel)


def verified_file(auxiliary: Auxiliary) -> Path:
    """The ONNX file, if nothing has changed it since it was added. Blocks: it is read as a whole.

    Raises:
        MissingWeightsError: It is not there.
        WeightsChecksumError: It has changed.
        ModelBuildError: It cannot be read.
    """
    path = Path(auxiliary.file.path)
    repair = f"remove {auxiliary.name} and add it again"
    try:
        found = sha256_of(path)
    except FileNotFoundError as error:
        raise MissingWeightsError(f"{path} is missing; {repair}") from error
    except OSError as error:
        raise ModelBuildError(f"{path} cannot be read: {error}") from error
    if found != auxiliary.file.sha256:
        raise WeightsChecksumError(f"{path} is damaged; {repair}")
    return path
