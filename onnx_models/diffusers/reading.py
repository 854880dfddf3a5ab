"""Reads diffusers pipelines with the packages that wrote them: numbers only, no code.

The packages are large and come with `pip install 'tilewire[export]'`.
"""

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from onnx_models.diffusers.additions import Additions
from onnx_models.diffusers.folder import Files
from onnx_models.diffusers.ip_adapter import read_image_encoder
from onnx_models.diffusers.lora import merge
from onnx_models.diffusers.part import Components, Kind
from onnx_models.diffusers.schedule import Schedule
from onnx_models.errors import DownloadError, MissingConverterError, UnsuitableModelError, one_line

__all__ = ["as_unsuitable", "located", "read", "require", "tokenizer_json"]

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")

Step = Callable[[str], None]


def require() -> None:
    """Make sure that the packages are installed.

    Raises:
        MissingConverterError: One is not.
    """
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


def located(source: str, on_progress: Step) -> Path:
    """The directory of a pipeline, or of a component.

    Args:
        source: The directory, or the id of one on the Hugging Face hub, which is then fetched.
        on_progress: Called with each step, in words.

    Raises:
        MissingConverterError: What fetches it is not installed.
        DownloadError: It cannot be fetched.
        UnsuitableModelError: There is no such directory.
    """
    if Path(source).exists():
        return Path(source)
    if not _HUB_ID.fullmatch(source):
        raise UnsuitableModelError(f"there is no directory {source}")
    require()
    import huggingface_hub  # noqa: PLC0415 - comes with diffusers

    on_progress(f"fetching {source}")
    folders = ("text_encoder", "text_encoder_2", "unet", "vae", "controlnet")
    wanted = ["*.json", "*.txt", *(f"{name}/*.safetensors" for name in folders)]
    wanted.append("diffusion_pytorch_model*.safetensors")  # of a component alone
    unwanted = ["*non_ema*"]  # of the training
    try:
        found = huggingface_hub.snapshot_download(source, allow_patterns=wanted, ignore_patterns=unwanted)
        if (Path(found) / "config.json").exists() and not any(Path(found).glob("*.safetensors")):
            found = huggingface_hub.snapshot_download(source, allow_patterns=["diffusion_pytorch_model.bin"])
        return Path(found)
    except Exception as error:  # of its HTTP client, its own, or OSError
        raise DownloadError(
            f"there is no directory {source}, and the Hugging Face hub does not give it: "
            f"{one_line(error, 300)}"
        ) from error


def read(
    pipeline: Path,
    kind: Kind,
    schedule: Schedule,
    folders: Mapping[str, Path],
    files: Mapping[str, Files],
    additions: Additions,
) -> Components:
    """Read a pipeline.

    Args:
        pipeline: Its directory.
        kind: Its kind.
        schedule: What its scheduler does.
        folders: Of its components, and of what is added to them, by name.
        files: Which of them to read; see `check_files`.
        additions: What the user gives beside it.

    Raises:
        UnsuitableModelError: Something does not fit, or weights are missing.
    """
    import diffusers  # noqa: PLC0415
    import transformers  # noqa: PLC0415

    def load(loader: Any, name: str) -> Any:
        model, info = loader.from_pretrained(
            folders[name],
            variant=files[name].variant,
            use_safetensors=files[name].safetensors,
            local_files_only=True,
            output_loading_info=True,
        )
        if missing := sorted(info["missing_keys"]):  # which these packages fill with random numbers
            raise UnsuitableModelError(f"its {name} lacks {len(missing)} weights, such as {missing[0]}")
        return model.float().eval()

    loaders = {
        "text_encoder": transformers.CLIPTextModel,
        "text_encoder_2": transformers.CLIPTextModelWithProjection,
        "unet": diffusers.UNet2DConditionModel,
        "vae": diffusers.AutoencoderKL,
        "controlnet": diffusers.ControlNetModel,
    }
    networks = {name: load(loader, name) for name, loader in loaders.items() if name in folders}
    words = {
        name: transformers.CLIPTokenizerFast.from_pretrained(pipeline / name, local_files_only=True)
        for name in kind.components
        if name.startswith("tokenizer")
    }
    for lora in additions.loras:
        with as_unsuitable(f"the LoRA {lora.file.name} cannot be added"):
            changed = ("text_encoder", "text_encoder_2", "unet")
            merge(lora, {name: networks[name] for name in changed if name in networks})
    image_encoder = None
    if additions.ip_adapter is not None:
        encoder = load(transformers.CLIPVisionModelWithProjection, "image_encoder")
        with as_unsuitable("the IP-Adapter cannot be read"):
            image_encoder = read_image_encoder(additions.ip_adapter, encoder, networks["unet"])
    return Components(pipeline, schedule, **networks, **words, image_encoder=image_encoder)


def tokenizer_json(tokenizer: Any) -> str:
    """The tokenizer's file, with what CLIP does about length: cut, or filled up, to 77 tokens."""
    backend = tokenizer.backend_tokenizer
    backend.enable_truncation(tokenizer.model_max_length)
    backend.enable_padding(
        length=tokenizer.model_max_length, pad_id=tokenizer.pad_token_id, pad_token=tokenizer.pad_token
    )
    content: str = backend.to_str(pretty=True)
    return content


@contextlib.contextmanager
def as_unsuitable(what: str) -> Iterator[None]:
    """Say in one error what went wrong, whatever the packages raise.

    Args:
        what: What could not be done.

    Raises:
        UnsuitableModelError: In place of any other.
    """
    try:
        yield
    except UnsuitableModelError:
        raise
    except Exception as error:  # whatever the packages raise
        raise UnsuitableModelError(f"{what}: {one_line(error, 300)}") from error
