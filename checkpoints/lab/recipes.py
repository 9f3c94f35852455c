"""Recipes of the lab: configurations that were measured, by name, each with what it is for and where it misleads. No numpy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from byrote.checkpoints.errors import ByroteError, did_you_mean
from byrote.checkpoints.lab.config import LabConfig
from byrote.checkpoints.lab.sources import Graded, Markov, Names, SourceConfig, Text, TriggerBigrams

_small = partial(
    LabConfig, init_scale=0.8, betas=(0.9, 0.98), batch=16, lr=1e-2
)  # what the small recipes share

RECIPES: Mapping[str, LabConfig] = {
    "default": LabConfig(),
    "tiled-small": _small(
        d_model=16,
        n_heads=1,
        d_head=16,
        source=SourceConfig(d_vocab=32, n_ctx=24, block_min=6, block_max=12),
        steps=2400,
    ),
    "tiled-4-heads": _small(
        d_model=32,
        n_heads=4,
        d_head=8,
        source=SourceConfig(d_vocab=32, n_ctx=24, block_min=6, block_max=12),
        steps=1000,
        lr=6e-3,
    ),
    "names": _small(
        d_model=24,
        n_heads=1,
        d_head=24,
        normalization_type="RMS",
        source=Names(),
        steps=1000,
    ),
    "names-4-heads": _small(
        d_model=32,
        n_heads=4,
        d_head=8,
        normalization_type="RMS",
        source=Names(),
        steps=1400,
    ),
    "graded": _small(
        d_model=32,
        n_heads=2,
        d_head=16,
        attn_only=False,
        normalization_type="RMS",
        source=Graded(),
        steps=1600,
        batch=32,
        lr=6e-3,
    ),
    "markov": _small(
        d_model=16,
        n_heads=1,
        d_head=16,
        source=Markov(),
        steps=1500,
    ),
    "trigger-bigrams": _small(
        d_model=32,
        n_heads=1,
        d_head=32,
        source=TriggerBigrams(),
        steps=1000,
        batch=32,
        lr=5e-3,
    ),
    "text-bytes": _small(
        d_model=32,
        n_heads=2,
        d_head=16,
        attn_only=False,
        normalization_type="RMS",
        source=Text(),
        steps=1000,
        lr=6e-3,
    ),
}

# The ladder: width, and the learning rate that goes with it.
SIZES: Mapping[str, Mapping[str, float]] = {
    f"d{d_model}": {"d_model": d_model, "lr": lr}
    for d_model, lr in ((8, 1.5e-2), (12, 1.2e-2), (16, 1e-2), (24, 8e-3), (32, 6e-3), (48, 5e-3), (64, 4e-3))
}


@dataclass(frozen=True)
class About:
    """What is said of a recipe.

    Attributes:
        purpose: what it is for.
        measured: what was seen with it; empty where nothing was.
        trap: what not to conclude from it; empty where nothing is known.
    """

    purpose: str
    measured: str = ""
    trap: str = ""


_TILED_TRAP = "with a norm, models learn to copy tiled data without prefix matching: never infer induction from copy loss"
_UNTRIED = "nothing yet"
ABOUT: Mapping[str, About] = {
    "default": About("the first experiment: four heads a layer, a minute or two", trap=_TILED_TRAP),
    "tiled-small": About(
        "loss-level claims about repeats in seconds a run; one head a layer", trap=_TILED_TRAP
    ),
    "tiled-4-heads": About(
        "claims about heads in seconds a run: four heads a layer",
        measured="3 of 3 seeds: all four heads of layer 1 are induction heads by the verdict, formed between steps 286 and 429, "
        "prefix matching 0.64 to 0.83; copy loss 0.35 to 0.49 nats (floor 0.01); attention to the previous token 0.26 to "
        "0.44 in layer 0; 5.5 CPU s a run, written and all",
        trap=_TILED_TRAP,
    ),
    "names": About("claims about in-weights and in-context parts; one head a layer"),
    "names-4-heads": About(
        "claims about heads: four a layer, and losses by mechanism",
        measured="3 of 3 seeds: copy loss 0.65 to 0.92 nats (floor 0.07), table 1.83 to 1.86 (1.54), prefix matching 0.39 to "
        "0.67 in all four heads of layer 1, attention to the previous token up to 0.23, 0.45 and 0.53 in layer 0; "
        "5.1 CPU s a run, three together",
        trap="at 800 steps prefix matching is 0.18 to 0.41: compare runs at the same step, and say which",
    ),
    "graded": About(
        "a ladder of sizes: test loss, facts and copying each vary with size",
        measured="2 seeds at 1,000 of 1,600 steps: copy loss 2.12 and 2.82 nats (floor 0.01), table 1.81 and 1.84 (1.69), "
        "facts 4.12 and 4.07 (1.76); 12.3 CPU s a run, two together",
        trap="at 1,000 steps the change is under way and no head matches prefixes yet: train to the end, and longer",
    ),
    "markov": About(
        "in-context statistics: from the unigram to the bigram solution (Edelman et al. 2024)",
        measured="2 of 2 seeds: test loss 1.233 and 1.234 nats, the exact floor is 1.215; 3.7 CPU s a run, two together",
    ),
    "trigger-bigrams": About("a memory of bigrams beside induction (Bietti et al. 2023)", measured=_UNTRIED),
    "text-bytes": About(
        "memorisation and corpus statistics of real text",
        measured=_UNTRIED,
        trap="too few tokens of real text are inducible at this scale for induction heads to form",
    ),
}


def recipe(name: str) -> LabConfig:
    """A recipe by its name.

    Raises:
        ByroteError: there is none of that name.
    """
    if name not in RECIPES:
        raise ByroteError(f"the lab has no recipe {name!r}", help=did_you_mean(name, RECIPES))
    return RECIPES[name]
