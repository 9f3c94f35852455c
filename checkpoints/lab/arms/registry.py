"""Parts of arms by name. A part is a file here, or an entry point of the group `byrote.arms`. No numpy."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from byrote.checkpoints.entry_points import additions
from byrote.checkpoints.errors import ByroteError, did_you_mean
from byrote.checkpoints.lab.arms.clamped import Clamped
from byrote.checkpoints.lab.arms.continued import Continued, Replay
from byrote.checkpoints.lab.arms.edited import Edited
from byrote.checkpoints.lab.arms.masked import Masked, Noisy, RepetitionDropout, Unreliable
from byrote.checkpoints.lab.arms.members import Planted, Subsets
from byrote.checkpoints.lab.arms.part import Part
from byrote.checkpoints.lab.arms.repeats import Control, Epochs, Repeated, Unique
from byrote.checkpoints.lab.arms.rephrased import Questions, Rephrased
from byrote.checkpoints.lab.arms.rest_em import RestEM
from byrote.checkpoints.lab.arms.reweighted import Reweighted
from byrote.checkpoints.lab.arms.selected import Selected
from byrote.checkpoints.lab.arms.synthetic import Curated, Generation, Synthetic

GROUP = "byrote.arms"
_OWN: tuple[type[Part], ...] = (
    Unique,
    Repeated,
    Control,
    Epochs,
    Synthetic,
    Generation,
    Curated,
    Edited,
    Continued,
    Replay,
    Masked,
    Noisy,
    Unreliable,
    Planted,
    Selected,
    Clamped,
    Rephrased,
    Questions,
    RepetitionDropout,
    Reweighted,
    RestEM,
    Subsets,
)
ARMS: Mapping[str, type[Part]] = {part.name: part for part in _OWN}


@lru_cache(maxsize=1)
def arms() -> Mapping[str, type[Part]]:
    """All parts by name: byrote's own, then those of installed packages.

    Raises:
        ByroteError: an installed package offers something else than a part, or one under a name that is taken.
    """
    added = additions(GROUP, ARMS, is_one=_is_part, words=("part of an arm", "one"))
    return {**ARMS, **added}


def _is_part(found: Any) -> bool:
    """Whether an entry point is a part; "+" stands between the names of several."""
    return isinstance(found, type) and issubclass(found, Part) and "+" not in found.name


def part_kind(name: str) -> type[Part]:
    """A kind of part by its name.

    Raises:
        ByroteError: there is none of that name.
    """
    known = arms()
    if name not in known:
        raise ByroteError(f"the lab has no arm {name[:40]!r}", help=did_you_mean(name[:40], tuple(known)))
    return known[name]
