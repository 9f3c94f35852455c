"""Good series of every format, and damaged copies of them: each is read cleanly, or refused as a CheckpointError or a gap.

Damage is drawn from the format's name and a number: a case that fails can be run again by its number.
"""

from __future__ import annotations

import json
import random
import shutil
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from gguf_files import write_gguf
from llama2c_files import write_llama2c
from mutations import damage
from pickled_files import (
    hf_state,
    lightning_content,
    write_config,
    write_dcp,
    write_nanogpt,
    write_sharded_dcp,
)
from safetensors.torch import load_file, save_file
from tiny_models import write_hf_series, write_lab_series
from tl_legacy_golden import write_series as write_tl_series

from byrote.checkpoints import CheckpointError, open_series
from byrote.checkpoints.fingerprint import fingerprint, tensor_hashes
from byrote.interp.loading import load_fresh, read_config

SMALL = {"n_embd": 8, "n_layer": 1, "n_head": 1, "n_positions": 8}
NARROW = {"n_embd": 8, "n_layer": 1, "n_head": 1}
CASES = 56  # of each format are always tried, the first of them by `make test`, all by `make torture`
FIRST = 20
BUILD_EVERY = 8  # mutations after which the model is built as well, where the file can still be opened


def gpt2_file(folder: Path, step: int, **options: Any) -> None:
    write_config(folder, "gpt2", **SMALL)
    torch.save(hf_state("gpt2", step, **SMALL), folder / f"step_{step}.pt", **options)


def hf_bin(folder: Path) -> None:
    write_hf_series(folder, "gpt2", (1, 2), **SMALL)
    for step in (1, 2):
        file = folder / f"step{step}" / "model.safetensors"
        torch.save(load_file(file), file.with_name("pytorch_model.bin"))
        file.unlink()


def lightning(folder: Path) -> None:
    write_config(folder, "gpt2")
    for step in (1, 2):
        torch.save(lightning_content(step, "gpt2"), folder / f"epoch=0-step={step}.ckpt")


def many_steps(folder: Path) -> None:
    write_config(folder, "gpt2", **SMALL)
    states = {
        step: {name: t.clone() for name, t in hf_state("gpt2", step, **SMALL).items()} for step in (1, 2)
    }
    torch.save(states, folder / "all.pt")


def state_dict_safetensors(folder: Path) -> None:
    write_config(folder, "gpt2", **SMALL)
    for step in (1, 2):
        state = {name: t.clone() for name, t in hf_state("gpt2", step, **SMALL).items()}
        save_file(state, folder / f"step_{step}.safetensors")


def dcp(folder: Path) -> None:
    write_config(folder, "gpt2", **SMALL)
    state = {name: t.clone() for name, t in hf_state("gpt2", 1, **SMALL).items()}
    write_dcp(folder / "step_1", {"model": state, "step": 1})
    write_sharded_dcp(folder / "step_2", state, cuts={"transformer.wte.weight": [[7, 30], [4]]})


def per_step(write: Callable[..., Any], **options: Any) -> Callable[[Path], None]:
    return lambda folder: [write(folder, step, **options) for step in (1, 2)] and None


def nanogpt(folder: Path, step: int, **options: Any) -> None:
    write_nanogpt(folder / f"ckpt_{step}.pt", step, **NARROW, **options)


FORMATS: dict[str, Callable[[Path], Any]] = {
    "hf": lambda folder: write_hf_series(folder, "gpt2", (1, 2), trainer_state=True, **SMALL),
    "hf in shards": lambda folder: write_hf_series(folder, "gpt2", (1, 2), shard_size="3KB", **SMALL),
    "hf pickled": hf_bin,
    "lab": lambda folder: write_lab_series(folder, (1, 2)),
    "nanogpt": per_step(nanogpt),
    "nanogpt, old file": per_step(nanogpt, legacy=True),
    "lightning": lightning,
    "state dict": per_step(gpt2_file),
    "state dict, old file": per_step(gpt2_file, _use_new_zipfile_serialization=False),
    "state dict, safetensors": state_dict_safetensors,
    "dcp": dcp,
    "gguf": lambda folder: [write_gguf(folder / f"step_{step}.gguf", step) for step in (1, 2)],
    "llama2.c": lambda folder: [write_llama2c(folder / f"ckpt_{step}.bin", step) for step in (1, 2)],
    "many steps in one file": many_steps,
    "tl_legacy": lambda folder: write_tl_series(folder, "attn_only_ln", names=("step_1.pth", "step_2.pth")),
}


def write_good(top: Path) -> Path:
    """One good series of every format, in a folder of its name."""
    for name, write in FORMATS.items():
        (top / name).mkdir()
        write(top / name)
    return top


def refused_case(good: Path, name: str, number: int, place: Path, *, build: bool) -> bool:
    """Whether a damaged copy of a format's series was refused properly; anything but that and reading it is an error.

    Args:
        good: what `write_good` wrote.
        name: key of `FORMATS`.
        number: of the case.
        place: folder for the copy, removed afterwards.
        build: build the model as well.
    """
    folder = shutil.copytree(good / name, place)
    done = damage(folder, random.Random(f"{name} {number}"))
    try:
        return read(folder, build=build)
    except Exception as error:
        raise AssertionError(f"case {number} of {name}: {done}: {error!r}") from error
    finally:
        shutil.rmtree(folder)


def refused_cases(good: Path, name: str, numbers: Iterable[int], place: Path) -> int:
    """How many of these cases were refused; every eighth is built as well."""
    return sum(refused_case(good, name, n, place, build=n % BUILD_EVERY == 0) for n in numbers)


def read(folder: Path, *, build: bool) -> bool:
    """Open, hash and perhaps build everything; True where any of it was refused properly."""
    try:
        series = open_series(folder)
    except CheckpointError as error:
        assert error.message
        assert error.help
        return True
    refused = bool(series.gaps)
    assert all(gap.reason and gap.help for gap in series.gaps)
    for checkpoint in series:
        for step in (hashed, configured, built) if build else (hashed, configured):
            try:
                step(checkpoint)
            except CheckpointError as error:
                assert error.message
                refused = True
    return refused


def hashed(checkpoint) -> None:
    assert len(fingerprint(tensor_hashes(checkpoint))) == 32


def configured(checkpoint) -> None:
    assert isinstance(json.dumps(read_config(checkpoint)), str)


def built(checkpoint) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = load_fresh(checkpoint)
    tokens = torch.zeros((1, min(4, model.shape.n_ctx)), dtype=torch.long)
    assert model.logits(tokens).shape[0] == 1
