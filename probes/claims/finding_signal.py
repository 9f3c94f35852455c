"""Finding 4, in two parts: repeats that a text's own table does not predict say when induction forms, beyond what repeats say."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from byrote.probes.claims.finding_grids import MADE, SETTINGS_REVISED, names_of
from byrote.probes.claims.finding_made_text import places
from byrote.probes.claims.record import Claim, Effects, Picture
from byrote.probes.claims.runs_table import Runs
from byrote.probes.claims.seed_effects import At, copying_onset, final_values, in_every_setting
from byrote.probes.degrade.verdicts import Rule
from byrote.probes.seed_statistics import partial_spearman, spearman

ARMS = (
    "human", "mixed", "cool", "warm", "edited", "edited-twice", "spared", "by-table", "by-generator",
)  # fmt: skip
_SIGNAL, _REPEATS = "data_induction_signal_frac", "data_rep_2_frac"
_PICTURE = Picture("onsets", _SIGNAL, MADE[0].places(*ARMS))


def _in_setting(runs: Runs, at: At, *, beyond_repeats: bool) -> Effects:
    """Rank correlation over the arms of one setting, seed by seed; in words that of the arms' means."""
    mine = [at(arm) for arm in ARMS]
    seeds = runs.seeds(*mine)
    onsets = np.stack([copying_onset(runs, place, seeds) for place in mine], axis=1)
    signal, repeats = (final_values(runs, mine, metric, seeds) for metric in (_SIGNAL, _REPEATS))

    def between(
        signal: Float[np.ndarray, " arms"],
        onset: Float[np.ndarray, " arms"],
        repeats: Float[np.ndarray, " arms"],
    ) -> float:
        if beyond_repeats:
            return partial_spearman(signal, onset, repeats)
        return spearman(signal, onset)

    values = np.array([between(*one) for one in zip(signal, onsets, repeats, strict=True)])
    means = between(signal.mean(0), np.sort(onsets, axis=0)[(len(seeds) - 1) // 2], repeats.mean(0))
    return Effects(values, f"{means:+.2f} over the {len(ARMS)} arms' means")


CLAIMS = (
    Claim(
        0,
        "finding-signal-onset",
        "findings",
        "The more repeats of a text its own bigram table does not predict, the earlier copying appears in training on it.",
        "another trainer, 35 arms of one table and width: Spearman -0.89 between the share of such repeats and the onset of prefix matching",
        "rank correlation over nine ways to make the text, human among them, of induction_signal (n = 2, before training) with the step "
        "at which copying appears; in the table and width where it is weakest",
        _SIGNAL,
        "rank correlation",
        Rule("falls", 0.5),
        "a quarter of the variance of ranks",
        names_of(MADE),
        lambda runs: in_every_setting(MADE, lambda at: _in_setting(runs, at, beyond_repeats=False)),
        exchange=places(*ARMS),
        exchanged=("copy_loss",),
        picture=_PICTURE,
        revised=SETTINGS_REVISED,
        full_only=True,
    ),
    Claim(
        0,
        "finding-signal-beyond-repeats",
        "findings",
        "The signal predicts this beyond what repeats alone do, whether a table predicts them or not.",
        "the same trials: Spearman of repeated bigrams alone (rep-2) +0.02 to -0.62",
        "the same rank correlation with the share of repeated bigrams (rep-2) partialled out",
        _SIGNAL,
        "partial rank correlation",
        Rule("falls", 0.3),
        "a tenth of what repeats leave of the variance of ranks",
        names_of(MADE),
        lambda runs: in_every_setting(MADE, lambda at: _in_setting(runs, at, beyond_repeats=True)),
        exchange=places(*ARMS),
        exchanged=("copy_loss",),
        picture=_PICTURE,
        revised=SETTINGS_REVISED,
        full_only=True,
    ),
)
