"""Make the tables and figures of documents again from their records, and compare.

    python benchmarks/evidence.py [FILE.md ...]             exit code 1 if a table or figure differs
    python benchmarks/evidence.py --write [FILE.md ...]     replace those that differ

The command of every table and figure is a comment in the document (default: all documents that have one). A table
stands between its comment and the next ``<!-- end -->``; a figure is the file after ``--out``:

    <!-- dstrun table results/published/vgg16_small-200 --published -->
    <!-- end -->
    <!-- dstrun plot curves results/published/vgg16_small-200 --out results/published/vgg16_small-200/curves.png -->

Figures are compared pixel by pixel. They depend on the versions of matplotlib and FreeType, which constraints.txt pins.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from glob import glob
from pathlib import Path

ROOT = Path(__file__).parents[1]

COMMENT = re.compile(r"<!-- dstrun (table|plan|plot) ([^>]*?) -->\n(?:((?:(?!<!-- ).)*)<!-- end -->)?", re.DOTALL)
"""A command, and for tables what it printed: up to the end that comes before the next command."""

WIDTH = 100


@dataclass
class Made:
    """A table or figure of a document.

    Attributes:
        document: the file that shows it.
        words: its command, without ``dstrun``.
        kept: the text of a table, as it stands in the document.
        span: where that begins and ends.
    """

    document: Path
    words: list[str]
    kept: str
    span: tuple[int, int]

    @property
    def figure(self) -> Path | None:
        """Return the file of a figure, None for a table."""
        return ROOT / self.words[self.words.index("--out") + 1] if self.words[0] == "plot" else None


def documents() -> list[Path]:
    """List the Markdown files in Git with such comments."""
    listed = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    files = [ROOT / name for name in listed.splitlines()]
    return [file for file in files if file.exists() and COMMENT.search(file.read_text())]


def found(document: Path) -> Iterator[Made]:
    """Yield the tables and figures of a document in order."""
    for match in COMMENT.finditer(document.read_text()):
        verb, words, kept = match.groups()
        if verb != "plot" and kept is None:
            sys.exit(f"{document.name}: no <!-- end --> after dstrun {verb} {words}")
        span = match.span() if verb == "plot" else match.span(3)
        yield Made(document, [verb, *expanded(words)], kept or "", span)


def expanded(words: str) -> list[str]:
    """Split a command into words, with patterns of files replaced as a shell does."""
    return [
        name
        for word in shlex.split(words)
        for name in (sorted(glob(word, root_dir=ROOT)) if "*" in word else ()) or (word,)
    ]


def table(words: list[str]) -> str:
    """Return what a command prints, as documents show it: titles in bold, notes wrapped."""
    printed = run(words)
    lines = []
    for line in printed.strip().splitlines():
        if line.startswith("### "):
            line = f"**{line[4:]}**"
        wrap = line.startswith("- ") and len(line) > WIDTH
        lines += textwrap.wrap(line, WIDTH, subsequent_indent="  ", break_on_hyphens=False) if wrap else [line]
    return "\n" + "\n".join(lines) + "\n\n"


def run(words: list[str]) -> str:
    """Run ``dstrun`` in the repository's root, and return what it prints.

    Raises:
        SystemExit: the command fails.
    """
    from dstrun.cli.main import main

    printed, said = io.StringIO(), io.StringIO()
    with contextlib.chdir(ROOT), contextlib.redirect_stdout(printed), contextlib.redirect_stderr(said):
        code = main(words)
    if code:
        sys.exit(f"dstrun {shlex.join(words)}: exit code {code}\n{said.getvalue()}")
    return printed.getvalue()


def same_figure(one: Path, other: Path) -> bool:
    """Return whether two PNG files have the same pixels."""
    from matplotlib.image import imread

    if not (one.exists() and other.exists()):
        return False
    a, b = imread(one), imread(other)
    return a.shape == b.shape and bool((a == b).all())


def differs(made: Made, write: bool) -> bool:
    """Make a table or figure again; return whether it differs from the kept one, which ``write`` replaces."""
    if made.figure is None:
        new = table(made.words)
        if new == made.kept:
            return False
        if write:
            text = made.document.read_text()
            made.document.write_text(text[: made.span[0]] + new + text[made.span[1] :])
        return True
    with tempfile.TemporaryDirectory() as folder:
        new_file = Path(folder) / made.figure.name
        words = [*made.words]
        words[words.index("--out") + 1] = str(new_file)
        run(words)
        if same_figure(made.figure, new_file):
            return False
        if write:
            shutil.copyfile(new_file, made.figure)
    return True


def check(document: Path, write: bool = False) -> list[str]:
    """Return the commands of a document whose table or figure differs."""
    # Backwards: what is replaced moves only what stands behind it.
    return [f"dstrun {shlex.join(made.words)}" for made in reversed([*found(document)]) if differs(made, write)]


def main() -> int:
    """Check documents; exit code 1 if anything differs and is not replaced."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("documents", nargs="*", type=Path, metavar="FILE.md")
    asked.add_argument("--write", action="store_true", help="replace what differs")
    given = asked.parse_args()
    os.environ.setdefault("MPLBACKEND", "agg")
    count, different = 0, 0
    for document in [path.resolve() for path in given.documents] or documents():
        count += len([*found(document)])
        for command in check(document, given.write):
            different += 1
            print(f"{document.relative_to(ROOT)}: {'replaced' if given.write else 'differs'}: {command}")
    print(f"{count} tables and figures, {different} {'replaced' if given.write else 'different'}")
    return int(different > 0 and not given.write)


if __name__ == "__main__":
    sys.exit(main())
