"""Every page of scores that were imported: drawn where that is possible, and marked as what they are."""

from __future__ import annotations

import pandas as pd
import pytest

from byrote.dashboard.views import PAGES
from byrote.probes.imported import import_scores


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    root = tmp_path_factory.mktemp("imported") / "results"
    rows = [
        (s, l, h, 0.02 + (0.6 if (l, h) == (1, 0) else 0) * s / 40)
        for s in (0, 20, 40)
        for l in (0, 1)
        for h in (0, 1)
    ]
    frame = pd.DataFrame(rows, columns=["step", "layer", "head", "value"])
    for name, shift in (("published", 0.0), ("other", 0.01)):
        import_scores(
            frame.assign(value=frame["value"] + shift),
            root / name,
            metric="prefix_matching",
            source="Table 2",
        )
    return root


@pytest.mark.parametrize("page", sorted(PAGES))
def test_every_page_draws_it_or_says_why_not(open_page, imported, page):
    at = open_page(page, imported, run="published", base="other")
    assert not at.exception, at.exception
    assert any("no samples" in caption.value for caption in at.caption)
