"""What is read of a scheduler's configuration, with diffusers' defaults, and what is refused by name."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnx_models import UnsuitableModelError
from onnx_models.diffusers.creative import STABLE_DIFFUSION
from onnx_models.diffusers.latent_x2 import LATENT_X2
from onnx_models.diffusers.part import Kind
from onnx_models.diffusers.schedule import Schedule, Training, read_schedule
from onnx_models.diffusers.x4 import X4

EULER = {"_class_name": "EulerDiscreteScheduler", "prediction_type": "sample"}
DDIM = {"_class_name": "DDIMScheduler", "clip_sample": False}
PNDM = {"_class_name": "PNDMScheduler", "beta_schedule": "scaled_linear", "steps_offset": 1}


def read(folder: Path, kind: Kind, values: dict[str, Any]) -> Schedule:
    (folder / "scheduler").mkdir(exist_ok=True)
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(values), encoding="utf-8")
    return read_schedule(folder, kind.schedulers, kind.predictions, kind.other_schedulers)


def test_absent_keys_mean_what_they_mean_to_diffusers(tmp_path: Path) -> None:
    linear = Training(beta_start=0.0001, beta_end=0.02, curve="linear", noise_steps=1000)
    assert read(tmp_path, LATENT_X2, EULER) == Schedule(linear, "Euler", "linspace", 0, "zero", "sample")
    assert read(tmp_path, X4, DDIM) == Schedule(linear, "Euler", "leading", 0, "zero", "epsilon")
    heun = read(tmp_path, LATENT_X2, EULER | {"_class_name": "HeunDiscreteScheduler"})
    assert (heun.training.beta_start, heun.training.beta_end) == (0.00085, 0.012)


@pytest.mark.parametrize(
    ("kind", "values", "expected"),
    [
        (LATENT_X2, EULER | {"use_karras_sigmas": True}, {"scheduler": "Euler Karras"}),
        (LATENT_X2, EULER | {"_class_name": "EulerAncestralDiscreteScheduler"}, {"scheduler": "Euler a"}),
        (LATENT_X2, EULER | {"_class_name": "HeunDiscreteScheduler"}, {"scheduler": "Heun"}),
        (LATENT_X2, EULER | {"timestep_spacing": "trailing"}, {"spacing": "trailing"}),
        (
            X4,
            DDIM | {"set_alpha_to_one": False, "steps_offset": 1},
            {"last_noise": "least", "steps_offset": 1},
        ),
        (X4, DDIM | {"prediction_type": "v_prediction"}, {"prediction": "v_prediction"}),
        (STABLE_DIFFUSION, DDIM | {"steps_offset": 1}, {"scheduler": "Euler", "spacing": "leading"}),
        (
            STABLE_DIFFUSION,
            PNDM | {"prediction_type": "v_prediction"},
            {"scheduler": "DPM++ 2M Karras", "spacing": "linspace", "prediction": "v_prediction"},
        ),
    ],
)
def test_what_is_stored_is_what_is_done(
    tmp_path: Path, kind: Kind, values: dict[str, Any], expected: dict[str, Any]
) -> None:
    found = read(tmp_path, kind, values)
    assert {key: getattr(found, key) for key in expected} == expected


@pytest.mark.parametrize(
    ("kind", "values", "told"),
    [
        (LATENT_X2, {}, "_class_name = None"),
        (LATENT_X2, EULER | {"_class_name": ["EulerDiscreteScheduler"]}, r"_class_name = \['Euler"),
        (
            LATENT_X2,
            EULER | {"_class_name": "DPMSolverMultistepScheduler"},
            "= 'DPMSolverMultistepScheduler'",
        ),
        (LATENT_X2, EULER | {"_class_name": "DDIMScheduler"}, "= 'DDIMScheduler'"),
        (LATENT_X2, EULER | {"prediction_type": "epsilon"}, "prediction_type = 'epsilon'"),
        (LATENT_X2, EULER | {"beta_schedule": "squaredcos_cap_v2"}, "beta_schedule = 'squaredcos"),
        (LATENT_X2, EULER | {"trained_betas": [0.1]}, r"trained_betas = \[0.1\]"),
        (LATENT_X2, EULER | {"use_exponential_sigmas": True}, "use_exponential_sigmas = True"),
        (LATENT_X2, EULER | {"use_karras_sigmas": 1}, "use_karras_sigmas = 1"),
        (LATENT_X2, EULER | {"final_sigmas_type": "sigma_min"}, "final_sigmas_type = 'sigma_min'"),
        (LATENT_X2, EULER | {"num_train_timesteps": 10}, "num_train_timesteps = 10"),
        (LATENT_X2, EULER | {"num_train_timesteps": 1000.5}, "num_train_timesteps = 1000.5"),
        (LATENT_X2, EULER | {"num_train_timesteps": True}, "num_train_timesteps = True"),
        (LATENT_X2, EULER | {"beta_start": float("nan")}, "beta_start = nan"),
        (LATENT_X2, EULER | {"beta_start": 0.3, "beta_end": 0.2}, "beta_end = 0.2"),
        (LATENT_X2, EULER | {"beta_end": 0.4}, "leaves nothing of a picture"),
        (X4, {"_class_name": "DDIMScheduler"}, "clip_sample = True"),
        (X4, DDIM | {"timestep_spacing": "trailing"}, "timestep_spacing = 'trailing'"),
        (X4, DDIM | {"thresholding": True}, "thresholding = True"),
        (X4, PNDM, "= 'PNDMScheduler'"),
        (STABLE_DIFFUSION, PNDM | {"_class_name": "EDMEulerScheduler"}, "= 'EDMEulerScheduler'"),
        (STABLE_DIFFUSION, PNDM | {"rescale_betas_zero_snr": True}, "rescale_betas_zero_snr = True"),
        (STABLE_DIFFUSION, PNDM | {"beta_schedule": "squaredcos_cap_v2"}, "beta_schedule = 'squared"),
    ],
)
def test_what_the_engine_does_not_do_is_refused_by_name(
    tmp_path: Path, kind: Kind, values: dict[str, Any], told: str
) -> None:
    with pytest.raises(UnsuitableModelError, match=told):
        read(tmp_path, kind, values)


def test_a_whole_number_may_be_written_with_a_point(tmp_path: Path) -> None:
    assert read(tmp_path, LATENT_X2, EULER | {"num_train_timesteps": 1000.0}).training.noise_steps == 1000


@pytest.mark.parametrize("curve", ["linear", "scaled_linear"])
def test_the_noise_of_the_training_is_that_of_diffusers(curve: str) -> None:
    diffusers = pytest.importorskip("diffusers", reason="needs: pip install 'tilewire[export]'")
    training = Training(beta_start=0.0003, beta_end=0.015, curve=curve, noise_steps=700)  # type: ignore[arg-type]
    original = diffusers.DDIMScheduler(700, 0.0003, 0.015, curve)
    np.testing.assert_allclose(training.kept(), original.alphas_cumprod.numpy(), rtol=1e-4)
