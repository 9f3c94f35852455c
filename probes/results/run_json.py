"""run.json of a results folder: read in one place, every field of the kind that readers rely on. No torch.

Results are sent from one person to another, so nothing in them is taken on trust: a value of another kind is refused here,
with the name of its field, so that no reader meets it later.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from byrote.checkpoints.atomic import write_bytes
from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.safe_read import MAX_JSON_BYTES, FileRefused, read_bytes, read_json
from byrote.checkpoints.seal import EMPTY, Seal, seal_of, sealed
from byrote.checkpoints.vocabulary import MAX_IDS
from byrote.probes.results.series_place import where_results_are

RUN_JSON = "run.json"
RUNNING = "running"  # status of results of a series that training still adds to
SCHEMA_VERSION = 1
MAX_COUNT = (1 << 62) - 1  # steps and tokens are stored in 8 bytes
MAX_HEADS = 100_000  # of a layer, and layers of a model
MAX_CONTEXT = 10_000_000  # tokens; stimuli are no longer than that
MAX_TEXT = 100_000  # characters of one text
_MARK = b'"seal": "'
_WORDS: dict[type, str] = {dict: "an object", list: "a list", str: "text", bool: "true or false"}

_HALVES = re.compile("[\ud800-\udfff]")  # JSON can hold them, and no table, page or file can

Check = Callable[[Any], str]  # "" or what was expected


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > MAX_TEXT:
        return "text"
    return "text without halves of characters" if _HALVES.search(value) else ""


def _whole(least: int, most: int) -> Check:
    def check(value: Any) -> str:
        fits = isinstance(value, int) and not isinstance(value, bool) and least <= value <= most
        return "" if fits else f"a whole number from {least} to {most:,}"

    return check


def _number(value: Any) -> str:
    fits = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return "" if fits else "a number"


def _object(value: Any) -> str:
    return "" if isinstance(value, dict) else "an object"


def _anything(value: Any) -> str:
    return ""


_COUNT, _HEADS, _SEED = _whole(0, MAX_COUNT), _whole(0, MAX_HEADS), _whole(-MAX_COUNT, MAX_COUNT)
# Field -> what it holds. `a[]` is every entry of a list, `a{}` every value of an object, `a{step}` one whose keys are steps.
# A field that is missing or null is as if it were not recorded, but for those in `_NEEDED`.
_NEEDED = ("schema", "run")
FIELDS: dict[str, Check] = {
    "schema": _COUNT,
    "run": _text,
    "status": _text,
    "sealed": _text,
    "imported": _object,
    "imported.source": _text,
    "imported.digest": _text,
    "imported.rows": _COUNT,
    "series": _object,
    "series.name": _text,
    "series.path": _text,
    "series.relative_to": _text,
    "series.format": _text,
    "series.n_checkpoints": _COUNT,
    "series.steps[]": _COUNT,
    "series.loss_nats{step}": _number,
    "series.notes[]": _text,
    "series.manifest": _object,
    "series.manifest.seed": _SEED,
    "series.manifest.arm": _object,
    "series.manifest.arm.kind": _text,
    "series.manifest.arm.repeat_frac": _number,
    "series.manifest.arm.pool": _COUNT,
    "model": _object,
    "model.n_layers": _HEADS,
    "model.n_heads": _HEADS,
    "model.n_key_value_heads": _HEADS,
    "model.n_ctx": _whole(0, MAX_CONTEXT),
    "model.d_model": _COUNT,
    "model.d_vocab": _whole(0, MAX_IDS),
    "vocabulary": _object,
    "probes[]": _object,
    "probes[].name": _text,
    "probes[].version": _COUNT,
    "plugins[]": _anything,
    "stimuli[]": _object,
    "stimuli[].id": _text,
    "stimuli[].kind": _text,
    "stimuli[].seed": _SEED,
    **{f"stimuli[].{size}": _COUNT for size in ("n", "r", "m", "pos", "n_ids", "bos")},
    "refused_stimuli{}": _text,
    "provenance": _object,
    **{f"provenance.{name}": _text for name in ("dtype", "device", "weight_processing", "intervals", "swap")},
    "provenance.seed": _SEED,
    "provenance.sequences": _COUNT,
    "provenance.versions{}": _text,
    "gaps[]": _object,
    "gaps[].step": _COUNT,
    **{f"gaps[].{name}": _text for name in ("path", "reason", "help")},
    "lint": _object,
    "lint.facts[]": _object,
    "lint.left_out{step}": _text,
    "drift_from_float32[]": _object,
    **{f"drift_from_float32[].{name}": _text for name in ("probe", "metric")},
    **{f"drift_from_float32[].{name}": _number for name in ("max_abs", "mean_abs", "interval")},
    "drift_from_float32[].n": _COUNT,
    "notes[]": _text,
}


def run_json_in(root: Path) -> dict[str, Any]:
    """`read_run_json` of what should be a results folder.

    Raises:
        ByroteError: as there, and where there is none.
    """
    try:
        return read_run_json(root)
    except (FileNotFoundError, NotADirectoryError):
        message = f"{root} is not a results folder (no run.json)"
        raise ByroteError(message, help=where_results_are(root)) from None


def read_run_json(root: Path) -> dict[str, Any]:
    """What a sweep says of itself, every field of its kind.

    Args:
        root: the results folder.

    Raises:
        ByroteError: the file is a link or a pipe, too large, not JSON, of another schema, or a field is of another kind.
        FileNotFoundError: there is none.
    """
    file = root / RUN_JSON
    try:
        meta = read_json(file)
    except FileRefused as error:
        raise ByroteError(
            error.message, help=error.help or "run the sweep again: it rewrites run.json"
        ) from None
    except (FileNotFoundError, NotADirectoryError):
        raise
    except OSError as error:
        raise ByroteError(
            f"{file} cannot be read ({error.strerror or error})", help="check its permissions"
        ) from None
    if meta.get("schema") != SCHEMA_VERSION:
        raise ByroteError(
            f"{root} has results schema {str(meta.get('schema'))[:40]}, this byrote reads {SCHEMA_VERSION}",
            help="run the sweep again with --fresh, or use the byrote version that wrote it",
        )
    if problem := next(problems(meta), None):
        raise ByroteError(
            f"{file} cannot be used: {problem}", help="run the sweep again: it rewrites run.json"
        )
    return meta


def stored_run_json(root: Path) -> dict[str, Any]:
    """What an earlier sweep wrote of itself; {} where there is nothing, or it is damaged."""
    try:
        return read_run_json(root)
    except (ByroteError, OSError):
        return {}


def imported_from(meta: Mapping[str, Any]) -> str:
    """Where imported scores are from, see `byrote.probes.imported`; "" for what byrote measured."""
    stored = meta.get("imported")
    return "" if not stored else str(stored.get("source") or "elsewhere")


def refuse_imported(meta: Mapping[str, Any], what: str) -> None:
    """Refuse imported scores where what they lack is needed.

    Raises:
        ByroteError: the scores were imported.
    """
    if source := imported_from(meta):
        raise ByroteError(
            f"{meta['run']} was imported from {source}, which has no {what}",
            help="measure the checkpoints themselves: byrote run PATH",
        )


def write_run_json(root: Path, meta: Mapping[str, Any]) -> None:
    """Write run.json, whole or not at all, with a seal.

    Raises:
        OSError: it cannot be written.
        ValueError: a NaN or an infinity in it.
    """
    content = {name: value for name, value in meta.items() if name != "seal"} | {"sealed": "xxh3-128"}
    text = json.dumps(content, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False)
    # names that are no UTF-8, of files that could not be read, have halves of characters
    whole = f'{text.removesuffix("}").rstrip()},\n  "seal": "{EMPTY}"\n}}\n'
    data = bytearray(whole.encode(errors="replace"))
    sealed(data, _MARK)
    write_bytes(root / RUN_JSON, memoryview(data))


def run_json_seal(root: Path) -> Seal:
    """Whether run.json is as byrote wrote it; NONE for what version 0.1 wrote.

    Raises:
        FileRefused, OSError: it cannot be read.
    """
    data = read_bytes(root / RUN_JSON, max_bytes=MAX_JSON_BYTES)
    seal = seal_of(data, _MARK)
    return Seal.BROKEN if (seal is Seal.NONE) == (b'"sealed": "xxh3-128"' in data) else seal


def problems(meta: Mapping[str, Any]) -> Iterator[str]:
    """What is of another kind than readers rely on: the field, what it is, and what it should be."""
    for field in _NEEDED:
        if meta.get(field) is None:
            yield f"it has no {field}"
    for field, check in FIELDS.items():
        for name, value in _found(meta, field):
            if isinstance(value, _Wrong):
                yield f"{name} is {value.what}, not {value.expected}"
            elif value is not None and (expected := check(value)):
                yield f"{name} is {_what(value)}, not {expected}"


class _Wrong:
    def __init__(self, value: Any, expected: str) -> None:
        self.what, self.expected = _what(value), expected


def _found(value: Any, field: str, name: str = "") -> Iterator[tuple[str, Any]]:
    """(name, value) of every place a field stands for; what lies in something of another kind is that thing's problem."""
    part, _, rest = field.partition(".")
    key = part.partition("[")[0].partition("{")[0]
    if not isinstance(value, dict) or value.get(key) is None:
        return
    inner, name = value[key], f"{name}.{key}" if name else key
    entries: Iterator[tuple[str, Any]]
    if part.endswith("[]"):
        if not isinstance(inner, list):
            yield name, _Wrong(inner, "a list")
            return
        entries = ((f"{name}[{i}]", one) for i, one in enumerate(inner))
    elif part.endswith("}"):
        if not isinstance(inner, dict):
            yield name, _Wrong(inner, "an object")
            return
        entries = ((f"{name}.{_short(k)}", one) for k, one in inner.items())
        if part.endswith("{step}"):
            wrong = [k for k in inner if not (k.isascii() and k.isdigit() and len(k) < 19)]
            if wrong:
                yield name, _Wrong(wrong[0], "steps")
                return
    else:
        entries = iter([(name, inner)])
    for place, one in entries:
        if rest:
            yield from _found(one, rest, place)
        else:
            yield place, one


def _what(value: Any) -> str:
    word = next((word for kind, word in _WORDS.items() if type(value) is kind), "")
    if not word or word == "text":
        return f"{'the text ' if word else ''}{_short(value)}"
    return word


def _short(value: Any) -> str:
    text = json.dumps(value) if not isinstance(value, int) or value.bit_length() < 200 else "a huge number"
    return text if len(text) <= 40 else f"{text[:37]}..."
