"""Token batches with a seed and an id. Ids only: nothing passes through a decode/encode round trip. No torch.

The id names the kind, its sizes, the seed and a digest of the tokens, so that two results made with the same id were
measured on the same tokens.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Int

from byrote.checkpoints.errors import ByroteError, PluginError
from byrote.checkpoints.token_sets import NO_TOKEN_SETS, TokenSets, starts_over
from byrote.checkpoints.words import found_words
from byrote.probes.contexts import contexts_in_order
from byrote.probes.sequences import Stimulus as Stimulus
from byrote.probes.sequences import Vocabulary as Vocabulary

MIN_BLOCK = 12  # a shorter block is easier to guess by position than by copying
COPIES = 11  # Hernandez et al. 2022: one paragraph, eleven times
SLOPE_COPIES, MIN_PARAGRAPH = (
    4,
    8,
)  # a slope needs four copies, for which a short context has shorter paragraphs
CONDITIONS = ("null", "apart", "pair", "skip")  # rows of one planted item, in this order
PLANTED_TOKENS, PLANTED_GAPS = 64, (4, 8, 16, 32)


def make(
    kind: str,
    vocabulary: Vocabulary,
    *,
    n_ctx: int,
    seed: int,
    n_seq: int = 32,
    token_sets: TokenSets = NO_TOKEN_SETS,
) -> Stimulus:
    """Draw a stimulus of one kind.

    Args:
        kind: name in `STIMULI` (random tokens), `TOKEN_SET_STIMULI` (tokens of the user or the series) or `PLUGIN_STIMULI`.
        vocabulary: ids that random stimuli may use.
        n_ctx: the model's context; no sequence is longer.
        seed: of the draws.
        n_seq: sequences; the user's token sets may have fewer.
        token_sets: real text, members and twins, where there are any.

    Raises:
        ByroteError: the context or the vocabulary is too small, or the token set that a stimulus needs is missing.
    """
    if kind in TOKEN_SET_STIMULI:
        return TOKEN_SET_STIMULI[kind](token_sets, vocabulary, n_ctx, seed, n_seq)
    if kind in PLUGIN_STIMULI:
        return PLUGIN_STIMULI[kind].draw(vocabulary, n_ctx, seed, n_seq)
    return STIMULI[kind](vocabulary, n_ctx, seed, n_seq)


def block_sizes(n_ctx: int, n_ids: int, *, r: int = 25, m: int = 4) -> tuple[int, int]:
    """Block length and repeats that fit: repeats give way first, then the block, never under two repeats."""
    room = n_ctx - 1
    r = min(r, n_ids)
    while m > 2 and room // m < min(r, MIN_BLOCK):
        m -= 1
    r = min(r, room // m)
    if r < 2:
        raise ByroteError(
            f"a context of {n_ctx} tokens and {n_ids} usable ids cannot hold a repeated block",
            help="prefix matching needs BOS and two blocks of at least 2 tokens",
        )
    return r, m


def _blocks(
    vocabulary: Vocabulary, rng: np.random.Generator, n_seq: int, r: int
) -> Int[np.ndarray, "n_seq r"]:
    """Distinct tokens inside every block."""
    order = rng.random((n_seq, len(vocabulary.ids))).argpartition(r - 1, axis=1)[:, :r]
    shuffled = np.take_along_axis(order, rng.random((n_seq, r)).argsort(axis=1), axis=1)
    return vocabulary.ids[shuffled]


def repeated_random(vocabulary: Vocabulary, n_ctx: int, seed: int, n_seq: int) -> Stimulus:
    """BOS, then r random tokens, m times (Olsson et al. 2022: r = 25, m = 4)."""
    r, m = block_sizes(n_ctx, len(vocabulary.ids))
    block = _blocks(vocabulary, np.random.default_rng([seed, 1]), n_seq, r)
    return _stimulus("repeated_random", vocabulary, seed, np.tile(block, (1, m)), r=r, m=m)


def shuffled_repeat(vocabulary: Vocabulary, n_ctx: int, seed: int, n_seq: int) -> Stimulus:
    """The null: first block as in `repeated_random`, every later block drawn anew."""
    repeated = repeated_random(vocabulary, n_ctx, seed, n_seq)
    r, m = repeated.params["r"], repeated.params["m"]
    rng = np.random.default_rng([seed, 2])
    later = [_blocks(vocabulary, rng, n_seq, r) for _ in range(m - 1)]
    body = np.concatenate([repeated.tokens[:, 1 : r + 1], *later], axis=1)
    return _stimulus("shuffled_repeat", vocabulary, seed, body, r=r, m=m, match_tokens=repeated.tokens)


def jittered_repeat(vocabulary: Vocabulary, n_ctx: int, seed: int, n_seq: int) -> Stimulus:
    """As `repeated_random`, with a block length per sequence from 0.6 r to 1.4 r, tiled to the same total."""
    r, m = block_sizes(n_ctx, len(vocabulary.ids))
    length = r * m
    low, high = max(2, math.ceil(0.6 * r)), min(math.floor(1.4 * r), len(vocabulary.ids), length // 2)
    rng = np.random.default_rng([seed, 3])
    periods = rng.integers(low, max(low, high) + 1, size=n_seq)
    block = _blocks(vocabulary, rng, n_seq, int(periods.max()))
    offsets = np.arange(length)[None] % periods[:, None]
    copies = np.arange(length)[None] // periods[:, None] + 1
    body = np.take_along_axis(block, offsets, axis=1)
    return _stimulus("jittered_repeat", vocabulary, seed, body, r=r, m=m, copies=copies)


def paragraph_copies(vocabulary: Vocabulary, n_ctx: int, seed: int, n_seq: int) -> Stimulus:
    """One random paragraph of about 40 tokens, 11 times; fewer copies before shorter than 12 tokens, or than 8 for four."""
    copies = COPIES
    p = min(40, (n_ctx - 1) // copies, len(vocabulary.ids))
    if p < MIN_BLOCK:
        copies = max(2, (n_ctx - 1) // MIN_BLOCK)
        if copies < SLOPE_COPIES <= (n_ctx - 1) // MIN_PARAGRAPH:
            copies = SLOPE_COPIES
        p = min((n_ctx - 1) // copies, 40, len(vocabulary.ids))
    if p < 2:
        raise ByroteError(
            f"a context of {n_ctx} tokens cannot hold a copied paragraph", help="skip copy_curve: -p ..."
        )
    n_seq = max(8, n_seq // 2)  # long sequences: half as many cost about the same
    block = _blocks(vocabulary, np.random.default_rng([seed, 4]), n_seq, p)
    return _stimulus("paragraph_copies", vocabulary, seed, np.tile(block, (1, copies)), r=p, m=copies)


def planted_pairs(vocabulary: Vocabulary, n_ctx: int, seed: int, n_seq: int) -> Stimulus:
    """A token b planted early in distinct random tokens, and a query at the end: four rows per item (`CONDITIONS`).

    BOS, filler, three planted tokens, a gap of 4 to 32 tokens of filler, and the query q r. Planted are `d x c` (null),
    `d x b` (apart), `d r b` (pair) or `q x b` (skip); everything else is equal. `extra` names b (`target`), the token
    whose text is most like it (`variant`, -1 where ids have no text) and the gap. n_seq items, the gaps in turn.
    """
    pos = min(n_ctx, PLANTED_TOKENS, len(vocabulary.ids) - bool(vocabulary.variants))
    gaps = [gap for gap in PLANTED_GAPS if gap + 6 <= pos]
    if not gaps:
        raise ByroteError(
            f"a context of {n_ctx} tokens and {len(vocabulary.ids)} usable ids cannot hold a planted pair",
            help="planted pairs need a context of 10 tokens, and as many ids",
        )
    rng = np.random.default_rng([seed, 9])
    drawn = _blocks(vocabulary, rng, n_seq, min(pos + 2, len(vocabulary.ids)))
    targets = _targets(vocabulary, rng, drawn[:, 0])
    rows = []
    for i, (b, variant) in enumerate(targets):
        c, d, x, q, r, *filler = (token for token in drawn[i] if token not in (b, variant))
        gap = gaps[i % len(gaps)]
        before, between = filler[: pos - 6 - gap], filler[pos - 6 - gap : pos - 6]
        for planted in ((d, x, c), (d, x, b), (d, r, b), (q, x, b)):
            rows.append([vocabulary.bos, *before, *planted, *between, q, r])
    extra = {"target": targets[:, 0], "variant": targets[:, 1], "gap": np.resize(gaps, n_seq)}
    per_row = {name: np.repeat(array, len(CONDITIONS)) for name, array in extra.items()}
    return _from_tokens("planted_pairs", vocabulary, seed, np.array(rows), extra=per_row)


def _targets(
    vocabulary: Vocabulary, rng: np.random.Generator, otherwise: Int[np.ndarray, " n_seq"]
) -> Int[np.ndarray, "n_seq 2"]:
    """b and its variant for every item, either way round; without variants b as given, and -1."""
    if not vocabulary.variants:
        return np.stack([otherwise, np.full_like(otherwise, -1)], axis=1)
    pairs = np.array(vocabulary.variants, dtype=np.int64)
    n_seq = len(otherwise)
    rows = np.concatenate([rng.permutation(len(pairs)) for _ in range(-(-n_seq // len(pairs)))])[:n_seq]
    turned = rng.random(n_seq) < 0.5
    return np.where(turned[:, None], pairs[rows, ::-1], pairs[rows])


def _stimulus(
    kind: str,
    vocabulary: Vocabulary,
    seed: int,
    body: np.ndarray,
    *,
    r: int,
    m: int,
    copies: np.ndarray | None = None,
    match_tokens: np.ndarray | None = None,
) -> Stimulus:
    """A stimulus of random blocks: BOS is put in front."""
    n_seq, length = body.shape
    bos = np.full((n_seq, 1), vocabulary.bos, dtype=np.int64)
    tokens = np.concatenate([bos, body], axis=1).astype(np.int64)
    if copies is None:
        copies = np.broadcast_to(np.arange(length) // r + 1, (n_seq, length))
    copy_index = np.concatenate([np.zeros((n_seq, 1), dtype=np.int64), copies], axis=1).astype(np.int64)
    sizes = {"r": r, "m": m, "n_ids": len(vocabulary.ids), "bos": vocabulary.bos}
    matched = tokens if match_tokens is None else match_tokens
    name = f"{kind}-r{r}m{m}-n{n_seq}-s{seed}-{_digest(tokens)}"
    return Stimulus(name, kind, seed, tokens, copy_index, matched, params=sizes)


def _digest(*arrays: np.ndarray) -> str:
    return hashlib.blake2b(b"".join(array.tobytes() for array in arrays), digest_size=4).hexdigest()


STIMULI: Mapping[str, Callable[[Vocabulary, int, int, int], Stimulus]] = {
    "repeated_random": repeated_random,
    "shuffled_repeat": shuffled_repeat,
    "jittered_repeat": jittered_repeat,
    "paragraph_copies": paragraph_copies,
    "planted_pairs": planted_pairs,
}


def natural(token_sets: TokenSets, vocabulary: Vocabulary, n_ctx: int, seed: int, n_seq: int) -> Stimulus:
    """Windows of real text: the user's, or the held-out split of a lab series; BOS first."""
    windows = _given(token_sets.natural, "natural text", "--text FILE")
    rng = np.random.default_rng([seed, 5])
    rows = np.sort(rng.permutation(len(windows))[:n_seq])
    return _from_tokens("natural", vocabulary, seed, windows[rows][:, :n_ctx])


def labelled(token_sets: TokenSets, vocabulary: Vocabulary, n_ctx: int, seed: int, n_seq: int) -> Stimulus:
    """Sequences of the held-out split of a lab series. `extra`: the mechanism of every token by its code, and its floor in nats."""
    if token_sets.labelled is None:
        raise ByroteError(
            "no labelled sequences for this series: labels exist only for a lab series whose source has an exact floor",
            help="leave the probe out, or measure what `byrote lab train --source NAME` wrote; real text has no labels",
        )
    known = token_sets.labelled()
    rows = np.sort(np.random.default_rng([seed, 15]).permutation(len(known.tokens))[:n_seq])
    extra = {"mechanism": known.mechanism[rows], "floor_nats": known.floor_nats[rows]}
    return _from_tokens("labelled", vocabulary, seed, known.tokens[rows][:, :n_ctx], extra=extra)


def natural_contexts(
    token_sets: TokenSets, vocabulary: Vocabulary, n_ctx: int, seed: int, n_seq: int
) -> Stimulus:
    """The first n_seq of up to 512 windows of real text in one fixed order, with the document of each.

    The id names the text and how many are shown: of two that differ in the number alone, one begins with the other.
    """
    _given(token_sets.natural, "natural text", "--text FILE")
    pool, document = contexts_in_order(token_sets, n_ctx=n_ctx, seed=seed)
    _given(pool, "natural text of this seed and context", "--text FILE")
    shown = _from_tokens(
        "natural_contexts", vocabulary, seed, pool[:n_seq], extra={"document": document[:n_seq]}
    )
    (n, pos), text = shown.tokens.shape, _digest(pool, document)
    return replace(shown, id=f"natural_contexts-l{pos}-n{n}-s{seed}-{text}")


def members(token_sets: TokenSets, vocabulary: Vocabulary, n_ctx: int, seed: int, n_seq: int) -> Stimulus:
    """Sequences the model was trained on repeatedly, with how often: all of them, or 8 n_seq drawn at random."""
    tokens = _given(token_sets.members, "training members", "--members FILE")
    assert token_sets.repeat_count is not None, "members have repeat counts"
    rows = _some(len(tokens), 8 * n_seq, np.random.default_rng([seed, 6]))
    return _with_counts(
        "members", token_sets, vocabulary, seed, tokens[:, :n_ctx], rows, token_sets.repeat_count
    )


def twins(token_sets: TokenSets, vocabulary: Vocabulary, n_ctx: int, seed: int, n_seq: int) -> Stimulus:
    """Fresh sequences of the members' source, never trained on: their repeat count is 0."""
    tokens = _given(token_sets.twins, "twins of the training members", "--twins FILE")
    rows = _some(len(tokens), 8 * n_seq, np.random.default_rng([seed, 7]))
    return _with_counts("twins", token_sets, vocabulary, seed, tokens[:, :n_ctx], rows)


def candidates(token_sets: TokenSets, vocabulary: Vocabulary, n_ctx: int, seed: int, n_seq: int) -> Stimulus:
    """What members are ranked among: the twins and, where the source is known, more of it, up to 32 n_seq."""
    found = token_sets.twins if token_sets.candidates is None else token_sets.candidates
    tokens = _given(found, "twins of the training members", "--twins FILE")
    rows = _some(len(tokens), 32 * n_seq, np.random.default_rng([seed, 8]))
    return _with_counts("candidates", token_sets, vocabulary, seed, tokens[:, :n_ctx], rows)


def words(token_sets: TokenSets, vocabulary: Vocabulary, n_ctx: int, seed: int, n_seq: int) -> Stimulus:
    """BOS and two tokens that belong together. `extra` names the task: 0 a word of the text or of a lab source, 1 variants."""
    pairs, variants = token_sets.words, np.array(vocabulary.variants, dtype=np.int64).reshape(-1, 2)
    if pairs is None and token_sets.natural is not None:
        pairs = found_words(natural(token_sets, vocabulary, n_ctx, seed, n_seq).tokens, vocabulary.ids)
    both = (np.zeros((0, 2), dtype=np.int64) if pairs is None else pairs, variants)
    rng = np.random.default_rng([seed, 13])
    drawn = [one[_some(len(one), 8 * n_seq, rng)] for one in both]
    shown = _given(np.concatenate(drawn), "words of two tokens", "--text FILE")
    tokens = np.concatenate([np.full((len(shown), 1), vocabulary.bos), shown], axis=1)
    return _from_tokens(
        "words", vocabulary, seed, tokens, extra={"task": np.repeat([0, 1], [len(d) for d in drawn])}
    )


def _with_counts(
    kind: str,
    token_sets: TokenSets,
    vocabulary: Vocabulary,
    seed: int,
    tokens: np.ndarray,
    rows: np.ndarray,
    repeat_count: np.ndarray | None = None,
) -> Stimulus:
    """Some of the members or twins, with what memory is measured by: counts (None: never), and loss under a reference."""
    shown, reference = tokens[rows], np.full(tokens[rows].shape, np.nan)  # NaN where none is known
    known_as = "twins" if kind == "candidates" and token_sets.candidates is None else kind
    if known_as in token_sets.reference_nll:  # of a model that never saw them
        reference = token_sets.reference_nll[known_as][rows]
    elif token_sets.reference is not None:  # of the source
        reference = token_sets.reference(shown)
    extra = {
        "repeat_count": np.zeros_like(rows) if repeat_count is None else repeat_count[rows],
        "reference_nll": reference,
        "n_in_all": np.full(len(rows), len(tokens)),
    }
    return _from_tokens(kind, vocabulary, seed, shown, extra=extra)


def _given(tokens: np.ndarray | None, what: str, option: str) -> np.ndarray:
    if tokens is None or not len(tokens):
        raise ByroteError(f"no {what} for this series: add {option}", help=f"add {option}")
    return tokens


def _some(n: int, most: int, rng: np.random.Generator) -> np.ndarray:
    return np.arange(n) if n <= most else np.sort(rng.permutation(n)[:most])


def _from_tokens(
    kind: str,
    vocabulary: Vocabulary,
    seed: int,
    tokens: np.ndarray,
    *,
    extra: Mapping[str, np.ndarray] | None = None,
    match_tokens: np.ndarray | None = None,
) -> Stimulus:
    """A stimulus of given sequences, BOS and all; `extra` says where each begins to repeat itself."""
    tokens = tokens.astype(np.int64)
    n_seq, pos = tokens.shape
    extra = {name: array[:, :pos] if array.ndim == 2 else array for name, array in (extra or {}).items()} | {
        "second_block_start": starts_over(tokens)
    }
    # What comes with the tokens decides numbers too: other repeat counts are another stimulus.
    matched, parts = (tokens, []) if match_tokens is None else (match_tokens, [match_tokens])
    name = (
        f"{kind}-l{pos}-n{n_seq}-s{seed}-{_digest(tokens, *(extra[name] for name in sorted(extra)), *parts)}"
    )
    sizes = {"pos": pos, "n_ids": len(vocabulary.ids), "bos": vocabulary.bos}
    return Stimulus(name, kind, seed, tokens, np.zeros_like(tokens), matched, params=sizes, extra=extra)


TOKEN_SET_STIMULI: Mapping[str, Callable[[TokenSets, Vocabulary, int, int, int], Stimulus]] = {
    "natural": natural,
    "natural_contexts": natural_contexts,
    "labelled": labelled,
    "members": members,
    "twins": twins,
    "candidates": candidates,
    "words": words,
}
_NO_BLOCKS = "the context holds no two blocks of tokens"
_UNAVAILABLE = {
    **dict.fromkeys(("repeated_random", "shuffled_repeat", "jittered_repeat"), _NO_BLOCKS),
    "paragraph_copies": "the context holds no two copies of a paragraph",
    "planted_pairs": "the context or the vocabulary is too small for a planted pair (10 tokens)",
    **dict.fromkeys(
        ("natural", "natural_contexts"),
        "the series carries no natural text and none was given (--text FILE)",
    ),
    "labelled": "the series is not the lab's, or its source is real text: the mechanism that can predict a token is unknown",
    "words": "there is no text, or it holds no two tokens that belong together (--text FILE)",
    "members": "the series carries no members and none were given (--members FILE)",
    **dict.fromkeys(("twins", "candidates"), "there are no twins of the members (--twins FILE)"),
}


def kinds() -> list[str]:
    """Names of every stimulus there is, plugins' included."""
    return [*STIMULI, *TOKEN_SET_STIMULI, *PLUGIN_STIMULI]


def unavailable(kind: str) -> str:
    """When a stimulus of this kind cannot be shown, in words; "" where that is not known."""
    return _UNAVAILABLE.get(kind, "")


class PluginStimulus:
    """A stimulus that is not byrote's own: a function that draws token ids.

    Attributes:
        function: see `stimulus`.
        kind: its name.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function, self.kind, self.__wrapped__ = function, function.__name__, function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the function returns."""
        return self.function(*args, **kwargs)

    def draw(self, vocabulary: Vocabulary, n_ctx: int, seed: int, n_seq: int) -> Stimulus:
        """The stimulus, BOS put in front.

        Raises:
            PluginError: the function fails, or what it returns cannot be shown.
        """
        try:
            found = self.function(vocabulary.ids.copy(), n_ctx, n_seq, seed)
            named = found if isinstance(found, Mapping) else {"tokens": found}
            arrays = {name: np.asarray(array) for name, array in named.items()}
        except Exception as error:  # whatever a user's function may raise
            raise PluginError(
                f"the stimulus {self.kind} raised {type(error).__name__}: {error}",
                help="it is called as f(ids, n_ctx, n_seq, seed)",
            ) from error
        tokens = arrays.pop("tokens", np.zeros(0))
        if tokens.ndim != 2 or not tokens.size or not np.issubdtype(tokens.dtype, np.integer):
            raise PluginError(
                f"the stimulus {self.kind} returned {tokens.dtype} {list(tokens.shape)}",
                help="return whole token ids [n_seq, pos], or a dict with them as 'tokens'",
            )
        if tokens.shape[1] >= n_ctx or tokens.min() < 0:
            raise PluginError(
                f"the stimulus {self.kind} returned sequences of {tokens.shape[1]} tokens, the lowest id {tokens.min()}",
                help=f"BOS is put in front: at most n_ctx - 1 = {n_ctx - 1} ids, none below 0",
            )
        odd = [name for name, array in arrays.items() if array.shape[:1] != tokens.shape[:1]]
        match_tokens = arrays.pop("match_tokens", None)
        if odd or (match_tokens is not None and match_tokens.shape != tokens.shape):
            raise PluginError(
                f"the stimulus {self.kind}: {odd[0] if odd else 'match_tokens'} has another shape than the tokens",
                help="match_tokens [n_seq, pos] as the tokens; other arrays one row per sequence",
            )
        bos = np.full((len(tokens), 1), vocabulary.bos, dtype=np.int64)
        matched = None if match_tokens is None else np.hstack([bos, match_tokens]).astype(np.int64)
        return _from_tokens(
            self.kind, vocabulary, seed, np.hstack([bos, tokens]), extra=arrays, match_tokens=matched
        )


PLUGIN_STIMULI: dict[str, PluginStimulus] = {}


def stimulus(function: Callable[..., Any]) -> PluginStimulus:
    """Decorator: make a function a stimulus that probes can request by name.

    `function(ids, n_ctx, n_seq, seed)` gets the ids a stimulus may use, the model's context, how many sequences, and the
    seed; it returns token ids [n_seq, pos], at most n_ctx - 1 long: BOS is put in front. Or a dict: "tokens", and
    "match_tokens" (what decides what an earlier copy is, the tokens themselves by default) or any other arrays with a
    row per sequence, which probes of the whole model ask for by name. The same seed must give the same ids.
    """
    return PluginStimulus(function)


def add_stimulus(stimulus: PluginStimulus) -> None:
    """Make a plugin's stimulus known by its name, in place of an earlier one of that name.

    Raises:
        PluginError: byrote has a stimulus of its own by that name.
    """
    if stimulus.kind in STIMULI or stimulus.kind in TOKEN_SET_STIMULI:
        raise PluginError(
            f"a plugin has a stimulus called {stimulus.kind!r}, the name of one of byrote's own",
            help="give its function another name",
        )
    PLUGIN_STIMULI[stimulus.kind] = stimulus
