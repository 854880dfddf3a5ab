"""A creative upscaler made without PyTorch, whose result is known.

Its UNet holds a picture for one of independent normal numbers: `denoised` below is what it computes. What it
expects on average is 0, brighter with a prompt, and with a ControlNet the picture that it is shown.
"""

from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_models import CreativeWeights, Model, WeightFile
from onnx_models.entries import new_folder, write_latent_entry
from onnx_models.files import sha256_of
from tests.onnx_models.support.tiny_latent import (
    CELL,
    FLOAT,
    INT64,
    SCALING,
    TOKENS,
    UINT8,
    Nodes,
    encoded,
    graph,
    tokenizer,
    vae_decoder,
    vae_encoder,
)

PER_TOKEN = 0.01
"""What a prompt adds to what the UNet expects, for each number that its tokens have on average."""

PER_STYLE = 0.5
"""What a white style image adds with a weight of 1; a black one adds nothing."""

SIDE, OVERLAP = 128, 32
CLIP_SKIPS = 2


def add_tiny_creative(directory: Path, *, control: bool = True, style: bool = False) -> Model:
    """Add it to a directory of models, as `runware:500@1`; see `write_parts`."""
    with new_folder(directory, "clarity") as folder:
        weights = write_parts(folder, control=control, style=style)
        model = Model(
            name="clarity",
            air="runware:500@1",
            title="Tiny Clarity",
            description="A creative upscaler for tests.",
            family="creative",
            weights=(weights,),
            factors=(2,),
            fractional=True,
            overlap=OVERLAP,
            tile=SIDE,
            price_per_megapixel=Decimal("0.01"),
            licence="MIT",
            parameters=weights.offered,
        )
        return write_latent_entry(directory, model, folder)


def write_parts(folder: Path, *, control: bool = True, style: bool = False) -> CreativeWeights:
    """Write its files.

    Args:
        folder: where to.
        control: whether it has a ControlNet.
        style: whether it has an IP-Adapter.
    """
    parts = {
        "text_encoder": _text_encoder(),
        "vae_encoder": vae_encoder(),
        "unet": _unet(control=control, style=style),
        "vae_decoder": vae_decoder(0.5),
    }
    if control:
        parts["controlnet"] = _controlnet()
    if style:
        parts["image_encoder"] = _image_encoder()
    tokenizer().save(str(folder / "tokenizer.json"))
    for name, made in parts.items():
        onnx.save(made, folder / f"{name}.onnx")
    files = {name: (WeightFile(f"{name}.onnx", sha256_of(folder / f"{name}.onnx")),) for name in parts}
    return CreativeWeights(
        **files,
        tokenizer=WeightFile("tokenizer.json", sha256_of(folder / "tokenizer.json")),
        largest_clip_skip=CLIP_SKIPS,
        channels=4,
        cell=CELL,
        multiple=2,
        scaling_factor=SCALING,
        beta_start=0.00085,
        beta_end=0.012,
        noise_steps=1000,
    )


def denoised(
    noisy: NDArray[np.float32], level: float, expected: NDArray[np.float32] | float
) -> NDArray[np.float32]:
    """Latents without their noise, if their numbers are normal around what is expected, of deviation 1."""
    return (noisy + level**2 * expected) / (1 + level**2)


def _text_encoder() -> onnx.ModelProto:
    """The tokens themselves, less for each layer that is skipped."""
    nodes: Nodes = [
        ("Cast", "tokens", "numbers", {"to": FLOAT}),
        ("Cast", "skip", "layers", {"to": FLOAT}),
        ("Unsqueeze", "layers last", "column"),
        ("Sub", "numbers column", "less"),
        ("Unsqueeze", "less end", "context"),
    ]
    values = {"last": np.array([1], np.int64), "end": np.array([2], np.int64)}
    inputs: dict[str, tuple[int, Sequence[int | str]]] = {
        "tokens": (INT64, ("n", TOKENS)), "skip": (INT64, ("n",)),
    }  # fmt: skip
    return graph(nodes, inputs, ["context"], values)


def _controlnet() -> onnx.ModelProto:
    """The latents of the image, on the way down and in the middle half of them each."""
    nodes: Nodes = [
        *encoded("latents"),
        ("Mul", "latents share", "down_0"),
        ("Identity", "down_0", "seen"),
        *_unused(("noisy", "time", "context"), "seen", "mid"),
    ]
    values = {"half": np.float32(127.5), "one": np.float32(1), "share": np.float32(SCALING / 2), **_UNUSED}
    return graph(nodes, _ASKED | {"image": (UINT8, ("n", "H", "W", 3))}, ["down_0", "mid"], values)


def _image_encoder() -> onnx.ModelProto:
    """Two tokens: the brightness of the image, and its half."""
    nodes: Nodes = [
        ("Cast", "image", "levels", {"to": FLOAT}),
        ("ReduceMean", "levels", "mean", {"axes": [1, 2, 3], "keepdims": 0}),
        ("Reshape", "mean tokens", "grey"),
        ("Mul", "grey two", "image_tokens"),
        ("Mul", "image_tokens zero", "unconditional"),
    ]
    values = {
        "tokens": np.array([-1, 1, 1], np.int64),
        "two": np.array([[[2 / 255], [0]]], np.float32) * PER_STYLE,
        "zero": np.float32(0),
    }
    return graph(nodes, {"image": (UINT8, ("n", 224, 224, 3))}, ["image_tokens", "unconditional"], values)


def _unet(*, control: bool, style: bool) -> onnx.ModelProto:
    """Gives s m / root(s² + 1), with which the preconditioning gives (x + s² m) / (1 + s²)."""
    inputs = dict(_ASKED)
    nodes: Nodes = [
        ("ReduceMean", "context", "words", {"axes": [1, 2], "keepdims": 1}),
        ("Reshape", "words planes", "word"),
        ("Mul", "word per_token", "of_prompt"),
        ("Mul", "noisy zero", "nothing"),
        ("Add", "nothing of_prompt", "expected_0"),
    ]
    expected = "expected_0"
    if control:
        inputs |= dict.fromkeys(("down_0", "mid"), (FLOAT, ("n", 4, "h", "w")))
        nodes += [("Sum", f"{expected} down_0 mid", "expected_1")]
        expected = "expected_1"
    if style:
        inputs |= {"image_tokens": (FLOAT, ("n", "k", 1)), "image_weight": (FLOAT, ("n",))}
        nodes += [
            ("ReduceMean", "image_tokens", "looks", {"axes": [1, 2], "keepdims": 1}),
            ("Reshape", "looks planes", "look"),
            ("Reshape", "image_weight planes", "weight"),
            ("Mul", "look weight", "of_style"),
            ("Add", f"{expected} of_style", "expected_2"),
        ]
        expected = "expected_2"
    nodes += [
        ("Mul", "time four", "logarithm"),
        ("Exp", "logarithm", "flat"),
        ("Reshape", "flat planes", "sigma"),
        ("Mul", "sigma sigma", "square"),
        ("Add", "square one", "variance"),
        ("Sqrt", "variance", "root"),
        ("Div", "sigma root", "share"),
        ("Mul", f"{expected} share", "denoised"),
    ]
    values = {
        "four": np.float32(4), "one": np.float32(1), "zero": np.float32(0),
        "planes": np.array([-1, 1, 1, 1], np.int64), "per_token": np.float32(PER_TOKEN),
    }  # fmt: skip
    return graph(nodes, inputs, ["denoised"], values)


_ASKED: dict[str, tuple[int, Sequence[int | str]]] = {
    "noisy": (FLOAT, ("n", 4, "h", "w")),
    "time": (FLOAT, ("n",)),
    "context": (FLOAT, ("n", TOKENS, 1)),
}

_UNUSED = {"no": np.float32(0), "one_each": np.array([-1, 1, 1, 1], np.int64)}


def _unused(inputs: Sequence[str], found: str, result: str) -> Nodes:
    """Let inputs count for nothing: a graph must not lack what its kind takes."""
    nodes: Nodes = []
    for name in inputs:
        axes = {"noisy": [1, 2, 3], "context": [1, 2]}.get(name)
        mean = f"mean_{name}"
        nodes.append(
            ("ReduceMean", name, mean, {"axes": axes, "keepdims": 0}) if axes else ("Identity", name, mean)
        )
        nodes += [
            ("Reshape", f"{mean} one_each", f"flat_{name}"),
            ("Mul", f"flat_{name} no", f"no_{name}"),
            ("Add", f"{found} no_{name}", f"with_{name}"),
        ]
        found = f"with_{name}"
    return [*nodes, ("Identity", found, result)]
