"""Results of runs, as the command line reads them: data frames, a table, a figure."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from dstrun.cli.words import found_runs, missing
from dstrun.report import load
from dstrun.system.trouble import ConfigError

if TYPE_CHECKING:
    import pandas
    import pyarrow
    from matplotlib.figure import Figure

    from dstrun.report.table import Table


def runs(*which: str | os.PathLike[str]) -> pandas.DataFrame:
    """Read all runs, finished or not: one row per run, with the columns of ``dstrun export`` (``docs/reports.md``).

    Args:
        *which: folders, ``"results"`` if none, and conditions, ``"where=method:gse"``, as verbs take them.

    Raises:
        ConfigError: there is no such folder, a condition makes no sense, or pandas is not installed.
    """
    from dstrun.report.export import run_table

    found = _found(which)
    return _frame(run_table(found, [load.setting(run) for run in found], time.time()))


def epochs(*which: str | os.PathLike[str]) -> pandas.DataFrame:
    """Read all epochs of runs: one row per epoch, with the columns of ``dstrun export``.

    Args:
        *which: as in ``runs``.

    Raises:
        ConfigError: as ``runs`` does.
    """
    import pyarrow

    from dstrun.report.export import epoch_batches

    found = _found(which)
    return _frame(pyarrow.concat_tables(epoch_batches(found, [load.setting(run) for run in found])))


def table(
    *which: str | os.PathLike[str],
    preset: str = "accuracy",
    ci: bool = False,
    significant: bool = False,
    against: str = "",
    published: bool = False,
    reference: Sequence[str] = (),
    digits: int = 1,
) -> Table:
    """Make a table as ``dstrun table`` does; a notebook shows it, ``print`` prints it as Markdown.

    Args:
        *which: as in ``runs``; and rows, columns and values, ``"rows=method"``, ``"cols=sparsity"``.
        preset: as ``--preset``; the arguments that follow are the flags of the same names.
        ci: show 95 % confidence intervals in place of standard deviations.
        significant: print in bold every result that is not significantly worse than the best.
        against: the method to which differences are shown in brackets.
        published: show published numbers beside these.
        reference: files of more published numbers.
        digits: decimals of accuracies.

    Raises:
        ConfigError: there are no such runs, or an argument is invalid.
    """
    from dstrun.cli.verb.table import ask, of_runs

    words = _texts(which)
    built = ask(
        words, preset, ci=ci, significant=significant, against=against, published=published, reference=reference,
        digits=digits,
    )  # fmt: skip
    if not built.cells:
        raise ConfigError(missing(of_runs(words)))
    return built


def plot(
    preset: str,
    *which: str | os.PathLike[str],
    title: str = "",
    names: Mapping[str, str] | None = None,
    width: float | None = None,
    ylim: tuple[float, float] | None = None,
    columns: int | None = None,
) -> Figure:
    """Draw a figure as ``dstrun plot`` does; a notebook shows it, ``savefig`` writes it.

    It is not pyplot's: nothing has to be closed, and nothing is shown twice.

    Args:
        preset: which figure, ``"sparsity"``.
        *which: as in ``runs``.
        title: of the figure.
        names: in place of keys, ``{"gse": "Ours"}``; others are those of papers.
        width: in inches.
        ylim: limits of the vertical axes, ``(40, 60)``.
        columns: panels side by side, 1 to 8.

    Raises:
        ConfigError: there is no such figure, there are no runs for it, or it cannot be drawn as asked.
    """
    from dstrun.report import figure

    found = figure.PRESETS.get(preset)
    if found is None:
        from dstrun.config.option import nearest

        known = f"choose {', '.join(figure.PRESETS)}{nearest(preset, figure.PRESETS)}"
        raise ConfigError(f"plot {preset} is not known: {known}")
    words = _texts(which)
    with figure.asking(figure.Asked(title, names or {}, width, ylim, columns)):
        drawn = figure.drawn(lambda: found.draw(found_runs(words)))
    if drawn is None:
        raise ConfigError(missing(words, found.needs))
    return drawn


def _texts(which: Sequence[str | os.PathLike[str]]) -> list[str]:
    return [os.fspath(word) for word in which]


def _found(which: Sequence[str | os.PathLike[str]]) -> list[load.Run]:
    try:
        import pandas  # noqa: F401
    except ImportError:
        raise ConfigError("runs and epochs need pandas, which is not installed: pip install pandas") from None
    return found_runs(_texts(which))


def _frame(found: pyarrow.Table) -> pandas.DataFrame:
    """Return a table as a data frame; whole numbers and truth values stay so where some are unknown."""
    import pandas
    import pyarrow

    kinds = {pyarrow.int64(): pandas.Int64Dtype(), pyarrow.bool_(): pandas.BooleanDtype()}
    return found.to_pandas(types_mapper=kinds.get)
