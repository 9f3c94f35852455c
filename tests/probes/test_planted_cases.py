"""Planted models that an earlier verdict got wrong: what is right is written beside each."""

from __future__ import annotations

import numpy as np
import pytest

import byrote as br
from byrote.checkpoints import open_series
from byrote.checkpoints.errors import CheckpointError
from byrote.checkpoints.lab.planted_cases import (
    CARRIES_SOMETHING,
    CASES,
    null_wiring,
    write_case,
    write_wiring,
)
from byrote.interp.axes import head_label
from byrote.interp.loading import load_fresh
from byrote.probes.circuits.load_bearing import load_bearing
from byrote.probes.findings import at_end, induction_rule, not_called
from byrote.probes.registry import REGISTRY, lookup
from byrote.probes.results.derived import derive
from byrote.probes.results.schema import unit_table
from byrote.probes.rules import is_called
from byrote.probes.stimuli import Vocabulary, make
from byrote.probes.sweep.measure import measure_stimulus

KINDS = ("repeated_random", "shuffled_repeat", "jittered_repeat")


def stimuli_for(model, n_seq=16):
    vocabulary = Vocabulary(np.arange(1, model.shape.d_vocab), 0)
    return {kind: make(kind, vocabulary, n_ctx=model.shape.n_ctx, seed=0, n_seq=n_seq) for kind in KINDS}


def called_in(model, stimuli):
    found = []
    for kind, stimulus in stimuli.items():
        infos = [lookup(name) for name in lookup("induction").needs if kind in lookup(name).stimuli]
        found += measure_stimulus(model, stimulus, infos, seed=0)[0]
    rows = derive(unit_table(found, run="r", step=0, tokens_seen=None)).to_pandas()
    rows = rows[(rows["metric"] == "verdict") & is_called(rows["value"])]
    return tuple(head_label(int(r.layer), int(r.head)) for r in rows.itertuples())


@pytest.mark.parametrize("name", CASES)
def test_the_heads_that_are_called_are_the_right_ones(tmp_path, name):
    model = load_fresh(open_series(write_case(tmp_path / name, name))[0])
    assert called_in(model, stimuli_for(model)) == CASES[name].called


@pytest.mark.parametrize("name", ["load_false", "sink98", "four_together"])
def test_what_the_model_needs_is_said_rightly(tmp_path, name):
    model = load_fresh(open_series(write_case(tmp_path / name, name))[0])
    found = {m: s.samples.mean() for m, s in load_bearing(model, stimuli_for(model), seed=0).items()}
    assert lookup("load_bearing").word_of("verdict", found["verdict"]) == CASES[name].load
    if name == "load_false":
        assert found["top_change"] == pytest.approx(0.01, abs=0.002)
        assert found["random_change"] == 0  # its neighbours hurt: without them the loss falls
    if name == "four_together":
        assert (found["n_called"], found["n_joint"]) == (0, 4)
        assert found["signature"] < 0.05 < found["joint_signature"]
        assert found["joint_change"] > 0.8 * found["gain"]


def test_drawn_models_without_an_induction_head_are_seen_through(tmp_path):
    kinds = set()
    for i in range(2):
        kind, net = null_wiring(np.random.default_rng([3, i]))
        kinds.add(kind)
        model = load_fresh(open_series(write_wiring(tmp_path / str(i), net))[0])
        assert called_in(model, stimuli_for(model)) == ()
    assert kinds - set(CARRIES_SOMETHING)


def test_why_a_head_is_not_called_is_said_in_every_face(tmp_path):
    series = open_series(write_case(tmp_path / "few", "subvocab3of63"))
    results = br.measure(series, ["induction"], out=tmp_path, n_seq=16, progress=False)
    assert not_called(results, 0) == {(1, 0): "copies 3 of 63 ids"}
    assert "match prefixes but are not induction heads: L1H0 copies 3 of 63 ids" in list(at_end(results))
    assert "Judged without" not in induction_rule([results])


def test_results_of_an_earlier_version_keep_its_verdict(tmp_path):
    """Units without what version 3 added are judged as they were, and the rule says which runs those are."""
    model = load_fresh(open_series(write_case(tmp_path / "few", "subvocab3of63"))[0])
    found = []
    for kind, stimulus in stimuli_for(model).items():
        infos = [lookup(n) for n in ("prefix_matching", "copying_logit") if kind in lookup(n).stimuli]
        found += measure_stimulus(model, stimulus, infos, seed=0)[0]
    derived = derive(unit_table(found, run="r", step=0, tokens_seen=None)).to_pandas()
    assert "induction" not in set(derived["probe"])  # not all of it was requested
    former = [m for m in found if not m.metric.startswith(("exchanged", "sink_free@"))]
    rows = derive(unit_table(former, run="r", step=0, tokens_seen=None)).to_pandas()
    rows = rows[rows["probe"] == "induction"]
    assert set(rows["metric"]) == {
        "verdict", "prefix_excess", "copying_excess", "jitter_excess", "q_prefix", "q_copying",
    }  # fmt: skip
    assert rows[(rows["metric"] == "verdict") & (rows["value"] == 1)][["layer", "head"]].values.tolist() == [
        [1, 0]
    ]


def test_a_case_that_does_not_exist(tmp_path):
    with pytest.raises(CheckpointError, match="no planted case 'sink99'") as refused:
        write_case(tmp_path / "x", "sink99")
    assert "sink98" in (refused.value.help or "")
    assert set(CASES) >= {
        "perfect",
        "load_false",
        "sink98",
        "subvocab3of63",
        "freq_rank1",
        "q_composition",
        "offset24",
    }
    assert REGISTRY["induction_dla"].default
