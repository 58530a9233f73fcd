"""A figure that a notebook shows by itself."""

from __future__ import annotations

from io import BytesIO

from matplotlib.figure import Figure

DOTS_PER_INCH = 150


class Shown(Figure):
    """A figure without pyplot, which would keep it, and show it a second time.

    Attributes:
        note: what belongs into its caption besides the preset's: the seeds, and what is not as asked for.
        keys: the names within as the configuration has them.
    """

    note: str = ""
    keys: tuple[str, ...] | list[str] = ()

    def _repr_png_(self) -> bytes:
        data = BytesIO()
        self.savefig(data, format="png", dpi=DOTS_PER_INCH)
        return data.getvalue()
