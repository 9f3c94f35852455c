"""Throughput and peak memory of text statistics on a large synthetic file.

Run it from the repository's root: ``python tests/bench/bench_text.py [--mb 256] [--reference-mb 64]``.
Words are drawn from a Zipf distribution over 200,000 kinds; one document in twenty is a copy. The measuring runs in a
process of its own, and its peak (VmHWM, Linux) counts everything: imports, tables, bootstraps. A peak over 600 MiB exits
with 1.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
TARGET_PEAK_MIB = 600
KINDS = 200_000
MEASURE = """
import re, sys, time
from pathlib import Path
from probes.text import TextSettings, measure_text

started = time.perf_counter()
asked = None if sys.argv[3] == "all" else (sys.argv[3],)
measure_text([sys.argv[1]], TextSettings(measures=asked), reference=sys.argv[2] or None)
seconds = time.perf_counter() - started
peak = re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text()).group(1)
print(seconds, int(peak) / 1024)
"""


def write_corpus(path: Path, mb: int, seed: int) -> Path:
    """A .txt of about `mb` million bytes."""
    rng = np.random.default_rng(seed)
    letters = np.asarray(list("abcdefghijklmnopqrstuvwxyz"))
    vocabulary = np.asarray(["".join(rng.choice(letters, size=n)) for n in rng.integers(3, 11, size=KINDS)])
    written = 0
    with path.open("w") as file:
        while written < mb * 1_000_000:
            kinds = np.minimum(rng.zipf(1.3, size=rng.integers(50, 600)), KINDS) - 1
            document = " ".join(vocabulary[kinds]) + "<|endoftext|>"
            written += file.write(document * (2 if rng.random() < 0.05 else 1))
    return path


def measured(corpus: Path, reference: Path | None, measure: str) -> tuple[float, float]:
    """(seconds, peak in MiB) of measuring in a fresh process."""
    command = [sys.executable, "-c", MEASURE, str(corpus), str(reference or ""), measure]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    seconds, peak = map(float, done.stdout.split())
    return seconds, peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mb", type=int, default=256)
    parser.add_argument("--reference-mb", type=int, default=64)
    asked = parser.parse_args()
    peaks = []
    with tempfile.TemporaryDirectory() as folder:
        corpus = write_corpus(Path(folder) / "corpus.txt", asked.mb, 0)
        reference = write_corpus(Path(folder) / "reference.txt", asked.reference_mb, 1)
        alone = ("inducible", "repeats", "rep", "concentration", "near_duplicates", "all")
        for measure, other in [
            *((name, None) for name in alone),
            ("tail_mass", reference),
            ("all", reference),
        ]:
            read_mb = asked.mb + (2 * asked.reference_mb if other else 0)  # the reference is read twice
            seconds, peak = measured(corpus, other, measure)
            peaks.append(peak)
            beside = " with a reference" if other else ""
            print(f"{measure}{beside}: {read_mb / seconds:.1f} MB/s, peak {peak:.0f} MiB", flush=True)
    print(f"highest peak {max(peaks):.0f} MiB, target {TARGET_PEAK_MIB} MiB")
    sys.exit(max(peaks) > TARGET_PEAK_MIB)


if __name__ == "__main__":
    main()
