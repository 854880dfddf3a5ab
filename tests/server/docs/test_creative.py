"""The two commands that the documentation shows for creative upscaling, on a small Stable Diffusion."""

import re
import shlex
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from server.docs.pages import PAGES, source
from tests.server.conftest import Tilewire


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.skipif(
    any(find_spec(name) is None for name in ("diffusers", "onnxscript", "torch", "transformers")),
    reason="to export needs PyTorch, diffusers and transformers: pip install 'tilewire[export]'",
)
def test_the_two_commands_upscale_a_picture(
    tilewire: Tilewire, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.onnx_models.support import tiny_creative  # noqa: PLC0415 - needs PyTorch

    (page,) = (page for page in PAGES if page.name == "creative")
    block = re.search(r"two commands:\n\n```bash\n(.*?)```", source(page), re.DOTALL)
    assert block is not None
    export, upscale = (shlex.split(line) for line in block[1].splitlines())
    monkeypatch.chdir(tmp_path)
    tiny_creative.save_tiny_sd1(tmp_path / "stable-diffusion-v1-5")
    tiny_creative.save_tiny_controlnet(
        tmp_path / "control_v11f1e_sd15_tile", tmp_path / "stable-diffusion-v1-5"
    )
    pixels = np.random.default_rng(1).integers(0, 256, (12, 16, 3), np.uint8)
    Image.fromarray(pixels).resize((96, 64), Image.Resampling.BICUBIC).save("photo.jpg")
    for program, *arguments in (export, upscale):
        assert program == "tilewire"
        result = tilewire(*arguments)
        assert result.exit_code == 0, result.output
    with Image.open("photo-2x.jpg") as image:
        assert image.size == (192, 128)
        assert np.asarray(image).std() > 1
    installed, _, to_export = " ".join(tilewire("models", "list").output.split()).partition("To export")
    assert "runware:500@1" in installed
    assert "runware:500@1" not in to_export
    assert tilewire("models", "verify").exit_code == 0
    assert tilewire("models", "remove", "clarity").exit_code == 0
    assert "runware:500@1" not in tilewire("models", "list").output.partition("To export")[0]
