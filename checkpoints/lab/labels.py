"""The held-out split of a lab series with its labels, drawn again from the source that the manifest names. No torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Int8

from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.lab.sources import source_of


@dataclass(frozen=True)
class Labelled:
    """Sequences of a known source.

    Attributes:
        tokens: BOS first.
        mechanism: which mechanism can predict each token, by its code in `sources.contract.CODES`.
        floor_nats: exact Bayes floor of each token; NaN at BOS.
    """

    tokens: Int[np.ndarray, "n width"]
    mechanism: Int8[np.ndarray, "n width"]
    floor_nats: Float[np.ndarray, "n width"]


def labels_of(
    manifest: Mapping[str, Any], held_out: Int[np.ndarray, "n width"] | None
) -> Callable[[], Labelled] | None:
    """What draws the held-out split again with its labels; it raises a ByroteError where the source draws other tokens.

    Args:
        manifest: of the series; it may say anything.
        held_out: the split that lies beside it.

    Returns:
        None where the manifest names no source that has labels and an exact floor, or none of such a context.
    """
    source = source_of(manifest)
    if source is None or source.no_floor or held_out is None or held_out.shape[1:] != (source.n_ctx,):
        return None

    def drawn() -> Labelled:
        found = source.draw(seed=0, stream="held_out", index=0, n=len(held_out))
        if not np.array_equal(found.tokens, held_out):
            raise ByroteError(
                f"the source {source.name} that the manifest names does not reproduce the stored held-out split",
                help="restore manifest.json and data/ of the series, or train it again",
            )
        return Labelled(found.tokens, found.mechanism[:, :-1], source.floor_nll(found.tokens))

    return drawn
