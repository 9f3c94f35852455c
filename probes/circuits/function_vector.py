"""Function vectors: which heads carry what a few examples have in common, so that their output alone sets the task?

Source: Todd et al. 2024, arXiv:2310.15213 (function vectors; causal indirect effect of a head's mean output); against
induction heads: Yin and Steinhardt 2025, arXiv:2502.14010. Prompts of bare token pairs, and tasks made of them, are byrote's own.

1. tasks: first token -> second of the words of the text, or of a lab source; word -> its variant (a plural s, other case,
   or a space before it) of a vocabulary with texts. A task needs as many pairs as a prompt holds, and one more
2. clean: BOS x1 y1 ... xk yk x, k = 8 or what fits. corrupted: the same with the y of the examples exchanged, none left
   in its place. Every prompt draws its own pairs; n_seq prompts a task
3. the head's z at x is set to its mean over the other clean prompts of the task, in the corrupted run
4. effect = probability of y with that, minus without; mean over tasks. effect_nats = what the loss on y falls by
5. clean, corrupted: probability of y with nothing patched
6. overlap = Jaccard similarity of the 5% of heads with the largest effect and of the 5% with the highest prefix_matching
   on `repeated_random`; chance: of two random sets. fv_prefix = prefix matching of the former, chance: mean of all heads

On tasks of your own, pairs of token ids: `byrote.probes.circuits.function_vector.effects_on(model, {"name": pairs}, bos=...)`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from byrote.checkpoints.errors import ByroteError
from byrote.interp.intervene import Edit, clean_run, derangement, edit_problem, losses_under
from byrote.interp.model import HookedModel
from byrote.probes.circuits.effects import refuse_if, strongest
from byrote.probes.circuits.load_bearing import TOP_FRAC
from byrote.probes.overlap import jaccard, random_jaccard
from byrote.probes.registry import lookup
from byrote.probes.spec import ProbeScores, probe
from byrote.probes.statistics import bootstrap_mean
from byrote.probes.stimuli import Stimulus

EXAMPLES = 8


@probe(
    unit="probability",
    range=(-1.0, 1.0),
    better="higher",
    stimulus=("words", "repeated_random"),
    summary="Which heads carry what a few examples have in common, so that their output alone sets the task?",
    chance="0: the head's output makes no difference; of overlap, two random sets of heads",
    metrics={
        "effect": "probability of the right answer after exchanged examples, with the head's mean output over right "
        "prompts, minus without",
        "effect_nats": "what the loss on the right answer falls by",
        "clean": "probability of the right answer after right examples",
        "corrupted": "probability of the right answer after exchanged examples",
        "overlap": "Jaccard similarity of the strongest 5% of heads with the 5% that match prefixes most",
        "fv_prefix": "prefix matching of the strongest 5% of heads",
        "n_tasks": "tasks measured",
        "n_examples": "examples in a prompt",
    },
    main_metric="effect",
    units={
        "effect_nats": "nats",
        "overlap": "fraction of heads",
        "fv_prefix": "attention fraction",
        "n_tasks": "tasks",
        "n_examples": "examples",
    },
    undirected=("overlap", "fv_prefix", "n_tasks", "n_examples"),
    settings=("clean", "corrupted", "n_tasks", "n_examples"),
    reads_as="Above 0: a function-vector head. A model whose clean is no higher than its corrupted does not learn from "
    "these examples, and no head can bring it back. overlap near its chance: the heads of in-context tasks are not "
    "those that copy. The strongest heads are chosen on the same sequences on which they are reported",
    not_measured="removing all heads' outputs does not change the logits; the logits are not finite; predictions "
    "depend on later tokens; no task has enough pairs; the context holds no prompt of 2 examples",
    undefined="the probability is not finite, or attention is not",
    default=False,
    passes="about 3 x (3 x layers + heads + 1) + 1: as many for each task as the bracket says, of some three tasks",
    order=258,
)
def function_vector(
    model: HookedModel, stimuli: Mapping[str, Stimulus], *, seed: int
) -> dict[str, ProbeScores]:
    """Patch every head's mean output alone, over all tasks.

    Args:
        model: a loaded checkpoint; it is left as it was.
        stimuli: "words", whose pairs make the tasks, and "repeated_random".
        seed: of prompts.

    Returns:
        `effect` (probability) and `effect_nats` per head; the rest of the model.

    Raises:
        NotMeasuredError: edits of this model cannot be relied on, or there is no task.
    """
    words, repeated = stimuli["words"], stimuli["repeated_random"]
    k = min(EXAMPLES, (model.shape.n_ctx - 3) // 2)
    refuse_if("" if k >= 2 else f"a context of {model.shape.n_ctx} tokens holds no prompt of 2 examples")
    pairs = [words.tokens[words.extra["task"] == task, 1:] for task in np.unique(words.extra["task"])]
    tasks = [unambiguous(one) for one in pairs]
    tasks = [one for one in tasks if len(one) > k]
    refuse_if("" if tasks else f"no task has the {k + 1} pairs that a prompt of {k} examples needs")
    found = [
        head_effects(
            model, *prompts(one, k=k, n_seq=repeated.n, bos=repeated.params["bos"], seed=[seed, 23, i])
        )
        for i, one in enumerate(tasks)
    ]
    clean, corrupted, patched = (np.mean([np.exp(-task[i]) for task in found], axis=0) for i in range(3))
    nats = np.mean([task[1][:, None, None] - task[2] for task in found], axis=0)
    effect = patched - corrupted[:, None, None]
    prefix, problem = prefix_matching(model, repeated, seed=seed)
    shape = model.shape
    n_top = max(1, round(TOP_FRAC * shape.n_layers * shape.n_heads))
    chosen = [_as_set(strongest(scores.mean(0), n_top), scores.shape[1:]) for scores in (effect, prefix)]
    same = float(jaccard(chosen[0][None], chosen[1][None])[0]) if not problem else np.nan
    facts = {"n_tasks": len(tasks), "n_examples": k}
    return {
        "effect": ProbeScores(effect, axes=("layer", "head"), chance=0.0),
        "effect_nats": ProbeScores(nats, axes=("layer", "head"), chance=0.0),
        "clean": ProbeScores(clean),
        "corrupted": ProbeScores(corrupted),
        "overlap": ProbeScores(np.full(repeated.n, same), chance=random_jaccard(n_top, chosen[0].size)),
        "fv_prefix": ProbeScores(
            prefix.reshape(len(prefix), -1)[:, chosen[0]].mean(1), chance=float(prefix.mean())
        ),
        **{name: ProbeScores(np.full(repeated.n, float(value))) for name, value in facts.items()},
    }


def effects_on(
    model: HookedModel,
    tasks: Mapping[str, Int[np.ndarray, "n 2"]],
    *,
    bos: int,
    n_seq: int = 32,
    seed: int = 0,
) -> pd.DataFrame:
    """`effect` on tasks of your own, one by one.

    Args:
        model: a loaded checkpoint, such as `br.load(...)`; it is left as it was.
        tasks: name -> questions and answers, as token ids.
        bos: id put in front of every prompt.
        n_seq: prompts of each task.
        seed: of prompts and the bootstrap.

    Returns:
        Rows `task`, `layer`, `head` with the probability's rise `value`, its 95% interval `lo` and `hi`, `n`, and `clean` and
        `corrupted`, the probabilities of the right answer with nothing patched.

    Raises:
        ByroteError: a task of fewer than 4 pairs, ids or lengths the model cannot take.
        NotMeasuredError: edits of this model cannot be relied on.
    """
    rows = []
    for i, (name, given) in enumerate(tasks.items()):
        pairs = unambiguous(np.asarray(given))
        k = min(EXAMPLES, (model.shape.n_ctx - 3) // 2, len(pairs) - 1)
        if k < 3:
            raise ByroteError(
                f"the task {name!r} has {len(pairs)} pairs in which no token occurs twice on one side",
                help="give 4 or more; a prompt holds 8 examples where there are 9",
            )
        clean, corrupted, patched = head_effects(
            model, *prompts(pairs, k=k, n_seq=n_seq, bos=bos, seed=[seed, 25, i])
        )
        rise = np.exp(-patched) - np.exp(-corrupted)[:, None, None]
        found = bootstrap_mean(rise.reshape(n_seq, -1), seed=seed)
        layer, head = np.indices(rise.shape[1:]).reshape(2, -1)
        p_clean, p_corrupted = np.exp(-clean).mean(), np.exp(-corrupted).mean()
        columns = {
            "task": name,
            "layer": layer,
            "head": head,
            "value": found.value,
            "lo": found.lo,
            "hi": found.hi,
        }
        rows.append(pd.DataFrame({**columns, "n": n_seq, "clean": p_clean, "corrupted": p_corrupted}))
    return pd.concat(rows, ignore_index=True)


def unambiguous(pairs: Int[np.ndarray, "n 2"]) -> Int[np.ndarray, "m 2"]:
    """Pairs in which no first and no second token stands twice: the first answer of each question, in their order."""
    firsts, seconds, pairs_once = set(), set(), []
    for a, b in pairs.tolist():
        if a not in firsts and b not in seconds:
            firsts.add(a)
            seconds.add(b)
            pairs_once.append((a, b))
    return np.array(pairs_once, dtype=np.int64).reshape(-1, 2)


def prompts(
    pairs: Int[np.ndarray, "n 2"], *, k: int, n_seq: int, bos: int, seed: list[int]
) -> tuple[Int[Tensor, "n_seq pos"], Int[Tensor, "n_seq pos"]]:
    """Clean and corrupted prompts of one task, each ending in its question and the right answer.

    Args:
        pairs: question and answer; more than k, none twice.
        k: examples before the question.
        n_seq: prompts.
        bos: put in front.
        seed: of the draws.
    """
    rng, clean, corrupted = np.random.default_rng(seed), [], []
    for i in range(n_seq):
        drawn = pairs[rng.permutation(len(pairs))[: k + 1]]
        exchanged = drawn.copy()
        exchanged[:k, 1] = drawn[:k][derangement(k, seed[0] + i).numpy(), 1]
        clean.append([bos, *drawn.ravel()])
        corrupted.append([bos, *exchanged.ravel()])
    return torch.from_numpy(np.array(clean)), torch.from_numpy(np.array(corrupted))


def head_effects(
    model: HookedModel, clean: Int[Tensor, "n_seq pos"], corrupted: Int[Tensor, "n_seq pos"]
) -> tuple[
    Float[np.ndarray, " n_seq"], Float[np.ndarray, " n_seq"], Float[np.ndarray, "n_seq n_layers n_heads"]
]:
    """Loss in nats on the last token: of clean prompts, of corrupted ones, and of these with each head's mean output.

    Sequences are of one length, their last token the right answer and the one before it the question.

    Raises:
        NotMeasuredError: edits of this model cannot be relied on, or there is one prompt only.
    """
    refuse_if("" if len(clean) > 1 else "the mean over other prompts needs two")
    refuse_if(edit_problem(model, corrupted))
    at, shape = clean.shape[1] - 2, model.shape
    patched = np.empty((len(clean), shape.n_layers, shape.n_heads))
    for layer in range(shape.n_layers):  # one layer's outputs in memory at a time
        mean = clean_run(model, clean, layers=[layer]).stand_in("mean", layer)[:, at]
        own = clean_run(model, corrupted, layers=[layer]).z[layer]
        edits = []
        for head in range(shape.n_heads):
            output = own[:, :, head].clone()
            output[:, at] = mean[:, head]
            edits.append(Edit(outputs={(layer, head): output}))
        patched[:, layer] = losses_under(model, corrupted, edits)[..., -1].double().numpy().T
    plain = [
        losses_under(model, tokens, [Edit()])[0, :, -1].double().numpy() for tokens in (clean, corrupted)
    ]
    return plain[0], plain[1], patched


def prefix_matching(
    model: HookedModel, repeated: Stimulus, *, seed: int
) -> tuple[Float[np.ndarray, "n_seq n_layers n_heads"], str]:
    """Prefix matching of every head, NaN with a reason where attention cannot be scored."""
    from byrote.probes.sweep.measure import measure_stimulus

    shape = model.shape
    for m in measure_stimulus(model, repeated, [lookup("prefix_matching")], seed=seed)[0]:
        if m.metric == "score" and m.samples is not None and not m.layer_reasons:
            return m.samples.astype(np.float64), ""
    return np.full((repeated.n, shape.n_layers, shape.n_heads), np.nan), "attention cannot be scored"


def _as_set(heads: tuple[tuple[int, int], ...], shape: tuple[int, ...]) -> np.ndarray:
    found = np.zeros(shape, dtype=bool)
    for head in heads:
        found[head] = True
    return found.ravel()
