"""The text of ``dstrun --help``, read off verbs, the schema and the folders of ``conf/``; does not import torch."""

from __future__ import annotations

import ast
import re
from importlib.resources import files

from dstrun.cli.verb import VERBS
from dstrun.config.grid import shipped
from dstrun.config.option import GROUPS, Bound
from dstrun.config.schema import SETTINGS, default

HERE = "dstrun.conf"

EXAMPLES = """\
dstrun: train sparse networks, measure what they cost, table the results.

  dstrun model=resnet56 sparsity=0.98 grow=gse              one run; the same words again continue or skip it
  dstrun -m sparsity=0.9,0.95 method=set,rigl seed=0,1,2     a sweep: every combination
  dstrun -cn accuracy seed=0                                 a sweep file, and words that win over it
"""

ENDING = """\
A method is a paper's whole recipe; grow=, prune=, allocation=, subset= and scope= each move one part of it.
Any value of the composed configuration can be set: dstrun --cfg job shows it, with the words of a run after it.
Completion: eval "$(dstrun -sc install=bash)"
Exit codes: 0 done, 1 a run failed, 2 wrong usage or configuration, 3 nothing matched, 75 being run elsewhere,
130 interrupted.
"""


def options(group: str) -> list[str]:
    """List the options of a config group by name: the yaml files of its folder."""
    folder = files(HERE).joinpath(group)
    names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    return sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml"))


def verbs() -> list[str]:
    """List the lines of verbs in the order of their places; files are read, as importing all takes 10 ms."""
    found = []
    for verb in VERBS:
        source = files("dstrun.cli.verb").joinpath(f"{verb}.py").read_text(encoding="utf-8")
        for literal in re.findall(r"^HELP = (\{.*?\})$", source, re.DOTALL | re.MULTILINE):
            found += ast.literal_eval(literal).items()
    return [f"  {f'dstrun {words}':<57}  {what}".rstrip() for _, (words, what) in sorted(found)]


def text() -> str:
    """Put the help together."""
    lines = [EXAMPLES + "\n".join(verbs()), ""]
    lines += ["Groups (NAME=OPTION, and NAME.KEY=VALUE for an option's own settings):"]
    lines += [
        f"  {group:<16}{' '.join(options(group)) or 'your own in place of the cross-entropy'}" for group in GROUPS
    ]
    lines += ["", "Protocols (protocol=NAME trains any method as a paper did; docs/protocols.md):"]
    lines += [f"  {' '.join(options('protocol'))}"]
    lines += ["", "Settings:"]
    for name, item in SETTINGS.items():
        bound = item.metadata["bound"]
        bound = bound() if name == "tracker" else bound
        allowed = f"; {bound.text}" if isinstance(bound, Bound) else f"; {'|'.join(bound)}" if bound else ""
        plain = "null" if default(item) is None else default(item)
        lines.append(f"  {f'{name}={plain}':<22}  {item.metadata['help']}{allowed}")
    lines += ["", "Sweep files (-cn NAME):", *(f"  {name:<16}{what}" for name, what in shipped().items())]
    return "\n".join([*lines, "", ENDING]).rstrip()
