"""What runs a latent upscaler: Tilewire, and diffusers in PyTorch with the same weights.

Each is a function that opens it and gives a `Run`: photographs, one of each client, go in and come out twice
as large, all uint8 arrays in the computer's memory. One that cannot run here raises `AbsentError`.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers import cores
from benchmarks.workers import AbsentError
from engines import Diffusion, Picture, Upscaler, find_devices
from onnx_models import Model

__all__ = ["PEERS", "Run", "Subject", "prepare_torch", "tilewire"]

Pixels = NDArray[np.uint8]
Run = Callable[[Sequence[Pixels], int], list[Pixels]]
"""Photographs, (H, W, 3) each, and the number of steps → (2 H, 2 W, 3) each."""


@dataclass(frozen=True)
class Subject:
    """What is to be run, and on what."""

    model: Model
    pipeline: Path
    """What diffusers reads, and the model was made of."""
    device: Literal["cpu", "cuda"]
    half: bool
    """Whether in half precision."""


def tilewire(model: Model, device: Literal["cpu", "cuda"]) -> Run:
    """Each client's picture is a task of its own; their steps meet in the scheduler."""
    upscaler = Upscaler(find_devices(device), Path())
    loop = asyncio.new_event_loop()

    async def all_of(photographs: Sequence[Pixels], steps: int) -> list[Pixels]:
        tasks = [
            upscaler.upscale(
                Picture(pixels),
                model,
                width=2 * pixels.shape[1],
                height=2 * pixels.shape[0],
                account=str(client),
                diffusion=Diffusion(steps=steps, seed=client),
            )
            for client, pixels in enumerate(photographs)
        ]
        return [result.pixels for result in await asyncio.gather(*tasks)]

    return lambda photographs, steps: loop.run_until_complete(all_of(photographs, steps))


def prepare_torch(subject: Subject) -> Any:
    """Have PyTorch use all cores and diffusers be quiet.

    Returns:
        What PyTorch computes the subject in: half precision is float16 on a GPU, bfloat16 on a CPU.

    Raises:
        AbsentError: it is not installed, or finds no GPU.
    """
    try:
        import torch  # noqa: PLC0415 - optional, and the first: the other looks whether it is there
        from diffusers.utils.logging import disable_progress_bar, set_verbosity_error  # noqa: PLC0415
        from transformers.utils import logging as of_transformers  # noqa: PLC0415
    except ImportError as error:
        raise AbsentError(f"{error.name} is not installed") from None
    if subject.device == "cuda" and not torch.cuda.is_available():
        raise AbsentError("this PyTorch finds no GPU")
    logging.getLogger("torch").setLevel(logging.ERROR)
    disable_progress_bar()
    of_transformers.disable_progress_bar()
    set_verbosity_error()
    torch.set_num_threads(cores())
    torch.backends.cudnn.benchmark = True
    halved = torch.float16 if subject.device == "cuda" else torch.bfloat16
    return halved if subject.half else torch.float32


def diffusers(subject: Subject, *, compiled: bool = False, together: bool = False) -> Run:
    """The pipeline as diffusers has it.

    Args:
        subject: what to run.
        compiled: whether PyTorch compiles the UNet and the decoder.
        together: whether all clients' pictures are one batch, as if they had come at one moment; else they
            come one after the other.
    """
    kind = prepare_torch(subject)
    import torch  # noqa: PLC0415 - optional
    from diffusers import StableDiffusionLatentUpscalePipeline  # noqa: PLC0415 - optional

    pipeline: Any = StableDiffusionLatentUpscalePipeline.from_pretrained(subject.pipeline)
    pipeline.to(subject.device, kind)
    pipeline.set_progress_bar_config(disable=True)
    if compiled:
        pipeline.unet = torch.compile(pipeline.unet)
        pipeline.vae.decode = torch.compile(pipeline.vae.decode)

    def of(photographs: Sequence[Pixels], steps: int) -> list[Pixels]:
        images = [pixels.astype(np.float32) / 255 for pixels in photographs]
        found = pipeline(
            prompt=[""] * len(images),
            image=images,
            num_inference_steps=steps,
            guidance_scale=1.0,
            output_type="np",
        )
        return [np.rint(image * 255).astype(np.uint8) for image in found.images]

    def run(photographs: Sequence[Pixels], steps: int) -> list[Pixels]:
        if together:
            return of(photographs, steps)
        return [result for pixels in photographs for result in of([pixels], steps)]

    return run


Peer = Callable[[Subject], Run]

PEERS: dict[str, Peer] = {
    "Tilewire": lambda subject: tilewire(subject.model, subject.device),
    "diffusers": diffusers,
    "diffusers, compiled": lambda subject: diffusers(subject, compiled=True),
    "diffusers, one batch": lambda subject: diffusers(subject, together=True),
    "diffusers, one batch, compiled": lambda subject: diffusers(subject, compiled=True, together=True),
}
"""What is compared; Tilewire first."""
