"""Claim 37, in three parts: memorised bits stop growing with the data, at 3.6 for each parameter, whatever the size."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from byrote.probes.claims.record import Claim, Effects, Grid, Picture
from byrote.probes.claims.runs_table import Place, Runs
from byrote.probes.claims.seed_effects import final_values
from byrote.probes.degrade.capacity import PUBLISHED_BITS
from byrote.probes.degrade.verdicts import Rule

CAPACITY = Grid(
    "capacity",
    "2 layers of attention on 8 to 512 sequences of 15 random tokens, 4,000 steps",
    file="capacity",
    sizes=("d8", "d16"),
    probes=("unintended_bits",),
    seconds=3.5,
)
_METRIC = "bits_per_parameter"
_POOLS = ("N8", "N32", "N128", "N512")
_SMALL, _LARGE = (
    [place for place in CAPACITY.places(*_POOLS) if place.size == size] for size in CAPACITY.sizes
)
_ENDS = (_SMALL[-1], _LARGE[-1])
_LEAST = 1e-3  # bits per parameter, so that nothing memorised has a logarithm


def _bits(runs: Runs, places: Sequence[Place]) -> Float[np.ndarray, "seeds pools"]:
    return np.maximum(final_values(runs, places, _METRIC, runs.seeds(*places)), _LEAST)


def plateau(runs: Runs) -> Effects:
    """Doublings of the memorised bits from 8 to 32 sequences, minus those from 128 to 512, of the larger model."""
    bits = _bits(runs, _LARGE)
    doublings = np.diff(np.log2(bits), axis=1)
    listed = ", ".join(f"{one:.2f}" for one in bits.mean(0))
    return Effects(
        doublings[:, 0] - doublings[:, -1], f"bits per parameter of 8, 32, 128 and 512 sequences: {listed}"
    )


def per_parameter(runs: Runs) -> Effects:
    """Bits per parameter at the most data, minus the published number, of the larger model."""
    bits = _bits(runs, _LARGE[-1:])[:, 0]
    return Effects(bits - PUBLISHED_BITS, f"{bits.mean():.2f} bits per parameter of 512 sequences")


def alike(runs: Runs) -> Effects:
    """How many times as much a parameter of the larger model holds, as a logarithm, at the most data."""
    small, large = _bits(runs, list(_ENDS)).T
    return Effects(
        np.log(large / small),
        f"{small.mean():.2f} and {large.mean():.2f} bits per parameter, smaller and larger",
    )


_PAPER = "GPT-2-style models of 100K to 20M parameters on random tokens: 3.51 (bf16) and 3.83 (fp32) bits per parameter"
_COMPARED = "bits by which the model knows its sequences better than the uniform distribution, over its parameters (embeddings included)"
CLAIMS = (
    Claim(
        37,
        "morris-plateau",
        "morris",
        "A model memorises more of a larger data set only until it is full.",
        "Memorised bits rise with the data and stop at a plateau for every size (figure 1)",
        f"{_COMPARED}: their doublings from 8 to 32 sequences, minus those from 128 to 512",
        _METRIC,
        "doublings",
        Rule("rises", 1.0),
        "half of the two doublings of what is memorised completely and of a model that is full",
        (CAPACITY.name,),
        plateau,
        exchange=tuple(_LARGE),
        exchanged=(_METRIC,),
        picture=Picture("capacity", _METRIC, (*_SMALL, *_LARGE)),
    ),
    Claim(
        37,
        "morris-bits",
        "morris",
        "Full, it holds 3.6 bits in each parameter.",
        _PAPER,
        f"{_COMPARED}, of 512 sequences, minus 3.6",
        _METRIC,
        "bits per parameter",
        Rule("stays", 0.4),
        "a ninth; the paper's own numbers lie 0.3 apart with the precision of the weights",
        (CAPACITY.name,),
        per_parameter,
        picture=Picture("capacity", _METRIC, (*_SMALL, *_LARGE)),
        revised="that such small models end far below 3.6 bits was known from earlier trials",
    ),
    Claim(
        37,
        "morris-sizes",
        "morris",
        "What a parameter holds does not depend on the size of the model.",
        "3.5 to 3.6 bits for all sizes",
        f"{_COMPARED}, of 512 sequences: logarithm of the larger model's over the smaller one's, some three times its size",
        _METRIC,
        "as a logarithm",
        Rule("stays", 0.1),
        "a tenth, three times what the paper's sizes differ by",
        (CAPACITY.name,),
        alike,
        picture=Picture("capacity", _METRIC, (*_SMALL, *_LARGE)),
    ),
)
