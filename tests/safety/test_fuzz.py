"""Damaged copies of good checkpoints, in every format: each is read cleanly, or refused as a CheckpointError or a gap.

Mutations are seeded: a case that fails can be run again by its number.
"""

from __future__ import annotations

import json
import random
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
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
CASES = 56  # of each format
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
    "tl_legacy": lambda folder: write_tl_series(folder, "attn_only_ln", names=("step_1.pth", "step_2.pth")),
}


# --- mutations ----------------------------------------------------------------------------------------------------------


def place(data: bytearray, rng: random.Random) -> int:
    """A position: mostly in the first or last kilobyte, where headers and directories are."""
    size = len(data)
    kind = rng.random()
    if kind < 0.5:
        return rng.randrange(min(size, 1500))
    return rng.randrange(max(0, size - 1500), size) if kind < 0.75 else rng.randrange(size)


def flip_bits(data: bytearray, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 1, 2, 8))):
        data[place(data, rng)] ^= 1 << rng.randrange(8)


def set_bytes(data: bytearray, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 4, 16))):
        data[place(data, rng)] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))


def swap_bytes(data: bytearray, rng: random.Random) -> None:
    i, j = place(data, rng), place(data, rng)
    data[i], data[j] = data[j], data[i]


def truncate(data: bytearray, rng: random.Random) -> None:
    del data[place(data, rng) :]


def cut_out(data: bytearray, rng: random.Random) -> None:
    i = place(data, rng)
    del data[i : i + rng.choice((1, 4, 100))]


def splice(data: bytearray, rng: random.Random) -> None:
    i, j, n = place(data, rng), place(data, rng), rng.choice((4, 32, 500))
    data[j : j + rng.choice((0, n))] = data[i : i + n]


def insert(data: bytearray, rng: random.Random) -> None:
    i = place(data, rng)
    data[i:i] = rng.randbytes(rng.choice((1, 8, 64)))


NUMBERS = (
    b"-1",
    b"0",
    b"1",
    b"2",
    b"65537",
    b"9007199254740993",
    b"1e400",
    b"NaN",
    b"null",
    b'"7"',
    b"[]",
    b"{}",
    b"true",
)


def replace_number(data: bytearray, rng: random.Random) -> None:
    """Another value in place of a run of digits: in JSON, in headers, in names of storages."""
    digits = [
        i for i in range(1, min(len(data), 4000)) if chr(data[i]).isdigit() and not chr(data[i - 1]).isdigit()
    ]
    if not digits:
        return flip_bits(data, rng)
    start = end = rng.choice(digits)
    while end < len(data) and chr(data[end]).isdigit():
        end += 1
    data[start:end] = rng.choice(NUMBERS)
    return None


MUTATIONS = (
    flip_bits,
    set_bytes,
    swap_bytes,
    truncate,
    cut_out,
    splice,
    insert,
    replace_number,
    replace_number,
)


def damage(folder: Path, rng: random.Random) -> str:
    """Spoil one file of a series, or one value in its JSON; says what was done."""
    file = rng.choice(sorted(p for p in folder.rglob("*") if p.is_file()))
    done = rng.random()
    if done < 0.06:
        file.unlink()
        return f"deleted {file.name}"
    if file.suffix == ".json" and done < 0.5:
        return damage_json(file, rng)
    data = bytearray(file.read_bytes())
    names = []
    for _ in range(rng.choice((1, 1, 2))):
        if data:
            mutation = rng.choice(MUTATIONS)
            mutation(data, rng)
            names.append(mutation.__name__)
    file.write_bytes(data)
    return f"{' and '.join(names)} in {file.name}"


def damage_json(file: Path, rng: random.Random) -> str:
    """Well-formed JSON with one value replaced by another kind of value."""
    data = json.loads(file.read_text())
    spot = data
    while isinstance(spot, dict | list) and spot:
        keys = list(spot) if isinstance(spot, dict) else range(len(spot))
        key = rng.choice(list(keys))
        if not isinstance(spot[key], dict | list) or not spot[key] or rng.random() < 0.3:
            spot[key] = rng.choice(
                (
                    None,
                    True,
                    -1,
                    0,
                    3,
                    2**31,
                    10**30,
                    1e308,
                    "text",
                    "",
                    [],
                    {},
                    [[1]],
                    {"a": 1},
                    float("nan"),
                )
            )
            break
        spot = spot[key]
    file.write_text(json.dumps(data))
    return f"another value for {key!r} in {file.name}"


# --- the test -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """One good series of every format."""
    top = tmp_path_factory.mktemp("good")
    for name, write in FORMATS.items():
        (top / name).mkdir()
        write(top / name)
    return top


@pytest.mark.parametrize("name", FORMATS)
def test_the_undamaged_series_is_read(good, name):
    series = open_series(good / name)
    assert (series.steps, series.gaps) == ((1, 2), ())
    for checkpoint in series:
        assert len(fingerprint(tensor_hashes(checkpoint))) == 32
        load_fresh(checkpoint)


@pytest.mark.parametrize("name", FORMATS)
def test_a_damaged_series_is_read_or_refused(good, tmp_path, name):
    refused = 0
    for case in range(CASES):
        rng = random.Random(f"{name} {case}")
        folder = shutil.copytree(good / name, tmp_path / "run")
        done = damage(folder, rng)
        try:
            refused += read(folder, build=case % BUILD_EVERY == 0)
        except Exception as error:
            raise AssertionError(f"case {case} of {name}: {done}: {error!r}") from error
        shutil.rmtree(folder)
    assert refused > CASES / 5  # the damage was real


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


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_a_damaged_series_is_read_or_refused_many_times(good, tmp_path, name):
    for case in range(CASES, 30 * CASES):
        rng = random.Random(f"{name} {case}")
        folder = shutil.copytree(good / name, tmp_path / "run")
        done = damage(folder, rng)
        try:
            read(folder, build=case % 3 == 0)
        except Exception as error:
            raise AssertionError(f"case {case} of {name}: {done}: {error!r}") from error
        shutil.rmtree(folder)
