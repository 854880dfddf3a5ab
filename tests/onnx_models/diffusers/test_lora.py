"""LoRAs: how their keys are read, what is refused, and that what is added is what diffusers adds."""

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from onnx_models import UnsuitableModelError
from onnx_models.diffusers.lora import Lora, original_name, parse_lora, read_layers

ATTENTION = "down_blocks.1.attentions.0.transformer_blocks.0.attn1"
UNET = ATTENTION.replace(".", "_")
TEXT = "text_model.encoder.layers.2.self_attn.q_proj"


def write(file: Path, *keys: str, notes: dict[str, str] | None = None) -> Lora:
    """A file with these tensors of 4 x 4 zeros."""
    header: dict[str, object] = {
        key: {"dtype": "F32", "shape": [4, 4], "data_offsets": [64 * place, 64 * place + 64]}
        for place, key in enumerate(keys)
    }
    content = json.dumps(header | ({"__metadata__": notes} if notes else {})).encode()
    file.write_bytes(len(content).to_bytes(8, "little") + content + bytes(64 * len(keys)))
    return Lora(file)


@pytest.mark.parametrize(
    ("ends", "alpha"),
    [
        ((f"lora_unet_{UNET}_to_q.lora_down.weight", f"lora_unet_{UNET}_to_q.lora_up.weight"), True),
        ((f"unet.{ATTENTION}.to_q.lora_A.weight", f"unet.{ATTENTION}.to_q.lora_B.weight"), False),
        ((f"unet.{ATTENTION}.to_q.lora_A.one.weight", f"unet.{ATTENTION}.to_q.lora_B.one.weight"), False),
        ((f"unet.{ATTENTION}.to_q.lora.down.weight", f"unet.{ATTENTION}.to_q.lora.up.weight"), False),
        (
            (
                f"unet.{ATTENTION}.processor.to_q_lora.down.weight",
                f"unet.{ATTENTION}.processor.to_q_lora.up.weight",
            ),
            False,
        ),
        (
            (f"{ATTENTION}.processor.to_q_lora.down.weight", f"{ATTENTION}.processor.to_q_lora.up.weight"),
            False,
        ),
    ],
)
def test_each_layout_names_the_same_layer(tmp_path: Path, ends: tuple[str, str], alpha: bool) -> None:
    keys = (*ends, f"lora_unet_{UNET}_to_q.alpha") if alpha else ends
    layers, _ = read_layers(write(tmp_path / "a.safetensors", *keys))
    (layer,) = layers.values()
    assert (layer.target, layer.name, layer.down, layer.up) == ("unet", f"{UNET}_to_q", *ends)
    assert bool(layer.alpha) == alpha


def test_layers_of_text_encoders_are_told_apart(tmp_path: Path) -> None:
    flat = TEXT.replace(".", "_")
    names = {
        f"lora_te_{flat}": "text_encoder",
        f"lora_te1_{flat}": "text_encoder",
        f"lora_te2_{flat}": "text_encoder_2",
        f"text_encoder.{TEXT}": "text_encoder",
        f"text_encoder_2.{TEXT}": "text_encoder_2",
        f"unet.{ATTENTION}.processor.to_out": "unet",
    }
    for name, target in names.items():
        middle = "_lora." if target == "unet" else ".lora_"
        lora = write(tmp_path / "a.safetensors", *(f"{name}{middle}{side}.weight" for side in ("down", "up")))
        ((place, _),) = read_layers(lora)[0].items()
        expected = f"{UNET}_to_out_0" if target == "unet" else "encoder_layers_2_self_attn_q_proj"
        assert place == (target, expected)


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        (("lora_unet_x.hada_w1_a",), "a.safetensors is a LoHa, which is not offered"),
        (("lora_unet_x.lokr_w1",), "is a LoKr"),
        (
            ("lora_unet_x.lora_down.weight", "lora_unet_x.lora_up.weight", "lora_unet_x.dora_scale"),
            "is a DoRA",
        ),
        (("lora_unet_x.lora_mid.weight",), "three matrices"),
        (("something.weight",), "has a layout that is not known: something.weight"),
        (("lora_unet_x.lora_down.weight",), "lacks a matrix of x"),
        (("lora_unet_x.alpha",), "lacks a matrix of x"),
        ((), "is empty"),
    ],
)
def test_what_is_no_lora_is_refused_by_name(tmp_path: Path, keys: tuple[str, ...], told: str) -> None:
    with pytest.raises(UnsuitableModelError, match=told):
        read_layers(write(tmp_path / "a.safetensors", *keys))


def test_a_damaged_file_is_one_message(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    lora = write(file, "lora_unet_x.lora_down.weight")
    good = file.read_bytes()
    for content in (
        b"",
        good[:20],
        b"\xff" * 100,
        b"\x02" + bytes(7) + b"[]",
        b"\x09" + bytes(7) + b'{"a": {}}',
    ):
        file.write_bytes(content)
        with pytest.raises(UnsuitableModelError, match="broken"):
            read_layers(lora)
    file.unlink()
    with pytest.raises(UnsuitableModelError, match="cannot be read"):
        read_layers(lora)


def test_a_file_may_have_a_weight(tmp_path: Path) -> None:
    file = tmp_path / "more:1.safetensors"
    file.touch()
    assert parse_lora(str(file)) == Lora(file, 1.0)
    assert parse_lora(f"{file}:-0.5") == Lora(file, -0.5)
    for text, told in (
        (f"{file}:much", "is a number from -10 to 10, not 'much'"),
        (f"{file}:nan", "not 'nan'"),
        (f"{file}:11", "not '11'"),
        (str(tmp_path / "none.safetensors"), "there is no LoRA"),
        (str(tmp_path), "there is no LoRA"),
    ):
        with pytest.raises(UnsuitableModelError, match=told):
            parse_lora(text)
    pickle = tmp_path / "more.pt"
    pickle.touch()
    with pytest.raises(UnsuitableModelError, match="others may hold code"):
        parse_lora(str(pickle))


@pytest.mark.parametrize(
    ("name", "original"),
    [
        ("conv_in", "input_blocks.0.0"),
        ("down_blocks.0.resnets.1.conv1", "input_blocks.2.0.in_layers.2"),
        ("down_blocks.0.downsamplers.0.conv", "input_blocks.3.0.op"),
        ("down_blocks.1.attentions.0.proj_in", "input_blocks.4.1.proj_in"),
        (
            "down_blocks.2.attentions.1.transformer_blocks.9.ff.net.2",
            "input_blocks.8.1.transformer_blocks.9.ff.net.2",
        ),
        ("mid_block.resnets.1.time_emb_proj", "middle_block.2.emb_layers.1"),
        ("mid_block.attentions.0.proj_out", "middle_block.1.proj_out"),
        ("up_blocks.0.attentions.2.proj_in", "output_blocks.2.1.proj_in"),
        ("up_blocks.0.upsamplers.0.conv", "output_blocks.2.2.conv"),
        ("up_blocks.2.resnets.2.conv_shortcut", "output_blocks.8.0.skip_connection"),
        ("add_embedding.linear_2", "label_emb.0.2"),
        ("conv_out", "out.2"),
    ],
)
def test_layers_of_xl_go_by_the_names_of_its_own_program(name: str, original: str) -> None:
    """Those of `sd_xl_base_1.0.safetensors`, whose blocks have two layers."""
    assert original_name(name, 2) == original


needs_torch = pytest.mark.skipif(
    any(find_spec(name) is None for name in ("diffusers", "torch", "transformers")),
    reason="needs PyTorch and diffusers: pip install 'tilewire[export]'",
)


@needs_torch
@pytest.mark.parametrize("layout", ["kohya", "diffusers", "original"])
def test_what_is_added_is_what_diffusers_adds(tmp_path: Path, layout: str) -> None:
    import diffusers  # noqa: PLC0415
    import torch  # noqa: PLC0415
    from safetensors.torch import save_file  # noqa: PLC0415

    from onnx_models.diffusers.lora import merge  # noqa: PLC0415
    from tests.onnx_models.support import tiny_creative  # noqa: PLC0415

    pytest.importorskip("peft", reason="diffusers adds LoRAs with peft")
    xl = layout == "original"
    (tiny_creative.save_tiny_xl if xl else tiny_creative.save_tiny_sd1)(tmp_path / "pipeline")
    own = diffusers.DiffusionPipeline.from_pretrained(tmp_path / "pipeline")
    theirs = diffusers.DiffusionPipeline.from_pretrained(tmp_path / "pipeline")
    weights = random_lora(own, layout)
    save_file(weights, tmp_path / "lora.safetensors")
    names = ("unet", "text_encoder", *(("text_encoder_2",) if xl else ()))
    before = own.unet.conv_in.weight.clone()
    merge(Lora(tmp_path / "lora.safetensors", 0.7), {name: getattr(own, name) for name in names})
    assert torch.equal(own.unet.conv_in.weight, before)
    theirs.load_lora_weights(tmp_path, weight_name="lora.safetensors")
    theirs.fuse_lora(lora_scale=0.7)
    theirs.unload_lora_weights()
    for name in names:
        found, expected = (dict(getattr(each, name).named_parameters()) for each in (own, theirs))
        changed = 0
        original = dict(
            getattr(
                diffusers.DiffusionPipeline.from_pretrained(tmp_path / "pipeline"), name
            ).named_parameters()
        )
        for key, value in expected.items():
            np.testing.assert_allclose(found[key].detach(), value.detach(), atol=1e-5, err_msg=key)
            changed += not torch.equal(value, original[key])
        assert changed > 3


def random_lora(pipeline: "object", layout: str) -> dict[str, "object"]:
    """Of each attention's query and each text encoder's, of rank 3 with an alpha of 2."""
    import torch  # noqa: PLC0415

    generator = torch.Generator().manual_seed(6)
    prefixes = {"unet": "lora_unet_", "text_encoder": "lora_te_", "text_encoder_2": "lora_te2_"}
    if layout == "original":
        prefixes["text_encoder"] = "lora_te1_"
    weights: dict[str, object] = {}
    for component, prefix in prefixes.items():
        network = getattr(pipeline, component, None)
        if network is None:
            continue
        for name, layer in network.named_modules():
            if not name.endswith((".to_q", ".q_proj", ".out_proj", "proj_in")):
                continue
            inner = torch.randn(3, *layer.weight.shape[1:], generator=generator) * 0.2
            outer = torch.randn(layer.weight.shape[0], 3, *[1] * (inner.ndim - 2), generator=generator) * 0.2
            whole = name if component == "unet" or name.startswith("text_model.") else f"text_model.{name}"
            if layout == "diffusers":
                weights |= {
                    f"{component}.{whole}.lora_A.weight": inner,
                    f"{component}.{whole}.lora_B.weight": outer,
                }
                continue
            if layout == "original" and component == "unet":
                whole = original_name(whole, network.config.layers_per_block)
            key = prefix + whole.replace(".", "_")
            weights |= {
                f"{key}.lora_down.weight": inner,
                f"{key}.lora_up.weight": outer,
                f"{key}.alpha": torch.tensor(2.0),
            }
    return weights


@needs_torch
def test_a_lora_for_another_model_is_refused(tmp_path: Path) -> None:
    import torch  # noqa: PLC0415
    from safetensors.torch import save_file  # noqa: PLC0415

    from onnx_models.diffusers.lora import merge  # noqa: PLC0415

    network = torch.nn.ModuleDict({"a": torch.nn.Linear(4, 5)})
    file = tmp_path / "a.safetensors"
    cases = {
        "fit nothing, such as lora_te_b.lora_down.weight": ("b", (2, 4), (5, 2)),
        r"a is \[5, 2\] times \[2, 3\], not \[5, 4\]": ("a", (2, 3), (5, 2)),
        r"a is \[4, 2\] times": ("a", (2, 4), (4, 2)),
        r"a is \[5, 1\] times": ("a", (2, 4), (5, 1)),
    }
    for told, (name, down, up) in cases.items():
        save_file(
            {
                f"lora_te_{name}.lora_down.weight": torch.ones(down),
                f"lora_te_{name}.lora_up.weight": torch.ones(up),
            },
            file,
        )
        with pytest.raises(UnsuitableModelError, match=told):
            merge(Lora(file), {"text_encoder": network})
    good = {
        "text_encoder.a.lora_A.weight": torch.ones(2, 4),
        "text_encoder.a.lora_B.weight": torch.ones(5, 2),
    }
    before = network["a"].weight.clone()
    save_file(
        good, file, {"lora_adapter_metadata": json.dumps({"text_encoder.lora_alpha": 4, "text_encoder.r": 2})}
    )
    merge(Lora(file, 0.5), {"text_encoder": network})
    np.testing.assert_allclose((network["a"].weight - before).detach(), 0.5 * 4 / 2 * 2, atol=1e-6)
    for notes in ('{"unet.use_dora": true}', "[", "[1]"):
        save_file(good, file, {"lora_adapter_metadata": notes})
        with pytest.raises(UnsuitableModelError, match=r"use_dora, which is not offered|notes in the LoRA"):
            merge(Lora(file), {"text_encoder": network})
