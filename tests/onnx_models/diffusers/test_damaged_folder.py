"""Whatever is wrong with a diffusers folder, or what goes with it, is one message and no other error."""

import json
import shutil
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnx_models import (
    Catalogue,
    CatalogueError,
    Facts,
    MissingConverterError,
    UnsuitableModelError,
    Wanted,
    export_model,
)
from onnx_models.diffusers import export as exporting
from onnx_models.diffusers.folder import Files, check_files

REPLACEMENTS = (None, float("nan"), [], "text", 0, -1, 1e30)
NETWORK = {"block_out_channels": [8, 16], "in_channels": 8, "out_channels": 5, "cross_attention_dim": 32}
FILES: dict[str, Any] = {
    "model_index.json": {
        "_class_name": "StableDiffusionLatentUpscalePipeline",
        **{name: ["diffusers", name] for name in ("text_encoder", "tokenizer", "unet", "vae", "scheduler")},
    },
    "scheduler/scheduler_config.json": {
        "_class_name": "EulerDiscreteScheduler",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "num_train_timesteps": 1000,
        "prediction_type": "sample",
        "steps_offset": 0,
        "timestep_spacing": "linspace",
        "trained_betas": None,
    },
    "text_encoder/config.json": {"hidden_size": 32, "vocab_size": 99, "num_hidden_layers": 3},
    "unet/config.json": NETWORK,
    "vae/config.json": {"latent_channels": 4, "block_out_channels": [8, 8], "scaling_factor": 0.2},
    "tokenizer/tokenizer.json": {"version": "1.0"},
}
WEIGHTS = {
    "text_encoder": "model.safetensors",
    "unet": "diffusion_pytorch_model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
}
BESIDE: dict[str, Any] = {
    "controlnet/config.json": {
        "_class_name": "ControlNetModel",
        "block_out_channels": [8, 16],
        "conditioning_channels": 3,
        "controlnet_conditioning_channel_order": "rgb",
        "cross_attention_dim": 32,
        "global_pool_conditions": False,
    },
    "adapter/image_encoder/config.json": {"image_size": 224, "projection_dim": 16, "hidden_size": 24},
}
"""A ControlNet and an IP-Adapter, in folders of their own."""


with_diffusers = pytest.mark.skipif(
    any(find_spec(name) is None for name in ("diffusers", "onnxscript", "torch", "transformers")),
    reason="to export needs PyTorch, diffusers and transformers: pip install 'tilewire[export]'",
)


class ReachedError(Exception):
    """All that is checked before PyTorch is needed was in order."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is in order as far as it is looked at without PyTorch, which there is not."""

    def reached() -> None:
        raise ReachedError

    monkeypatch.setattr(exporting, "require", reached)
    folder = tmp_path / "pipeline"
    _write(folder, FILES)
    for component, name in WEIGHTS.items():
        (folder / component / name).write_bytes(b"x")
    return folder


@pytest.fixture
def beside(folder: Path) -> Wanted:
    """What goes with a folder that is one of Stable Diffusion then."""
    changes = {
        "model_index.json": {"_class_name": "StableDiffusionPipeline"},
        "scheduler/scheduler_config.json": {"_class_name": "PNDMScheduler", "prediction_type": "epsilon"},
        "unet/config.json": {"in_channels": 4, "out_channels": 4, "sample_size": 64},
    }
    _write(folder, {name: FILES[name] | values for name, values in changes.items()})
    home = folder.parent
    _write(home, BESIDE)
    (home / "controlnet" / WEIGHTS["unet"]).write_bytes(b"x")
    (home / "adapter" / "image_encoder" / "model.safetensors").write_bytes(b"x")
    write_adapter(home / "adapter" / "ip-adapter_a.safetensors")
    return Wanted(str(home / "controlnet"), home / "adapter")


def _write(folder: Path, files: dict[str, Any]) -> None:
    for name, values in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(values), encoding="utf-8")


def write_adapter(file: Path, first: str = "proj.weight", shape: tuple[int, ...] = (64, 16)) -> None:
    """Write the header of an IP-Adapter."""
    header = {f"image_proj.{first}": {"shape": shape}, "ip_adapter.1.to_k_ip.weight": {"shape": [8, 16]}}
    content = json.dumps(header).encode()
    file.write_bytes(len(content).to_bytes(8, "little") + content)


def leaves(values: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The place of every value in JSON, lists and objects included."""
    if path:
        yield path
    items = (
        values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    )
    for key, value in items:
        yield from leaves(value, (*path, key))


def replaced(values: Any, path: tuple[Any, ...], new: Any) -> Any:
    changed = json.loads(json.dumps(values))
    place = changed
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = new
    return changed


def export(folder: Path, catalogue: Catalogue, wanted: Wanted | None = None) -> None:
    export_model(
        str(folder),
        Facts(),
        catalogue,
        folder.parent / "models",
        lambda _path: pytest.fail("PyTorch is not there"),
        wanted=wanted,
    )


def test_every_value_replaced_and_every_file_damaged_is_one_message(
    folder: Path, catalogue: Catalogue
) -> None:
    assert refusals(folder, FILES, lambda: export(folder, catalogue)) > 200
    assert not list(folder.parent.glob("models/[!.]*"))


def test_so_it_is_with_what_goes_beside_a_folder(folder: Path, beside: Wanted, catalogue: Catalogue) -> None:
    assert refusals(folder.parent, BESIDE, lambda: export(folder, catalogue, beside)) > 40


def refusals(folder: Path, files: dict[str, Any], export: Callable[[], None]) -> int:
    """Damage every file and see that the export is one message, or goes on; how often it is a message."""
    with pytest.raises(ReachedError):
        export()
    refused = 0
    for name, values in files.items():
        contents = [
            json.dumps(replaced(values, path, new)) for path in leaves(values) for new in REPLACEMENTS
        ]
        good = (folder / name).read_text("utf-8")
        for content in [*contents, "", good[: len(good) // 2], "[]", "[" * 100_000, "\0"]:
            (folder / name).write_text(content, encoding="utf-8")
            with pytest.raises((UnsuitableModelError, ReachedError)) as raised:
                export()
            refused += raised.type is UnsuitableModelError
            assert "\n" not in str(raised.value)
        (folder / name).write_bytes(b"\xff")
        with pytest.raises((UnsuitableModelError, ReachedError)):
            export()
        (folder / name).unlink()
        with pytest.raises(UnsuitableModelError):
            export()
        (folder / name).write_text(good, encoding="utf-8")
    return refused


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"_class_name": "ControlNetUnionModel"}, "controlnet has _class_name = 'ControlNetUnionModel'"),
        ({"_class_name": "FluxControlNetModel"}, "= 'FluxControlNetModel', which is not offered"),
        ({"conditioning_channels": 4}, "conditioning_channels = 4"),
        ({"global_pool_conditions": True}, "global_pool_conditions = True"),
    ],
)
def test_a_controlnet_for_something_else_is_refused_by_name(
    folder: Path, beside: Wanted, catalogue: Catalogue, values: dict[str, Any], told: str
) -> None:
    _write(folder.parent, {"controlnet/config.json": BESIDE["controlnet/config.json"] | values})
    with pytest.raises(UnsuitableModelError, match=told):
        export(folder, catalogue, beside)


@pytest.mark.usefixtures("beside")
def test_a_controlnet_whose_name_is_not_that_of_one_for_tiles_is_refused(
    folder: Path, catalogue: Catalogue
) -> None:
    controlnet = folder.parent / "controlnet"
    for name, what in (("control_v11p_sd15_canny", "canny"), ("sd-controlnet-seg", "seg")):
        controlnet = controlnet.rename(folder.parent / name)
        with pytest.raises(UnsuitableModelError, match=f"the ControlNet {name} is for {what} by its name"):
            export(folder, catalogue, Wanted(str(controlnet)))
    controlnet = controlnet.rename(folder.parent / "tile-and-depth")
    with pytest.raises(ReachedError):
        export(folder, catalogue, Wanted(str(controlnet)))


def test_an_ip_adapter_that_is_not_read_is_refused_by_name(
    folder: Path, beside: Wanted, catalogue: Catalogue
) -> None:
    home = folder.parent / "adapter"
    one, two = home / "ip-adapter_a.safetensors", home / "ip-adapter_b.safetensors"
    for first, told in (
        ("proj.3.weight", "ip-adapter_a.safetensors is one for whole faces"),
        ("perceiver_resampler.proj_in.weight", "is a FaceID plus one"),
        ("proj.0.weight", "is a FaceID one"),
        ("something", "no IP-Adapter whose layout is known"),
    ):
        write_adapter(one, first)
        with pytest.raises(UnsuitableModelError, match=told):
            export(folder, catalogue, beside)
    write_adapter(one, shape=(64, 17))
    with pytest.raises(UnsuitableModelError, match="another image encoder: projection_dim 17, not 16"):
        export(folder, catalogue, beside)
    write_adapter(one, "proj_in.weight", (8, 24))
    write_adapter(two)
    with pytest.raises(UnsuitableModelError, match=r"give one of them: ip-adapter_a.*, ip-adapter_b"):
        export(folder, catalogue, beside)
    for file in (one, two):
        with pytest.raises(ReachedError):
            export(folder, catalogue, Wanted(ip_adapter=file))
    two.unlink()
    one.rename(one.with_suffix(".bin"))
    with pytest.raises(UnsuitableModelError, match=r"a pickle \(.bin\)"):
        export(folder, catalogue, beside)


def test_what_a_latent_upscaler_has_no_place_for_is_refused(folder: Path, catalogue: Catalogue) -> None:
    for wanted, told in (
        (Wanted(str(folder)), "takes no ControlNet: StableDiffusionPipeline and"),
        (Wanted(ip_adapter=folder), "takes no IP-Adapter"),
        (Wanted(loras=["a.safetensors"]), "takes no LoRA"),
    ):
        with pytest.raises(UnsuitableModelError, match=told):
            export(folder, catalogue, wanted)


def test_a_lora_that_is_none_is_reported_before_the_export(
    folder: Path, beside: Wanted, catalogue: Catalogue
) -> None:
    for lora, told in (
        ("none.safetensors:0.5", "no LoRA none"),
        (str(folder / "vae" / WEIGHTS["vae"]), "broken"),
    ):
        with pytest.raises(UnsuitableModelError, match=told):
            export(folder, catalogue, Wanted(beside.controlnet, loras=[lora]))


@pytest.mark.parametrize(
    ("component", "damage", "told"),
    [
        ("unet", lambda file: file.unlink(), "its unet has no weights"),
        ("vae", lambda file: file.write_bytes(b""), "its vae has no weights"),
        (
            "text_encoder",
            lambda file: file.rename(file.with_suffix(".bin")),
            "its text_encoder has no weights",
        ),
    ],
)
def test_weights_that_are_not_read_are_named(
    folder: Path, catalogue: Catalogue, component: str, damage: Any, told: str
) -> None:
    damage(folder / component / WEIGHTS[component])
    with pytest.raises(UnsuitableModelError, match=told):
        export(folder, catalogue)


def test_where_there_are_only_fp16_variants_or_files_of_pytorch_they_are_taken(folder: Path) -> None:
    folders = {name: folder / name for name in ("text_encoder", "tokenizer", "unet", "vae", "scheduler")}
    for component, name in (
        ("unet", "diffusion_pytorch_model.fp16.safetensors"),
        ("vae", "diffusion_pytorch_model.bin"),
    ):
        (folder / component / WEIGHTS[component]).rename(folder / component / name)
    text = folder / "text_encoder" / WEIGHTS["text_encoder"]
    text.with_name("pytorch_model.fp16.bin").write_bytes(b"x")
    expected = {"text_encoder": Files(None, True), "unet": Files("fp16", True), "vae": Files(None, False)}
    assert check_files(folders) == expected
    text.unlink()
    assert check_files(folders)["text_encoder"] == Files("fp16", False)


def test_a_window_that_is_too_small_is_reported_before_the_export(folder: Path, catalogue: Catalogue) -> None:
    for facts in (Facts(tile=2), Facts(tile=64, overlap=40)):
        with pytest.raises(CatalogueError, match="is too small for an overlap of"):
            export_model(str(folder), facts, catalogue, folder.parent / "models", lambda _path: None)


@with_diffusers
@pytest.mark.parametrize("component", ["text_encoder", "vae"])
def test_weights_that_are_missing_are_not_made_up(
    catalogue: Catalogue, tmp_path: Path, component: str
) -> None:
    from safetensors.torch import load_file, save_file  # noqa: PLC0415 - needs PyTorch

    from tests.onnx_models.support import tiny_pipeline  # noqa: PLC0415

    tiny_pipeline.save_tiny_x4_pipeline(tmp_path / "pipeline")
    file = tmp_path / "pipeline" / component / WEIGHTS[component]
    weights = load_file(file)
    gone = min(weights)
    del weights[gone]
    save_file(weights, file, {"format": "pt"})
    with pytest.raises(UnsuitableModelError, match=f"its {component} lacks 1 weights, such as .*{gone}"):
        export(tmp_path / "pipeline", catalogue)


@with_diffusers
def test_a_pickle_is_read_and_its_code_is_not_run(
    catalogue: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch  # noqa: PLC0415
    from safetensors.torch import load_file  # noqa: PLC0415

    from tests.onnx_models.support import tiny_creative  # noqa: PLC0415 - needs PyTorch

    def reached(*_arguments: object, **_more: object) -> None:
        raise ReachedError

    monkeypatch.setattr(exporting, "write", reached)
    folder, tile = tmp_path / "pipeline", tmp_path / "tile"
    tiny_creative.save_tiny_sd1(folder)
    tiny_creative.save_tiny_controlnet(tile, folder)
    numbers = load_file(tile / WEIGHTS["unet"])
    (tile / WEIGHTS["unet"]).unlink()
    torch.save(numbers, tile / "diffusion_pytorch_model.bin")
    with pytest.raises(UnsuitableModelError, match="cannot be exported: ReachedError"):
        export(folder, catalogue, Wanted(str(tile)))

    class Code:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "run",)

    torch.save(numbers | {"more": Code()}, tile / "diffusion_pytorch_model.bin")
    with pytest.raises(UnsuitableModelError, match="it cannot be read"):
        export(folder, catalogue, Wanted(str(tile)))
    assert not (tmp_path / "run").exists()


@with_diffusers
@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("kind", ["x2", "x4", "xl"])
def test_nothing_that_pytorch_finds_in_a_folder_is_another_error(
    catalogue: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Each value of a real folder is replaced once; what is still in order is left before the export."""
    from tests.onnx_models.support import tiny_creative, tiny_pipeline  # noqa: PLC0415 - needs PyTorch

    save = {
        "x2": tiny_pipeline.save_tiny_pipeline,
        "x4": tiny_pipeline.save_tiny_x4_pipeline,
        "xl": tiny_creative.save_tiny_xl,
    }

    def reached(*_arguments: object, **_more: object) -> None:
        raise ReachedError

    monkeypatch.setattr(exporting, "write", reached)
    folder = tmp_path / "pipeline"
    save[kind](folder)
    shutil.rmtree(folder / "tokenizer-files")
    random = np.random.default_rng(7)
    with pytest.raises(UnsuitableModelError, match="cannot be exported: ReachedError"):
        export(folder, catalogue)
    for file in sorted(file for file in folder.rglob("*") if file.is_file()):
        good = file.read_bytes()
        damaged = [b"", good[: len(good) // 2]]
        if file.suffix == ".json" and len(good) < 10_000:
            values = json.loads(good)
            damaged += [
                json.dumps(replaced(values, path, REPLACEMENTS[random.integers(len(REPLACEMENTS))])).encode()
                for path in leaves(values)
            ]
        for content in damaged:
            file.write_bytes(content)
            with pytest.raises((UnsuitableModelError, MissingConverterError)) as raised:
                export(folder, catalogue)
            assert "\n" not in str(raised.value)
        file.write_bytes(good)
