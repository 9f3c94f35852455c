"""llama2.c's `.bin`: `model.bin`, `stories15M.bin`, `ckpt_1000.bin`, ... one file per step, the architecture in its header.

Versions 0 (28 bytes of header, then float32 weights and the table of angles) and 1 (256 bytes that begin with "ak42") are
read; version 2 holds 8-bit integers and is refused. Nothing is guessed: sizes in the header must account for every byte of the
file, and the angles saved in version 0 must be those of the base that llama2.c knows. Its RMSNorm adds 1e-5, always.

Source: export.py, model.py and run.c of github.com/karpathy/llama2.c.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from byrote.checkpoints.errors import CheckpointError
from byrote.checkpoints.formats.adapter import Format, StoredTensors, TensorInfo
from byrote.checkpoints.formats.weight_files import WeightFile, assemble, candidates
from byrote.checkpoints.series import STEP_UNKNOWN, Checkpoint, CheckpointSeries
from byrote.checkpoints.step_names import parse_name, step_folders
from byrote.checkpoints.stored_bytes import StoredBytes, StoredFile, open_stored

ROPE_THETA, NORM_EPS = 10_000.0, 1e-5
_MAGIC = 0x616B3432  # "ak42"
_STARTS = {0: 28, 1: 256}  # where the weights of a version begin
_LARGEST = 1 << 24
_DEFAULT = "model.bin"  # what export.py is told to write; Hugging Face uses the name too
_PER_LAYER = {
    "attention_norm": ("dim",), "attention.wq": ("dim", "dim"), "attention.wk": ("kv_dim", "dim"),
    "attention.wv": ("kv_dim", "dim"), "attention.wo": ("dim", "dim"), "ffn_norm": ("dim",),
    "feed_forward.w1": ("hidden_dim", "dim"), "feed_forward.w2": ("dim", "hidden_dim"),
    "feed_forward.w3": ("hidden_dim", "dim"),
}  # fmt: skip


@dataclass(frozen=True)
class Header:
    """What a file says of its model.

    Attributes:
        version: of the layout, 0 or 1.
        dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab_size, seq_len: as llama2.c calls them.
        shared: whether the output is the embedding.
    """

    version: int
    dim: int
    hidden_dim: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    vocab_size: int
    seq_len: int
    shared: bool

    @property
    def kv_dim(self) -> int:
        """Rows of the keys' and values' weights of all heads."""
        return self.dim // self.n_heads * self.n_kv_heads

    @property
    def possible(self) -> bool:
        """Whether there is a model of these sizes."""
        sizes = (
            self.dim,
            self.hidden_dim,
            self.n_layers,
            self.n_heads,
            self.n_kv_heads,
            self.vocab_size,
            self.seq_len,
        )
        if not all(0 < size <= _LARGEST for size in sizes) or self.n_layers > 1000:
            return False
        return self.dim % (2 * self.n_heads) == 0 and self.n_heads % self.n_kv_heads == 0

    def places(self) -> Iterator[tuple[str, tuple[int, ...], int]]:
        """(name, shape, byte at which it starts) of everything in the file, in its order."""
        start = _STARTS[self.version]
        for name, shape in self._shapes():
            yield name, shape, start
            start += 4 * math.prod(shape)

    def _shapes(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        embedding, norm = ("tok_embeddings.weight", (self.vocab_size, self.dim)), ("norm.weight", (self.dim,))
        head_half = self.dim // self.n_heads // 2
        if self.version == 0:
            yield embedding
            for part in _PER_LAYER:
                yield from self._layers(part)
            yield norm
            yield "freqs_cos", (self.seq_len, head_half)
            yield "freqs_sin", (self.seq_len, head_half)
        else:
            norms = ("attention_norm", "ffn_norm")
            for part in norms:
                yield from self._layers(part)
            yield norm
            yield embedding
            for part in _PER_LAYER:
                if part not in norms:
                    yield from self._layers(part)
        if not self.shared:
            yield "output.weight", (self.vocab_size, self.dim)

    def _layers(self, part: str) -> Iterator[tuple[str, tuple[int, ...]]]:
        shape = tuple(getattr(self, size) for size in _PER_LAYER[part])
        for layer in range(self.n_layers):
            yield f"layers.{layer}.{part}.weight", shape

    @property
    def file_bytes(self) -> int:
        """Size of the file it describes."""
        *_, (_, shape, start) = self.places()
        return start + 4 * math.prod(shape)


def sniff(path: Path) -> bool:
    """True where the header of the first such file accounts for all of its bytes, or begins with llama2.c's mark."""
    for file in _files(path)[:1]:
        try:
            return read_header(file.path) is not None
        except (CheckpointError, OSError):
            return _marked(file.path)
    return False


def discover(path: Path) -> CheckpointSeries:
    """List the files in step order; what is none of llama2.c's, or of another size than it says, is a gap."""
    files = _files(path)
    alone = len(files) == 1
    series = assemble(path, FORMAT.name, files, (), lambda file: _checkpoint(file, alone=alone))
    if alone and files[0].step is None and series.steps == (0,):
        note = STEP_UNKNOWN
        return replace(series, notes=(*series.notes, note))
    return series


def header_of(path: Path) -> Header:
    """What a file says of its model.

    Raises:
        CheckpointError: it is none of llama2.c's float32 files.
    """
    header = read_header(path)
    if header is None:
        raise CheckpointError(
            f"{path.name} has {path.stat().st_size:,} bytes, and its first 28 bytes describe no llama2.c model of that size",
            help="was it truncated? Export it again: python export.py FILE.bin --checkpoint ckpt.pt --version 1",
        )
    return header


def read_header(path: Path) -> Header | None:
    """The header of a file whose every byte it accounts for; None for what has no mark and another size.

    Raises:
        CheckpointError: it has llama2.c's mark, and is quantised, damaged or of a version nobody knows.
        OSError: it cannot be read.
    """
    with open_stored(path) as file:
        start = file.read(_STARTS[1])
    size = path.stat().st_size
    if len(start) < 40:
        return None
    if int.from_bytes(start[:4], "little") != _MAGIC:
        dim, hidden, layers, heads, kv_heads, vocab, length = struct.unpack("<7i", start[:28])
        header = Header(0, dim, hidden, layers, heads, kv_heads, abs(vocab), length, vocab > 0)
        return header if header.possible and header.file_bytes == size else None
    version, dim, hidden, layers, heads, kv_heads, vocab, length, shared = struct.unpack("<8iB", start[4:37])
    if version == 2:
        raise CheckpointError(
            f"{path.name} holds 8-bit integers (llama2.c's version 2)",
            help="export it in float32: python export.py FILE.bin --checkpoint ckpt.pt --version 1",
        )
    header = Header(1, dim, hidden, layers, heads, kv_heads, vocab, length, bool(shared))
    if version != 1 or not header.possible or header.file_bytes != size:
        raise CheckpointError(
            f"{path.name} has {size:,} bytes, and its header (version {version}) describes another size",
            help="it is damaged or still being written; copy it again",
        )
    return header


def _marked(path: Path) -> bool:
    try:
        with open_stored(path) as file:
            return int.from_bytes(file.read(4), "little") == _MAGIC
    except (CheckpointError, OSError):
        return False


def _files(path: Path) -> list[WeightFile]:
    """`.bin` files, `model.bin` included, which elsewhere is taken for Hugging Face's."""
    files, _ = candidates(path, (".bin",))
    if files or path.is_file():
        return files
    for folder in (path, *step_folders(path)):
        named = parse_name(folder.name)
        if (file := folder / _DEFAULT).is_file():
            files.append(WeightFile(file, named.step, named.tokens) if named else WeightFile(file))
    return files


def _checkpoint(file: WeightFile, *, alone: bool) -> Checkpoint:
    header = header_of(file.path)
    if header.version == 0:
        _refuse_other_angles(file.path, header)
    return file.checkpoint(FORMAT.name, 0 if alone else None, spelling="ckpt_STEP.bin")


def _refuse_other_angles(path: Path, header: Header) -> None:
    """The second position's cosines say which base turned queries and keys."""
    pairs = header.dim // header.n_heads // 2
    if header.seq_len < 2:
        return
    start = next(start for name, _, start in header.places() if name == "freqs_cos")
    with StoredFile(path) as file:
        saved = struct.unpack(f"<{pairs}f", file.read(start + 4 * pairs, 4 * pairs))
    expected = (math.cos(ROPE_THETA ** (-i / pairs)) for i in range(pairs))
    if not all(math.isclose(a, b, abs_tol=1e-4) for a, b in zip(saved, expected, strict=True)):
        raise CheckpointError(
            f"the angles saved in {path.name} are not those of the base {ROPE_THETA:g}",
            help="convert it to a Hugging Face folder, whose config.json says rope_theta",
        )


def tensors(checkpoint: Checkpoint) -> StoredTensors:
    """The weights by llama2.c's names, one at a time; the table of angles follows from the header and is left out."""
    (path,) = checkpoint.files
    with StoredFile(path) as file:
        for name, shape, start in header_of(path).places():
            if not name.startswith("freqs_"):
                info = TensorInfo("F32", shape, path.name)
                yield name, info, StoredBytes(file, start, 4 * math.prod(shape))


def model_config(checkpoint: Checkpoint) -> dict[str, Any]:
    """The header as the config of transformers' Llama."""
    header = header_of(checkpoint.files[0])
    return {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": header.dim,
        "intermediate_size": header.hidden_dim,
        "num_hidden_layers": header.n_layers,
        "num_attention_heads": header.n_heads,
        "num_key_value_heads": header.n_kv_heads,
        "vocab_size": header.vocab_size,
        "max_position_embeddings": header.seq_len,
        "hidden_act": "silu",
        "rms_norm_eps": NORM_EPS,
        "rope_theta": ROPE_THETA,
        "tie_word_embeddings": header.shared,
        "bos_token_id": 1,  # of Llama's own tokenizer and of llama2.c's small ones
        "eos_token_id": 2,
        "pad_token_id": None,
    }


FORMAT = Format(
    "llama2c",
    sniff,
    discover,
    builder="llama2c",
    reads="llama2.c's .bin",
    single_files=True,
    tensors=tensors,
    config_inside=model_config,
)
