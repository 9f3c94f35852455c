"""What it takes to measure Pythia's suite, 8 sizes of 154 steps, worked out from what was measured here; docs/scale.md has the table.

    python tests/bench/scale_table.py                        # with the figures measured below
    python tests/bench/scale_table.py --seconds 31 --per-hour 0.03 --workers 64

Nothing is measured by this script. `MEASURED` says what was, with which command, and every column follows from it:

bytes     two per parameter and step, as the suite stores them
hours     of one core: seconds of the measured checkpoint, times the products of matrices of a size over those of the measured one
          (2 per weight and token, the embedding apart, and 4 d_model per layer and pair of positions)
read      hours to read the bytes once at `--read-gb-s`, which is your file system's and was not measured (hashing takes one core
          0.05 s for 281 MB in memory: 5.7 GB a second)
results   bytes of the units of a 70M checkpoint, times the heads over those measured
memory    of one process, as the engines reserve it
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass


@dataclass(frozen=True)
class Size:
    """One model of the suite (Biderman et al. 2023, table 1)."""

    name: str
    n_params: float
    n_layers: int
    d_model: int
    n_heads: int
    d_vocab: int = 50_304

    def flops(self, tokens: float, pairs: float) -> float:
        """Of one pass over so many tokens and pairs of positions."""
        weights = 12 * self.n_layers * self.d_model**2 + self.d_model * self.d_vocab
        return 2 * weights * tokens + 4 * self.n_layers * self.d_model * pairs


SUITE = (
    Size("70M", 70.4e6, 6, 512, 8),
    Size("160M", 162.3e6, 12, 768, 12),
    Size("410M", 405.3e6, 24, 1024, 16),
    Size("1B", 1011.8e6, 16, 2048, 8),
    Size("1.4B", 1414.6e6, 24, 2048, 16),
    Size("2.8B", 2775.2e6, 32, 2560, 32),
    Size("6.9B", 6857.3e6, 32, 4096, 32),
    Size("12B", 11846.1e6, 36, 5120, 40),
)
N_STEPS, STORED_BYTES = 154, 2
TOKENS, PAIRS = (
    57_712,
    10_906_736,
)  # shown by the default probes: the nine stimuli of bench_probes.py, and positions squared


@dataclass(frozen=True)
class Measured:
    """What was measured, on which size, by which command."""

    size: Size
    seconds: float
    units_bytes: float
    command: str


MEASURED = Measured(
    SUITE[0], 89.0, 561_226, "bench_probes.py --rounds 1: 27 probes, one thread of a shared core, float32"
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--seconds", type=float, default=MEASURED.seconds, help="one checkpoint of 70M, on one core of yours"
    )
    parser.add_argument(
        "--per-hour", type=float, default=0.04, help="price of one core for an hour, in any currency"
    )
    parser.add_argument(
        "--read-gb-s", type=float, default=1.0, help="of the file system, for all processes together"
    )
    parser.add_argument(
        "--workers", type=int, default=64, help="processes of one core, on all machines together"
    )
    asked = parser.parse_args()
    print(f"measured: {asked.seconds:g} s a checkpoint of {MEASURED.size.name} ({MEASURED.command})\n")
    base = MEASURED.size.flops(TOKENS, PAIRS)
    print("| size | checkpoints | core hours | read, hours | price | results | memory a process |")
    print("|---|---|---|---|---|---|---|")
    total = dict.fromkeys(("bytes", "hours", "read", "results"), 0.0)
    for size in SUITE:
        stored = size.n_params * STORED_BYTES * N_STEPS
        hours = asked.seconds * size.flops(TOKENS, PAIRS) / base * N_STEPS / 3600
        read = stored / (asked.read_gb_s * 1e9) / 3600
        heads = size.n_layers * size.n_heads / (MEASURED.size.n_layers * MEASURED.size.n_heads)
        results = MEASURED.units_bytes * heads * N_STEPS
        memory = 1.5e9 + 4 * size.n_params * STORED_BYTES
        for name, value in zip(total, (stored, hours, read, results), strict=True):
            total[name] += value
        print(
            f"| {size.name} | {stored / 1e12:.2f} TB | {hours:,.0f} | {read:.1f} | {hours * asked.per_hour:,.0f} | "
            f"{results / 1e6:,.0f} MB | {memory / 1e9:.1f} GB |"
        )
    hours = total["hours"]
    print(
        f"| all | {total['bytes'] / 1e12:.2f} TB | {hours:,.0f} | {total['read']:.1f} | {hours * asked.per_hour:,.0f} | "
        f"{total['results'] / 1e9:.1f} GB | |"
    )
    print(
        f"\nwith {asked.workers} workers: {hours / asked.workers:,.0f} hours, or {hours / asked.workers / 24:.1f} days"
    )


if __name__ == "__main__":
    main()
