"""Folders made to run code, to read outside themselves, to hang, or to exhaust memory.

Each entry of `HOSTILE` writes one folder; beside it stand the words its refusal must have, or LOADS where it is read.
"""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pickled_files import (
    Payload,
    hf_state,
    lightning_content,
    nanogpt_content,
    write_config,
    write_dcp,
    write_sharded_dcp,
)

LOADS = "loads"
Writer = Callable[[Path, Path], None]
HOSTILE: dict[str, tuple[Writer, str]] = {}

SMALL = {"n_embd": 8, "n_layer": 1, "n_head": 1}


def hostile(words: str, name: str = "") -> Callable[[Writer], Writer]:
    """Add a writer of (folder, marker file) to the collection."""

    def add(writer: Writer) -> Writer:
        HOSTILE[name or writer.__name__] = (writer, words)
        return writer

    return add


def cases(words: str, **writers: Writer) -> None:
    """Add several at once."""
    for name, writer in writers.items():
        hostile(words, name)(writer)


# --- pickles that call ------------------------------------------------------------------------------------------------

ASKS = r"refers to (posix|nt)\.system"


def hf_bin(folder: Path, content: Any, **options: Any) -> None:
    write_config(folder, "gpt2")
    torch.save(content, folder / "pytorch_model.bin", **options)


def state_file(folder: Path, content: Any, name: str = "step_1.pt", **options: Any) -> None:
    write_config(folder, "gpt2")
    torch.save(content, folder / name, **options)


def raw_pickle(protocol: int) -> Writer:
    def write(folder: Path, marker: Path) -> None:
        write_config(folder, "gpt2")
        (folder / "step_1.pt").write_bytes(pickle.dumps({"w": Payload(marker)}, protocol))

    return write


def with_payload(content: dict[str, Any], marker: Path, *path: str) -> dict[str, Any]:
    inner = content
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = Payload(marker)
    return content


cases(
    ASKS,
    payload_in_hf_bin=lambda f, m: hf_bin(f, {"w": torch.ones(2), "x": Payload(m)}),
    payload_in_old_hf_bin=lambda f, m: hf_bin(f, {"x": Payload(m)}, _use_new_zipfile_serialization=False),
    payload_in_nanogpt=lambda f, m: torch.save(
        with_payload(nanogpt_content(1), m, "config", "x"), f / "ckpt.pt"
    ),
    payload_in_lightning=lambda f, m: torch.save(
        with_payload(lightning_content(1, "gpt2"), m, "hyper_parameters", "x"), f / "step=1.ckpt"
    ),
    payload_in_state_dict=lambda f, m: state_file(f, {"model": hf_state("gpt2", 1), "x": Payload(m)}),
    payload_in_old_state_dict=lambda f, m: state_file(
        f, {"x": Payload(m)}, _use_new_zipfile_serialization=False
    ),
    payload_in_pth=lambda f, m: state_file(f, {"blocks.0.attn.W_Q": Payload(m)}, "model.pth"),
    payload_in_raw_pickle_2=raw_pickle(2),
)
cases("pickle protocol [45]", payload_in_raw_pickle_4=raw_pickle(4), payload_in_raw_pickle_5=raw_pickle(5))
cases("not a file that torch.save wrote", payload_in_raw_pickle_0=raw_pickle(0))


@hostile(ASKS)
def payload_in_dcp_metadata(folder: Path, marker: Path) -> None:
    write_config(folder, "gpt2")
    write_dcp(folder / "step_1", hf_state("gpt2", 1))
    (folder / "step_1" / ".metadata").write_bytes(pickle.dumps(Payload(marker)))


@hostile(ASKS)
def payload_deep_in_dcp_metadata(folder: Path, marker: Path) -> None:
    write_config(folder, "gpt2")
    path = write_dcp(folder / "step_1", hf_state("gpt2", 1)) / ".metadata"
    top = pickle.loads(path.read_bytes())
    top.planner_data = {"x": Payload(marker)}
    path.write_bytes(pickle.dumps(top))


@hostile(LOADS)
def payload_in_a_dcp_object_is_left_alone(folder: Path, marker: Path) -> None:
    write_config(folder, "gpt2")
    state = {name: t.clone() for name, t in hf_state("gpt2", 1).items()}
    write_dcp(folder / "step_1", {"model": state, "x": Payload(marker)})


@hostile(ASKS)
def payload_in_a_dcp_piece(folder: Path, marker: Path) -> None:
    write_config(folder, "gpt2")
    step = write_sharded_dcp(folder / "step_1", hf_state("gpt2", 1), cuts={})
    top = pickle.loads((step / ".metadata").read_bytes())
    info = next(info for index, info in top.storage_data.items() if index.fqn == "transformer.wte.weight")
    data, small = bytearray((step / "__0_0.distcp").read_bytes()), io.BytesIO()
    torch.save(Payload(marker), small)
    info.offset, info.length = len(data), len(small.getvalue())
    padding = bytes(61 * 32 * 4)  # a piece may not be shorter than its tensor
    small.seek(0)
    data += pad_zip(small.getvalue(), padding)
    info.length = len(data) - info.offset
    (step / "__0_0.distcp").write_bytes(data)
    (step / ".metadata").write_bytes(pickle.dumps(top))


def pad_zip(data: bytes, padding: bytes) -> bytes:
    """The same torch zip with one more entry."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        for info in old.infolist():
            new.writestr(info.filename, old.read(info))
        new.writestr("archive/padding", padding)
    return out.getvalue()


class Call:
    """Pickles as a call of anything."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = (function, args)

    def __reduce__(self) -> Any:
        return self.call


cases(
    "refers to|would call",
    call_getattr=lambda f, m: state_file(f, {"x": Call(getattr, "text", "upper")}),
    call_bytearray_of_a_terabyte=lambda f, m: state_file(f, {"x": Call(bytearray, 10**12)}),
    call_tensor_of_a_terabyte=lambda f, m: state_file(
        f, {"x": torch.ones(1), "y": Call(torch.Tensor, 10**12)}
    ),
    whole_module=lambda f, m: state_file(f, torch.nn.Linear(2, 2)),
    numpy_scalar=lambda f, m: state_file(f, {"x": __import__("numpy").float64(3)}),
)


# --- pickles and zips that exhaust ------------------------------------------------------------------------------------


class _Stored:
    """Stands for a storage in `torch_pickle`."""

    def __init__(self, numel: int, key: str = "0") -> None:
        self.id = ("storage", torch.FloatStorage, key, "cpu", numel)


class _Pickler(pickle.Pickler):
    def persistent_id(self, obj: Any) -> Any:
        return obj.id if isinstance(obj, _Stored) else None


def torch_pickle(value: Any) -> bytes:
    """data.pkl as torch.save would write it, for storages that need not be true."""
    out = io.BytesIO()
    _Pickler(out, protocol=2).dump(value)
    return out.getvalue()


def torch_zip(
    pickled: bytes, *, storage: bytes = bytes(16), compression: int = zipfile.ZIP_STORED, **more: bytes
) -> bytes:
    """A file laid out as torch.save does it, with anything in it."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/byteorder", "little")
        archive.writestr("archive/data/0", storage)
        archive.writestr("archive/version", "3\n")
        for name, data in more.items():
            archive.writestr(name.replace("__", "/").replace("DOTS", ".."), data)
    return out.getvalue()


def view(shape: tuple[int, ...], stride: tuple[int, ...], *, offset: int = 0, numel: int = 4) -> Writer:
    """One tensor that claims to be this view of a storage of 16 bytes."""
    args = (_Stored(numel), offset, shape, stride, False, OrderedDict())
    return written(torch_zip(torch_pickle({"w": Call(torch._utils._rebuild_tensor_v2, *args)})))


def written(data: bytes | Callable[[], bytes], name: str = "step_1.pt") -> Writer:
    """A file of these bytes; large ones are made when they are written, not whenever this module is imported."""

    def write(folder: Path, marker: Path) -> None:
        write_config(folder, "gpt2")
        (folder / name).write_bytes(data if isinstance(data, bytes) else data())

    return write


HASH_BOMB = b"\x80\x02}" + b")" + b"q\x00h\x00\x86" * 60 + b"K\x01s."
TERABYTE = (1 << 19, 1 << 19)

cases(
    "in a storage of 4 elements",
    view_repeats_one_element=view(TERABYTE, (0, 0)),
    view_is_beyond_its_storage=view(TERABYTE, (1 << 19, 1)),
    view_starts_beyond_its_storage=view((2,), (1,), offset=3),
)
cases(
    "not a readable pickle file",
    view_with_negative_stride=view((2,), (-1,)),
    view_with_half_a_stride=view((2, 2), (1,)),
    dict_key_that_takes_for_ever_to_hash=written(torch_zip(HASH_BOMB)),
    text_of_four_gigabytes=written(torch_zip(b"\x80\x02X\xff\xff\xff\xff.")),
    nested_for_ever=written(torch_zip(b"\x80\x02" + b"(" * 5000 + b".")),
    memory_of_nothing=written(torch_zip(b"\x80\x02h\x07.")),
)
cases(
    "more than 200000 values that nothing consumes",
    millions_of_lists=written(lambda: torch_zip(b"\x80\x02" + b"]" * (8 << 20) + b".")),
)
cases("claims 4398046511104 bytes", storage_claims_a_terabyte=view((2,), (1,), numel=1 << 40))
cases(
    "a zip bomb does",
    zip_bomb=written(lambda: torch_zip(bytes(200 << 20), compression=zipfile.ZIP_DEFLATED)),
    deflated_storage=written(
        torch_zip(b"\x80\x02}.", storage=bytes(1 << 20), compression=zipfile.ZIP_DEFLATED)
    ),
)
cases("leads out of it", zip_entry_with_dots=written(torch_zip(b"\x80\x02}.", archive__DOTS__DOTS__evil=b"")))
cases("is a TorchScript program", torchscript=written(torch_zip(b"\x80\x02}.", archive__code__model=b"")))
cases("is refused", pickle_of_40_megabytes=written(lambda: torch_zip(bytes(40 << 20))))
cases("damaged zip", zip_cut_short=written(torch_zip(b"\x80\x02}.")[:-30]))
cases(
    "no data.pkl", zip_of_something_else=written(torch_zip(b"\x80\x02}.").replace(b"data.pkl", b"date.pkl"))
)


@hostile("a zip bomb does")
def entries_that_overlap(folder: Path, marker: Path) -> None:
    """A hundred entries share one local file: small on disk, large in sum."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}.")
        archive.writestr("archive/data/0", bytes(1 << 16))
        first = archive.infolist()[1]
        for i in range(1, 100):
            copy = zipfile.ZipInfo(f"archive/data/{i}")
            for name in ("header_offset", "file_size", "compress_size", "CRC", "compress_type"):
                setattr(copy, name, getattr(first, name))
            archive.filelist.append(copy)
    written(out.getvalue())(folder, marker)


@hostile("damaged zip")
def directory_of_four_gigabytes(folder: Path, marker: Path) -> None:
    data = bytearray(torch_zip(b"\x80\x02}."))
    data[-10:-6] = struct.pack("<L", 0xFFFFFFF0)
    written(bytes(data))(folder, marker)


@hostile("before 2017")
def tar_of_before_2017(folder: Path, marker: Path) -> None:
    import tarfile

    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        archive.addfile(tarfile.TarInfo("storages"))
    written(out.getvalue())(folder, marker)


# --- safetensors that lie ---------------------------------------------------------------------------------------------


def header(entries: Any, data: bytes = bytes(8)) -> Writer:
    raw = entries if isinstance(entries, bytes) else json.dumps(entries).encode()

    def write(folder: Path, marker: Path) -> None:
        write_config(folder, "gpt2")
        (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(raw)) + raw + data)

    return write


def entry(**changes: Any) -> dict[str, Any]:
    return {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **changes}


@hostile("header claims 9223372036854775807 bytes")
def header_of_exabytes(folder: Path, marker: Path) -> None:
    write_config(folder, "gpt2")
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", (1 << 63) - 1) + b"{}")


cases("overlap", tensors_that_overlap=header({"v": entry(), "w": entry()}))
cases(
    "whole numbers",
    negative_shape=header({"w": entry(shape=[-2])}),
    endless_number=header({"w": entry(shape=[10**4000] * 99)}),
)
cases("claims shape", enormous_shape=header({"w": entry(shape=[1 << 60, 1 << 60])}))
cases("axes", thousands_of_axes=header({"w": entry(shape=[1] * 9000)}))
cases("truncated", offsets_past_the_end=header({"w": entry(shape=[1 << 20], data_offsets=[0, 1 << 22])}))
cases("broken safetensors header", header_without_end=header(b"[" * 300_000))
cases(r"\\x1b\[31m", name_that_colours_the_terminal=header({"v": entry(), "\x1b[31mw": entry()}))
