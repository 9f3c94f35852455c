"""Onsets and paired comparison on results whose per-sequence values are written down here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from byrote.checkpoints.atomic import write_json
from byrote.checkpoints.errors import ByroteError
from byrote.probes.comparable import corrected
from byrote.probes.degradation import BEST_HEAD, compare
from byrote.probes.findings import induction, marks, no_events
from byrote.probes.registry import lookup
from byrote.probes.results import Results
from byrote.probes.results.derived import rebuild_observations
from byrote.probes.results.run_json import SCHEMA_VERSION
from byrote.probes.results.schema import Measured, from_samples, unit_table
from byrote.probes.results.unit_files import step_folder, write_unit
from byrote.probes.rules import PRIMARY
from byrote.probes.trajectory import best_head, events, head_onsets, heads_above, onset
from byrote.probes.trajectory.verdict import called_heads
from byrote.probes.unnamed_heads import matched

N = 16
NOISE = np.linspace(-0.01, 0.01, N)  # mean 0, so every planted mean is exact
LOW, HIGH = [[0.03, 0.03], [0.03, 0.03]], [[0.03, 0.03], [0.8, 0.03]]


def _grid(means: list[list[float]]) -> np.ndarray:
    """[n, n_layers, n_heads] with the given means and a little spread."""
    return np.asarray(means)[None] + NOISE[:, None, None]


def _prefix(kind: str, means: list[list[float]]) -> list[Measured]:
    metric = "score" if kind == "repeated_random" else f"score@{kind}"
    return [
        from_samples(
            lookup("prefix_matching"), metric, _grid(means), axes=("layer", "head"), chance=0.03, seed=0
        )
    ]


def _write(
    root: Path,
    name: str,
    scores: dict[int, list[list[float]]],
    *,
    loss: float = 1.0,
    stimulus: str = "a",
    copying: float = 0.5,
    held_out: bool = False,
    seed: int | None = 0,
) -> Results:
    path = root / name
    for step, means in scores.items():
        losses = from_samples(
            lookup("repeat_loss"), "later_blocks", loss + 10 * NOISE, axes=(), chance=5.0, seed=0
        )
        copies = from_samples(
            lookup("copying_logit"),
            "score",
            _grid([[copying] * 2] * 2),
            axes=("layer", "head"),
            chance=-0.7,
            seed=0,
        )
        units = {
            "repeated_random": [*_prefix("repeated_random", means), copies, losses],
            "shuffled_repeat": _prefix("shuffled_repeat", LOW),
            "jittered_repeat": _prefix("jittered_repeat", means),
        }
        if held_out:
            natural = Measured(
                "held_out_loss", "loss", *(np.array(v) for v in (10 / (step + 1), 0.0, 9.0, 9.0, 4.0)), ()
            )
            units["natural"] = [natural]
        for kind, measured in units.items():
            facts = {
                "fingerprint": f"{name}{step}",
                "stimulus": f"{kind}-{stimulus}",
                "dtype": "float32",
                "probes": {},
            }
            table = unit_table(measured, run=name, step=step, tokens_seen=step * 100)
            write_unit(step_folder(path, step) / f"{kind}.00.parquet", table, facts)
    recorded = dict.fromkeys(map(str, scores), 1.0)  # training loss, by which nothing is aligned
    series = {
        "name": name,
        "path": f"runs/{name}",
        "format": "lab",
        "steps": list(scores),
        "loss_nats": recorded,
        "manifest": {} if seed is None else {"seed": seed},
    }
    write_json(path / "run.json", {"schema": SCHEMA_VERSION, "run": name, "series": series, "gaps": []})
    rebuild_observations(path)
    return Results.open(path)


def test_onset_is_the_bracket_around_the_first_lasting_call(tmp_path):
    results = _write(tmp_path, "run", {0: LOW, 100: HIGH, 200: LOW, 300: HIGH, 400: HIGH})
    found = onset(results)
    assert found.found and found.head == "L1H0"
    assert found.bracket == (200, 300)  # the call at 100 did not last
    assert found.tokens == (20_000, 30_000)
    assert found.heads_at_end == ("L1H0",)


def test_no_onset_on_a_series_that_has_none(tmp_path):
    found = onset(_write(tmp_path, "run", {0: LOW, 100: LOW}))
    assert not found.found and found.bracket is None and found.text == "no induction head at any step"


def test_a_call_that_never_lasts_is_said_and_is_no_onset(tmp_path):
    found = onset(_write(tmp_path, "run", {0: LOW, 100: HIGH, 200: LOW}))
    assert not found.found and "none of them lasts" in found.text


def test_heads_lost_at_one_step_are_a_finding_and_those_at_the_end_are_named_strongest_first(tmp_path):
    """Four heads, two of them lost at step 300 and back at 400; until now "forms induction heads" and nothing else."""
    four, two = [[0.6, 0.7], [0.8, 0.9]], [[0.6, 0.03], [0.8, 0.03]]
    results = _write(tmp_path, "run", {0: LOW, 100: four, 200: four, 300: two, 400: four})
    found = onset(results)
    assert found.heads_at_end == ("L1H1", "L1H0", "L0H1", "L0H0")
    assert (found.loss.bracket, found.loss.before, found.loss.after, found.loss.at_end) == (
        (200, 300),
        4,
        2,
        4,
    )
    assert found.loss.lost == ("L1H1", "L0H1")
    fall = "4 heads fall to 2 between steps 200 and 300, 4 at the last step"
    assert induction("run", found) == (
        f"run: induction heads form between steps 0 and 100 (L1H1, L1H0, L0H1 and 1 more); {fall}"
    )
    table = events(results).set_index("event")
    assert table.loc["induction_loss", "text"] == f"{fall}; significantly lost: L1H1, L0H1"
    assert (300, fall) in marks(results, found)


def test_a_head_that_slips_below_the_line_is_no_loss(tmp_path):
    """From 0.085 to 0.075: called and not called, and no sure change; and one of eight, surely gone, is turnover."""
    near, below = [[0.03, 0.03], [0.6, 0.085]], [[0.03, 0.03], [0.6, 0.0799]]
    results = _write(tmp_path, "run", {0: LOW, 100: near, 200: near, 300: below, 400: below})
    called = [len(called_heads(results, step)) for step in (200, 300)]
    assert called == [2, 1]
    assert onset(results).loss is None


def test_a_run_of_one_step_has_sentences_of_its_own(tmp_path):
    one = _write(tmp_path, "one", {750: HIGH})
    found = onset(one)
    assert found.text == "1 induction head at step 750, the only one measured: L1H0"
    assert induction("one", found) == "one: 1 induction head (L1H0) at step 750"
    assert no_events(one) == "one: only step 750 was measured; what happened when needs two steps"
    none = onset(_write(tmp_path, "none", {750: LOW}))
    assert none.text == "no induction head at step 750, the only one measured"
    assert induction("none", none) == "none: no induction head at step 750"


def test_there_from_the_start_has_an_open_bracket(tmp_path):
    found = onset(_write(tmp_path, "run", {0: HIGH, 100: HIGH}))
    assert found.bracket == (None, 0)


def test_a_head_that_anti_copies_is_not_called(tmp_path):
    found = onset(_write(tmp_path, "run", {0: HIGH, 100: HIGH}, copying=-0.9))
    assert not found.found


def test_head_onsets_lists_every_head_once_called(tmp_path):
    both = [[0.03, 0.03], [0.8, 0.7]]
    table = head_onsets(_write(tmp_path, "run", {0: LOW, 100: HIGH, 200: both, 300: both}))
    assert table.to_dict("records") == [
        {"head": "L1H0", "step_before": 0, "step_at": 100, "called_at_end": True},
        {"head": "L1H1", "step_before": 100, "step_at": 200, "called_at_end": True},
    ]


def test_best_head_and_heads_above(tmp_path):
    results = _write(tmp_path, "run", {0: HIGH})
    row = best_head(results, "prefix_matching", 0)
    assert row is not None and row["label"] == "L1H0" and row["value"] == pytest.approx(0.8)
    assert list(heads_above(results, "prefix_matching", 0, threshold=0.4)["label"]) == ["L1H0"]


def test_paired_difference_is_the_mean_of_the_differences(tmp_path):
    a = _write(tmp_path, "a", {0: LOW, 100: HIGH}, loss=1.0)
    b = _write(tmp_path, "b", {0: LOW, 100: LOW}, loss=3.0)
    comparison = compare(a, b)
    loss = comparison.row("repeat_loss", "later_blocks")
    # Both sides carry the same noise per sequence: paired, it cancels, and the interval has no width.
    assert loss["difference"] == pytest.approx(2.0) and loss["lo"] == pytest.approx(2.0, abs=1e-6)
    assert loss["change"] == "higher" and loss["n"] == N  # of one seed a side nothing is better or worse
    best = comparison.row("prefix_matching", BEST_HEAD)
    assert best["head_a"] == "L1H0"
    assert best["difference"] == pytest.approx(0.03 - 0.8)
    assert comparison.pairs == ((100, 100),)
    assert "a: induction heads form between steps 0 and 100 (L1H0); b: no lasting" in comparison.sentence
    assert "In these two runs, at step 100, b's loss on repeated random tokens is higher than a's: +2.00" in (
        comparison.sentence
    )


def test_equal_runs_show_no_clear_change(tmp_path):
    a, b = (_write(tmp_path, name, {0: HIGH}) for name in "ab")
    comparison = compare(a, b)
    assert set(comparison.rows["change"]) <= {"no clear change", "no change"}
    assert "no clear change" in comparison.sentence


def test_head_rows_are_corrected_over_heads(tmp_path):
    a = _write(tmp_path, "a", {0: LOW})
    b = _write(tmp_path, "b", {0: HIGH})
    rows = compare(a, b).rows
    heads = rows[(rows["probe"] == "prefix_matching") & (rows["metric"] == "score")]
    assert len(heads) == 4 and (heads["q"] >= heads["p"]).all()
    assert heads.set_index("head_a")["change"].to_dict()["L1H0"] == "higher"


def test_align_by_tokens_and_held_out_loss_finds_the_same_pairs(tmp_path):
    a = _write(tmp_path, "a", {0: LOW, 100: LOW, 300: LOW}, held_out=True)
    b = _write(tmp_path, "b", {100: LOW, 299: LOW}, held_out=True)
    assert compare(a, b, at="all").pairs == ((100, 100),)
    assert compare(a, b, align="tokens", at="all").pairs == ((100, 100), (300, 299))
    assert compare(a, b, align="loss", at="all").pairs == ((100, 100), (300, 299))
    assert compare(a, b, align="tokens", at=100).pairs == ((100, 100),)


def test_refusals_say_what_differs_and_how_to_mend_it(tmp_path):
    a = _write(tmp_path, "a", {0: LOW})
    with pytest.raises(ByroteError, match="stimulus") as error:
        compare(a, _write(tmp_path, "b", {0: LOW}, stimulus="other"))
    assert "byrote run runs/a runs/b --fresh" in error.value.help
    with pytest.raises(ByroteError, match="no checkpoint in common"):
        compare(a, _write(tmp_path, "c", {5: LOW}))
    with pytest.raises(ByroteError, match="cannot be aligned"):
        compare(a, a, align="tokns")
    with pytest.raises(ByroteError, match="not among"):
        compare(a, a, at=7)


def test_training_loss_aligns_nothing_and_other_texts_do_not_either(tmp_path):
    bare = _write(tmp_path, "bare", {0: LOW, 100: LOW})
    with pytest.raises(ByroteError, match="bare has no held-out loss") as error:
        compare(bare, bare, align="loss")
    assert "held_out_loss" in error.value.help
    a = _write(tmp_path, "a", {0: LOW}, held_out=True)
    b = _write(tmp_path, "b", {0: LOW}, held_out=True, stimulus="other")
    with pytest.raises(ByroteError, match="different texts"):
        compare(a, b, align="loss")


OTHER_ORDER = [[0.03, 0.03], [0.1, 0.8]]


def test_heads_of_other_seeds_are_not_compared_by_name(tmp_path):
    a = _write(tmp_path, "a", {100: [[0.03, 0.03], [0.8, 0.1]]}, seed=0)
    b = _write(tmp_path, "b", {100: OTHER_ORDER}, seed=1)
    found = compare(a, b)
    assert found.heads == ("sorted", "mass") and found.rows["layer"].isna().all()
    assert (
        found.unnamed == "heads are not compared by name: a has init_seed 0, b 1"
        and found.unnamed in found.notes
    )
    ranks = found.rows[found.rows["metric"] == "score:sorted"]
    ranks = ranks[ranks["probe"] == "prefix_matching"].sort_values("position")
    assert ranks["head_a"].tolist()[:2] == ["L1H0", "L1H1"] and ranks["head_b"].tolist()[:2] == [
        "L1H1",
        "L1H0",
    ]
    assert set(ranks["change"]) == {"no clear change"}  # what differs is only which head it is
    mass = found.row("prefix_matching", "score:mass")
    assert mass["a"] == pytest.approx(mass["b"]) == pytest.approx(0.77 + 0.07, abs=1e-6)
    with pytest.raises(ByroteError, match="not compared by name") as error:
        compare(a, b, heads="name")
    assert "--heads matched" in error.value.help


def test_an_init_that_nobody_declares_agrees_only_where_the_first_weights_do(tmp_path):
    bare = [_write(tmp_path, name, {100: LOW}, seed=None) for name in "ab"]
    with pytest.raises(ByroteError, match="init_seed of a and b is not declared"):
        compare(*bare, heads="name")
    (tmp_path / "byrote.toml").write_text('[runs."*"]\ninit_seed = 4\n')
    assert compare(*(Results.open(run.path) for run in bare)).heads == ("name",)


def test_matched_heads_are_those_that_do_alike_elsewhere(tmp_path):
    """Head 0 of A and head 1 of B copy; on prefix matching, which is compared, nothing tells them apart."""
    a, b = (_write(tmp_path, name, {100: OTHER_ORDER}, seed=seed) for seed, name in enumerate("ab"))
    samples = [np.array([[0.9], [0.1], [0.2], [0.3]]), np.array([[0.1], [0.9], [0.3], [0.2]])]
    assert matched(*samples, np.array([0, 0, 1, 1])).tolist() == [1, 0, 3, 2]
    rows = compare(a, b, heads="matched").rows
    assert set(rows["metric"]) >= {"score:matched"} and rows["layer"].isna().all()


def test_heads_are_matched_by_what_was_measured_of_both_runs(tmp_path):
    a, b = (_write(tmp_path, name, {100: OTHER_ORDER}, seed=seed) for seed, name in enumerate("ab"))
    before = compare(a, b, heads="matched").rows
    score = from_samples(
        lookup("previous_token"), "score", _grid(HIGH), axes=("layer", "head"), chance=0.1, seed=0
    )
    table = unit_table([score], run="a", step=100, tokens_seen=None)
    write_unit(step_folder(a.path, 100) / "only_of_a.parquet", table, {})
    rebuild_observations(a.path)
    more = Results.open(a.path)
    assert more.has("previous_token", "score")
    pd.testing.assert_frame_equal(compare(more, b, heads="matched").rows, before)


def test_the_family_a_metric_is_corrected_in():
    names = [
        ("repeat_loss", "difference"),
        ("repeat_loss", "later_blocks"),
        ("icl_score", "score"),
        ("x", "y"),
    ]
    heads = [("prefix_matching", "score")] * 2
    rows = pd.DataFrame(names + heads, columns=["probe", "metric"]).assign(position=None)
    rows["layer"] = [None] * 4 + [0, 1]
    both = pd.concat([rows.assign(p=[0.02, 0.02, 0.03, 0.02, 0.01, 0.04]), rows.assign(p=0.5)])  # two steps
    found = corrected(both).head(6)
    assert found["family"].tolist() == ["primary", "secondary", "secondary", "further", "heads", "heads"]
    # Holm over 2 steps; Holm over 2 metrics x 2 steps; Benjamini-Hochberg over 2, and over 4
    np.testing.assert_allclose(found["q"], [0.04, 0.08, 0.09, 0.04, 0.04, 0.08])


def test_the_copying_gain_on_varying_blocks_is_the_primary_metric_where_it_is_there():
    rows = pd.DataFrame(PRIMARY, columns=["probe", "metric"]).assign(position=None, layer=None, p=0.04)
    assert corrected(rows)["family"].tolist() == ["primary", "further"]
