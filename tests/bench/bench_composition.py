"""Composition of all pairs with its null, against TransformerLens's own scores without one, as a ratio.

    python tests/bench/bench_composition.py                 # Pythia-160M's shape, one thread
    python tests/bench/bench_composition.py --shape 70m

byrote             Q, K and V of every pair, ratio, mean and standard deviation of 256 rotations, z
transformerlens  bridge.all_composition_scores("Q"), ("K"), ("V"): ratios

Each in its own process, in turn, several rounds; memory is what the process holds at most beyond the loaded model.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench_sweep import SHAPES, write_series  # also puts the packages on the path

WAYS = ("byrote", "transformerlens")
WARM_UP = {"byrote": 1, "transformerlens": 0}  # the slow way is not made slower


def memory_mib(field: str) -> float:
    """A figure of this process as Linux keeps it: VmRSS is memory now, VmHWM its peak."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status[field].split()[0]) / 1024


def work(way: str, path: Path) -> None:
    """Run one way in this process and print its figures as JSON."""
    import torch

    from byrote.checkpoints import open_series
    from byrote.interp.loading import load_fresh
    from byrote.interp.quiet import quiet_upstream
    from byrote.probes.circuits.composition import composition

    torch.set_num_threads(1)
    with quiet_upstream():
        model = load_fresh(open_series(path)[0])
    assert model.weights.W_E.isfinite().all()  # read, and its pages in memory, before anything is counted
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of loading
    base_mib = memory_mib("VmRSS")

    def once() -> float:
        start = time.perf_counter()
        with torch.inference_mode():
            if way == "byrote":
                composition(model.weights, 0)
            else:
                for mode in "QKV":
                    model.bridge.all_composition_scores(mode)
        return time.perf_counter() - start

    seconds = [once() for _ in range(WARM_UP[way] + 1)][-1]
    print(json.dumps({"s": seconds, "mib": memory_mib("VmHWM") - base_mib}))


def run(way: str, path: Path) -> dict[str, float]:
    """One way in its own process."""
    command = [sys.executable, __file__, "--worker", way, "--series", str(path)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", choices=SHAPES, default="160m")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--series", type=Path, help="use this series instead of writing one")
    parser.add_argument("--worker", choices=WAYS)
    options = parser.parse_args()
    if options.worker:
        work(options.worker, options.series)
        return
    with tempfile.TemporaryDirectory(prefix="byrote-bench-") as folder:
        path = options.series or write_series(Path(folder) / "series", options.shape, 1)
        rounds = [{way: run(way, path) for way in WAYS} for _ in range(options.rounds)]
    for way in WAYS:
        seconds = statistics.median(r[way]["s"] for r in rounds)
        print(f"{way:16} {seconds:.2f} s, {max(r[way]['mib'] for r in rounds):.0f} MiB beyond the model")
    ratios = sorted(r["transformerlens"]["s"] / r["byrote"]["s"] for r in rounds)
    print(
        f"transformerlens / byrote: median {statistics.median(ratios):.1f}, {ratios[0]:.1f}-{ratios[-1]:.1f}"
    )


if __name__ == "__main__":
    main()
