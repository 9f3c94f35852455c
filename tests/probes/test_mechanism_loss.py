"""Loss by mechanism: by hand, on planted models at and above the floor, against the lab's own count, and refused elsewhere."""

from __future__ import annotations

import json
import math
from dataclasses import asdict

import numpy as np
import pytest
import torch
from lookup_models import CONFIG, lookup_state, write_series
from tiny_models import write_hf_series

import byrote as br
from byrote.checkpoints.lab import LabConfig, SourceConfig, train
from byrote.checkpoints.lab.source import draw
from byrote.checkpoints.lab.sources import Names
from byrote.checkpoints.lab.sources.contract import CODES
from byrote.probes.model.mechanism_loss import split

SOURCE = SourceConfig(d_vocab=CONFIG.d_vocab, n_ctx=CONFIG.n_ctx, block_min=12, block_max=14)


def test_means_by_label_by_hand():
    label = torch.tensor([[CODES[name] for name in ("table", "copy", "copy")]], dtype=torch.int8)
    found = split(torch.tensor([[2.0, 3.0, 5.0]]), label, torch.tensor([[1.0, 0.5, 0.5]]))
    assert {name: found[name].item() for name in ("loss", "floor", "excess", "table", "table_excess", "copy", "copy_excess")} == {
        "loss": pytest.approx(10 / 3), "floor": pytest.approx(2 / 3), "excess": pytest.approx(8 / 3), "table": 2, "table_excess": 1,
        "copy": 4, "copy_excess": 3.5,
    }  # fmt: skip
    assert set(found) == {"loss", "floor", "excess", "table", "table_excess", "copy", "copy_excess"}


def planted(tmp_path, *, copies: bool, source=SOURCE):
    """Results of a planted model that copies or guesses, on the held-out split of tiled blocks."""
    fields, weights = lookup_state([], copies=copies)
    held_out = draw(source, seed=0, stream="held_out", index=0, n=64).tokens
    path = write_series(tmp_path / f"planted{copies}", {0: (fields, weights)}, data={"held_out": {"tokens": held_out}},
                        manifest={"data": {"source": "tiled_blocks", **asdict(SOURCE)}})  # fmt: skip
    found = br.measure(
        br.open_series(path), ["mechanism_loss"], out=tmp_path / "out", n_seq=64, progress=False
    )
    return found.frame[found.frame["probe"] == "mechanism_loss"].set_index("metric")


def test_who_copies_is_at_the_floor_of_copies_and_who_guesses_far_above(tmp_path):
    copier, guesser = planted(tmp_path, copies=True), planted(tmp_path, copies=False)
    assert guesser.loc["copy", "value"] == pytest.approx(math.log(64), abs=1e-4)
    assert guesser.loc["free", "value"] == pytest.approx(math.log(64), abs=1e-4)
    # BOS is not drawn, and where a block may be over the ideal predictor bets on a copy: ln(64/63) less a little.
    assert abs(guesser.loc["free_excess", "value"] - math.log(64 / 63)) < 0.05
    assert guesser.loc["copy_excess", "value"] > 3.5 and copier.loc["copy_excess", "value"] < 0.8
    row = copier.loc["copy_excess"]
    assert row["lo"] < row["value"] < row["hi"] and row["n"] == 64
    assert guesser.loc["copy", "chance"] == pytest.approx(math.log(63))
    assert "fact" not in copier.index and "fact_excess" not in copier.index  # tiled blocks have none


def test_it_is_what_training_wrote_in_the_manifest(tmp_path):
    config = LabConfig(
        source=Names(n_ctx=24), d_model=16, n_heads=2, d_head=8, steps=4, every=4, batch=4, n_held_out=8
    )
    series = br.open_series(train(tmp_path / "names", config))
    found = br.measure(series, ["mechanism_loss"], out=tmp_path / "out", n_seq=8, progress=False)
    rows = found.samples(4).set_index("metric")
    entry = next(one for one in series.manifest["checkpoints"] if one["step"] == 4)
    assert rows.loc["loss", "value"] == pytest.approx(entry["test_loss_nats"], abs=1e-4)
    facts = series.manifest["source_facts"]
    assert rows.loc["floor", "value"] == pytest.approx(facts["floor_nats"], abs=1e-5)
    order = np.sort(np.random.default_rng([0, 15]).permutation(8)[:8])
    label = draw(config.source, seed=0, stream="held_out", index=0, n=8).mechanism[order, 1:-1]
    for name, expected in entry["mechanism_loss_nats"].items():
        weight = (label == CODES[name]).sum(
            1
        )  # training takes the mean over tokens, the probe that over sequences
        samples = np.nan_to_num(np.asarray(rows.loc[name, "samples"], dtype=np.float64))
        assert (weight * samples).sum() / weight.sum() == pytest.approx(expected, abs=1e-4), name
        floors = samples - np.nan_to_num(np.asarray(rows.loc[f"{name}_excess", "samples"], dtype=np.float64))
        assert (weight * floors).sum() / weight.sum() == pytest.approx(
            facts["mechanism_floor_nats"][name], abs=1e-4
        )


def test_elsewhere_it_is_refused_in_one_line(tmp_path):
    series = br.open_series(write_hf_series(tmp_path / "gpt2", "gpt2", (0,)))
    found = br.measure(series, ["mechanism_loss"], out=tmp_path / "out", n_seq=8, progress=False).frame
    assert set(found["reason"]) == {
        "no labelled sequences for this series: labels exist only for a lab series whose source has an exact floor"
    }
    wrong = planted(
        tmp_path,
        copies=True,
        source=SourceConfig(d_vocab=CONFIG.d_vocab, n_ctx=CONFIG.n_ctx, block_min=10, block_max=14),
    )
    assert "does not reproduce the stored held-out split" in wrong["reason"].iloc[0]
    assert json.dumps(wrong["value"].isna().tolist()).count("true") == len(wrong)
