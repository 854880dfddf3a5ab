"""From what a UNet of diffusers counts and predicts to what the engine takes.

A UNet counts time in steps of its training and returns the picture, the noise, or the velocity of Salimans
and Ho, Progressive Distillation (2022). The engine knows the noise's deviation and takes a velocity; see
`CreativeWeights`. What is here runs inside the exported graph.
"""

from typing import TYPE_CHECKING

import numpy as np

from onnx_models.diffusers.schedule import Prediction, Training

if TYPE_CHECKING:
    import torch

__all__ = ["as_velocity", "noise_times", "training_steps"]


def noise_times(training: Training) -> "torch.Tensor":
    """The engine's time at each step of a training, rising, (steps,) float32: log(deviation) / 4."""
    import torch  # noqa: PLC0415

    kept = training.kept()
    return torch.from_numpy(np.log((1 - kept) / kept) / 8).float()


def training_steps(times: "torch.Tensor", time: "torch.Tensor") -> "torch.Tensor":
    """The steps of the training, (N,), with fractions, that the engine's times (N,) stand for.

    Args:
        times: See `noise_times`.
        time: The engine's.
    """
    below = (times[None] <= time[:, None]).sum(1).clamp(1, len(times) - 1) - 1
    return below + (time - times[below]) / (times[below + 1] - times[below])


def as_velocity(
    prediction: Prediction, found: "torch.Tensor", noisy: "torch.Tensor", deviation: "torch.Tensor"
) -> "torch.Tensor":
    """What the engine takes, of what a UNet predicts.

    Args:
        prediction: What that is.
        found: The prediction, (N, C, h, w).
        noisy: The latents with noise, divided by the deviation of both together.
        deviation: Of the noise, (N,); the latents have 1.
    """
    if prediction == "v_prediction":
        return -found
    deviation = deviation[:, None, None, None]
    norm = (deviation**2 + 1) ** 0.5
    if prediction == "epsilon":
        return noisy * deviation - found * norm
    return (found * norm - noisy) / deviation
