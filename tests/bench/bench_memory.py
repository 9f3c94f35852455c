"""Peak memory of loading and measuring one checkpoint, against the bytes of its weights.

    python tests/bench/bench_memory.py                # SmolLM2-135M's shape
    python tests/bench/bench_memory.py --shape 70m

Each of two ways in a process of its own: `imports` loads the libraries and a tiny model and measures it; `byrote` does the same
with the large one, hashing its file first. What the second takes more at its peak is set against twice the weights in float32
and one layer's activations of one batch: attention and scores before softmax. More than that exits with 1.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from bench_sweep import N_IDS, SHAPES, write_series  # beside this script

N_SEQ, PROBES = 20, ("prefix_matching", "previous_token", "repeat_loss")


def work(path: Path) -> None:
    """Measure one checkpoint and print the peak of this process, the bytes of its weights and of one layer."""
    import numpy as np
    import torch

    from byrote.checkpoints import open_series
    from byrote.checkpoints.fingerprint import content_of
    from byrote.interp.bridge import HookedSeries
    from byrote.interp.observe import _batch_size
    from byrote.interp.quiet import quiet_upstream
    from byrote.probes.registry import lookup
    from byrote.probes.stimuli import Vocabulary, make
    from byrote.probes.sweep.measure import measure_stimulus

    torch.set_num_threads(1)
    with quiet_upstream():
        series = open_series(path)
        content_of(series[0])
        model = HookedSeries(series).load(series[0])
        loaded_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        shown = make("repeated_random", Vocabulary(np.arange(1, N_IDS), 0), n_ctx=2048, seed=0, n_seq=N_SEQ)
        measure_stimulus(model, shown, [lookup(name) for name in PROBES], seed=0)
    pos = shown.tokens.shape[1]
    batch = min(N_SEQ, _batch_size(model, pos))
    layer = 2 * 4 * batch * model.shape.n_heads * pos * pos
    weights = sum(p.numel() * 4 for p in {id(p): p for p in model.parameters.values()}.values())
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    mib = {
        "peak": peak_mib,
        "loaded": loaded_mib,
        "weights": weights / 2**20,
        "activations": layer / 2**20,
    }
    print(json.dumps(mib))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", choices=SHAPES, default="135m")
    parser.add_argument("--worker", type=Path)
    options = parser.parse_args()
    if options.worker:
        work(options.worker)
        return
    with tempfile.TemporaryDirectory(prefix="byrote-bench-") as folder:
        found = {}
        for shape in ("tiny", options.shape):
            path = write_series(Path(folder) / shape, shape, 1)
            words = [sys.executable, __file__, "--worker", str(path)]
            done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
            found[shape] = json.loads(done.stdout.splitlines()[-1])
    base, large = (
        found["tiny"]["loaded"],
        found[options.shape],
    )  # its logits would be as large as the large one's
    allowed = 2 * large["weights"] + large["activations"]
    print(f"imports and a tiny model: {base:.0f} MiB; weights {large['weights']:.0f} MiB in float32")
    for name, what in (("loaded", "after hashing and loading"), ("peak", "after measuring")):
        more = large[name] - base
        print(f"{what}: {more:.0f} MiB more, {more / large['weights']:.2f} times the weights")
    print(f"allowed: {allowed:.0f} MiB, twice the weights and {large['activations']:.0f} MiB of activations")
    sys.exit(large["peak"] - base > allowed)


if __name__ == "__main__":
    main()
