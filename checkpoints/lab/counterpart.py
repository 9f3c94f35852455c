"""What a control run is measured on beside its own data: the pool of the run that it is the control of. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from byrote.checkpoints.lab.source import pool_sequences
from byrote.checkpoints.lab.sources import source_of

MAX_POOL = 1 << 16  # sequences


def pool_of_counterpart(manifest: Mapping[str, Any], *, width: int) -> dict[str, np.ndarray]:
    """The pool that the repeated run of a control's seed, source and pool size goes through, as its own file has it.

    The control never sees it, which is what makes it the null of what the other remembers: each sequence counts as trained
    on 0 times.

    Args:
        manifest: of a lab series.
        width: tokens of the series' sequences.

    Returns:
        tokens [pool_size, n_ctx] and repeat_count [pool_size]; nothing for runs that are no control, or whose manifest does
        not describe their data.
    """
    arm, seed = manifest.get("arm"), manifest.get("seed")
    size = arm.get("pool_size") if isinstance(arm, Mapping) and arm.get("kind") == "control" else None
    if type(size) is not int or not 0 < size <= MAX_POOL or type(seed) is not int or seed < 0:
        return {}
    source = source_of(manifest)
    if source is None or width != source.n_ctx:
        return {}
    return {
        "tokens": pool_sequences(source, seed=seed, n=size),
        "repeat_count": np.zeros(size, dtype=np.int64),
    }
