"""Options that several verbs share, spelled once."""

from __future__ import annotations

from pathlib import Path

import click

from byrote.checkpoints.errors import ByroteError

DTYPES = ("float32", "bfloat16", "float64")

device_option = click.option(
    "--device",
    metavar="NAME",
    default="cpu",
    show_default=True,
    help="Where the model runs: cpu, cuda, cuda:N or mps.",
)
dtype_option = click.option(
    "--dtype",
    type=click.Choice(DTYPES),
    default="float32",
    show_default=True,
    help="Of weights and activations.",
)
seed_option = click.option(
    "--seed",
    metavar="N",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Of stimuli, bootstraps and nulls.",
)
threads_option = click.option(
    "--threads",
    metavar="N",
    type=click.IntRange(min=1),
    help="CPU threads of torch; if left out, one for small models, else torch's own choice.",
)
download_option = click.option(
    "--allow-download",
    is_flag=True,
    help="Let a hub repository be listed and its steps downloaded; without it only the local cache is read.",
)
base_model_option = click.option(
    "--base-model",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="The model that adapters (PEFT, LoRA) belong to, where their own config does not say or is wrong.",
)
disk_budget_option = click.option(
    "--disk-budget",
    type=click.FloatRange(min=0),
    metavar="GB",
    help="Most that downloaded steps may hold on disk; steps that were read are removed to make room.",
)
sequences_option = click.option(
    "--sequences",
    metavar="N",
    type=click.IntRange(min=8),
    default=32,
    show_default=True,
    help="Sequences per stimulus: n of the intervals.",
)
fresh_help = "Throw away what is stored there and start again."


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
