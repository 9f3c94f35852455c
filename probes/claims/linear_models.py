"""Two linear regressions in which the effects of synthetic and of repeated data can be computed. No torch.

Source of the first: Gerstgrasser et al. 2024, arXiv:2404.01413 (replace and accumulate), and Zhu et al. 2024, arXiv:2412.14689 (token
editing), both after Mobahi, Farajtabar and Bartlett 2020. Of the second: Chudnovsky et al. 2026, arXiv:2606.24998, of which only
the abstract was read: the construction is byrote's own.

1. generations: labels y = x.w + noise of T standard normal x in d dimensions; w_1 is their least-squares fit. Every further
   generation labels data with the last fit and fresh noise: replace fits new x with such labels alone; accumulate adds them to all
   earlier data; edit keeps the x of the first and relabels a share of them that halves with each generation
2. its excess risk is |w_n - w|^2 over sigma^2 d / (T - d - 1), the expected one of w_1: 1 is a fit to real data
3. duplicates: T standard normal x in D dimensions of which d are seen; what the others do is noise of the labels. A share of T is
   filled with copies: R of each of share x T / R samples
4. its excess risk is |w - w_seen|^2 over the variance of that noise
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

GENERATIONS = 8
EDITED = {"edit a quarter": 0.25, "edit half": 0.5}  # share of the labels that the first edit exchanges
ARMS = ("replace", "accumulate", *EDITED)
COPIES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 500, 1000)
_N, _D = 60, 10  # T and d of the first
_REPEATS = 1000  # simulations that one seed averages
TOTAL, SHARE, SEEN, _UNSEEN = 2000, 0.5, 20, 20
_DUPLICATE_REPEATS = 20


def generation_risks(seed: int, *, repeats: int = _REPEATS) -> dict[str, Float[np.ndarray, " generations"]]:
    """Mean excess risk of each generation, 1 to `GENERATIONS`, in units of a fit to real data.

    Args:
        seed: of all draws.
        repeats: simulations averaged.

    Returns:
        Arm -> [generations].
    """
    base = _D / (_N - _D - 1)
    return {
        arm: _generations(np.random.default_rng([seed, which]), arm, repeats) / base
        for which, arm in enumerate(ARMS)
    }


def _generations(rng: np.random.Generator, arm: str, repeats: int) -> Float[np.ndarray, " generations"]:
    """Mean |w_n - w|^2 with w = 0 and noise of variance 1: the estimate is linear in the noise, so that w does not matter."""
    x, y = rng.normal(size=(repeats, _N, _D)), rng.normal(size=(repeats, _N))
    gram, sums = np.zeros((repeats, _D, _D)), np.zeros((repeats, _D))
    risks = np.empty(GENERATIONS)
    for n in range(GENERATIONS):
        earlier = 1.0 if arm == "accumulate" else 0.0
        gram = earlier * gram + x.transpose(0, 2, 1) @ x
        sums = earlier * sums + np.einsum("rtd,rt->rd", x, y)
        w = np.linalg.solve(gram, sums[..., None])[..., 0]
        risks[n] = (w**2).sum(1).mean()
        if arm in EDITED:
            chosen = rng.random((repeats, _N)) < EDITED[arm] * 0.5**n
            y = np.where(chosen, np.einsum("rtd,rd->rt", x, w) + rng.normal(size=(repeats, _N)), y)
        else:
            x = rng.normal(size=(repeats, _N, _D))
            y = np.einsum("rtd,rd->rt", x, w) + rng.normal(size=(repeats, _N))
    return risks


def duplicate_risks(seed: int, *, repeats: int = _DUPLICATE_REPEATS) -> Float[np.ndarray, " copies"]:
    """Mean excess risk for each number of copies in `COPIES`, in units of the noise's variance.

    Args:
        seed: of all draws; all numbers of copies share the samples that are not copied.
        repeats: simulations averaged.
    """
    total = np.zeros(len(COPIES))
    n_copied = int(SHARE * TOTAL)
    for i in range(repeats):
        rng = np.random.default_rng([seed, i])
        x = rng.normal(size=(TOTAL, SEEN))
        noise = rng.normal(size=(TOTAL, _UNSEEN)).sum(1) / np.sqrt(_UNSEEN)
        for k, copies in enumerate(COPIES):
            heavy = n_copied // copies
            weight = np.r_[np.full(heavy, n_copied / heavy), np.ones(TOTAL - n_copied)]
            rows = np.r_[:heavy, n_copied:TOTAL]
            scaled = x[rows] * weight[:, None]
            w = np.linalg.solve(x[rows].T @ scaled, scaled.T @ noise[rows])
            total[k] += w @ w
    return total / repeats


def generation_rows(seed: int) -> list[dict[str, object]]:
    """Rows of the table of runs: an arm per scheme, generations as steps."""
    return [
        {
            "grid": "linear-generations",
            "arm": arm,
            "init_seed": seed,
            "data_seed": seed,
            "step": n,
            "generation": n,
            "excess_risk": risk,
        }
        for arm, risks in generation_risks(seed).items()
        for n, risk in enumerate(risks.tolist(), 1)
    ]


def duplicate_rows(seed: int) -> list[dict[str, object]]:
    """Rows of the table of runs: an arm per number of copies."""
    return [
        {"grid": "linear-duplicates", "arm": f"copies {copies}", "init_seed": seed, "data_seed": seed, "step": 0, "epochs": copies,
         "pool": SHARE * TOTAL // copies, "repeat_frac": SHARE, "excess_risk": risk}
        for copies, risk in zip(COPIES, duplicate_risks(seed).tolist(), strict=True)
    ]  # fmt: skip
