"""`python -m onnx_models.training DIRECTORY`: everything, from the packages to the files of weights."""

import argparse
import logging
from pathlib import Path

import torch

from onnx_models.files import sha256_of
from onnx_models.training.data import download, pack
from onnx_models.training.export import export
from onnx_models.training.train import train

_WEIGHTS = Path(__file__).parents[1] / "weights" / "tilewire-latent-x2"
_STEPS = {"autoencoder": 250, "denoiser": 4800, "pictures": 600}


def main() -> None:
    """Run what is left to do."""
    parser = argparse.ArgumentParser(prog="python -m onnx_models.training")
    parser.add_argument("directory", type=Path, help="for the photographs and for what is trained")
    parser.add_argument("--weights", type=Path, default=_WEIGHTS, help="where the files of weights go")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    wanted = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(wanted.threads)
    packages, packed = wanted.directory / "packages", wanted.directory / "packed"
    if not packed.exists():
        download(packages)
        unfinished = packed.with_suffix(".part")
        pack(packages, unfinished, count=12000)
        unfinished.rename(packed)
    networks = train(packed, wanted.directory, lengths=_STEPS)
    for file in export(networks, wanted.weights):
        logging.info("%s %s", sha256_of(file), file.name)


main()
