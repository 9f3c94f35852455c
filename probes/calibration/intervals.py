"""How often 95% intervals hold the truth: means, paired differences, differences and ratios of unpaired samples."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from byrote.probes.checks import Check, covers, trials
from byrote.probes.degradation import difference_table
from byrote.probes.memory.mem_gap import MemGap, mem_gap
from byrote.probes.simulated import SHAPES, paired_scores
from byrote.probes.statistics import bootstrap_mean, quotient_interval, ratio_intervals, sample_interval

N_SEQUENCES = (12, 32, 256)
N_MEMBERS, N_TWINS, N_BLOCKS = 32, 64, 40


def interval_checks(tries: int, seed: int) -> Iterator[Check]:
    """Coverage on samples of the shapes byrote meets."""
    for n in N_SEQUENCES:
        for i, (name, (draw, mean)) in enumerate(SHAPES.items()):
            found = bootstrap_mean(draw(np.random.default_rng([seed, i, n]), (n, 10 * tries)))
            yield covers(f"95% intervals, {name}, n = {n}", _held(found.lo, mean, found.hi))
    a, b = paired_scores(np.random.default_rng([seed, 20]), columns=10 * tries)
    found = difference_table(a, b)
    yield covers("95% intervals, difference of two runs on the same 32 sequences",
                 _held(found["lo"].to_numpy(), 0.1, found["hi"].to_numpy()))  # fmt: skip
    yield from _unpaired(tries, seed)
    yield from _texts(2 * tries, seed)


def _held(lo: np.ndarray, truth: float, hi: np.ndarray) -> list[bool]:
    return ((lo <= truth) & (truth <= hi)).tolist()


def _unpaired(tries: int, seed: int) -> Iterator[Check]:
    truth = 0.5 * SHAPES["loss in nats"][1]
    gaps: list[MemGap] = trials(lambda rng: mem_gap_of(rng, 0.5), tries, [seed, 50])
    where = f"{N_MEMBERS} members and {N_TWINS} twins"
    yield covers(f"95% intervals, ratio of losses, {where}",
                 [g.loss_share.lo <= 0.5 <= g.loss_share.hi for g in gaps])  # fmt: skip
    yield covers(f"95% intervals, difference of losses, {where}",
                 [g.gap.lo <= truth <= g.gap.hi for g in gaps])  # fmt: skip


def mem_gap_of(rng: np.random.Generator, share: float) -> MemGap:
    """Members whose true mean loss is a share of the twins'."""
    draw = SHAPES["loss in nats"][0]
    return mem_gap(share * draw(rng, (N_MEMBERS,)), draw(rng, (N_TWINS,)), np.ones(N_MEMBERS))


def _texts(tries: int, seed: int) -> Iterator[Check]:
    def ratio(rng: np.random.Generator) -> bool:
        ((_, lo, hi),) = ratio_intervals(*_blocks(rng, 0.3, columns=1), seed=0)
        return bool(lo <= 0.3 <= hi)

    def quotient(rng: np.random.Generator) -> bool:
        parts = [tuple(part[:, 0] for part in _blocks(rng, share, columns=1)) for share in (0.3, 0.2)]
        _, lo, hi = quotient_interval(*parts, seed=0)
        return bool(lo <= 1.5 <= hi)

    def median(rng: np.random.Generator) -> bool:
        values = rng.lognormal(3, 0.6, 200)
        _, lo, hi = sample_interval(values, lambda x: np.quantile(x, 0.5, axis=-1), seed=0)
        return bool(lo <= np.exp(3) <= hi)

    yield covers(f"95% intervals, share of a corpus, {N_BLOCKS} blocks", trials(ratio, tries, [seed, 51]))
    yield covers(f"95% intervals, share over share of two corpora, {N_BLOCKS} blocks each",
                 trials(quotient, tries, [seed, 52]))  # fmt: skip
    yield covers("95% intervals, median of 200 documents", trials(median, tries, [seed, 53]))


def _blocks(rng: np.random.Generator, share: float, *, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Counted and all tokens of blocks of unequal length, whose own shares scatter around the true one."""
    total = rng.integers(500, 4000, (N_BLOCKS, columns))
    return rng.binomial(total, rng.beta(20 * share, 20 * (1 - share), total.shape)), total
