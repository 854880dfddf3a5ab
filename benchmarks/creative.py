"""Creative upscalers: time a step and a megapixel, and memory, against diffusers with the same weights.

    python -m benchmarks.creative [--side PIXELS] [--steps N] [--rounds N] [--width 1..10] [--device cpu|cuda]
                                  [--fp16] [--window PIXELS] [--clients N ...] [--keep DIRECTORY]

Needs `pip install 'tilewire[bench,export,latent]'`. diffusers saves a Stable Diffusion 1.5 and a ControlNet
with random numbers, with a part of their channels unless `--width 10` says otherwise; they are exported, and
both draw the same photographs at twice their size, with guidance and with the ControlNet, for 1 client and
for 8, each in a process of its own and in turn. Photographs are doubled by a Lanczos filter in both. What
diffusers draws whole Tilewire draws in windows where it is larger than `--window`. To export takes minutes:
with `--keep` that is done once.

On a CPU Tilewire computes in bf16 where the processor has it, whatever the files are in; diffusers is
measured in single precision, as it comes, and in bfloat16.
"""

import argparse
import asyncio
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console

from benchmarks.latent import CLIENTS, ROUNDS, measure
from benchmarks.latent_peers import Run, Subject, prepare_torch
from benchmarks.report import Report, gpu_name
from engines import Creative, Diffusion, Picture, Upscaler, find_devices, open_on_cpu
from onnx_models import Facts, export_model, load_catalogue
from onnx_models.export import Wanted

Pixels = NDArray[np.uint8]

SIDES = {"cpu": 128, "cuda": 512}
WIDTH = 3
STEPS = 6
PROMPT, NEGATIVE = "a photograph", "blurry"
GUIDANCE, CONTROL = 7.0, 0.8


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.creative")
    parser.add_argument("--side", type=int, help="of the photographs, in pixels")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--width", type=int, default=WIDTH, help="10 is Stable Diffusion's")
    parser.add_argument("--device", choices=list(SIDES), default="cuda" if gpu_name() else "cpu")
    parser.add_argument("--fp16", action="store_true", help="half precision; always on a GPU")
    parser.add_argument("--window", type=int, help="of Tilewire's windows, in pixels; default: 512")
    parser.add_argument("--clients", type=int, nargs="+", default=CLIENTS, metavar="N")
    parser.add_argument("--keep", type=Path, help="where the pipeline is kept, and what is made of it")
    options = parser.parse_args()
    side = options.side or SIDES[options.device]
    half = options.fp16 or options.device == "cuda"
    with tempfile.TemporaryDirectory() as passing:
        folder = options.keep or Path(passing)
        subject = exported(folder, options.width, options.device, options.window, half=half)
        report = Report(
            "creative",
            "runtime".rjust(30), "clients", "s a step", "ratio", "s a megapixel", "ratio", "peak MB",
            device=gpu_name() if subject.device == "cuda" else None,
        )  # fmt: skip
        openings = {"Tilewire": partial(tilewire, subject), "diffusers": partial(diffusers, subject)}
        if not half:
            openings["diffusers, bfloat16"] = partial(diffusers, replace(subject, half=True))
        measure(report, openings, side, options.steps, options.rounds, options.clients)
        report.say(
            f"Stable Diffusion 1.5's architecture, {options.width}/10 of its channels, with a ControlNet and "
            f"guidance, {'half' if half else 'single'} precision, {options.steps} steps, windows of "
            f"{subject.model.tile} pixels; {side} × {side} pixels ×2, medians, rounds: {options.rounds}"
        )
        report.keep()


def exported(
    folder: Path, width: int, device: Literal["cpu", "cuda"], window: int | None, *, half: bool
) -> Subject:
    """The pipeline, and what Tilewire makes of it."""
    from benchmarks.creative_pipeline import save_pipeline  # noqa: PLC0415 - needs diffusers

    name = f"random-{width}{'-half' if half else ''}"
    pipeline, controlnet = folder / str(width) / "pipeline", folder / str(width) / "controlnet"
    models = load_catalogue(folder / "models")
    if name not in (model.name for model in models):
        with Console(stderr=True).status("exporting the pipeline"):
            save_pipeline(pipeline, controlnet, width)
            export_model(
                str(pipeline),
                Facts(name=name, air=f"local:{name}@1"),
                models,
                folder / "models",
                lambda path: open_on_cpu(path).run_part,
                wanted=Wanted(controlnet=str(controlnet)),
                half=half,
            )
    model = load_catalogue(folder / "models").get(name)
    if window is not None:
        model = msgspec.structs.replace(model, tile=window, overlap=window // 4)
    return Subject(model, pipeline, device, half)


def tilewire(subject: Subject) -> Run:
    """Each client's picture is a task of its own; their steps meet in the scheduler."""
    upscaler = Upscaler(find_devices(subject.device), Path())
    loop = asyncio.new_event_loop()

    async def all_of(photographs: Sequence[Pixels], steps: int) -> list[Pixels]:
        tasks = [
            upscaler.upscale(
                Picture(pixels=pixels),
                subject.model,
                width=2 * pixels.shape[1],
                height=2 * pixels.shape[0],
                account=str(client),
                diffusion=Diffusion(
                    steps=steps,
                    seed=client,
                    guidance=GUIDANCE,
                    prompt=PROMPT,
                    negative_prompt=NEGATIVE,
                    creative=Creative(control=CONTROL),
                ),
            )
            for client, pixels in enumerate(photographs)
        ]
        return [result.pixels for result in await asyncio.gather(*tasks)]

    return lambda photographs, steps: loop.run_until_complete(all_of(photographs, steps))


def diffusers(subject: Subject) -> Run:
    """The pipeline as diffusers has it."""
    kind = prepare_torch(subject)
    from diffusers import ControlNetModel, StableDiffusionControlNetImg2ImgPipeline  # noqa: PLC0415 - optional

    pipeline: Any = StableDiffusionControlNetImg2ImgPipeline.from_pretrained(
        subject.pipeline,
        controlnet=ControlNetModel.from_pretrained(subject.pipeline.parent / "controlnet"),
        safety_checker=None,
    )
    pipeline.to(subject.device, kind)
    pipeline.set_progress_bar_config(disable=True)

    def run(photographs: Sequence[Pixels], steps: int) -> list[Pixels]:
        results = []
        for pixels in photographs:
            height, width, _ = pixels.shape
            image = Image.fromarray(pixels).resize((2 * width, 2 * height), Image.Resampling.LANCZOS)
            found = pipeline(
                prompt=PROMPT,
                negative_prompt=NEGATIVE,
                image=image,
                control_image=image,
                strength=1.0,
                num_inference_steps=steps,
                guidance_scale=GUIDANCE,
                controlnet_conditioning_scale=CONTROL,
                output_type="np",
            )
            results.append(np.rint(found.images[0] * 255).astype(np.uint8))
        return results

    return run


if __name__ == "__main__":
    main()
