"""``dstrun weights``: the network of a finished run as one file."""

from __future__ import annotations

from dstrun.cli.flags import a_path
from dstrun.cli.words import own_code, parser
from dstrun.system.trouble import ConfigError

KINDS = (".safetensors", ".pt", ".onnx")

HELP = {82: ("weights RUN --out FILE", "the trained network as a file")}


def main(words: list[str]) -> int:
    """Write the weights of a run."""
    made = parser("weights", "Write the trained network of a run into one file.", rows=False, runs=False)
    made.add_argument("run", metavar="RUN", help="a run: its folder, its id or the beginning of its id")
    made.add_argument(
        "--out", type=a_path, required=True, metavar="FILE", help="file to write, ending in " + ", ".join(KINDS)
    )
    made.add_argument(
        "--format", choices=("dense", "csr"), default="dense",
        help="dense: a state dict of the plain network; csr: values and indices of nonzeros (default: dense)",
    )  # fmt: skip
    own_code(made)
    arguments = made.parse_args(words)
    out = arguments.out
    if out.suffix not in KINDS:
        raise ConfigError(f"--out {out} must end in {', '.join(KINDS[:-1])} or {KINDS[-1]}")
    if out.is_dir() or not out.parent.is_dir():
        raise ConfigError(
            f"--out {out} {'is a folder' if out.is_dir() else f'cannot be written: there is no {out.parent}'}"
        )
    if out.suffix == ".onnx" and arguments.format == "csr":
        raise ConfigError("--format csr makes no sense with .onnx, as its runtimes cannot compute with sparse weights")
    from dstrun.run.finished import find, modules

    run = find(arguments.run)  # before PyTorch is imported
    from dstrun.run import onnx
    from dstrun.run.shipping import of_run, write

    net = of_run(run, arguments.trusted, modules(arguments.config_dir))
    size, dense = onnx.write(net, out) if out.suffix == ".onnx" else write(net, out, arguments.format)
    print(f"{out}: {size:,} bytes, {size / dense:.3f} x the {dense:,} bytes of the dense weights")
    return 0
