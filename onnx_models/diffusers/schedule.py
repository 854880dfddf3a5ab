"""The noise that a diffusers pipeline was trained with, and how its scheduler takes it away.

Schedulers of diffusers that compute what one of the engine's does are told by their class and configuration;
of some others the noise is taken, and the engine's best takes it away; the rest is refused by name. Defaults
are those of diffusers' classes (https://github.com/huggingface/diffusers, `src/diffusers/schedulers`).
"""

from pathlib import Path
from typing import Any, Literal

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from onnx_models.diffusers.folder import Config, read_json
from onnx_models.errors import UnsuitableModelError
from onnx_models.model import DefaultScheduler

__all__ = ["Prediction", "Schedule", "Training", "read_schedule", "read_training"]

Prediction = Literal["epsilon", "v_prediction", "sample"]

_FEWEST = 200
"""Training steps: with fewer, up to 100 steps of a task could not lie apart."""

_BETAS = {
    "num_train_timesteps": 1000,
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "trained_betas": None,
    "prediction_type": "epsilon",
    "rescale_betas_zero_snr": False,
    "steps_offset": 0,
}
_SIGMAS = {
    "timestep_spacing": "linspace",
    "use_karras_sigmas": False,
    "use_exponential_sigmas": False,
    "use_beta_sigmas": False,
}
_DEFAULTS: dict[str, dict[str, Any]] = {
    "EulerDiscreteScheduler": _BETAS
    | _SIGMAS
    | {
        "interpolation_type": "linear",
        "sigma_min": None,
        "sigma_max": None,
        "timestep_type": "discrete",
        "final_sigmas_type": "zero",
    },
    "EulerAncestralDiscreteScheduler": _BETAS | {"timestep_spacing": "linspace"},
    "HeunDiscreteScheduler": _BETAS
    | _SIGMAS
    | {"beta_start": 0.00085, "beta_end": 0.012, "clip_sample": False},
    "DDIMScheduler": _BETAS
    | {"clip_sample": True, "set_alpha_to_one": True, "thresholding": False, "timestep_spacing": "leading"},
}
_MUST_BE: dict[str, Any] = {
    "trained_betas": None,
    "rescale_betas_zero_snr": False,
    "use_exponential_sigmas": False,
    "use_beta_sigmas": False,
    "interpolation_type": "linear",
    "sigma_min": None,
    "sigma_max": None,
    "timestep_type": "discrete",
    "final_sigmas_type": "zero",
    "clip_sample": False,
    "thresholding": False,
}
"""What each of these must be where a scheduler has it: the engine knows nothing else."""


_OTHERWISE: DefaultScheduler = "DPM++ 2M Karras"
"""What takes the noise away where the engine has nothing like a folder's scheduler."""


class Training(Struct, frozen=True):
    """The noise of a training."""

    beta_start: float
    beta_end: float
    curve: Literal["linear", "scaled_linear"]
    noise_steps: int

    def kept(self) -> NDArray[np.float64]:
        """What is left of the picture's variance after each step, falling; diffusers' `alphas_cumprod`."""
        power = 2 if self.curve == "scaled_linear" else 1
        ends = self.beta_start ** (1 / power), self.beta_end ** (1 / power)
        betas: NDArray[np.float64] = np.linspace(*ends, self.noise_steps) ** power
        return np.cumprod(1 - betas, dtype=np.float64)


class Schedule(Struct, frozen=True):
    """A scheduler's configuration, as the engine has it."""

    training: Training
    scheduler: DefaultScheduler
    spacing: Literal["linspace", "trailing", "leading"]
    steps_offset: int
    last_noise: Literal["zero", "least"]
    prediction: Prediction


def read_training(pipeline: Path, component: str) -> Training:
    """Read the noise of a training.

    Args:
        pipeline: A diffusers folder.
        component: The scheduler's name in it.

    Raises:
        UnsuitableModelError: Its configuration is missing, broken, or of a kind that is not offered.
    """
    return _training(Config(component, _values(pipeline, component), _BETAS))


def read_schedule(
    pipeline: Path,
    schedulers: tuple[str, ...],
    predictions: tuple[Prediction, ...],
    others: tuple[str, ...] = (),
) -> Schedule:
    """Read what the scheduler of a pipeline does.

    Args:
        pipeline: A diffusers folder.
        schedulers: The classes that a pipeline of its kind runs rightly.
        predictions: What its UNet may predict.
        others: The classes of which only the noise of the training is taken.

    Raises:
        UnsuitableModelError: Its configuration is missing, broken, or of a kind that is not offered.
    """
    values = _values(pipeline, "scheduler")
    name = Config("scheduler", values, {}).choice("_class_name", (*schedulers, *others))
    if name in others:
        return _noise_alone(values, predictions)
    defaults = _DEFAULTS[name]
    config = Config("scheduler", values, defaults)
    for key in defaults.keys() & _MUST_BE.keys():
        config.choice(key, [_MUST_BE[key]])
    spacings = ["leading"] if name == "DDIMScheduler" else ["linspace", "trailing", "leading"]
    last = "zero"
    if name == "DDIMScheduler" and not config.choice("set_alpha_to_one", [True, False]):
        last = "least"
    return Schedule(
        training=_training(config),
        scheduler=_scheduler(name, config),
        spacing=config.choice("timestep_spacing", spacings),
        steps_offset=config.whole("steps_offset", 0, 1),
        last_noise=last,  # type: ignore[arg-type]
        prediction=config.choice("prediction_type", predictions),
    )


def _noise_alone(values: dict[str, Any], predictions: tuple[Prediction, ...]) -> Schedule:
    config = Config("scheduler", values, _BETAS)
    config.choice("rescale_betas_zero_snr", [False])
    prediction = config.choice("prediction_type", predictions)
    return Schedule(_training(config), _OTHERWISE, "linspace", 0, "zero", prediction)


def _values(pipeline: Path, component: str) -> dict[str, Any]:
    return read_json(pipeline / component / "scheduler_config.json", f"its component {component} is missing")


def _training(config: Config) -> Training:
    config.choice("trained_betas", [None])
    beta_start = config.number("beta_start", 1e-8, 0.5)
    training = Training(
        beta_start=beta_start,
        beta_end=config.number("beta_end", beta_start, 0.5),
        curve=config.choice("beta_schedule", ["linear", "scaled_linear"]),
        noise_steps=config.whole("num_train_timesteps", _FEWEST, 100_000),
    )
    if training.kept()[-1] < 1e-12:
        raise UnsuitableModelError("its scheduler leaves nothing of a picture: beta_end is too large")
    return training


def _scheduler(name: str, config: Config) -> DefaultScheduler:
    if name == "EulerAncestralDiscreteScheduler":
        return "Euler a"
    karras = name != "DDIMScheduler" and config.choice("use_karras_sigmas", [False, True])
    if name == "HeunDiscreteScheduler":
        return "Heun Karras" if karras else "Heun"
    return "Euler Karras" if karras else "Euler"  # what DDIM computes, too
