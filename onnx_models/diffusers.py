"""Stable Diffusion's latent upscaler (a diffusers directory) as ONNX files.

The pipeline is diffusers' `StableDiffusionLatentUpscalePipeline`: a text encoder (CLIP), a VAE that turns
images into latents and back, and a UNet that removes noise from latents. Each becomes a file of its own, its
tokenizer one more; `LatentWeights` says what is in each. Only numbers are read from the directory, no code.
The packages that read it are large and come with `pip install 'tilewire[export]'`.

The UNet's layers that halve and double the resolution make a kernel for as many channels as they are given,
which cannot be exported; as depthwise convolutions of the channels that they have they compute the same.
"""

import contextlib
import io
import json
import logging
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from onnx_models.errors import DownloadError, MissingConverterError, UnsuitableModelError
from onnx_models.files import sha256_of
from onnx_models.model import LatentWeights, WeightFile

if TYPE_CHECKING:
    import torch

__all__ = ["Exported", "OpenPart", "export_latent_upscaler"]

log = logging.getLogger(__name__)

_PIPELINE = "StableDiffusionLatentUpscalePipeline"
_COMPONENTS = ("text_encoder", "tokenizer", "unet", "vae", "scheduler")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_OPSET = 18
_LARGEST = 1_500_000_000  # bytes; protobuf's limit is 2 GB, with the graph
_NOISE_LEVELS = 128  # what precedes the pooled prompt in the UNet's condition
_TOLERANCE = {False: 1e-3, True: 5e-2}
"""By whether it is in half precision: the largest difference to PyTorch, relative to the largest value."""

Arrays = Sequence[NDArray[Any]]
Step = Callable[[str], None]
OpenPart = Callable[[Path], Callable[[Arrays], Arrays]]
"""Opens an ONNX file in some runtime: gives what computes its outputs of its inputs, in their order."""


class Exported(Struct, frozen=True):
    """What was written, and how far its files are from PyTorch."""

    weights: LatentWeights
    differences: dict[str, float]
    """By component: the largest one, relative to the largest value."""


class _Part(Struct, frozen=True):
    """A component to be exported."""

    name: str
    module: Any
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    axes: dict[str, dict[int, str]]
    """By input, those that are dynamic."""
    examples: tuple[Arrays, ...]
    """Inputs of two sizes: the first to export with, all to compare with."""


def export_latent_upscaler(
    source: str,
    directory: Path,
    open_part: OpenPart,
    *,
    half: bool = False,
    on_progress: Step = lambda _step: None,
) -> Exported:
    """Write the ONNX files of a pipeline into a directory, and compare each with PyTorch.

    Args:
        source: A diffusers directory, or the id of one on the Hugging Face hub, which is then fetched.
        directory: Where to; it exists.
        open_part: The runtime to compare with PyTorch.
        half: Whether to compute in half precision, which needs half the memory.
        on_progress: Called with each step, in words.

    Raises:
        MissingConverterError: PyTorch, diffusers or transformers is not installed.
        DownloadError: It cannot be fetched.
        UnsuitableModelError: It is no such pipeline, or not one that can be run here.

    """
    pipeline = _located(source, on_progress)
    _check_directory(pipeline)
    scheduler = _scheduler(pipeline)
    _require()
    on_progress("reading")
    with _quietly(), _as_unsuitable("it cannot be read"):
        text_encoder, tokenizer, unet, vae = _read(pipeline)
    _check_architecture(text_encoder, tokenizer, unet, vae)
    files: dict[str, tuple[WeightFile, ...]] = {}
    differences: dict[str, float] = {}
    for part in _parts(text_encoder, unet, vae, half=half):
        on_progress(f"exporting {part.name}")
        with _quietly(), _as_unsuitable(f"its {part.name} cannot be exported"):
            expected = [_run(part.module, example) for example in part.examples]
            _export(part, directory, half=half)
        differences[part.name] = _difference(open_part, directory, part, expected)
        if not differences[part.name] <= _TOLERANCE[half]:  # nor with NaN
            raise UnsuitableModelError(
                f"its {part.name} computes something else than PyTorch: "
                f"they differ by {differences[part.name]:.1e} of the largest value"
            )
        names = [f"{part.name}.onnx", f"{part.name}.onnx.data"]
        files[part.name] = tuple(
            WeightFile(name, sha256_of(directory / name)) for name in names if (directory / name).exists()
        )
    file = directory / "tokenizer.json"
    file.write_text(_tokenizer_json(tokenizer), encoding="utf-8")
    weights = LatentWeights(
        scale=2,
        text_encoder=files["text_encoder"],
        vae_encoder=files["vae_encoder"],
        unet=files["unet"],
        vae_decoder=files["vae_decoder"],
        tokenizer=WeightFile(file.name, sha256_of(file)),
        channels=vae.config.latent_channels,
        cell=2 ** (len(vae.config.block_out_channels) - 1),
        multiple=2 ** (len(unet.config.block_out_channels) - 1),
        scaling_factor=vae.config.scaling_factor,
        beta_start=scheduler["beta_start"],
        beta_end=scheduler["beta_end"],
        noise_steps=scheduler["num_train_timesteps"],
    )
    return Exported(weights, differences)


def _require() -> None:
    try:
        import torch  # noqa: F401, PLC0415, I001 - the first: the others look whether it is there
        import onnxscript  # noqa: F401, PLC0415
        import transformers  # noqa: F401, PLC0415
        import diffusers  # noqa: F401, PLC0415
    except ImportError as error:
        raise MissingConverterError(
            f"to export a diffusers pipeline takes PyTorch, diffusers and transformers ({error.name} is "
            "missing): pip install 'tilewire[export]'"
        ) from error


def _located(source: str, on_progress: Step) -> Path:
    if Path(source).exists():
        return Path(source)
    if not _HUB_ID.fullmatch(source):
        raise UnsuitableModelError("there is no such directory")
    _require()
    import huggingface_hub  # noqa: PLC0415 - comes with diffusers

    on_progress("fetching")
    wanted = ["*.json", "*.txt", *(f"{name}/*.safetensors" for name in ("text_encoder", "unet", "vae"))]
    try:
        return Path(huggingface_hub.snapshot_download(source, allow_patterns=wanted))
    except Exception as error:  # of its HTTP client, its own, or OSError
        raise DownloadError(
            f"there is no such directory, and the Hugging Face hub does not give it: {_line(error)}"
        ) from error


def _check_directory(pipeline: Path) -> None:
    """Tell a pipeline from anything else by its index."""
    index = _json(pipeline / "model_index.json", "it is not a directory of diffusers")
    if (found := index.get("_class_name")) != _PIPELINE:
        raise UnsuitableModelError(f"it is a {found}, not a {_PIPELINE}")
    for name in _COMPONENTS:
        if not (pipeline / name).is_dir() or not index.get(name):
            raise UnsuitableModelError(f"its component {name} is missing")


def _scheduler(pipeline: Path) -> dict[str, Any]:
    """The noise that the UNet was trained with."""
    config = _json(pipeline / "scheduler" / "scheduler_config.json", "its component scheduler is missing")
    known: dict[str, set[Any]] = {
        "beta_schedule": {"scaled_linear"},
        "prediction_type": {"sample", "original_sample"},
        "timestep_spacing": {"linspace"},
        "interpolation_type": {"linear"},
        "rescale_betas_zero_snr": {False},
        "trained_betas": {None},
    }
    for name, values in known.items():
        if name in config and config[name] not in values:
            raise UnsuitableModelError(f"its scheduler has {name} = {config[name]!r}, which is not offered")
    for name in ("beta_start", "beta_end", "num_train_timesteps"):
        if not isinstance(config.get(name), int | float):
            raise UnsuitableModelError(f"its scheduler has no {name}")
    return config


def _json(path: Path, otherwise: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise UnsuitableModelError(f"{otherwise}: {path.name} cannot be read") from error
    except ValueError as error:
        raise UnsuitableModelError(f"{path.name} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise UnsuitableModelError(f"{path.name} is not a JSON object")
    return content


def _read(pipeline: Path) -> tuple[Any, Any, Any, Any]:
    import diffusers  # noqa: PLC0415
    import transformers  # noqa: PLC0415

    text_encoder = transformers.CLIPTextModel.from_pretrained(pipeline / "text_encoder", dtype="float32")
    tokenizer = transformers.CLIPTokenizer.from_pretrained(pipeline / "tokenizer")
    unet = diffusers.UNet2DConditionModel.from_pretrained(pipeline, subfolder="unet")
    vae = diffusers.AutoencoderKL.from_pretrained(pipeline, subfolder="vae")
    return text_encoder.float().eval(), tokenizer, unet.float().eval(), vae.float().eval()


def _check_architecture(text_encoder: Any, tokenizer: Any, unet: Any, vae: Any) -> None:
    """See that the components fit together as those of the latent upscaler do."""
    channels = vae.config.latent_channels
    width = text_encoder.config.hidden_size
    wanted = {
        "unet takes noise and image": (unet.config.in_channels, 2 * channels),
        "unet gives latents and a variance": (unet.config.out_channels, channels + 1),
        "unet's cross attention": (unet.config.cross_attention_dim, width),
        "unet's condition": (unet.config.time_cond_proj_dim, _NOISE_LEVELS + width),
        "vae's image": (vae.config.in_channels, 3),
        "text_encoder's tokens": (text_encoder.config.max_position_embeddings, tokenizer.model_max_length),
    }
    for what, (found, expected) in wanted.items():
        if found != expected:
            raise UnsuitableModelError(f"wrong architecture: {what}: {found}, not {expected}")


def _parts(text_encoder: Any, unet: Any, vae: Any, *, half: bool) -> Iterator[_Part]:
    """The components with inputs and outputs as the engine wants them."""
    modules = _modules(text_encoder, unet, vae, half=half)
    random = np.random.default_rng(0)
    tokens = text_encoder.config.max_position_embeddings
    width, cell = text_encoder.config.hidden_size, 2 ** (len(vae.config.block_out_channels) - 1)
    side = 2 * 2 ** (len(unet.config.block_out_channels) - 1)  # the smallest that the UNet takes

    def normal(*shape: int) -> NDArray[np.float32]:
        return random.standard_normal(shape, np.float32)

    def ids(count: int) -> NDArray[np.int64]:
        found = random.integers(0, text_encoder.config.vocab_size - 2, (count, tokens))
        found[:, -1] = text_encoder.config.eos_token_id
        return found

    def noisy(count: int, height: int, columns: int) -> Arrays:
        shape = count, unet.config.in_channels, height, columns
        condition = normal(count, _NOISE_LEVELS + width)
        return normal(*shape), normal(count), normal(count, tokens, width), condition

    batch = {0: "batch"}
    area = {0: "batch", 2: "height", 3: "width"}
    yield _Part(
        "text_encoder", modules["text_encoder"], ("tokens",), ("context", "pooled"),
        {"tokens": batch}, ((ids(2),), (ids(1),)),
    )  # fmt: skip
    images = [random.integers(0, 256, (count, cell * h, cell * w, 3), np.uint8) for count, h, w in _SIZES]
    yield _Part(
        "vae_encoder", modules["vae_encoder"], ("image",), ("mean", "deviation"),
        {"image": {0: "batch", 1: "height", 2: "width"}}, tuple((image,) for image in images),
    )  # fmt: skip
    yield _Part(
        "unet", modules["unet"], ("noisy", "time", "context", "condition"), ("denoised",),
        {"noisy": area, "time": batch, "context": batch, "condition": batch},
        (noisy(2, side, 2 * side), noisy(1, 2 * side, side)),
    )  # fmt: skip
    yield _Part(
        "vae_decoder", modules["vae_decoder"], ("latents",), ("image",), {"latents": area},
        tuple((normal(count, vae.config.latent_channels, h, w),) for count, h, w in _SIZES),
    )  # fmt: skip


_SIZES = ((2, 3, 4), (1, 5, 3))


def _modules(text_encoder: Any, unet: Any, vae: Any, *, half: bool) -> "dict[str, torch.nn.Module]":
    """Each takes and gives float32 (images uint8, tokens int64), whatever it computes in."""
    import torch  # noqa: PLC0415

    kind = torch.float16 if half else torch.float32
    _fix_channels(unet)

    class TextEncoder(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = text_encoder

        def forward(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            found = self.model(tokens, output_hidden_states=True)
            return found.hidden_states[-1].float(), found.pooler_output.float()

    class VaeEncoder(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = vae

        def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            planes = image.to(kind).permute(0, 3, 1, 2) * (2 / 255) - 1
            moments = self.model.quant_conv(self.model.encoder(planes)).float()
            mean, logarithm = moments.chunk(2, dim=1)
            return mean, torch.exp(0.5 * logarithm.clamp(-30, 20))

    class Unet(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = unet

        def forward(
            self, noisy: torch.Tensor, time: torch.Tensor, context: torch.Tensor, condition: torch.Tensor
        ) -> torch.Tensor:
            found = self.model(
                noisy.to(kind), time, context.to(kind), timestep_cond=condition.to(kind), return_dict=False
            )[0]
            return found[:, :-1].float()  # the last channel is a variance that nobody uses

    class VaeDecoder(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = vae

        def forward(self, latents: torch.Tensor) -> torch.Tensor:
            planes = self.model.decoder(self.model.post_quant_conv(latents.to(kind)))
            return (planes.float() / 2 + 0.5).permute(0, 2, 3, 1)

    found: dict[str, torch.nn.Module] = {
        "text_encoder": TextEncoder(),
        "vae_encoder": VaeEncoder(),
        "unet": Unet(),
        "vae_decoder": VaeDecoder(),
    }
    return {name: module.eval().to(kind) for name, module in found.items()}


def _fix_channels(unet: Any) -> None:
    """Replace the layers that halve and double the resolution by depthwise convolutions."""
    import torch  # noqa: PLC0415
    from diffusers.models.downsampling import KDownsample2D  # noqa: PLC0415
    from diffusers.models.upsampling import KUpsample2D  # noqa: PLC0415

    class Depthwise(torch.nn.Module):  # type: ignore[misc]
        def __init__(self, layer: Any, channels: int) -> None:
            super().__init__()
            self.up = isinstance(layer, KUpsample2D)
            self.pad, self.mode, self.channels = layer.pad, layer.pad_mode, channels
            self.register_buffer("kernel", layer.kernel[None, None].repeat(channels, 1, 1, 1))

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            functional = torch.nn.functional
            if not self.up:
                padded = functional.pad(inputs, (self.pad,) * 4, self.mode)
                return functional.conv2d(padded, self.kernel, stride=2, groups=self.channels)
            padded = functional.pad(inputs, ((self.pad + 1) // 2,) * 4, self.mode)
            return functional.conv_transpose2d(
                padded, self.kernel, stride=2, padding=self.pad * 2 + 1, groups=self.channels
            )

    channels: dict[Any, int] = {}
    layers = [layer for layer in unet.modules() if isinstance(layer, KDownsample2D | KUpsample2D)]
    hooks = [
        layer.register_forward_pre_hook(lambda layer, inputs: channels.update({layer: inputs[0].shape[1]}))
        for layer in layers
    ]
    config = unet.config
    side = 2 * 2 ** (len(config.block_out_channels) - 1)
    with torch.inference_mode():
        unet(
            torch.zeros(1, config.in_channels, side, side),
            torch.zeros(1),
            torch.zeros(1, 1, config.cross_attention_dim),
            timestep_cond=torch.zeros(1, config.time_cond_proj_dim),
        )
    for hook in hooks:
        hook.remove()
    for parent in list(unet.modules()):
        for name, layer in list(parent.named_children()):
            if layer in channels:
                setattr(parent, name, Depthwise(layer, channels[layer]))


def _run(module: Any, inputs: Arrays) -> list[NDArray[Any]]:
    """What PyTorch computes."""
    import torch  # noqa: PLC0415

    with torch.inference_mode():
        found = module(*map(torch.from_numpy, inputs))
    return [each.numpy() for each in (found if isinstance(found, tuple) else (found,))]


def _export(part: _Part, directory: Path, *, half: bool) -> None:
    import torch  # noqa: PLC0415

    size = sum(each.numel() for each in part.module.parameters()) * (2 if half else 4)
    shapes = {name: dict.fromkeys(part.axes[name], torch.export.Dim.DYNAMIC) for name in part.inputs}
    with torch.inference_mode():
        torch.onnx.export(
            part.module,
            tuple(map(torch.from_numpy, part.examples[0])),
            directory / f"{part.name}.onnx",
            input_names=part.inputs,
            output_names=part.outputs,
            dynamic_shapes=shapes,
            dynamo=True,
            opset_version=_OPSET,
            external_data=size > _LARGEST,
            verbose=False,
        )


def _difference(open_part: OpenPart, directory: Path, part: _Part, expected: Sequence[Arrays]) -> float:
    """How far the file is from PyTorch: the largest difference, relative to the largest value."""
    try:
        run = open_part(directory / f"{part.name}.onnx")
        found = [run(each) for each in part.examples]
    except Exception as error:  # whatever the runtime raises
        raise UnsuitableModelError(f"its {part.name} does not run as ONNX: {_line(error)}") from error
    worst = 0.0
    for sizes in zip(found, expected, strict=True):
        for computed, reference in zip(*sizes, strict=True):
            if computed.shape != reference.shape:
                return float("inf")
            difference = np.abs(computed - reference).max() / max(np.abs(reference).max(), 1e-6)
            worst = float(np.fmax(worst, difference)) if np.isfinite(difference) else float("inf")
    return worst


def _tokenizer_json(tokenizer: Any) -> str:
    """The tokenizer's file, with what CLIP does about length: cut, or filled up, to 77 tokens."""
    backend = tokenizer.backend_tokenizer
    backend.enable_truncation(tokenizer.model_max_length)
    backend.enable_padding(
        length=tokenizer.model_max_length, pad_id=tokenizer.pad_token_id, pad_token=tokenizer.pad_token
    )
    content: str = backend.to_str(pretty=True)
    return content


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Keep what these packages print, and warn of, from the terminal."""
    sink = io.StringIO()
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(sink),
        contextlib.redirect_stderr(sink),
    ):
        warnings.simplefilter("ignore")
        previous = logging.root.manager.disable
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(previous)


@contextlib.contextmanager
def _as_unsuitable(what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # whatever the packages raise
        raise UnsuitableModelError(f"{what}: {_line(error)}") from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
