"""GGUF, llama.cpp's files: one model, or several named by step. The weights are dequantised as `gguf.quants` does.

A model from GGUF is not the one that was trained: it is called with its quantisation, in the name of its series and so
wherever it is shown. Nothing is guessed: the header must say an architecture that is read, and hold exactly its tensors.

Source: constants.py and tensor_mapping.py of the gguf library; src/models/llama.cpp of github.com/ggml-org/llama.cpp.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from byrote.checkpoints.errors import CheckpointError
from byrote.checkpoints.formats.adapter import Format, StoredTensors, TensorInfo
from byrote.checkpoints.formats.gguf_header import Header, read_header
from byrote.checkpoints.formats.inert_pickle import shown
from byrote.checkpoints.formats.weight_files import WeightFile, assemble, candidates
from byrote.checkpoints.series import STEP_UNKNOWN, Checkpoint, CheckpointSeries, text_of
from byrote.checkpoints.stored_bytes import StoredBytes, StoredFile

ARCHITECTURE = "llama"
_LARGEST, _MOST_LAYERS = 1 << 24, 1000
_CONVERT = "convert it to a Hugging Face folder where you trust the file"
# Field of the header, without "llama." -> field of transformers' config.
_SIZES = {
    "block_count": "num_hidden_layers",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "context_length": "max_position_embeddings",
}
_IDS = {
    "bos_token_id": "bos_token_id",
    "eos_token_id": "eos_token_id",
    "unknown_token_id": "unk_token_id",
    "padding_token_id": "pad_token_id",
}
# Fields that change what the model computes, and the values at which they do not.
_PLAIN = {
    "expert_count": (0,),
    "rope.scaling.type": ("none",),
    "rope.scale_linear": (0.0, 1.0),
    "attention.sliding_window": (0,),
    "logit_scale": (0.0, 1.0),
    "residual_scale": (0.0, 1.0),
    "embedding_scale": (0.0, 1.0),
    "attention.scale": (0.0,),
    "use_parallel_residual": (False,),
}


def sniff(path: Path) -> bool:
    """True where there are .gguf files."""
    files, gaps = candidates(path, (".gguf",))
    return bool(files or gaps)


def discover(path: Path) -> CheckpointSeries:
    """List the files in step order; the series is called with the quantisation of its files."""
    files, gaps = candidates(path, (".gguf",))
    alone = len(files) == 1 and not gaps
    series = assemble(path, FORMAT.name, files, gaps, lambda file: _checkpoint(file, alone=alone))
    headers = [read_header(checkpoint.files[0]) for checkpoint in series]
    if not headers:
        return series
    notes = list(series.notes)
    if alone and files[0].step is None:
        notes.append(STEP_UNKNOWN)
    name = files[0].path.stem if alone and path.is_file() else series.name
    suffix = quantisation(headers)
    if suffix:
        notes.append(f"the weights are {suffix}, not those that were trained ({_stored(headers[-1])})")
        for _, kind in _rounded(headers):
            name = re.sub(rf"[-_. ]{kind}(?:_[SML])?$", "", name, flags=re.IGNORECASE)
    return replace(series, name=text_of(f"{name}, {suffix}" if suffix else name), notes=tuple(notes))


def quantisation(headers: list[Header]) -> str:
    """How a model of these files is called: "dequantised from 4 bits (Q4_1)", or "" where nothing was rounded.

    Args:
        headers: of the files of a series; the kind that most numbers of a file are stored in counts.
    """
    found = _rounded(headers)
    if not found:
        return ""
    return "dequantised from " + ", ".join(f"{bits} bit{'s' * (bits > 1)} ({kind})" for bits, kind in found)


def _rounded(headers: list[Header]) -> list[tuple[int, str]]:
    """Bits and name of the kind that most of each file's rounded numbers are stored in, the fewest bits first."""
    found = set()
    for header in headers:
        numbers: Counter[tuple[int, str]] = Counter()
        for tensor in header.tensors.values():
            if tensor.kind.bits:
                numbers[tensor.kind.bits, tensor.kind.name] += (
                    tensor.n_bytes // tensor.kind.block_bytes * tensor.kind.block
                )
        found |= {kind for kind, _ in numbers.most_common(1)}
    return sorted(found)


def _stored(header: Header) -> str:
    counts = Counter(tensor.kind.name for tensor in header.tensors.values())
    return "tensors: " + ", ".join(f"{n} in {kind}" for kind, n in counts.most_common())


def _checkpoint(file: WeightFile, *, alone: bool) -> Checkpoint:
    model_fields(read_header(file.path), where=file.path.name)
    return file.checkpoint(FORMAT.name, 0 if alone else None, spelling="step_STEP.gguf")


def model_fields(header: Header, *, where: str) -> dict[str, Any]:
    """The header as the config of transformers' Llama, once its tensors are exactly those of that model.

    Args:
        header: of a file.
        where: its name, for messages.

    Raises:
        CheckpointError: another architecture, or a model that differs from plain Llama, or tensors that do not fit.
    """
    metadata = header.metadata
    architecture = metadata.get("general.architecture")
    if architecture != ARCHITECTURE:
        raise CheckpointError(
            f"{where} holds the architecture {shown(architecture)}; byrote reads GGUF files of the architecture llama",
            help=_CONVERT + ": transformers' from_pretrained(folder, gguf_file=...) reads others",
        )
    of_model = {
        name.removeprefix("llama."): value for name, value in metadata.items() if name.startswith("llama.")
    }
    for name, plain in _PLAIN.items():
        if name in of_model and of_model[name] not in plain:
            raise CheckpointError(
                f"{where} says {name} = {shown(of_model[name])}, which a plain Llama does not have",
                help=_CONVERT,
            )
    fields: dict[str, Any] = {}
    for name, field in _SIZES.items():
        fields[field] = _size(of_model.get(name), name, where)
    fields["num_key_value_heads"] = _size(
        of_model.get("attention.head_count_kv", fields["num_attention_heads"]),
        "attention.head_count_kv",
        where,
    )
    fields |= _head_size(of_model, fields, where)
    fields |= _numbers(of_model, where)
    embedding = header.tensors.get("token_embd.weight")
    fields["vocab_size"] = embedding.shape[0] if embedding is not None else 0
    fields["tie_word_embeddings"] = "output.weight" not in header.tensors
    for name, field in _IDS.items():
        value = metadata.get(f"tokenizer.ggml.{name}")
        fields[field] = value if type(value) is int and 0 <= value < fields["vocab_size"] else None
    _refuse_other_tensors(header, fields, where)
    return {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_act": "silu",
        "quantised": quantisation([header]),
        **fields,
    }


def _size(value: Any, name: str, where: str) -> int:
    most = _MOST_LAYERS if name == "block_count" else _LARGEST
    if type(value) is not int or not 0 < value <= most:
        what = f"says {name} = {shown(value)}" if value is not None else f"does not say {name}"
        raise CheckpointError(
            f"{where} {what}", help="convert the model to GGUF again, with a newer llama.cpp"
        )
    return value


def _head_size(of_model: dict[str, Any], fields: dict[str, Any], where: str) -> dict[str, int]:
    """Size of a head: keys, values and what turns with the position must have the same."""
    heads, kv_heads = fields["num_attention_heads"], fields["num_key_value_heads"]
    named = ("attention.key_length", "attention.value_length", "rope.dimension_count")
    sizes = {of_model[name] for name in named if name in of_model} or {fields["hidden_size"] // heads}
    (size,) = sizes if len(sizes) == 1 else (None,)
    if type(size) is not int or not 0 < size <= _LARGEST or size % 2 or heads % kv_heads:
        raise CheckpointError(
            f"{where} has {heads} heads, {kv_heads} of keys and values, of sizes {shown(sorted(map(str, sizes)))}, "
            "which a plain Llama does not have",
            help=_CONVERT,
        )
    return {"head_dim": size}


def _numbers(of_model: dict[str, Any], where: str) -> dict[str, float]:
    """What the norms add, and the base of the angles; as llama.cpp has it where the file does not say."""
    found = {}
    for name, field, otherwise in (
        ("attention.layer_norm_rms_epsilon", "rms_norm_eps", None),
        ("rope.freq_base", "rope_theta", 10_000.0),
    ):
        value = of_model.get(name, otherwise)
        if not isinstance(value, float) or not 0 < value < 1e12:
            raise CheckpointError(
                f"{where} says {name} = {shown(value)}", help="convert the model to GGUF again"
            )
        found[field] = value
    return found


def expected_shapes(fields: dict[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and shape of every tensor of a Llama of these sizes, as GGUF calls them."""
    d, mlp, vocab = fields["hidden_size"], fields["intermediate_size"], fields["vocab_size"]
    queries, keys = (
        fields[name] * fields["head_dim"] for name in ("num_attention_heads", "num_key_value_heads")
    )
    yield "token_embd.weight", (vocab, d)
    yield "output_norm.weight", (d,)
    if not fields["tie_word_embeddings"]:
        yield "output.weight", (vocab, d)
    parts = {
        "attn_norm": (d,), "attn_q": (queries, d), "attn_k": (keys, d), "attn_v": (keys, d), "attn_output": (d, queries),
        "ffn_norm": (d,), "ffn_gate": (mlp, d), "ffn_up": (mlp, d), "ffn_down": (d, mlp),
    }  # fmt: skip
    for layer in range(fields["num_hidden_layers"]):
        for part, shape in parts.items():
            yield f"blk.{layer}.{part}.weight", shape


def _refuse_other_tensors(header: Header, fields: dict[str, Any], where: str) -> None:
    expected = dict(expected_shapes(fields))
    if "rope_freqs.weight" in header.tensors:
        raise CheckpointError(
            f"{where} rescales rotary frequencies (rope_freqs.weight, as Llama 3.1 does), which byrote does not read",
            help=_CONVERT,
        )
    for names, what in (
        (expected.keys() - header.tensors.keys(), "lacks"),
        (header.tensors.keys() - expected.keys(), "holds, in addition to those of a Llama,"),
        (
            {n for n, shape in expected.items() if n in header.tensors and header.tensors[n].shape != shape},
            "has in another shape",
        ),
    ):
        if names:
            first = ", ".join(shown(name) for name in sorted(names)[:3])
            raise CheckpointError(
                f"{where} {what} {len(names)} tensors ({first})", help="convert the model to GGUF again"
            )


def tensors(checkpoint: Checkpoint) -> StoredTensors:
    """The tensors as they are stored, one at a time: blocks of small numbers with their scales, not the weights."""
    (path,) = checkpoint.files
    header = read_header(path)
    with StoredFile(path) as file:
        for name, tensor in header.tensors.items():
            info = TensorInfo(tensor.kind.name, tensor.shape, path.name)
            yield name, info, StoredBytes(file, tensor.start, tensor.n_bytes)


def model_config(checkpoint: Checkpoint) -> dict[str, Any]:
    """The header as the config of transformers' Llama; `quantised` says what its weights were."""
    (path,) = checkpoint.files
    return model_fields(read_header(path), where=path.name)


FORMAT = Format(
    "gguf",
    sniff,
    discover,
    builder="gguf",
    reads="llama.cpp's .gguf (architecture llama)",
    single_files=True,
    tensors=tensors,
    config_inside=model_config,
)
