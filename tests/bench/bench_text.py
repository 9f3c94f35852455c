"""Throughput and peak memory of text statistics on large synthetic files.

Run it from the repository's root: ``python tests/bench/bench_text.py [--mb 64 256 1000] [--form txt] [--reference-mb 64]``.
Words are drawn from a Zipf distribution over 200,000 kinds; one document in twenty is a copy. Every measuring runs in a
process of its own, and its peak (VmHWM, Linux) counts everything: imports, tables, bootstraps. Tables fill up to their
limits, so that small files need less; beyond that the peak must not grow. A peak over 600 MiB, or one more than 5% higher
than that of the next smaller size from 200 MB on, exits with 1.
"""

from __future__ import annotations

import argparse
import gzip
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
TARGET_PEAK_MIB, TARGET_GROWTH, FULL_FROM_MB = 600, 1.05, 200
KINDS = 200_000
FORMS = ("txt", "txt.gz", "jsonl", "one")  # the last is a single document
MEASURE = """
import re, sys, time
from pathlib import Path
from byrote.probes.text import TextSettings, measure_text

corpus, reference, measure, tokenizer = sys.argv[1:]
started = time.perf_counter()
settings = TextSettings(
    measures=None if measure == "all" else (measure,), tokenizer=Path(tokenizer) if tokenizer else None
)
report = measure_text([corpus], settings, reference=reference or None)
seconds = time.perf_counter() - started
peak = re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text()).group(1)
print(seconds, int(peak) / 1024)
print(*report.notes, sep="\\n", file=sys.stderr)
"""


def documents(mb: int, seed: int) -> Iterator[str]:
    """Texts of about `mb` million bytes; those of a smaller corpus are the first of a larger one."""
    rng = np.random.default_rng(seed)
    letters = np.asarray(list("abcdefghijklmnopqrstuvwxyz"))
    vocabulary = np.asarray(["".join(rng.choice(letters, size=n)) for n in rng.integers(3, 11, size=KINDS)])
    made = 0
    while made < mb * 1_000_000:
        kinds = np.minimum(rng.zipf(1.3, size=rng.integers(50, 600)), KINDS) - 1
        document = " ".join(vocabulary[kinds].tolist())
        for _ in range(2 if rng.random() < 0.05 else 1):
            made += len(document) + 13
            yield document


def write_corpus(folder: Path, mb: int, seed: int, *, form: str = "txt") -> Path:
    """A corpus in one of `FORMS`."""
    path = folder / f"{form.replace('.', '_')}-{mb}-{seed}.{'txt' if form == 'one' else form}"
    with gzip.open(path, "wt", compresslevel=1) if form.endswith(".gz") else path.open("w") as file:
        for text in documents(mb, seed):
            if form == "jsonl":
                file.write(json.dumps({"text": text}) + "\n")
            else:
                file.write(text + (" " if form == "one" else "<|endoftext|>"))
    return path


def measured(
    corpus: Path, reference: Path | None, *, measure: str = "all", tokenizer: Path | None = None
) -> tuple[float, float]:
    """(seconds, peak in MiB) of measuring in a fresh process."""
    given = (str(corpus), str(reference or ""), measure, str(tokenizer or ""))
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *given], capture_output=True, text=True, cwd=ROOT, check=True
    )
    print(*(f"    {line}" for line in done.stderr.splitlines()), sep="\n")
    seconds, peak = map(float, done.stdout.split())
    return seconds, peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mb", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--form", choices=FORMS, default="txt")
    parser.add_argument("--reference-mb", type=int, default=64, help="0: measure without a reference")
    parser.add_argument("--measure", default="all")
    parser.add_argument("--tokenizer", type=Path)
    parser.add_argument("--folder", type=Path, help="where the corpora are written, and deleted afterwards")
    asked = parser.parse_args()
    peaks: dict[int, float] = {}
    with tempfile.TemporaryDirectory(dir=asked.folder) as name:
        folder = Path(name)
        reference = write_corpus(folder, asked.reference_mb, 1) if asked.reference_mb else None
        for mb in sorted(asked.mb):
            corpus = write_corpus(folder, mb, 0, form=asked.form)
            read_mb = (corpus.stat().st_size + (2 * reference.stat().st_size if reference else 0)) / 1e6
            seconds, peaks[mb] = measured(corpus, reference, measure=asked.measure, tokenizer=asked.tokenizer)
            corpus.unlink()
            rate = f"{seconds:.0f} s, {read_mb / seconds:.1f} MB/s"
            print(f"{asked.form}, {mb:,} MB: {rate}, peak {peaks[mb]:.0f} MiB", flush=True)
    sizes = [mb for mb in peaks if mb >= FULL_FROM_MB]
    grown = [peaks[large] / peaks[small] for small, large in pairwise(sizes)]
    print(f"highest peak {max(peaks.values()):.0f} MiB, target {TARGET_PEAK_MIB} MiB")
    sys.exit(max(peaks.values()) > TARGET_PEAK_MIB or any(growth > TARGET_GROWTH for growth in grown))


if __name__ == "__main__":
    main()
