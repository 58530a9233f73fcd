"""A table as a paper's source."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from report_fixture import record_of, write

from dstrun.report import load, table
from dstrun.report.table.cells import Options


def source(root: Path, preset: str = "accuracy", seeds: int = 3, **more: str) -> str:
    for label in ("dense", "set", "rigl", "gse"):
        for seed in range(seeds):
            write(root, record_of(label, 0.9 if label != "dense" else 0.0, seed, 90.0 + seed))
    return table.build(load.runs(root), preset, Options()).render("latex", **more)  # type: ignore[arg-type]


def test_it_is_pasted_as_it_is(tmp_path: Path) -> None:
    text = source(tmp_path, caption="Ours & theirs, 100 %", label="tab:mine")
    assert r"\caption{Ours \& theirs, 100 \%}" in text
    assert r"\label{tab:mine}" in text
    assert r"\multicolumn{2}{c}{Sparsity}" in text
    assert "(3)" not in text
    assert r"over 3 seeds" in text
    assert r"Dense & $91.0 \pm 1.0$ & -- \\" in text
    notes = text[text.index("tablenotes}[") :]
    assert not re.search(r"[a-z]\\_[a-z]|[a-z]\.[a-z]|cifar10|rigl", notes)


def test_seeds_are_counted_where_cells_differ(tmp_path: Path) -> None:
    for seed in range(2):
        write(tmp_path, record_of("snip", 0.9, seed, 80.0))
    text = source(tmp_path)
    assert "(3)" in text
    assert "(2 of 3)" in text


@pytest.mark.parametrize("compiler", ["pdflatex", "tectonic"])
def test_it_compiles_and_stays_on_the_page(compiler: str, tmp_path: Path) -> None:
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not on this machine")
    texts = [source(tmp_path / str(i), preset) for i, preset in enumerate(("accuracy", "flops", "memory"))]
    packages = texts[0].split("\n\n")[0].replace("% In the preamble: ", "").replace("% ", "")
    body = "\n\n".join(texts)
    document = (
        "\\documentclass[twocolumn]{article}\n" + packages + "\n\\begin{document}\n" + body + "\n\\end{document}\n"
    )
    (tmp_path / "main.tex").write_text(document)
    words = ["-interaction=nonstopmode", "-halt-on-error"] if compiler == "pdflatex" else ["--keep-logs"]
    done = subprocess.run(
        [compiler, *words, "main.tex"], cwd=tmp_path, capture_output=True, text=True, errors="replace"
    )
    log = (tmp_path / "main.log").read_text(errors="replace")
    assert done.returncode == 0, log[-2000:]
    assert not [line for line in log.splitlines() if line.startswith("Overfull \\hbox")]
