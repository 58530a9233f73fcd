"""The text of ``dstrun --help``, read off the schema and the folders of ``conf/``; does not import torch."""

from __future__ import annotations

from importlib.resources import files

from dstrun.config.grid import shipped
from dstrun.config.option import GROUPS, Bound
from dstrun.config.schema import SETTINGS, default

HERE = "dstrun.conf"

EXAMPLES = """\
dstrun: train sparse networks, measure what they cost, table the results.

  dstrun model=resnet56 sparsity=0.98 grow=gse              one run; the same words again continue or skip it
  dstrun -m sparsity=0.9,0.95 method=set,rigl seed=0,1,2     a sweep: every combination
  dstrun -cn accuracy seed=0                                 a sweep file, and words that win over it
  dstrun methods [--format md|csv|json|latex]                every method: paper, FLOPs of a step, start, backends
  dstrun plan model=resnet50 dataset=imagenet sparsity=0.9   layers, parameters, FLOPs, memory; trains nothing
  dstrun plan ... fit=8GiB --time                            what fits into that; hours of training on this machine
  dstrun plan -cn accuracy                                   FLOPs of a sweep file's runs
  dstrun status [RESULTS] [--watch]                          every run: state, epoch, accuracy, time left
  dstrun table [RESULTS] [--preset accuracy|cost] [--format md|csv|json|latex]
  dstrun plot sparsity [RESULTS] [--out FILE.png|pdf|svg]    a figure; dstrun plot --help lists the others
  dstrun report [RESULTS] [--out report.html] [--title TEXT] [--question TEXT]
  dstrun plot bench FILE.csv [--out FILE.png|pdf|svg]
  dstrun export [RESULTS] [--out DIR] [--format parquet|csv]  one file of all epochs, one of all runs
  dstrun weights RUN --out FILE.safetensors|pt|onnx [--format dense|csr]  the trained network as a file
  dstrun eval RUN [dataset=...] [--split train|val|test]     its accuracy again, on the same images or others
  dstrun sync [RESULTS] [--dry-run] [--offline]              rebuild runs on W&B from their files
  dstrun migrate [RESULTS] [--dry-run]                       runs of older versions under the ids of this one
  dstrun bench kernel|step|scaling|infer                     this machine: dense, masked and sparse in turns
  dstrun doctor                                              what works on this machine
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
    names = [entry.name for entry in files(HERE).joinpath(group).iterdir()]
    return sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml"))


def text() -> str:
    """Put the help together."""
    lines = [EXAMPLES, "Groups (NAME=OPTION, and NAME.KEY=VALUE for an option's own settings):"]
    lines += [f"  {group:<16}{' '.join(options(group))}" for group in GROUPS]
    lines += ["", "Protocols (protocol=NAME trains any method as a paper did; docs/protocols.md):"]
    lines += [f"  {' '.join(options('protocol'))}"]
    lines += ["", "Settings:"]
    for name, item in SETTINGS.items():
        bound = item.metadata["bound"]
        allowed = f"; {bound.text}" if isinstance(bound, Bound) else f"; {'|'.join(bound)}" if bound else ""
        plain = "null" if default(item) is None else default(item)
        lines.append(f"  {f'{name}={plain}':<22}  {item.metadata['help']}{allowed}")
    lines += ["", "Sweep files (-cn NAME):", *(f"  {name:<16}{what}" for name, what in shipped().items())]
    return "\n".join([*lines, "", ENDING]).rstrip()
