"""Held-out loss against synthetic share: planted doses, and what must be declared."""

from __future__ import annotations

import numpy as np
import pytest
from planted_series import N, write_results

from byrote.checkpoints.errors import ByroteError
from byrote.probes.results import Results
from byrote.probes.results.schema import Measured
from byrote.probes.synthetic_dose import loss_by_synthetic_share


def loss(value: float, seed: int) -> Measured:
    """Windows differ alike in every run; each run differs from its share's by its seed."""
    windows = np.random.default_rng(0).normal(0, 0.5, N)
    own = value + windows - windows.mean() + np.random.default_rng([seed, 1]).normal(0, 0.05)
    one = [np.array(v, dtype=np.float64) for v in (own.mean(), own.mean() - 0.1, own.mean() + 0.1, 5.0, N)]
    return Measured("held_out_loss", "loss", *one, (), samples=own)


def runs(folder, truth: dict[float, float], seeds: int = 4, *, declared: bool = True) -> list[Results]:
    lines, found = [], []
    for share, value in truth.items():
        for seed in range(seeds):
            name = f"s{int(100 * share)}-{seed}"
            natural = [{"id": "natural-planted", "kind": "natural"}]
            write_results(
                folder,
                name,
                {0: [loss(5, seed)], 9: [loss(value, 10 * int(100 * share) + seed)]},
                stimuli=natural,
            )
            lines.append(f'[runs."{name}"]\nsynthetic_share = {share}\nseed = {seed}\n')
            found.append(name)
    if declared:
        (folder / "byrote.toml").write_text("".join(lines))
    return [Results.open(folder / name) for name in found]


def test_a_planted_dose_is_found(tmp_path):
    found = loss_by_synthetic_share(runs(tmp_path, {0.0: 3.0, 0.5: 3.2, 1.0: 4.0})).set_index(
        "synthetic_share"
    )
    assert found["runs"].tolist() == [4, 4, 4] and set(found["step"]) == {9} and set(found["n"]) == {N}
    assert found.loc[0.0, "difference"] == 0 and np.isnan(found.loc[0.0, "lo"])
    for share, truth in ((0.5, 0.2), (1.0, 1.0)):
        row = found.loc[share]
        assert 0 < row["lo"] < truth < row["hi"] and row["hi"] - row["lo"] < 0.5


def test_one_run_a_share_has_no_interval(tmp_path):
    found = loss_by_synthetic_share(runs(tmp_path, {0.0: 3.0, 1.0: 4.0}, seeds=1))
    assert found["difference"].iloc[1] > 0.8 and np.isnan(found["lo"]).all()


def test_what_is_not_declared_or_measured_is_refused(tmp_path):
    with pytest.raises(ByroteError, match="synthetic_share of s0-0 is not declared"):
        loss_by_synthetic_share(runs(tmp_path / "a", {0.0: 3.0, 1.0: 4.0}, seeds=1, declared=False))
    with pytest.raises(ByroteError, match="declare 1 synthetic share"):
        loss_by_synthetic_share(runs(tmp_path / "b", {0.5: 3.0}, seeds=2))
    with pytest.raises(ByroteError, match="was not measured at step 7"):
        loss_by_synthetic_share(runs(tmp_path / "c", {0.0: 3.0, 1.0: 4.0}, seeds=1), step=7)
