"""Figures within a page: drawn as everywhere, then made to fit its width, its colors and its dark side."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dstrun.report.load import Run
from dstrun.system.trouble import ConfigError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ENLARGED = 1.35
"""How much larger than in print, 8 points beside a page's 16 pixels; ``page.css`` undoes it on paper."""
INCH = 96
"""CSS pixels."""
POINTS = 10_000
"""A drawing with more on its lines is kept as pixels, twice as many as a page shows: smaller, and sooner there."""
DARK = "#15181c"
CONTRAST = 3.5
ROLES = {"#000000": "currentColor", "#ffffff": "var(--paper)", "#dddddd": "var(--rule)", "#cccccc": "var(--rule)"}
"""Colors that are not data: text and axes, what is left white, grids and frames."""


@dataclass(frozen=True)
class Drawing:
    """A figure for a page: an ``svg``, or an ``img`` of ``pixels``, of a ``width`` in CSS pixels.

    ``inks`` are its colors of data.
    """

    name: str
    caption: str
    html: str
    width: int
    pixels: bool
    inks: frozenset[str]

    @property
    def title(self) -> str:
        """Name it as the contents do."""
        return titled(self.name)


def drawings(runs: Sequence[Run]) -> tuple[list[Drawing], list[str]]:
    """Draw every figure that has something to show, and say why one that would have too much is left out."""
    from dstrun.report.figure import PRESETS, caption, sheet
    from dstrun.report.figure.canvas import arrange

    drawn, left_out = [], []
    for number, (name, preset) in enumerate(PRESETS.items()):
        with sheet():
            try:
                figure = preset.draw(runs)
            except ConfigError as error:
                left_out.append(f"{titled(name)} is left out: {error}")
                continue
            if figure is not None:
                arrange(figure)
                drawn.append(place(name, caption(preset, figure).partition("\n")[0], figure, f"f{number}-"))
    return drawn, left_out


TITLES = {"flops": "FLOPs"}
"""Headings of tables and figures whose names are not written as other words are."""


def titled(name: str) -> str:
    """Return the name of a kind of figure as a heading has it."""
    return TITLES.get(name) or name.replace("_", " ").capitalize()


def place(name: str, caption: str, figure: Figure, prefix: str) -> Drawing:
    """Turn a figure into an element of a page, to be called within ``sheet``.

    Args:
        name: of the preset.
        caption: said as the alternative text too.
        figure: as drawn.
        prefix: of the ids within, which no other figure has.
    """
    width, height = (round(inches * INCH * ENLARGED) for inches in figure.get_size_inches())
    head = f'width="{width}" height="{height}"'
    if _points(figure) > POINTS:
        return Drawing(name, caption, _png(figure, head, caption), width, True, frozenset())
    svg = _named(prefix, _svg(figure))
    inks = frozenset(re.findall(r"#[0-9a-f]{6}\b", svg)) - set(ROLES)
    svg = re.sub(r"#[0-9a-f]{6}\b", lambda ink: ROLES.get(ink[0], f"var(--{_ink(ink[0])})"), svg)
    box = re.search(r'viewBox="[^"]*"', svg)
    assert box is not None
    head = f'<svg role="img" aria-labelledby="{prefix}title {prefix}text" {head} {box[0]}>'
    text = f'<title id="{prefix}title">{_escape(name)}</title><desc id="{prefix}text">{_escape(caption)}</desc>'
    return Drawing(name, caption, head + text + svg[svg.index(">") + 1 :], width, False, inks)


def _points(figure: Figure) -> int:
    return sum(len(line.get_path()) for axis in figure.axes for line in axis.lines)


def _svg(figure: Figure) -> str:
    """Write a figure as an ``svg`` element, as small as it can be without being another."""
    stream = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(stream, format="svg", transparent=True, metadata=nothing)
    svg = stream.getvalue()
    svg = svg[svg.index("<svg") :].replace("xlink:href", "href")
    # A style sheet within the svg would be one of the whole page.
    svg = re.sub(r"<!--.*?-->|<style.*?</style>|<metadata>.*?</metadata>|<defs>\s*</defs>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\b(?:d|x|y)="[^"]*"|translate\([^)]*\)', lambda found: _rounded(found[0]), svg)
    # Letters stand side by side: most of a drawing is where each begins.
    svg = re.sub(r'(<use [^>]*)transform="translate\(([-\d.]+)(?: 0)?\)"', r'\1x="\2"', svg)
    return re.sub(r"\s*\n\s*", "\n", svg)


def _named(prefix: str, svg: str) -> str:
    """Leave those ids that something refers to, and make them short, and others than those of other figures."""
    used = dict.fromkeys(re.findall(r'(?:url\(#|href="#)([^")]*)', svg))
    short = {key: f"{prefix}{i}" for i, key in enumerate(used)}
    svg = re.sub(r' id="([^"]*)"', lambda found: f' id="{short[found[1]]}"' if found[1] in short else "", svg)
    return re.sub(r'(url\(#|href="#)([^")]*)', lambda found: found[1] + short[found[2]], svg)


def _rounded(text: str) -> str:
    """Round to hundredths of a point."""
    return re.sub(r"-?\d+\.\d+", lambda number: f"{float(number[0]):.2f}".rstrip("0").rstrip("."), text)


def _png(figure: Figure, head: str, caption: str) -> str:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=2 * INCH * ENLARGED, metadata={"Software": None})
    data = base64.b64encode(stream.getvalue()).decode()
    return f'<img alt="{_escape(caption)}" {head} src="data:image/png;base64,{data}">'


def _escape(text: str) -> str:
    from html import escape

    return escape(" ".join(text.split()))


def _ink(color: str) -> str:
    return f"ink-{color[1:]}"


def inks(found: Sequence[Drawing]) -> list[tuple[str, str, str]]:
    """Name every color of data, with what it is on a light page and on a dark one."""
    colors = sorted(frozenset[str]().union(*(drawing.inks for drawing in found)))
    return [(_ink(color), color, lightened(color)) for color in colors]


def lightened(color: str) -> str:
    """Mix in as much white as it takes to be seen on a dark page; of a gray take its opposite first."""
    rgb = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    rgb = [255 - rgb[0]] * 3 if len({*rgb}) == 1 else rgb
    for step in range(21):
        mixed = "#" + "".join(f"{round(part + (255 - part) * step / 20):02x}" for part in rgb)
        if contrast(mixed, DARK) >= CONTRAST:
            return mixed
    raise AssertionError("white is seen on a dark page")


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colors as WCAG 2 has it, 1 to 21."""
    dark, light = sorted((_luminance(one), _luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def _luminance(color: str) -> float:
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
