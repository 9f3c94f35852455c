"""Options that several verbs share, spelled once."""

from __future__ import annotations

from pathlib import Path

import click

from byrote.checkpoints.errors import ByroteError
from byrote.cli.command import argument, flag, option

PATH = click.Path(path_type=Path)
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
NATURAL = click.IntRange(min=0)
POSITIVE = click.IntRange(min=1)

PATHS = argument("PATH...")
DEVICE = option("Where the model runs: cpu, cuda, cuda:N or mps.", metavar="NAME", default="cpu")
DTYPE = option(
    "Of weights and activations.", type=click.Choice(("float32", "bfloat16", "float64")), default="float32"
)
SEED = option("Of stimuli, bootstraps and nulls.", metavar="N", type=NATURAL, default=0)
THREADS = option(
    "CPU threads of torch; if left out, one for small models, else torch's own choice.",
    metavar="N",
    type=POSITIVE,
)
SEQUENCES = option(
    "Sequences per stimulus: n of the intervals.", metavar="N", type=click.IntRange(min=8), default=32
)
PROBES = option("Only this probe; repeat for more.", "-p", multiple=True, metavar="NAME")
ALLOW_DOWNLOAD = flag(
    "Let a hub repository be listed and its steps downloaded; without it only the local cache is read."
)
BASE_MODEL = option(
    "The model that adapters (PEFT, LoRA) belong to, where their own config does not say or is wrong.",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="FOLDER",
)
DISK_BUDGET = option(
    "Most that downloaded steps may hold on disk; steps that were read are removed to make room.",
    type=click.FloatRange(min=0),
    metavar="GB",
)
PROGRESS = option(
    "How progress is shown on stderr: auto, rich, plain, jsonl or none. auto is rich on a terminal and plain elsewhere.",
    metavar="MODE",
    type=click.Choice(("auto", "rich", "plain", "jsonl", "none")),
    default="auto",
)
EXPECT = option("Checks (TOML, see docs/cli.md); exit 1 when one fails.", type=PATH, metavar="FILE")


def in_bytes(gigabytes: float | None) -> int | None:
    """A disk budget in bytes."""
    return None if gigabytes is None else int(gigabytes * 1e9)


def require_device(device: str, dtype: str) -> None:
    """Refuse a device that is not there before any work starts; "cpu" asks nothing and imports nothing.

    Raises:
        ByroteError: an unknown device, or one this machine or dtype does not have.
    """
    if device == "cpu":
        return
    kind, _, index = device.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (index and not index.isdigit()):
        raise ByroteError(f"there is no device {device!r}", help="use cpu, cuda, cuda:N or mps")
    import torch

    if kind == "mps" and dtype == "float64":
        raise ByroteError("mps has no float64", help="use --dtype float32, or --device cpu")
    count = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available()), "cpu": 1}[kind]
    if int(index or 0) >= count:
        raise ByroteError(
            f"torch sees {count} {kind} devices here, not {device}",
            help="use --device cpu; `byrote doctor` shows what torch sees",
        )


def set_threads(threads: int | None) -> None:
    """Give torch this many CPU threads; None leaves it alone, and torch unimported."""
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
