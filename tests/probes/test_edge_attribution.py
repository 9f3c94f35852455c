"""Edges: a planted circuit of four, every edge ablated by arithmetic written out, and circuits of two steps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from planted_series import write_results
from tiny_models import lab_state
from torch import Tensor

from byrote.checkpoints import open_series
from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.lab.planted import HeadSpec, PlantedConfig, write_planted
from byrote.interp.bridge import HookedSeries
from byrote.interp.edges import EdgeGraph, Edges
from byrote.interp.loading import load_fresh
from byrote.interp.model import HookedModel
from byrote.probes.circuits.edge_attribution import LastBlockLoss, nested, redrawn_before_last
from byrote.probes.overlap import rank_biased_overlap
from byrote.probes.registry import REGISTRY
from byrote.probes.results.schema import Measured
from byrote.probes.results.table import Table
from byrote.probes.stimuli import Stimulus, Vocabulary, make
from byrote.probes.sweep.measure import measure_once
from byrote.probes.trajectory import circuit_overlap

FEEDER, IDLE = HeadSpec("previous", writes="previous"), HeadSpec("uniform", strength_nats=0.0)
SOFT = HeadSpec("prefix", strength_nats=5.0, writes="output")
CIRCUIT = {
    ("v_from_input", (0, 0)),
    ("k_edge", (0, 0, 1, 0)),
    ("v_from_input", (1, 0)),
    ("logits_from_head", (1, 0)),
}


def stimuli_for(n_ids: int, n_ctx: int, n_seq: int) -> dict[str, Stimulus]:
    kinds, ids = ("repeated_random", "shuffled_repeat"), Vocabulary(np.arange(1, n_ids), 0)
    return {kind: make(kind, ids, n_ctx=n_ctx, seed=0, n_seq=n_seq) for kind in kinds}


def measured(model: HookedModel, stimuli: dict[str, Stimulus]) -> dict[str, Measured]:
    return {m.metric: m for m in measure_once(model, REGISTRY["edge_attribution"], stimuli=stimuli, seed=0)}


def as_it_is(model: HookedModel) -> list[Tensor]:
    return [t.detach().clone() for t in (*model.bridge.parameters(), *model.bridge.buffers())]


def strong(found: dict[str, Measured], over: float) -> set[tuple[str, tuple[int, ...]]]:
    per_edge = {name: m for name, m in found.items() if m.exists is not None}
    return {
        (name, tuple(place))
        for name, m in per_edge.items()
        for place in np.argwhere(m.exists & (np.abs(m.values) > over)).tolist()
    }


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    config = PlantedConfig(d_vocab=48, n_ctx=64, offset=14, heads=((FEEDER, IDLE), (SOFT, IDLE)))
    return load_fresh(open_series(write_planted(tmp_path_factory.mktemp("planted") / "p", config))[0])


def test_the_planted_circuit_is_four_edges_and_does_it_all(planted):
    found = measured(planted, stimuli_for(48, 64, 6))
    assert strong(found, 0.02) == CIRCUIT
    faithful = found["faithfulness"]
    np.testing.assert_allclose(faithful.values[:2], 0, atol=1e-3)  # half of it is nothing
    np.testing.assert_allclose(faithful.values[2:], 1, atol=1e-5)
    np.testing.assert_allclose(faithful.chance[-1], 1, atol=1e-5)
    assert faithful.chance[:4].max() < 0.1
    assert (found["circuit_edges"].values, found["n_edges"].values) == (4, 29)
    # What enters at the embedding is all there is: integrated gradients add up to the whole.
    assert found["completeness"].values == pytest.approx(1, abs=0.01)
    assert found["gain"].values > 5


def test_a_model_that_does_not_copy_has_no_circuit(lab_series):
    model = load_fresh(open_series(lab_series(1))[0])
    found = measured(model, stimuli_for(24, 32, 4))
    assert np.isnan(found["faithfulness"].values).all()
    assert "does not copy" in found["faithfulness"].undefined
    assert np.isfinite(found["k_edge"].values[found["k_edge"].exists]).all()


# Against arithmetic written out: the lab's model with norms, biases and MLPs, no hook, every input of every head its own.

CHANGES = {"attn_only": False, "d_mlp": 24, "n_heads": 2, "d_head": 8, "n_ctx": 24}


class WrittenOut:
    """Loss with edges ablated, each input summed from the writes it is allowed to see."""

    def __init__(self, weights: dict[str, Tensor], edges) -> None:
        self.w = {name: tensor.double() for name, tensor in weights.items()}
        self.edges = edges

    def norm(self, x: Tensor, name: str) -> Tensor:
        x = x - x.mean(-1, keepdim=True)
        x = x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return x * self.w[f"{name}.weight"] + self.w[f"{name}.bias"]

    def writes(self, tokens: Tensor, keep: Tensor, other: dict | None) -> tuple[dict, Tensor]:
        """What every node wrote, and the logits."""
        w, found = self.w, {}

        def read(receiver: tuple[str, int, int]) -> Tensor:
            r = self.edges.receivers.index(receiver)
            total = torch.zeros(*tokens.shape, 16, dtype=torch.double)
            for s, sender in enumerate(self.edges.senders):
                if self.edges.exists[s, r]:
                    total = total + (found if other is None or keep[s, r] else other)[sender]
            before = range(receiver[1] + (receiver[0] == "mlp") if receiver[1] >= 0 else 2)
            return total + sum(w[f"layers.{l}.attn.o.bias"] for l in before)

        found["input", -1, -1] = w["tok_embed.weight"][tokens] + w["pos.weight"][: tokens.shape[1]]
        future = torch.ones(tokens.shape[1], tokens.shape[1], dtype=torch.bool).triu(1)
        for l in range(2):
            for h in range(2):
                part = slice(8 * h, 8 * h + 8)
                q, k, v = (
                    self.norm(read((side, l, h)), f"layers.{l}.ln1")
                    @ w[f"layers.{l}.attn.{side}.weight"][part].T
                    + w[f"layers.{l}.attn.{side}.bias"][part]
                    for side in "qkv"
                )
                pattern = (q @ k.transpose(1, 2) / 8**0.5).masked_fill(future, -torch.inf).softmax(-1)
                found["head", l, h] = pattern @ v @ w[f"layers.{l}.attn.o.weight"][:, part].T
            inner = self.norm(read(("mlp", l, -1)), f"layers.{l}.ln2") @ w[f"layers.{l}.mlp.fc_in.weight"].T
            inner = torch.nn.functional.gelu(inner + w[f"layers.{l}.mlp.fc_in.bias"])
            outer = inner @ w[f"layers.{l}.mlp.fc_out.weight"].T + w[f"layers.{l}.mlp.fc_out.bias"]
            found["mlp", l, -1] = outer
        return found, self.norm(read(("logits", -1, -1)), "ln_out") @ w["head.weight"].T


def test_every_ablated_edge_is_the_one_written_out_and_gradients_foresee_it(lab_series):
    model = load_fresh(open_series(lab_series(1, **CHANGES))[0])
    stimuli = stimuli_for(24, 24, 3)
    clean, corrupted = torch.from_numpy(stimuli["repeated_random"].tokens), redrawn_before_last(stimuli)
    before, generator = as_it_is(model), torch.random.get_rng_state()
    graph = EdgeGraph(model, clean)
    assert graph.problem == ""
    edges, loss = graph.edges, LastBlockLoss(clean, stimuli["repeated_random"].params["r"])
    everything, each = edges.exists, edges.exists.nonzero()[::3]
    circuits = [everything, torch.zeros_like(everything)]
    for s, r in each.tolist():
        circuits.append(everything.clone())
        circuits[-1][s, r] = False
    found = graph.losses_of(clean, corrupted, loss, circuits)
    scores = graph.attribute(clean, corrupted, loss, n_steps=8)
    assert all(torch.equal(a, b) for a, b in zip(as_it_is(model), before, strict=True))
    assert not any(point.fwd_hooks or point.bwd_hooks for point in model.bridge.hook_dict.values())
    assert not model.bridge.training
    assert torch.equal(torch.random.get_rng_state(), generator)
    assert not any(p.grad is not None for p in model.bridge.parameters())

    plain = WrittenOut(lab_state(0, **CHANGES), edges)
    other, logits = plain.writes(corrupted, everything, None)
    half = everything & (torch.rand(everything.shape, generator=torch.Generator().manual_seed(0)) < 0.5)
    for circuit in (half, everything & ~half):
        answer = loss(plain.writes(clean, circuit, other)[1], slice(None)).float()
        torch.testing.assert_close(
            graph.losses_of(clean, corrupted, loss, [circuit])[0], answer, rtol=0, atol=5e-6
        )
    answers = [loss(plain.writes(clean, circuit, other)[1], slice(None)) for circuit in circuits]
    torch.testing.assert_close(found, torch.stack(answers).float(), rtol=0, atol=5e-6)
    torch.testing.assert_close(found[1], loss(logits, slice(None)).float(), rtol=0, atol=5e-6)
    exact, first_order = found[2:] - found[0], torch.stack([scores[:, s, r] for s, r in each.tolist()])
    assert exact.abs().max() > 0.005
    assert np.corrcoef(exact.mean(1), first_order.mean(1))[0, 1] > 0.97
    # Integrated gradients add up: what enters at the embedding is the whole difference.
    torch.testing.assert_close(scores[:, 0].sum(-1), found[1] - found[0], rtol=0.02, atol=1e-4)
    assert scores[:, ~everything].abs().max() == 0


@pytest.mark.parametrize(
    ("arch", "problem"),
    [
        ("gpt2", ""),
        ("gpt_neox", ""),
        ("llama", ""),
        ("gptj", "one norm"),
        ("gemma2", "a norm after attention"),
        ("bloom", "do not add up"),
    ],
)
def test_all_edges_give_the_clean_loss_or_the_model_is_refused(hf_series, arch, problem):
    model = load_fresh(open_series(hf_series(arch, 1))[0])
    stimuli = stimuli_for(60, 48, 2)
    clean, corrupted = torch.from_numpy(stimuli["repeated_random"].tokens), redrawn_before_last(stimuli)
    graph = EdgeGraph(model, clean)
    assert problem in graph.problem
    if problem:
        assert problem in measured(model, stimuli)["k_edge"].undefined
        return
    loss = LastBlockLoss(clean, stimuli["repeated_random"].params["r"])
    everything = graph.edges.exists
    found = graph.losses_of(clean, corrupted, loss, [everything, torch.zeros_like(everything)])
    answers = [loss(model.logits(tokens), slice(None)) for tokens in (clean, corrupted)]
    torch.testing.assert_close(found, torch.stack(answers), rtol=0, atol=1e-5)
    n_kv = {"llama": 2}.get(arch, 4)
    assert sum(kind == "k" for kind, *_ in graph.edges.receivers) == 2 * n_kv


def test_weights_that_were_swapped_in_have_gradients_too(lab_series):
    series = open_series(lab_series(3))
    hooked, stimuli = HookedSeries(series), stimuli_for(24, 32, 2)
    models = [hooked.load(checkpoint) for checkpoint in series]
    assert hooked.swap_used == "in place"
    swapped, fresh = (
        measured(model, stimuli)["k_edge"].samples for model in (models[2], load_fresh(series[2]))
    )
    np.testing.assert_allclose(swapped, fresh, atol=1e-7)


def test_corrupted_sequences_end_alike_and_hold_no_copy():
    stimuli = stimuli_for(64, 101, 4)
    clean, corrupted = torch.from_numpy(stimuli["repeated_random"].tokens), redrawn_before_last(stimuli)
    r = stimuli["repeated_random"].params["r"]
    assert clean.shape == corrupted.shape
    assert torch.equal(clean[:, -r:], corrupted[:, -r:])
    assert (clean[:, 1:-r] == corrupted[:, 1:-r]).float().mean() < 0.1


def test_nested_circuits_double():
    ten = Edges((), (), torch.ones(2, 5, dtype=torch.bool))
    assert [int(c.sum()) for c in nested(torch.arange(10), ten)] == [1, 2, 4, 8, 10]
    assert [int(c.sum()) for c in nested(torch.arange(8), ten)] == [1, 2, 4, 8]


# Overlap between steps.


def edge_metrics(scores: dict[tuple[int, int, int, int], float]) -> list[Measured]:
    values = np.zeros((2, 3, 2, 3))
    exists = np.zeros(values.shape, dtype=bool)
    exists[0, :, 1] = True
    for place, score in scores.items():
        values[place] = score
    samples = values + 0.001 * np.random.default_rng(0).normal(size=(8, *values.shape))
    axes, zeros = ("src_layer", "src_head", "layer", "head"), np.zeros(values.shape)
    n = np.full(values.shape, 8.0)
    edge = Measured(
        "edge_attribution", "k_edge", values, values, values, zeros, n, axes, samples=samples, exists=exists
    )
    number = [np.array(v) for v in (9.0, 9.0, 9.0, 0.0, 8.0)]
    layer = [np.full(2, float(v)) for v in (0, 0, 0, 0, 8)]
    mlp = Measured("edge_attribution", "logits_from_mlp", *layer, ("layer",), samples=np.zeros((8, 2)))
    return [edge, mlp, Measured("edge_attribution", "n_edges", *number, ())]


def test_overlap_of_circuits_worked_by_hand(tmp_path):
    steps = {
        0: {(0, 0, 1, 0): 3.0, (0, 1, 1, 0): -2.0, (0, 2, 1, 0): 1.0},
        10: {(0, 0, 1, 0): 3.0, (0, 1, 1, 0): 2.0, (0, 2, 1, 1): 1.0},
        20: {(0, 0, 1, 2): 3.0, (0, 1, 1, 2): 2.0, (0, 2, 1, 2): 1.0},
    }
    path = write_results(tmp_path, "run", {step: edge_metrics(scores) for step, scores in steps.items()})
    results = Table.open(path)
    assert results.kinds["edge_attribution", "logits_from_mlp"] == "layer"  # nobody takes it for a head's
    assert not results.head_probes
    found = circuit_overlap(results, k=3)
    assert found["step_a"].tolist() == [0, 10] and found["step_b"].tolist() == [10, 20]
    assert found["jaccard"].tolist() == [2 / 4, 0]  # a sign that turns is the same edge
    assert (found["lo"] == found["jaccard"]).all() and (found["hi"] == found["jaccard"]).all()
    assert found["left"][0] == "k_edge L0H2 → L1H0" and found["entered"][0] == "k_edge L0H2 → L1H1"
    # x = 1, 2, 2 of the first 1, 2, 3
    rbo = 2 / 3 * 0.9**3 + 0.1 / 0.9 * (0.9 + 0.81 + 2 / 3 * 0.729)
    assert found["rbo"].tolist() == pytest.approx([rbo, 0])
    # Two random sets of 3 of 9 edges
    assert found["random"][0] == pytest.approx(45 / 84 * 1 / 5 + 18 / 84 * 2 / 4 + 1 / 84)
    assert circuit_overlap(results, k=3, to=0)["jaccard"].tolist() == [2 / 4, 0]
    with pytest.raises(ByroteError, match="step 5 was not measured"):
        circuit_overlap(results, to=5)


def test_rank_biased_overlap_of_one_order_is_one_and_of_nothing_shared_zero():
    a = np.arange(6)[None]
    assert rank_biased_overlap(a, a)[0] == pytest.approx(1)
    assert rank_biased_overlap(a, a + 6)[0] == 0
    assert rank_biased_overlap(a, a[:, ::-1])[0] < rank_biased_overlap(a, a[:, [1, 0, 2, 3, 4, 5]])[0] < 1
