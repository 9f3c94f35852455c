"""What a run declares of itself: its arm, its seeds, its size and its data. No torch.

A lab series' manifest says it. Of any other run a file `byrote.toml` does, which lies beside the results folders:

    [runs."rep-*"]         # every run whose name fits; later tables add to earlier ones and replace what they say
    arm = "repeated"
    repeat_frac = 0.5      # f, the share of the data that is repeated
    epochs = 100           # E, how often each repeated sequence is seen
    pool = 64              # P, how many sequences are repeated
    parameters = 1_200_000
    parameters_without_embeddings = 900_000
    synthetic_share = 0.0  # share of the data that a model wrote
    generation = 0         # of the model that wrote it: 0 trained on real data alone
    members = "canaries"   # which set of sequences its memory was measured on; runs with the same name have the same ones in one order

    [runs.rep-a]
    seed = 3               # init_seed and data_seed at once

Anybody may have written that file: it is read as far as these keys go, each of its kind, and refused otherwise.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from byrote.checkpoints.atomic import make_folder, write_text
from byrote.checkpoints.errors import ByroteError, did_you_mean
from byrote.checkpoints.safe_read import read_toml

FILE = "byrote" + ".toml"  # no module, whatever its name looks like
MAX_BYTES, MAX_TABLES, MAX_NAME = 1 << 20, 10_000, 200
_MANIFEST = "the manifest of its series"
_SETS: Mapping[str, tuple[str, ...]] = {
    "planted": ("most", "per_count", "tokens"),
    "subsets": ("members", "tokens", "table"),
}  # parts of a lab arm that have members, and which of their settings say what these are


@dataclass(frozen=True)
class RunFacts:
    """What is declared of one run; None is not declared.

    Attributes:
        arm: what was varied on purpose, one name for all runs that differ in nothing but their seeds.
        init_seed: of the weights at step 0.
        data_seed: of the order and choice of the training data; arms that share it share their unique data.
        parameters: how many weights are trained.
        parameters_without_embeddings: the same without token and position embeddings and the unembedding.
        repeat_frac: f, share of the data that is repeated, 0 to 1.
        epochs: E, how often each repeated sequence is seen over the run.
        pool: P, how many sequences are repeated.
        synthetic_share: share of the data that a model wrote, 0 to 1.
        generation: of the model that wrote it; 0 is trained on real data alone.
        size: of the model, by its name in a grid of several sizes; the arm's name then ends in it.
        members: which set of members was measured, whether or not the run was trained on each; runs that name the same set
            have the same sequences in the same order.
        recipe: what else the lab says of model, data and training, for `differing_recipe`; {} elsewhere.
    """

    arm: str | None = None
    init_seed: int | None = None
    data_seed: int | None = None
    parameters: int | None = None
    parameters_without_embeddings: int | None = None
    repeat_frac: float | None = None
    epochs: float | None = None
    pool: int | None = None
    synthetic_share: float | None = None
    generation: int | None = None
    size: str | None = None
    members: str | None = None
    recipe: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def seeds(self) -> tuple[int | None, int | None]:
        """(init_seed, data_seed)."""
        return self.init_seed, self.data_seed

    def require(self, name: str, *, run: str, what_for: str) -> Any:
        """One declared fact.

        Args:
            name: of the field.
            run: whose facts these are.
            what_for: what needs it, in words.

        Raises:
            ByroteError: it is not declared.
        """
        value = getattr(self, name)
        if value is None:
            raise ByroteError(
                f"{name} of {run} is not declared, and {what_for} needs it",
                help=f'write it beside the results, in {FILE}: [runs."{run}"] {name} = ...',
            )
        return value

    @property
    def arm_of_all_sizes(self) -> str | None:
        """The arm's name without the size that it ends in."""
        return self.arm if self.arm is None or self.size is None else self.arm.removesuffix(f" {self.size}")

    @property
    def setting(self) -> dict[str, Any]:
        """Everything but the seeds: what all runs of one arm have in common."""
        named = {name: getattr(self, name) for name in FACTS if name not in ("init_seed", "data_seed")}
        return named | dict(self.recipe)


FACTS = tuple(
    one.name for one in fields(RunFacts) if one.name not in ("size", "members", "recipe")
)  # the arm names its size


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 62


def _number(value: Any) -> bool:
    return (
        isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0
    )


def _share(value: Any) -> bool:
    return _number(value) and value <= 1


def _name(value: Any) -> bool:
    return isinstance(value, str) and value.isprintable() and 0 < len(value.strip()) <= MAX_NAME


_KEYS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    **dict.fromkeys(("arm", "size"), (_name, "a name of at most 200 characters")),
    **dict.fromkeys(
        (
            "seed",
            "init_seed",
            "data_seed",
            "parameters",
            "parameters_without_embeddings",
            "pool",
            "generation",
        ),
        (_whole, "a whole number from 0"),
    ),
    **dict.fromkeys(("repeat_frac", "synthetic_share"), (_share, "a share from 0 to 1")),
    "epochs": (_number, "a number from 0"),
    "members": (_name, "a name of at most 200 characters"),
}


def declare(folder: Path, runs: Mapping[str, Mapping[str, Any]]) -> Path:
    """Write `byrote.toml` beside results: what is declared of each run, by its name; it replaces one that is there.

    Args:
        folder: of the results folders.
        runs: name -> facts by the keys of the file.

    Returns:
        The file.

    Raises:
        ByroteError: something that is no fact of a run.
        OSError: it cannot be written.
    """
    lines = []
    for run, facts in runs.items():
        _checked(dict(facts), f"the declaration of {run}")
        lines += [f"[runs.{json.dumps(run)}]", *(f"{key} = {json.dumps(v)}" for key, v in facts.items()), ""]
    make_folder(folder)
    write_text(folder / FILE, "\n".join(lines))
    return folder / FILE


def facts_of(run: str, path: Path, meta: Mapping[str, Any]) -> RunFacts:
    """What is declared of a run: by its series' manifest, then by `byrote.toml` beside its results, which stands over it.

    Args:
        run: its name.
        path: the results folder.
        meta: its run.json.

    Raises:
        ByroteError: `byrote.toml` is no file that can be trusted this far, or says something that is no fact of a run.
    """
    return RunFacts(
        **_of_manifest((meta.get("series") or {}).get("manifest") or {}) | _beside(path.parent / FILE, run)
    )


def _beside(file: Path, run: str) -> dict[str, Any]:
    try:
        data = read_toml(file, max_bytes=MAX_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except ByroteError as error:
        raise ByroteError(error.message, help=error.help or f"correct it, or move {FILE} away") from None
    except OSError as error:
        raise ByroteError(
            f"{file} cannot be read ({error.strerror or error})", help="check its permissions"
        ) from None
    unknown = next((key for key in data if key != "runs"), None)
    tables = data.get("runs", {})
    if unknown is not None or not isinstance(tables, dict) or len(tables) > MAX_TABLES:
        raise ByroteError(
            f"{file} holds {'something else' if unknown is None else repr(unknown[:40])} where [runs.NAME] tables are read",
            help=f"write at most {MAX_TABLES:,} tables such as [runs.'rep-*'], and nothing else",
        )
    found: dict[str, Any] = {}
    for name, table in tables.items():
        if fnmatchcase(run, name[:MAX_NAME]):
            found |= _checked(table, f"[runs.{name[:40]}] of {file}")
    return found


def _checked(table: Any, where: str) -> dict[str, Any]:
    if not isinstance(table, dict):
        raise ByroteError(f"{where} is not a table", help=f"write its keys below it: {', '.join(_KEYS)}")
    for key, value in table.items():
        if key not in _KEYS:
            raise ByroteError(f"{where} has a key {key[:40]!r}", help=did_you_mean(key[:40], _KEYS))
        fits, kind = _KEYS[key]
        if not fits(value):
            raise ByroteError(f"{where} has {key} = {str(value)[:40]!r}", help=f"it is {kind}")
    both = {"init_seed": table["seed"], "data_seed": table["seed"]} if "seed" in table else {}
    return both | {key: value for key, value in table.items() if key != "seed"}


def _of_manifest(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What a lab series' manifest says; values of another kind than the lab writes are as if not declared."""
    arm, seed = manifest.get("arm") or {}, manifest.get("seed")
    kind = arm.get("kind")
    if not _name(kind):
        return {"init_seed": seed, "data_seed": seed} if _whole(seed) else {}
    given = {
        "repeat_frac": arm.get("repeat_frac", 0.0),
        "epochs": arm.get("repeats_per_sequence"),
        "pool": arm.get("pool_size"),
        "synthetic_share": arm.get("synthetic_share", 0.0),
        "generation": arm.get("generation", 0),
        "init_seed": seed,
        "data_seed": seed,
        "parameters": _weights(manifest.get("model")),
        "parameters_without_embeddings": _weights(manifest.get("model"), embeddings=False),
    }
    facts = {key: value for key, value in given.items() if _KEYS[key][0](value)}
    parts = [
        f"{letter}={facts[key]:g}" for letter, key in (("f", "repeat_frac"), ("P", "pool")) if facts.get(key)
    ]
    made_of: Any = arm.get("parts")
    made_of = made_of if isinstance(made_of, list) else []
    regimes: list[Any] = [part.get("regime") for part in made_of if isinstance(part, Mapping)]
    parts[:0] = dict.fromkeys(one for one in regimes if _name(one))  # generations differ in it
    if facts.get("synthetic_share"):
        share = f"{facts['synthetic_share']:g}"
        parts.append(share if kind == "synthetic" else f"synthetic {share}")
    recipe = {
        name: manifest[name] for name in ("model", "data", "train") if isinstance(manifest.get(name), Mapping)
    }
    members = _members(arm.get("parts"), seed, recipe.get("data"))
    return facts | {"arm": " ".join([str(kind), *parts]), "members": members, "recipe": recipe}


def _members(parts: Any, seed: Any, source: Any) -> str | None:
    """Which members a lab run has: those of `subsets` are one set for all seeds, those of `planted` one set per seed."""
    for part in parts if isinstance(parts, list) else ():
        if isinstance(part, Mapping) and part.get("kind") in _SETS:
            own = {key: part.get(key) for key in _SETS[part["kind"]]}
            identity = [own, source, seed if part["kind"] == "planted" else None]
            digest = hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest()
            return f"{part['kind']} {digest[:16]}"
    return None


def _weights(model: Any, *, embeddings: bool = True) -> int | None:
    """Trained weights of a lab model: embeddings, positions, attention, MLPs, unembedding; its biases are not trained."""
    if not isinstance(model, Mapping):
        return None
    names = ("d_model", "d_head", "n_layers", "n_heads", "n_ctx", "d_vocab")
    if not all(_whole(model.get(name)) for name in names):
        return None
    d_model, d_head, n_layers, n_heads, n_ctx, d_vocab = (model[name] for name in names)
    n_maps = 3 if model.get("gated_mlp") else 2
    mlp = 0 if model.get("attn_only") else n_maps * d_model * model.get("d_mlp", 4 * d_model)
    n_pos = 0 if model.get("positional_embedding_type") == "rotary" else n_ctx
    around = (2 * d_vocab + n_pos) * d_model if embeddings else 0
    return int(around + n_layers * (4 * d_model * n_heads * d_head + mlp))
