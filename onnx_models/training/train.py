"""The training, in stages that stop and go on: see README.md here.

A stage keeps what it has every few minutes, and a run goes on from there. Its length is counted in steps, so
that it does not matter how fast the machine is or how often it was interrupted.
"""

import copy
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from onnx_models.training.networks import CELL, CHANNELS, Decoder, Denoiser, Encoder

__all__ = ["Networks", "train"]

log = logging.getLogger(__name__)

Loss: TypeAlias = Callable[[np.random.Generator], Tensor]
Batch: TypeAlias = tuple[Tensor, Tensor]

_TOP = 150.0
"""The most noise, in deviations of the residual: of a picture nothing is left."""
_KEEP_EVERY = 120.0  # seconds


class Networks(nn.Module):
    """All that is trained."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder, self.denoiser = Encoder(), Decoder(), Denoiser()
        self.register_buffer("scaling", torch.ones(()))
        """What latents are multiplied with for the denoiser."""


class Packed:
    """Batches of what `data.pack` made."""

    def __init__(self, directory: Path) -> None:
        self._arrays = {
            name: np.load(directory / f"{name}.npy", mmap_mode="r") for name in ("large", "clean", "degraded")
        }

    def batch(self, size: int, random: np.random.Generator) -> Batch:
        """Large and small pictures, in [0, 1]; each small one clean or degraded; turned and mirrored."""
        places = random.integers(len(self._arrays["large"]), size=size)
        kinds = random.choice(("clean", "degraded"), size)
        large = np.stack([self._arrays["large"][place] for place in places])
        small = np.stack([self._arrays[kind][place] for kind, place in zip(kinds, places, strict=True)])
        turns, mirrored = int(random.integers(4)), bool(random.integers(2))
        return _planes(large, turns, mirrored), _planes(small, turns, mirrored)


def _planes(pixels: np.ndarray[Any, Any], turns: int, mirrored: bool) -> Tensor:
    pixels = np.rot90(pixels, turns, (1, 2))
    pixels = pixels[:, :, ::-1] if mirrored else pixels
    planes = torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2).float() / 255
    return planes.contiguous(memory_format=torch.channels_last)


def train(packed: Path, directory: Path, *, lengths: dict[str, int], size: int = 4) -> Networks:
    """Run what is left of all stages.

    Args:
        packed: what `data.pack` made.
        directory: where what is trained is kept.
        lengths: the steps of each stage.
        size: of a batch.
    """
    torch.manual_seed(0)
    data = Packed(packed / "training")
    networks = Networks().to(memory_format=torch.channels_last)
    networks.denoiser.base.requires_grad_(requires_grad=False)
    random = np.random.default_rng(0)

    def stage(name: str, trained: nn.Module, rate: float, loss_of: Loss) -> None:
        _stage(networks, trained, directory / f"{name}.pt", lengths[name], rate, loss_of)

    if not (directory / "autoencoder.pt").exists():
        _fit_cells(networks, data, random)
    coders = nn.ModuleList((networks.encoder, networks.decoder))
    stage("autoencoder", coders, 1e-3, lambda random: _autoencoding(networks, data.batch(size, random)))

    if not (directory / "denoiser.pt").exists():
        _fit_base(networks, data, random)
    denoiser = networks.denoiser
    stage("denoiser", denoiser, 2e-3, lambda random: _denoising(networks, data.batch(size, random)))

    last = nn.ModuleList((networks.denoiser, networks.decoder))
    stage("pictures", last, 3e-4, lambda random: _painting(networks, data.batch(size, random)))
    return networks


def _stage(
    networks: Networks,
    trained: nn.Module,
    file: Path,
    length: int,
    rate: float,
    loss_of: Loss,
) -> None:
    """Train a part of the networks; afterwards all are as at the end of the stage, with averaged weights."""
    parameters = [each for each in trained.parameters() if each.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=rate, betas=(0.9, 0.99), weight_decay=1e-4)
    averaged = copy.deepcopy(trained)
    start = 0
    if file.exists():
        kept = torch.load(file)
        networks.load_state_dict(kept["networks"])
        averaged.load_state_dict(kept["averaged"])
        optimizer.load_state_dict(kept["optimizer"])
        start = kept["step"]

    def keep(step: int) -> None:
        state = {
            "networks": networks.state_dict(),
            "averaged": averaged.state_dict(),
            "optimizer": optimizer.state_dict(),
            "step": step,
        }
        torch.save(state, file.with_suffix(".part"))
        file.with_suffix(".part").replace(file)

    kept_at, mean = time.monotonic(), 0.0
    for step in range(start, length):
        for group in optimizer.param_groups:
            group["lr"] = rate * _rate(step, length)
        torch.manual_seed(step)
        loss = loss_of(np.random.default_rng((1, step)))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        _average(averaged, trained, min(0.999, (step + 1) / (step + 10)))
        mean += (loss.item() - mean) / min(step - start + 1, 100)
        if step % 50 == 49:
            log.info("%s: step %d of %d, loss %.5f", file.stem, step + 1, length, mean)
        if time.monotonic() - kept_at > _KEEP_EVERY:
            keep(step + 1)
            kept_at = time.monotonic()
    if start < length:
        keep(length)
    trained.load_state_dict(averaged.state_dict())


def _rate(step: int, length: int) -> float:
    """Rises for 100 steps, then falls as a cosine to a hundredth."""
    return min(1.0, (step + 1) / 100) * (0.01 + 0.99 * (0.5 + 0.5 * math.cos(math.pi * step / length)))


@torch.no_grad()
def _average(averaged: nn.Module, trained: nn.Module, decay: float) -> None:
    for mean, each in zip(averaged.parameters(), trained.parameters(), strict=True):
        mean.lerp_(each, 1 - decay)


@torch.no_grad()
def _fit_cells(networks: Networks, data: Packed, random: np.random.Generator) -> None:
    """Set the linear part of encoder and decoder to the principal components of cells of pixels."""
    cells = [functional.pixel_unshuffle(planes - 0.5, CELL) for planes in data.batch(400, random)]
    rows = torch.cat([each.permute(0, 2, 3, 1).flatten(0, 2) for each in cells]).double()
    mean = rows.mean(0)
    _, vectors = torch.linalg.eigh(torch.cov((rows - mean).T))
    components = vectors.flip(1)[:, :CHANNELS].float()
    encoder, decoder = networks.encoder.linear, networks.decoder.linear
    encoder.weight.copy_(components.T[:, :, None, None])
    encoder.bias.copy_(-components.T @ mean.float())
    decoder.weight.copy_(components[:, :, None, None])
    decoder.bias.copy_(mean.float())


def _autoencoding(networks: Networks, batch: Batch) -> Tensor:
    """Noise in the latents makes neighbouring ones decode to similar pictures."""
    loss = torch.zeros(())
    for planes in batch:
        latents = networks.encoder(planes)
        noise = torch.randn(latents.shape) * torch.rand(len(latents), 1, 1, 1) * 0.015
        loss = loss + functional.l1_loss(networks.decoder(latents + noise), planes)
    return loss


@torch.no_grad()
def _fit_base(networks: Networks, data: Packed, random: np.random.Generator) -> None:
    """Fit the linear filter by least squares, and scale latents so that what it leaves has deviation 1.

    The second time each cut counts for as little as there was left of it: those with much detail would
    outweigh all others.
    """
    inputs = 9 * CHANNELS + 1
    base = networks.denoiser.base
    batches = [data.batch(100, random) for _ in range(12)]
    encoded = [(networks.encoder(large), networks.encoder(small)) for large, small in batches]
    weights = [torch.ones(len(large)) for large, _ in encoded]
    for _ in range(2):
        gram, cross = torch.zeros(inputs, inputs).double(), torch.zeros(inputs, 4 * CHANNELS).double()
        for (large, small), weight in zip(encoded, weights, strict=True):
            around = functional.unfold(small, 3)  # only cells that have all neighbours
            ones = torch.ones(len(around), 1, around.shape[2])
            rows = torch.cat((around, ones), 1).transpose(1, 2)
            weighted = (rows * weight[:, None, None]).flatten(0, 1).double()
            wanted = functional.pixel_unshuffle(large, 2)[:, :, 1:-1, 1:-1].permute(0, 2, 3, 1)
            gram += weighted.T @ rows.flatten(0, 1).double()
            cross += weighted.T @ wanted.flatten(0, 2).double()
        gram += torch.eye(inputs) * gram.diagonal().mean() * 1e-6
        solution = torch.linalg.solve(gram, cross).float().T
        base.weight.copy_(solution[:, :-1].reshape(base.weight.shape))
        base.bias.copy_(solution[:, -1])
        residuals = [large - networks.denoiser.enlarged(small) for large, small in encoded]
        weights = [1 / (1e-4 + each.square().mean((1, 2, 3))) for each in residuals]
    networks.scaling.copy_(1 / torch.cat(residuals)[:, :, 2:-2, 2:-2].std())
    base.bias.mul_(networks.scaling)
    networks.denoiser.scaling.copy_(networks.scaling)
    networks.denoiser.decode.weight.copy_(networks.decoder.linear.weight)
    networks.denoiser.encode.weight.copy_(networks.encoder.linear.weight)
    log.info("latents are scaled by %.6g", networks.scaling)


@dataclass(frozen=True)
class _Noisy:
    """A batch with noise in the latents of its large pictures; all latents are scaled."""

    small: Tensor
    enlarged: Tensor
    rest: Tensor
    """What is to be added to those enlarged: the residual."""
    hint: Tensor
    """The best linear guess at the residual, from the residual with noise."""
    deviation: Tensor
    """Of the noise, (N, 1, 1, 1)."""

    @property
    def output(self) -> Tensor:
        """How much of the network's output is added to the hint."""
        return self.deviation / torch.sqrt(self.deviation**2 + 1)

    def found(self, denoiser: Denoiser) -> Tensor:
        """What the network makes of it."""
        return denoiser.residual(self.hint, self.small, torch.log(self.deviation.flatten()) / 4)


@torch.no_grad()
def _noisy(networks: Networks, batch: Batch) -> _Noisy:
    """Mostly nothing but noise: from there the first step starts."""
    large, small = (networks.encoder(planes) * networks.scaling for planes in batch)
    deviation = torch.exp(torch.randn(len(large)) * 1.2).clamp(0.05, 20)
    deviation[torch.rand(len(large)) < 0.65] = _TOP
    deviation = deviation[:, None, None, None]
    enlarged = networks.denoiser.enlarged(small)
    rest = large - enlarged
    hint = (rest + deviation * torch.randn(rest.shape)) / (deviation**2 + 1)
    return _Noisy(small, enlarged, rest, hint, deviation)


def _denoising(networks: Networks, batch: Batch) -> Tensor:
    """The error as a share of what there is to find: cuts with much detail would outweigh all others."""
    noisy = _noisy(networks, batch)
    wanted = (noisy.rest - noisy.hint) / noisy.output
    error = noisy.found(networks.denoiser) - wanted
    shares = error.square().mean((1, 2, 3)) / (0.1 + wanted.square().mean((1, 2, 3)))
    return shares.mean()


def _painting(networks: Networks, batch: Batch) -> Tensor:
    """How far the pictures, and their edges, are from those that were to be found.

    What is likeliest pixel by pixel is too smooth; so a picture is also to have as much detail as the other
    in each part of 8 x 8 pixels, wherever it lies there.
    """
    noisy = _noisy(networks, batch)
    found = noisy.hint + noisy.found(networks.denoiser) * noisy.output
    pictures = networks.decoder((noisy.enlarged + found) / networks.scaling)
    large = batch[0]
    loss = functional.l1_loss(pictures, large)
    for axis in (2, 3):
        edges, wanted = (each.diff(dim=axis) for each in (pictures, large))
        amount, right = (functional.avg_pool2d(each.abs(), 8) for each in (edges, wanted))
        loss = loss + functional.l1_loss(edges, wanted) + 0.5 * functional.l1_loss(amount, right)
    return loss
