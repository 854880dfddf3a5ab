"""Diffusers pipelines as ONNX files: what is refused, and that the engine computes what diffusers does."""

import asyncio
import itertools
import json
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from engines import Diffusion, Picture, Upscaler
from engines.devices.cpu import CpuDevice
from engines.latent.denoising import upscale_latent
from engines.latent.prompts import Prompts
from onnx_models import (
    Catalogue,
    DownloadError,
    Facts,
    LatentWeights,
    MissingConverterError,
    Model,
    UnsuitableModelError,
    export_model,
)
from onnx_models.diffusers.latent_x2 import LATENT_X2
from onnx_models.diffusers.schedule import read_schedule
from tests.onnx_models.support.parts import finish, open_part

PIPELINE = "StableDiffusionLatentUpscalePipeline"
COMPONENTS = ("text_encoder", "tokenizer", "unet", "vae", "scheduler")
SCHEDULER = {
    "_class_name": "EulerDiscreteScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "num_train_timesteps": 1000,
    "prediction_type": "sample",
}

with_diffusers = pytest.mark.skipif(
    any(find_spec(name) is None for name in ("diffusers", "onnxscript", "torch", "transformers")),
    reason="to export needs PyTorch, diffusers and transformers: pip install 'tilewire[export]'",
)


def hollow(directory: Path, *, kind: str = PIPELINE, without: str = "", **scheduler: Any) -> Path:
    """A pipeline without anything in it."""
    directory.mkdir()
    index = {name: ["diffusers", name] for name in COMPONENTS if name != without} | {"_class_name": kind}
    (directory / "model_index.json").write_text(json.dumps(index), encoding="utf-8")
    for name in COMPONENTS:
        if name != without:
            (directory / name).mkdir()
    if without != "scheduler":
        config = directory / "scheduler" / "scheduler_config.json"
        config.write_text(json.dumps(SCHEDULER | scheduler), encoding="utf-8")
    return directory


def in_order(pipeline: Path) -> Path:
    """The same with files that look like those of a pipeline."""
    for component, name in (
        ("text_encoder", "model"),
        *((each, "diffusion_pytorch_model") for each in ("unet", "vae")),
    ):
        (pipeline / component / f"{name}.safetensors").write_bytes(b"x")
        (pipeline / component / "config.json").write_text("{}", encoding="utf-8")
    (pipeline / "tokenizer" / "tokenizer.json").write_text("{}", encoding="utf-8")
    return pipeline


X4_PIPELINE = "StableDiffusionUpscalePipeline"


def export(
    source: object, catalogue: Catalogue, directory: Path, **more: Any
) -> tuple[Model, dict[str, float]]:
    return export_model(str(source), more.pop("facts", Facts()), catalogue, directory, open_part, **more)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"kind": "FluxPipeline"}, f"it is a FluxPipeline, not a {PIPELINE}"),
        *(({"without": name}, f"its component {name} is missing") for name in COMPONENTS),
        ({"prediction_type": "epsilon"}, "its scheduler has prediction_type = 'epsilon'"),
        ({"kind": X4_PIPELINE}, "its component low_res_scheduler is missing"),
    ],
)
def test_what_is_no_latent_upscaler_is_told(
    catalogue: Catalogue, tmp_path: Path, changes: dict[str, Any], told: str
) -> None:
    with pytest.raises(UnsuitableModelError, match=told):
        export(hollow(tmp_path / "pipeline", **changes), catalogue, tmp_path / "models")
    assert not list(tmp_path.glob("models/[!.]*"))


def test_what_is_no_directory_of_diffusers_is_told(catalogue: Catalogue, tmp_path: Path) -> None:
    for source in (tmp_path, tmp_path / "none", "!"):
        with pytest.raises(UnsuitableModelError, match="directory"):
            export(source, catalogue, tmp_path / "models")
    (tmp_path / "model_index.json").write_text("{", encoding="utf-8")
    with pytest.raises(UnsuitableModelError, match="not JSON"):
        export(tmp_path, catalogue, tmp_path / "models")


def test_without_pytorch_the_error_says_what_to_install(
    catalogue: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    for source in (in_order(hollow(tmp_path / "pipeline")), "someone/something"):
        with pytest.raises(MissingConverterError, match=r"tilewire\[export\]"):
            export(source, catalogue, tmp_path / "models")


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.onnx_models.support.tiny_pipeline import save_tiny_pipeline  # noqa: PLC0415 - needs PyTorch

    directory = tmp_path_factory.mktemp("pipeline")
    save_tiny_pipeline(directory)
    return directory


@pytest.fixture(scope="module")
def exported(
    pipeline: Path, catalogue: Catalogue, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Model, dict[str, float]]:
    with pytest.MonkeyPatch.context() as patch:  # the UNet's weights go into a file of their own
        patch.setattr("onnx_models.diffusers.onnx_parts._LARGEST", 4_000_000)
        return export(pipeline, catalogue, tmp_path_factory.mktemp("models"))


@with_diffusers
def test_weights_that_are_none_cannot_be_read(catalogue: Catalogue, tmp_path: Path) -> None:
    with pytest.raises(UnsuitableModelError, match="cannot be read"):
        export(in_order(hollow(tmp_path / "pipeline")), catalogue, tmp_path / "models")


@with_diffusers
def test_the_hub_that_cannot_be_reached_is_told(
    catalogue: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub  # noqa: PLC0415

    def fail(*_arguments: Any, **_more: Any) -> None:
        raise OSError("no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(DownloadError, match="no network"):
        export("someone/something", catalogue, tmp_path / "models")


@with_diffusers
@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_each_part_computes_what_pytorch_does(exported: tuple[Model, dict[str, float]]) -> None:
    model, differences = exported
    assert (model.name, model.air, model.family) == ("sd-x2-latent-upscaler", "runware:502@1", "latent")
    assert model.licence == "openrail++"
    assert set(differences) == {"text_encoder", "vae_encoder", "unet", "vae_decoder"}
    assert max(differences.values()) < 1e-5
    (weights,) = model.weights
    assert isinstance(weights, LatentWeights)
    assert [Path(file.path).name for file in weights.unet] == ["unet.onnx", "unet.onnx.data"]
    assert [Path(file.path).name for file in weights.vae_decoder] == ["vae_decoder.onnx"]


@with_diffusers
@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_half_precision_is_nearly_the_same_and_half_as_large(
    pipeline: Path, exported: tuple[Model, dict[str, float]], catalogue: Catalogue, tmp_path: Path
) -> None:
    _, differences = export(pipeline, catalogue, tmp_path, half=True)
    assert max(differences.values()) < 2e-2
    (single,) = exported[0].weights
    assert isinstance(single, LatentWeights)
    half = sum(file.stat().st_size for file in tmp_path.glob("*/*.onnx*"))
    assert half < 0.8 * sum(Path(file.path).stat().st_size for file in single.files)


@with_diffusers
@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("size", [(64, 64), (64, 128)])
@pytest.mark.parametrize("steps", [1, 2, 20])
@pytest.mark.parametrize("guidance", [1.0, 7.5])
def test_the_result_is_that_of_diffusers(
    pipeline: Path,
    exported: tuple[Model, dict[str, float]],
    monkeypatch: pytest.MonkeyPatch,
    size: tuple[int, int],
    steps: int,
    guidance: float,
) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (*size, 3), np.uint8)
    wanted = Diffusion(steps=steps, seed=5, guidance=guidance, prompt="a cat", negative_prompt="ugly " * 40)
    expected = by_diffusers(pipeline, pixels, wanted, monkeypatch)
    (weights,) = exported[0].weights
    assert isinstance(weights, LatentWeights)
    assert np.abs(np.clip(computed(pixels, wanted, weights), 0, 1) - expected).max() < 1e-3
    assert expected.std() > 0.05


@with_diffusers
@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_upscaler_gives_the_same_on_a_device(
    exported: tuple[Model, dict[str, float]], tmp_path: Path
) -> None:
    model, _ = exported
    pixels = np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)
    wanted = Diffusion(steps=2, seed=5, guidance=4.0, prompt="a cat")
    upscaler = Upscaler([CpuDevice(2)], tmp_path)
    try:
        found = asyncio.run(
            upscaler.upscale(Picture(pixels=pixels), model, width=128, height=128, diffusion=wanted)
        )
    finally:
        upscaler.close()
    (weights,) = model.weights
    assert isinstance(weights, LatentWeights)
    expected = np.clip(computed(pixels, wanted, weights), 0, 1) * 255
    assert np.abs(found.pixels - expected).max() <= 0.51


@with_diffusers
@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_result_of_the_x4_upscaler_is_that_of_diffusers(
    catalogue: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.onnx_models.support.tiny_pipeline import save_tiny_x4_pipeline  # noqa: PLC0415 - needs PyTorch

    save_tiny_x4_pipeline(tmp_path / "pipeline")
    model, differences = export(tmp_path / "pipeline", catalogue, tmp_path / "models")
    assert (model.name, model.factors) == ("stable-diffusion-x4-upscaler", (2, 3, 4))
    assert "strength" not in model.parameters
    assert max(differences.values()) < 1e-5
    (weights,) = model.weights
    assert isinstance(weights, LatentWeights)
    assert (weights.noise_levels, weights.default_noise_level) == (100, 20)
    assert "noiseLevel" in model.parameters
    cases = itertools.product([(32, 32), (32, 64)], [1, 2, 20], [1.0, 7.5], [None])
    for size, steps, guidance, level in [*cases, ((40, 72), 3, 2.0, 0), ((40, 72), 3, 2.0, 99)]:
        pixels = np.random.default_rng(1).integers(0, 256, (*size, 3), np.uint8)
        wanted = Diffusion(
            steps=steps,
            seed=5,
            guidance=guidance,
            prompt="a cat",
            negative_prompt="ugly " * 40,
            noise_level=level,
        )
        expected = by_diffusers_x4(tmp_path / "pipeline", pixels, wanted, monkeypatch)
        assert np.abs(np.clip(computed(pixels, wanted, weights), 0, 1) - expected).max() < 1e-3
        assert expected.std() > 0.05


SCHEDULERS = [
    ("EulerDiscreteScheduler", {"use_karras_sigmas": True}),
    ("EulerDiscreteScheduler", {"timestep_spacing": "trailing", "beta_schedule": "linear"}),
    ("EulerDiscreteScheduler", {"timestep_spacing": "leading", "steps_offset": 1}),
    ("HeunDiscreteScheduler", {"use_karras_sigmas": True}),
    ("HeunDiscreteScheduler", {"num_train_timesteps": 700}),
]


@with_diffusers
@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("name", "changes"), SCHEDULERS)
def test_the_scheduler_in_the_folder_is_what_is_done(
    pipeline: Path,
    exported: tuple[Model, dict[str, float]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    changes: dict[str, Any],
) -> None:
    import diffusers  # noqa: PLC0415

    folder = tmp_path / "pipeline"
    shutil.copytree(pipeline, folder)
    shutil.rmtree(folder / "scheduler")
    training = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    scheduler = getattr(diffusers, name)(**training | {"prediction_type": "sample"} | changes)
    scheduler.save_pretrained(folder / "scheduler")
    index = json.loads((folder / "model_index.json").read_text("utf-8")) | {"scheduler": ["diffusers", name]}
    (folder / "model_index.json").write_text(json.dumps(index), encoding="utf-8")
    weights = with_schedule_of(folder, exported[0])
    pixels = np.random.default_rng(2).integers(0, 256, (64, 192, 3), np.uint8)
    wanted = Diffusion(steps=7, seed=6, guidance=3.0, prompt="a dog", scheduler=weights.default_scheduler)
    expected = by_diffusers(folder, pixels, wanted, monkeypatch)
    assert np.abs(np.clip(computed(pixels, wanted, weights), 0, 1) - expected).max() < 1e-3
    assert expected.std() > 0.05


def with_schedule_of(folder: Path, model: Model) -> LatentWeights:
    """The weights of an exported model, with the scheduler of another folder with the same parts."""
    schedule = read_schedule(folder, LATENT_X2.schedulers, LATENT_X2.predictions)
    (weights,) = model.weights
    assert isinstance(weights, LatentWeights)
    return replace(
        weights,
        beta_start=schedule.training.beta_start,
        beta_end=schedule.training.beta_end,
        curve=schedule.training.curve,
        noise_steps=schedule.training.noise_steps,
        spacing=schedule.spacing,
        steps_offset=schedule.steps_offset,
        last_noise=schedule.last_noise,
        default_scheduler=schedule.scheduler,
    )


def by_diffusers_x4(
    directory: Path, pixels: np.ndarray, wanted: Diffusion, monkeypatch: pytest.MonkeyPatch
) -> np.ndarray:
    """What the original makes of it, with the noise that the engine makes of the seed."""
    import diffusers  # noqa: PLC0415
    import torch  # noqa: PLC0415
    from diffusers.pipelines.stable_diffusion import pipeline_stable_diffusion_upscale  # noqa: PLC0415

    random = np.random.default_rng(wanted.seed)
    drawn, start = (
        torch.from_numpy(random.standard_normal((1, channels, *pixels.shape[:2]), np.float32))
        for channels in (3, 4)
    )
    monkeypatch.setattr(pipeline_stable_diffusion_upscale, "randn_tensor", lambda *_args, **_more: drawn)
    original = diffusers.StableDiffusionUpscalePipeline.from_pretrained(directory)
    original.set_progress_bar_config(disable=True)
    (result,) = original(
        wanted.prompt,
        torch.from_numpy(pixels).permute(2, 0, 1)[np.newaxis].float() / 127.5 - 1,
        num_inference_steps=wanted.steps,
        guidance_scale=wanted.guidance,
        negative_prompt=wanted.negative_prompt,
        noise_level=20 if wanted.noise_level is None else wanted.noise_level,
        latents=start,
        output_type="np",
    ).images
    return np.asarray(result)


def by_diffusers(
    directory: Path, pixels: np.ndarray, wanted: Diffusion, monkeypatch: pytest.MonkeyPatch
) -> np.ndarray:
    """What the original makes of it, with the noise that the engine makes of the seed."""
    import diffusers  # noqa: PLC0415
    import torch  # noqa: PLC0415
    from diffusers.models.autoencoders import vae  # noqa: PLC0415

    random = np.random.default_rng(wanted.seed)
    height, width, _ = pixels.shape
    drawn, start = (
        torch.from_numpy(random.standard_normal((1, 4, scale * height // 8, scale * width // 8), np.float32))
        for scale in (1, 2)
    )
    monkeypatch.setattr(vae, "randn_tensor", lambda *_arguments, **_more: drawn)
    original = diffusers.StableDiffusionLatentUpscalePipeline.from_pretrained(directory)
    original.set_progress_bar_config(disable=True)
    image = torch.from_numpy(pixels).permute(2, 0, 1)[np.newaxis].float() / 127.5 - 1
    (result,) = original(
        wanted.prompt,
        image,
        num_inference_steps=wanted.steps,
        guidance_scale=wanted.guidance,
        negative_prompt=wanted.negative_prompt,
        latents=start,
        output_type="np",
    ).images
    return np.asarray(result)


def computed(pixels: np.ndarray, wanted: Diffusion, weights: LatentWeights) -> np.ndarray:
    """What the engine makes of it, without anything of its devices."""
    prompts = Prompts(Path(weights.tokenizer.path))
    tokens = prompts.tokens(wanted.prompt), prompts.tokens(wanted.negative_prompt)
    return finish(upscale_latent(pixels, tokens, wanted, weights, side=512, overlap=128), weights)
