"""Damaged results folders: shown as they were, refused in two lines, or named by `verify`; never a crash, never a wait."""

from __future__ import annotations

import random
import shutil
import traceback
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import measured, series_of
from limited import limited, quiet
from looking import REFUSED, looks, page_problem, rows
from mutations import damage
from torture_cases import seed

from byrote.checkpoints.errors import ByroteError
from byrote.probes.verify import verify

BATCH = 6  # cases of one process
MOST_GROWN = 64 << 20  # bytes that looking may leave on the disk


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    """Results of `tiny`, which will be damaged, with saved attention, and of `good` beside it."""
    top = tmp_path_factory.mktemp("results_fuzz")
    for name, out in (("tiny", "results"), ("good", "beside")):
        measured(series_of(top, name), attention=True, name=name, out=out)
    return top


# --- damage that knows what a results folder is -----------------------------------------------------------------------


def other_metadata(file: Path, rng: random.Random) -> None:
    """Parquet whose metadata says something else; the columns are what they were."""
    table = pq.read_table(file)
    metadata = dict(table.schema.metadata or {})
    key = rng.choice(sorted(metadata)) if metadata else b"byrote.provenance"
    value = metadata.get(key, b"")
    new = rng.choice(
        (b"", b"null", b"[]", b"{", b'{"probes": 3}', b'{"probes": {"x": []}}', value[: len(value) // 2],
         value.replace(b'"', b"'"), b"\xff" * 9, b"[" * 5000, value.replace(b"0", b"1"), b"-1", b"9" * 400)
    )  # fmt: skip
    pq.write_table(table.replace_schema_metadata({**metadata, key: new}), file)


def other_columns(file: Path, rng: random.Random) -> None:
    """Parquet with a column missing, doubled, of another type, renamed, or with other rows."""
    table = pq.read_table(file)
    name = rng.choice(table.column_names)
    at = table.column_names.index(name)
    done = rng.randrange(7)
    if done == 0:
        table = table.drop_columns([name])
    elif done == 1:
        table = table.append_column(name, table[name])
    elif done == 2:
        table = table.set_column(at, name, pa.array(["text"] * table.num_rows))
    elif done == 3:
        table = table.set_column(at, name, pa.nulls(table.num_rows, table[name].type))
    elif done == 4:
        table = table.slice(0, table.num_rows // 2)
    elif done == 5:
        table = pa.concat_tables([table, table])
    else:
        table = table.set_column(at, name, table[name].take(pa.array([0] * table.num_rows)))
    pq.write_table(table, file)


def not_a_file(file: Path, rng: random.Random) -> None:
    """A link, a pipe or a folder in a file's place."""
    import os

    file.unlink()
    done = rng.randrange(5)
    if done == 0:
        file.symlink_to("/dev/zero")
    elif done == 1:
        file.symlink_to(file.parent / "nowhere")
    elif done == 2:
        os.mkfifo(file)
    elif done == 3:
        file.mkdir()
    else:
        file.symlink_to(file.name)


def enormous(file: Path, rng: random.Random) -> None:
    """Small on the disk, large to read: a sparse file, deep JSON, or a parquet of many equal rows."""
    if file.suffix == ".parquet" and rng.random() < 0.7:
        part = pq.read_table(file).slice(0, 1).take(pa.array([0] * 100_000))
        with pq.ParquetWriter(file, part.schema, compression="zstd") as writer:
            for _ in range(rng.choice((1, 90)) if file.parent.name.startswith("step_") else 1):
                writer.write_table(part)
    elif file.suffix == ".json" and rng.random() < 0.5:
        file.write_text(rng.choice(("[", '{"a":')) * 200_000)
    else:
        with file.open("r+b") as stored:
            stored.truncate(3 << 30)


def spoil(folder: Path, rng: random.Random) -> str:
    """Damage one thing; says what."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != ".lock")
    file = rng.choice(files)
    kind = rng.random()
    if kind < 0.08:
        not_a_file(file, rng)
        return f"no file in the place of {file.name}"
    if kind < 0.12:
        enormous(file, rng)
        return f"enormous {file.name}"
    if kind < 0.45:
        parquet = rng.choice([p for p in files if p.suffix == ".parquet"])
        change = rng.choice((other_metadata, other_columns))
        change(parquet, rng)
        return f"{change.__name__} in {parquet.name}"
    return damage(folder, rng)


# --- one case ---------------------------------------------------------------------------------------------------------


def try_one(top: Path, work: Path, *, page: str, wanted: list[Any], number: random.Random) -> str:
    """Damage a copy, look at it in every way; what was done to it.

    Raises:
        AssertionError: something other than the three allowed answers.
    """
    shutil.rmtree(work, ignore_errors=True)
    folder = Path(shutil.copytree(top / "results" / "tiny", work / "bad" / "tiny"))
    done = spoil(folder, number)
    try:
        different = [way for way, seen in seen_of(folder, top, work).items() if seen not in (REFUSED, wanted)]
        if different:
            assert verify(folder).findings, "other numbers are shown, and verify finds nothing"
        else:
            verify(folder)
        if page:
            for run in ("tiny", "good"):
                problem = page_problem(page, run, work / "bad", top / "beside")
                assert not problem, problem
    except ByroteError:
        pass
    except BaseException as error:
        raise AssertionError(f"{done}: {error}") from error
    return done


def seen_of(folder: Path, top: Path, work: Path) -> dict[str, Any]:
    """What every way of looking shows: the rows, or a refusal; words are only looked at."""
    found: dict[str, Any] = {}
    (work / "out").mkdir(exist_ok=True)
    for way, see in looks(folder, top / "beside" / "good", work / "out").items():
        try:
            seen = see()
        except ByroteError as error:
            assert error.message
            seen = REFUSED
        if way == "rows":
            found[way] = seen
    return found


def try_many(
    note: Any, top: Path, work: Path, numbers: list[int], seed: str, pages: tuple[str, ...]
) -> list[tuple[int, str]]:
    """Several cases, each noted before it begins; (number, problem) of those that went wrong."""
    quiet()
    wanted, problems = rows(top / "results" / "tiny"), []
    for case in numbers:
        number = random.Random(f"{seed} {case}")
        page = number.choice(pages) if pages and case % BATCH == 0 else ""
        note(f"case {case}")
        try:
            try_one(top, work, page=page, wanted=wanted, number=number)
        except Exception as error:
            problems.append((case, "".join(traceback.format_exception(error, limit=-5))))
    return problems


def good_is_good(note: Any, top: Path, work: Path, pages: tuple[str, ...]) -> list[str]:
    """What is wrong with the undamaged folder, which should be nothing."""
    (work / "out").mkdir(parents=True)
    found = [
        way
        for way, see in looks(top / "results" / "tiny", top / "beside" / "good", work / "out").items()
        if see() == REFUSED
    ]
    found += [page_problem(page, "tiny", top / "results") for page in pages]
    return [*filter(None, found), *verify(top / "results" / "tiny").findings]


def pages() -> tuple[str, ...]:
    from byrote.dashboard.views import PAGES

    return tuple(PAGES)


@pytest.mark.torture(weight=5)
def test_results_fuzz(good, cases, tmp_path):
    ended = limited(good_is_good, good, tmp_path / "good", pages(), memory=4 << 30, seconds=120)
    assert not ended.problem, ended.problem
    assert ended.answer == []
    for batch, _ in cases.drawn():
        numbers = [batch] if cases.only else list(range(batch * BATCH, (batch + 1) * BATCH))
        ended = limited(
            try_many,
            good,
            tmp_path / "work",
            numbers,
            f"{seed()} results",
            pages(),
            memory=4 << 30,
            seconds=60,
        )
        if ended.problem:
            cases.found(int(ended.progress.split()[-1] or 0), "looking", ended.problem)
        for number, problem in ended.answer or ():
            cases.found(number, "damaged results", problem)
