"""Claim 29: synthetic text is narrower than the text its generator was trained on."""

from __future__ import annotations

from byrote.probes.claims.record import Claim, Picture
from byrote.probes.claims.seed_effects import difference
from byrote.probes.claims.synthetic_grids import SHARES
from byrote.probes.degrade.verdicts import Rule

_HUMAN, _SYNTHETIC = SHARES.places("human", "syn100")

CLAIMS = (
    Claim(
        29,
        "toedit-narrow",
        "toedit",
        "Synthetic text is narrower than human text: its n-grams are concentrated in fewer.",
        "Uni- and bigrams hashed into 10,000 buckets: synthetic text fills few (figure 4)",
        "entropy of the bigrams of what is trained on, sampled at temperature 0.7, minus that of human text",
        "data_bigram_entropy",
        "nats",
        Rule("falls", 0.05),
        "a twentieth fewer bigrams in effect",
        (SHARES.name,),
        lambda runs: difference(runs, _HUMAN, _SYNTHETIC, "data_bigram_entropy"),
        exchange=(_HUMAN, _SYNTHETIC),
        picture=Picture(
            "arms", "data_bigram_entropy", SHARES.places("human", "syn25", "syn50", "syn75", "syn100")
        ),
    ),
)
