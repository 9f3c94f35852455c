"""Eigenvalues of a head's circuits, and the null that preserves a spectrum and rotates its directions at random."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def positivity(matrix: Float[Tensor, "*draws n n"]) -> Float[Tensor, "*draws"]:
    """Sum of the real parts of the eigenvalues over the sum of their absolute values.

    Returns:
        From -1 to 1, on the CPU in float64's precision whatever device the matrix is on; NaN for the zero matrix and
        for one that is not finite.
    """
    return positivity_of(torch.linalg.eigvals(finite_or_zero(matrix).cpu().double())).float()


def positivity_of(eigenvalues: Tensor) -> Float[Tensor, "*draws"]:
    """The same from complex eigenvalues, the last axis; NaN where all of them are 0."""
    size = eigenvalues.abs().sum(-1)
    return torch.where(size > 0, eigenvalues.real.sum(-1) / size, torch.nan)


def finite_or_zero(matrix: Float[Tensor, "*draws n m"]) -> Float[Tensor, "*draws n m"]:
    """Matrices with an infinite or NaN entry made zero: a diverged checkpoint has no spectrum to take."""
    finite = torch.isfinite(matrix).all(-1, keepdim=True).all(-2, keepdim=True)
    return torch.where(finite, matrix, torch.zeros_like(matrix))


def haar_frames(
    draws: int, d_model: int, d_head: int, generator: torch.Generator, *, centred: bool = False
) -> Float[Tensor, "draws d_model d_head"]:
    """Haar-distributed orthonormal frames: QR of a Gaussian with the signs of R's diagonal taken out.

    Args:
        draws: how many.
        d_model: length of the vectors.
        d_head: vectors in a frame; at most as many as are linearly independent.
        generator: of the Gaussian.
        centred: draw among vectors with mean 0, the only ones a head behind a LayerNorm can read.
    """
    gaussian = torch.randn(draws, d_model, min(d_head, d_model - centred), generator=generator)
    if centred:
        gaussian = gaussian - gaussian.mean(-2, keepdim=True)
    q, r = torch.linalg.qr(gaussian)
    return q * r.diagonal(dim1=-2, dim2=-1).sign()[:, None, :]


def turned_positivity(
    factor: Float[Tensor, "d_head d_model"],
    right: Float[Tensor, "d_model d_head"],
    frames: Float[Tensor, "draws d_model n"],
) -> Float[Tensor, " draws"]:
    """Positivity of `factor @ right` when the rows of `factor` span random directions and its spectrum stays."""
    left, spectrum, _ = torch.linalg.svd(finite_or_zero(factor), full_matrices=False)
    n = frames.shape[-1]
    rotated = (left[:, :n] * spectrum[:n]) @ frames.mT
    return positivity(rotated @ right)
