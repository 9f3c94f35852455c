"""Composition: how much of what an earlier head writes does a later head read, through its queries, keys or values?

Source: Elhage et al. 2021, A Mathematical Framework for Transformer Circuits, Q-, K- and V-composition. They subtract
what random matrices of the same shapes give; here what is subtracted keeps each pair's own spectra.

A trained residual stream has directions that most heads write and read, and random rotations ignore them: compared with
rotations, 19 to 69% of the pairs of trained models stand out. So z asks what else the model's own heads do: it is high
where a pair composes more than the other pairs of the same two layers. It finds pairs worth a look. What a pair is for,
and whether it is used, is not in it: `induction_circuit` ablates the path.

1. the earlier head writes A = W_V W_O; the later one reads with B = W_Q W_K^T (Q), W_K W_Q^T (K) or W_V W_O (V), all
   d_model x d_model, norms folded, and writes centred where the later norm centres
2. ratio = ||A B||_F / (||A||_F ||B||_F), from 0 to 1. QR gives the same norms on narrow factors: A becomes R_V W_O
   with W_V = Q R_V, and B, W_K R_Q^T and so on
3. rotations: A R B, R a random rotation of the residual stream (Haar). With s and t the singular values of A and B its
   ratio is  sqrt(sum_ij s_i^2 G_ij^2 t_j^2) / (||s|| ||t||),  G a corner of R: 256 draws of G serve all pairs. Its
   mean square is 1 / d_model (d_model - 1 behind a LayerNorm), so its mean is just under the root of that
4. excess = ratio - mean under rotations
5. null of z: the other pairs of the same two layers and mode; where these are fewer than 8, of all layers. Location:
   the median of their excesses; scale: 1.4826 times their median absolute deviation from it, and never less than the
   standard deviation of the pair under rotations. z = (excess - location) / scale
6. pairs are those with src_layer < layer. Of more than 4096, only those with |z| >= 2 in any mode and those that
   could not be measured have rows; n_pairs counts the pairs there are, n_kept those that have rows

Read from weights alone: how the heads are used is not seen, nor how much they write, nor what reaches a head by way of
MLPs or other heads. Where most pairs of two layers compose, none stands out.
Biases, positions (rotary included) and norms on queries and keys are left out. Shared keys and values (grouped
queries) count for every head that uses them.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor

from byrote.interp.weights import HeadWeights
from byrote.probes.spec import NotMeasuredError, ProbeScores, probe
from byrote.probes.spectra import finite_or_zero, haar_frames

MODES = ("q", "k", "v")
PAIR_AXES = ("src_layer", "src_head", "layer", "head")
MANY_PAIRS = 4096
MIN_ABS_Z = 2.0
_DRAWS = 256  # all pairs share them: of 64, z scattered by up to 1.3 standard deviations on random weights
_DRAWN_AT_ONCE = 32
_NO_SPREAD_FRAC = 1e-6
MIN_OTHERS = 8  # pairs that a median absolute deviation is taken of
_NORMAL = 1.4826  # standard deviation of a normal, in its median absolute deviations

PairTensor = Float[Tensor, "src_layer src_head layer head"]


@probe(
    unit="standard deviations",
    better="higher",
    summary="From weights, per pair of heads, to explore: does the later one read more of the earlier one than other "
    "pairs do?",
    chance="0: the median of the other pairs of the same two layers; for an excess, the mean under random rotations",
    metrics={
        "k_z": "K-composition against the other pairs of the same two layers, in robust standard deviations",
        "q_z": "Q-composition, the same",
        "v_z": "V-composition, the same",
        "k_excess": "||W_QK W_OV|| / (||W_QK|| ||W_OV||) minus its mean under random rotations",
        "q_excess": "the same with W_QK transposed",
        "v_excess": "the same with the later head's W_OV for W_QK",
        "n_pairs": "pairs of an earlier and a later head",
        "n_kept": "pairs with rows: all, or of more than 4,096 those with |z| >= 2 in any mode or not measured",
    },
    main_metric="k_z",
    units={
        "k_excess": "Frobenius ratio",
        "q_excess": "Frobenius ratio",
        "v_excess": "Frobenius ratio",
        "n_pairs": "pairs",
        "n_kept": "pairs",
    },
    smallest={"Frobenius ratio": (0.05, "a twentieth of the largest ratio, 1")},
    undirected=("n_pairs", "n_kept"),
    reads_as="For exploration, not a finding: a high z names a pair worth testing, and among many pairs the highest is "
    "large by chance alone. It ignores size and use: the pair with the highest z need not matter. Test a path "
    "with induction_circuit",
    not_measured="a norm after attention makes head outputs non-linear (Gemma 2, OLMo 2); fewer than two layers; smeared keys; either "
    "head's circuit is zero or not finite; no z where there are fewer than 8 other pairs",
    undefined="the circuit of one of the two heads is zero or not finite, or there are fewer than 8 other pairs",
    order=120,
    version=3,
)
def composition(weights: HeadWeights, seed: int) -> dict[str, ProbeScores]:
    """Score every pair of heads.

    Args:
        weights: of the model.
        seed: of the null.

    Returns:
        `q_excess`, `k_excess`, `v_excess` (from -1 to 1) and `q_z`, `k_z`, `v_z` (standard deviations) per pair, NaN
        where a head's circuit is zero; `n_pairs` and `n_kept` for the model. n = draws of the rotations.

    Raises:
        NotMeasuredError: fewer than two layers, smeared keys, or a norm between a head's output and the residual stream.
    """
    if not weights.linear_readout:
        raise NotMeasuredError("a norm after attention makes what a head writes for later heads non-linear")
    if weights.W_V.shape[0] < 2:
        raise NotMeasuredError("the model has one layer: no head can read what an earlier one wrote")
    if weights.smeared_keys:
        raise NotMeasuredError(
            "keys are smeared: each is a mixture of two tokens', which W_K alone does not describe"
        )
    found, spectra = ratios(weights)
    null = nulls(spectra, weights.W_V.shape[2] - weights.centred, seed)
    excess = {mode: found[mode] - null[mode][0].view_as(found[mode]) for mode in MODES}
    possible = _possible(found["q"])
    spread = {mode: (null[mode][1] / null[mode][0]).view_as(excess[mode]) > _NO_SPREAD_FRAC for mode in MODES}
    z = {
        mode: z_among(
            torch.where(possible & spread[mode], excess[mode], torch.nan), null[mode][1].view_as(excess[mode])
        )
        for mode in MODES
    }  # 5.
    notable = _notable(z, possible)
    pairs = {f"{mode}_excess": excess[mode] for mode in MODES} | {f"{mode}_z": z[mode] for mode in MODES}
    counts = {"n_pairs": possible.sum(), "n_kept": notable.sum()}
    return {
        name: ProbeScores(values.numpy()[None], PAIR_AXES, 0.0, exists=notable.numpy(), exact_n=_DRAWS)
        for name, values in pairs.items()
    } | {name: ProbeScores(count.float().numpy()[None], exact_n=0) for name, count in counts.items()}


def ratios(weights: HeadWeights) -> tuple[dict[str, PairTensor], dict[str, Float[Tensor, "heads rank"]]]:
    """Composition before any null is subtracted.

    Args:
        weights: of the model. Folding follows its norms: set their gains to 1 and `centred` to False for raw weights.

    Returns:
        Ratio in [0, 1] per mode and pair, 0 where the source is not earlier, NaN where a circuit is zero; and the
        singular values of every head's "OV" and "QK" circuit, layer by layer.
    """
    n_layers, n_heads = weights.W_V.shape[:2]
    found = {mode: torch.zeros(n_layers, n_heads, n_layers, n_heads) for mode in MODES}
    spectra: dict[str, list[Tensor]] = {"OV": [], "QK": []}
    writes: list[Tensor] = []
    for layer in range(n_layers):
        write, reads, values = _circuits(weights, layer)
        size = {name: value.square().sum(-1).sqrt() for name, value in values.items()}
        for src, earlier in enumerate(writes):
            src_size = spectra["OV"][src].square().sum(-1).sqrt()
            for mode, read in reads.items():
                both = src_size[:, None] * size["OV" if mode == "v" else "QK"]
                found[mode][src, :, layer] = (_product_norms(earlier, read) / both).cpu()  # 2.
        writes.append(write)
        for name, value in values.items():
            spectra[name].append(value)
    return found, {name: torch.cat(value).cpu() for name, value in spectra.items()}


def _circuits(
    weights: HeadWeights, layer: int
) -> tuple[
    Float[Tensor, "head rank d_model"],
    dict[str, Float[Tensor, "head d_model rank"]],
    dict[str, Float[Tensor, "head rank"]],
]:
    """Of one layer: narrow factors of A, narrow factors of B by mode, and the singular values of OV and QK."""
    W_Q, W_K, W_V = (finite_or_zero(weights.reads_of(name, layer)) for name in ("W_Q", "W_K", "W_V"))
    W_O = finite_or_zero(weights.centre(weights.W_O[layer]))
    R_Q, R_K, R_V, R_O = (torch.linalg.qr(W, mode="r").R for W in (W_Q, W_K, W_V, W_O.mT))
    reads = {"q": W_Q @ R_K.mT, "k": W_K @ R_Q.mT, "v": W_V @ R_O.mT}  # 1. 2.
    cores = {"OV": R_V @ R_O.mT, "QK": R_Q @ R_K.mT}
    return R_V @ W_O, reads, {name: torch.linalg.svdvals(core) for name, core in cores.items()}


def _product_norms(
    write: Float[Tensor, "src_head n d_model"], read: Float[Tensor, "head d_model m"]
) -> Float[Tensor, "src_head head"]:
    product = rearrange(write, "s n d -> (s n) d") @ rearrange(read, "h d m -> d (h m)")
    product = product.square_().view(*write.shape[:2], read.shape[0], read.shape[2])
    return product.sum((1, 3)).sqrt()


def nulls(
    spectra: dict[str, Float[Tensor, "heads rank"]], readable: int, seed: int
) -> dict[str, tuple[Float[Tensor, "heads heads"], Float[Tensor, "heads heads"]]]:
    """Mean and standard deviation of the ratio under random rotations.

    Args:
        spectra: singular values of every head's "OV" and "QK" circuit.
        readable: dimensions that are rotated: d_model, or one less behind a LayerNorm.
        seed: of the rotations.

    Returns:
        By mode, [source, later head], heads counted layer by layer; NaN where a spectrum is zero. Q and K share one:
        their B has the same spectrum.
    """
    corners = _corners(readable, min(spectra["OV"].shape[1], readable), seed)
    rank = corners.shape[-1]
    shares = {name: values[:, :rank].square() for name, values in spectra.items()}
    shares = {name: value / value.sum(-1, keepdim=True) for name, value in shares.items()}
    qk, ov = (_null(shares["OV"], shares[name], corners) for name in ("QK", "OV"))
    return {"q": qk, "k": qk, "v": ov}


def _null(
    src: Float[Tensor, "heads rank"],
    dst: Float[Tensor, "heads rank"],
    corners: Float[Tensor, "draws rank rank"],
) -> tuple[Float[Tensor, "heads heads"], Float[Tensor, "heads heads"]]:
    total = torch.zeros(len(src), len(dst), dtype=torch.float64)
    squares = torch.zeros_like(total)
    for corner in corners:  # one at a time: all pairs times all draws would not fit for large models
        ratio = (src @ corner @ dst.T).sqrt().double()  # 3.
        total += ratio
        squares += ratio.square()
    n = len(corners)
    mean = total / n
    variance = (squares / n - mean.square()).clamp_min(0) * n / (n - 1)
    return mean.float(), variance.sqrt().float()


@lru_cache(maxsize=4)
def _corners(readable: int, rank: int, seed: int) -> Float[Tensor, "draws rank rank"]:
    """Squared entries of corners of random rotations; the same for every checkpoint of a series."""
    generator = torch.Generator().manual_seed(seed)
    parts = [
        haar_frames(_DRAWN_AT_ONCE, readable, rank, generator)[:, :rank].square()
        for _ in range(_DRAWS // _DRAWN_AT_ONCE)
    ]
    return torch.cat(parts)


def z_among(excess: PairTensor, floor: PairTensor) -> PairTensor:
    """Each pair's excess against the other pairs of its two layers, in robust standard deviations (step 5).

    Args:
        excess: of one mode; NaN where there is no pair.
        floor: smallest scale: the standard deviation under rotations.

    Returns:
        NaN where there is no pair, or fewer than 8 others.
    """
    z = torch.full_like(excess, torch.nan)
    everything = excess.isfinite()
    for src_layer in range(excess.shape[0]):
        for layer in range(src_layer + 1, excess.shape[0]):
            own = torch.zeros_like(everything)
            own[src_layer, :, layer] = everything[src_layer, :, layer]
            if not own.any():
                continue
            group = own if own.sum() > MIN_OTHERS else everything
            if group.sum() <= MIN_OTHERS:
                continue
            z[own] = _against_others(excess[group], floor[group])[own[group]]
    return z


def _against_others(
    excess: Float[Tensor, " pairs"], floor: Float[Tensor, " pairs"]
) -> Float[Tensor, " pairs"]:
    location = median_of_others(excess)
    scale = torch.empty_like(excess)
    for centre in location.unique():  # at most three: which one depends on which pair is left out
        mine = location == centre
        scale[mine] = _NORMAL * median_of_others((excess - centre).abs())[mine]
    return (excess - location) / torch.maximum(scale, floor)


def median_of_others(values: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """For each value the median of all the others.

    Args:
        values: at least two, finite.
    """
    ordered, order = values.sort()
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(values), device=order.device)
    last = len(values) - 2  # of the others, counted from 0
    low, high = (ordered[middle + (rank <= middle)] for middle in (last // 2, (last + 1) // 2))
    return (low + high) / 2


def _possible(like: PairTensor) -> Bool[Tensor, "src_layer src_head layer head"]:
    layer = torch.arange(like.shape[0])
    return (layer[:, None, None, None] < layer[None, None, :, None]).expand(like.shape)


def _notable(
    z: dict[str, PairTensor], possible: Bool[Tensor, "src_layer src_head layer head"]
) -> Bool[Tensor, "src_layer src_head layer head"]:
    if possible.sum() <= MANY_PAIRS:
        return possible
    worth = [(value.abs() >= MIN_ABS_Z) | value.isnan() for value in z.values()]
    return possible & torch.stack(worth).any(0)  # 6.
