"""A disk that forgets: what a power cut can leave of the changes that a command made.

A `Recorder` in the place of byrote's file layer notes every change and every sync. `after_power_cuts` goes through all
prefixes of them. A file's bytes are safe once it was synced, and a name (new, changed or removed) once its folder was.
Until then each change of a name may have reached the disk or not, whatever became of the others, and the bytes of a file
may be missing, zero, cut short, or there only from the middle on, while its length is already the new one.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from byrote.checkpoints import atomic

Tree = dict[str, bytes | None]  # path below the root -> bytes of a file, None for a folder
NO_PROCESS = 2**22 + 1  # above the highest number that Linux gives
MOST_STATES = 96  # of one prefix; where there are more, that many are drawn


@dataclass(frozen=True)
class Change:
    """One call of the layer; paths are relative to the recorder's root."""

    call: str
    path: str
    target: str = ""
    data: bytes = b""


class Recorder(atomic.FileLayer):
    """Carries every call out and notes it, if it is about something below a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.changes: list[Change] = []

    def _note(self, call: str, path: Path, target: Path | None = None, data: bytes = b"") -> None:
        places = [p.parent.resolve() / p.name for p in (path, target) if p is not None]
        inside = [str(p.relative_to(self.root)) for p in places if p.is_relative_to(self.root)]
        if inside:
            self.changes.append(Change(call, inside[0], inside[-1] if target is not None else "", data))

    def create(self, path: Path, data: Any) -> None:
        super().create(path, data)
        self._note("create", path, data=bytes(data))

    def append(self, path: Path, data: Any) -> None:
        super().append(path, data)
        self._note("append", path, data=bytes(data))

    def make_folder(self, path: Path) -> None:
        super().make_folder(path)
        self._note("make_folder", path)

    def rename(self, source: Path, target: Path) -> None:
        super().rename(source, target)
        self._note("rename", source, target)

    def unlink(self, path: Path) -> None:
        super().unlink(path)
        self._note("unlink", path)

    def remove_folder(self, path: Path) -> None:
        super().remove_folder(path)
        self._note("remove_folder", path)

    def sync(self, path: Path) -> None:
        super().sync(path)
        self._note("sync", path)


@dataclass(eq=False)
class Node:
    """A file or folder, by whatever names it is reached.

    Attributes:
        data: bytes of a file as the program sees them; None for a folder.
        safe: those that are on the disk for certain.
        names: what a folder holds as the program sees it.
        safe_names: what it holds on the disk for certain.
    """

    data: bytes | None = None
    safe: bytes = b""
    names: dict[str, Node] = field(default_factory=dict)
    safe_names: dict[str, Node] = field(default_factory=dict)


@dataclass(frozen=True)
class Renaming:
    """A change of names that may not have reached the disk: `node` leaves one place, enters another, or both."""

    node: Node
    left: tuple[Node, str] | None = None
    entered: tuple[Node, str] | None = None

    @property
    def folders(self) -> list[Node]:
        return [place[0] for place in (self.left, self.entered) if place]

    def apply(self, names: dict[Node, dict[str, Node]]) -> None:
        if self.left and names.setdefault(self.left[0], {}).get(self.left[1]) is self.node:
            del names[self.left[0]][self.left[1]]
        if self.entered:
            names.setdefault(self.entered[0], {})[self.entered[1]] = self.node


class Disk:
    """What the program sees, what is safe, and what is on its way."""

    def __init__(self, tree: Tree) -> None:
        self.root = Node()
        self.waiting: list[Renaming] = []
        for path, data in sorted(tree.items()):
            folder, name = self._place(path)
            node = Node(data, data or b"")
            folder.names[name] = folder.safe_names[name] = node

    def _find(self, path: str) -> Node:
        node = self.root
        for name in Path(path).parts:
            node = node.names[name]
        return node

    def _place(self, path: str) -> tuple[Node, str]:
        return self._find(str(Path(path).parent)), Path(path).name

    def do(self, change: Change) -> None:
        """Go on by one change."""
        if change.call == "sync":
            self._sync(self._find(change.path))
            return
        folder, name = self._place(change.path)
        if change.call == "append" and name in folder.names:
            folder.names[name].data = (folder.names[name].data or b"") + change.data
            return
        if change.call in ("create", "append", "make_folder"):
            node = Node(None if change.call == "make_folder" else change.data)
            self._rename(Renaming(node, entered=(folder, name)))
        elif change.call == "rename":
            node = folder.names[name]
            self._rename(Renaming(node, left=(folder, name), entered=self._place(change.target)))
        else:
            self._rename(Renaming(folder.names[name], left=(folder, name)))

    def _rename(self, renaming: Renaming) -> None:
        self.waiting.append(renaming)
        seen = {folder: folder.names for folder in renaming.folders}
        renaming.apply(seen)

    def _sync(self, node: Node) -> None:
        if node.data is not None:
            node.safe = node.data
            return
        done = [renaming for renaming in self.waiting if node in renaming.folders]
        safe = {folder: folder.safe_names for renaming in done for folder in renaming.folders}
        for renaming in done:
            renaming.apply(safe)
        gone = {(id(r.node), *map(id, r.left[:1]), r.left[1]) for r in done if r.left}
        self.waiting = [
            r
            for r in self.waiting
            if r not in done
            and not (r.entered and (id(r.node), id(r.entered[0]), r.entered[1]) in gone)  # it has left again
        ]

    def seen(self) -> Tree:
        """What the program sees."""
        return dict(_walk(self.root, lambda node: node.names, lambda node: node.data or b""))

    def after_a_power_cut(self, rng: random.Random) -> Iterator[Tree]:
        """Every state that can be found afterwards, or `MOST_STATES` of them."""
        n = len(self.waiting)
        subsets: Any = itertools.product((False, True), repeat=n)
        if 2**n > MOST_STATES:
            drawn = [tuple(rng.random() < 0.5 for _ in range(n)) for _ in range(MOST_STATES // 2)]
            subsets = [(False,) * n, (True,) * n, *drawn]
        for subset in subsets:
            names: dict[Node, dict[str, Node]] = {}
            for renaming, happened in zip(self.waiting, subset, strict=True):
                if happened:
                    for folder in renaming.folders:
                        names.setdefault(folder, dict(folder.safe_names))
                    renaming.apply(names)
            yield from self._contents(names, rng)

    def _contents(self, names: dict[Node, dict[str, Node]], rng: random.Random) -> Iterator[Tree]:
        def inside(folder: Node) -> dict[str, Node]:
            return names.get(folder, folder.safe_names)

        files = {id(node): node for _, node in _nodes(self.root, inside) if node.data is not None}
        unsafe = {key: _remains(node) for key, node in files.items() if node.data != node.safe}
        choices: Any = itertools.product(*unsafe.values())
        if len(unsafe) > 2:
            choices = [tuple(rng.choice(options) for options in unsafe.values()) for _ in range(25)]
        for choice in choices:
            found = dict(zip(unsafe, choice, strict=True))
            yield dict(_walk(self.root, inside, lambda node, found=found: found.get(id(node), node.safe)))


def _remains(node: Node) -> list[bytes]:
    """What can be left of a file that was not synced."""
    new, safe = node.data or b"", node.safe
    kept = safe if new.startswith(safe) else b""
    half = (len(kept) + len(new)) // 2
    there = len(kept)
    found = [safe, new, kept + bytes(len(new) - there), new[:half], kept + bytes(half - there) + new[half:]]
    return list(dict.fromkeys(found))


def _nodes(folder: Node, inside: Any, above: str = "") -> Iterator[tuple[str, Node]]:
    for name, node in inside(folder).items():
        yield above + name, node
        if node.data is None:
            yield from _nodes(node, inside, f"{above}{name}/")


def _walk(folder: Node, inside: Any, content: Any) -> Iterator[tuple[str, bytes | None]]:
    for path, node in _nodes(folder, inside):
        yield path, None if node.data is None else content(node)


def after_power_cuts(before: Tree, changes: Sequence[Change], rng: random.Random) -> list[tuple[str, Tree]]:
    """Every different state that a power cut during these changes can leave, with where it was cut.

    Args:
        before: what was there, safe.
        changes: as recorded.
        rng: draws where there are too many.
    """
    disk, found = Disk(before), {}
    for n, change in enumerate([None, *changes]):
        if change is not None:
            disk.do(change)
        where = (
            "before the first change" if change is None else f"after change {n}, {change.call} {change.path}"
        )
        for tree in disk.after_a_power_cut(rng):
            found.setdefault(state_hash(tree), (where, tree))
    return list(found.values())


def state_hash(tree: Tree) -> str:
    """One hash of a tree; temporary files count by content alone, for their names are different every time."""
    total = hashlib.sha256()
    for path, data in sorted(tree.items()):
        name = "TEMPORARY" if atomic.is_leftover(Path(path).name) else path
        total.update(f"{name}\0{'folder' if data is None else len(data)}\0".encode() + (data or b""))
    return total.hexdigest()


def read_tree(root: Path) -> Tree:
    """What a folder holds, locks apart."""
    found: Tree = {}
    for path in sorted(root.rglob("*")):
        if path.name != atomic.LOCK:
            found[str(path.relative_to(root))] = None if path.is_dir() else path.read_bytes()
    return found


def of_a_dead_process(tree: Tree) -> Tree:
    """The tree with temporary files named as those of a process that is gone, as it is after a power cut."""
    ours = re.compile(rf"(\.){os.getpid()}(-[0-9a-f]{{8}}-\d+\.tmp)")
    return {ours.sub(rf"\g<1>{NO_PROCESS}\g<2>", path): data for path, data in tree.items()}


def put_tree(root: Path, tree: Tree) -> None:
    """Make a folder hold exactly this; files that are right already are left alone, with their times."""
    for path in sorted(root.rglob("*"), reverse=True):
        wanted = tree.get(name := str(path.relative_to(root)), b"")
        if name not in tree or (wanted is None) != path.is_dir():
            path.rmdir() if path.is_dir() else path.unlink()
    for name, data in sorted(tree.items()):
        path = root / name
        if data is None:
            path.mkdir(exist_ok=True)
        elif not path.is_file() or path.read_bytes() != data:
            path.write_bytes(data)
