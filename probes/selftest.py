"""Self-test: planted models with known answers, and models with nothing to find.

1. a hand-built model (checkpoints/lab/planted.py) is written to disk and measured through the whole pipeline; every
   head score is compared with its closed form; of all pairs of heads, only the planted ones may compose
2. the induction verdict must call the planted induction heads and nothing else: not the head that matches prefixes and
   anti-copies, not the head with a fixed offset, not previous- or duplicate-token heads
3. sensitivity: induction heads planted at rising strengths; from which prefix-matching score on are they called?
4. planted cases that are not what they seem, or are although they do not seem so (checkpoints/lab/planted_cases.py): the
   induction verdict and `load_bearing` must be right on each; and on models drawn from such cases without an induction
   head in them, both may be wrong in at most 5%
5. false alarms: the same verdict on random-weight models, and on perfect induction heads shown sequences in which
   nothing repeats; the share called, with its exact 95% upper bound (Clopper and Pearson 1934); the share of pairs of
   random heads that compose, also where all heads share a subspace; and `load_bearing` on random weights and on a head
   that writes nothing. Of planted circuits the path that does the work must be found, and no other
6. statistics: coverage of intervals, false alarms and false discoveries of verdicts and comparisons, onsets and peaks at
   12 checkpoints, on simulated data whose truth is known (calibration.py); the same over seeds (seed_calibration.py), and
   of sizes, doses and claims (degrade_calibration.py)

Runs on the device and dtype requested, so that it says what these numbers are worth on that machine.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np

from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.lab.planted_answers import HeadSpec, PlantedConfig, expected
from byrote.checkpoints.opening import open_series
from byrote.interp.axes import head_label
from byrote.probes.calibration import calibrations
from byrote.probes.checks import Check, exact, seldom
from byrote.probes.claims_calibration import claim_calibrations
from byrote.probes.degrade_calibration import degrade_calibrations
from byrote.probes.registry import lookup
from byrote.probes.results.derived import derive
from byrote.probes.results.schema import unit_table
from byrote.probes.rules import SMALLEST, is_called
from byrote.probes.seed_calibration import seed_calibrations
from byrote.probes.stimuli import Stimulus, Vocabulary, make

TOLERANCE = {"float64": 1e-6, "float32": 1e-5, "bfloat16": 3e-2}
STRENGTHS = (0.06, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 0.9)  # prefix-matching scores to plant
TRIES, TRIES_LONG = 100, 2000  # simulations
N_RANDOM, N_RANDOM_LONG = 10, 25  # models
N_NULL, N_NULL_LONG = 6, 200  # models drawn from planted cases without an induction head
MODELS_PER_LOAD = 5  # ablations cost more: one in so many random models
_NEITHER, _LOAD_BEARING = 0, 3  # of the verdict, see circuits/load_bearing.py
_COMPOSES_Z = 5  # far beyond what the best of 16 pairs reaches by chance
_INDUCTION_INPUTS = lookup("induction").needs
_KINDS = ("repeated_random", "shuffled_repeat", "jittered_repeat")
_CLOSED_FORM = {
    ("prefix_matching", "score"): "prefix_matching",
    ("prefix_matching", "sink_free"): "prefix_matching_sink_free",
    ("previous_token", "score"): "previous_token",
    ("duplicate_token", "score"): "duplicate_token",
    ("anti_induction", "score"): "anti_induction",
    ("sink", "score"): "sink",
    ("entropy", "score"): "entropy",
    ("copying_logit", "score"): "copying_logit",
    ("copying_logit", "sink_free"): "copying_logit_sink_free",
}


@dataclass
class SelfTestReport:
    """All checks. `passed` is True when every one does."""

    device: str
    dtype: str
    seed: int
    checks: list[Check] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)

    @property
    def lines(self) -> list[str]:
        """The checks as text, one line each."""
        return [
            f"{'pass' if c.passed else 'FAIL'}  {c.name}: expected {c.expected}, found {c.found}"
            for c in self.checks
        ]


def run_selftest(
    *,
    device: str = "cpu",
    dtype: str = "float32",
    seed: int = 0,
    n_random: int = N_RANDOM,
    n_null: int = N_NULL,
    n_seq: int = 16,
    tries: int = TRIES,
    on_progress: Callable[[int, int], None] | None = None,
) -> SelfTestReport:
    """Run every check on this machine.

    Args:
        device: torch device.
        dtype: float32, float64 or bfloat16.
        seed: of stimuli and random models.
        n_random: random-weight models for the false-alarm rate, 8 heads each.
        n_null: models drawn from planted cases without an induction head.
        n_seq: sequences per stimulus.
        tries: simulated data sets per statistical check; 0 leaves those out.
        on_progress: called with the number of groups of checks that are done, and of all groups.

    Raises:
        ByroteError: a dtype the self-test has no tolerance for.
    """
    if dtype not in TOLERANCE:
        raise ByroteError(
            f"selftest has no tolerance for dtype {dtype!r}", help=f"choose from: {', '.join(TOLERANCE)}"
        )
    report = SelfTestReport(device, dtype, seed)
    simulated = [*calibrations(), *seed_calibrations(), *degrade_calibrations()] if tries else []
    simulated += claim_calibrations() if tries >= TRIES_LONG else []
    with tempfile.TemporaryDirectory(prefix="byrote-selftest-") as folder:
        bench = _Bench(Path(folder), device, dtype, seed, n_seq)
        groups: list[Callable[[], Iterator[Check]]] = [
            lambda: _scores(bench),
            lambda: _verdicts(bench),
            lambda: _sensitivity(bench),
            lambda: _cases(bench),
            lambda: _null_models(bench, n_null),
            lambda: _false_alarms(bench, n_random),
            lambda: _load_bearing(bench, math.ceil(n_random / MODELS_PER_LOAD)),
            lambda: _paths(bench),
            lambda: _shared_subspace(bench, n_random),
            *(lambda c=c: iter([c.check(tries, seed)]) for c in simulated),
        ]
        for done, group in enumerate(groups, start=1):
            report.checks += group()
            if on_progress is not None:
                on_progress(done, len(groups))
    return report


class _Bench:
    """Writes planted models, loads them as any checkpoint, and measures them with the real code."""

    def __init__(self, folder: Path, device: str, dtype: str, seed: int, n_seq: int) -> None:
        self.folder, self.device, self.dtype, self.seed, self.n_seq = folder, device, dtype, seed, n_seq
        self.config = PlantedConfig()

    def load(self, name: str, config: PlantedConfig, *, kind: str = "planted", seed: int = 0) -> Any:
        """A model, through disk and `open_series`."""
        from byrote.checkpoints.lab.planted import write_planted

        return self.loaded(write_planted(self.folder / name, config, kind=kind, seed=seed))

    def loaded(self, path: Path) -> Any:
        """The model of a series of one checkpoint."""
        import torch

        from byrote.interp.loading import load_fresh

        return load_fresh(open_series(path)[0], device=self.device, dtype=getattr(torch, self.dtype))

    def stimulus(self, kind: str, *, seed: int | None = None, model: Any = None) -> Stimulus:
        """One of the standard stimuli for the planted vocabulary, or for that of a model."""
        sizes = self.config if model is None else model.shape
        vocabulary = Vocabulary(np.arange(1, sizes.d_vocab), 0)
        seed = self.seed if seed is None else seed
        return make(kind, vocabulary, n_ctx=sizes.n_ctx, seed=seed, n_seq=self.n_seq)

    def stimuli(self, seed: int, model: Any = None) -> dict[str, Stimulus]:
        """The three stimuli of the induction verdict."""
        return {kind: self.stimulus(kind, seed=seed, model=model) for kind in _KINDS}

    def load_bearing(self, model: Any, seed: int) -> dict[str, float]:
        """What `load_bearing` finds in a model, by metric."""
        from byrote.probes.circuits.load_bearing import load_bearing

        found = load_bearing(model, self.stimuli(seed, model), seed=seed)
        return {name: float(scores.samples.mean()) for name, scores in found.items()}

    def measure(self, model: Any, stimulus: Stimulus, probes: tuple[str, ...]) -> list[Any]:
        """Measurements of some probes on one stimulus."""
        from byrote.probes.sweep.measure import measure_stimulus

        infos = [lookup(name) for name in probes if stimulus.kind in lookup(name).stimuli]
        return measure_stimulus(model, stimulus, infos, seed=self.seed)[0]

    def load_circuit(self, name: str, **options: Any) -> Any:
        """A hand-made circuit, through disk and `open_series`."""
        import torch

        from byrote.checkpoints.lab.planted_circuits import write_circuit
        from byrote.interp.loading import load_fresh

        path = write_circuit(self.folder / "_".join([name, *map(str, options.values())]), name, **options)
        return load_fresh(open_series(path)[0], device=self.device, dtype=getattr(torch, self.dtype))

    def measure_direct(self, model: Any, probe: str, stimuli: dict[str, Stimulus]) -> dict[str, Any]:
        """Measurements of a probe that runs the model itself, by metric."""
        from byrote.probes.sweep.measure import measure_once

        measured = measure_once(model, lookup(probe), stimuli=stimuli, seed=self.seed)
        return {m.metric: m for m in measured}

    def measure_weights(self, model: Any, probe: str, *, seed: int | None = None) -> list[Any]:
        """Measurements of a probe of weights."""
        from byrote.probes.sweep.measure import measure_once

        ids = np.arange(1, self.config.d_vocab)
        return measure_once(model, lookup(probe), ids=ids, seed=self.seed if seed is None else seed)

    def verdicts(self, model: Any, stimuli: list[Stimulus]) -> dict[str, float]:
        """Induction verdict per head label from the three stimuli."""
        measured = [m for s in stimuli for m in self.measure(model, s, _INDUCTION_INPUTS)]
        units = unit_table(measured, run="selftest", step=0, tokens_seen=0)
        frame = derive(units, dtype=self.dtype).to_pandas()
        rows = frame[(frame["metric"] == "verdict") & frame["valid"]]
        return {head_label(int(r.layer), int(r.head)): float(r.value) for r in rows.itertuples()}


def _scores(bench: _Bench) -> Iterator[Check]:
    model, tolerance = bench.load("planted", bench.config), TOLERANCE[bench.dtype]
    for kind in ("repeated_random", "jittered_repeat"):
        stimulus = bench.stimulus(kind)
        answers = expected(bench.config, stimulus.tokens)
        # Every probe is read on both stimuli here; the catalogue only says where a sweep reads it.
        probes = tuple({probe for probe, _ in _CLOSED_FORM})
        measured = bench.measure(model, replace(stimulus, kind="repeated_random"), probes)
        for m in sorted(measured, key=lambda m: (m.probe, m.metric)):
            if (m.probe, m.metric) in _CLOSED_FORM:
                worst = _worst(m.values, answers[_CLOSED_FORM[m.probe, m.metric]])
                name, wanted = f"{m.probe} {m.metric} on {kind}, 8 heads", f"closed form within {tolerance:g}"
                yield Check(name, wanted, f"off by {worst:.1e}", worst <= tolerance)
    yield _ov_check(bench, model)
    yield _composition_check(bench, model)


def _worst(values: np.ndarray, answers: np.ndarray) -> float:
    """Largest difference of the means over sequences; infinite where one side is undefined and the other is not."""
    with np.errstate(invalid="ignore"):
        finite = np.isfinite(answers)
        means = np.where(finite, answers, 0).sum(0) / np.where(finite.any(0), finite.sum(0), np.nan)
    if (np.isfinite(values) != np.isfinite(means)).any():
        return math.inf
    return float(np.nanmax(np.abs(values - means)))


def _ov_check(bench: _Bench, model: Any) -> Check:
    score = next(m.values for m in bench.measure_weights(model, "ov_copying") if m.metric == "score")
    layer_1 = score[1]  # layer 0 writes nothing that the unembedding reads
    off = float(np.abs(layer_1 - np.array([1.0, 1.0, -1.0, 1.0])).max())
    found = ", ".join(f"{v:.3f}" for v in layer_1)
    return Check("ov_copying score of layer 1", "1, 1, -1, 1", found, off <= TOLERANCE[bench.dtype])


def _composition_check(bench: _Bench, model: Any) -> Check:
    """K-composition of the head that attends one back with the prefix heads, a ratio of 1/8; nothing else composes."""
    found = []
    for m in bench.measure_weights(model, "composition"):
        if m.metric.endswith("_z"):
            for src_layer, src_head, layer, head in np.argwhere((m.values > _COMPOSES_Z) & m.exists).tolist():
                pair = f"{head_label(src_layer, src_head)} > {head_label(layer, head)}"
                found.append(f"{m.metric[0].upper()} {pair}")
    wanted = [f"K L0H0 > L1H{head}" for head in (0, 1, 2)]
    return Check("pairs that compose, of 16", ", ".join(wanted), ", ".join(found) or "none", found == wanted)


def _verdicts(bench: _Bench) -> Iterator[Check]:
    model = bench.load("verdict", bench.config)
    found = bench.verdicts(model, [bench.stimulus(kind) for kind in _KINDS])
    called = sorted(head for head, value in found.items() if is_called(value))
    wanted = ["L1H0", "L1H1"]
    name = "induction verdict among 8 planted heads (2 induction, 1 anti-copying, 1 fixed offset, 4 others)"
    yield Check(name, " ".join(wanted), " ".join(called) or "none", called == wanted)


def _cases(bench: _Bench) -> Iterator[Check]:
    """Both verdicts on every planted case."""
    from byrote.checkpoints.lab.planted_cases import CASES, write_case

    load = lookup("load_bearing")
    for name, case in CASES.items():
        model = bench.loaded(write_case(bench.folder / name, name))
        verdicts = bench.verdicts(model, [bench.stimulus(kind, model=model) for kind in _KINDS])
        called = " ".join(sorted(head for head, value in verdicts.items() if is_called(value)))
        wanted = " ".join(case.called)
        yield Check(f"{name}, induction: {case.what}", wanted or "none", called or "none", called == wanted)
        word = load.word_of("verdict", bench.load_bearing(model, bench.seed)["verdict"]) or "not measured"
        yield Check(f"{name}, load_bearing", case.load, word, word == case.load)


def _null_models(bench: _Bench, n: int) -> Iterator[Check]:
    """Models drawn from planted cases, none with an induction head: how many are said to have one, or to need one?"""
    from byrote.checkpoints.lab.planted_cases import CARRIES_SOMETHING, null_wiring, write_wiring

    any_called, carried = [], []
    for i in range(n):
        kind, net = null_wiring(np.random.default_rng([bench.seed, 21, i]))
        found = bench.load_bearing(bench.loaded(write_wiring(bench.folder / f"null{i}", net)), bench.seed + i)
        any_called.append(found["n_called"] > 0)
        if kind not in CARRIES_SOMETHING:
            carried.append(found["verdict"] == _LOAD_BEARING)
    yield seldom(
        f"induction verdict on {n} models drawn from planted cases without such a head: any called",
        any_called,
    )
    yield seldom("load_bearing on those that copy nothing: load-bearing", carried)


def _sensitivity(bench: _Bench) -> Iterator[Check]:
    """Heads of one layer planted at rising scores; every one from twice the smallest effect on must be called."""
    stimulus = bench.stimulus("repeated_random")
    heads = tuple(
        HeadSpec("prefix", strength_nats=_strength(score, stimulus), writes="output") for score in STRENGTHS
    )
    feeder = HeadSpec("previous", writes="previous")
    fillers = tuple(HeadSpec("uniform", strength_nats=0.0, writes="nothing") for _ in heads[1:])
    config = replace(bench.config, heads=((feeder, *fillers), heads))
    found = bench.verdicts(bench.load("ladder", config), [bench.stimulus(kind) for kind in _KINDS])
    called = [score for head, score in enumerate(STRENGTHS) if is_called(found[head_label(1, head)])]
    must = [score for score in STRENGTHS if score >= 0.0307 + 2 * SMALLEST]
    name = "sensitivity: induction heads planted at prefix matching " + ", ".join(f"{s:g}" for s in STRENGTHS)
    text = ", ".join(f"{s:g}" for s in called) or "none"
    yield Check(
        name, f"called from {must[0]:g} on at the latest", f"called at {text}", set(must) <= set(called)
    )


def _strength(score: float, stimulus: Stimulus) -> float:
    """Logit of a matching key that gives a prefix-matching score on the standard stimulus (bisection)."""
    tokens = stimulus.tokens[0]
    queries = [(q, int((tokens[:q] == tokens[q]).sum())) for q in range(1, len(tokens))]
    queries = [(q, m) for q, m in queries if m]

    def mean(c: float) -> float:
        return float(np.mean([m * math.exp(c) / (m * math.exp(c) + q + 1 - m) for q, m in queries]))

    low, high = -5.0, 30.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if mean(middle) < score else (low, middle)
    return low


def _false_alarms(bench: _Bench, n_random: int) -> Iterator[Check]:
    stimuli = [bench.stimulus(kind) for kind in _KINDS]
    random, z = [], []
    for i in range(n_random):
        seed = bench.seed + i
        model = bench.load(f"random{i}", bench.config, kind="random", seed=seed)
        random += list(bench.verdicts(model, stimuli).values())
        measured = bench.measure_weights(model, "composition", seed=seed)  # all pairs share its null
        z += [v for m in measured if m.metric.endswith("_z") for v in m.values[m.exists].reshape(-1).tolist()]
    yield _alarm_check(f"false alarms on {n_random} random-weight models", random)
    yield _alarm_check(
        "false alarms on planted heads shown sequences without repeats", _without_repeats(bench)
    )
    far, pairs = NormalDist().inv_cdf(0.95), f"pairs of {n_random} random-weight models"
    yield seldom(f"composition z above {_COMPOSES_Z}, {pairs}", [value > _COMPOSES_Z for value in z])
    yield seldom(f"composition z above {far:.2f} (5% of a normal), {pairs}", [value > far for value in z])


def _load_bearing(bench: _Bench, n: int) -> Iterator[Check]:
    """The verdict on random weights, and on the planted model whose strongest prefix-matching head writes nothing."""
    seeds = range(bench.seed, bench.seed + n)
    random = [
        bench.load_bearing(bench.load(f"load{i}", bench.config, kind="random", seed=seed), seed)["verdict"]
        for i, seed in enumerate(seeds)
    ]
    yield seldom(
        f"load_bearing on {n} random-weight models: anything but neither", [v != _NEITHER for v in random]
    )
    strongest, *others = bench.config.heads[1]
    heads = (bench.config.heads[0], (replace(strongest, writes="nothing"), *others))
    model = bench.load("mute", replace(bench.config, heads=heads))
    yield seldom(
        f"load_bearing where the head that matches best writes nothing, {n} sets of sequences: load-bearing",
        [bench.load_bearing(model, seed)["verdict"] == _LOAD_BEARING for seed in seeds],
    )


def _without_repeats(bench: _Bench) -> list[float]:
    """Perfect induction heads on re-drawn blocks: the positions a repeat would be scored at hold nothing to match."""
    model, found = bench.load("norepeat", bench.config), []
    for i in range(5):
        repeated = bench.stimulus("repeated_random", seed=bench.seed + 100 + i)
        null = bench.stimulus("shuffled_repeat", seed=bench.seed + 100 + i)
        other = bench.stimulus("shuffled_repeat", seed=bench.seed + 200 + i)
        stand_ins = [
            replace(null, kind="repeated_random"),
            replace(other, match_tokens=repeated.tokens),
            replace(other, kind="jittered_repeat", match_tokens=repeated.tokens),
        ]
        found += list(bench.verdicts(model, stand_ins).values())
    return found


def _alarm_check(name: str, verdicts: list[float]) -> Check:
    called, n = int(is_called(verdicts).sum()), len(verdicts)
    upper = exact(called, n, level=0.95)[1]
    found = f"{called} of {n} ({called / n:.1%}, 95% upper bound {upper:.1%})"
    return Check(f"{name}, {n} heads", "at most 5%", found, called / n <= 0.05, n)


def _paths(bench: _Bench) -> Iterator[Check]:
    """Path ablation on circuits of known wiring: one that works by queries, and one with a decoy of higher z."""
    vocabulary = Vocabulary(np.arange(1, 48), 0)
    stimulus = make("jittered_repeat", vocabulary, n_ctx=64, seed=bench.seed, n_seq=8)
    for circuit, wanted in (("q_pointer", "Q L0H0 > L1H0"), ("two_sources", "K L0H0 > L1H0")):
        model = bench.load_circuit(circuit)
        measured = bench.measure_direct(model, "induction_circuit", {stimulus.kind: stimulus})
        found = [
            f"{letter} {head_label(*pair[:2])} > {head_label(*pair[2:])}"
            for letter, metric in (("K", "change"), ("Q", "q_change"))
            for pair in np.argwhere(np.nan_to_num(measured[metric].hi, nan=0) < -SMALLEST).tolist()
        ]
        yield Check(
            f"paths that carry prefix matching in {circuit}, of 32",
            wanted,
            ", ".join(found) or "none",
            found == [wanted],
        )


def _shared_subspace(bench: _Bench, n: int) -> Iterator[Check]:
    """Composition between heads that all write and read the same few directions."""
    z: list[float] = []
    for seed in range(bench.seed, bench.seed + n):
        measured = bench.measure_weights(bench.load_circuit("shared_subspace", seed=seed), "composition")
        z += [v for m in measured if m.metric.endswith("_z") for v in m.values[m.exists].reshape(-1).tolist()]
    yield seldom(
        f"composition z above {_COMPOSES_Z}, pairs of {n} random-weight models whose heads share a subspace",
        [value > _COMPOSES_Z for value in z],
    )
