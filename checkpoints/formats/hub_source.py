"""Steps downloaded from the hub one at a time, within a disk budget, and removed again after use.

Only reached with `allow_download`. A step is fetched when it is needed (`byrote.checkpoints.series.at_hand`), into the hub
cache like any other download; when the next one needs its room, it is removed. What was in the cache before this
process began is never removed, and neither is a step in use.
"""

from __future__ import annotations

import glob
import logging
import os
import re
import shutil
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from byrote.checkpoints.errors import CheckpointError
from byrote.checkpoints.formats import hf
from byrote.checkpoints.series import Checkpoint, Gap, read_or_gap
from byrote.checkpoints.step_names import StepName

log = logging.getLogger(__name__)

# Read when this module is first imported: loading a model sets the variable for the rest of the process.
OFFLINE = any(
    os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE")
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
)
_WEIGHTS = (  # in order of preference: the whole file, the pattern of its shards
    ("model.safetensors", re.compile(r"model-[0-9]+-of-[0-9]+\.safetensors")),
    ("pytorch_model.bin", re.compile(r"pytorch_model-[0-9]+-of-[0-9]+\.bin")),
)
_SMALL = frozenset(
    {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "trainer_state.json"}
)
_SMALL_MAX_BYTES = 200_000_000
_ONE_AT_A_TIME = threading.Lock()


@dataclass
class _Fetched:
    """A step this process downloaded: its bytes, and what eviction removes (None: it was partly there before)."""

    bytes: int
    folder: Path | None = None
    records: tuple[Path, ...] = ()


class HubSource:
    """Fetches the steps of one repository.

    Args:
        repo: ``org/name``.
        cache: the hub cache that gets the files.
        revisions: snapshot folder -> the branch or tag it belongs to.
        budget_bytes: most that fetched steps may hold on disk at any time; None for no limit.
    """

    def __init__(
        self, repo: str, cache: Path, revisions: Mapping[Path, str], *, budget_bytes: int | None = None
    ) -> None:
        self.repo, self.cache, self.revisions = repo, cache, dict(revisions)
        self.budget_bytes = budget_bytes
        self._changed = threading.Condition()
        self._users: dict[Path, list[int]] = defaultdict(list)
        self._ready: dict[Path, Checkpoint] = {}
        self._in_transfer: set[Path] = set()
        self._fetched: dict[Path, _Fetched] = {}  # oldest first
        self._our_blobs: set[str] = set()

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(HubSource, budget_bytes=self.budget_bytes), (self.repo, self.cache, self.revisions)

    def fetch(self, checkpoint: Checkpoint) -> Checkpoint:
        """The checkpoint with its files in the cache, downloaded if need be; see `byrote.checkpoints.series.Source`.

        Raises:
            CheckpointError: the hub cannot be reached or refuses, the step holds no readable weights, or there is
                no room for it.
        """
        key = checkpoint.path
        with self._changed:
            self._users[key].append(threading.get_ident())
            self._changed.wait_for(lambda: key not in self._in_transfer)
            ready = self._ready.get(key)
            if ready is not None and all(file.is_file() for file in ready.files):
                return ready
            self._in_transfer.add(key)
        try:
            ready = self._download(checkpoint)
            self._ready[key] = ready
            return ready
        except BaseException:
            self.release(checkpoint)
            raise
        finally:
            with self._changed:
                self._in_transfer.discard(key)
                self._changed.notify_all()

    def release(self, checkpoint: Checkpoint) -> None:
        """Say that one user of the step is done with its files."""
        with self._changed:
            users = self._users[checkpoint.path]
            me = threading.get_ident()
            users.remove(me if me in users else users[0])
            self._changed.notify_all()

    def _download(self, checkpoint: Checkpoint) -> Checkpoint:
        key, revision = checkpoint.path, self.revisions[checkpoint.path]
        try:
            sizes = remote_files(self.repo, revision)
            names = wanted_files(sizes, where=f"{self.repo}@{revision}")
            needed = sum(sizes[name] for name in names)
            self._make_room(key, needed, step=checkpoint.step)
            log.info("fetching %s@%s (%.0f MB)", self.repo, revision, needed / 1e6)
            folder = self._receive(key, revision, names)
        except BaseException:
            # What a failed download has is left to huggingface_hub, which resumes it; its room is not ours.
            with self._changed:
                if key in self._fetched and self._fetched[key].folder is None:
                    del self._fetched[key]
            raise
        named = StepName(checkpoint.step, checkpoint.tokens_seen)
        read = read_or_gap(folder, named.step, lambda: hf.read_checkpoint(folder, named))
        if isinstance(read, Gap):
            raise CheckpointError(f"step {checkpoint.step} of {self.repo}: {read.reason}", help=read.help)
        return replace(read, format=checkpoint.format)

    def _receive(self, key: Path, revision: str, names: list[str]) -> Path:
        """Download some files of a revision, and note which of what is now in the cache was not there before."""
        repo_folder = key.parent.parent
        records = (repo_folder / "refs" / revision, repo_folder / "trees" / f"{key.name}.json")
        new_records = tuple(record for record in records if not record.exists())
        existed, blobs_before = key.exists(), _names_in(repo_folder / "blobs")
        with reaching_the_hub(f"download {self.repo}@{revision}") as api:
            folder = Path(
                api.snapshot_download(
                    self.repo,
                    revision=revision,
                    cache_dir=str(self.cache),
                    allow_patterns=[glob.escape(name) for name in names],
                )
            )
        with self._changed:
            self._our_blobs |= _names_in(repo_folder / "blobs") - blobs_before
            fetched = self._fetched[key]
            fetched.bytes = sum((folder / name).stat().st_size for name in names if (folder / name).is_file())
            if not existed:
                fetched.folder, fetched.records = folder, new_records
        return folder

    def _make_room(self, key: Path, needed: int, *, step: int) -> None:
        """Reserve bytes, removing steps that are done with, oldest first; waits for a step another thread uses."""
        free = shutil.disk_usage(next(p for p in (self.cache, *self.cache.parents) if p.exists())).free
        budget = self.budget_bytes
        if budget is not None and needed > budget:
            raise CheckpointError(
                f"step {step} of {self.repo} needs {_size(needed)}, more than the disk budget of {_size(budget)}",
                help="give a larger budget; two steps' worth lets one be fetched while the other is measured",
            )
        with self._changed:
            while budget is not None and sum(f.bytes for f in self._fetched.values()) + needed > budget:
                removed = self._evict_oldest()
                free += removed
                me = threading.get_ident()
                others = any(user != me for key in self._fetched for user in self._users[key])
                if not removed and not others:
                    raise CheckpointError(
                        f"the disk budget of {_size(budget)} is taken up by steps that are in use or partly downloaded; "
                        f"step {step} of {self.repo} needs {_size(needed)}",
                        help="give a larger budget, or leave the at_hand block of one step before entering the next",
                    )
                if not removed:
                    self._changed.wait()
            if needed > free:
                raise CheckpointError(
                    f"step {step} of {self.repo} needs {_size(needed)}, the disk of {self.cache} has {_size(free)}",
                    help="make room, set a disk budget, or move the cache with HF_HUB_CACHE",
                )
            self._fetched[key] = _Fetched(needed)

    def _evict_oldest(self) -> int:
        """Remove the oldest step nobody uses; bytes freed, 0 where there is none."""
        for key, fetched in self._fetched.items():
            if not self._users[key] and fetched.folder is not None:
                log.info("removing %s@%s (%.0f MB)", self.repo, self.revisions[key], fetched.bytes / 1e6)
                self._remove(fetched.folder, fetched.records)
                del self._fetched[key]
                self._ready.pop(key, None)
                return max(fetched.bytes, 1)
        return 0

    def _remove(self, snapshot: Path, records: tuple[Path, ...]) -> None:
        """Delete a step's snapshot, and those of its blobs that we brought and no other snapshot links to.

        Not by huggingface_hub's `delete_revisions`: it takes a repository for corrupt where one branch names a commit that
        is not there, and removes branches and blobs that were there before us.
        """
        unused = _linked(snapshot) & self._our_blobs
        shutil.rmtree(snapshot)
        for other in snapshot.parent.iterdir():
            unused -= _linked(other)
        for blob in unused:
            (snapshot.parent.parent / "blobs" / blob).unlink(missing_ok=True)
        self._our_blobs -= unused
        for record in records:
            record.unlink(missing_ok=True)


def wanted_files(sizes: Mapping[str, int], *, where: str) -> list[str]:
    """Which files of a revision to fetch: the weights once and the small JSON files byrote reads; never code.

    Pickled weights are fetched only where there are no others.

    Args:
        sizes: file name -> bytes, of the top of the repository.
        where: for messages.

    Raises:
        CheckpointError: there are no weights.
    """
    small = [name for name in sizes if name in _SMALL and sizes[name] <= _SMALL_MAX_BYTES]
    for whole, shard in _WEIGHTS:
        if whole in sizes:
            return sorted([*small, whole])
        shards = [name for name in sizes if shard.fullmatch(name)]
        if shards and f"{whole}.index.json" in sizes:
            return sorted([*small, f"{whole}.index.json", *shards])
    raise CheckpointError(
        f"{where} holds no weights that byrote reads (it has {', '.join(sorted(sizes)[:5]) or 'no files'})",
        help="a step needs config.json and model.safetensors",
    )


def remote_refs(repo: str) -> dict[str, str]:
    """Branch or tag -> commit of a repository on the hub, from the network.

    Raises:
        CheckpointError: the hub cannot be reached, or has no such repository, or does not show it.
    """
    with reaching_the_hub(f"list the branches of {repo}") as api:
        refs = api.list_repo_refs(repo)
    return {ref.name: ref.target_commit for ref in (*refs.tags, *refs.branches)}


def remote_files(repo: str, revision: str) -> dict[str, int]:
    """File name -> bytes at the top of a revision, from the network.

    Raises:
        CheckpointError: as `remote_refs`.
    """
    with reaching_the_hub(f"list the files of {repo}@{revision}") as api:
        entries = list(api.list_repo_tree(repo, revision=revision))
    return {entry.path: entry.size for entry in entries if hasattr(entry, "size")}


@contextmanager
def reaching_the_hub(doing: str) -> Iterator[Any]:
    """huggingface_hub's client, allowed to use the network for the length of the block.

    Raises:
        CheckpointError: the environment sets offline mode, or any error inside the block, in one line.
    """
    if OFFLINE:
        raise CheckpointError(
            f"cannot {doing}: HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set",
            help="unset it, or leave allow_download out to use only the cache",
        )
    from huggingface_hub import HfApi, constants
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    with _ONE_AT_A_TIME:
        # Loading models switches the network off for the process, and shared blobs would outlive a removed step.
        wanted = {"HF_HUB_OFFLINE": False, "HF_HUB_DISABLE_SHARED_BLOBS": True}
        before = {name: getattr(constants, name) for name in wanted if hasattr(constants, name)}
        bars = not are_progress_bars_disabled()
        disable_progress_bars()
        try:
            for name in before:
                setattr(constants, name, wanted[name])
            yield HfApi(endpoint=constants.ENDPOINT)
        except CheckpointError:
            raise
        except Exception as error:  # each release of huggingface_hub raises another HTTP library's errors
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            raise CheckpointError(f"cannot {doing}: {reason}", help=_advice(error)) from error
        finally:
            for name, value in before.items():
                setattr(constants, name, value)
            if bars:
                enable_progress_bars()


def _advice(error: Exception) -> str:
    kind = type(error).__name__
    if "Gated" in kind:
        return "accept the repository's terms on the hub and log in with `hf auth login`"
    if kind in ("RepositoryNotFoundError", "RevisionNotFoundError"):
        return "check the spelling; for a private repository log in with `hf auth login`"
    return "check the network; cached steps open without allow_download"


def _linked(snapshot: Path) -> set[str]:
    """Names of the blobs a snapshot's files link to; none where the cache holds copies."""
    return {file.readlink().name for file in snapshot.rglob("*") if file.is_symlink()}


def _names_in(folder: Path) -> set[str]:
    return {child.name for child in folder.iterdir()} if folder.is_dir() else set()


def _size(n: int) -> str:
    return f"{n / 1e9:.2f} GB" if n >= 1e8 else f"{n / 1e6:.2f} MB"
