"""Arguments that verbs share: which runs, and how rows are printed."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dstrun.cli.flags import Parser
from dstrun.config.hint import nearest
from dstrun.config.option import expanded
from dstrun.system.progress import say
from dstrun.system.trouble import ConfigError

if TYPE_CHECKING:
    from dstrun.report.load import Run

log = logging.getLogger("dstrun")

FORMATS = ("md", "csv", "json", "latex", "html")
RUNS = "folders (default: results), and conditions on runs: where=method:gse,rigl 'where=sparsity>=0.9'"
QUERY = ("where", "rows", "cols", "value")


def parser(verb: str, description: str, *, rows: bool = True, runs: bool = True) -> Parser:
    """Make a verb's parser: with the words that say which ``runs``, and with ``--format`` where it prints ``rows``."""
    made = Parser(f"dstrun {verb}", description=description)
    if runs:
        made.add_argument("which", nargs="*", metavar="RESULTS|where=", help=RUNS)
    if rows:
        usual = "a table on a terminal, md where piped"
        made.add_argument("--format", choices=FORMATS, help=f"how to print rows (default: {usual})")
    return made


def own_code(made: Parser) -> None:
    """Add the flags that say where a run's options of your own are, which nothing but you may say."""
    made.add_argument(
        "-cd", "--config-dir", metavar="DIR", action="append", default=[], help="folder of your own options"
    )
    made.add_argument(
        "--trusted", metavar="PACKAGE", action="append", default=[],
        help="an installed package that the network of the run may come from",
    )  # fmt: skip


def split_query(words: Sequence[str], known: Sequence[str] = QUERY[:1]) -> tuple[list[Path], dict[str, list[str]]]:
    """Separate folders from the words of a query, ``where=...``.

    Raises:
        ConfigError: a word that the verb does not take.
    """
    folders, query = [], {key: [] for key in known}
    for word in words:
        key, sign, value = word.partition("=")
        if key in known and sign:
            query[key].append(value)
        elif sign and not Path(expanded(word)).exists():
            raise ConfigError(
                f"{word} is not known here: choose {', '.join(f'{k}=' for k in known)}{nearest(key, known)}"
            )
        else:
            folders.append(Path(expanded(word)))
    return folders or [Path("results")], query


def found_runs(words: Sequence[str]) -> list[Run]:
    """Load the runs below folders that meet the conditions; what is damaged is said, not raised."""
    from dstrun.report import fields, load

    folders, query = split_query(words)
    runs = list({run.folder.absolute(): run for folder in folders for run in load.runs(folder)}.values())
    for warning in load.warnings(runs):
        log.warning("%s", warning)
    return fields.where(runs, query["where"])


def nothing(words: Sequence[object], what: str = "run") -> int:
    """Print that nothing was found."""
    say(missing(words, what))
    return 3


def missing(words: Sequence[object], what: str = "run") -> str:
    """Return the sentence that nothing was found."""
    given = [str(word) for word in words] or ["results"]
    conditions = [word for word in given if word.startswith("where=")]
    meeting = f" that meets {' '.join(conditions)}" if conditions else ""
    folders = [word for word in given if word not in conditions] or ["results"]
    return f"no {what} below {', '.join(folders)}{meeting}"


def key_names(text: str | None) -> dict[str, str] | None:
    """Read the names that ``--names`` gives keys, ``KEY=NAME,KEY=NAME``; ``papers`` gives none of your own.

    Raises:
        ConfigError: a part is no KEY=NAME.
    """
    if text is None or text == "papers":
        return None if text is None else {}
    parts = [part.rpartition("=")[::2] for part in text.split(",")]
    if not all(key.strip() and name.strip() for key, name in parts):
        raise ConfigError(f"--names {text} must be KEY=NAME,KEY=NAME, such as gse=Ours,rigl=RigL")
    return {key.strip(): name.strip() for key, name in parts}
