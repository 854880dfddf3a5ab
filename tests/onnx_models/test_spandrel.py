"""PyTorch checkpoints. Needs the extra `convert`; the comparison of all architectures is slow."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from onnx_models import Facts, UnsuitableModelError, add_model, ensure_built, load_catalogue
from tests.onnx_models.support.architectures import ARCHITECTURES, convert_architecture, save_checkpoint
from tests.onnx_models.support.tiny import open_network

WHY = "PyTorch checkpoints need: pip install 'tilewire[convert]'"
torch = pytest.importorskip("torch", reason=WHY)
spandrel = pytest.importorskip("spandrel", reason=WHY)
pytest.importorskip("onnxscript", reason=WHY)


@pytest.fixture
def add(tmp_path):
    def add(file, **facts):
        return add_model(file, Facts(**facts), load_catalogue(), tmp_path / "models", open_network)

    return add


@pytest.mark.parametrize("name", ["Compact", "SwinIR"])
def test_the_model_computes_what_pytorch_computes(add, tmp_path, photograph, name):
    file = save_checkpoint(name, tmp_path)
    model, converted = add(file)
    assert converted.difference <= 1e-5
    run = open_network(ensure_built(model, model.weights[0], tmp_path))
    descriptor = spandrel.ModelLoader().load_from_file(file).eval()
    for height, width in ((16, 24), (17, 31), (3, 50)):
        image = photograph(height, width)
        batch = torch.from_numpy(image.transpose(2, 0, 1)[np.newaxis].astype(np.float32) / 255)
        expected = descriptor(batch)[0].numpy().transpose(1, 2, 0) * 255
        assert np.abs(run(image[np.newaxis])[0] - expected).max() <= 0.5 + 1e-2


def test_safetensors_are_read_too(add, tmp_path):
    from safetensors.torch import save_file  # noqa: PLC0415

    file = tmp_path / "tiny.safetensors"
    save_file(ARCHITECTURES["Compact"]().state_dict(), file)
    assert add(file)[0].factors == (2,)


class Code:
    """What runs when it is unpickled."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self):
        return Path.touch, (self.victim,)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_pickle_is_not_run(add, tmp_path, zipped):
    file, victim = tmp_path / "evil.pth", tmp_path / "victim"
    if zipped:
        torch.save({"params": Code(victim)}, file)
    else:
        file.write_bytes(pickle.dumps({"params": Code(victim)}))
    with pytest.raises(UnsuitableModelError, match="holds more than numbers"):
        add(file)
    assert not victim.exists()
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 broken", b"\x80\x02}q\x00.", bytes(200)])
def test_a_broken_file_is_told(add, tmp_path, suffix, content):
    file = tmp_path / f"broken{suffix}"
    file.write_bytes(content)
    with pytest.raises(UnsuitableModelError):
        add(file)


def test_a_truncated_checkpoint_is_told(add, tmp_path):
    file = save_checkpoint("Compact", tmp_path)
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(UnsuitableModelError, match="broken"):
        add(file)


def test_weights_of_nothing_known_are_told(add, tmp_path):
    torch.save({"layer.weight": torch.zeros(3)}, tmp_path / "x.pth")
    with pytest.raises(UnsuitableModelError, match="no architecture that is known"):
        add(tmp_path / "x.pth")


@pytest.mark.parametrize(
    ("architecture", "network", "parameters", "told"),
    [
        ("SCUNet", "SCUNet", {"dim": 16}, "SCUNet network, which restores images without enlarging"),
        ("LaMa", "LaMa", {}, "LaMa network, which fills holes"),
        ("Compact", "Compact", {"num_in_ch": 1, "num_out_ch": 1, "num_conv": 2}, "1 channels and gives 1"),
        ("Compact", "Compact", {"upscale": 1, "num_conv": 2}, "restores images without enlarging"),
    ],
)
def test_a_network_for_something_else_is_told(add, tmp_path, architecture, network, parameters, told):
    module = __import__(f"spandrel.architectures.{architecture}", fromlist=[network])
    torch.save(getattr(module, network)(**parameters).state_dict(), tmp_path / "x.pth")
    with pytest.raises(UnsuitableModelError, match=told):
        add(tmp_path / "x.pth")


def test_a_network_that_computes_no_numbers_is_told(add, tmp_path):
    state = ARCHITECTURES["Compact"]().state_dict()
    state["body.0.weight"][0] = float("nan")
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(UnsuitableModelError, match="not finite"):
        add(tmp_path / "x.pth")


def test_every_architecture_for_super_resolution_is_in_the_table():
    names = {name.partition(",")[0] for name in ARCHITECTURES} - {"RealPLKSR"}
    folder = Path(spandrel.__file__).parent / "architectures"
    assert names == {
        path.parent.name for path in folder.glob("*/__init__.py") if '"SR"' in path.read_text("utf-8")
    }


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_table_of_the_documentation_is_true(name):
    page = (Path(__file__).parents[2] / "server/docs/models.md").read_text("utf-8")
    row = convert_architecture(name)
    assert f"| {name} | {'yes' if row.works else 'no'} |" in page
    assert row.difference is None or row.difference <= 1e-4
