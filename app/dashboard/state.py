"""What the dashboard keeps for its user: jobs and answers, in the user's state directory, where nobody else can put anything.

A results folder is what colleagues send each other. What lies in it is looked at and never started, so that jobs are
not kept there: one folder per results folder, named by a hash of its path, holds them, and only its owner may enter.

    <state>/<hash>/of.json                    which results folder this is
    <state>/<hash>/jobs/<id>/...              see `byrote.dashboard.jobs`
    <state>/<hash>/own_text/<text>/<id>/...   see `byrote.dashboard.text_requests`

``<state>`` is the variable BYROTE_STATE, else what the system has for it (``~/.local/state/byrote`` on Linux).
"""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

from byrote.checkpoints.atomic import make_private_folder, write_private_json
from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.safe_read import FileRefused, own_path

VARIABLE = "BYROTE_STATE"
OF = "of.json"
FORMER = ".jobs"  # of version 0.1, inside results folders: never read


def state_root() -> Path:
    """The folder of everything the dashboard keeps."""
    if given := os.environ.get(VARIABLE):
        return Path(given).absolute()
    from platformdirs import user_state_path

    return user_state_path("byrote", appauthor=False)


def key_of(results: Path) -> str:
    """The name of the folder for a results folder."""
    return hashlib.blake2b(os.fsencode(results.resolve()), digest_size=12).hexdigest()


def place_of(results: Path, *names: str) -> Path:
    """Where something of a results folder is kept; nothing is made.

    Raises:
        FileRefused: one of the folders on the way is a link.
    """
    return own_path(state_root(), key_of(results), *names)


def make_place(results: Path, *names: str) -> Path:
    """The same, made where it is missing, for its owner alone.

    Raises:
        ByroteError: it cannot be made, or belongs to somebody else.
    """
    root = state_root()
    path, key = root, key_of(results)
    try:
        for folder in (root, *(path := path / name for name in (key, *names))):
            make_private_folder(folder)
            _refuse_others(folder, is_root=folder == root)
        if not (root / key / OF).exists():
            write_private_json(root / key / OF, {"results": os.fsdecode(os.fsencode(results.resolve()))})
    except OSError as error:
        raise ByroteError(
            f"cannot write to {root} ({error.strerror or error})",
            help=f"set {VARIABLE} to a folder of your own",
        ) from None
    return own_path(root, key, *names)


def _refuse_others(folder: Path, *, is_root: bool) -> None:
    """A person may have named the root, and may have it where others can look, as long as they cannot write there."""
    found = folder.stat() if is_root else folder.lstat()
    foreign = hasattr(os, "getuid") and found.st_uid != os.getuid()
    if foreign or not stat.S_ISDIR(found.st_mode) or found.st_mode & (0o022 if is_root else 0o077):
        raise FileRefused(
            f"{folder} is not a folder that only you can access", help=f"set {VARIABLE} to a folder that is"
        )
