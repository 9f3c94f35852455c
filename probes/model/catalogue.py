"""The catalogue's entries about the model as a whole: what copying and context are worth to it. No torch."""

from __future__ import annotations

from byrote.probes.info import ProbeInfo

_ELHAGE = "Elhage et al. 2021, A Mathematical Framework for Transformer Circuits"
_HERNANDEZ = "Hernandez et al. 2022, arXiv:2205.10487"
_OLSSON = "Olsson et al. 2022, arXiv:2209.11895"
_CAUSAL = "predictions depend on later tokens: the model is not causal"
_TWO_BLOCKS = f"the context holds no two blocks of tokens; {_CAUSAL}"
_NO_TEXT = f"the series carries no natural text and none was given (--text FILE); {_CAUSAL}"
_NO_PAIRS = f"the context or the vocabulary is too small for a planted pair (10 tokens); {_CAUSAL}"
_ICL_SETTINGS = ("early_position", "late_position", "half_window")
_ODDS = "nats of log odds"
_P = "probability"

MODEL: tuple[ProbeInfo, ...] = (
    ProbeInfo(
        name="repeat_loss",
        kind="model",
        unit="nats",
        range=None,
        better="lower",
        source=f"{_ELHAGE}, repeated random tokens; {_OLSSON}",
        summary="Next-token loss on a block of random tokens, and on its repeats: what copying in context is worth.",
        chance="ln(number of usable tokens): guessing uniformly",
        metrics={
            "first_block": "mean loss on the first block",
            "later_blocks": "mean loss on later blocks",
            "difference": "later minus first: negative where the model copies",
            "top1_later": "share of later-block tokens predicted first",
        },
        module="byrote.probes.model.repeat_loss",
        reads_as="difference near 0: nothing is copied; later_blocks near 0 nats: repeats are predicted almost surely. Says that the "
        "model copies, not how",
        not_measured=_TWO_BLOCKS,
        stimuli=("repeated_random",),
        main_metric="later_blocks",
        units={"top1_later": "token fraction"},
        directions={"top1_later": "higher", "first_block": None},
    ),
    ProbeInfo(
        name="copy_curve",
        kind="model",
        unit="nats",
        range=None,
        better="lower",
        source="Hernandez et al. 2022, arXiv:2205.10487, figure 7 (loss on the X-th copy of a paragraph)",
        summary="Loss on the first, second, ... copy of one paragraph: does another copy still help?",
        chance="ln(number of usable tokens): guessing uniformly",
        metrics={
            "loss": "mean loss on the X-th copy",
            "slope": "change in loss per further copy, over copies 2 and later",
        },
        module="byrote.probes.model.copy_curve",
        reads_as="Falling: every further copy still helps. Flat at a high loss: no use is made of copies, as at the worst point of "
        "repeated-data training; flat near 0: the first copy was enough",
        not_measured="the context holds no two copies of a paragraph; a slope needs three",
        undefined="a slope needs at least three copies, and fewer fit the context",
        stimuli=("paragraph_copies",),
        main_metric="slope",
        curve_axis="copy",
        units={"slope": "nats per copy"},
    ),
    ProbeInfo(
        name="icl_score",
        kind="model",
        unit="nats",
        range=None,
        better="lower",
        source=f"{_OLSSON}, in-context learning score: loss at the 500th minus the 50th token of 512",
        summary="How much better a late token of real text is predicted than an early one: what context is worth.",
        chance="0: late tokens are predicted like early ones",
        metrics={
            "score": "loss at late_position minus loss at early_position, on natural text, paired by sequence",
            "windowed": "the same, each loss averaged over half_window positions on either side: steadier",
            "early_nats": "mean loss at early_position",
            "late_nats": "mean loss at late_position",
            "early_position": "the early token after BOS: 50 in sequences of 512 tokens or more, in proportion in shorter ones",
            "late_position": "the late token after BOS: 500, or in proportion",
            "half_window": "positions on either side that windowed averages over: 8, or in proportion",
        },
        module="byrote.probes.model.icl_score",
        reads_as="0: context beyond the early position is not used. Below 0: it is; published models go from above -0.15 to about "
        "-0.4 as induction heads form. Scores at other positions or on other text are no match. On text that repeats itself by "
        "design, such as the lab's, it is the worth of copying",
        not_measured=f"sequences of fewer than 16 tokens; {_NO_TEXT}",
        undefined="sequences of fewer than 16 tokens have no early and late position",
        stimuli=("natural",),
        units=dict.fromkeys(_ICL_SETTINGS, "tokens"),
        directions=dict.fromkeys(("early_nats", *_ICL_SETTINGS)),
        settings=_ICL_SETTINGS,
    ),
    ProbeInfo(
        name="loss_by_position",
        kind="model",
        unit="nats",
        range=None,
        better="lower",
        source=f"{_OLSSON}, d loss / d ln token index; {_HERNANDEZ}, figure 7 (loss per token index)",
        summary="Loss of real text by place in the context: does more context go on helping, and how fast?",
        chance="ln(number of usable tokens) at every place: guessing uniformly; a slope of 0",
        metrics={
            "loss": "mean loss of the t-th token after BOS, one value per t",
            "slope": "d loss / d ln t: weighted least squares over all t, weight 1/t",
            "slope_late": "the same from the early position of icl_score on",
        },
        module="byrote.probes.model.loss_by_position",
        reads_as="slope -0.1: each doubling of the context is worth 0.07 nats. A slope near 0 and a slope_late near 0: context is "
        "hardly used; a slope below 0 and a slope_late near 0: only the nearest tokens are",
        not_measured=_NO_TEXT,
        undefined="a slope needs at least three positions",
        stimuli=("natural",),
        main_metric="slope",
        curve_axis="token after BOS",
        units=dict.fromkeys(("slope", "slope_late"), "nats per e-fold of the position"),
    ),
    ProbeInfo(
        name="inducible_loss",
        kind="model",
        unit="nats",
        range=None,
        better="lower",
        source=f"inducible tokens of the Hapax study, arXiv:2511.05743; rule of {_OLSSON}",
        summary="Loss on tokens of real text whose bigram stood earlier in the context, and on the others.",
        chance="ln(number of usable tokens): guessing uniformly; a difference of 0",
        metrics={
            "inducible": "mean loss on tokens whose bigram (token before, token) stood earlier in the sequence",
            "other": "mean loss on all other tokens",
            "difference": "inducible minus other, paired by sequence",
            "share": "share of tokens that are inducible: a fact about the text",
        },
        module="byrote.probes.model.inducible_loss",
        reads_as="inducible falls when induction forms, other when anything is learned. Inducible tokens are frequent ones and "
        "stand late, so a difference below 0 is no proof of copying: its change over training is what counts",
        not_measured=_NO_TEXT,
        undefined="no sequence of the text has such tokens",
        stimuli=("natural",),
        main_metric="inducible",
        units={"share": "token fraction"},
        directions={"difference": None, "share": None},
    ),
    ProbeInfo(
        name="skip_trigram",
        kind="model",
        unit=_ODDS,
        range=None,
        better="higher",
        source=f"{_ELHAGE}, skip-trigrams; {_HERNANDEZ}, copying of one- and two-layer models ([a][b] ... [a] -> [b])",
        summary="Copying looser than induction: is b expected where only its surroundings, or only b itself, were seen before?",
        chance="0: an odds ratio of 1 against the same sequence without b; probabilities: guessing uniformly",
        metrics={
            "log_odds": "ln odds ratio of b after [a][x][b] ... [a][y], against the null row",
            "pair_log_odds": "the same after [a][b] ... [a]: what induction heads raise",
            "apart_log_odds": "the same after [b] ... [a]: b was seen, a was not",
            "p_skip": "mean P(b) after [a][x][b] ... [a][y]",
            "p_pair": "mean P(b) after [a][b] ... [a]",
            "p_apart": "mean P(b) after [b] ... [a]",
            "p_null": "mean P(b) where neither stood before",
            "pair_by_gap": "pair_log_odds of items with 2^position tokens between pair and query",
        },
        module="byrote.probes.model.skip_trigram",
        reads_as="pair_log_odds alone: induction. apart_log_odds as high: tokens are raised because they were seen, wherever (skip-"
        "trigrams, bags of tokens). log_odds above apart_log_odds: matching with a gap. All at 0: nothing is copied. One query "
        "per sequence, no block repeats: a model that copies only once a block has started to repeat shows less here",
        not_measured=_NO_PAIRS,
        undefined="no item has this gap",
        stimuli=("planted_pairs",),
        main_metric="log_odds",
        curve_axis="log2 of the gap",
        units={f"p_{row}": _P for row in ("skip", "pair", "apart", "null")},
        directions={"p_null": None},
    ),
    ProbeInfo(
        name="fuzzy_copy",
        kind="model",
        unit=_ODDS,
        range=None,
        better="higher",
        source=f"{_HERNANDEZ}, fuzzy copying [a][b] ... [a] -> [b'] ([Pot][ter] ... [Pot] -> [ters]); choice of b' ours",
        summary="After a pair was seen, is a variant of its second token (plural, case, space) expected too?",
        chance="0: an odds ratio of 1 against the same sequence without the pair; probabilities: guessing uniformly",
        metrics={
            "log_odds": "ln odds ratio of b' after [a][b] ... [a], against the null row",
            "excess_over_exact": "log_odds minus the same of b itself",
            "p_variant": "mean P(b') after [a][b] ... [a]",
            "p_null": "mean P(b') where neither a nor b stood before",
        },
        module="byrote.probes.model.fuzzy_copy",
        reads_as="Above 0: what is like the copied token is raised with it. Even far below the exact token's it can be strong: read "
        "excess_over_exact. English spelling decides what is alike: other languages are judged on what English there is",
        not_measured=f"no tokenizer.json says which tokens are alike, as with the lab's ids; {_NO_PAIRS}",
        undefined="which tokens are alike is not known without a tokenizer.json of English words",
        stimuli=("planted_pairs",),
        main_metric="log_odds",
        units={"p_variant": _P, "p_null": _P},
        directions={"p_null": None, "excess_over_exact": None},
    ),
)
