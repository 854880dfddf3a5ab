"""The recipe of the built-in latent upscaler: its small pictures, and its files of weights."""

import numpy as np
import onnxruntime
import pytest
from PIL import Image
from skimage import data

from onnx_models.training.degradations import degraded, halved

DIFFERENCE = 1e-3
"""How far a file with weights in fp16 may be from PyTorch, relative to the largest value."""


@pytest.fixture
def photo():
    return Image.fromarray(data.astronaut()[:96, 200:360])


@pytest.mark.parametrize("make", [halved, degraded])
def test_a_small_picture_is_half_as_large_and_the_same_for_the_same_seed(make, photo):
    small, again = (np.asarray(make(photo, np.random.default_rng(3))) for _ in range(2))
    assert small.shape == (48, 80, 3)
    assert np.array_equal(small, again)
    reference = np.asarray(photo.reduce(2), np.float32)
    assert np.abs(small - reference).mean() < 8  # the same picture, in its place


def test_degraded_pictures_are_further_from_the_photograph_than_clean_ones(photo):
    def error(make):
        smaller = [make(photo, np.random.default_rng(seed)) for seed in range(8)]
        return np.mean([np.abs(np.asarray(each.resize(photo.size), np.float32) - photo) for each in smaller])

    assert error(degraded) > 1.2 * error(halved)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Networks that learned nothing, and their files, opened."""
    torch = pytest.importorskip("torch", reason="the recipe needs the extra 'export'")
    pytest.importorskip("onnxscript", reason="the recipe needs the extra 'export'")
    from onnx_models.training.export import export  # noqa: PLC0415
    from onnx_models.training.train import Networks  # noqa: PLC0415

    torch.manual_seed(0)
    networks = Networks()
    for layer in (networks.encoder.network[-1], networks.decoder.network[-1], networks.denoiser.last):
        torch.nn.init.normal_(layer.weight, std=0.02)
    files = export(networks, tmp_path_factory.mktemp("exported"))
    return networks, {file.stem: onnxruntime.InferenceSession(file) for file in files}


@pytest.mark.parametrize(("batch", "height", "width"), [(2, 4, 6), (1, 10, 2)])
def test_each_file_computes_what_pytorch_does_at_any_size(exported, batch, height, width):
    import torch  # noqa: PLC0415

    networks, sessions = exported
    random = np.random.default_rng(4)

    def normal(channels):
        return random.standard_normal((batch, channels, height, width), np.float32)

    def compare(name, module, *arrays):
        names = [each.name for each in sessions[name].get_inputs()]
        found = sessions[name].run(None, dict(zip(names, arrays, strict=True)))
        with torch.inference_mode():
            expected = module(*map(torch.from_numpy, arrays)).numpy()
        assert found[0].shape == expected.shape
        assert np.abs(found[0] - expected).max() < DIFFERENCE * np.abs(expected).max()
        return found

    image = random.integers(0, 256, (batch, 4 * height, 4 * width, 3)).astype(np.uint8)
    _, deviation = compare(
        "vae_encoder", lambda pixels: networks.encoder(pixels.permute(0, 3, 1, 2) / 255), image
    )
    assert not deviation.any()
    compare("vae_decoder", lambda latents: networks.decoder(latents).permute(0, 2, 3, 1), normal(32))
    for time in (-0.5, 1.25):
        compare("unet", networks.denoiser, normal(64), np.full(batch, time, np.float32))
