"""Which architectures of PyTorch checkpoints can be added: each of spandrel's, small and with random weights.

    python -m tests.onnx_models.support.architectures [--write] [NAME...]

prints the table of `server/docs/models.md`, and with `--write` puts it there. Takes some minutes.
"""

import importlib
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from onnx_models.convert import convert_file
from onnx_models.errors import ModelBuildError
from tests.onnx_models.support.tiny import open_network

__all__ = ["ARCHITECTURES", "Row", "convert_architecture", "save_checkpoint"]

PAGE = Path(__file__).parents[3] / "server/docs/models.md"
BEGIN, END = "<!-- architectures -->\n", "<!-- end of architectures -->\n"


def _small(architecture: str, network: str | None = None, **parameters: Any) -> Callable[[], Any]:
    """Makes a network with random weights, always the same."""

    def make() -> Any:
        import torch  # noqa: PLC0415

        torch.manual_seed(0)
        module = importlib.import_module(f"spandrel.architectures.{architecture}")
        return getattr(module, network or architecture)(**parameters)

    return make


_SWIN = {"embed_dim": 48, "depths": [2], "num_heads": [2], "window_size": 8, "mlp_ratio": 2.0, "upscale": 2}

ARCHITECTURES: dict[str, Callable[[], Any]] = {
    "ATD": _small(
        "ATD",
        **_SWIN | {"depths": [2, 2], "num_heads": [2, 2]},
        category_size=64,
        num_tokens=16,
        reducted_dim=4,
        upsampler="pixelshuffledirect",
    ),
    "AuraSR": _small(
        "AuraSR",
        dim=16,
        image_size=256,
        input_image_size=64,
        style_network={"dim_in": 16, "dim_out": 64, "depth": 2},
    ),
    "Compact": _small("Compact", num_feat=16, num_conv=4, upscale=2),
    "CRAFT": _small("CRAFT", embed_dim=48, depths=[2], num_heads=[2], upscale=2),
    "DAT": _small(
        "DAT", embed_dim=48, depth=[2], num_heads=[2], split_size=[2, 4], upscale=2, expansion_factor=2.0
    ),
    "DCTLSA": _small("DCTLSA", nf=20, num_modules=6, num_head=5, upscale=2),
    "DITN": _small("DITN", dim=12, ITL_blocks=1, SAL_blocks=1, UFONE_blocks=1, patch_size=8, upscale=2),
    "DRCT": _small("DRCT", **_SWIN | {"depths": [6]}, upsampler="pixelshuffle", gc=8),
    "ESRGAN": _small("ESRGAN", num_filters=16, num_blocks=2, scale=4),
    "ESRGAN, x2 by unshuffling": _small(
        "ESRGAN", in_nc=12, num_filters=16, num_blocks=2, scale=4, plus=True, shuffle_factor=2
    ),
    "FDAT": _small("FDAT", embed_dim=48, num_groups=2, depth_per_group=2, num_heads=2, scale=2, mid_dim=16),
    "GRL": _small(
        "GRL",
        embed_dim=48,
        depths=[2],
        num_heads_window=[2],
        num_heads_stripe=[2],
        upscale=2,
        upsampler="pixelshuffle",
    ),
    "HAT": _small("HAT", **_SWIN, compress_ratio=3, squeeze_factor=12, num_feat=16),
    "IPT": _small("IPT", patch_size=24, n_feats=16, scale=[2], num_heads=2, num_layers=1, num_queries=1),
    "MMRealSR": _small(
        "MMRealSR", num_in_ch=3, num_out_ch=3, scale=4, num_feat=16, num_block=1, num_grow_ch=8
    ),
    "MoESR": _small("MoESR", scale=2, dim=16, n_blocks=2, n_block=2),
    "MoSR": _small("MoSR", upscale=2, n_block=2, dim=16),
    "OmniSR": _small("OmniSR", num_feat=16, block_num=1, res_num=1, up_scale=2),
    "PLKSR": _small("PLKSR", dim=16, n_blocks=2, upscaling_factor=2),
    "RealPLKSR": _small("PLKSR", "RealPLKSR", dim=16, n_blocks=2, upscaling_factor=2),
    "RealPLKSR, DySample": _small(
        "PLKSR", "RealPLKSR", dim=16, n_blocks=2, upscaling_factor=2, dysample=True
    ),
    "RCAN": _small("RCAN", scale=2, n_resgroups=2, n_resblocks=2, n_feats=16, reduction=4),
    "RealCUGAN, x2": _small("RealCUGAN", "UpCunet2x"),
    "RealCUGAN, x3": _small("RealCUGAN", "UpCunet3x"),
    "RealCUGAN, x4": _small("RealCUGAN", "UpCunet4x"),
    "RGT": _small("RGT", embed_dim=48, depth=[2], num_heads=[2], upscale=2, mlp_ratio=2.0),
    "SAFMN": _small("SAFMN", dim=16, n_blocks=2, upscaling_factor=2),
    "SeemoRe": _small("SeemoRe", scale=2, num_experts=2, num_layers=6, embedding_dim=36),
    "SPAN": _small("SPAN", num_in_ch=3, num_out_ch=3, feature_channels=16, upscale=2),
    "SwiftSRGAN": _small("SwiftSRGAN", num_channels=16, num_blocks=2, upscale_factor=2),
    "Swin2SR": _small("Swin2SR", **_SWIN, upsampler="pixelshuffle"),
    "SwinIR": _small("SwinIR", **_SWIN | {"upscale": 4}, upsampler="nearest+conv"),
}
"""Every architecture that spandrel has for super-resolution, in those variants that differ in their graph."""


class Row(NamedTuple):
    """What became of one."""

    name: str
    works: bool
    difference: float | None
    """The largest difference from PyTorch, before rounding."""
    remark: str


def save_checkpoint(name: str, directory: Path) -> Path:
    """Write a checkpoint as trainers do."""
    import torch  # noqa: PLC0415

    path = directory / "checkpoint.pth"
    torch.save({"params": ARCHITECTURES[name]().state_dict()}, path)
    return path


def convert_architecture(name: str) -> Row:
    """Convert one, with all the checks that a model which is added has to pass."""
    with tempfile.TemporaryDirectory() as directory:
        try:
            converted = convert_file(save_checkpoint(name, Path(directory)), open_network)
        except ModelBuildError as error:
            return Row(name, False, None, str(error).partition(": [ONNXRuntimeError]")[0])
    rule = converted.rule
    if rule.any_size:
        remark = ""
    else:
        remark = f"sides: multiples of {rule.multiple}" if rule.multiple > 1 else "sides: any"
        remark += f", from {rule.minimum}" if rule.minimum > rule.multiple else ""
    return Row(name, True, converted.difference, remark)


def main(arguments: list[str]) -> None:
    """Print the table, and write it."""
    names = [name for name in arguments if name != "--write"] or list(ARCHITECTURES)
    lines = ["| architecture | can be added | difference | remark |", "|---|---|---|---|"]
    print("\n".join(lines))
    for name in names:
        row = convert_architecture(name)
        difference = "" if row.difference is None else f"{row.difference:.0e}"
        lines.append(f"| {row.name} | {'yes' if row.works else 'no'} | {difference} | {row.remark} |")
        print(lines[-1], flush=True)
    if "--write" in arguments:
        page = PAGE.read_text("utf-8")
        before, after = page.index(BEGIN) + len(BEGIN), page.index(END)
        PAGE.write_text(page[:before] + "\n" + "\n".join(lines) + "\n\n" + page[after:], encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
