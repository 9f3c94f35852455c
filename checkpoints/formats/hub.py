"""Hugging Face repositories whose branches or tags are training steps (`step1000`), read from the local hub cache.

The cache lays a repository out as `models--org--name/` with `refs/<branch>` (a commit hash), `snapshots/<commit>/`
(links) and `blobs/` (contents). Nothing reaches the network unless `allow_download` is given; see `hub_source`.

Source: huggingface_hub's documentation of its cache; huggingface_hub itself says where the cache lies.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import replace
from pathlib import Path

from byrote.checkpoints.errors import CheckpointError, did_you_mean
from byrote.checkpoints.formats import hf
from byrote.checkpoints.formats.adapter import Format
from byrote.checkpoints.formats.hub_source import HubSource, remote_refs
from byrote.checkpoints.series import Checkpoint, CheckpointSeries, Gap, read_or_gap, series_of
from byrote.checkpoints.step_names import StepName, count_parts, parse_name, refuse_mixed_parts

FLAG = "allow_download=True (--allow-download)"

_REPOSITORY = re.compile(r"(?P<hf>hf:/{1,2})?(?P<repo>[A-Za-z0-9_][\w.-]*/[A-Za-z0-9_][\w.-]*)", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_MAIN = "main"


def repository(text: str) -> str | None:
    """``org/name`` where the text reads like a hub repository and not like a path on this machine.

    ``hf://org/name`` always does. A name whose first half is a folder here is a path, unless the cache holds it.
    """
    match = _REPOSITORY.fullmatch(text)
    if match is None:
        return None
    repo = match["repo"]
    is_path = not match["hf"] and Path(repo).parent.is_dir() and not cache_folder(repo).is_dir()
    return None if is_path else repo


def cache_folder(repo: str) -> Path:
    """Where the hub cache keeps a repository, whether or not it is there."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}"


def open_repository(
    repo: str,
    *,
    part: str | None = None,
    allow_download: bool = False,
    disk_budget_bytes: int | None = None,
) -> CheckpointSeries:
    """The series a repository's branches make; see `checkpoints.open_series`.

    Raises:
        CheckpointError: it is not in the cache and may not be fetched, or holds nothing readable.
    """
    folder = cache_folder(repo)
    if not folder.is_dir() and not allow_download:
        raise CheckpointError(
            f"{repo} is not a local folder, and the hub cache ({folder.parent}) does not hold it",
            help=f"give {FLAG} to fetch it from the hub, or the path of a local folder{_cached(folder, repo)}",
        )
    series = discover(folder, part=part, allow_download=allow_download, disk_budget_bytes=disk_budget_bytes)
    if not series.checkpoints:
        reason = f": {series.gaps[0].path.name}: {series.gaps[0].reason}" if series.gaps else ""
        raise CheckpointError(
            f"none of the {len(series.gaps)} steps of {repo} that are in the cache can be read{reason}",
            help=f"give {FLAG} to fetch them again",
        )
    return series


def sniff(path: Path) -> bool:
    """True for a repository's folder inside a hub cache."""
    return path.name.startswith("models--") and ((path / "snapshots").is_dir() or (path / "refs").is_dir())


def discover(
    path: Path,
    *,
    part: str | None = None,
    allow_download: bool = False,
    disk_budget_bytes: int | None = None,
) -> CheckpointSeries:
    """One checkpoint per branch or tag that names a step; a step whose weights are not there is a gap or is fetched.

    Raises:
        CheckpointError: nothing names a step, or the branches cannot be listed.
        MixedPartsError: branches of several stages, and no `part`.
    """
    repo = _repository_of(path)
    refs = _cached_refs(path)
    if allow_download:
        refs |= remote_refs(repo)
    steps = _steps(refs, repo)
    notes = _notes(path, refs, steps)
    if part is None:
        refuse_mixed_parts((name for name, named in steps.items() if named), where=repo)
    else:  # the branches of one stage, or the one branch that is called so
        chosen = {n: named for n, named in steps.items() if n == part or (named and named.part == part)}
        if not chosen:
            known = [name for name in count_parts(steps) if name] or steps
            raise CheckpointError(
                f"{repo} has no part or branch called {part!r}", help=did_you_mean(part, known)
            )
        steps = chosen
    source = None
    if allow_download:
        revisions = {path / "snapshots" / refs[name]: name for name in steps}
        source = HubSource(repo, path.parent, revisions, budget_bytes=disk_budget_bytes)
    found, gaps = _one_per_step(path, refs, steps)
    read = [_checkpoint(path, name, refs[name], named=named, source=source) for name, named in found.items()]
    short = repo.rpartition("/")[2]
    name = f"{short}-{part}" if part else short
    return series_of(path, FORMAT.name, [*gaps, *read], name=name, notes=notes)


def _cached(folder: Path, repo: str) -> str:
    """What the cache holds instead, for a message."""
    there = sorted(_repository_of(p) for p in folder.parent.glob("models--*"))
    if near := difflib.get_close_matches(repo, there, n=1, cutoff=0.5):
        return f"; did you mean {near[0]!r}, which the cache holds?"
    return f"; the cache holds {_listed(there)}" if there else ""


def _repository_of(folder: Path) -> str:
    return folder.name.removeprefix("models--").replace("--", "/", 1)


def _cached_refs(path: Path) -> dict[str, str]:
    """Branch or tag -> commit, from `refs/`; anything that is no commit hash is left out."""
    root = path / "refs"
    refs = {}
    for file in sorted(root.rglob("*")) if root.is_dir() else []:
        if file.is_file() and file.stat().st_size <= 100:
            commit = file.read_text(encoding="ascii", errors="replace").strip()
            if _COMMIT.fullmatch(commit):
                refs[file.relative_to(root).as_posix()] = commit
    return refs


def _steps(refs: dict[str, str], repo: str) -> dict[str, StepName | None]:
    """The branches to open, and what their names say; `main` alone where no branch names a step."""
    named = {name: parsed for name in refs if (parsed := parse_name(name))}
    sure: dict[str, StepName | None] = {name: parsed for name, parsed in named.items() if not parsed.bare}
    if sure or named:
        return sure or dict(named)
    if _MAIN in refs:
        return {_MAIN: None}
    raise CheckpointError(
        f"no branch or tag of {repo} that is in the cache names a training step"
        + (f" (there are {', '.join(sorted(refs)[:5])})" if refs else ""),
        help=f"give {FLAG} to list the branches on the hub",
    )


def _one_per_step(
    path: Path, refs: dict[str, str], steps: dict[str, StepName | None]
) -> tuple[dict[str, StepName | None], list[Gap]]:
    """Two names of one commit and one step are one checkpoint; two commits that claim one step are gaps."""
    by_step: dict[int, list[str]] = {}
    for name, named in steps.items():
        by_step.setdefault(named.step if named else 0, []).append(name)
    one_each, gaps = {}, []
    for step, names in by_step.items():
        if len({refs[name] for name in names}) == 1:
            one_each[names[0]] = steps[names[0]]
            continue
        reason = f"{len(names)} branches claim step {step} with different commits: {', '.join(sorted(names))}"
        gaps += [
            Gap(path / "refs" / name, reason, "open one of them as ORG/NAME@BRANCH", step) for name in names
        ]
    return one_each, gaps


def _checkpoint(
    path: Path, name: str, commit: str, *, named: StepName | None, source: HubSource | None
) -> Checkpoint | Gap:
    folder = path / "snapshots" / commit
    step = named.step if named else 0
    read = read_or_gap(folder, step, lambda: hf.read_checkpoint(folder, named)) if folder.is_dir() else None
    if isinstance(read, Checkpoint):
        return replace(read, format=FORMAT.name)
    if source is not None:
        tokens = named.tokens if named else None
        return Checkpoint(step=step, path=folder, format=FORMAT.name, tokens_seen=tokens, source=source)
    reason = read.reason if read else "its files are not in the cache"
    return Gap(path / "refs" / name, reason, f"give {FLAG} to fetch it", step)


def _notes(path: Path, refs: dict[str, str], steps: dict[str, StepName | None]) -> list[str]:
    notes = []
    if steps.keys() == {_MAIN} and steps[_MAIN] is None:
        notes.append("no branch names a training step; main is shown as step 0")
    others = sorted(refs.keys() - steps.keys())
    if others:
        notes.append(f"branches that name no step were left out: {_listed(others)}")
    snapshots = path / "snapshots"
    there = {child.name for child in snapshots.iterdir() if child.is_dir()} if snapshots.is_dir() else set()
    unnamed = sorted(there - set(refs.values()))
    if unnamed:
        notes.append(f"snapshots that no branch names were left out: {_listed([c[:12] for c in unnamed])}")
    return notes


def _listed(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


FORMAT = Format(
    "hub",
    sniff,
    discover,
    builder="hf",
    options=frozenset({"part", "allow_download", "disk_budget_bytes"}),
    version=lambda checkpoint: (
        checkpoint.path.name
    ),  # a commit, whose files never change and need not be here
)
