"""Background of the numbers: intervals, methods, gaps, provenance, commands."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from byrote.probes.findings import arm_words
from byrote.probes.registry import REGISTRY
from byrote.probes.results import Results
from byrote.probes.results.unit_files import unit_paths, unit_provenance
from byrote.probes.spec import ProbeInfo
from byrote.probes.wording import clean, of_runs, probe_name, sentence_case, step_number, steps_in_words
from byrote.report.alerts import differing_facts, invalid_groups
from byrote.report.model import Block, Card, Cards, Code, Listing, Prose, Section, Table, Value
from byrote.report.report_inputs import Inputs

INTERVALS = (
    "Every interval of a run, or between two runs, is a 95% percentile bootstrap over test sequences, its percentiles expanded for small n. It covers "
    "the choice of test sequences: how far the number would move if other sequences of the same kind had been drawn.",
    "It does not cover the training seed. Training the same arm again with another seed gives another model; only intervals "
    "between arms of several seeds say how different that model would be: they are Student's, over seeds and sequences.",
    "Where the strongest of many heads is shown, its interval is that head's own: it does not cover having chosen the "
    "strongest one.",
    "Numbers marked “exact” come from weights alone: no sequence was drawn, so nothing was sampled.",
)


WORDS = (
    (
        "Attention head, L1H2",
        "A part of a layer that moves information between positions; L1H2 is head 2 of layer 1, counted from 0. It spreads an attention of 1 over the tokens so far.",
    ),
    (
        "Induction head",
        "A head that finds where the current token stood before, attends to the token after it, and raises that token. It is called one only by the rule under “Induction heads”.",
    ),
    (
        "Prefix matching",
        "Attention from a token to what followed its earlier copies, 0 to 1: the first half of what an induction head does.",
    ),
    ("Copying logit", "How much a head raises the token that it attends to: the second half."),
    (
        "Induction mass",
        "Prefix matching above chance, summed over all heads: how much attention copies by rule, however it is spread.",
    ),
    (
        "Previous-token head",
        "A head that attends to the token just before. Induction heads read what it wrote.",
    ),
    (
        "Loss, nats",
        "How surprised the model is by the next token, on average; lower is better. 0.69 nats less means a probability twice as high.",
    ),
    (
        "Repeat loss",
        "The loss on random tokens (first block) and on their repeats (later blocks). Random tokens cannot be known; a fall on the repeats is copying.",
    ),
    (
        "Inducible loss",
        "The loss on tokens of real text that follow a pair seen before in it, and on the others.",
    ),
    ("ICL score", "Loss late in a text minus loss early in it: what context is worth. Below 0 is better."),
    (
        "Members, twins",
        "Sequences of the training data, and fresh ones from the same source that the model never saw.",
    ),
    ("Memory gap", "Loss on twins minus loss on members. Above 0, the training sequences are remembered."),
    (
        "Completed",
        "Given the beginning of a sequence (at most 32 tokens), the model predicts each of as many tokens that follow without an error.",
    ),
    (
        "Chance, null",
        "What a model or head without the ability would score. “At chance” means not clearly away from it.",
    ),
    (
        "Interval, n",
        "In brackets: where the number would lie for other test sequences in 95% of draws. n is how many were tested.",
    ),
    (
        "q, p",
        "How often a difference this large would come from nothing; q is corrected for how many were looked at.",
    ),
    (
        "Arm, seed, run",
        "An arm is one way of training; its runs differ in nothing but the random seed. Only several seeds say something of the arm.",
    ),
)


def words_section() -> Section:
    """What the words of a report mean, for a reader who has not met them."""
    table = Table("words-table", "A longer glossary is docs/glossary.md.", ("Word", "Meaning"), WORDS)
    return Section("words", "Words", (table,))


def intervals_section(inputs: Inputs) -> Section:
    """What the intervals cover and what they do not."""
    return Section("intervals", "What the intervals cover", (Listing((*INTERVALS, _seeds(inputs))),))


def methods_section(inputs: Inputs) -> Section:
    """One card per probe that was run."""
    ran = {p.get("name") for r in inputs.results for p in r.meta.get("probes") or ()}
    ran |= {str(p) for r in inputs.results for p in r.frame["probe"].unique()}
    cards = tuple(_card(inputs, info) for name, info in REGISTRY.items() if name in ran)
    unknown = sorted(str(name) for name in ran - set(REGISTRY) if name)
    blocks: list[Block] = [Cards(cards)] if cards else [Prose("No probe was run.")]
    if unknown:
        blocks.append(
            Prose(f"Not in this version's catalogue: {', '.join(clean(n) for n in unknown)}.", "note")
        )
    return Section("methods", "Methods", tuple(blocks), folded=True)


def errors_section(inputs: Inputs) -> Section:
    """Checkpoints that could not be measured and values that are undefined, each with its reason."""
    gaps: list[tuple[Value, ...]] = [
        (r.run, "–" if g.get("step") is None else step_number(g["step"]), str(g.get("path") or "–"),
         str(g.get("reason") or "no reason was recorded"), str(g.get("help") or "–"))
        for r in inputs.results
        for g in r.gaps
    ]  # fmt: skip
    same: dict[tuple[Value, ...], list[str]] = {}
    for r in inputs.results:
        for g in invalid_groups(r):
            what = (probe_name(g["probe"]), probe_name(g["metric"]), g["n"], steps_in_words(g["steps"]),
                    g["reason"] or "no reason was recorded")  # fmt: skip
            same.setdefault(what, []).append(r.run)
    invalid: list[tuple[Value, ...]] = [
        (of_runs(runs, len(inputs.results)), *what) for what, runs in same.items()
    ]
    blocks: list[Block] = []
    columns: tuple[str, ...] = ("Run", "Step", "Where", "Reason", "What helps")
    if gaps:
        blocks.append(Table("gaps-table", "Checkpoints that could not be measured.", columns, tuple(gaps)))
    columns = ("Run", "Probe", "Metric", "Values", "At", "Not measured because")
    if invalid:
        blocks.append(Table("invalid-table", "Values that are not measured.", columns, tuple(invalid)))
    return Section(
        "errors",
        "Appendix: not measured",
        tuple(blocks) or (Prose("None: every value that was requested was measured."),),
        folded=True,
    )


def provenance_section(inputs: Inputs) -> Section:
    """Series, model, versions, dtype, device and weights of every run, side by side."""
    runs = inputs.shown.results
    facts = {r.run: _facts(r) for r in runs}
    names = list(dict.fromkeys(name for mine in facts.values() for name in mine))
    rows: list[tuple[Value, ...]] = [(name, *(facts[r.run].get(name, "–") for r in runs)) for name in names]
    table = Table(
        name="provenance-table",
        caption="Where the numbers come from. Home folders are written as ~.",
        columns=("", *(r.run for r in runs)),
        rows=tuple(rows),
    )
    differing = differing_facts(inputs)
    alike = (
        f"Differs between runs: {', '.join(differing)}."
        if differing
        else "All runs were measured with the same stimuli, versions, dtype and device."
    )
    blocks = (table, Prose(alike, "note")) if len(inputs.results) > 1 else (table,)
    return Section("provenance", "Provenance", blocks, folded=True)


def reproduce_section(inputs: Inputs, *, light: bool, out_name: str) -> Section:
    """The commands and the notebook lines that make this report again."""
    many = inputs.shown is not inputs
    names = [shlex.quote(f"results/{r.run}") for r in inputs.results]
    paths = [shlex.quote(r.series_shown or r.run) for r in inputs.results]
    lines = [
        f"byrote import {shlex.quote(r.imported)} -o {name}"
        if r.imported
        else f"byrote run {path} -o results"
        for r, name, path in zip(inputs.results, names, paths, strict=True)
    ]
    lines += [
        f"byrote compare {shlex.quote(f'results/{c.a}')} {shlex.quote(f'results/{c.b}')}"
        for c in inputs.comparisons
    ]
    base = inputs.base or (inputs.groups[0].name if inputs.arms else None)
    options = [f"--base {shlex.quote(base)}"] if base else []
    options += ["--light"] if light else []
    whole = ["results"] if many else names
    lines.append(" ".join(["byrote report", *whole, *options, "-o", shlex.quote(out_name)]))
    if many:
        return _commands(lines, _notebook_of_arms(inputs, base))
    notebook = ["from byrote.probes import Results, compare, figures", ""]
    notebook += [
        f"run_{i} = Results.open({json.dumps(f'results/{r.run}')})" for i, r in enumerate(inputs.results)
    ]
    runs = ", ".join(f"run_{i}" for i in range(len(inputs.results)))
    probe = (inputs.head_probes or ["prefix_matching"])[0]
    dashed = f", base={json.dumps(inputs.base)}" if inputs.base else ""
    notebook.append(f"figures.trajectory([{runs}], probe={json.dumps(probe)}{dashed})")
    index = {r.run: i for i, r in enumerate(inputs.results)}
    notebook += [f"compare(run_{index[c.a]}, run_{index[c.b]}).sentence" for c in inputs.comparisons]
    return _commands(lines, notebook)


def _commands(lines: Sequence[str], notebook: Sequence[str]) -> Section:
    shell = Code("reproduce-shell", "On the command line", "\n".join(lines))
    book = Code("reproduce-notebook", "In a notebook", "\n".join(notebook))
    return Section("reproduce", "Reproduce", (shell, book), folded=True)


def _notebook_of_arms(inputs: Inputs, base: str | None) -> list[str]:
    """Lines that group the runs by their arms, as the report does, and compare these."""
    lines = ["import byrote as br", "from pathlib import Path", ""]
    lines.append(
        'runs = [br.Results.open(path) for path in sorted(Path("results").iterdir()) if (path / "run.json").exists()]'
    )
    lines.append("arms = {one.name: one for one in br.groups_of(runs)}")
    lines.append("br.figures.arm_grids(list(arms.values()))")
    return lines + [
        f"print(br.compare_groups(arms[{json.dumps(base)}], arms[{json.dumps(found.b.name)}]).sentence)"
        for found in inputs.arms
    ]


def _seeds(inputs: Inputs) -> str:
    """How many training seeds stand behind each arm, and what that leaves unknown."""
    arms = Counter(r.facts.arm or arm_words(r) or r.run for r in inputs.results)
    seeds = {str(r.training_seed) for r in inputs.results if r.training_seed is not None}
    stated = f" (training seed {', '.join(sorted(seeds))})" if seeds else ""
    if all(count == 1 for count in arms.values()):
        return (
            f"Each arm here is one trained run{stated}, so the seed-to-seed spread is unknown. A difference between two "
            "runs is a fact about these two runs; saying it of the data takes several seeds per arm."
        )
    per_arm = ", ".join(f"{count} of {arm}" for arm, count in arms.items())
    return f"Runs per arm: {per_arm}{stated}. The spread between runs of one arm is the noise floor of any difference."


def _card(inputs: Inputs, info: ProbeInfo) -> Card:
    stimuli = {
        str(s.get("id")): s
        for r in inputs.results
        for s in r.meta.get("stimuli") or ()
        if s.get("kind") in info.stimuli
    }
    shown = [f"{clean(i)} (seed {s.get('seed')}, n = {s.get('n')})" for i, s in stimuli.items()]
    needs = (
        f"none of its own: derived from {', '.join(info.needs)}"
        if info.needs
        else "none: read from the weights"
    )
    facts = [(sentence_case(probe_name(metric)), formula) for metric, formula in info.metrics.items()]
    facts += [
        ("Unit", f"{info.unit}, {_range_words(info)}"),
        ("Chance", info.chance),
        ("Stimulus", "; ".join(shown) if shown else needs if not info.stimuli else ", ".join(info.stimuli)),
        ("n", _n_words(inputs, info.name)),
        ("Source", info.source),
        ("Version", str(info.version)),
    ]
    return Card(f"method-{info.name}", sentence_case(probe_name(info.name)), info.summary, tuple(facts))


def _range_words(info: ProbeInfo) -> str:
    limits = (
        "unbounded" if info.range is None else f"{info.range[0]:g} to {info.range[1]:g}".replace("-", "−")
    )
    return f"{limits}; {f'{info.better} is better' if info.better else 'neither direction is better'}"


def _n_words(inputs: Inputs, probe: str) -> str:
    counts = sorted(
        {
            int(n)
            for r in inputs.results
            for n in r.frame.loc[(r.frame["probe"] == probe) & r.frame["valid"], "n"]
        }
    )
    if not counts:
        return "nothing measured"
    return f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"


def _facts(results: Results) -> dict[str, str]:
    meta = results.meta
    series, provenance = meta.get("series") or {}, dict(meta.get("provenance") or {})
    versions = provenance.pop("versions", None) or {}
    facts = {
        "Series": series.get("name"),
        "Path": results.series_shown or None,
        "Format": series.get("format"),
        "Imported from": results.imported or None,
    }
    facts["Steps measured"] = f"{len(results.steps)} of {series.get('n_checkpoints', '?')}"
    manifest = _manifest(results)
    facts |= {"Arm": arm_words(results), "Training seed": results.training_seed}
    facts |= {
        f"Training: {key.replace('_', ' ')}": value for key, value in (manifest.get("train") or {}).items()
    }
    facts |= {f"Model: {key.replace('_', ' ')}": value for key, value in (meta.get("model") or {}).items()}
    facts |= {sentence_case(key.replace("_", " ")): value for key, value in provenance.items()}
    facts |= {f"Version of {name}": version for name, version in versions.items()}
    facts["Weight fingerprint, last step"] = _fingerprint(results)
    return {name: _fact(value) for name, value in facts.items() if value not in (None, "")}


def _fact(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (dict, list)):
        return json.dumps(value, sort_keys=True)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _fingerprint(results: Results) -> str | None:
    """The weights' fingerprint as the last stored unit recorded it."""
    paths = unit_paths(results.path)
    found = unit_provenance(paths[-1]).get("fingerprint") if paths else None
    return None if found is None else str(found)[:16]


def _manifest(results: Results) -> Mapping[str, Any]:
    return (results.meta.get("series") or {}).get("manifest") or {}
