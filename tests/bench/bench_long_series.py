"""A long series: does memory grow, do files stay open, does reading overlap with measuring, what does asking again cost?

    python tests/bench/bench_long_series.py              # 154 steps, as many as a Pythia model has

A small GPT-NeoX series with random weights is measured with the default probes, then the same sweep is asked again, in
this process and through the command line.

memory   slope of resident memory over checkpoints (least squares, the first quarter left out), MB per step
files    open file descriptors after the first and the last checkpoint
overlap  share of the time spent reading and hashing the next step that ran while another step was being measured
again    seconds for a finished sweep, with nothing to measure: the whole command, imports included; median of five
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))


def write_series(out: Path, steps: int) -> Path:
    """Steps of one small GPT-NeoX model, each with other random weights."""
    import torch
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.manual_seed(0)
    shape = {
        "hidden_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 256,
        "vocab_size": 2048,
        "max_position_embeddings": 128,
    }
    model = GPTNeoXForCausalLM(GPTNeoXConfig(bos_token_id=0, eos_token_id=0, **shape))
    for i in range(steps):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.002)
        model.save_pretrained(out / f"step{1000 * i}")
    return out


def resident_mb() -> float:
    """Resident memory of this process, in MB (10^6 bytes)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def open_files() -> int:
    """File descriptors of this process."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def overlapped_frac(trace: list[dict[str, Any]]) -> float:
    """Of the seconds spent reading, the share that lies inside another step's measuring."""
    reads = [e for e in trace if e["what"] == "read"]
    busy = [e for e in trace if e["what"].startswith("measure")]
    total = sum(e["end_s"] - e["start_s"] for e in reads)
    shared = sum(
        max(0.0, min(r["end_s"], b["end_s"]) - max(r["start_s"], b["start_s"]))
        for r in reads
        for b in busy
        if b["step"] != r["step"]
    )
    return shared / total if total else 0.0


def main() -> None:
    import numpy as np

    from byrote.checkpoints import open_series
    from byrote.interp.quiet import quiet_upstream
    from byrote.probes.sweep.run import SweepConfig, sweep

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=154)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="byrote-bench-") as folder:
        path = write_series(Path(folder) / "series", options.steps)
        out, memory, files = Path(folder) / "results", [], []

        def note(event: dict[str, Any]) -> None:
            if event["event"] == "checkpoint":
                memory.append(resident_mb())
                files.append(open_files())

        with quiet_upstream():
            series = open_series(path)
            start = time.perf_counter()
            outcome = sweep(series, SweepConfig(), out=out, on_event=note)
            first_s = time.perf_counter() - start
            start = time.perf_counter()
            again = sweep(series, SweepConfig(), out=out)
            again_s = time.perf_counter() - start
        assert again.measured == 0 and not outcome.gaps
        command = [sys.executable, "-m", "byrote", "run", str(path), "-o", str(out), "--progress", "none"]
        kept = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}  # as when installed
        kept["PYTHONPYCACHEPREFIX"] = str(Path(folder) / "bytecode")
        command_s = []
        for _ in range(6):
            start = time.perf_counter()
            subprocess.run(
                command, check=True, stdout=subprocess.DEVNULL, cwd=Path(__file__).parents[2], env=kept
            )
            command_s.append(time.perf_counter() - start)
        ordered = sorted(command_s[1:])  # the first writes the byte code

    settled = len(memory) // 4
    slope = float(np.polyfit(np.arange(settled, len(memory)), memory[settled:], 1)[0])
    print(f"{options.steps} steps measured in {first_s:.1f} s")
    print(f"memory: {memory[settled]:.0f} -> {memory[-1]:.0f} MB, slope {slope:+.3f} MB per step")
    print(f"open files: {files[0]} after the first checkpoint, {files[-1]} after the last")
    print(f"overlap: {overlapped_frac(outcome.trace):.0%} of the reading ran while another step was measured")
    said = f"{ordered[len(ordered) // 2]:.2f} s as a command ({ordered[0]:.2f} to {ordered[-1]:.2f})"
    print(f"asked again: {again_s:.2f} s in the same process, {said}")


if __name__ == "__main__":
    main()
