"""What the kinds of pipelines that are exported have in common."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from onnx_models.diffusers.schedule import Prediction, Schedule
from onnx_models.model import CreativeWeights, LatentWeights

if TYPE_CHECKING:
    import torch

__all__ = ["Arrays", "Components", "Examples", "Kind", "Part", "decoder_part", "encoder_part"]

Arrays = Sequence[NDArray[Any]]

SIZES = ((2, 3, 4), (1, 5, 3))
"""Batches, heights and widths of examples of what takes any size."""


class Components(Struct, frozen=True):
    """What was read of a pipeline."""

    directory: Path
    schedule: Schedule
    text_encoder: Any
    tokenizer: Any
    unet: Any
    vae: Any
    text_encoder_2: Any = None
    tokenizer_2: Any = None
    controlnet: Any = None
    image_encoder: Any = None
    """Of an IP-Adapter: the module that makes its tokens of pixels; see `ip_adapter`."""

    @property
    def cell(self) -> int:
        """The side, in pixels, of what the VAE makes one element of."""
        cell: int = 2 ** (len(self.vae.config.block_out_channels) - 1)
        return cell

    @property
    def multiple(self) -> int:
        """What the sides of the UNet's input are multiples of."""
        multiple: int = 2 ** (len(self.unet.config.block_out_channels) - 1)
        return multiple


class Part(Struct, frozen=True):
    """A component to be exported."""

    name: str
    module: Any
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    axes: dict[str, dict[int, str]]
    """By input, those that are dynamic."""
    examples: tuple[Arrays, ...]
    """Inputs of two sizes: the first to export with, all to compare with."""


class Kind(Struct, frozen=True):
    """A kind of pipeline."""

    pipelines: tuple[str, ...]
    """The classes of diffusers that run it; the catalogue names the first."""
    weights: type[LatentWeights] | type[CreativeWeights]
    """What it becomes."""
    components: tuple[str, ...]
    schedulers: tuple[str, ...]
    """The classes of schedulers that diffusers' pipeline runs rightly and the engine has."""
    predictions: tuple[Prediction, ...]
    """What its UNet may predict."""
    architecture: Callable[[Components], dict[str, tuple[Any, Any]]]
    """What is found of it, and what must be."""
    parts: Callable[[Components, bool], Iterator[Part]]
    """With inputs and outputs as the weights have them; whether they compute in half precision."""
    layout: Callable[[Components], dict[str, Any]]
    """The fields of the weights that depend on the kind."""
    window: Callable[[Path], int]
    """The side of the windows of the pipeline in a folder, in pixels."""
    other_schedulers: tuple[str, ...] = ()
    """Those of which only the noise of the training is taken."""


class Examples:
    """Inputs to try a pipeline's components with."""

    def __init__(self, found: Components) -> None:
        """Prepare inputs of the sizes that a pipeline takes.

        Args:
            found: The pipeline.
        """
        self._found = found
        self._random = np.random.default_rng(0)
        self.tokens: int = found.text_encoder.config.max_position_embeddings
        self.words: int = found.text_encoder.config.hidden_size
        self.side: int = 2 * found.multiple
        """The smallest that the UNet takes."""

    def normal(self, *shape: int) -> NDArray[np.float32]:
        """Draw standard normal numbers."""
        return self._random.standard_normal(shape, np.float32)

    def ids(self, count: int) -> NDArray[np.int64]:
        """Draw tokens, (count, tokens) int64; each row ends with the end token."""
        config = self._found.text_encoder.config
        ids = self._random.integers(0, config.vocab_size - 2, (count, self.tokens))
        ids[:, -1] = config.eos_token_id
        return ids

    def image(self, count: int, height: int, width: int) -> NDArray[np.uint8]:
        """Draw images, (count, height, width, 3) uint8."""
        return self._random.integers(0, 256, (count, height, width, 3), np.uint8)

    def images(self, cell: int) -> tuple[Arrays, ...]:
        """Draw images of two sizes, (N, H, W, 3) uint8, whose sides are multiples of `cell`."""
        return tuple((self.image(count, cell * height, cell * width),) for count, height, width in SIZES)

    def latents(self) -> tuple[Arrays, ...]:
        """Draw latents of two sizes, (N, C, h, w) float32."""
        channels = self._found.vae.config.latent_channels
        return tuple((self.normal(count, channels, height, width),) for count, height, width in SIZES)


def _through(layer: Any, values: Any) -> Any:
    """What a layer makes of values, if the model has it: VAEs may have no `quant_conv`."""
    return values if layer is None else layer(values)


def encoder_part(found: Components, kind: "torch.dtype", examples: Examples) -> Part:
    """The VAE's encoder, which gives mean and deviation of an image's latents."""
    import torch  # noqa: PLC0415

    vae = found.vae
    shift = vae.config.get("shift_factor") or 0.0

    class VaeEncoder(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = vae

        def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            planes = image.to(kind).permute(0, 3, 1, 2) * (2 / 255) - 1
            moments = _through(self.model.quant_conv, self.model.encoder(planes)).float()
            mean, logarithm = moments.chunk(2, dim=1)
            mean = mean - shift if shift else mean
            return mean, torch.exp(0.5 * logarithm.clamp(-30, 20))

    area = {0: "batch", 1: "height", 2: "width"}
    module = VaeEncoder().eval().to(kind)
    pixels = examples.images(found.cell)
    return Part("vae_encoder", module, ("image",), ("mean", "deviation"), {"image": area}, pixels)


def decoder_part(found: Components, kind: "torch.dtype", examples: Examples) -> Part:
    """The VAE's decoder, which gives an image in [0, 1]."""
    import torch  # noqa: PLC0415

    vae = found.vae
    shift = vae.config.get("shift_factor") or 0.0

    class VaeDecoder(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = vae

        def forward(self, latents: torch.Tensor) -> torch.Tensor:
            latents = latents + shift if shift else latents
            latents = _through(self.model.post_quant_conv, latents.to(kind))
            return (self.model.decoder(latents).float() / 2 + 0.5).permute(0, 2, 3, 1)

    area = {0: "batch", 2: "height", 3: "width"}
    module = VaeDecoder().eval().to(kind)
    return Part("vae_decoder", module, ("latents",), ("image",), {"latents": area}, examples.latents())
