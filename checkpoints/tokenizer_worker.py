"""``python -P -m byrote.checkpoints.tokenizer_worker BYTES``: one tokenizer.json, loaded and used in a process with limits.

A tokenizer.json is a small program that its author wrote: patterns that never end, replacements that double a text forty
times, tables that make the library's Rust code panic or abort. Here that costs a process that nobody misses. The other
end is `byrote.checkpoints.tokenizing`; this file needs the standard library and tokenizers, and nothing of ours.

    request   operation (1 byte), seconds (float64), texts or ids (uint32), most bytes of a reply and bytes sent (uint64)
    reply     "=", or with a reason in place of a result "!", or "X" where that was the last (1 byte), bytes that follow (uint64)

    L   the bytes of tokenizer.json       ->  its size (uint32)
    E   lengths (uint32 each), texts      ->  tokens of each (uint32 each), their ids (uint32)
    D   ids (uint32)                      ->  lengths (uint32 each), what each id stands for by itself
    N   ids (uint32)                      ->  lengths (uint32 each, `NONE` for an id without a token), each id's token
    T   ids wanted (uint32), then as E    ->  the tokenizer.json of byte-level BPE trained on the texts, which is used from then on

A first reply, with nothing in it, says that the library is there. Numbers are little-endian, texts are UTF-8. The process
ends with its standard input.
"""

from __future__ import annotations

import os
import signal
import struct
import sys
from array import array
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, BinaryIO

REQUEST, REPLY = struct.Struct("<cdIQQ"), struct.Struct("<cQ")
NONE = 0xFFFFFFFF
THREAD_BYTES = 80 << 20  # address space of one of the library's threads: its stack and glibc's arena
MAX_REASON = 300


class RefusedError(Exception):
    """A result that no honest tokenizer gives."""


def limit_resources(memory_bytes: int) -> None:
    """No core files, no files written, and on Linux no more memory than that beyond what is used already."""
    try:
        import resource
    except ImportError:  # Windows
        return
    limits = {resource.RLIMIT_CORE: 0, resource.RLIMIT_FSIZE: 0}
    try:
        with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 (as light as possible)
            used = int(file.read().split()[0]) * resource.getpagesize()
        limits[resource.RLIMIT_AS] = used + memory_bytes + THREAD_BYTES * (os.cpu_count() or 1)
    except OSError:
        pass  # elsewhere the address space says little about memory; time and lengths are limited still
    for what, limit in limits.items():
        hard = resource.getrlimit(what)[1]
        if hard != resource.RLIM_INFINITY:
            limit = min(limit, hard)
        resource.setrlimit(what, (limit, limit))


def load(data: bytes) -> Any:
    """A tokenizer that neither cuts nor pads: both would be measured like text."""
    from tokenizers import Tokenizer

    loaded = Tokenizer.from_buffer(data)
    loaded.no_truncation()
    loaded.no_padding()
    return loaded


def texts_in(payload: bytes, count: int) -> list[str]:
    """Lengths (uint32 each), then texts."""
    texts, at = [], 4 * count
    for length in numbers(payload[: 4 * count]):
        texts.append(payload[at : at + length].decode("utf-8", "replace"))
        at += length
    return texts


def trained(count: int, payload: bytes) -> Any:
    """See the module."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=numbers(payload[:4])[0],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts_in(payload[4:], count), trainer)
    return tokenizer


def encode(tokenizer: Any, count: int, payload: bytes, most: int) -> bytes:
    """See the module."""
    texts = texts_in(payload, count)
    found = [part.ids for part in tokenizer.encode_batch_fast(texts, add_special_tokens=False)]
    total = sum(map(len, found))
    if 4 * (count + total) > most:
        raise RefusedError(f"it makes {total:,} tokens of {len(payload) - 4 * count:,} bytes")
    counts, ids = array("I", map(len, found)), array("I")
    for part in found:
        ids.extend(part)
    return stored(counts) + stored(ids)


def decode(tokenizer: Any, payload: bytes, most: int) -> bytes:
    """See the module."""
    return texts_of(
        numbers(payload), lambda i: str(tokenizer.decode([i], skip_special_tokens=False)), most=most
    )


def names(tokenizer: Any, payload: bytes, most: int) -> bytes:
    """See the module."""
    return texts_of(numbers(payload), tokenizer.id_to_token, most=most)


def texts_of(ids: Sequence[int], text_of: Callable[[int], str | None], *, most: int) -> bytes:
    """Lengths and texts of ids."""
    lengths, texts, total = array("I"), [], 4 * len(ids)
    for i in ids:
        text = text_of(i)
        texts.append(b"" if text is None else text.encode("utf-8", "replace"))
        lengths.append(NONE if text is None else len(texts[-1]))
        total += len(texts[-1])
        if total > most:
            raise RefusedError(f"id {i} and those before it stand for more than {most:,} bytes")
    return stored(lengths) + b"".join(texts)


def numbers(data: bytes) -> Sequence[int]:
    """Little-endian uint32."""
    found = array("I", data)
    if sys.byteorder == "big":
        found.byteswap()
    return found


def stored(found: Any) -> bytes:
    """An array of uint32 as little-endian bytes."""
    if sys.byteorder == "big":
        found.byteswap()
    return bytes(found.tobytes())


def serve(requests: BinaryIO, replies: BinaryIO) -> None:
    """Answer requests until there are no more, or the library has panicked."""
    tokenizer: Any = None
    replies.write(REPLY.pack(b"=", 0))
    replies.flush()
    while len(head := requests.read(REQUEST.size)) == REQUEST.size:
        operation, seconds, count, most, size = REQUEST.unpack(head)
        payload = requests.read(size)
        alarm(seconds)  # the other end counts too; this is for when it is gone
        broken = False
        try:
            if operation == b"L":
                tokenizer = load(payload)
                result = stored(array("I", [tokenizer.get_vocab_size() & 0xFFFFFFFF]))
            elif operation == b"T":
                tokenizer = trained(count, payload)
                result = tokenizer.to_str().encode()
            elif operation == b"E":
                result = encode(tokenizer, count, payload, most)
            else:
                result = (decode if operation == b"D" else names)(tokenizer, payload, most)
            status = b"="
        except BaseException as error:  # a panic of the library is no Exception
            broken = not isinstance(error, Exception)
            reason = f"its library panicked: {error}" if broken else str(error) or type(error).__name__
            status, result = b"X" if broken else b"!", reason[:MAX_REASON].encode("utf-8", "replace")
        alarm(0)
        replies.write(REPLY.pack(status, len(result)) + result)
        replies.flush()
        if broken:
            return


def alarm(seconds: float) -> None:
    """The system ends the process after as long, whatever it does then; 0 takes that back."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)


def main(memory_bytes: str) -> None:
    """Limit the process, then serve."""
    replies = os.fdopen(os.dup(1), "wb")
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)  # whatever a library prints is no reply
    if hasattr(signal, "SIGALRM"):
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
    import tokenizers  # noqa: F401 (before its memory is counted)

    limit_resources(int(memory_bytes))
    with suppress(BrokenPipeError, KeyboardInterrupt):  # nobody is there any more
        serve(sys.stdin.buffer, replies)
    os._exit(0)  # a library in an unknown state runs nothing more


if __name__ == "__main__":
    main(sys.argv[1])
