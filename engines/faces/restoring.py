"""Faces on the devices: found by one network, restored by another, among the tiles of all other tasks."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from engines.codecs.picture import Picture, as_rgb
from engines.devices.parts import Arrays, Part
from engines.errors import SpoiltResultError
from engines.faces.blending import RestoredFace, blend
from engines.faces.detection import Face, Look, chosen, found_in, looks, refined
from engines.faces.geometry import SIDE, TEMPLATE, Matrix, cut, scaled, similarity
from engines.part_job import run_part
from engines.progress import Progress
from engines.scheduling.executor import Executor
from engines.scheduling.work import PartKey
from engines.threads import Threads
from engines.tiling.tiles import Area

__all__ = ["Faces"]


class Faces:
    """What finds and restores faces, on the devices of an executor."""

    def __init__(self, executor: Executor, pixels: Threads) -> None:
        """Begin with nothing to do.

        Args:
            executor: runs the networks.
            pixels: threads for the work beside the devices.
        """
        self._executor = executor
        self._pixels = pixels

    async def find(
        self, picture: Picture, detector: Part, *, account: str, on_start: Callable[[], None] | None
    ) -> list[Face]:
        """The faces of a picture, the largest first.

        Each is looked at once more, upright and large: of faces that are turned the first look knows the
        points by a tenth of their size, the second by a fiftieth.

        Args:
            picture: to look at.
            detector: the network, loaded.
            account: whose share of the devices it uses.
            on_start: called on the event loop when a device takes it.

        Raises:
            ModelError: if the network cannot be run.
        """
        pixels = as_rgb(picture.pixels)
        faces: list[Face] = []
        for look in await self._pixels.run(looks, pixels):
            results = await self._look(look, detector, account, on_start)
            faces += await self._pixels.run(found_in, look, results)
        found = await self._pixels.run(chosen, faces, picture.height, picture.width)
        if not found:
            return []
        matrices = [similarity(face.points, TEMPLATE) for face in found]
        upright = await self._pixels.run(_cut_all, pixels, matrices, ())
        key = PartKey(detector, ((SIDE, SIDE, 3),), SIDE**2, 0)
        seen = await run_part(self._executor, key, upright, account=account)
        return [
            refined(face, matrix, result) for face, matrix, result in zip(found, matrices, seen, strict=True)
        ]

    async def restore(
        self,
        picture: Picture,
        faces: Sequence[Face],
        restorer: Part,
        *,
        size: tuple[int, int],
        weight: float | None,
        account: str,
        on_start: Callable[[], None] | None,
        on_progress: Progress | None,
    ) -> list[RestoredFace]:
        """What a restorer makes of faces.

        Args:
            picture: they are cut from it.
            faces: where they are, in pixels of a picture of `size`.
            restorer: the network, loaded.
            size: width and height of the picture that the faces were found in.
            weight: how near a face stays to what is seen, from 0 to 1; None if the network takes none.
            account: whose share of the devices it uses.
            on_start: called on the event loop when a device takes the first.
            on_progress: called on the event loop with the finished share, from 0 to 1.

        Returns:
            The faces, with matrices of the picture that they were cut from.

        Raises:
            ModelError: if the network cannot be run.
        """
        matrices = [
            scaled(similarity(face.points, TEMPLATE), picture.width / size[0], picture.height / size[1])
            for face in faces
        ]
        beside = () if weight is None else (np.asarray(np.float32(weight)),)
        inputs = await self._pixels.run(partial(_cut_all, as_rgb(picture.pixels), matrices, beside))
        shapes = ((SIDE, SIDE, 3), *(() for _ in beside))
        key = PartKey(restorer, shapes, SIDE**2, SIDE**2)
        results = await run_part(
            self._executor, key, inputs, account=account, on_start=on_start, on_progress=on_progress
        )
        restored = [RestoredFace(result[0], matrix) for result, matrix in zip(results, matrices, strict=True)]
        for face in restored:
            if face.pixels.shape != (SIDE, SIDE, 3) or face.pixels.dtype != np.uint8:
                raise SpoiltResultError("the face restorer gave no face")
        return restored

    async def blend(
        self,
        pixels: NDArray[np.uint8],
        faces: Sequence[RestoredFace],
        visibility: float,
        *,
        size: tuple[int, int],
    ) -> tuple[NDArray[np.uint8], list[Area]]:
        """A picture with its faces restored, and what of it was changed.

        Args:
            pixels: (H, W, 3), or (H, W) of a grey picture; changed in place where that can be.
            faces: as `restore` gave them.
            visibility: how much of each is to be seen, from 0 to 1.
            size: width and height of the picture that they were cut from.
        """
        height, width = pixels.shape[:2]
        there = [
            RestoredFace(face.pixels, scaled(face.matrix, width / size[0], height / size[1]))
            for face in faces
        ]
        return await self._pixels.run(blend, pixels, there, visibility)

    async def _look(
        self, look: Look, detector: Part, account: str, on_start: Callable[[], None] | None
    ) -> Arrays:
        height, width, _ = look.pixels.shape
        key = PartKey(detector, (look.pixels.shape,), height * width, 0)
        (results,) = await run_part(self._executor, key, [(look.pixels,)], account=account, on_start=on_start)
        return results


def _cut_all(pixels: NDArray[np.uint8], matrices: Sequence[Matrix], beside: Arrays) -> list[Arrays]:
    return [(cut(pixels, matrix), *beside) for matrix in matrices]
