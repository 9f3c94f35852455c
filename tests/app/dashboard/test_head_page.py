"""The Head page: what a head writes, and pinned heads beside it."""

from __future__ import annotations

import json
import re

import numpy as np
import pandas as pd
import pytest
from planted_series import head_metric, keep_attention, rising, whole, write_results
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from byrote.checkpoints import ByroteError
from byrote.checkpoints.array_files import write_arrays
from byrote.dashboard.components.contact_sheet import pooled, sheet_data
from byrote.dashboard.library import _unpacked, open_library
from byrote.dashboard.views.head import scores_frame
from byrote.dashboard.views.head_text import position, token_words, visible, writes_frame
from byrote.probes.attention import Writes, attention_file, stored_texts, unwritten
from byrote.probes.figures import attention_over_steps
from byrote.probes.repeats import repeats_of

WORDS = ["<bos>", " a", " b", "\n", " d"]
EVIL = ["<script>alert(1)</script>", " a\u202eb", "](javascript:alert(1))", "$x$ :red[y]", "x" * 200]


def said(at) -> str:
    kinds = ("title", "header", "markdown", "caption", "error", "code", "text")
    return "\n".join(str(e.value) for kind in kinds for e in getattr(at, kind)).replace("\\", "")


def written(at) -> pd.DataFrame | None:
    """The table of what the head writes, as shown."""
    return next((t.value for t in at.dataframe if "raises" in t.value.columns), None)


def scores(at) -> pd.DataFrame:
    return next(t.value for t in at.dataframe if "measure" in t.value.columns).set_index("measure")


@pytest.fixture
def kept(tmp_path):
    """Results whose step 40 kept a text of random tokens."""
    folder = write_results(tmp_path, "kept", rising())
    keep_attention(folder, 40, WORDS, stimulus="repeated_random")
    return folder


# What it writes


def test_it_stands_for_the_last_token_until_one_is_held(open_page, kept):
    at = open_page("head", kept, step=40, head="L1H2")
    assert not at.exception and not at.error
    assert "L1H2 at ·d (4): the tokens it raises and lowers most by itself" in said(at)
    assert "Select a token to see what the head writes there." in said(at)
    # raised: the token before by 2 + 1 + 0.2 + 0.04 logits, kept in two bytes
    assert written(at).to_dict("records") == [
        {"raises": "↵", "raised by": "+3.24", "lowers": "·d", "lowered by": "−1.25"},
        {"raises": "<bos>", "raised by": "+0.500", "lowers": "·d", "lowered by": "−0.750"},
    ]
    at = open_page("head", kept, step=40, head="L0H1", q=2)
    assert "L0H1 at ·b (2)" in said(at) and "Click a token" not in said(at)
    assert written(at)["raises"].tolist() == ["·a", "<bos>"]
    assert written(at)["raised by"].tolist() == ["+2.12", "+0.500"]
    at = open_page("head", kept, step=40, head="L0H1", q=99)  # no such token: the last
    assert "L0H1 at ·d (4)" in said(at)


def test_another_head_writes_something_else(open_page, kept):
    at = open_page("head", kept, step=40, head="L0H0", q=4)
    before = written(at)["raised by"].tolist()
    at.button(key="after").click().run()
    assert at.session_state["byrote_state"].head == "L0H1"
    assert (before[0], written(at)["raised by"][0]) == ("+2.04", "+2.14")


def test_nothing_written_is_said_and_no_table_drawn(open_page, kept, monkeypatch):
    arrays = load_file(attention_file(kept, 40))
    arrays["repeated_random/written_logits"][:] = 0
    with safe_open(attention_file(kept, 40), framework="numpy") as held:
        facts = {k: v for k, v in held.metadata().items() if not k.startswith("byrote-")}
    save_file(arrays, attention_file(kept, 40), metadata=facts)
    at = open_page("head", kept, step=40, head="L1H2", q=1)
    assert not at.exception and written(at) is None
    assert "L1H2 at ·a (1) raises and lowers no token" in said(at)


def test_training_text_stays_masked_in_what_it_writes_too(open_page, tmp_path):
    folder = write_results(tmp_path, "remembers", rising())
    keep_attention(folder, 40, ["<bos>", " secret", " word"], stimulus="members")
    at = open_page("head", tmp_path, step=40, head="L1H2", q=2)
    shown = (
        at.get("bidi_component")[0].proto.json + said(at) + "".join(t.value.to_csv() for t in at.dataframe)
    )
    assert "secret" not in shown and "word" not in shown
    assert written(at)["raises"].tolist() == written(at)["lowers"].tolist() == ["•••"] * 2
    assert written(at)["raised by"].tolist() == ["+3.22", "+0.500"]  # how much is no secret
    assert "L1H2 at ••• (2)" in said(at)
    at.toggle(key="reveal").set_value(True).run()
    assert written(at)["raises"].tolist() == ["·secret", "<bos>"]
    assert "L1H2 at ·word (2)" in said(at)


def test_hostile_tokens_are_only_text(open_page, tmp_path):
    folder = write_results(tmp_path, "evil", rising())
    keep_attention(folder, 40, EVIL, stimulus="repeated_random")
    for q in range(len(EVIL)):
        at = open_page("head", tmp_path, step=40, head="L1H2", q=q)
        assert not at.exception
        for kind in ("markdown", "caption", "header"):
            for element in getattr(at, kind):
                unescaped = re.sub(r"\\[^\w\s]", "", element.value)
                for live in ("<script", "](javascript", "$x", ":red["):
                    assert live not in unescaped, element.value
        if q:
            (raised, first) = written(at)["raises"]
            assert raised == visible(EVIL[q - 1]) and len(raised) <= 24 and "\u202e" not in raised
            assert first == "<script>alert(1)</scrip…"


@pytest.mark.parametrize("reason", ("a norm after attention bends it", ""))
def test_what_is_not_kept_is_said_with_its_reason(open_page, tmp_path, reason):
    folder = write_results(tmp_path, "bare", rising())
    keep_attention(folder, 40, WORDS, stimulus="repeated_random", unwritten=reason or "x")
    if not reason:  # as the version before this one kept it
        file = attention_file(folder, 40)
        arrays = load_file(file)
        facts = {
            "format": "byrote-attention-1",
            "stimuli": json.dumps({"repeated_random": "planted"}),
            "words": "{}",
        }
        save_file(arrays, file, metadata=facts)
    at = open_page("head", tmp_path, step=40, head="L1H2")
    assert not at.exception and not at.error and written(at) is None
    told = "A norm after attention bends it." if reason else "Run the same sweep again with --save-attention."
    assert told.lower() in said(at).lower()
    assert len(at.get("bidi_component")) == 3  # the attention, all heads on the text, and the link to copy


def test_where_nothing_is_kept_the_command_and_its_size_are_said(open_page, tmp_path):
    random = {"id": "r", "kind": "repeated_random", "r": 25, "m": 4}
    write_results(tmp_path, "bare", rising(), stimuli=[random, {"id": "t", "kind": "twins", "pos": 48}])
    at = open_page("head", tmp_path, step=40, head="L1H2")
    # 2 sequences of 101 tokens, 6 heads: a byte per weight, 60 per position
    assert "only the attention is added (about 195.1 KB per checkpoint): byrote run runs/bare" in said(at)
    assert 2 * 6 * 101 * (101 + 60) == 195_132


def test_damaged_arrays_take_only_their_own_part_of_the_page(open_page, kept):
    file = attention_file(kept, 40)
    arrays = load_file(file)
    with safe_open(file, framework="numpy") as held:
        facts = {k: v for k, v in held.metadata().items() if not k.startswith("byrote-")}
    del arrays["repeated_random/written_ids"]
    save_file(arrays, file, metadata=facts)
    at = open_page("head", kept, step=40, head="L1H2")
    assert not at.exception
    assert "What this head writes cannot be shown" in said(at)
    assert len(at.get("bidi_component")) == 3  # the attention is there
    assert scores(at).loc["Prefix matching", "rank"] == "1 of 6"


def test_the_example_says_what_its_heads_write():
    root = _unpacked()
    assert root is not None
    runs = open_library([root]).runs
    for name, expected in (("unique-d32-seed0", [625, 1000]), ("repeated-d32-seed0", [1000])):
        run = runs[name]
        kept = [step for step in run.steps if stored_texts(attention_file(run.path, step))]
        assert kept == expected  # a bare address opens on the first
        assert all(unwritten(attention_file(run.path, step)) == "" for step in kept)


def test_tokens_in_words():
    words = {1: " the", 2: "", 3: "a\u202eb\tc"}
    assert [token_words(i, words) for i in (1, 2, 3)] == ["·the", "id 2", "a\ufffdb⇥c"]
    assert token_words(17, None) == "17"
    once, pattern = repeats_of(np.arange(5)), np.eye(5)
    assert [position(held, once, pattern) for held in (None, 0, 4, 5)] == [4, 0, 4, 4]


def test_fewer_raised_than_lowered_leaves_blanks():
    writes = Writes(np.array([[4, 5, 6, 7]]), np.array([[0.25, -0.5, -2.0, -1.0]]), None)
    frame = writes_frame(writes, 0, masked=False)
    assert frame.to_dict("list") == {
        "raises": ["4", ""], "raised by": ["+0.250", ""], "lowers": ["6", "7"], "lowered by": ["−2.00", "−1.00"],
    }  # fmt: skip


# Pinned heads beside it


def test_pinned_heads_stand_beside_the_chosen_one(open_page, full_runs):
    at = open_page("head", full_runs, run="repeated", step=40, head="L1H2", pin="L0H1,L1H2,L0H0,L1H0,L1H1")
    assert not at.exception and not at.error
    table = scores(at)
    assert list(table.columns) == [
        "curve", "value [95% interval]", "L0H1", "L0H0", "L1H0", "chance", "n", "rank", "unit",
    ]  # fmt: skip
    run = open_library([full_runs]).runs["repeated"]
    for head in ("L0H1", "L0H0", "L1H0"):  # each column is that head's own table
        own = scores_frame(run, head, step=40).set_index("measure")["value [95% interval]"]
        pd.testing.assert_series_equal(table[head], own, check_names=False)
    assert table.loc["Prefix matching", "value [95% interval]"] == "0.90 [0.88, 0.92]"
    assert "Pinned beside it: L0H1, L0H0, L1H0" in said(at)


def test_without_pins_nothing_stands_beside(open_page, full_runs):
    at = open_page("head", full_runs, run="repeated", step=40, head="L1H2", pin="L1H2")
    assert list(scores(at).columns) == ["curve", "value [95% interval]", "chance", "n", "rank", "unit"]


def test_a_pinned_head_without_a_number_says_why_or_nothing(tmp_path):
    units = whole(steps=(0, 40))
    holed = np.full((2, 3), 0.4)
    holed[0, 0] = np.nan
    units[40].append(head_metric("duplicate_token", holed))
    write_results(tmp_path, "holed", units)
    run = open_library([tmp_path]).runs["holed"]
    row = (
        scores_frame(run, "L1H2", step=40, beside=("L0H0", "L0H1"))
        .set_index("measure")
        .loc["Duplicate token"]
    )
    assert row["L0H0"] == "not measured: planted gap"
    assert row["L0H1"] == row["value [95% interval]"] == "0.40 [0.38, 0.42]"
    turned = scores_frame(run, "L0H0", step=40, beside=("L0H1",)).set_index("measure").loc["Duplicate token"]
    assert turned["value [95% interval]"] == "not measured: planted gap" and turned["rank"] == ""
    assert turned["L0H1"] == "0.40 [0.38, 0.42]"


def test_a_step_without_attention_leads_to_the_nearest_that_has_it(open_page, full_runs):
    at = open_page("head", full_runs, run="repeated", step=10, head="L1H2")
    assert not at.exception
    assert "attention was saved at 1 checkpoint, not at this one" in "\n".join(m.value for m in at.markdown)
    at.button(key="to_attention").click().run()
    assert at.session_state["byrote_state"].step == 40
    assert "figure_attention" in "".join(c.proto.id for c in at.get("plotly_chart"))


# What repeats, beside the baseline, over training, and all heads


def looks_at(keys: dict[int, int], n: int = 7) -> np.ndarray:
    """Attention of a head that gives 200/255 to these keys and the rest to itself; every other query looks at itself."""
    pattern = np.zeros((n, n), dtype=np.uint8)
    for query in range(n):
        pattern[query, query] = 255
        if query in keys:
            pattern[query, [keys[query], query]] = 200, 55
    return pattern


def save_repeats(folder, step: int, heads: dict[tuple[int, int], dict[int, int]], *, shape=(2, 3)) -> None:
    """Attention on BOS and three tokens twice: `heads` look at these keys, all others at themselves."""
    patterns = np.broadcast_to(looks_at({}), (1, *shape, 7, 7)).copy()
    for (layer, head), keys in heads.items():
        patterns[0, layer, head] = looks_at(keys)
    arrays = {
        "repeated_random/pattern": patterns,
        "repeated_random/tokens": np.array([[0, 5, 17, 9, 5, 17, 9]]),
    }
    facts = {
        "format": "byrote-attention-2",
        "stimuli": json.dumps({"repeated_random": "planted"}),
        "words": "{}",
        "unwritten": "x",
    }
    write_arrays(attention_file(folder, step), arrays, facts)


def components(at) -> list[dict]:
    return [json.loads(each.proto.json) for each in at.get("bidi_component")]


def test_a_repeated_text_shows_its_blocks_and_the_token_that_tells(open_page, full_runs):
    run = open_library([full_runs]).runs["repeated"]
    save_repeats(run.path, 40, {(1, 2): {5: 3}, (0, 1): {5: 2, 4: 2}})
    try:
        at = open_page("head", full_runs, run="repeated", base="", step=40, head="L1H2")
        strip = next(each for each in components(at) if "starts" in each)
        assert strip["starts"] == [1, 4] and strip["rest"] == 5 and strip["lock"] is None
        assert strip["targets"] == [[], [], [], [], [2], [3], [4]]
        sheet = next(each for each in components(at) if "said" in each)
        assert (
            sheet["selected"] == "L1H2"
            and sheet["names"][5] == "L1H2"
            and sheet["layers"] == [0, 0, 0, 1, 1, 1]
        )
        # of the three tokens with a target, L1H2 looks at one's with 200/255, and L0H1 at the first one's
        assert sheet["said"][5] == sheet["said"][1] == "0.261 on the token after the earlier copy"
        assert sheet["said"][0] == "0 on the token after the earlier copy"
        assert "The attention is stored at this step only." in said(at)
        beside = open_page("head", full_runs, run="repeated", base="", step=40, head="L0H1")
        assert next(each for each in components(beside) if "starts" in each)["rest"] == 4
    finally:
        attention_file(run.path, 40).unlink()


def test_the_same_tokens_stand_beside_one_another_in_two_runs_and_over_training(open_page, full_runs):
    runs = open_library([full_runs]).runs
    run, base = runs["repeated"], runs["unique"]
    steps = run.steps[-2:]
    for step, keys in zip(steps, ({}, {5: 3}), strict=True):
        save_repeats(run.path, step, {(1, 2): keys})
    save_repeats(base.path, base.steps[-1], {(1, 2): {6: 4}})
    try:
        at = open_page("head", full_runs, run="repeated", base="unique", step=steps[-1], head="L1H2")
        assert not at.exception and not at.error
        strips = [each for each in components(at) if "starts" in each]
        assert [strip["rest"] for strip in strips] == [
            5,
            5,
        ]  # the same token in both, that which tells in the run
        assert strips[0]["codes"] != strips[1]["codes"]
        drawn = attention_over_steps([run], head="L1H2", text=0, query=5)
        table = drawn.table.set_index(["line", "step"])["value"]
        assert table[("token 5", steps[0])] == 0 and table[("token 5", steps[1])] == pytest.approx(200 / 255)
        assert table[("mean of 3 tokens", steps[1])] == pytest.approx(200 / 255 / 3)
        assert "uniform attention gives 0.167" in drawn.alt
        with pytest.raises(ByroteError, match="stored at 1 step"):
            attention_over_steps(base, head="L1H2")
    finally:
        for one, step in ((run, steps[0]), (run, steps[1]), (base, base.steps[-1])):
            attention_file(one.path, step).unlink()


def test_a_long_text_is_drawn_small_by_its_largest_cells():
    patterns = np.zeros((1, 100, 100), dtype=np.uint8)
    patterns[0, 99, 50], patterns[0, 4, 2] = 200, 100
    small, every = pooled(patterns)
    assert (small.shape, every) == ((1, 34, 34), 3)
    assert small[0, 33, 16] == 200 and small[0, 1, 0] == 100 and int((small > 0).sum()) == 2
    data = sheet_data(patterns[None], heads=[(0, 0)], repeats=repeats_of(np.arange(100)), by_layer=True)
    assert data["said"] == [""] and data["borders"] == [] and data["side"] == 34
