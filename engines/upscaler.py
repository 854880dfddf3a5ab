"""The public face: a picture in, a larger picture out.

1. `TileUpscaler` or, for models that work in latent space, `LatentUpscaler` makes it larger; or
   `CreativeUpscaler` draws anew what another model has enlarged.
2. With test-time augmentation that is done for all flips and turns of the picture; the mean is the result.
3. Of two models that are to be blended, both do so at once.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from engines.activity import Activity
from engines.auxiliaries import Auxiliaries
from engines.codecs.picture import Picture
from engines.creative.controls import Controls
from engines.creative.upscaler import resized
from engines.devices.cores import usable_cores
from engines.devices.device import Device, Distant
from engines.ensemble import TURNS, Blend, Mean, Seamless, blended, wraps_of
from engines.errors import ModelError
from engines.latent.diffusion import Diffusion
from engines.latent.prompts import prompts_of
from engines.loading import LoadedModels
from engines.progress import Progress, beside, rising, within
from engines.ray.cluster import RayCluster
from engines.scheduling.calibration import Calibration
from engines.scheduling.executor import Executor
from engines.threads import Threads
from engines.tile_upscaler import TileUpscaler
from engines.tiling.regions import OnRegion, report_whole
from engines.tiling.tiles import Wraps
from onnx_models import CreativeWeights, LatentWeights, Model

__all__ = ["Upscaler"]


@dataclass(frozen=True, slots=True)
class _Layer:
    """One of the models that a result is made by, and what is wanted of it."""

    model: Model
    diffusion: Diffusion | None
    denoise: int | None
    enlarger: Model | None
    styles: Sequence[Picture]


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What is wanted of all models."""

    size: tuple[int, int]
    account: str
    keep_hidden: bool
    wraps: Wraps


class Upscaler:
    """Upscales pictures on the devices of this machine, or of a cluster. Close it when done.

    Attributes:
        auxiliaries: what other models do before an upscale, or after it.
    """

    def __init__(
        self,
        devices: Iterable[Device],
        model_directory: Path,
        *,
        stand_in: Callable[[], Device] | None = None,
    ) -> None:
        """Start the threads of the devices; nothing is loaded yet.

        Args:
            devices: where networks run, at least one, unless it joins a cluster.
            model_directory: where ONNX files are kept, built there on first use.
            stand_in: finds the device that takes over when all are lost; it may raise anything.
        """
        calibration = Calibration(model_directory / "batches.json")
        self._executor = Executor(devices, calibration=calibration, stand_in=stand_in)
        self._cluster: RayCluster | None = None
        self._pixels = Threads(usable_cores(), "pixels")
        self._models = LoadedModels(self._executor, model_directory, self._pixels)
        self._resampler = Threads(1, "resampler")
        self._tiles = TileUpscaler(self._executor, self._models, self._pixels, self._resampler)
        self.auxiliaries = Auxiliaries(self._executor, self._models, self._pixels, self._resampler)

    @property
    def devices(self) -> tuple[Device, ...]:
        """Those that take tiles."""
        return self._executor.devices

    @property
    def nodes(self) -> set[str] | None:
        """The machines of the cluster whose devices take tiles, for people; None without a cluster."""
        if self._cluster is None:
            return None
        return {device.node for device in self.devices if isinstance(device, Distant)}

    def join(self, cluster: RayCluster) -> None:
        """Upscale on the devices of a cluster, as they come and go; close it with this. Blocks for seconds.

        While it has none the stand-in is used.
        """
        self._cluster = cluster
        cluster.start(self._executor)

    @property
    def usable(self) -> bool:
        """Whether it can upscale: not closed, and at least one device still works."""
        return self._executor.usable

    @property
    def stand_in(self) -> Device | None:
        """The device that took over when all others were lost, if that has happened."""
        return self._executor.stand_in

    def activity(self) -> Activity:
        """What the devices have done, and what waits for them. Blocks for milliseconds."""
        return self._executor.activity(self._models.names)

    def load(self, model: Model, on_progress: Progress | None = None) -> None:
        """Build and load all native scales of a model, so that the first task does not wait for it. Blocks.

        Args:
            model: an entry of the catalogue.
            on_progress: called in this thread with the finished share, rising to 1.

        Raises:
            ModelError: if one of them cannot be built or loaded.
        """
        self._models.load(model, on_progress)

    def cuts(self, model: Model, diffusion: Diffusion) -> list[str]:
        """Which prompts, of `prompt` and `negative_prompt`, are longer than the model takes. Blocks.

        Raises:
            ModelError: if the model takes no prompts, or its tokenizer cannot be read.
        """
        if model.diffusion is None or model.diffusion.tokenizer is None:
            raise ModelError(f"{model.name} takes no prompts")
        prompts = prompts_of(Path(model.diffusion.tokenizer.path))
        return [name for name in ("prompt", "negative_prompt") if prompts.is_cut(getattr(diffusion, name))]

    async def upscale(
        self,
        picture: Picture,
        model: Model,
        *,
        width: int,
        height: int,
        account: str = "",
        diffusion: Diffusion | None = None,
        keep_hidden: bool = False,
        denoise: int | None = None,
        seamless: Seamless | None = None,
        tta: bool = False,
        blend: Blend | None = None,
        enlarger: Model | None = None,
        styles: Sequence[Picture] = (),
        on_start: Callable[[], None] | None = None,
        on_progress: Progress | None = None,
        on_region: OnRegion | None = None,
    ) -> Picture:
        """The picture at `width` × `height` pixels, its colour profile and metadata unchanged.

        Cancelling the call frees the tiles that have not run yet.

        Args:
            picture: what to upscale.
            model: an entry of the catalogue.
            width: the wanted one, in pixels; beyond the model's scale it takes several passes.
            height: likewise.
            account: whose share of the device the tiles use.
            diffusion: what is wanted of a latent or creative upscaler; other models know nothing of it.
            keep_hidden: upscale the colours of pixels that are not seen as they are, as textures want it
                whose alpha is a mask; they are otherwise replaced by those of visible pixels nearby.
            denoise: how much noise to take away first, one of the model's levels; None for none of it.
            seamless: where the picture goes on at its opposite edge, as a texture does that is laid side by
                side with itself; latent upscalers cannot.
            tta: whether to take the mean of what becomes of its eight flips and turns (`ensemble`).
            blend: a second model, whose result is laid over that of the first.
            enlarger: what enlarges the picture before a creative upscaler draws it anew, one that takes
                tiles; None for a Lanczos filter.
            styles: images that a creative upscaler with an IP-Adapter takes a style from.
            on_start: called on the event loop when a device takes the first tile; again if the picture is
                begun again with smaller ones, or upscaled several times.
            on_progress: called on the event loop with the finished share, from 0 to 1.
            on_region: called with each part of the result as soon as it is finished: the core of a tile or,
                for a size that is not native, full rows; roughly row by row. The regions are disjoint and
                cover the result, unless it was begun again with smaller tiles. Called in the threads that
                compute, several at once perhaps, so it must be quick; if it raises, that is logged. All
                calls come before this one returns, but after it was cancelled there may be some more.
                With `tta` and `blend`, and of latent and creative upscalers, the whole is one region.

        Raises:
            ModelError: if a model cannot be built, loaded or run, has no such level of noise, cannot avoid
                seams, or if the upscaler is closed.
        """
        wanted = _Wanted((width, height), account, keep_hidden, wraps_of(seamless))
        layers = [_Layer(model, diffusion, denoise, enlarger, styles)]
        if blend is not None and blend.visibility > 0:
            layers.append(_Layer(blend.model, blend.diffusion, None, enlarger, ()))
        report = rising(on_progress)
        if len(layers) == 1 and not tta:
            return await self._once(picture, layers[0], wanted, on_start, report, on_region)
        make = self._mean if tta else self._once
        shares = beside(report, len(layers))
        results = await _together(
            make(picture, layer, wanted, on_start, share) for layer, share in zip(layers, shares, strict=True)
        )
        result = results[0]
        if blend is not None and len(results) == 2:
            result = await self._pixels.run(blended, results[0], results[1], blend.visibility)
        if on_region is not None:
            await self._pixels.run(report_whole, result, picture, on_region, wanted.wraps)
        return result

    def close(self) -> None:
        """Let the batch that runs finish; every upscale under way ends in a ModelError. Blocks."""
        self._executor.close()
        if self._cluster is not None:
            self._cluster.close()
        self._models.close()
        self._resampler.close()
        self._pixels.close()

    async def _mean(
        self,
        picture: Picture,
        layer: _Layer,
        wanted: _Wanted,
        on_start: Callable[[], None] | None,
        on_progress: Progress,
    ) -> Picture:
        """The mean of what becomes of all flips and turns of the picture; they are done one after another."""
        mean = Mean()
        for number, turn in enumerate(TURNS):
            turned = await self._pixels.run(turn.of, picture)
            as_wanted = replace(wanted, size=turn.size(*wanted.size), wraps=turn.wraps(wanted.wraps))
            progress = within(on_progress, number / len(TURNS), (number + 1) / len(TURNS))
            result = await self._once(turned, layer, as_wanted, on_start, progress)
            await self._pixels.run(mean.add, await self._pixels.run(turn.back, result))
            on_start = None
        return await self._pixels.run(mean.picture)

    async def _once(
        self,
        picture: Picture,
        layer: _Layer,
        wanted: _Wanted,
        on_start: Callable[[], None] | None,
        on_progress: Progress,
        on_region: OnRegion | None = None,
    ) -> Picture:
        model = layer.model
        if model.creative is not None:
            return await self._drawn(picture, layer, wanted, on_start, on_progress, on_region)
        if model.latent is None:
            return await self._tiles.upscale(
                picture,
                model,
                size=wanted.size,
                account=wanted.account,
                keep_hidden=wanted.keep_hidden,
                denoise=layer.denoise,
                wraps=wanted.wraps,
                on_start=on_start,
                on_progress=on_progress,
                on_region=on_region,
            )
        if any(wanted.wraps):
            raise ModelError(f"{model.name} cannot avoid seams")
        latent = await self._models.latent(model, model.latent)
        return await latent.upscale(
            picture,
            model,
            layer.diffusion or _default_diffusion(model.latent),
            size=wanted.size,
            account=wanted.account,
            keep_hidden=wanted.keep_hidden,
            on_start=on_start,
            on_progress=on_progress,
            on_region=on_region,
        )

    async def _drawn(
        self,
        picture: Picture,
        layer: _Layer,
        wanted: _Wanted,
        on_start: Callable[[], None] | None,
        on_progress: Progress,
        on_region: OnRegion | None,
    ) -> Picture:
        """What a creative upscaler draws."""
        model, weights = layer.model, layer.model.creative
        assert weights is not None
        drawn = await self._models.creative(model, weights)

        async def enlarge(
            picture: Picture,
            size: tuple[int, int],
            *,
            on_start: Callable[[], None] | None,
            on_progress: Progress,
        ) -> Picture:
            if layer.enlarger is None:
                return await self._pixels.run(resized, picture, *size, wanted.wraps)
            return await self._tiles.upscale(
                picture,
                layer.enlarger,
                size=size,
                account=wanted.account,
                keep_hidden=wanted.keep_hidden,
                denoise=None,
                wraps=wanted.wraps,
                on_start=on_start,
                on_progress=on_progress,
                on_region=None,
            )

        return await drawn.upscale(
            picture,
            model,
            layer.diffusion or _default_diffusion(weights),
            size=wanted.size,
            enlarge=enlarge,
            styles=layer.styles,
            account=wanted.account,
            keep_hidden=wanted.keep_hidden,
            wraps=wanted.wraps,
            on_start=on_start,
            on_progress=on_progress,
            on_region=on_region,
        )


async def _together(makers: Iterable[Coroutine[Any, Any, Picture]]) -> list[Picture]:
    """What all give; if one fails the others are stopped."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(maker) for maker in makers]
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]


def _default_diffusion(weights: LatentWeights | CreativeWeights) -> Diffusion:
    plain = Diffusion(steps=weights.default_steps, scheduler=weights.default_scheduler)
    return Controls().diffusion(plain) if isinstance(weights, CreativeWeights) else plain
