"""A figure that a notebook shows by itself."""

from __future__ import annotations

from io import BytesIO

from matplotlib.figure import Figure

DOTS_PER_INCH = 150


class Shown(Figure):
    """A figure without pyplot, which would keep it, and show it a second time."""

    def _repr_png_(self) -> bytes:
        data = BytesIO()
        self.savefig(data, format="png", dpi=DOTS_PER_INCH)
        return data.getvalue()
