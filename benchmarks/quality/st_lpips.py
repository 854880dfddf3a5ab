"""ST-LPIPS, a learned distance that does not mind small shifts, as an ONNX graph.

Ghildyal and Liu, Shift-tolerant Perceptual Similarity Metric, 2022 (https://arxiv.org/abs/2207.13686). The
weights, which LPIPS packages do not carry whole, are in PyPI's `stlpips-pytorch` (BSD-2-Clause). Its wheel is
fetched and exported once, with PyTorch; after that ONNX Runtime is enough.
"""

import sys
import tempfile
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import numpy as np
from PIL import Image

from engines.devices.runtimes import onnxruntime
from onnx_models.packages import fetch_archive
from onnx_models.published import Archive

__all__ = ["STLpips"]

_WHEEL: Final = Archive(
    registry="pypi",
    package="stlpips-pytorch",
    version="0.0.2",
    sha256="a412bf901a97c942b37af57c7c63b6e5d1aebfe8d1dfc17853d4b2f878630645",
    size=63_807_084,
)
_UNUSED: Final = ("IPython", "torchsummary", "torchvision")
"""What the package imports and does not need for this."""


class STLpips:
    """The distance, with AlexNet; 0 for equal pictures."""

    def __init__(self, folder: Path) -> None:
        """Load it; export it first if it is not there.

        Args:
            folder: where it is kept.

        Raises:
            DownloadError: if the package cannot be fetched.
            ImportError: if it is to be exported, and PyTorch is not installed.
        """
        file = folder / "st-lpips-alex.onnx"
        if not file.exists():
            _export(folder, file)
        self._session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])

    def distance(self, one: Image.Image, other: Image.Image) -> float:
        """Between two pictures of one size."""
        arrays = [
            np.asarray(each, np.float32).transpose(2, 0, 1)[np.newaxis] / 127.5 - 1 for each in (one, other)
        ]
        (found,) = self._session.run(None, dict(zip(("one", "other"), arrays, strict=True)))
        return float(np.squeeze(found))


def _export(folder: Path, file: Path) -> None:
    import torch  # noqa: PLC0415 - not needed once it is exported

    folder.mkdir(parents=True, exist_ok=True)
    wheel = fetch_archive(_WHEEL, folder, lambda _count: None)
    with tempfile.TemporaryDirectory() as unpacked:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(unpacked)
        network = _network(unpacked)
        pair = (torch.rand(1, 3, 96, 128) * 2 - 1, torch.rand(1, 3, 96, 128) * 2 - 1)
        sides = {2: "h", 3: "w"}
        torch.onnx.export(
            network,
            pair,
            str(file),
            input_names=["one", "other"],
            output_names=["distance"],
            dynamic_axes={"one": sides, "other": sides},
            opset_version=17,
            dynamo=False,
        )
        difference = _difference(network, file, pair)
    if difference > 1e-5:
        file.unlink()
        raise AssertionError(f"what was exported differs from PyTorch by {difference:g}")


def _network(package: str) -> Any:
    for name in _UNUSED:
        module = ModuleType(name)
        module.embed = module.summary = module.models = None  # type: ignore[attr-defined]
        sys.modules.setdefault(name, module)
    sys.path.insert(0, package)
    try:
        from stlpips_pytorch import stlpips  # type: ignore[import-not-found]  # noqa: PLC0415

        return stlpips.LPIPS(net="alex", variant="shift_tolerant", verbose=False).eval()
    finally:
        sys.path.remove(package)


def _difference(network: Any, file: Path, pair: tuple[Any, Any]) -> float:
    """Between what PyTorch and ONNX Runtime give, on pictures of another size."""
    import torch  # noqa: PLC0415

    wider = [torch.nn.functional.interpolate(each, scale_factor=1.5) for each in pair]
    with torch.no_grad():
        expected = float(network(*wider))
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"one": wider[0].numpy(), "other": wider[1].numpy()})
    return abs(float(np.squeeze(found)) - expected)
