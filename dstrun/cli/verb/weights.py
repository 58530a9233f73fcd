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
    made.add_argument("run", metavar="RUN", help="a run's folder, its id below results or the beginning of one")
    made.add_argument(
        "--out", type=a_path, required=True, metavar="FILE", help="to write, ending in " + ", ".join(KINDS)
    )
    made.add_argument(
        "--format", choices=("dense", "csr"), default="dense",
        help="a state that the plain network loads, or values and positions of what is not zero (default: dense)",
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
        raise ConfigError(
            "--format csr makes no sense with .onnx, which has no sparse weights that runtimes compute with"
        )
    from dstrun.run.finished import find, modules

    run = find(arguments.run)  # before PyTorch is imported
    from dstrun.run import onnx
    from dstrun.run.shipping import of_run, write

    net = of_run(run, arguments.trusted, modules(arguments.config_dir))
    size, dense = onnx.write(net, out) if out.suffix == ".onnx" else write(net, out, arguments.format)
    print(f"{out}: {size:,} bytes, {size / dense:.3f} x the {dense:,} bytes of all weights in full")
    return 0
