"""A linear regression in which a share of the data has the labels of an earlier fit. No torch.

Source: Dohmatob et al. 2025, Strong Model Collapse, arXiv:2410.04840, of which the abstract was read; the construction is byrote's own. There,
labels of the synthetic share come from other weights than the truth; here these are a fit to real data, as a trained generator is.

1. x standard normal in d dimensions, y = x.w + noise of variance 1. The generator's weights are least squares on 100 real samples
2. of n samples the share p has the generator's labels, with fresh noise of variance 1; w_n is least squares on all n
3. excess risk = |w_n - w|^2. With S the Gram matrix of all x and S_p that of the synthetic share,
   w_n - w = S^-1 S_p (generator - w) + S^-1/2 z, z standard normal
4. Gram matrices are drawn as such (Wishart, by Bartlett's decomposition), so that n can be large
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

SHARES = {"real": 0.0, "synthetic 1%": 0.01, "synthetic 10%": 0.1, "synthetic 50%": 0.5}
SAMPLES = tuple(4**k for k in range(6, 15))  # 4,096 to 268 million
DIMENSIONS, GENERATOR_SAMPLES = 20, 100
_REPEATS = 200  # simulations that one seed averages


def grams(
    rng: np.random.Generator, samples: int, *, d: int, repeats: int
) -> Float[np.ndarray, "repeats d d"]:
    """Gram matrices of standard normal samples.

    Args:
        rng: of the draws.
        samples: rows of x, at least d.
        d: its columns.
        repeats: how many.
    """
    lower = np.tril(rng.normal(size=(repeats, d, d)), -1)
    lower[:, np.arange(d), np.arange(d)] = np.sqrt(rng.chisquare(samples - np.arange(d), (repeats, d)))
    return np.asarray(lower @ lower.transpose(0, 2, 1))


def mixture_risks(
    rng: np.random.Generator,
    share: float,
    *,
    samples: tuple[int, ...] = SAMPLES,
    d: int = DIMENSIONS,
    repeats: int = _REPEATS,
) -> Float[np.ndarray, " samples"]:
    """Mean excess risk for each number of samples, in units of the noise's variance.

    Args:
        rng: of all draws.
        share: synthetic, 0 to 1; of every number of samples it is none, or at least d.
        samples: in all, ascending.
        d: dimensions.
        repeats: simulations averaged, each with a generator of its own.
    """
    off = _noise(rng, grams(rng, GENERATOR_SAMPLES, d=d, repeats=repeats))
    risks = np.empty(len(samples))
    for i, n in enumerate(samples):
        synthetic = round(share * n)
        gram = grams(rng, n - synthetic, d=d, repeats=repeats)
        pulled = np.zeros((repeats, d))
        if synthetic:
            theirs = grams(rng, synthetic, d=d, repeats=repeats)
            gram = gram + theirs
            pulled = np.linalg.solve(gram, theirs @ off[..., None])[..., 0]
        risks[i] = ((pulled + _noise(rng, gram)) ** 2).sum(1).mean()
    return risks


def _noise(
    rng: np.random.Generator, gram: Float[np.ndarray, "repeats d d"]
) -> Float[np.ndarray, "repeats d"]:
    """S^-1/2 z: what noise of variance 1 does to least squares."""
    z = rng.normal(size=gram.shape[:2])
    return np.asarray(np.linalg.solve(np.linalg.cholesky(gram).transpose(0, 2, 1), z[..., None])[..., 0])


def mixture_rows(seed: int) -> list[dict[str, object]]:
    """Rows of the table of runs: an arm per share, numbers of samples as steps."""
    return [
        {"grid": "linear-mixtures", "arm": arm, "init_seed": seed, "data_seed": seed, "step": n,
         "synthetic_share": share, "excess_risk": risk}
        for which, (arm, share) in enumerate(SHARES.items())
        for n, risk in zip(SAMPLES, mixture_risks(np.random.default_rng([seed, which]), share).tolist(), strict=True)
    ]  # fmt: skip
