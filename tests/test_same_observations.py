"""The script that says whether a change moved a number sees each way in which one can move."""

from __future__ import annotations

import numpy as np
import pytest
from same_observations import EXACT, FLOATS, differences, observations


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    from byrote.checkpoints.lab.planted import PlantedConfig, write_planted
    from byrote.probes import measure

    folder = tmp_path_factory.mktemp("same")
    write_planted(folder / "planted", PlantedConfig(d_vocab=48, n_ctx=104), kind="planted")
    results = measure(folder / "planted", "prefix_matching", out=folder / "out", progress=False, n_seq=4)
    assert len(results.frame)
    return observations(results.path)


def test_equal_results_are_equal(stored):
    assert list(differences(stored, stored.copy())) == []


@pytest.mark.parametrize("column", [*FLOATS, *EXACT])
def test_a_change_in_one_row_is_seen_in_every_column(stored, column):
    changed = stored.copy()
    place = int(np.flatnonzero(stored.index.get_level_values("probe") == "prefix_matching")[3])
    before = changed[column].iloc[place]
    if column in FLOATS:
        after = np.nextafter(before, np.inf)
    elif column in ("n", "tokens_seen"):
        after = 7_777
    else:
        after = (not before) if column == "valid" else "another reason"
    changed.iloc[place, changed.columns.get_loc(column)] = after
    (line,) = differences(stored, changed)
    assert line.startswith("prefix_matching ") and f"{column} differs in 1 rows" in line
    assert list(differences(stored, changed, {"prefix_matching": [column]})) == []


def test_missing_and_added_rows_are_seen(stored):
    assert "1 rows are not in the new results" in " ".join(differences(stored, stored.iloc[1:]))
    assert "1 rows are not in the old results" in " ".join(differences(stored.iloc[1:], stored))
