"""Damage done to files, drawn from a seed: bits, bytes, lengths, numbers in text, and values in JSON."""

from __future__ import annotations

import json
import random
from pathlib import Path


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
