"""Arms differ in their repeated share and in nothing else; repeats are counted exactly."""

from __future__ import annotations

import numpy as np
import pytest

from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.lab import Arm, LabConfig, SourceConfig
from byrote.checkpoints.lab.arms import unequal_data
from byrote.checkpoints.lab.config import checkpoint_steps
from byrote.checkpoints.lab.source import ArmStream, batch_for_step, draw

SOURCE = SourceConfig(d_vocab=64, n_ctx=24, block_min=6, block_max=10)


def stream(arm: Arm, *, seed: int = 0, batch: int = 8) -> ArmStream:
    return ArmStream(SOURCE, arm, seed=seed, batch=batch)


@pytest.mark.parametrize("frac", [0.25, 0.5, 0.75])
def test_arms_of_a_seed_share_their_unique_sequences(frac):
    unique = stream(Arm()).batches(5, 3)
    repeated = stream(Arm("repeated", frac, 3)).batches(5, 3)
    control = stream(Arm("control", frac)).batches(5, 3)
    kept = round(8 * (1 - frac))
    assert control.shape[1] == kept
    assert repeated.shape == unique.shape == (3, 8, 25)
    assert (control == unique[:, :kept]).all()
    assert (control == repeated[:, :kept]).all()


def test_repeated_places_hold_pool_sequences_and_only_those():
    arm = Arm("repeated", 0.5, 3)
    pool = {row.tobytes() for row in draw(SOURCE, seed=0, stream="pool", index=0, n=3).wide}
    batches = stream(arm).batches(0, 20)
    assert {row.tobytes() for row in batches[:, 4:].reshape(-1, 25)} == pool
    assert not pool & {row.tobytes() for row in batches[:, :4].reshape(-1, 25)}


@pytest.mark.parametrize(("pool_size", "n_steps"), [(1, 7), (3, 11), (4, 10), (50, 30), (130, 33)])
def test_repeat_counts_equal_a_count_by_hand(pool_size, n_steps):
    arms = stream(Arm("repeated", 0.5, pool_size))
    pool = arms.pool.wide
    trained = arms.batches(0, n_steps)[:, 4:].reshape(-1, 25)
    by_hand = [(trained == member).all(axis=1).sum() for member in pool]
    counts = arms.repeat_counts(n_steps)
    assert counts.tolist() == by_hand
    assert counts.sum() == 4 * n_steps
    assert counts.max() - counts.min() <= 1


def test_a_step_depends_on_its_number_alone():
    arms = stream(Arm("repeated", 0.25, 5), seed=4)
    whole = arms.batches(0, 30)
    assert (arms.batches(13, 6) == whole[13:19]).all()
    one = batch_for_step(SOURCE, arms.arm, seed=4, batch=8, step=21)
    assert (one == whole[21, :, :-1]).all()


def test_pool_orders_differ_between_rounds_and_seeds():
    rounds = stream(Arm("repeated", 0.5, 40)).members(0, 20).reshape(2, 40)
    other = stream(Arm("repeated", 0.5, 40), seed=1).members(0, 10).ravel()
    assert sorted(rounds[0]) == sorted(rounds[1]) == list(range(40))
    assert not np.array_equal(rounds[0], rounds[1])
    assert not np.array_equal(rounds[0], other)


def test_held_out_and_twins_are_never_trained_on():
    config = LabConfig(arm=Arm("repeated", 0.5, 16), steps=200)
    arms = ArmStream(config.source, config.arm, seed=config.seed, batch=config.batch)
    trained = {row.tobytes() for row in arms.batches(0, 200)[..., :-1].reshape(-1, config.source.n_ctx)}
    for name, seed in (("held_out", 0), ("twins", config.seed)):
        fresh = draw(config.source, seed=seed, stream=name, index=0, n=256).tokens
        assert not trained & {row.tobytes() for row in fresh}
    assert len(trained) == 200 * 32 + 16


@pytest.mark.parametrize(
    ("arm", "said"),
    [
        (("repeatd", 0.5, 4), "did you mean 'repeated'"),
        (("unique", 0.5, 0), "the unique arm repeats nothing"),
        (("unique", 0.0, 4), "pool_size 4"),
        (("repeated", 0.0, 4), "repeat_frac is 0.0"),
        (("repeated", 1.0, 4), "repeat_frac is 1.0"),
        (("control", 1.5, 0), "the control arm mixes"),
        (("repeated", 0.5, 0), "pool_size is 0"),
        (("control", 0.5, -1), "pool_size is -1"),
    ],
)
def test_impossible_arms_are_refused(arm, said):
    kind, frac, size = arm
    with pytest.raises(ByroteError, match=said):
        Arm(kind, frac, size)


@pytest.mark.parametrize("frac", [0.001, 0.999])
def test_a_batch_that_cannot_be_split_is_refused(frac):
    with pytest.raises(ByroteError, match="at least one repeated and one unique"):
        stream(Arm("repeated", frac, 4))


def test_a_pool_that_training_never_uses_up_is_refused():
    with pytest.raises(ByroteError, match="use a pool of at most 40"):
        LabConfig(arm=Arm("repeated", 0.5, 41), batch=8, steps=10)


def test_tokens_seen_counts_only_what_was_trained_on():
    whole, control = LabConfig(), LabConfig(arm=Arm("control", 0.25))
    assert whole.tokens_seen(10) == 10 * 64 * 48
    assert control.tokens_seen(10) == 10 * 48 * 48


def test_repeats_per_sequence_of_the_measured_recipe():
    arm = Arm("repeated", 0.5, 64)
    assert arm.repeats_per_sequence(batch=64, steps=2400) == 1200
    assert Arm("control", 0.5, 64).repeats_per_sequence(batch=64, steps=2400) == 0


@pytest.mark.parametrize(
    ("steps", "every", "expected"),
    [
        (10, 4, (0, 1, 2, 4, 8, 10)),
        (8, 4, (0, 1, 2, 4, 8)),
        (1, 100, (0, 1)),
        (3, 1, (0, 1, 2, 3)),
        (20, 100, (0, 1, 2, 4, 8, 16, 20)),
        (300, 100, (0, 1, 2, 4, 8, 16, 32, 64, 100, 200, 300)),
    ],
)
def test_schedule_by_hand(steps, every, expected):
    assert checkpoint_steps(steps, every=every) == expected


def test_default_schedule_is_small_and_fine_where_the_phase_change_falls():
    schedule = LabConfig().schedule
    assert len(schedule) <= 32
    assert [s for s in schedule if 200 <= s <= 1000] == list(range(200, 1001, 100))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"lr": float("nan")}, "lr is nan"),
        ({"final_lr_frac": 2.0}, "final_lr_frac is 2.0"),
        ({"normalization_type": "BATCH"}, "normalization_type is 'BATCH'"),
        ({"device": "tpu"}, "use cpu or cuda"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_impossible_configurations_are_refused(fields, said):
    with pytest.raises(ByroteError, match=said):
        LabConfig(**fields)


def test_what_differs_between_arms_apart_from_repeats_is_said():
    """The unique arm sees twice the sequences of an arm that repeats half; its control sees as many."""
    unique, repeated, control = (
        {"kind": "unique"},
        {"kind": "repeated", "repeat_frac": 0.5},
        {"kind": "control"},
    )
    control |= {"repeat_frac": 0.5, "pool_size": 64}
    said = unequal_data(unique, repeated)
    assert said == unequal_data(repeated, unique)
    assert said.startswith("the repeated arm sees 50% as many different sequences as the unique arm")
    assert said.endswith("--arm control --repeat-frac 0.5")
    assert unequal_data(control, repeated) == ""
    for pair in ((unique, unique), (unique, control), ({}, repeated), ({"kind": "synthetic"}, repeated)):
        assert unequal_data(*pair) == ""
