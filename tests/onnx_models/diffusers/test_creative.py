"""Stable Diffusion as the parts of a creative upscaler: each computes what diffusers does."""

import inspect
import itertools
import json
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec import Struct
from msgspec.structs import replace

from engines.creative.drawing import draw_anew
from engines.latent.diffusion import Creative, Diffusion
from engines.latent.prompts import Prompts
from onnx_models import Catalogue, CreativeWeights, Facts, Model, Wanted, export_model
from onnx_models.diffusers.creative import STABLE_DIFFUSION
from onnx_models.diffusers.schedule import read_schedule
from onnx_models.model import DefaultScheduler
from tests.onnx_models.support.parts import finish, open_part

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(
        any(find_spec(name) is None for name in ("diffusers", "onnxscript", "torch", "transformers")),
        reason="to export needs PyTorch, diffusers and transformers: pip install 'tilewire[export]'",
    ),
]
PROMPTS = ("", "a cat", "the sea, a storm " * 9)


class Exported(Struct):
    """A tiny pipeline, what was made of it, and what diffusers reads of the same files."""

    folder: Path
    model: Model
    differences: dict[str, float]
    original: Any
    controlnet: Any = None

    @property
    def weights(self) -> CreativeWeights:
        (weights,) = self.model.weights
        assert isinstance(weights, CreativeWeights)
        return weights

    def part(self, name: str) -> Callable[[Any], Any]:
        return open_part(Path(getattr(self.weights, name)[0].path))


def exported(
    folder: Path,
    catalogue: Catalogue,
    save: Callable[[Path], None],
    *,
    plus: bool | None,
    half: bool = False,
) -> Exported:
    """Export a pipeline; with a ControlNet and an IP-Adapter if it is said which one, or else with a LoRA."""
    import diffusers  # noqa: PLC0415 - takes long

    from tests.onnx_models.support import tiny_creative  # noqa: PLC0415 - needs PyTorch

    pipeline = folder / "pipeline"
    save(pipeline)
    original = diffusers.DiffusionPipeline.from_pretrained(pipeline)
    original.set_progress_bar_config(disable=True)
    if not hasattr(original.text_encoder, "text_model"):  # transformers 5 has none, but diffusers asks for it
        object.__setattr__(original.text_encoder, "text_model", original.text_encoder)
    if plus is None:
        controlnet = None
        wanted = Wanted(loras=[f"{with_lora(original, folder)}:0.5"])
    else:
        tiny_creative.save_tiny_controlnet(folder / "tile", pipeline)
        file = tiny_creative.save_tiny_ip_adapter(folder / "adapter", pipeline, plus=plus)
        wanted = Wanted(str(folder / "tile"), folder / "adapter")
        controlnet = diffusers.ControlNetModel.from_pretrained(folder / "tile").eval()
        original.load_ip_adapter(folder / "adapter", subfolder="", weight_name=file.name)
    model, differences = export_model(
        str(pipeline), Facts(), catalogue, folder / "models", open_part, wanted=wanted, half=half
    )
    return Exported(folder, model, differences, original, controlnet)


def with_lora(original: Any, folder: Path) -> Path:
    """Write a LoRA, and add half of it to one layer of a pipeline."""
    import torch  # noqa: PLC0415
    from safetensors.torch import save_file  # noqa: PLC0415

    name = "mid_block.attentions.0.transformer_blocks.0.attn2.to_v"
    layer = original.unet.get_submodule(name)
    generator = torch.Generator().manual_seed(7)
    down, up = (
        torch.randn(shape, generator=generator)
        for shape in ((2, layer.weight.shape[1]), (layer.weight.shape[0], 2))
    )
    with torch.no_grad():
        layer.weight += 0.5 * 3 / 2 * up @ down
    key = f"lora_unet_{name.replace('.', '_')}"
    weights = {
        f"{key}.lora_down.weight": down,
        f"{key}.lora_up.weight": up,
        f"{key}.alpha": torch.tensor(3.0),
    }
    save_file(weights, folder / "lora.safetensors")
    return folder / "lora.safetensors"


@pytest.fixture(scope="module", params=["sd1", "sd2", "xl"])
def found(
    request: pytest.FixtureRequest, catalogue: Catalogue, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Exported]:
    from tests.onnx_models.support import tiny_creative  # noqa: PLC0415 - needs PyTorch

    save = getattr(tiny_creative, f"save_tiny_{request.param}")
    plus = {"sd1": False, "sd2": None, "xl": True}[request.param]
    return exported(tmp_path_factory.mktemp(request.param), catalogue, save, plus=plus)


def test_a_pipeline_becomes_an_entry_that_says_what_it_can(found: Exported) -> None:
    weights, xl = found.weights, found.weights.xl
    assert (found.model.name, found.model.air) == (
        ("clarity-xl", "tilewire:clarity-xl@1") if xl else ("clarity", "runware:500@1")
    )
    assert found.model.family == "creative"
    assert found.model.tile == {"DDIMScheduler": 768}.get(
        type(found.original.scheduler).__name__, 512 + 512 * xl
    )
    assert max(found.differences.values()) < 1e-4
    assert (weights.channels, weights.cell, weights.multiple) == (4, 8, 2)
    assert weights.blank_negative == xl
    assert weights.largest_clip_skip == (1 if xl else 2)
    with_control = found.controlnet is not None
    assert ("controlNetWeight" in found.model.parameters) == with_control
    assert ("styleImages" in found.model.parameters) == with_control


def test_in_half_precision_it_is_nearly_the_same(catalogue: Catalogue, tmp_path: Path) -> None:
    from tests.onnx_models.support import tiny_creative  # noqa: PLC0415 - needs PyTorch

    found = exported(tmp_path, catalogue, tiny_creative.save_tiny_xl, plus=False, half=True)
    assert max(found.differences.values()) < 2e-2
    assert found.differences["unet"] > 1e-5


def test_the_prompt_is_what_diffusers_makes_of_it(found: Exported) -> None:
    from tokenizers import Tokenizer  # noqa: PLC0415

    tokenizer = Tokenizer.from_file(found.weights.tokenizer.path)
    run = found.part("text_encoder")
    for prompt, skip in itertools.product(PROMPTS, range(found.weights.largest_clip_skip + 1)):
        ids = np.array([tokenizer.encode(prompt).ids], np.int64)
        expected = by_diffusers(found, prompt, skip)
        for computed, reference in zip(run([ids, np.array([skip])]), expected, strict=True):
            np.testing.assert_allclose(computed, reference, atol=1e-4)


def by_diffusers(found: Exported, prompt: str, skip: int) -> list[np.ndarray]:
    """Context and, of XL, pooled."""
    import torch  # noqa: PLC0415

    with torch.inference_mode():
        if found.weights.xl:
            context, _, pooled, _ = found.original.encode_prompt(
                prompt, do_classifier_free_guidance=False, clip_skip=skip
            )
            return [context.numpy(), pooled.numpy()]
        context, _ = found.original.encode_prompt(prompt, "cpu", 1, False, clip_skip=skip or None)
        return [context.numpy()]


@pytest.mark.parametrize("size", [(64, 64), (32, 96), (72, 40)])
def test_latents_are_those_of_diffusers(found: Exported, size: tuple[int, int]) -> None:
    import torch  # noqa: PLC0415

    vae = found.original.vae
    pixels = np.random.default_rng(1).integers(0, 256, (2, *size, 3), np.uint8)
    mean, deviation = found.part("vae_encoder")([pixels])
    with torch.inference_mode():
        latents = vae.encode(torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1).latent_dist
        picture = vae.decode(latents.mean).sample.permute(0, 2, 3, 1) / 2 + 0.5
    np.testing.assert_allclose(mean, latents.mean.numpy(), atol=1e-4)
    np.testing.assert_allclose(deviation, latents.std.numpy(), atol=1e-4)
    np.testing.assert_allclose(found.part("vae_decoder")([mean])[0], picture.numpy(), atol=1e-4)


@pytest.mark.parametrize("size", [(8, 8), (4, 12), (14, 6)])
@pytest.mark.parametrize("step", [1, 261, 981])
def test_the_latents_without_noise_are_those_of_diffusers(
    found: Exported, size: tuple[int, int], step: int
) -> None:
    """With the ControlNet's and the IP-Adapter's part in it, at any time."""
    import torch  # noqa: PLC0415

    random = np.random.default_rng(step)
    kept = float(found.original.scheduler.alphas_cumprod[step])
    deviation = np.sqrt((1 - kept) / kept)
    noisy = random.standard_normal((1, 4, *size), np.float32)
    context = random.standard_normal((1, 77, found.original.unet.config.cross_attention_dim), np.float32)
    inputs = [noisy, np.array([np.log(deviation) / 4], np.float32), context]
    added: dict[str, Any] = {}
    if found.weights.xl:
        sizes = np.array([[640, 512, 0, 16, 768, 1024]], np.float32)
        inputs += [random.standard_normal((1, 16), np.float32), sizes]
        added = {"text_embeds": torch.from_numpy(inputs[3]), "time_ids": torch.from_numpy(sizes)}
    residuals: list[np.ndarray] = []
    picture = random.integers(0, 256, (1, 8 * size[0], 8 * size[1], 3), np.uint8)
    style = random.integers(0, 256, (1, 224, 224, 3), np.uint8)
    seen: list[np.ndarray] = []
    if found.controlnet is not None:
        residuals = [each * np.float32(0.7) for each in found.part("controlnet")([*inputs, picture])]
        seen = [found.part("image_encoder")([style])[0], np.array([0.6], np.float32)]
    (computed,) = found.part("unet")([*inputs, *residuals, *seen])
    latents = noisy * np.sqrt(deviation**2 + 1)
    computed = noisy / np.sqrt(deviation**2 + 1) + computed * deviation / np.sqrt(deviation**2 + 1)
    prediction = predicted(found, noisy, step, context, added, picture, style)
    if found.original.scheduler.config.prediction_type == "v_prediction":
        expected = np.sqrt(kept) * noisy - np.sqrt(1 - kept) * prediction
    else:
        expected = latents - deviation * prediction
    assert np.abs(computed - expected).max() < 1e-3 * max(1, deviation)
    assert expected.std() > 0.05


def predicted(
    found: Exported,
    noisy: np.ndarray,
    step: int,
    context: np.ndarray,
    added: dict[str, Any],
    picture: np.ndarray,
    style: np.ndarray,
) -> np.ndarray:
    """What diffusers' UNet predicts."""
    import torch  # noqa: PLC0415
    from PIL import Image  # noqa: PLC0415

    condition: dict[str, Any] = {}
    latents, words = torch.from_numpy(noisy), torch.from_numpy(context)
    with torch.inference_mode():
        if found.controlnet is not None:
            down, middle = found.controlnet(
                latents,
                step,
                words,
                torch.from_numpy(picture).permute(0, 3, 1, 2) / 255,
                conditioning_scale=0.7,
                added_cond_kwargs=added,
                return_dict=False,
            )
            condition = {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}
            found.original.set_ip_adapter_scale(0.6)
            seen = found.original.prepare_ip_adapter_image_embeds(
                Image.fromarray(style[0]), None, "cpu", 1, False
            )
            added = added | {"image_embeds": seen}
        (prediction,) = found.original.unet(
            latents, step, words, added_cond_kwargs=added, return_dict=False, **condition
        )
    return np.asarray(prediction)


def test_the_tokens_of_an_image_are_those_of_diffusers(found: Exported) -> None:
    import torch  # noqa: PLC0415
    from PIL import Image  # noqa: PLC0415

    if found.controlnet is None:
        pytest.skip("it was exported without an IP-Adapter")
    style = np.random.default_rng(3).integers(0, 256, (1, 224, 224, 3), np.uint8)
    with torch.inference_mode():
        (seen,) = found.original.prepare_ip_adapter_image_embeds(
            Image.fromarray(style[0]), None, "cpu", 1, True
        )
        nothing, tokens = found.original.unet.encoder_hid_proj([seen])[0].squeeze(1)
    found_tokens, found_nothing = found.part("image_encoder")([style])
    np.testing.assert_allclose(found_tokens[0], tokens.numpy(), atol=1e-4)
    np.testing.assert_allclose(found_nothing[0], nothing.numpy(), atol=1e-4)


CASES = [
    # scheduler, its configuration, what the engine calls it, steps, strength, guidance, size
    ("DDIMScheduler", {"steps_offset": 1, "clip_sample": False}, 4, 1.0, 1.0, (64, 64)),
    (
        "DDIMScheduler",
        {"steps_offset": 1, "clip_sample": False, "set_alpha_to_one": False},
        8,
        0.5,
        7.0,
        (64, 96),
    ),
    ("EulerDiscreteScheduler", {}, 5, 1.0, 7.0, (96, 64)),
    ("EulerDiscreteScheduler", {"timestep_spacing": "leading", "steps_offset": 1}, 10, 0.35, 7.0, (64, 64)),
    ("EulerDiscreteScheduler", {"use_karras_sigmas": True}, 6, 0.6, 1.0, (64, 64)),
    ("EulerAncestralDiscreteScheduler", {"timestep_spacing": "trailing"}, 6, 0.5, 7.0, (64, 64)),
    ("HeunDiscreteScheduler", {}, 6, 0.5, 7.0, (64, 64)),
    ("HeunDiscreteScheduler", {"use_karras_sigmas": True}, 5, 0.8, 7.0, (64, 64)),
    ("DPMSolverMultistepScheduler", {"timestep_spacing": "trailing"}, 8, 0.75, 7.0, (64, 96)),
    ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}, 20, 0.35, 7.0, (64, 64)),
]


@pytest.mark.parametrize("case", CASES)
def test_the_picture_is_that_of_diffusers(
    found: Exported, case: tuple[Any, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its ControlNet and its IP-Adapter, for the same noise."""
    import diffusers  # noqa: PLC0415

    name, changes, steps, strength, guidance, size = case
    training = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    kept = {"prediction_type": found.original.scheduler.config.prediction_type}
    scheduler = getattr(diffusers, name)(**training | kept | changes)
    scheduler.save_pretrained(tmp_path / "scheduler")
    if name.startswith("DPM"):
        tell_exact_times(scheduler)
    pixels = np.random.default_rng(1).integers(0, 256, (*size, 3), np.uint8)
    style = np.random.default_rng(2).integers(0, 256, (224, 224, 3), np.uint8)
    weights = with_schedule_of(tmp_path, found.weights)
    wanted = Diffusion(
        steps=steps,
        seed=5,
        guidance=guidance,
        prompt="a cat, very large",
        negative_prompt="" if steps == 8 else "blurry " * 30,
        strength=strength,
        scheduler=weights.default_scheduler,
        creative=Creative(control=0.8, style_weight=0.6, clip_skip=int(steps == 10)),
    )
    prompts = Prompts(Path(weights.tokenizer.path))
    tokens = prompts.tokens(wanted.prompt), prompts.tokens(wanted.negative_prompt)
    styles = [style] if found.controlnet is not None else []
    computed = finish(
        draw_anew(pixels, tokens, wanted, weights, side=512, overlap=128, styles=styles), weights
    )
    expected = drawn_by_diffusers(found, scheduler, pixels, style, wanted, monkeypatch)
    assert np.abs(np.clip(computed, 0, 1) - expected).max() < 1e-3
    assert expected.std() > 0.02


def tell_exact_times(scheduler: Any) -> None:
    """Have a scheduler tell the UNet the time of its noise, as Euler's does, where it rounds it to a step."""
    import torch  # noqa: PLC0415

    set_timesteps = scheduler.set_timesteps
    known = np.log(np.sqrt((1 - scheduler.alphas_cumprod) / scheduler.alphas_cumprod))

    def set_exact(*arguments: Any, **more: Any) -> None:
        set_timesteps(*arguments, **more)
        times = [
            float(scheduler._sigma_to_t(level, known.numpy())) for level in scheduler.sigmas[:-1].numpy()
        ]
        scheduler.timesteps = torch.tensor(times, dtype=torch.float32)

    scheduler.set_timesteps = set_exact


def with_schedule_of(folder: Path, weights: CreativeWeights) -> CreativeWeights:
    """The weights with the scheduler of another folder. DPM++ is not read of one: tasks ask for it."""
    config = json.loads((folder / "scheduler" / "scheduler_config.json").read_text("utf-8"))
    if config["_class_name"].startswith("DPM"):
        named: DefaultScheduler = "DPM++ 2M Karras" if config["use_karras_sigmas"] else "DPM++ 2M"
        spacing = config["timestep_spacing"]
        return replace(weights, spacing=spacing, last_noise="zero", default_scheduler=named)
    schedule = read_schedule(folder, STABLE_DIFFUSION.schedulers, STABLE_DIFFUSION.predictions)
    return replace(
        weights,
        spacing=schedule.spacing,
        steps_offset=schedule.steps_offset,
        last_noise=schedule.last_noise,
        default_scheduler=schedule.scheduler,
    )


def drawn_by_diffusers(
    found: Exported,
    scheduler: Any,
    pixels: np.ndarray,
    style: np.ndarray,
    wanted: Diffusion,
    monkeypatch: pytest.MonkeyPatch,
) -> np.ndarray:
    """What diffusers' pipeline of image-to-image makes of it, with the noise that the engine draws."""
    import diffusers  # noqa: PLC0415
    import torch  # noqa: PLC0415
    from diffusers.models.autoencoders import vae  # noqa: PLC0415
    from PIL import Image  # noqa: PLC0415

    random = np.random.default_rng(wanted.seed)
    kind = f"StableDiffusion{'XL' * found.weights.xl}{'ControlNet' * bool(found.controlnet)}Img2ImgPipeline"
    parts = found.original.components | {"scheduler": scheduler}
    more: dict[str, Any] = {"image": image(pixels)}
    if found.controlnet is not None:
        parts["controlnet"] = found.controlnet
        found.original.set_ip_adapter_scale(wanted.creative.style_weight)
        more |= {
            "control_image": image(pixels),
            "controlnet_conditioning_scale": wanted.creative.control,
            "ip_adapter_image": Image.fromarray(style),
        }
    pipeline = getattr(diffusers, kind)(**parts)
    pipeline.set_progress_bar_config(disable=True)

    def draw(shape: tuple[int, ...], *_arguments: Any, **_more: Any) -> torch.Tensor:
        return torch.from_numpy(random.standard_normal(tuple(shape), np.float32))

    for module in (vae, inspect.getmodule(type(pipeline)), inspect.getmodule(type(scheduler))):
        if hasattr(module, "randn_tensor"):
            monkeypatch.setattr(module, "randn_tensor", draw)
    (result,) = pipeline(
        wanted.prompt,
        strength=wanted.strength,
        num_inference_steps=wanted.steps,
        guidance_scale=wanted.guidance,
        negative_prompt=wanted.negative_prompt or None,
        clip_skip=wanted.creative.clip_skip or None,
        output_type="np",
        **more,
    ).images
    return np.asarray(result)


def image(pixels: np.ndarray) -> Any:
    """As diffusers takes it, in [0, 1]."""
    import torch  # noqa: PLC0415

    return torch.from_numpy(pixels).permute(2, 0, 1)[np.newaxis].float() / 255
