"""Help: a screen for a start, and everything else by topic. Read off verbs, schema and ``conf/``; no torch.

What an option is, its class says (``dstrun.cli.described``).
"""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import Field
from importlib.resources import files
from typing import Any

from dstrun.cli.verb import VERBS
from dstrun.config import hint
from dstrun.config.grid import shipped
from dstrun.config.option import GROUPS, Bound
from dstrun.config.schema import SETTINGS, default
from dstrun.system.trouble import ConfigError

HERE = "dstrun.conf"
WIDTH = 80

GROUP = {
    "model": "the network",
    "dataset": "the data set",
    "method": "a paper's whole recipe: what is pruned and grown, how and when",
    "prune": "which connections a topology update prunes",
    "grow": "which connections a topology update grows",
    "subset": "the distribution that grow=gse samples candidates from",
    "allocation": "how sparsity is allocated to layers",
    "schedule": "when the topology is updated, and how much of it",
    "optimizer": "the optimizer, its learning rate and weight decay",
    "loss": "your own loss in place of the cross-entropy (docs/own_parts.md)",
    "protocol": "how a paper trained all methods (docs/protocols.md)",
}
"""What the options of each group are."""

SHORT = """\
dstrun: train sparse networks, measure their cost, tabulate the results.

  dstrun model=resnet56 sparsity=0.98    one run; the same command resumes it
  dstrun -m method=set,rigl seed=0,1,2   a sweep: every combination
  dstrun -cn accuracy seed=0             a sweep file, and what to change in it
  dstrun plan model=resnet56             layers, FLOPs, memory; trains nothing
  dstrun status --watch                  runs as they train
  dstrun table                           means over seeds: accuracy, FLOPs ...
  dstrun plot sparsity                   a figure
  dstrun report                          a page of tables, figures and runs
  dstrun methods                         every method and its paper
  dstrun doctor                          what works on this machine

A first run, seconds on a CPU:
  dstrun model=mlp dataset=digits epochs=5 sparsity=0.9

  dstrun help table       a command; there are also bench, eval, export,
                          migrate, sync, torture and weights
  dstrun help model       a group and its options; so method, grow, loss ...
  dstrun help grow=gse    an option and its settings
  dstrun help settings    seed, epochs, batch_size, device and all others
  dstrun help all         everything on one page
"""

EXAMPLES = """\
dstrun: train sparse networks, measure their cost, tabulate the results.

  dstrun model=resnet56 sparsity=0.98      one run; the same command resumes it
  dstrun -m method=set,rigl seed=0,1,2     a sweep: every combination
  dstrun -cn accuracy seed=0               a sweep file, and what to change
"""

SWEEPS = """\
A sweep trains every combination of the listed values:

  dstrun -m method=set,rigl sparsity=0.9,0.95 seed=0,1,2    twelve runs
  dstrun -m model=mlp dataset=digits hydra.launcher.workers=4 seed=0,1,2,3
                                                            four at once
  dstrun -cn accuracy seed=0,1                              a sweep file

The same command again trains the runs that are not done. More: docs/sweeps.md
"""

ENDING = """\
A method is a paper's whole recipe; grow=, prune=, allocation=, subset= and
scope= each change one part of it. Any value of the composed configuration can
be set; dstrun --cfg job shows it, with the overrides of a run after it.

Flags of a run: -m/--multirun, -cn/--config-name NAME, -cd/--config-dir DIR,
  -r/--run, -c/--cfg job, -i/--info, --hydra-help; in any position.
Completion, in ~/.bashrc: eval "$(dstrun -sc install=bash)"
            in ~/.zshrc:  eval "$(dstrun -sc install=zsh)"
            in ~/.config/fish/config.fish: dstrun -sc install=fish | source
Exit codes: 0 done, 1 a run failed, 2 wrong usage or configuration,
  3 nothing matched, 75 running elsewhere, 130 interrupted.
"""

TOPICS = ("settings", "sweeps", "all")


def of(topics: Sequence[str], strict: bool, words: Sequence[str] = ()) -> str:
    """Return the help on topics; the short one where there is none.

    Args:
        topics: verbs aside: groups, options as ``grow=gse``, settings, ``settings``, ``sweeps``, ``all``.
        strict: whether each must be one.
        words: all words, among them flags that say where options of one's own are.

    Raises:
        ConfigError: a topic is none.
    """
    found = [part for topic in topics for part in _on(topic, _folders(words), strict)]
    return "\n\n".join(dict.fromkeys(part.rstrip() for part in found)) or SHORT.rstrip()


def _folders(words: Sequence[str]) -> list[str]:
    """Return the folders of ``--config-dir``, and have modules beside them found."""
    if not any(word.startswith(("-cd", "--config-dir")) for word in words):
        return []
    from dstrun.cli import flags
    from dstrun.config import own

    found = own.folders(flags.of_run([word for word in words if word not in ("-h", "--help")]).config_dir)
    own.find_modules(own.modules(found))
    return found


def _on(topic: str, folders: Sequence[str], strict: bool) -> list[str]:
    """Return the parts of help on one topic."""
    from dstrun.cli.described import group, option

    topic = hint.OF_OPTIONS.get(topic, topic)
    key, _, values = topic.lstrip("+~").partition("=")
    if topic == "all":
        return [text()]
    if topic == "settings":
        return [settings()]
    if topic == "sweeps":
        return [SWEEPS, "\n".join(_sweeps())]
    if key in GROUP and values in ("", "null"):
        return [group(key, folders)]
    if key in GROUP:
        known = options(key, folders)
        chosen = [value for value in values.split(",") if value in known]
        if strict and (wrong := [value for value in values.split(",") if value not in known]):
            others = [f"{name}={wrong[0]}" for name in GROUP if wrong[0] in options(name, folders)]
            near = hint.said(*others) if others else hint.value(key, wrong[0], known)
            raise ConfigError(f"{key}={wrong[0]} is not known: choose {', '.join(known)}{near}")
        return [option(key, value, folders) for value in chosen] or [group(key, folders)]
    names = [name for name in SETTINGS if name == key or name.startswith(f"{key}.")]
    if names:
        return ["\n".join(_setting(name) for name in names)]
    if (part := key.partition(".")[0]) in GROUP:
        chosen_one = defaults().get(part)
        return [option(part, chosen_one, folders) if chosen_one else group(part, folders)]
    if not strict:
        return []
    if meant := [f"{name}={topic}" for name in GROUP if topic in options(name, folders)]:
        return [option(*name.split("="), folders) for name in meant]  # type: ignore[arg-type]
    known = [*VERBS, *GROUP, *TOPICS, *SETTINGS]
    near = hint.setting(topic, "", known) or hint.nearest(topic, known)
    raise ConfigError(f"{topic} is not a help topic{near}: choose a command, a group, {', '.join(TOPICS)}")


def options(group: str, folders: Iterable[str] = ()) -> list[str]:
    """List the options of a config group by name: the yaml files of its folder, and of a user's own."""
    from pathlib import Path

    found = set()
    for folder in (files(HERE).joinpath(group), *(Path(own, group) for own in folders)):
        names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
        found |= {name.removesuffix(".yaml") for name in names if name.endswith(".yaml")}
    return sorted(found)


def defaults() -> dict[str, str]:
    """Return the option that each group has by default."""
    whole = files(HERE).joinpath("config.yaml").read_text(encoding="utf-8")
    found = dict(re.findall(r"^  - (\w+): (\w+)$", whole, re.MULTILINE))
    of_gse = files(HERE).joinpath("grow", "gse.yaml").read_text(encoding="utf-8")
    return found | dict(re.findall(r"/(subset)@\S+: (\w+)$", of_gse, re.MULTILINE))


def verbs() -> list[str]:
    """List the lines of verbs in the order of their places; files are read, as importing all takes 10 ms."""
    found = []
    for verb in VERBS:
        source = files("dstrun.cli.verb").joinpath(f"{verb}.py").read_text(encoding="utf-8")
        for literal in re.findall(r"^HELP = (\{.*?\})$", source, re.DOTALL | re.MULTILINE):
            found += ast.literal_eval(literal).items()
    return [entry(f"dstrun {words}", what, 39) for _, (words, what) in sorted(found)]


def settings() -> str:
    """List every top-level setting: default, type or values, meaning."""
    return "\n".join(["Settings (NAME=VALUE), with their defaults:", *map(_setting, SETTINGS)])


def _setting(name: str) -> str:
    item = SETTINGS[name]
    plain = default(item)
    shown = "null" if plain is None else str(plain).lower() if isinstance(plain, bool) else plain
    return entry(f"{name}={shown}", f"{item.metadata['help']}; {_allowed(name, item)}", 22)


def _allowed(name: str, item: Field[Any]) -> str:
    """Return what a setting takes."""
    bound = item.metadata["bound"]
    bound = bound() if name == "tracker" else bound
    if isinstance(bound, tuple):
        return "|".join(bound)
    kind = str(item.type).removesuffix(" | None")
    kinds = {"float": "a number", "int": "a whole number", "bool": "true or false", "str": "text"}
    plain = kinds.get(kind, "a list")
    return f"{plain} {re.sub('^must (be |lie )?', '', bound.text)}" if isinstance(bound, Bound) else plain


def entry(name: str, what: str, wide: int) -> str:
    """Return a name and what it is, side by side in ``WIDTH`` columns; below it, where the name is too long."""
    lines = textwrap.wrap(what, WIDTH - wide - 4, break_on_hyphens=False, break_long_words=False) or [""]
    if len(name) > wide:
        return "\n".join([f"  {name}", *(f"  {'':<{wide}}  {line}" for line in lines)])
    return "\n".join(f"  {name if number == 0 else '':<{wide}}  {line}" for number, line in enumerate(lines)).rstrip()


def _sweeps() -> list[str]:
    return ["Sweep files (-cn NAME):", *(entry(name, what, 12) for name, what in shipped().items())]


def text() -> str:
    """Return everything on one page."""
    chosen = defaults()
    lines = [EXAMPLES + "\n".join(verbs()), ""]
    lines += ["Groups (NAME=OPTION, NAME.KEY=VALUE for an option's settings; [default]):"]
    for group in GROUPS:
        names = [f"[{name}]" if name == chosen.get(group) else name for name in options(group)]
        lines.append(entry(group, " ".join(names) or GROUP[group], 12))
    lines += ["", "Protocols (protocol=NAME trains any method as a paper did; docs/protocols.md):"]
    lines += [f"  {' '.join(options('protocol'))}"]
    return "\n".join([*lines, "", settings(), "", *_sweeps(), "", ENDING]).rstrip()
