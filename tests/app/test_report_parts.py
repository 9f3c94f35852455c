"""The report's small parts, each by itself: redaction, colours, still drawings, the size warning."""

from __future__ import annotations

import plotly.graph_objects as go
import pytest

from byrote.probes.figures.theme import TOKENS
from byrote.report.files import size_warnings
from byrote.report.redact import redact
from byrote.report.scales import contrast, interpolate, readable_on
from byrote.report.svg import figure_svg


def test_a_page_past_the_limit_is_warned_about_with_its_largest_section() -> None:
    assert size_warnings(10, {"a": 4, "b": 6}, limit=10) == ()
    (warning,) = size_warnings(12_300_000, {"heads": 1_000_000, "timeline": 8_000_000}, limit=10_000_000)
    assert "12 MB" in warning and "“timeline” (8 MB)" in warning


def test_homes_and_user_names_are_redacted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/srv/people/grace")
    assert redact("/srv/people/grace/runs/a") == "~/runs/a"
    assert redact("open '/home/ada/x' and /Users/ada/y") == "open '~/x' and ~/y"
    assert redact(r"C:\Users\ada\runs") == r"~\runs"
    assert redact("/srv/people/graceful/a") == "/srv/people/graceful/a"


def test_still_figures_refuse_what_they_cannot_draw() -> None:
    fig = go.Figure(
        go.Pie(values=[1]),
        layout={"height": 100, "margin": {"t": 0, "b": 0, "l": 0, "r": 0}, "meta": {"alt": "a"}},
    )
    with pytest.raises(ValueError, match="pie"):
        figure_svg(fig, name="x")


def test_theme_colours_can_be_told_from_the_paper() -> None:
    for theme in (0, 1):
        paper = TOKENS["paper"][theme]
        for name in ("ink", "muted"):
            assert contrast(TOKENS[name][theme], paper) >= 4.5, (name, theme)
        for name in ("base", "series0", "series1", "series2", "series3"):
            assert contrast(TOKENS[name][theme], paper) >= 3, (name, theme)
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert readable_on("#fee838") == "#111111" and readable_on("#00224e") == "#ffffff"
    assert interpolate([(0, "#000000"), (1, "rgb(200, 100, 48)")], 0.5) == "#643218"
