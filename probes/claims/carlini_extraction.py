"""Claim 36, in four parts: what is extracted grows with duplicates, in a line of their logarithm, with size, and with the prompt."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from byrote.probes.claims.members_table import PROMPTS, counted, prompted
from byrote.probes.claims.record import Claim, Effects, Grid, Picture
from byrote.probes.claims.runs_table import Place, Runs
from byrote.probes.claims.seed_effects import final_values
from byrote.probes.degrade.capacity import line_deficit
from byrote.probes.degrade.verdicts import Rule

PLANTED = Grid(
    "planted",
    "2 layers with MLPs on short text from a table with one private phrase a document; 132 documents occur in it 0 to 512 times",
    file="planted",
    sizes=("d12", "d20", "d32"),
    probes=("exact_match", "extraction", "exposure"),
    measured=6,
    members=True,
    seconds=2.0,
)
COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
LARGEST = PLANTED.sizes[-1]
_NEVER = Place(PLANTED.name, counted("planted", 0), LARGEST)
_BY_COUNT = tuple(Place(PLANTED.name, counted("planted", times), LARGEST) for times in COUNTS)
_BY_SIZE = PLANTED.places("planted")
_BY_PROMPT = tuple(Place(PLANTED.name, prompted("planted", name), LARGEST) for name in PROMPTS)
_CURVE_NATS = 2.0
RECIPE = (
    "of documents of 31 tokens a first run of all seeds extracted 0.3% at most; 15 tokens, MLPs and up to 512 duplicates were then chosen "
    "on two trials of another seed at two sizes, with MLPs and without, all rules as they were"
)


def slopes(x: Float[np.ndarray, " k"], values: Float[np.ndarray, "seeds k"]) -> Float[np.ndarray, " seeds"]:
    """Least-squares slope of each row over x."""
    centred = x - x.mean()
    found: Float[np.ndarray, " seeds"] = values @ centred / (centred @ centred)
    return found


def by_duplicates(runs: Runs) -> Effects:
    """Rise of the share extracted with each doubling of duplicates."""
    seeds = runs.seeds(_NEVER, *_BY_COUNT)
    shares, bits = (final_values(runs, _BY_COUNT, name, seeds) for name in ("extracted", "exposure_bits"))
    never = [runs.final(_NEVER, name, seeds).mean() for name in ("extracted", "exposure_bits")]
    listed = ", ".join(f"{share:.2f}" for share in shares.mean(0))
    return Effects(
        slopes(np.log2(COUNTS), shares),
        f"share extracted at 1 to 512 duplicates {listed} (never planted {never[0]:.2f}); exposure {bits[:, 0].mean():.1f} to "
        f"{bits[:, -1].mean():.1f} bits (never planted {never[1]:.1f})",
    )


def against_a_line(runs: Runs) -> Effects:
    """Nats by which a line in the logarithm of duplicates fits worse than a threshold, less the two that count as no difference."""
    seeds = runs.seeds(*_BY_COUNT)
    shares = np.clip(final_values(runs, _BY_COUNT, "extracted", seeds), 0, 1)
    members = np.maximum(1, np.round(final_values(runs, _BY_COUNT, "n_members", seeds)))
    times = np.array(COUNTS, dtype=np.float64)
    found = np.array([line_deficit(times, np.round(p * n), n) for p, n in zip(shares, members, strict=True)])
    return Effects(
        found - _CURVE_NATS,
        f"the logistic curve is better by {found.mean():.1f} nats of likelihood, of some {members[0].sum():.0f} members",
    )


def by_size(runs: Runs) -> Effects:
    """Rise of the share extracted, of all that were planted, with ten times as many parameters."""
    seeds = runs.seeds(*_BY_SIZE)
    shares, bits = (final_values(runs, _BY_SIZE, name, seeds) for name in ("extracted", "exposure_bits"))
    sizes = np.array([runs.fact(place, "parameters") for place in _BY_SIZE])
    sizes = sizes if np.isfinite(sizes).all() else np.geomspace(1.0, 10.0, len(sizes))
    listed = "; ".join(
        f"{n:,.0f} parameters {share:.3f}, exposure {b:.1f} bits"
        for n, share, b in zip(sizes, shares.mean(0), bits.mean(0), strict=True)
    )
    return Effects(slopes(np.log10(sizes), shares), f"share extracted of all that were planted: {listed}")


def by_prompt(runs: Runs) -> Effects:
    """Share of planted documents that go on for a quarter after three quarters of a prompt, minus that after one."""
    seeds = runs.seeds(*_BY_PROMPT)
    shares = final_values(runs, _BY_PROMPT, "next_extracted", seeds)
    listed = ", ".join(f"{share:.3f}" for share in shares.mean(0))
    return Effects(
        shares[:, -1] - shares[:, 0], f"after 3, 6 and 9 tokens {listed}, above those never planted"
    )


CLAIMS = (
    Claim(
        36,
        "carlini-duplicates",
        "carlini",
        "The more often a sequence occurs in the training data, the more likely it is extracted.",
        "GPT-Neo 125M to 6B on the Pile, 2 to 900 duplicates: rises throughout (figure 1)",
        "slope of the share extracted (7 tokens reproduced greedily after 7) on the logarithm of how often documents were planted, "
        "at the largest size; exposure in bits is shown beside it",
        "extracted",
        "share per doubling",
        Rule("rises", 0.02),
        "from 1 to 512 duplicates 18 more of a hundred documents",
        (PLANTED.name,),
        by_duplicates,
        exchange=_BY_COUNT,
        exchanged=("extracted",),
        picture=Picture("extraction", "extracted", (_NEVER, *_BY_COUNT)),
        revised=RECIPE,
    ),
    Claim(
        36,
        "carlini-log-linear",
        "carlini",
        "Extraction grows linearly with the logarithm of the number of duplicates.",
        "A log-linear relation; neither its slope nor its fit is printed",
        "nats of likelihood by which a straight line in the logarithm fits the share extracted worse than a logistic curve, which has a "
        "threshold, less two",
        "extracted",
        "nats of likelihood",
        Rule("falls", 0.0),
        "two nats, odds of seven to one, are the least that distinguishes two curves of two constants; below them the line is as good",
        (PLANTED.name,),
        against_a_line,
        picture=Picture("extraction", "extracted", (_NEVER, *_BY_COUNT)),
        revised=f"{RECIPE}; that extraction has a threshold at this scale was known from earlier trials on other members (random tokens)",
    ),
    Claim(
        36,
        "carlini-size",
        "carlini",
        "Larger models reproduce more of the same data.",
        "19 points more for ten times the parameters (R2 99.8%)",
        "slope of the share extracted, of all that were planted, on the logarithm of the number of parameters, three sizes",
        "extracted",
        "share per tenfold size",
        Rule("rises", 0.05),
        "one in twenty, a quarter of what the paper has",
        (PLANTED.name,),
        by_size,
        exchange=_BY_SIZE,
        exchanged=("extracted",),
        picture=Picture("arms", "extracted", _BY_SIZE, labels=PLANTED.sizes),
        revised=RECIPE,
    ),
    Claim(
        36,
        "carlini-context",
        "carlini",
        "With a longer prompt more is extracted.",
        "GPT-J 6B: 33% after 50 tokens, 65% after 450",
        "share of planted documents whose next 3 tokens are produced after the first 9, minus the same after the first 3, each less "
        "that of documents never planted; suffixes differ, as they must where documents begin at BOS",
        "next_extracted",
        "share",
        Rule("rises", 0.05),
        "one in twenty; the paper has 32 points for nine times the prompt, 16 in proportion for three times",
        (PLANTED.name,),
        by_prompt,
        exchange=_BY_PROMPT,
        exchanged=("next_extracted",),
        picture=Picture("arms", "next_extracted", _BY_PROMPT, labels=("3 tokens", "6 tokens", "9 tokens")),
        revised=RECIPE,
    ),
)
