"""Prune a model's blocks by magnitude for the length of a block; afterwards every bit is as it was.

Pruned weights stand in memory of their own: the model's own tensors, which a model in training may share, are not written.

Source: magnitude pruning: Han et al. 2015, arXiv:1506.02626, one share of every weight matrix alike.

Pruned are the weight matrices of attention and MLP in all blocks. Embeddings, the unembedding, norms and biases stay: what a
model reads and writes is then the same at every share, and a small vocabulary does not decide what is lost.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from byrote.checkpoints.errors import ByroteError
from byrote.interp.model import HookedModel


def block_matrices(model: HookedModel) -> list[nn.Parameter]:
    """The weight matrices of all blocks, each once."""
    found = {id(p): p for block in model.bridge.blocks for p in block.parameters() if p.ndim >= 2}
    return list(found.values())


@contextmanager
def pruned(model: HookedModel, frac: float) -> Iterator[None]:
    """While this is open, the smallest weights of every matrix are 0; afterwards, and after an error, they are back.

    Args:
        model: a loaded checkpoint.
        frac: share of the entries of each matrix that are set to 0, the smallest in magnitude; of equal ones the first.

    Raises:
        ByroteError: a share outside 0 to 1, or a model whose blocks hold no matrix.
    """
    if not 0 <= frac <= 1:
        raise ByroteError(f"a share of {frac} cannot be pruned", help="give a fraction from 0 to 1")
    matrices = block_matrices(model)
    if not matrices:
        raise ByroteError("the model's blocks hold no weight matrices", help="nothing can be pruned")
    stored: list[torch.Tensor] = []
    try:
        with torch.no_grad():
            for matrix in matrices:
                stored.append(matrix.data)
                entries = matrix.detach().abs().flatten()
                smallest = entries.argsort(stable=True)[: round(frac * len(entries))]
                fewer = matrix.detach().flatten().index_fill(0, smallest, 0.0).view_as(matrix)
                matrix.data = torch.empty_like(matrix.data).copy_(fewer)  # laid out as the weights are
        model.weights_changed(model.checkpoint)
        yield
    finally:
        for matrix, own in zip(matrices, stored, strict=False):
            matrix.data = own
        model.weights_changed(model.checkpoint)
