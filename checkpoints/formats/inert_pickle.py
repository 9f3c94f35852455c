"""Read a pickle without running it: plain values, and inert records for everything else.

A pickle is a program. This reader runs the part of its language that builds values and refuses the rest: a name it was
not given a maker for stops it, nothing is imported, nothing is called that was not written here for the purpose.
Torch-free. Bounded in bytes, operations, nesting, and values that wait for what takes them.

Source: the opcodes of pickle protocols 2 to 5 as `pickletools` documents them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from byrote.checkpoints.errors import CheckpointError

MAX_OPERATIONS = 2_000_000  # some 40,000 tensors
MAX_NESTING = 100
MAX_WAITING = 200_000  # picklers put a dict or a list together a thousand items at a time
_CHECKED_EVERY = 10_000  # operations
CONVERT = (
    "byrote never runs code from a checkpoint; where you trust it, load it once yourself and save the tensors alone: "
    "torch.save(model.state_dict(), 'step_N.pt') or safetensors.torch.save_file(model.state_dict(), ...); of many steps in one "
    "file: torch.save({step: state_dict, ...}, 'run.pt')"
)
CONVERT_LENS = (
    "where you trust it, load it once with the TransformerLens that wrote it and save plain values: "
    "torch.save(model.state_dict(), 'step_N.pth'), or of many steps torch.save({step: state_dict, ...}, 'run.pth'); and "
    "json.dump(model.cfg.to_dict(), open('config.json', 'w'), default=str)"
)
_PY2_MODULES = {"__builtin__": "builtins", "copy_reg": "copyreg"}

Maker = Callable[[tuple[Any, ...]], Any]


@dataclass(frozen=True)
class Global:
    """A name the pickle mentions. Never looked up."""

    name: str


@dataclass(eq=False)
class Record:
    """An object the pickle describes: its class by name, what it was made from, what was set on it."""

    of: str
    args: tuple[Any, ...] = ()
    state: dict[Any, Any] | tuple[Any, ...] = field(default_factory=dict)


def record_maker(name: str) -> Maker:
    """A maker that only writes down what it was given."""
    return lambda args: Record(name, args)


def shown(name: object) -> str:
    """A name from a file, safe to print: control characters escaped, not endless."""
    text = str(name) if len(str(name)) <= 120 else str(name)[:117] + "..."
    return text if text.isprintable() else ascii(text)[1:-1]


class InertPickle:
    """One pickle read from bytes; see the module's docstring.

    Args:
        data: bytes that begin with the pickle; it may be followed by others.
        makers: what may be mentioned, by full name. A name with a maker may be called, which calls the maker;
            a name with None may only stand as a value.
        persistent: turns a persistent id into a value; without it there may be none.
        where: the file, for messages.
        max_protocol: the highest protocol allowed.
    """

    def __init__(
        self,
        data: bytes | memoryview,
        makers: Mapping[str, Maker | None],
        *,
        where: str,
        persistent: Callable[[Any], Any] | None = None,
        max_protocol: int = 5,
    ) -> None:
        self.data, self.makers, self.where = data, makers, where
        self.persistent, self.max_protocol = persistent, max_protocol
        self.position = 0
        self.memo: dict[int, Any] = {}
        self.stack: list[Any] = []
        self.marked: list[list[Any]] = []

    def read(self) -> Any:
        """The value; `position` is then just behind it.

        Raises:
            CheckpointError: a name or operation that plain values never need, or bytes that are no pickle.
        """
        try:
            return self._run()
        except CheckpointError:
            raise
        except (
            LookupError,
            ValueError,
            TypeError,
            AttributeError,
            OverflowError,
            struct.error,
        ) as error:
            raise CheckpointError(
                f"{self.where} is not a readable pickle file (byte {self.position}: {shown(error)})",
                help="the file is damaged or of another kind; copy or save it again",
            ) from None

    def _run(self) -> Any:
        for done in range(MAX_OPERATIONS):
            if not done % _CHECKED_EVERY and len(self.stack) + sum(map(len, self.marked)) > MAX_WAITING:
                raise ValueError(f"more than {MAX_WAITING} values that nothing consumes")
            code = self.data[self.position]
            self.position += 1
            if code == 0x2E:  # STOP
                if self.marked or len(self.stack) != 1:
                    raise ValueError("values left over at its end")
                return self.stack.pop()
            operation = _OPERATIONS.get(code)
            if operation is None:
                raise ValueError(f"operation 0x{code:02x} is not used by plain values")
            operation(self)
        raise ValueError(f"more than {MAX_OPERATIONS} operations")

    def _take(self, count: int) -> bytes:
        end = self.position + count
        if count < 0 or end > len(self.data):
            raise ValueError("cut short")
        chunk = bytes(self.data[self.position : end])
        self.position = end
        return chunk

    def _number(self, layout: str) -> Any:
        return struct.unpack(layout, self._take(struct.calcsize(layout)))[0]

    def _line(self) -> str:
        end = self.position
        while self.data[end] != 0x0A:
            end += 1
            if end - self.position > 1000:
                raise ValueError("a name of more than 1000 bytes")
        text = bytes(self.data[self.position : end]).decode()
        self.position = end + 1
        return text

    def _push_global(self, module: str, name: str) -> None:
        module = _PY2_MODULES.get(module, module)
        full = f"{module}.{name}"
        if full not in self.makers:
            raise CheckpointError(
                f"{self.where} is pickled and refers to {shown(full)}, which plain weights never need",
                help=CONVERT_LENS if full.startswith(("transformer_lens.", "easy_transformer.")) else CONVERT,
            )
        self.stack.append(Global(full))

    def _since_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.marked.pop()
        return items

    def _mark(self) -> None:
        if len(self.marked) >= MAX_NESTING:
            raise ValueError(f"nested more than {MAX_NESTING} deep")
        self.marked.append(self.stack)
        self.stack = []

    def _call(self) -> None:
        args, target = self.stack.pop(), self.stack.pop()
        if not isinstance(target, Global) or not isinstance(args, tuple):
            raise ValueError("a call of something that has no name")
        maker = self.makers[target.name]
        if maker is None:
            raise CheckpointError(
                f"{self.where} is pickled and would call {shown(target.name)}, which plain weights never need",
                help=CONVERT,
            )
        self.stack.append(maker(args))

    def _set_state(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, Record):
            if not isinstance(state, dict | tuple):
                raise ValueError("object state that is neither a dict of fields nor a tuple")
            target.state = state
        elif not isinstance(target, dict):  # an OrderedDict's own attributes, such as _metadata, are dropped
            raise ValueError(f"state set on a {type(target).__name__}")

    def _set_items(self, pairs: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not dict or len(pairs) % 2:
            raise ValueError("items set on something that is not a dict")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            target[plain_key(key)] = value

    def _set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set_items([key, value])

    def _extend(self, items: list[Any]) -> None:
        if type(self.stack[-1]) is not list:
            raise ValueError("items appended to something that is not a list")
        self.stack[-1].extend(items)

    def _tuple_of(self, count: int) -> None:
        if len(self.stack) < count:
            raise ValueError("a tuple of more values than there are")
        items = tuple(self.stack[-count:])
        del self.stack[-count:]
        self.stack.append(items)

    def _tuple_since_mark(self) -> None:
        items = tuple(self._since_mark())  # which puts back the stack to push it on
        self.stack.append(items)

    def _persistent(self) -> None:
        if self.persistent is None:
            raise ValueError("a reference to something outside it")
        self.stack.append(self.persistent(self.stack.pop()))

    def _protocol(self) -> None:
        protocol = self._number("B")
        if protocol > self.max_protocol:
            raise CheckpointError(
                f"{self.where} was saved with pickle protocol {protocol}; torch reads protocol {self.max_protocol} safely",
                help="save it again without pickle_protocol=",
            )

    def _stack_global(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise ValueError("a name that is not text")
        self._push_global(module, name)


def plain_key(key: Any) -> Any:
    """A dict key whose hash costs nothing and runs nothing; nested tuples could take forever to hash."""
    flat = key if isinstance(key, tuple) else (key,)
    if not all(isinstance(k, str | int | float | bytes | Record | Global | None) for k in flat):
        raise ValueError("a dict key that is not a string, a number or a flat tuple of them")
    return key


def _push(value: Callable[[InertPickle], Any]) -> Callable[[InertPickle], None]:
    return lambda p: p.stack.append(value(p))


def _text(length: str) -> Callable[[InertPickle], None]:
    return _push(lambda p: str(p._take(p._number(length)), "utf-8", "surrogatepass"))


def _memoize(p: InertPickle, index: int) -> None:
    p.memo[index] = p.stack[-1]


_OPERATIONS: dict[int, Callable[[InertPickle], Any]] = {
    ord("N"): _push(lambda p: None),
    0x88: _push(lambda p: True),
    0x89: _push(lambda p: False),
    ord("J"): _push(lambda p: p._number("<i")),
    ord("K"): _push(lambda p: p._number("B")),
    ord("M"): _push(lambda p: p._number("<H")),
    ord("G"): _push(lambda p: p._number(">d")),
    0x8A: _push(lambda p: int.from_bytes(p._take(p._number("B")), "little", signed=True)),
    ord("X"): _text("<I"),
    0x8C: _text("B"),
    0x8D: _text("<Q"),
    ord("U"): _push(lambda p: p._take(p._number("B")).decode("utf-8")),
    ord("B"): _push(lambda p: p._take(p._number("<I"))),
    ord("C"): _push(lambda p: p._take(p._number("B"))),
    ord(")"): _push(lambda p: ()),
    ord("]"): _push(lambda p: []),
    ord("}"): _push(lambda p: {}),
    ord("("): InertPickle._mark,
    ord("t"): InertPickle._tuple_since_mark,
    0x85: lambda p: p._tuple_of(1),
    0x86: lambda p: p._tuple_of(2),
    0x87: lambda p: p._tuple_of(3),
    ord("a"): lambda p: p._extend([p.stack.pop()]),
    ord("e"): lambda p: p._extend(p._since_mark()),
    ord("s"): InertPickle._set_item,
    ord("u"): lambda p: p._set_items(p._since_mark()),
    ord("h"): _push(lambda p: p.memo[p._number("B")]),
    ord("j"): _push(lambda p: p.memo[p._number("<I")]),
    ord("q"): lambda p: _memoize(p, p._number("B")),
    ord("r"): lambda p: _memoize(p, p._number("<I")),
    0x94: lambda p: _memoize(p, len(p.memo)),
    0x95: lambda p: p._take(8),  # FRAME: only a hint at lengths
    0x80: InertPickle._protocol,
    ord("c"): lambda p: p._push_global(p._line(), p._line()),
    0x93: InertPickle._stack_global,
    ord("R"): InertPickle._call,
    0x81: InertPickle._call,
    ord("b"): InertPickle._set_state,
    ord("Q"): InertPickle._persistent,
}
