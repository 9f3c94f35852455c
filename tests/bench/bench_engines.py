"""Two local workers against one, on one series: checkpoints a second once every worker has started.

Run it from the repository's root, on a machine with two free cores: ``python tests/bench/bench_engines.py``.
It writes a series of GPT-NeoX checkpoints of a middling shape, long enough that one worker takes `--seconds` (120 by
default) with one thread; a worker's start-up (imports, the first model, stimuli) is left out: the clock runs from the moment when
every worker has finished its first checkpoint, and counts the others. Prefetch is on everywhere.

What both wrote is compared byte for byte. Two workers below 1.8 times one exit with 1.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from byrote.checkpoints import open_series
from byrote.checkpoints.engines import Engine
from byrote.checkpoints.series import CheckpointSeries
from byrote.checkpoints.side_by_side import cores
from byrote.probes.sweep.config import SweepConfig
from byrote.probes.sweep.many import SweepTask, sweep_many
from byrote.probes.sweep.run import sweep

TARGET, N_SEQ = 1.8, 48
PROBES = ("prefix_matching", "previous_token", "copying_logit", "repeat_loss", "ov_copying")
SHAPE = {"hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 8, "intermediate_size": 1024}


def write(folder: Path, steps: int) -> CheckpointSeries:
    """A GPT-NeoX series of slightly different random weights."""
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.manual_seed(0)
    model = GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=2048, bos_token_id=0, eos_token_id=0, **SHAPE))
    for k in range(steps):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.002)
        model.save_pretrained(folder / f"step{k}")
    return open_series(folder)


def pace(series: CheckpointSeries, config: SweepConfig, out: Path, workers: int) -> float:
    """Checkpoints a second, once every worker has started. One worker is a process of its own too, and measures no shard."""
    moments: list[float] = []

    def on_event(place: int, event: dict) -> None:
        if place == 0 and event["event"] == "checkpoint":
            moments.append(time.monotonic())

    tasks = [SweepTask(series, config, out)]
    if workers == 1:  # a second series, of nothing, makes it two tasks: each is a process then
        tasks.append(SweepTask(series[:0], config, out / "nothing"))
    list(sweep_many(tasks, engine=Engine(jobs=2), on_event=on_event))
    return (len(moments) - workers) / (moments[-1] - moments[workers - 1])


def contents(root: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file() and p.name != ".lock"
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--rounds", type=int, default=1)
    asked = parser.parse_args()
    if cores() < 2:
        sys.exit("this machine has one core: two workers cannot be faster")
    torch.set_num_threads(1)
    config = SweepConfig(PROBES, n_seq=N_SEQ, threads=1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tried = write(folder / "tried", 4)
        trace = sweep(tried, config, out=folder / "trial").trace
        each = sum(e["end_s"] - e["start_s"] for e in trace if e["step"] == 3 and e["what"] != "read")
        steps = max(6, round(asked.seconds / each) + 2)
        steps += steps % 2
        print(f"{steps} checkpoints of {each:.2f} s each", flush=True)
        series = write(folder / "run", steps)
        ratios = []
        for k in range(asked.rounds):
            one, two = (pace(series, config, folder / f"{w}-{k}", w) for w in (1, 2))
            same = contents(folder / f"1-{k}" / "run") == contents(folder / f"2-{k}" / "run")
            ratios.append(two / one)
            print(
                f"one worker {one:.3f}, two {two:.3f} checkpoints a second: {two / one:.2f} times; same bytes: {same}",
                flush=True,
            )
            if not same:
                sys.exit("two workers wrote other bytes than one")
        best = sorted(ratios)[len(ratios) // 2]
        print(f"two workers / one: median {best:.2f}, target at least {TARGET}")
        sys.exit(best < TARGET)


if __name__ == "__main__":
    main()
