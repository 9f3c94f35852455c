"""What it costs that everything is on the disk before it counts as written, and what many small checkpoints cost.

    python tests/bench/bench_sync.py                              # all three
    python tests/bench/bench_sync.py --only 70m --pairs 8
    python tests/bench/bench_sync.py --only small --steps 200 --pairs 2

70m     whole sweeps (`byrote run`'s default probes) of Pythia-70M's shape in turn with and without syncing (`BYROTE_SYNC=0`),
        each in its own process; the ratio of each pair, its mean and a 95% t interval over pairs
small   the same on lab-size checkpoints with a claim's probes, and seconds per checkpoint
again   a finished sweep of 2,000 lab-size checkpoints asked for again: seconds and peak memory of the whole command
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

CLAIM = ("prefix_matching", "previous_token", "copying_logit", "repeat_loss")
SHAPES = {
    "70m": {
        "hidden_size": 512,
        "num_hidden_layers": 6,
        "num_attention_heads": 8,
        "intermediate_size": 2048,
        "vocab_size": 50304,
        "max_position_embeddings": 2048,
    },
    "small": {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "vocab_size": 256,
        "max_position_embeddings": 128,
    },
}


def write_series(out: Path, shape: str, steps: int) -> Path:
    """A GPT-NeoX series of slightly different random weights."""
    import torch
    from safetensors.torch import save_file
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    torch.manual_seed(0)
    config = GPTNeoXConfig(
        bos_token_id=0, eos_token_id=0, architectures=["GPTNeoXForCausalLM"], **SHAPES[shape]
    )
    state = {name: t.detach().contiguous() for name, t in GPTNeoXForCausalLM(config).state_dict().items()}
    for i in range(steps):
        for tensor in state.values():
            tensor.add_(torch.randn_like(tensor) * 0.002)
        folder = out / f"step{i}"
        folder.mkdir(parents=True)
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
        (folder / "config.json").write_text(config.to_json_string(use_diff=False), encoding="utf-8")
    return out


def run(series: Path, out: Path, probes: Sequence[str], *, sync: bool) -> dict[str, float]:
    """One whole sweep in its own process."""
    command = [sys.executable, __file__, "--worker", str(series), str(out), *probes]
    environment = {**os.environ, "BYROTE_SYNC": "1" if sync else "0"}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def work(series: Path, out: Path, probes: list[str]) -> None:
    """Measure a series and print seconds, imports left out."""
    import torch

    from byrote.checkpoints import open_series
    from byrote.interp.quiet import quiet_upstream
    from byrote.probes.sweep.run import SweepConfig, sweep

    torch.set_num_threads(1)
    config = SweepConfig(probes=tuple(probes)) if probes else SweepConfig()
    with quiet_upstream():
        opened = open_series(series)
        start = time.perf_counter()
        outcome = sweep(opened, config, out=out)
        seconds = time.perf_counter() - start
    assert not outcome.gaps, outcome.gaps
    print(json.dumps({"s": seconds, "n": len(opened)}))


def pairs(series: Path, folder: Path, probes: Sequence[str], n_pairs: int) -> None:
    """Print the ratio of sweeps with and without syncing, the order within a pair alternating."""
    from scipy.stats import t

    ratios, seconds = [], []
    for i in range(n_pairs):
        found = {}
        for sync in (True, False) if i % 2 else (False, True):
            found[sync] = run(series, folder / f"{i}-{sync}", probes, sync=sync)
        ratios.append(found[True]["s"] / found[False]["s"])
        seconds.append(found[True]["s"] / found[True]["n"])
    mean, sd = statistics.fmean(ratios), statistics.stdev(ratios) if n_pairs > 1 else math.nan
    half = float(t.ppf(0.975, n_pairs - 1)) * sd / math.sqrt(n_pairs) if n_pairs > 1 else math.nan
    print(
        f"synced / not synced: mean {mean:.3f}, 95% interval {mean - half:.3f} to {mean + half:.3f} over {n_pairs} pairs; "
        f"synced {statistics.median(seconds):.3f} s per checkpoint",
        flush=True,
    )


def again(series: Path, folder: Path) -> None:
    """Print what a finished sweep costs when it is requested again."""
    out = folder / "again"
    run(series, out, CLAIM, sync=False)
    command = [sys.executable, "-m", "byrote", "run", str(series), "-o", str(out), "--progress", "none"]
    command += [word for probe in CLAIM for word in ("-p", probe)]
    measured = (
        "import json, resource, subprocess, sys, time\n"
        "start = time.perf_counter()\n"
        "subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)\n"
        "peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024\n"
        "print(json.dumps([time.perf_counter() - start, peak]))\n"
    )
    found = []
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}  # as installed: byte code is cached
    for _ in range(4):
        done = subprocess.run(
            [sys.executable, "-c", measured, *command],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        found.append(json.loads(done.stdout))
    seconds = sorted(s for s, _ in found[1:])  # the first may write byte code
    print(
        f"asked again: {seconds[1]:.2f} s ({seconds[0]:.2f} to {seconds[-1]:.2f}) as a command, "
        f"peak {max(peak for _, peak in found):.0f} MiB",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=("70m", "small", "again"))
    parser.add_argument("--steps", type=int, help="checkpoints (70m: 10, small: 1000, again: 2000)")
    parser.add_argument("--pairs", type=int, help="pairs of sweeps (70m: 6, small: 3)")
    parser.add_argument("--worker", nargs="+")
    options = parser.parse_args()
    if options.worker:
        work(Path(options.worker[0]), Path(options.worker[1]), options.worker[2:])
        return
    for what, shape, steps, n_pairs in (
        ("70m", "70m", 10, 6),
        ("small", "small", 1000, 3),
        ("again", "small", 2000, 0),
    ):
        if options.only not in (None, what):
            continue
        with tempfile.TemporaryDirectory(prefix="byrote-bench-") as name:
            folder, n_steps = Path(name), options.steps or steps
            series = write_series(folder / "series", shape, n_steps)
            print(f"{what}: {n_steps} checkpoints", flush=True)
            if what == "again":
                again(series, folder)
            else:
                pairs(series, folder, CLAIM if what == "small" else (), options.pairs or n_pairs)


if __name__ == "__main__":
    main()
