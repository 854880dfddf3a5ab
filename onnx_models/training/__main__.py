"""`python -m onnx_models.training DIRECTORY`: everything, from the packages to the files of weights."""

import argparse
import logging
from pathlib import Path

import torch

from onnx_models.training.data import download, pack
from onnx_models.training.train import train


def main() -> None:
    """Run what is left to do."""
    parser = argparse.ArgumentParser(prog="python -m onnx_models.training")
    parser.add_argument("directory", type=Path, help="for the photographs and for what is trained")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    wanted = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(wanted.threads)
    packages, packed = wanted.directory / "packages", wanted.directory / "packed"
    if not packed.exists():
        download(packages)
        pack(packages, packed, count=12000)
    train(packed, wanted.directory, lengths={"autoencoder": 250, "denoiser": 4800, "pictures": 600})


main()
