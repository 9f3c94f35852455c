"""A figure as one file that a paper takes without editing: vector, its title above, what it shows, n and chance below.

1. the figure is laid out anew at the width, so that its writing is as large in a column as on a page: 12 px are 6.3 points
2. the title and the line below it stand in the margin that the figure leaves for them, broken into lines
3. below: the finding in words, and of how many sequences it is, and what chance is
4. colours are written in, those of the light theme: a paper has no dark one
"""

from __future__ import annotations

import html
import textwrap
from os import PathLike
from pathlib import Path

from byrote.checkpoints.atomic import explained_writes, write_text
from byrote.checkpoints.errors import ByroteError, did_you_mean
from byrote.checkpoints.setting import path_of
from byrote.probes.figures.canvas import LINE_PX, Figure
from byrote.probes.figures.select import counted, counts_in_words
from byrote.probes.figures.svg import WIDTH_PX, figure_svg, still_style, theme_variables
from byrote.probes.figures.svg_room import drawn_px
from byrote.probes.figures.theme import FONT_FAMILY, TOKENS
from byrote.probes.wording import clean, file_stem

# name -> (drawn width in pixels, printed width in millimetres)
PRINTED = {"column": (480, 89.0), "page": (980, 183.0)}
TITLE_LINES_PX = (18, 36)  # where the title and the line below it stand in the margin of a figure
_CHARS_PER_PX = {"title": 1 / 9.4, "text": 1 / 6.8}  # of these fonts, somewhat less than fit
_PAD_PX = 12


def save(fig: Figure, path: str | PathLike[str], width: str = "column") -> Path:
    """Write a figure as an SVG file.

    Args:
        fig: made by `byrote.probes.figures`.
        path: ends in .svg; what is there is replaced.
        width: "column" (89 mm) or "page" (183 mm).

    Returns:
        The file.

    Raises:
        ByroteError: another width, another kind of file, or a place that cannot be written.
    """
    if not hasattr(fig, "layout"):
        raise ByroteError(f"fig={fig!r:.80} is not a figure", help="such as br.figures.trajectory(metric)")
    place = path_of(path, "path")
    if place.suffix.lower() != ".svg":
        found = f"{place.suffix} files" if place.suffix else "files without an ending"
        raise ByroteError(
            f"figures are saved as .svg, not as {found}",
            help=f"save {place.with_suffix('.svg')} and convert it: rsvg-convert -f pdf, or Inkscape",
        )
    with explained_writes(place):
        write_text(place, paper_svg(fig, width, name=file_stem(place.stem)))
    return place


def paper_svg(fig: Figure, width: str = "page", *, name: str = "figure", on_screen: bool = False) -> str:
    """The same as text.

    Args:
        fig: made by `byrote.probes.figures`.
        width: "column" or "page".
        name: prefixes the ids inside.
        on_screen: sized in pixels and not in millimetres.

    Raises:
        ByroteError: another width.
    """
    if width not in PRINTED:
        raise ByroteError(f"there is no printed width {width!r}", help=did_you_mean(width, list(PRINTED)))
    width_px, width_mm = PRINTED[width]
    parts, below_px = _titled(fig, width_px, name)
    caption = textwrap.wrap(caption_of(fig), int(width_px * _CHARS_PER_PX["text"]))
    height_px = below_px + LINE_PX * len(caption) + _PAD_PX
    parts += _text(caption, 0, below_px + _PAD_PX, 'font-size="12" fill="var(--ink)"')
    printed = (f"{width_mm:g}mm", f"{width_mm * height_px / width_px:.1f}mm")
    svg = _file(fig, "".join(parts), (width_px, height_px), size=None if on_screen else printed)
    for token, (light, _) in TOKENS.items():
        svg = svg.replace(f"var(--{token})", light)
    return svg


def page_svg(fig: Figure, *, name: str) -> str:
    """A figure as an SVG file for a page that writes the caption itself: in the reader's colours, light or dark.

    Args:
        fig: made by `byrote.probes.figures`.
        name: prefixes the ids inside.
    """
    parts, height_px = _titled(fig, WIDTH_PX, name)
    return _file(fig, "".join(parts), (WIDTH_PX, height_px), style=theme_variables())


def _titled(fig: Figure, width_px: int, name: str) -> tuple[list[str], int]:
    """The figure below its title and the line under it, and how high that is in pixels."""
    layout = fig.layout
    title = _lines(layout.title.text, width_px, "title")
    under = _lines(layout.title.subtitle.text or "", width_px, "text")
    above_px = TITLE_LINES_PX[1] + LINE_PX * (len(title) + len(under) - 1) + _PAD_PX
    shift_px = max(0, above_px - int(layout.margin.t))
    parts = [
        *_text(title, 0, TITLE_LINES_PX[0], 'font-size="15" font-weight="650" fill="var(--ink)"'),
        *_text(under, 0, TITLE_LINES_PX[0] + LINE_PX * len(title) + 3, 'font-size="12" fill="var(--muted)"'),
        figure_svg(fig, name=name, width_px=width_px, titles=False, fit=True).replace(
            "<svg ", f'<svg y="{shift_px}" ', 1
        ),
    ]
    return parts, shift_px + drawn_px(fig.to_plotly_json()["layout"], width_px)[1]


def _file(
    fig: Figure, drawn: str, view_px: tuple[int, int], *, size: tuple[str, str] | None = None, style: str = ""
) -> str:
    """An SVG file: what is drawn on the ground of the paper."""
    wide, high = size or map(str, view_px)
    box = f'width="{wide}" height="{high}" viewBox="0 0 {view_px[0]} {view_px[1]}"'
    ground = '<rect width="100%" height="100%" fill="var(--paper)"/>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {box} role="img" aria-label="{html.escape(_alt(fig))}" '
        f'font-family="{html.escape(FONT_FAMILY)}"><style>{style}{still_style()}</style>{ground}{drawn}</svg>\n'
    )


def caption_of(fig: Figure) -> str:
    """What a figure shows, in words, with its intervals, n and chance, which are not repeated where the words have them."""
    text = _alt(fig)
    enough = not fig.counts and "n=" in text and "chance" in text
    return text if enough else f"{text} {counts_of(fig)}".strip()


def counts_of(fig: Figure) -> str:
    """Of how many sequences a figure's numbers are, and what chance is; "" where its table says neither."""
    if fig.counts:
        return fig.counts
    table = fig.table
    if {"value", "lo", "hi", "chance", "n"} <= set(table.columns) and table["n"].any():
        return counts_in_words(table)
    if not {"difference", "n"} <= set(table.columns):
        return ""
    drawn = table[table["difference"].notna() & (table["n"] > 0)]
    return f"Paired differences over {counted(drawn)}; without a change they are 0." if len(drawn) else ""


def _alt(fig: Figure) -> str:
    return clean((fig.layout.meta or {}).get("alt", ""), limit=2000)


def _lines(markup: str, width_px: int, kind: str) -> list[str]:
    """A title as lines of plain text."""
    text = html.unescape(str(markup).replace("<br>", " "))
    return textwrap.wrap(text, int(width_px * _CHARS_PER_PX[kind]))


def _text(lines: list[str], x: int, y: int, style: str) -> list[str]:
    return [
        f'<text x="{x}" y="{y + LINE_PX * i}" {style}>{html.escape(line)}</text>'
        for i, line in enumerate(lines)
    ]
