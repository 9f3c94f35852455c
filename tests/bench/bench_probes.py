"""What all default probes cost on one checkpoint, against one plain forward pass per stimulus; and saved attention.

    python tests/bench/bench_probes.py                  # Pythia-70M's shape
    python tests/bench/bench_probes.py --shape 135m     # SmolLM2-135M's
    python tests/bench/bench_probes.py --shape 135m --weights-only   # where the excess lies: probes that read weights

Both see the same random weights, the same tokens and batches of the same size, in turn, on one thread; the figures are
medians over the rounds, in processor time, which other work on the machine disturbs less. Real text, members and twins are stood in for by random tokens of usual lengths.

plain   the unwrapped module's logits for every stimulus, and nothing else
probes  what `byrote run` does at one checkpoint once the weights are loaded: one hooked pass per stimulus, every default
        probe, nulls, intervals, and the probes that read the weights
attention  what `--save-attention` does besides: one pass over two sequences per stimulus, and what heads write
A ratio of probes to plain over 3 (at 135m over 1.5), or of probes and attention to probes over 1.5, exits with 1.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from bench_sweep import N_IDS, SHAPES, write_series  # beside this script

sys.path.insert(0, str(Path(__file__).parents[2]))

TARGETS = {"135m": 1.5}
TARGET, SAVED_TARGET = 3.0, 1.5
N_SEQ, SEED = 32, 0
LENGTHS = {"natural": (32, 256), "members": (64, 128), "twins": (64, 128)}


def shown(groups: Any, ids: np.ndarray) -> dict[str, Any]:
    """Every stimulus of the default probes."""
    from byrote.checkpoints.token_sets import TokenSets
    from byrote.probes.stimuli import Vocabulary, make

    rng = np.random.default_rng(SEED)
    drawn = {name: rng.choice(ids, size=size) for name, size in LENGTHS.items()}
    for tokens in drawn.values():
        tokens[:, 0] = 0
    material = TokenSets(**drawn, repeat_count=np.resize([1, 4, 16, 64], LENGTHS["members"][0]))
    kinds = dict.fromkeys(kind for group in groups for kind in group.stimuli)
    vocabulary = Vocabulary(ids, 0)
    return {
        kind: make(kind, vocabulary, n_ctx=2048, seed=SEED, n_seq=N_SEQ, token_sets=material)
        for kind in kinds
    }


def ways(path: Path, out: Path) -> tuple[dict[str, Callable[[], None]], list[str]]:
    """The ways as calls, and the names of what is measured."""
    import torch

    from byrote.checkpoints import open_series
    from byrote.interp.bridge import HookedSeries
    from byrote.interp.observe import _batch_size
    from byrote.probes.sweep.config import SweepConfig
    from byrote.probes.sweep.gallery import keep_attention
    from byrote.probes.sweep.measure import measure_once, measure_stimulus
    from byrote.probes.sweep.plan import groups

    series, wanted = open_series(path), groups(SweepConfig().infos)
    ids = np.arange(1, N_IDS)
    model, stimuli = HookedSeries(series).load(series[0]), shown(wanted, ids)
    plain_module = model.bridge.original_model

    def plain() -> None:
        with torch.inference_mode():
            for stimulus in stimuli.values():
                tokens = torch.from_numpy(stimulus.tokens)
                for batch in tokens.split(_batch_size(model, tokens.shape[1])):
                    plain_module(batch)

    def probes() -> None:
        for group in wanted:
            if group.direct or not group.stimuli:
                own = {k: stimuli[k] for k in group.stimuli}
                for info in group.probes:
                    measure_once(model, info, ids=ids, stimuli=own, seed=SEED)
            else:
                measure_stimulus(model, stimuli[group.stimuli[0]], group.probes, seed=SEED)

    def weights() -> None:
        model.weights_changed(model.checkpoint)  # as at a new checkpoint
        for info in (info for group in wanted if not group.stimuli for info in group.probes):
            measure_once(model, info, ids=ids, seed=SEED)

    def attention() -> None:
        keep_attention(model, out, 0, fingerprint="", stimuli=stimuli, tokenizer=None)

    calls = {"plain": plain, "probes": probes, "attention": attention, "weights": weights}
    return calls, [i.name for i in SweepConfig().infos]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", choices=SHAPES, default="70m")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--weights-only", action="store_true")
    parser.add_argument("--cold", action="store_true", help="no round before the first that counts")
    options = parser.parse_args()

    import torch

    from byrote.interp.quiet import quiet_upstream

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="byrote-bench-") as folder, quiet_upstream():
        both, names = ways(write_series(Path(folder) / "series", options.shape, 1), Path(folder) / "out")
        left_out = {"probes", "attention"} if options.weights_only else {"weights"}
        both = {name: call for name, call in both.items() if name not in left_out}
        for call in both.values():
            if not options.cold:
                call()  # imports, nulls that are kept, first touches
        taken: dict[str, list[float]] = {name: [] for name in both}
        for _ in range(options.rounds):
            for name, call in both.items():
                start = time.process_time()
                call()
                taken[name].append(time.process_time() - start)
    print(f"{len(names)} probes: {', '.join(names)}")
    for name, seconds in taken.items():
        print(f"{name:9} {statistics.median(seconds):.2f} s")
    if options.weights_only:
        print(f"weights / plain: {_ratio(taken['weights'], taken['plain']):.2f}")
        return
    both_s = [p + q for p, q in zip(taken["probes"], taken["attention"], strict=True)]
    cost = _ratio(taken["probes"], taken["plain"], "probes / plain")
    saved = _ratio(both_s, taken["probes"], "probes and attention / probes")
    sys.exit(cost > TARGETS.get(options.shape, TARGET) or saved > SAVED_TARGET)


def _ratio(over: list[float], under: list[float], what: str = "") -> float:
    """The median ratio, round by round; printed with its range."""
    ratios = sorted(p / q for p, q in zip(over, under, strict=True))
    if what:
        print(f"{what}: median {statistics.median(ratios):.2f}, range {ratios[0]:.2f}-{ratios[-1]:.2f}")
    return statistics.median(ratios)


if __name__ == "__main__":
    main()
