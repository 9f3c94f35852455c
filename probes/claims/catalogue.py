"""Every claim by its name, every paper, and every grid that claims share. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from types import MappingProxyType

from byrote.checkpoints.errors import ByroteError, did_you_mean
from byrote.probes.claims.record import Claim, Grid, Paper

PAPERS: Mapping[str, Paper] = MappingProxyType(
    {
        paper.key: paper
        for paper in (
            Paper(
                "hernandez",
                "Hernandez et al. 2022, Scaling Laws and Interpretability of Learning from Repeated Data",
                "2205.10487",
            ),
            Paper(
                "chudnovsky",
                "Chudnovsky et al. 2026, Internal Data Repetition Destroys Language Models",
                "2606.24998",
            ),
            Paper("olsson", "Olsson et al. 2022, In-context Learning and Induction Heads", "2209.11895"),
            Paper("elhage", "Elhage et al. 2021, A Mathematical Framework for Transformer Circuits"),
            Paper(
                "edelman", "Edelman et al. 2024, The Evolution of Statistical Induction Heads", "2402.11004"
            ),
            Paper(
                "toedit", "Zhu et al. 2024, How to Synthesize Text Data without Model Collapse?", "2412.14689"
            ),
            Paper(
                "collapse",
                "Shumailov et al. 2024, AI models collapse when trained on recursively generated data; Gerstgrasser et al. 2024, "
                "Is Model Collapse Inevitable?",
                "2404.01413",
            ),
            Paper(
                "singh",
                "Singh et al. 2024, What needs to go right for an induction head?",
                "2404.07129",
            ),
            Paper("bietti", "Bietti et al. 2023, Birth of a Transformer: A Memory Viewpoint", "2306.00802"),
            Paper("aoyama", "Aoyama et al. 2025, Predicting the Formation of Induction Heads", "2511.16893"),
            Paper("dohmatob", "Dohmatob et al. 2025, Strong Model Collapse", "2410.04840"),
            Paper(
                "muennighoff",
                "Muennighoff et al. 2023, Scaling Data-Constrained Language Models",
                "2305.16264",
            ),
            Paper("hapax", "Sahin et al. 2025, In-context Learning without Copying", "2511.05743"),
            Paper(
                "riro",
                "Li et al. 2023, Repetition In Repetition Out: Towards Understanding Neural Text Degeneration from the Data Perspective",
                "2310.10226",
            ),
            Paper(
                "carlini",
                "Carlini et al. 2022, Quantifying Memorization Across Neural Language Models",
                "2202.07646",
            ),
            Paper("morris", "Morris et al. 2025, How much do language models memorize?", "2505.24832"),
            Paper(
                "biderman",
                "Biderman et al. 2023, Emergent and Predictable Memorization in Large Language Models",
                "2304.11158",
            ),
            Paper("findings", "Findings of byrote's own trials, unpublished"),
        )
    }
)
_MODULES = (
    "hernandez_inverted_u", "hernandez_near_zero", "hernandez_double_descent", "hernandez_copying_in_sizes",
    "hernandez_prefix_matching_in_sizes", "hernandez_copies", "hernandez_icl", "hernandez_one_layer", "hernandez_skip_trigrams",
    "hernandez_displaced_head", "hernandez_ossification", "linear_duplicates", "linear_generations", "olsson_layers",
    "olsson_ablation", "elhage_composition", "edelman_stages",
    "singh_clamps", "bietti_memories", "aoyama_repeats", "dohmatob_plateau", "muennighoff_epochs",
    "toedit_share", "toedit_narrow", "collapse_generations", "collapse_tails", "hapax_mask",
    "riro_repetition", "carlini_extraction", "morris_capacity", "biderman_checkpoints",
    "finding_synthetic", "finding_editing", "finding_curation", "finding_signal", "finding_repeats", "finding_weights",
)  # fmt: skip


def _found() -> tuple[dict[str, Claim], dict[str, Grid]]:
    claims, grids = dict[str, Claim](), dict[str, Grid]()
    order = {paper: i for i, paper in enumerate(PAPERS)}
    modules = [import_module(f"byrote.probes.claims.{name}") for name in _MODULES]
    for module in modules:
        for value in vars(module).values():
            listed = value if isinstance(value, tuple) else (value,)
            grids |= {grid.name: grid for grid in listed if isinstance(grid, Grid)}
    all_claims = [claim for module in modules for claim in module.CLAIMS]
    for claim in sorted(all_claims, key=lambda one: (order[one.paper], one.number)):
        claims[claim.name] = claim
    return claims, grids


CLAIMS, GRIDS = _found()


def chosen(names: Sequence[str]) -> list[Claim]:
    """The claims that names mean: of claims, or of papers for all of theirs.

    Args:
        names: each a key of `CLAIMS` or `PAPERS`; none means all.

    Raises:
        ByroteError: a name of neither.
    """
    wanted = dict[str, Claim]()
    for name in names or PAPERS:
        mine = [claim for claim in CLAIMS.values() if name in (claim.name, claim.paper)]
        if not mine and names:
            raise ByroteError(
                f"there is no claim or paper {name!r}", help=did_you_mean(name, [*PAPERS, *CLAIMS])
            )
        wanted |= {claim.name: claim for claim in mine}
    return list(wanted.values())


def judged_by(claims: Sequence[Claim], *, full: bool) -> tuple[list[Claim], list[Claim]]:
    """Claims that are judged now, and those that only a full run judges.

    Args:
        claims: that are wanted.
        full: whether it is one.

    Raises:
        ByroteError: none is left.
    """
    later = [claim for claim in claims if claim.full_only and not full]
    now = [claim for claim in claims if claim not in later]
    if later and not now:
        names = ", ".join(claim.name for claim in later)
        raise ByroteError(
            f"{names}: judged by full runs alone", help="add --full; --plan --full says how long it takes"
        )
    return now, later
