"""A latent upscaler made without PyTorch: the interface of the real one, and a result that is known.

A latent is the mean of a block of pixels; the UNet takes all noise away at once, so that what comes out is
what went in, twice as large, in blocks. The prompt makes it brighter: the more, the larger its tokens are.
"""

from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, pre_tokenizers

from onnx_models import LatentWeights, Model, WeightFile
from onnx_models.entries import new_folder, write_latent_entry
from onnx_models.files import sha256_of

FLOAT, INT64, UINT8 = TensorProto.FLOAT, TensorProto.INT64, TensorProto.UINT8
TOKENS = 8
CELL = 8
SCALING = 0.5
WORDS = ("nothing", "filler", "a", "cat", "ugly")
PER_TOKEN = 0.004
"""How much brighter a prompt makes the latents, for each number that its tokens have on average."""

Nodes: TypeAlias = list[tuple[str, str, str] | tuple[str, str, str, dict[str, Any]]]
"""Operator, inputs, outputs, attributes; two spaces leave an input out."""

OF_PROMPTS = ("CFGScale", "positivePrompt", "negativePrompt")
PARAMETERS = ("steps", "seed", *OF_PROMPTS, "strength", "scheduler", "colorFix")


def add_tiny_latent(directory: Path, *, spoilt: str = "", liveliness: float = 0.0) -> Model:
    """Add it to a directory of models, as `runware:502@1`, in windows of 128 pixels; see `write_parts`."""
    with new_folder(directory, "tiny") as folder:
        model = Model(
            name="sd-x2-latent-upscaler",
            air="runware:502@1",
            title="Tiny",
            description="A latent upscaler for tests.",
            family="latent",
            weights=(write_parts(folder, spoilt=spoilt, liveliness=liveliness),),
            factors=(2,),
            fractional=True,
            overlap=32,
            tile=128,
            price_per_megapixel=Decimal("0.002"),
            licence="MIT",
            parameters=PARAMETERS,
        )
        return write_latent_entry(directory, model, folder)


def add_promptless(directory: Path) -> Model:
    """Add one without a text encoder that goes over a picture once or twice."""
    with new_folder(directory, "promptless") as folder:
        model = Model(
            name="promptless",
            air="local:promptless@1",
            title="Promptless",
            description="A latent upscaler for tests.",
            family="latent",
            weights=(write_parts(folder, prompts=False),),
            factors=(2, 3, 4),
            fractional=True,
            passes=2,
            overlap=32,
            tile=128,
            price_per_megapixel=Decimal("0.001"),
            licence="MIT",
            parameters=tuple(each for each in PARAMETERS if each not in {*OF_PROMPTS}),
        )
        return write_latent_entry(directory, model, folder)


def write_parts(
    folder: Path, *, spoilt: str = "", liveliness: float = 0.0, prompts: bool = True
) -> LatentWeights:
    """Write its files.

    Args:
        folder: where to.
        spoilt: `nan` lets the UNet compute no numbers, `black` lets the decoder paint nothing.
        liveliness: how much of the noise stays in what the UNet takes for the picture.
        prompts: whether it has a text encoder; without one it takes 4 steps if not told.
    """
    parts = {
        "vae_encoder": vae_encoder(),
        "unet": _unet(liveliness, prompts=prompts, of_data=-1e9 if spoilt == "nan" else 1),
        "vae_decoder": vae_decoder(0.0 if spoilt == "black" else 0.5),
    }
    if prompts:
        parts["text_encoder"] = _text_encoder()
        tokenizer().save(str(folder / "tokenizer.json"))
    for name, graph in parts.items():
        onnx.save(graph, folder / f"{name}.onnx")
    files = {name: (WeightFile(f"{name}.onnx", sha256_of(folder / f"{name}.onnx")),) for name in parts}
    return LatentWeights(
        scale=2,
        **files,
        tokenizer=WeightFile("tokenizer.json", sha256_of(folder / "tokenizer.json")) if prompts else None,
        default_steps=20 if prompts else 4,
        channels=4,
        cell=CELL,
        multiple=2,
        scaling_factor=SCALING,
        beta_start=0.00085,
        beta_end=0.012,
        noise_steps=1000,
    )


def tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, "nothing"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.enable_truncation(TOKENS)
    tokenizer.enable_padding(length=TOKENS, pad_id=1, pad_token="filler")
    return tokenizer


def graph(
    nodes: Nodes,
    inputs: dict[str, tuple[int, Sequence[int | str]]],
    outputs: Sequence[str],
    values: dict[str, Any],
) -> onnx.ModelProto:
    """A graph of nodes."""
    made = [
        helper.make_node(kind, takes.split(" "), gives.split(" "), **(more[0] if more else {}))
        for kind, takes, gives, *more in nodes
    ]
    graph = helper.make_graph(
        made,
        "tiny",
        [helper.make_tensor_value_info(name, *kind) for name, kind in inputs.items()],
        [helper.make_tensor_value_info(name, FLOAT, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _text_encoder() -> onnx.ModelProto:
    nodes = [
        ("Cast", "tokens", "numbers", {"to": FLOAT}),
        ("Unsqueeze", "numbers last", "context"),
        ("ReduceMean", "numbers", "pooled", {"axes": [1], "keepdims": 1}),
    ]
    values = {"last": np.array([2], np.int64)}
    return graph(nodes, {"tokens": (INT64, ("n", TOKENS))}, ["context", "pooled"], values)


def encoded(output: str) -> Nodes:
    """The latents of `image`: its colours and their mean. They take the values `half` and `one`."""
    return [
        ("Cast", "image", "levels", {"to": FLOAT}),
        ("Transpose", "levels", "planes", {"perm": [0, 3, 1, 2]}),
        ("Div", "planes half", "wide"),
        ("Sub", "wide one", "centred"),
        ("AveragePool", "centred", "colours", {"kernel_shape": [CELL, CELL], "strides": [CELL, CELL]}),
        ("ReduceMean", "colours", "grey", {"axes": [1], "keepdims": 1}),
        ("Concat", "colours grey", output, {"axis": 1}),
    ]


def vae_encoder() -> onnx.ModelProto:
    nodes: Nodes = [*encoded("mean"), ("Mul", "mean zero", "deviation")]
    values = {"half": np.float32(127.5), "one": np.float32(1), "zero": np.float32(0)}
    return graph(nodes, {"image": (UINT8, ("n", "h", "w", 3))}, ["mean", "deviation"], values)


def _unet(liveliness: float, *, prompts: bool, of_data: float = 1) -> onnx.ModelProto:
    """Gives (image * root(sigma² + 1) - noisy) / sigma, with which the preconditioning gives the image.

    With a negative variance of data in place of 1 the root is no number. As it depends on the input, no
    runtime optimises it away; OpenVINO leaves out a multiplication by a constant that is none.
    """
    brighten = [
        ("Gather", "condition after", "pooled", {"axis": 1}),
        ("Mul", "pooled per_token", "bright"),
        ("ReduceMean", "context", "words", {"axes": [1, 2], "keepdims": 1}),
        ("Reshape", "words planes", "word"),
        ("Mul", "word zero", "unused"),
        ("Reshape", "bright planes", "brightness"),
        ("Add", "image brightness", "brighter"),
        ("Add", "brighter unused", "picture"),
    ]
    nodes = [
        ("Split", "noisy", "x image", {"axis": 1}),
        ("Mul", "time four", "logarithm"),
        ("Exp", "logarithm", "flat"),
        ("Reshape", "flat planes", "sigma"),
        ("Mul", "sigma sigma", "square"),
        ("Add", "square of_data", "variance"),
        ("Sqrt", "variance", "root"),
        *(brighten if prompts else [("Identity", "image", "picture")]),
        ("Mul", "picture root", "wanted"),
        ("Sub", "wanted x", "rest"),
        ("Div", "rest sigma", "clean"),
        ("Mul", "x liveliness", "alive"),
        ("Add", "clean alive", "denoised"),
    ]
    values = {
        "four": np.float32(4), "of_data": np.float32(of_data), "planes": np.array([-1, 1, 1, 1], np.int64),
        "after": np.array([128], np.int64), "per_token": np.float32(PER_TOKEN * SCALING),
        "zero": np.float32(0), "liveliness": np.float32(liveliness),
    }  # fmt: skip
    inputs: dict[str, tuple[int, Sequence[int | str]]] = {
        "noisy": (FLOAT, ("n", 8, "h", "w")), "time": (FLOAT, ("n",)),
    }  # fmt: skip
    if prompts:
        inputs |= {"context": (FLOAT, ("n", TOKENS, 1)), "condition": (FLOAT, ("n", 129))}
    return graph(nodes, inputs, ["denoised"], values)


def vae_decoder(contrast: float) -> onnx.ModelProto:
    nearest = {"mode": "nearest", "nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"}
    nodes = [
        ("Split", "latents parts", "colours grey", {"axis": 1}),
        ("Mul", "colours contrast", "narrow"),
        ("Add", "narrow middle", "planes"),
        ("Resize", "planes  scales", "large", nearest),
        ("Transpose", "large", "image", {"perm": [0, 2, 3, 1]}),
    ]
    values = {
        "parts": np.array([3, 1], np.int64),
        "contrast": np.float32(contrast),
        "middle": np.float32(contrast),
        "scales": np.array([1, 1, CELL, CELL], np.float32),
    }
    return graph(nodes, {"latents": (FLOAT, ("n", 4, "h", "w"))}, ["image"], values)
