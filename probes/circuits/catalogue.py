"""The catalogue's entries about circuits that are tried out: heads ablated, clamped, and cut off. No torch."""

from __future__ import annotations

from byrote.probes.info import ProbeInfo

_OLSSON = "Olsson et al. 2022, arXiv:2209.11895"
_WANG = "Wang et al. 2022, arXiv:2211.00593"
_ATTENTION = "attention fraction"
_EDITS = (
    "removing all heads' outputs does not move the logits; the logits are not finite; predictions depend on later "
    "tokens; there is one sequence only"
)
_KEPT = (
    "keeping patterns: head outputs are not attention times values, or patterns set so do not move the logits"
)
_NOT_FINITE = "the loss is not finite"
_KINDS = {
    "zero": "z set to 0",
    "mean": "z set to its mean over the other sequences at the same position",
    "resample": "z taken from another sequence of the stimulus",
    "pattern_preserving": "z set to 0 and later layers' attention kept as in the clean run",
}

CIRCUITS: tuple[ProbeInfo, ...] = (
    ProbeInfo(
        name="ablation",
        kind="direct",
        unit="nats",
        range=None,
        better=None,
        source=f"{_OLSSON}, full and pattern-preserving ablations; mean ablation: {_WANG}; resampling: Chan et al. 2022",
        summary="What is lost on repeated tokens when one head's output is taken away, four ways.",
        chance="0: the head does nothing for copying",
        metrics={
            **{kind: f"change in loss on later blocks with {how}" for kind, how in _KINDS.items()},
            "clean": "loss on later blocks with nothing changed",
        },
        module="byrote.probes.circuits.ablation",
        reads_as="Above 0: the model predicts repeats worse without the head. 0 is no proof that it does nothing: heads stand in for "
        "each other, and a head that lowers others' loss goes below. Zero also takes away what a head always writes; mean leaves "
        "it. pattern_preserving near 0 where zero is large: the head steers others' attention, as a previous-token head does",
        not_measured=f"{_EDITS}; {_KEPT}",
        undefined=_NOT_FINITE,
        stimuli=("repeated_random",),
        default=False,
        passes="4 x heads + 3 x layers",
        main_metric="mean",
        directions={"clean": "lower"},
    ),
    ProbeInfo(
        name="ablation_text",
        kind="direct",
        unit="nats",
        range=None,
        better=None,
        source=f"{_OLSSON}, ablations and their effect on the in-context learning score",
        summary="What loss on real text, and in-context learning, lose when one head's output is taken away.",
        chance="0: the head does nothing for it",
        metrics={
            **{f"loss_{kind}": f"change in mean loss with {how}" for kind, how in _KINDS.items()},
            **{f"icl_{kind}": f"change in late minus early loss with {how}" for kind, how in _KINDS.items()},
        },
        module="byrote.probes.circuits.ablation_text",
        reads_as="icl above 0: the late loss suffers more than the early one, the head serves in-context learning. loss above 0 "
        "with icl near 0: it serves everywhere alike. icl rests on two tokens a sequence: mind the interval",
        not_measured=f"the series carries no natural text and none was given (--text FILE); {_EDITS}; {_KEPT}",
        undefined=_NOT_FINITE,
        stimuli=("natural",),
        default=False,
        passes="4 x heads + 3 x layers",
        main_metric="loss_mean",
    ),
    ProbeInfo(
        name="load_bearing",
        kind="direct",
        unit="nats",
        range=None,
        better="higher",
        source="matched controls: Sabry and Belz 2025, arXiv:2509.22947; mean ablation: Wang et al. 2022, arXiv:2211.00593",
        summary="Verdict: does the model need the heads that look like induction heads, more than random heads beside them?",
        chance="0: no more is lost than with as many random heads of the same layers",
        metrics={
            "verdict": "3 load-bearing, 2 distributed, 1 signature only, 0 neither",
            "excess": "loss added on later blocks without the top heads minus that without random ones",
            "top_change": "loss added without the top heads: the k with the highest prefix_matching, ablated together",
            "random_change": "loss added without random heads, mean over the draws",
            "random_most": "the same of the draw that costs most",
            "beaten_frac": "share of the draws that cost less than the top heads",
            "signature": "prefix matching of the top heads above its shuffled null",
            "called_excess": "excess of the heads called induction heads",
            "wide_excess": "excess of all heads whose own prefix matching is above its null by 0.05",
            "wide_change": "loss added without all of those",
            "gain": "loss on the first block minus loss on later ones, nothing changed: what copying is worth",
            "n_top": "k: 5% of all heads, at least 1",
            "n_called": "heads called induction heads",
            "n_wide": "heads whose own prefix matching is above its null by 0.05",
            "n_draws": "distinct random sets the top heads were held against",
            "n_possible": "distinct random sets there are",
        },
        module="byrote.probes.circuits.load_bearing",
        reads_as="load-bearing: the top heads match prefixes and their loss costs over 0.05 nats more than random heads'. "
        "distributed: these few can be spared, all that look the part together cannot. signature only: they look the part and "
        "copying does without. Few heads mean few draws (n_draws); random heads may be induction heads too, which makes excess small",
        not_measured=f"{_EDITS}; attention is not finite, not causal or does not sum to 1; the context holds no two blocks of tokens",
        undefined="there are no such heads, copying was not measured, or a layer has too few other heads to draw from",
        stimuli=("repeated_random", "shuffled_repeat", "jittered_repeat"),
        default=False,
        passes="up to 70: sets of heads and their random draws",
        main_metric="excess",
        units={
            "verdict": "0 to 3",
            "signature": _ATTENTION,
            **dict.fromkeys(("n_top", "n_called", "n_wide"), "heads"),
            **dict.fromkeys(("n_draws", "n_possible"), "sets of heads"),
            "beaten_frac": "fraction of draws",
        },
        directions=dict.fromkeys(
            ("random_change", "random_most", "n_top", "n_called", "n_wide", "n_draws", "n_possible")
        ),
        settings=("n_top", "n_draws", "n_possible"),
        words={"verdict": ("neither", "signature only", "distributed", "load-bearing")},
    ),
    ProbeInfo(
        name="clamp",
        kind="direct",
        unit="nats",
        range=None,
        better=None,
        source="Singh et al. 2024, arXiv:2404.07129, clamping heads to ideal attention",
        summary="What would be gained on repeated tokens if a head looked exactly where an ideal one looks?",
        chance="0: where the head looks makes no difference",
        metrics={
            "induction": "change in loss on later blocks with the head's attention put on what followed earlier copies",
            "previous_token": "the same with it put on the token before",
        },
        module="byrote.probes.circuits.clamp",
        reads_as="Well below 0: the head could copy, or feed heads that do, and what is missing is where it looks. 0 on a head that "
        "matches already: nothing is left to gain; 0 on one that does not: what it writes would not help. Above 0: what the head "
        "does instead is needed",
        not_measured=f"{_EDITS}; {_KEPT}",
        undefined=_NOT_FINITE,
        stimuli=("repeated_random",),
        default=False,
        passes="2 x heads + 1",
        main_metric="induction",
    ),
    ProbeInfo(
        name="induction_circuit",
        kind="direct",
        unit=_ATTENTION,
        range=(-1.0, 1.0),
        better="lower",
        source="Elhage et al. 2021, A Mathematical Framework for Transformer Circuits, K-composition; path patching: "
        f"{_WANG}",
        summary="Does a head match prefixes because of what one previous-token head writes into its keys?",
        chance="0: nothing passes along the path",
        metrics={
            "change": "change in the later head's prefix matching when the path into its keys is ablated",
            "q_change": "the same for the path into its queries, the control",
            "k_z": "K-composition of the pair in standard deviations of its rotation null",
            "n_pairs": "pairs measured: of the 4 strongest previous-token and the 4 strongest prefix-matching heads",
            "n_possible": "pairs of an earlier and a later head in the model",
        },
        module="byrote.probes.circuits.induction_circuit",
        reads_as="Well below 0: the pair is an induction circuit, and this path carries it. Near 0 on a head that matches prefixes: it "
        "hears of previous tokens from several heads, or through MLPs, or matches otherwise. A high k_z without a change: wired, not used",
        not_measured="fewer than two layers; a norm after attention bends what heads write (Gemma 2, OLMo 2); replacing keys does "
        "not move attention; attention is not finite, not causal or does not sum to 1; there is one sequence only",
        undefined="no token of the stimulus has an earlier copy, or a head's circuit is zero",
        stimuli=("repeated_random",),
        default=False,
        passes="about 3 + 16 x receiver layers (at most 4), each up to the receiver",
        main_metric="change",
        units={
            "k_z": "standard deviations",
            **dict.fromkeys(("n_pairs", "n_possible"), "pairs"),
        },
        directions={"q_change": None, "k_z": "higher", **dict.fromkeys(("n_pairs", "n_possible"))},
        settings=("n_pairs", "n_possible"),
    ),
)
