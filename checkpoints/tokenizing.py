"""A tokenizer.json, loaded and used in a process of its own, under limits of time, memory and length.

A tokenizer.json comes from whoever published the checkpoint, and is a small program: patterns that never end, replacements
that double a text forty times, tables that make the library panic or abort. `tokenizer_worker` runs it; whatever dies
there is a clear error here. Nothing in byrote uses the tokenizers library in its own process.
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, UInt32

from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.safe_read import FileRefused, read_bytes
from byrote.checkpoints.tokenizer_worker import MAX_REASON, NONE, REPLY, REQUEST

MAX_TOKENIZER_BYTES = 256 << 20  # the largest in use have 40 MB
START_S = 60.0  # for Python and the library, on a machine that is busy with other things
BASE_S, S_PER_MIB = 20.0, 20.0  # an honest tokenizer takes a second per MiB, on one core
MEMORY_BYTES = (
    6 << 30
)  # a single text of 32 MiB, the longest that is read, takes 4 GiB; never more than half the machine's
GROUP_BYTES = 1 << 20  # of text in one request
MAX_TOKENS_PER_BYTE = 16  # one character of three bytes becomes eighteen under Unicode's compatibility forms
MAX_ID_BYTES = 1 << 10  # that one id stands for, on average; the longest tokens in use have some hundreds
SPARE_REPLY_BYTES = 1 << 20
MAX_REASON_BYTES = 4 * MAX_REASON
MAX_TRAINING_BYTES = 64 << 20
EMPTY_BPE = b'{"version":"1.0","added_tokens":[],"model":{"type":"BPE","vocab":{},"merges":[]}}'
_S_PER_ID = 1e-3
_LOADED_BYTES = 4
_TICK_S = 1.0


class TokenizerError(ByroteError):
    """A tokenizer.json that cannot be loaded, or that fails, dies or never ends on what it is given."""


class TokenizerProcess:
    """A tokenizer that neither cuts nor pads, in a process of its own; closed by `close`, or as a context manager.

    Args:
        path: of the tokenizer.json, for messages.
        data: its bytes.

    Raises:
        TokenizerError: it cannot be loaded, or not within its limits.

    Attributes:
        size: tokens of its vocabulary, added ones included.
    """

    def __init__(self, path: Path, data: bytes) -> None:
        self.path = path
        self._timed_out = False
        self._process = _started()
        self._end = weakref.finalize(self, _killed, self._process)
        try:
            with self._stopped_after(START_S, "was started"):
                self._reply(0)
            with self._stopped_after(_seconds(data), "was loaded") as seconds:
                self._request(b"L", data, seconds=seconds, most=_LOADED_BYTES)
                loaded = self._reply(_LOADED_BYTES)
        except _RefusedThere as refused:
            self.close()
            raise TokenizerError(
                f"{path} is not a tokenizer.json ({refused})", help="transformers' save_pretrained writes one"
            ) from None
        except BaseException:
            self.close()
            raise
        self.size = int(np.frombuffer(loaded, "<u4")[0])

    def __enter__(self) -> TokenizerProcess:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def alive(self) -> bool:
        """Whether it can be used still."""
        return self._end.alive and self._process.poll() is None

    def close(self) -> None:
        """End the process."""
        self._end()

    def encode(self, texts: Sequence[str | bytes]) -> list[UInt32[np.ndarray, " n"]]:
        """Token ids of each text, no special ones added.

        Args:
            texts: as text, or as UTF-8; bytes that are none are replaced.

        Raises:
            TokenizerError: it fails, dies, takes too long, or makes more tokens than a text can have.
            ByroteError: a text with half a surrogate pair.
        """
        found: list[np.ndarray] = []
        for group in _groups([_utf8(text) for text in texts]):
            lengths = np.asarray([len(text) for text in group], dtype="<u4")
            payload = lengths.tobytes() + b"".join(group)
            most = SPARE_REPLY_BYTES + 4 * MAX_TOKENS_PER_BYTE * len(payload)
            reply = self._use(b"E", payload, count=len(group), most=most)
            counts, rest = _split(reply, len(group), path=self.path)
            ids = np.frombuffer(rest, "<u4")
            if counts.sum() != len(ids):
                raise self._nonsense()
            found += np.split(ids, np.cumsum(counts)[:-1])
        return found

    def train_bpe(self, texts: Sequence[str | bytes], n_ids: int) -> bytes:
        """Become byte-level BPE trained on these texts; its tokenizer.json.

        Args:
            texts: to train on; together at most `MAX_TRAINING_BYTES`.
            n_ids: ids to have, 256 or more; fewer come of a text that is too short.

        Raises:
            TokenizerError: it fails, dies or takes too long.
            ByroteError: too much text.
        """
        given = [_utf8(text) for text in texts]
        size = sum(map(len, given))
        if size > MAX_TRAINING_BYTES:
            raise ByroteError(
                f"{_amount(size)} of text are too much to train a tokenizer on",
                help=f"give at most {_amount(MAX_TRAINING_BYTES)}",
            )
        numbers = np.asarray([n_ids, *map(len, given)], dtype="<u4").tobytes()
        most = SPARE_REPLY_BYTES + MAX_ID_BYTES * n_ids
        trained = self._use(b"T", numbers + b"".join(given), count=len(given), most=most)
        self.size = n_ids
        return trained

    def decode(self, ids: Sequence[int] | Int[np.ndarray, " n"]) -> list[str]:
        """What each id stands for by itself, special tokens included; "" for an id without a token.

        Raises:
            TokenizerError: as for `encode`.
        """
        return ["" if text is None else text for text in self._texts(b"D", ids)]

    def names(self, ids: Sequence[int] | Int[np.ndarray, " n"]) -> list[str | None]:
        """Each id's token as the vocabulary writes it; None for an id without one.

        Raises:
            TokenizerError: as for `encode`.
        """
        return self._texts(b"N", ids)

    def _texts(self, operation: bytes, ids: Sequence[int] | Int[np.ndarray, " n"]) -> list[str | None]:
        given = np.asarray(ids, dtype=np.int64)
        known = (given >= 0) & (given < NONE)  # no other can be anybody's token
        asked_for = given[known].astype("<u4")
        most = SPARE_REPLY_BYTES + MAX_ID_BYTES * len(asked_for)
        reply = self._use(operation, asked_for.tobytes(), count=len(asked_for), most=most)
        lengths, text = _split(reply, len(asked_for), path=self.path)
        found: list[str | None] = []
        at = 0
        for length in lengths.tolist():
            end = at + (0 if length == NONE else length)
            found.append(None if length == NONE else text[at:end].decode("utf-8", "replace"))
            at = end
        if at != len(text):
            raise self._nonsense()
        texts: list[str | None] = [None] * len(given)
        for place, one in zip(np.flatnonzero(known).tolist(), found, strict=True):
            texts[place] = one
        return texts

    def _use(self, operation: bytes, payload: bytes, *, count: int, most: int) -> bytes:
        if not self._end.alive:
            raise TokenizerError(
                f"the tokenizer {self.path} is no longer used, because it failed",
                help="give another tokenizer.json",
            )
        seconds, doing = _seconds(payload), f"was given {_amount(len(payload))}"
        if operation == b"T":
            seconds *= 4  # counting pairs, over and over
        elif operation != b"E":
            seconds, doing = BASE_S + _S_PER_ID * count, f"was given {count:,} ids"
        try:
            with self._stopped_after(seconds, doing):
                self._request(operation, payload, seconds=seconds, count=count, most=most)
                return self._reply(most)
        except _RefusedThere as refused:
            raise TokenizerError(
                f"the tokenizer {self.path} failed ({refused})",
                help="it may be damaged, or of another kind than its model: download it again from where the model is published",
            ) from None
        except BaseException:
            self.close()  # nobody waits for what it was doing
            raise

    def _request(
        self, operation: bytes, payload: bytes, *, seconds: float, most: int, count: int = 0
    ) -> None:
        head = REQUEST.pack(operation, 2 * seconds + START_S, count, most, len(payload))
        _write(self._process.stdin, head)
        _write(self._process.stdin, payload)

    def _reply(self, most: int) -> bytes:
        """A reply of at most as many bytes.

        Raises:
            _RefusedThere: it says why there is no result.
        """
        status, size = REPLY.unpack(_read(self._process.stdout, REPLY.size))
        if size > (most if status == b"=" else MAX_REASON_BYTES):
            raise self._nonsense()
        reply = _read(self._process.stdout, size)
        if status == b"=":
            return reply
        if status == b"X":
            self.close()
        raise _RefusedThere(reply.decode("utf-8", "replace"))

    @contextmanager
    def _stopped_after(self, seconds: float, doing: str) -> Iterator[float]:
        """Kill the process when the block takes longer; time in which everything stands still does not count.

        Raises:
            TokenizerError: it was stopped, or died.
        """
        done = threading.Event()

        def watch() -> None:
            left = seconds
            while left > 0:
                if done.wait(min(left, _TICK_S)):
                    return
                left -= _TICK_S
            self._timed_out = True
            self._process.kill()

        watcher = threading.Thread(target=watch, daemon=True, name="byrote-tokenizer-limit")
        watcher.start()
        try:
            yield seconds
        except (OSError, EOFError):
            raise self._death(doing, seconds) from None
        finally:
            done.set()
            watcher.join()

    def _death(self, doing: str, seconds: float) -> TokenizerError:
        code = self._process.wait()
        help = "give token ids in place of text, or download tokenizer.json again from where the model is published"
        if self._timed_out:
            return TokenizerError(
                f"the tokenizer {self.path} was stopped: {seconds:,.0f} s after it {doing} it had not ended",
                help=help,
            )
        how = f"code {code}"
        if code < 0:
            how = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        return TokenizerError(
            f"the tokenizer {self.path} ended its process ({how}) when it {doing}, as happens when memory runs out",
            help=help,
        )

    def _nonsense(self) -> TokenizerError:
        self.close()
        return TokenizerError(
            f"the tokenizer {self.path} gave an invalid answer",
            help="download it again from where it is published",
        )


class _RefusedThere(Exception):
    """Why the worker has no result."""


@dataclass
class _Shared:
    """The process of a block, how many use it, and what failed there."""

    digest: bytes = b""
    current: TokenizerProcess | None = None
    users: int = 0
    failed: dict[bytes, TokenizerError] = field(default_factory=dict)


_shared: ContextVar[_Shared | None] = ContextVar("the tokenizer of this block", default=None)


@contextmanager
def one_tokenizer_process() -> Iterator[None]:
    """Within this block, a tokenizer.json that is opened again is not loaded again, wherever it lies.

    The process ends with the block, or when another tokenizer.json is opened. One that failed is refused from then on.
    """
    if _shared.get() is not None:
        yield
        return
    own = _Shared()
    token = _shared.set(own)
    try:
        yield
    finally:
        _shared.reset(token)
        if own.current is not None:
            own.current.close()


@contextmanager
def open_tokenizer(path: Path | None) -> Iterator[TokenizerProcess]:
    """A tokenizer.json in a process of its own, for a block.

    Raises:
        TokenizerError: not there, no tokenizer.json, or one that does not keep to its limits.
    """
    if path is None or not path.is_file():
        raise TokenizerError(f"there is no tokenizer at {path}", help="give the path of a tokenizer.json")
    try:
        data = read_bytes(path, max_bytes=MAX_TOKENIZER_BYTES, follow_links=True)
    except FileRefused as refused:
        raise TokenizerError(
            refused.message, help=refused.help or "give the tokenizer.json of a model"
        ) from None
    except OSError as error:
        raise TokenizerError(
            f"{path} cannot be read ({error.strerror})", help="check its permissions"
        ) from None
    shared = _shared.get()
    if shared is None:
        with TokenizerProcess(path, data) as own:
            yield own
        return
    digest = hashlib.blake2b(data, digest_size=16).digest()
    if digest in shared.failed:
        earlier = shared.failed[digest]
        raise TokenizerError(earlier.message, help=earlier.help)
    if shared.users and shared.digest != digest:  # two at a time: the second for itself
        with TokenizerProcess(path, data) as own:
            yield own
        return
    try:
        if shared.current is None or shared.digest != digest or not shared.current.alive:
            if shared.current is not None:
                shared.current.close()
            shared.current = None
            shared.current, shared.digest = TokenizerProcess(path, data), digest
        shared.users += 1
        try:
            yield shared.current
        finally:
            shared.users -= 1
    except TokenizerError as error:
        if shared.current is None or not shared.current.alive:
            shared.failed[digest] = error
        raise


def _started() -> subprocess.Popen[bytes]:
    """A worker, away from the working folder and from what is typed at the terminal."""
    environment = {**os.environ, "RUST_BACKTRACE": "0"}
    own: dict[str, Any] = {"start_new_session": True}
    if os.name == "nt":
        own = {"creationflags": getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)}
    try:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "byrote.checkpoints.tokenizer_worker", str(_memory_bytes())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            cwd=Path(sys.executable).anchor,
            env=environment,
            **own,
        )
    except OSError as error:
        raise TokenizerError(
            f"cannot start a process for the tokenizer ({error.strerror})", help="free some memory"
        ) from None


def _memory_bytes() -> int:
    try:
        return min(MEMORY_BYTES, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2)
    except (AttributeError, OSError, ValueError):
        return MEMORY_BYTES


def _killed(process: subprocess.Popen[bytes]) -> None:
    with suppress(OSError):
        process.kill()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(OSError):
                pipe.close()
    process.wait()


def _write(pipe: Any, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[pipe.write(left) :]


def _read(pipe: Any, size: int) -> bytes:
    data = bytearray(size)
    left = memoryview(data)
    while left:
        n = pipe.readinto(left)
        if not n:
            raise EOFError
        left = left[n:]
    return bytes(data)


def _groups(texts: Sequence[bytes]) -> Iterator[list[bytes]]:
    """A few texts at a time, about `GROUP_BYTES` together."""
    group: list[bytes] = []
    size = 0
    for text in texts:
        if group and size + len(text) > GROUP_BYTES:
            yield group
            group, size = [], 0
        group.append(text)
        size += len(text)
    if group:
        yield group


def _utf8(text: str | bytes) -> bytes:
    if isinstance(text, bytes):
        return text
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise ByroteError(
            "the text contains half of a surrogate pair", help="give valid Unicode text"
        ) from None


def _split(reply: bytes, count: int, *, path: Path) -> tuple[np.ndarray, bytes]:
    """The numbers that a reply begins with, and the rest."""
    if len(reply) < 4 * count:
        raise TokenizerError(f"the tokenizer {path} gave an invalid answer", help="give another one")
    return np.frombuffer(reply[: 4 * count], "<u4").astype(np.int64), reply[4 * count :]


def _seconds(data: bytes) -> float:
    return BASE_S + S_PER_MIB * len(data) / (1 << 20)


def _amount(size: int) -> str:
    return f"{size:,} bytes" if size < 1 << 20 else f"{size / (1 << 20):,.1f} MiB"
