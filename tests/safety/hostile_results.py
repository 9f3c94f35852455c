"""Results folders that somebody sent: each is a good one with something wrong in it, and what the reason has to name."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from planted_series import rising, write_results

Spoil = Callable[[Path], None]
BAD: dict[str, tuple[str, Spoil]] = {}  # name -> (words of the reason; "" where the folder is shown, spoil)


@lru_cache(maxsize=1)
def _template() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="byrote-good-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return write_results(folder, "good", rising())


def write_good(root: Path, name: str) -> Path:
    """A run that every page can draw."""
    folder = Path(shutil.copytree(_template(), root / name))
    if name != "good":
        meta = json.loads((folder / "run.json").read_text())
        meta.pop("seal", None), meta.pop("sealed", None)
        (folder / "run.json").write_text(json.dumps({**meta, "run": name}))
    return folder


def bad(words: str, name: str = "") -> Callable[[Spoil], Spoil]:
    """Register what spoils a folder."""

    def register(spoil: Spoil) -> Spoil:
        BAD[name or spoil.__name__] = (words, spoil)
        return spoil

    return register


def unit(folder: Path) -> Path:
    return sorted(folder.glob("units/*/*.parquet"))[0]


def run_json(words: str, **changes: Any) -> None:
    """Fields of run.json replaced; a name with two underscores leads into an object."""
    name = "run_json_" + "_".join(f"{k}={ascii(v)[:20]}" for k, v in changes.items())

    def spoil(folder: Path) -> None:
        meta = json.loads((folder / "run.json").read_text())
        meta.pop("seal", None), meta.pop("sealed", None)
        for path, value in changes.items():
            *outer, last = path.split("__")
            at = meta
            for part in outer:
                at = at.setdefault(part, {})
            at[last] = value
        (folder / "run.json").write_text(json.dumps(meta))

    BAD[name] = (words, spoil)


def file_becomes(words: str, path: Callable[[Path], Path], **kinds: Callable[[Path], Any]) -> None:
    """A file replaced by something else."""

    def register(name: str, make: Callable[[Path], Any]) -> None:
        def spoil(folder: Path) -> None:
            file = path(folder)
            if file.is_dir():
                shutil.rmtree(file)
            else:
                file.unlink()
            make(file)

        BAD[name] = (words, spoil)

    for name, make in kinds.items():
        register(name, make)


def sparse(n_bytes: int) -> Callable[[Path], None]:
    def make(file: Path) -> None:
        with file.open("wb") as data:
            data.truncate(n_bytes)

    return make


def text(content: str | bytes) -> Callable[[Path], Any]:
    data = content if isinstance(content, bytes) else content.encode()
    return lambda file: file.write_bytes(data)


def half(file: Path) -> None:
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])


def in_run_json(folder: Path) -> Path:
    return folder / "run.json"


file_becomes(
    "run.json", in_run_json,
    run_json_is_a_pipe=os.mkfifo, run_json_is_zero=lambda file: file.symlink_to("/dev/zero"), run_json_is_a_folder=Path.mkdir,
    run_json_links_outside=lambda file: file.symlink_to("/etc/hostname"), run_json_links_nowhere=lambda file: file.symlink_to("no"),
    run_json_is_empty=text(""), run_json_is_cut=text('{"schema": 1, "run": "b'), run_json_of_2_gb=sparse(2 << 30),
    run_json_is_zeros=sparse(4096), run_json_is_a_list=text("[]"), run_json_is_a_number=text("1e999"), run_json_is_null=text("null"),
    run_json_is_deep=text('{"a":' * 50_000), run_json_is_deep_and_whole=text('{"schema": 1, "x": ' + "[" * 900 + "]" * 900 + "}"),
    run_json_is_binary=text(b"\xff\xfe\x00"), run_json_has_huge_number=text('{"schema": 1, "run": "b", "x": ' + "9" * 10_000 + "}"),
)  # fmt: skip
run_json("schema", schema="1")
run_json("schema", schema=99)
run_json("run", run=7)
run_json("run", run=None)
run_json("halves", run="b\ud800")
run_json("halves", gaps=[{"step": 1, "reason": "\udfff"}])
run_json("does not name a run", run="")
run_json("does not name a run", run="x" * 5000)
run_json("gaps", gaps={"a": 1})
run_json("gaps", gaps=[7])
run_json("step", gaps=[{"step": "ten", "reason": "no"}])
run_json("step", gaps=[{"step": 10**30, "reason": "no"}])
run_json("series", series=[1])
run_json("steps", series__steps=["ten"])
run_json("steps", series__steps="many")
run_json("n_checkpoints", series__n_checkpoints="four")
run_json("loss_nats", series__loss_nats={"x": 1})
run_json("loss_nats", series__loss_nats={"10": "low"})
run_json("manifest", series__manifest="x")
run_json("arm", series__manifest={"arm": 5})
run_json("model", model="gpt2")
run_json("n_layers", model__n_layers="two")
run_json("layers", model={"n_layers": 99_999, "n_heads": 99_999})
run_json("provenance", provenance=[])
run_json("versions", provenance__versions="all")
run_json("seed", provenance__seed="x")
run_json("stimuli", stimuli={"a": "b"})
run_json("kind", stimuli=[{"id": "x", "kind": 7}])
run_json("notes", notes=[{}])
run_json("left_out", lint={"left_out": ["x"]})
run_json("left_out", lint={"left_out": {"ten": "x"}})
file_becomes(
    "", unit,
    unit_is_a_pipe=os.mkfifo, unit_is_empty=text(""), unit_is_zeros=sparse(4096), unit_is_text=text("PAR1 no more"),
    unit_links_outside=lambda file: file.symlink_to("/etc/hostname"), unit_is_zero=lambda file: file.symlink_to("/dev/zero"),
    unit_of_3_gb=sparse(3 << 30), unit_is_a_folder=Path.mkdir,
    unit_is_alien=lambda file: pq.write_table(pa.table({"x": [1]}), file),
)  # fmt: skip
file_becomes(
    "", lambda folder: folder / "observations.parquet",
    observations_are_a_pipe=os.mkfifo, observations_are_zero=lambda file: file.symlink_to("/dev/zero"), observations_are_cut=text("PAR1"),
    observations_are_alien=lambda file: pq.write_table(pa.table({"x": [1]}), file), observations_are_a_folder=Path.mkdir,
)  # fmt: skip


@bad("")
def unit_is_cut(folder: Path) -> None:
    half(unit(folder))


@bad("")
def a_flipped_bit_in_a_unit(folder: Path) -> None:
    (folder / "observations.parquet").unlink()
    data = bytearray(unit(folder).read_bytes())
    data[len(data) // 3] ^= 1
    unit(folder).write_bytes(data)


@bad("link")
def units_are_a_link(folder: Path) -> None:
    (folder / "units").rename(folder.parent / f".{folder.name}-units")
    (folder / "units").symlink_to(folder.parent / f".{folder.name}-units")


@bad("")
def units_of_odd_steps(folder: Path) -> None:
    for name in ("step_", "step_x", "step_-1", "step_" + "9" * 200, "step_١٢", "other"):
        (folder / "units" / name).mkdir()
    os.mkfifo(folder / "units" / "step_00000099")


@bad("")
def arrays_are_links_and_pipes(folder: Path) -> None:
    arrays = folder / "arrays"
    arrays.mkdir(exist_ok=True)
    (arrays / "step_00000040").symlink_to("/")
    (arrays / "step_00000010").mkdir()
    os.mkfifo(arrays / "step_00000010" / "attention.safetensors")
    (arrays / "step_00000020").mkdir()
    (arrays / "step_00000020" / "attention.safetensors").symlink_to("/dev/zero")


@bad("")
def arrays_with_a_huge_header(folder: Path) -> None:
    file = folder / "arrays" / "step_00000040" / "attention.safetensors"
    file.parent.mkdir(parents=True)
    file.write_bytes((1 << 60).to_bytes(8, "little") + b"{}")


@bad("")
def only_units_and_no_run_json(folder: Path) -> None:
    (folder / "run.json").unlink()


@bad("another run is called good")
def the_name_of_another(folder: Path) -> None:
    meta = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**meta, "run": "good", "seal": None, "sealed": None}))


@bad("")
def an_odd_name(folder: Path) -> None:
    folder.rename(folder.with_name("a:b <img src=x> \n\x1b[31m ![x](javascript:1) $x$"))


@bad("")
def a_name_that_is_no_text(folder: Path) -> None:
    folder.rename(os.fsdecode(os.fsencode(folder.parent) + b"/\xff\xfe"))


@bad("")
def an_empty_folder_with_units(folder: Path) -> None:
    shutil.rmtree(folder)
    (folder / "units").mkdir(parents=True)
