"""The three networks of a small latent upscaler, and how noise goes into them and out (PyTorch).

A latent holds 4 x 4 pixels. Encoder and decoder are a linear map, set to the principal components of such
cells, and a small network that corrects it; so a distance between latents is close to one between pictures.

The denoiser does not learn what a linear filter knows: a convolution fitted by least squares makes latents of
the small picture into those of the large one, and the network learns the rest, the residual, as a diffusion
(the idea of ResShift, Yue et al. 2023) with the preconditioning of Karras et al. (2022). Latents are scaled
so that this residual has deviation 1. What goes in and out is what `engines.latent.denoising` has for Stable
Diffusion's upscaler, which has data of deviation 1 and no residual; the last lines of `Denoiser.forward`
turn one into the other.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["CELL", "CHANNELS", "Decoder", "Denoiser", "Encoder"]

CELL = 4
CHANNELS = 32
_PIXELS = 3 * CELL * CELL


class Block(nn.Module):
    """Two convolutions beside what goes in; the noise's level shifts and scales what is between them."""

    def __init__(self, width: int, features: int = 0) -> None:
        """Build a block.

        Args:
            width: Channels.
            features: How many numbers describe the noise's level; 0 for a block without one.
        """
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        self.activation = nn.LeakyReLU(0.1) if features else nn.SiLU()
        self.level = nn.Linear(features, 2 * width) if features else None
        nn.init.kaiming_normal_(self.first.weight, nonlinearity="relu")
        if self.level is not None:
            nn.init.zeros_(self.level.weight)
            nn.init.zeros_(self.level.bias)

    def forward(self, planes: Tensor, features: Tensor | None = None) -> Tensor:
        """(N, width, h, w) -> the same; features are (N, features)."""
        hidden = self.first(planes)
        if self.level is not None and features is not None:
            scale, shift = self.level(features)[:, :, None, None].chunk(2, 1)
            hidden = hidden * (1 + scale) + shift
        found: Tensor = planes + self.second(self.activation(hidden))
        return found


def _blocks(inputs: int, width: int, count: int, outputs: int) -> nn.Sequential:
    """A network that gives 0 before it is trained."""
    last = nn.Conv2d(width, outputs, 3, padding=1)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(
        nn.Conv2d(inputs, width, 3, padding=1), *(Block(width) for _ in range(count)), nn.SiLU(), last
    )


class Encoder(nn.Module):
    """Pictures (N, 3, H, W) in [0, 1] -> latents (N, C, H / 4, W / 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Conv2d(_PIXELS, CHANNELS, 1)
        self.network = _blocks(_PIXELS, 64, 2, CHANNELS)

    def forward(self, planes: Tensor) -> Tensor:
        """Encode."""
        cells = functional.pixel_unshuffle(planes - 0.5, CELL)
        return self.linear(cells) + self.network(cells)


class Decoder(nn.Module):
    """Latents (N, C, h, w) -> pictures (N, 3, 4 h, 4 w) in [0, 1], not clipped."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Conv2d(CHANNELS, _PIXELS, 1)
        self.network = _blocks(CHANNELS, 64, 4, _PIXELS)

    def forward(self, latents: Tensor) -> Tensor:
        """Decode."""
        return functional.pixel_shuffle(self.linear(latents) + self.network(latents), CELL) + 0.5


class Denoiser(nn.Module):
    """What the runtime calls the UNet: see `forward`."""

    def __init__(self, *, width: int = 40, count: int = 6) -> None:
        """Build the network.

        Args:
            width: Channels.
            count: Blocks.
        """
        super().__init__()
        self.register_buffer("scaling", torch.ones(()))
        self.base = nn.Conv2d(CHANNELS, 4 * CHANNELS, 3, padding=1, padding_mode="replicate")
        self.decode = nn.Conv2d(CHANNELS, _PIXELS, 1, bias=False)
        self.encode = nn.Conv2d(_PIXELS, CHANNELS, 1, bias=False)
        self.first = nn.Conv2d(3 + 3 + 12, width, 3, padding=1)
        self.level = nn.Sequential(nn.Linear(_FEATURES, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU())
        self.blocks = nn.ModuleList(Block(width, 64) for _ in range(count))
        self.last = nn.Conv2d(width, 12, 3, padding=1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def enlarged(self, small: Tensor) -> Tensor:
        """What a linear filter makes of the small picture's latents: (N, C, h, w) -> (N, C, 2 h, 2 w)."""
        return functional.pixel_shuffle(self.base(small), 2)

    def residual(self, hint: Tensor, small: Tensor, time: Tensor) -> Tensor:
        """The network itself: F of Karras et al., of the residual.

        It works on the grid of the small picture's pixels, where a filter means the same everywhere.
        """
        pixels = functional.pixel_shuffle(self.decode(small / self.scaling), CELL)
        details = pixels - functional.avg_pool2d(pixels, 5, 1, 2, count_include_pad=False)
        hints = functional.pixel_unshuffle(functional.pixel_shuffle(self.decode(hint), CELL), 2)
        planes = self.first(torch.cat((2 * pixels, 16 * details, hints), 1))
        features = self.level(_features(time))
        for block in self.blocks:
            planes = block(planes, features)
        found = functional.pixel_shuffle(self.last(functional.leaky_relu(planes, 0.1)), 2)
        latents: Tensor = self.encode(functional.pixel_unshuffle(found, CELL))
        return latents

    def forward(self, noisy: Tensor, time: Tensor) -> Tensor:
        """F, where denoised latents are noisy / (s² + 1) + F s / √(s² + 1), the noise's s = exp(4 time).

        Args:
            noisy: (N, 2 C, h, w): scaled latents with noise, divided by √(s² + 1), and the small picture's
                scaled latents, each four times.
            time: (N,).
        """
        given, repeated = noisy.chunk(2, 1)
        small = repeated[:, :, ::2, ::2]
        deviation = torch.exp(4 * time)[:, None, None, None]
        norm = torch.sqrt(deviation**2 + 1)
        enlarged = self.enlarged(small)
        # The best linear guess at the residual: of much noise nothing is left, in which there is nothing.
        hint = (given - enlarged / norm) / norm
        return self.residual(hint, small, time) + enlarged * (deviation / norm)


_FEATURES = 16


def _features(time: Tensor) -> Tensor:
    """The noise's level as numbers in [-1, 1]: (N,) -> (N, 16)."""
    angles = time[:, None] * torch.arange(1, _FEATURES // 2 + 1, device=time.device)
    return torch.cat((torch.sin(angles), torch.cos(angles)), 1)
