"""What the kinds of latent upscalers that are exported have in common."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from onnx_models.diffusers.schedule import Prediction, Schedule

if TYPE_CHECKING:
    import torch

__all__ = ["Arrays", "Components", "Examples", "Kind", "Part", "decoder_part", "through"]

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

    pipeline: str
    """The class of diffusers that runs it."""
    scale: Literal[2, 4]
    components: tuple[str, ...]
    schedulers: tuple[str, ...]
    """The classes of schedulers that diffusers' pipeline runs rightly and the engine has."""
    predictions: tuple[Prediction, ...]
    """What its UNet may predict."""
    architecture: Callable[[Components], dict[str, tuple[Any, Any]]]
    """What is found of it, and what must be."""
    parts: Callable[[Components, bool], Iterator[Part]]
    """With inputs and outputs as `LatentWeights` has them; whether they compute in half precision."""
    layout: Callable[[Components], dict[str, Any]]
    """The fields of `LatentWeights` that depend on the kind."""


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
        self.side: int = 2 * 2 ** (len(found.unet.config.block_out_channels) - 1)
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

    def images(self, cell: int) -> tuple[Arrays, ...]:
        """Draw images of two sizes, (N, H, W, 3) uint8, whose sides are multiples of `cell`."""
        return tuple(
            (self._random.integers(0, 256, (count, cell * height, cell * width, 3), np.uint8),)
            for count, height, width in SIZES
        )

    def latents(self) -> tuple[Arrays, ...]:
        """Draw latents of two sizes, (N, C, h, w) float32."""
        channels = self._found.vae.config.latent_channels
        return tuple((self.normal(count, channels, height, width),) for count, height, width in SIZES)


def through(layer: Any, values: Any) -> Any:
    """What a layer makes of values, if the model has it: VAEs may have no `quant_conv`."""
    return values if layer is None else layer(values)


def decoder_part(vae: Any, kind: "torch.dtype", examples: Examples) -> Part:
    """The VAE's decoder, which gives an image in [0, 1]."""
    import torch  # noqa: PLC0415

    class VaeDecoder(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = vae

        def forward(self, latents: torch.Tensor) -> torch.Tensor:
            planes = self.model.decoder(through(self.model.post_quant_conv, latents.to(kind)))
            return (planes.float() / 2 + 0.5).permute(0, 2, 3, 1)

    area = {0: "batch", 2: "height", 3: "width"}
    module = VaeDecoder().eval().to(kind)
    return Part("vae_decoder", module, ("latents",), ("image",), {"latents": area}, examples.latents())
