"""Claim 11, in two parts: the induction head is gone at the worst number of repeats, and something else copies in its place."""

from __future__ import annotations

from byrote.probes.claims.hernandez_grids import HEADS_4
from byrote.probes.claims.record import Claim, Picture
from byrote.probes.claims.seed_effects import against_worst
from byrote.probes.degrade.verdicts import Rule

_DOSES = HEADS_4.places("P256", "P128", "P64", "P32", "P16", "P4")
_CONTROL = HEADS_4.places("none")[0]

CLAIMS = (
    Claim(
        11,
        "hernandez-head-lost",
        "hernandez",
        "At the worst number of repeats, prefix matching falls towards chance.",
        "1.5M parameters, f 50%: a sharp drop of prefix matching, that of a model of 2,000 parameters",
        "highest prefix matching of the heads at the worst pool inside the range, chosen on the other seeds, minus the same without "
        "repeats",
        "prefix_matching",
        "attention fraction",
        Rule("falls", 0.05),
        "one in twenty: a twentieth of the full range",
        (HEADS_4.name,),
        lambda runs: against_worst(runs, _CONTROL, _DOSES, "prefix_matching"),
        exchange=(_CONTROL, *_DOSES),
        picture=Picture("arms", "prefix_matching", (_CONTROL, *_DOSES)),
    ),
    Claim(
        11,
        "hernandez-head-replaced",
        "hernandez",
        "A skip-trigram head takes the induction head's place at the worst number of repeats.",
        "A conjecture from figure 9 (section 5.2); logit attribution was inconclusive (appendix B)",
        "log odds of b after [a][x][b] ... [a][y] at the worst pool inside the range, minus the same without repeats",
        "skip_log_odds",
        "nats of log odds",
        Rule("rises", 0.05),
        "e^0.05: the odds change by a twentieth",
        (HEADS_4.name,),
        lambda runs: against_worst(runs, _CONTROL, _DOSES, "skip_log_odds"),
        exchange=(_CONTROL, *_DOSES),
        picture=Picture("arms", "skip_log_odds", (_CONTROL, *_DOSES)),
    ),
)
