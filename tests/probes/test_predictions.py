"""Predicted tokens and their churn: worked by hand, and end to end on planted models whose disagreement is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from lookup_models import TABLE_NATS, lookup_state, members, table_of, write_series

import byrote as br
from byrote.checkpoints.errors import ByroteError
from byrote.probes.degrade import by_arm, shared_answers
from byrote.probes.degrade.measures import degradation
from byrote.probes.groups import group
from byrote.probes.model.predictions import first_choice, places

HELD_OUT = members(16)
OTHER = np.unique(HELD_OUT[:, 1:13])[::5]  # ids after which the second seed predicts another token


def test_the_first_choice_at_spread_places_by_hand():
    assert (
        places(3).tolist() == [0, 1, 2]
        and places(100)[[0, -1]].tolist() == [0, 99]
        and len(places(100)) == 32
    )
    logits = torch.zeros(2, 4, 5)
    logits[0, [0, 1, 2], [2, 3, 4]] = 1.0
    logits[1, 1, 0] = torch.nan
    found = first_choice(logits)
    assert found[0].tolist() == [2, 3, 4, 0] and found[1].isnan().tolist() == [False, True, False, False]


def state(*, turned: bool, gain: float):
    """A model that follows the walk, or after some ids predicts these ids again; seeds differ in how sure they are."""
    fields, weights = lookup_state()
    weights["head.weight"] *= gain
    if turned:
        column = weights["tok_embed.weight"].argmax(1)[torch.tensor(OTHER)]
        weights["head.weight"][:, column] = 0.0
        weights["head.weight"][torch.tensor(OTHER), column] = TABLE_NATS
    return fields, weights


def followed(tokens: np.ndarray) -> np.ndarray:
    """What the walk goes on to; after BOS, where the model has nothing to go by, id 0."""
    return table_of(None).argmax(0).numpy()[tokens]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Three seeds of one arm, of which the second is turned; one more with a held-out split of its own."""
    root, found = tmp_path_factory.mktemp("churn"), []
    for seed, turned, tokens in (
        (0, False, HELD_OUT),
        (1, True, HELD_OUT),
        (2, False, HELD_OUT),
        (3, False, HELD_OUT[::-1].copy()),
    ):
        arm = {"kind": "unique", "repeat_frac": 0.0, "pool_size": 0, "repeats_per_sequence": 0}
        path = write_series(root / f"s{seed}", {0: state(turned=turned, gain=1 + seed / 100)}, data={"held_out": {"tokens": tokens}},
                            manifest={"arm": arm, "seed": seed})  # fmt: skip
        series = br.open_series(path)
        found.append(br.measure(series, ["predictions"], out=root / "results", n_seq=16, progress=False))
    return found


def test_seeds_disagree_where_they_were_planted_to(runs):
    at = places(31).numpy()
    shown = HELD_OUT[:, at]
    right = [run.select("predictions", "right", step=0)["value"].iloc[0] for run in runs[:2]]
    after = np.isin(shown, OTHER)
    assert right[0] == pytest.approx((HELD_OUT[:, at + 1] == followed(shown)).mean())
    assert right[1] == pytest.approx(((HELD_OUT[:, at + 1] == followed(shown)) & ~after).mean())
    turned = float(np.isin(shown, OTHER).mean())
    assert 0.1 < turned < 0.4
    rows = degradation(by_arm(runs[:2]), measures=["churn"]).rows
    (row,) = rows.to_dict("records")
    assert (row["metric"], row["unit"], row["seeds"]) == ("predictions/token", "share of places", 2)
    assert row["value"] == pytest.approx(turned) and np.isnan(row["lo"])
    assert row["how"].startswith("496 places; ")
    (three,) = degradation(by_arm(runs[:3]), measures=["churn"]).rows.to_dict("records")
    assert three["value"] == pytest.approx(2 * turned / 3) and three["lo"] < three["value"] < three["hi"]


def test_they_take_a_few_kilobytes_and_are_compared_with_nothing(runs):
    (unit,) = (runs[0].path / "units").rglob("*.parquet")
    assert unit.stat().st_size < 16_000
    found = br.compare(runs[0], runs[2])
    assert set(found.rows["metric"]) == {"right"}


def test_other_text_is_no_case_in_common(runs):
    with pytest.raises(ByroteError, match="were measured on different sequences"):
        shared_answers(group("unique", [runs[0], runs[3]]), "predictions", "token")
    with pytest.raises(ByroteError, match="were measured on different sequences"):
        degradation(by_arm([runs[0], runs[3]]), measures=["churn"])
