"""A tokenizer.json that panics, never ends, or takes all memory costs a process of its own, and two lines."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from no_files import NO_FILES
from tiny_models import write_hf_series
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from byrote import interp
from byrote.checkpoints import ByroteError, open_series, tokenizing
from byrote.checkpoints.token_sets import NO_TOKEN_SETS, natural_windows, token_sets_from_files
from byrote.checkpoints.tokenizing import (
    TokenizerError,
    TokenizerProcess,
    one_tokenizer_process,
    open_tokenizer,
)
from byrote.cli.main import cli
from byrote.probes.attention import attention_file, stored_texts
from byrote.probes.sweep.config import SweepConfig
from byrote.probes.sweep.run import sweep

TEXTS = ["a b a", "", "b\u00e9 \U0001f600 a", " a\nb", "zzz" * 50]


def doubling(n: int) -> list[dict[str, Any]]:
    return [{"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}] * n


def bomb(**parts: Any) -> bytes:
    """A tokenizer.json of three words with something else in it."""
    vocab = {"a": 0, "b": 1, "[UNK]": 2}
    whole = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
        "pre_tokenizer": None, "post_processor": None, "decoder": None,
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "[UNK]"},
    }  # fmt: skip
    return json.dumps(whole | parts).encode()


def split(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def added(n: int) -> list[dict[str, Any]]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": True, "special": False}
    return [{"id": 3 + i, "content": f"t{i}", **flags} for i in range(n)]


NESTED = '{"type":"Sequence","normalizers":[' * 40_000 + "]}" * 40_000
SEQUENCE = {"type": "Sequence", "normalizers": doubling(40)}
FOR_EVER = split(r"x*x*(?<=y)")  # cubic, and below the library's own limit of retries
UNLOADABLE = {
    "a merge that is shorter than its prefix": bomb(
        model={"type": "BPE", "vocab": {"a": 0, "é": 1, "aé": 2}, "merges": ["a é"], "continuing_subword_prefix": "##é"}
    ),
    "a damaged table of characters": bomb(normalizer={"type": "Precompiled", "precompiled_charsmap": "////AAAA"}),
    "an id that is none": bomb(model={"type": "WordLevel", "vocab": {"a": 1 << 70}, "unk_token": "a"}),
    "a normalizer nested without end": bomb(normalizer=0).replace(b'"normalizer": 0', b'"normalizer": ' + NESTED.encode()),
    "brackets without end": b"[" * 1_000_000,
    "a pattern nested without end": bomb(pre_tokenizer=split("(" * 5000 + "a" + ")" * 5000)),
    "an unknown id that is not there": bomb(model={"type": "Unigram", "unk_id": 99, "vocab": [["a", 0.0]]}),
    "not JSON": b"\xff\x00{",
    "nothing": b"",
}  # fmt: skip
FAILS_ON_TEXT = {
    "no unknown token": bomb(model={"type": "WordPiece", "vocab": {"a": 0}, "unk_token": "[UNK]",
                                    "continuing_subword_prefix": "##", "max_input_chars_per_word": 9}),
    "a panic over pieces of no length": bomb(pre_tokenizer={"type": "FixedLength", "length": 0}),
    "a pattern that the library gives up": bomb(pre_tokenizer=split(r"(a|aa)+$")),
    "a table that leads out of itself": bomb(
        normalizer={"type": "Precompiled", "precompiled_charsmap": "CAAAAP////8AAAAAYWJj"}
    ),
}  # fmt: skip
PANICS_ON_IDS = bomb(decoder={"type": "Strip", "content": "a", "start": 10**6, "stop": 10**6})
DOUBLES_TEXT, DOUBLES_IDS = (
    bomb(normalizer=SEQUENCE),
    bomb(decoder={"type": "Sequence", "decoders": doubling(40)}),
)


def opened(data: bytes) -> TokenizerProcess:
    return TokenizerProcess(Path("bomb.json"), data)


def refused(caught: pytest.ExceptionInfo[TokenizerError]) -> str:
    """The message, which has to be one line with advice beside it."""
    assert caught.value.help and "\n" not in str(caught.value) and len(str(caught.value)) < 700
    return caught.value.message


@pytest.fixture
def in_a_hurry(monkeypatch):
    monkeypatch.setattr(tokenizing, "BASE_S", 0.4)
    monkeypatch.setattr(tokenizing, "_TICK_S", 0.05)


@pytest.fixture
def little_memory(monkeypatch):
    monkeypatch.setattr(tokenizing, "MEMORY_BYTES", 48 << 20)


@pytest.fixture(scope="module")
def honest(tmp_path_factory) -> Path:
    """Byte-level BPE, as most models have it, which cuts and pads where one lets it."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    made.train_from_iterator(["a b a banana bandana", "a cabana"] * 9, trainer)
    made.enable_truncation(2)
    made.enable_padding(length=7)
    path = tmp_path_factory.mktemp("honest") / "tokenizer.json"
    made.save(str(path))
    return path


def test_ids_and_texts_are_the_librarys_own(honest):
    here = Tokenizer.from_file(str(honest))
    here.no_truncation()
    here.no_padding()
    with open_tokenizer(honest) as there:
        assert there.size == here.get_vocab_size() == 269
        ids = there.encode(TEXTS)
        assert [row.tolist() for row in ids] == [
            here.encode(text, add_special_tokens=False).ids for text in TEXTS
        ]
        assert there.encode([]) == []
        assert there.encode([b"a\xff\xfeb"])[0].tolist() == here.encode("a\ufffd\ufffdb").ids
        wanted = [0, 5, 268, 269, 10**12, -1, 5]
        assert there.decode(wanted[:4]) == [here.decode([i], skip_special_tokens=False) for i in wanted[:4]]
        assert there.names(wanted) == [
            *(here.id_to_token(i) for i in wanted[:4]),
            None,
            None,
            here.id_to_token(5),
        ]
        assert there.decode([10**12, -1, 5]) == ["", "", here.decode([5])]


def test_many_texts_are_sent_in_parts(honest, monkeypatch):
    monkeypatch.setattr(tokenizing, "GROUP_BYTES", 10)
    with open_tokenizer(honest) as there:
        apart = there.encode(TEXTS * 3)
    monkeypatch.undo()
    with open_tokenizer(honest) as there:
        for one, other in zip(apart, there.encode(TEXTS * 3), strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", UNLOADABLE)
def test_what_cannot_be_loaded_is_no_tokenizer(name):
    with pytest.raises(TokenizerError, match=r"bomb\.json is not a tokenizer\.json") as caught:
        opened(UNLOADABLE[name])
    refused(caught)


@pytest.mark.parametrize("name", FAILS_ON_TEXT)
def test_what_fails_on_a_text_says_so(name):
    with opened(FAILS_ON_TEXT[name]) as there, pytest.raises(TokenizerError, match="failed") as caught:
        there.encode(["a" * 60 + "bc"])
    refused(caught)


def test_a_panic_is_an_error_here_and_the_end_there():
    with opened(PANICS_ON_IDS) as there:
        with pytest.raises(
            TokenizerError, match=r"failed \(its library panicked: index out of bounds"
        ) as caught:
            there.decode([0])
        refused(caught)
        assert not there.alive
        with pytest.raises(TokenizerError, match="is no longer used, because it failed"):
            there.encode(["a"])


@pytest.mark.parametrize(
    "data, use",
    [
        (DOUBLES_TEXT, lambda there: there.encode(["a"])),
        (DOUBLES_IDS, lambda there: there.decode([0])),
        (bomb(pre_tokenizer=FOR_EVER), lambda there: there.encode(["x" * 2500])),
    ],
    ids=["doubled text", "doubled ids", "a pattern"],
)
def test_what_does_not_end_is_stopped(data, use, in_a_hurry):
    with opened(data) as there:
        started = time.monotonic()
        with pytest.raises(TokenizerError, match="was stopped: 0 s after it was given") as caught:
            use(there)
        assert time.monotonic() - started < 5 and not there.alive
    refused(caught)


def test_what_does_not_end_while_it_is_loaded_is_stopped(in_a_hurry):
    with pytest.raises(TokenizerError, match="after it was loaded it had not ended"):
        opened(bomb(normalizer=SEQUENCE, added_tokens=[{**added(1)[0], "content": "a"}]))


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the address space cannot be limited")
@pytest.mark.parametrize(
    "data, use",
    [
        (DOUBLES_TEXT, lambda there: there.encode(["a"])),
        (DOUBLES_IDS, lambda there: there.decode([0])),
    ],
    ids=["text", "ids"],
)
def test_what_takes_all_memory_ends_its_own_process(data, use, little_memory):
    with (
        opened(data) as there,
        pytest.raises(TokenizerError, match=r"ended its process \(SIGABRT\)") as caught,
    ):
        use(there)
    refused(caught)


@pytest.mark.slow
def test_a_million_added_tokens_are_loaded_or_refused():
    try:
        with opened(bomb(added_tokens=added(1_000_000))) as there:
            assert there.encode(["t5"])[0].tolist() == [8]
    except TokenizerError as error:
        assert "was stopped" in error.message or "ended its process" in error.message


def test_more_tokens_than_a_text_can_have_are_refused(monkeypatch):
    monkeypatch.setattr(tokenizing, "SPARE_REPLY_BYTES", 0)
    grown = {"type": "Sequence", "normalizers": doubling(12)}
    with opened(bomb(normalizer=grown, pre_tokenizer=split("a"))) as there:
        with pytest.raises(TokenizerError, match="it makes 4,096 tokens of 1 bytes"):
            there.encode(["a"])
        assert there.encode(["b"])[0].tolist() == [1]  # one text refused is no end


def test_longer_texts_than_a_token_has_are_refused(monkeypatch):
    monkeypatch.setattr(tokenizing, "SPARE_REPLY_BYTES", 0)
    with opened(bomb(decoder={"type": "Sequence", "decoders": doubling(12)})) as there:
        with pytest.raises(TokenizerError, match="stand for more than 1,024 bytes"):
            there.decode([0])
        assert there.decode([1]) == ["b"]


def test_a_reply_that_is_none_is_refused(honest, monkeypatch):
    """As a worker might send that its own library has overwritten."""
    reply = TokenizerProcess._reply
    for wrong in (b"", b"\xff\xff\xff\xff", b"\x01\x00\x00\x00", b"\x00\x00\x00\x00abcd"):
        with open_tokenizer(honest) as there:
            monkeypatch.setattr(
                TokenizerProcess, "_reply", lambda self, most, wrong=wrong: reply(self, most) and wrong
            )
            with pytest.raises(TokenizerError, match="gave an invalid answer"):
                there.encode(["a"])
            monkeypatch.undo()


# Its process


def pid_of(there: TokenizerProcess) -> int:
    return there._process.pid


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_its_process_ends_with_its_block_and_with_an_error_in_it(honest):
    with open_tokenizer(honest) as there:
        first = pid_of(there)
        assert not gone(first)
    with pytest.raises(ZeroDivisionError), open_tokenizer(honest) as there:
        second = pid_of(there)
        raise ZeroDivisionError
    assert gone(first) and gone(second)


def test_one_process_serves_a_block(honest, tmp_path):
    copy = tmp_path / "tokenizer.json"
    copy.write_bytes(honest.read_bytes())
    with one_tokenizer_process():
        with open_tokenizer(honest) as there:
            first = pid_of(there)
        with one_tokenizer_process(), open_tokenizer(copy) as there:
            assert pid_of(there) == first
            copy.write_bytes(bomb())
            with open_tokenizer(copy) as other:  # two at a time
                assert pid_of(other) != first and there.alive
            assert gone(pid_of(other))
        with open_tokenizer(copy) as there:
            assert gone(first)  # one at a time
            assert there.encode(["b"])[0].tolist() == [1]
            last = pid_of(there)
    assert gone(last)


def test_what_failed_in_a_block_is_not_tried_again(tmp_path, in_a_hurry, monkeypatch):
    (tmp_path / "tokenizer.json").write_bytes(DOUBLES_IDS)
    with one_tokenizer_process():
        with (
            pytest.raises(TokenizerError, match="was stopped"),
            open_tokenizer(tmp_path / "tokenizer.json") as there,
        ):
            there.decode([0])
        monkeypatch.setattr(tokenizing, "TokenizerProcess", None)
        with pytest.raises(TokenizerError, match="was stopped"), open_tokenizer(tmp_path / "tokenizer.json"):
            pass


def test_an_interrupt_ends_the_process_at_once(tmp_path):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    with opened(DOUBLES_IDS) as there:
        threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
        started = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            there.decode([0])
        signal.signal(signal.SIGINT, before)
        assert time.monotonic() - started < 5 and not there.alive


@pytest.mark.skipif(os.name == "nt", reason="Windows has no timers of this kind")
def test_it_ends_when_nobody_is_there_any_more():
    """Killed while the worker is at something that never ends."""
    code = (
        "import sys; from pathlib import Path; from byrote.checkpoints import tokenizing as t; t.BASE_S = t.START_S = 0.4\n"
        "t._TICK_S = 99\nthere = t.TokenizerProcess(Path('x'), sys.stdin.buffer.read())\n"
        "print(there._process.pid, flush=True)\nthere.decode([0])"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert parent.stdin and parent.stdout
    with parent, parent.stdin, parent.stdout:
        parent.stdin.write(DOUBLES_IDS)
        parent.stdin.close()
        worker = int(parent.stdout.readline())
        parent.kill()
    until = time.monotonic() + 10
    while not (over := gone(worker) or state_of(worker) == "Z") and time.monotonic() < until:
        time.sleep(0.02)
    assert over


def state_of(pid: int) -> str:
    """R, S, Z and so on; Z has ended, and waits for whoever adopted it."""
    stat = Path(f"/proc/{pid}/stat")
    return stat.read_text().rpartition(")")[2].split()[0] if stat.exists() else ""


def test_files_of_the_working_folder_are_not_imported(honest, tmp_path, monkeypatch):
    for name in ("tokenizers", "byrote", "struct", "array", "sitecustomize"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.chdir(tmp_path)
    with open_tokenizer(honest) as there:
        assert there.decode([269]) == [""]
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("kind", (*NO_FILES, "nothing", "too large", "loop"))
def test_only_a_regular_file_is_a_tokenizer(kind, tmp_path, monkeypatch):
    path = tmp_path / "tokenizer.json"
    if kind in NO_FILES:
        NO_FILES[kind](path)
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "too large":
        path.touch()
        os.truncate(path, 1 << 40)
    with pytest.raises(TokenizerError) as caught, open_tokenizer(path):
        pass
    refused(caught)


# Whoever uses one


@pytest.fixture
def bombed(tmp_path) -> Path:
    """A series whose tokenizer.json loads well and panics on whatever it is given."""
    path = write_hf_series(tmp_path, "gpt_neox", (0,))
    data = bomb(
        pre_tokenizer={"type": "FixedLength", "length": 0},
        decoder={"type": "Strip", "content": "a", "start": 10**6, "stop": 10**6},
    )
    for folder in path.iterdir():
        (folder / "tokenizer.json").write_bytes(data)
    return path


def test_a_sweep_saves_ids_where_the_tokenizer_fails_and_says_why(bombed, tmp_path):
    config = SweepConfig(probes=("prefix_matching",), n_seq=4, save_attention=True)
    outcome = sweep(open_series(bombed), config, out=tmp_path / "results")
    assert outcome.gaps == [] and outcome.measured
    (text, *_) = stored_texts(attention_file(outcome.path, 0))
    assert text.words is None and "panicked" in text.wordless
    assert sweep(open_series(bombed), config, out=tmp_path / "results").measured == 0


def test_every_other_user_refuses(bombed, tmp_path, capsys):
    (tmp_path / "text.txt").write_text("a b a b\n" * 100)
    checkpoint = open_series(bombed)[-1]
    tokenizer = checkpoint.path / "tokenizer.json"
    with pytest.raises(ByroteError, match="panicked"):
        natural_windows(tmp_path / "text.txt", tokenizer=tokenizer, bos=0, width=8, wanted=4)
    with pytest.raises(ByroteError, match="panicked"):
        token_sets_from_files(
            NO_TOKEN_SETS, tokenizer=tokenizer, bos=0, n_ctx=8, members=tmp_path / "text.txt"
        )
    with pytest.raises(ByroteError, match="panicked"):
        interp.capture(interp.load(checkpoint), "a b")
    with pytest.raises(SystemExit) as ended:
        cli(["text", str(tmp_path / "text.txt"), "--tokenizer", str(tokenizer)])
    error = capsys.readouterr().err
    assert ended.value.code == 2 and error.count("\n") == 2
    assert error.startswith("error: ") and "panicked" in error and "Traceback" not in error
