"""Formatting of numbers, names and text for people, shared by figures, pages, reports and the command line.

No torch and no pandas: the command line imports it before it parses its arguments.
"""

from __future__ import annotations

import html
import json
import math
import os
import re
import shlex
import unicodedata
from collections.abc import Iterable, Sequence
from numbers import Real
from typing import Any

Numeric = (
    float | Real
)  # what numpy's scalars and whole numbers are at run time, and a float to a type checker
MAX_SIGNIFICANT_DIGITS = 3
MAX_DECIMALS = 6
MIN_DECIMALS = 2  # wanted even where the interval is wide, if three digits allow it
SMALLEST_DECIMAL = 1e-4  # smaller numbers are written 1.2e−05
MISSING = "–"
_WRITTEN = {"held_out_loss": "held-out loss", "mem_gap": "memory gap"}
_SPELLED = {name: name.upper() for name in ("ov", "qk", "icl", "dla", "kl", "mlp", "auc", "tpr")} | {
    "top1": "top-1"
}
_OBEYED = re.compile(
    "[\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb]"
)
_MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+\-.!|~$:<>&@=^\"'/])")


# Text from names, paths, files and models.


def visible(text: object) -> str:
    """Text as one line without anything that a terminal or a page obeys.

    Control, direction-changing, private and unassigned characters become U+FFFD, so that nothing can hide or reorder
    what follows it; line breaks and tabs become spaces.
    """
    whole = str(text)
    return whole if whole.isprintable() else "".join(_visible(char) for char in whole)


def as_html(text: object) -> str:
    """`visible` text for the inside of an element or of a quoted attribute."""
    return html.escape(visible(text))


def clean(text: object, *, limit: int = 200) -> str:
    """A name, path or value as `visible` text of limited length.

    Args:
        text: anything; turned into a string.
        limit: longest result in characters; the middle of a longer text is replaced by an ellipsis.
    """
    shown = visible(text)
    if len(shown) <= limit:
        return shown
    half = (limit - 1) // 2
    return f"{shown[:half]}…{shown[-half:]}"


def shell_line(words: Iterable[str]) -> str:
    """Words as they are typed in bash or zsh; characters that cannot be shown, or are no text, as escapes."""
    return " ".join(_quoted(word) for word in words)


def _quoted(word: str) -> str:
    if visible(word) == word:
        return shlex.quote(word)
    bare = {"\\": "\\\\", "'": "\\'"}
    parts = (
        bare.get(char, char) if _visible(char) == char else "".join(f"\\x{b:02x}" for b in os.fsencode(char))
        for char in word
    )
    return f"$'{''.join(parts)}'"


def markup(text: object, *, limit: int = 200) -> str:
    """`clean` text that plotly, which reads a little HTML, will show letter by letter."""
    return html.escape(clean(text, limit=limit), quote=False)


def literal(text: object, *, limit: int = 200) -> str:
    """`clean` text for Streamlit's Markdown in which nothing is markup: no link, image, formula, colour or HTML."""
    return _MARKDOWN.sub(r"\\\1", clean(text, limit=limit))


def visible_json(data: Any, *, indent: int | None = None, ascii_only: bool = True) -> str:
    """JSON without any character that a terminal or an editor obeys: those stand as their code, and are the same text.

    Args:
        data: what is no JSON becomes text.
        indent: spaces per level; None is one line.
        ascii_only: write every character beyond ASCII as its code.

    Raises:
        ValueError: a number that is not finite.
    """
    text = json.dumps(data, indent=indent, allow_nan=False, ensure_ascii=ascii_only, default=str)
    return _OBEYED.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def file_stem(*parts: object) -> str:
    """A file name made of words: everything but letters, digits, dots and dashes becomes an underscore."""
    words = (re.sub(r"[^A-Za-z0-9.-]+", "_", str(part)).strip("._") for part in parts)
    return "_".join(word for word in words if word)[:120] or "byrote"


def short(run: object) -> str:
    """A run name cut to fit beside a line or in a title."""
    return clean(run, limit=20)


def labels_of_runs(runs: Iterable[str]) -> dict[str, str]:
    """Run -> its name beside a line, without what all of them end on: "unique" and "repeated" of "unique-d32-seed0" and
    "repeated-d32-seed0"."""
    names = list(dict.fromkeys(runs))
    parts = [name.split("-") for name in names]
    while len(names) > 1 and all(len(part) > 1 for part in parts) and len({part[-1] for part in parts}) == 1:
        parts = [part[:-1] for part in parts]
    return {name: short("-".join(part)) for name, part in zip(names, parts, strict=True)}


def probe_name(probe: str) -> str:
    """A probe's or metric's name as words: `ov_copying` is "OV copying"."""
    words = _WRITTEN.get(probe, clean(probe)).replace("_", " ").replace("@", " on ").split(" ")
    return " ".join(_SPELLED.get(word, word) for word in words)


def sentence_case(text: str) -> str:
    """The text with its first letter raised and nothing else changed."""
    return text[:1].upper() + text[1:]


def mid_sentence(text: str) -> str:
    """The text with its first letter lowered and nothing else changed."""
    return text[:1].lower() + text[1:]


def _visible(char: str) -> str:
    if char in "\n\t":
        return " "
    category = unicodedata.category(char)
    return "\ufffd" if category[0] == "C" or category in ("Zl", "Zp") else char


# Numbers.


def plain(value: Any) -> Any:
    """A value as JSON and CSV can hold it: numpy and pandas scalars unwrapped; NaN, infinite and missing as None."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return None
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def decimals(*values: Numeric | None) -> int:
    """Decimals for a value and its interval, from the interval's width and the three-digit limit.

    Args:
        values: value, then lo and hi where there are any.

    Returns:
        Decimals; negative where even the digits before the point are more than the interval deserves.
    """
    finite = [v for v in map(plain, values) if v is not None]
    largest = max((abs(v) for v in finite), default=0.0)
    if largest == 0.0:
        return 0
    most = MAX_SIGNIFICANT_DIGITS - 1 - math.floor(math.log10(largest))
    half_width = (max(finite) - min(finite)) / 2
    deserved = most if half_width == 0.0 else -math.floor(math.log10(half_width))
    return min(most, max(deserved, MIN_DECIMALS), MAX_DECIMALS)


def number(value: Numeric | None, *, places: int | None = None, sign: bool = False) -> str:
    """A number with at most three significant digits, a real minus sign and no negative zero.

    Args:
        value: any number; None, NaN and infinities are "–".
        places: decimals; None picks them from the value.
        sign: write `+` before positive numbers, as differences do.
    """
    value = plain(value)
    if value is None:
        return MISSING
    if places is None and 0 < abs(value) < SMALLEST_DECIMAL:
        return f"{value:{'+' if sign else ''}.1e}".replace("-", "−")
    places = decimals(value) if places is None else places
    text = f"{round(float(value), places):{'+' if sign else ''},.{max(0, places)}f}"
    if not text.strip("+-0.,"):
        text = text.lstrip("+-")
    return text.replace("-", "−")


def point(value: Numeric | None, lo: Numeric | None, hi: Numeric | None, *, sign: bool = False) -> str:
    """A value with as many digits as its interval deserves: the first part of `interval`."""
    if plain(lo) is None or plain(hi) is None or lo == value == hi:
        return number(value, sign=sign)
    return number(value, places=decimals(value, lo, hi), sign=sign)


def bounds(value: Numeric | None, lo: Numeric | None, hi: Numeric | None, *, sign: bool = False) -> str:
    """`[0.78, 0.84]`, `[exact]` where nothing was sampled, "–" where there is no interval: the rest of `interval`.

    An end that is not bounded is `−∞` or `∞`, the other one keeps its number.
    """
    if plain(lo) is None or plain(hi) is None:
        return _open_bounds(value, lo, hi, sign=sign)
    if lo == value == hi:
        return "[exact]"
    places = decimals(value, lo, hi)
    return f"[{number(lo, places=places, sign=sign)}, {number(hi, places=places, sign=sign)}]"


def _open_bounds(value: Numeric | None, lo: Numeric | None, hi: Numeric | None, *, sign: bool) -> str:
    """Bounds of which one end at least is no number; "–" where one is missing, or the value is."""
    known = [end for end in (lo, hi) if plain(end) is not None]
    unbounded = [end for end in (lo, hi) if isinstance(end, Real) and math.isinf(end)]
    if plain(value) is None or len(known) + len(unbounded) < 2:
        return MISSING
    places = decimals(value, *known)
    words = [
        ("∞" if end == math.inf else "−∞") if end in unbounded else number(end, places=places, sign=sign)
        for end in (lo, hi)
    ]
    return f"[{words[0]}, {words[1]}]"


def interval(value: Numeric | None, lo: Numeric | None, hi: Numeric | None, *, sign: bool = False) -> str:
    """`0.81 [0.78, 0.84]`, never more digits than the interval deserves; `0.7 [exact]` where nothing was sampled."""
    around = bounds(value, lo, hi, sign=sign)
    start = point(value, lo, hi, sign=sign)
    return start if around == MISSING else f"{start} {around}"


def over_seeds(middle: float, lo: float, hi: float, n: int) -> str:
    """The median of seeds and how far they spread: `0.44 (0.39 to 0.52 over 8 seeds)`; of one seed, its value.

    Args:
        middle, lo, hi: median, lowest and highest of the seeds.
        n: seeds, at least one.
    """
    if n == 1:
        return f"{number(middle)} (1 seed)"
    ends = " to ".join(number(end, places=decimals(middle, lo, hi)) for end in (lo, hi))
    return f"{point(middle, lo, hi)} ({ends} over {n:,} seeds)"


def estimate(row: Any, label: str = "") -> str:
    """One observation as a line: `L1H0 0.81 [0.78, 0.84], chance 0.03, n=32`.

    Args:
        row: anything with value, lo, hi, chance, n, valid and reason.
        label: what was measured; put in front.
    """
    start = f"{label} " if label else ""
    if getattr(row, "left_out", False):
        return f"{start}{interval(row.value, row.lo, row.hi)}, {clean(row.reason)}"
    if not row.valid:
        return f"{start}not measured: {clean(row.reason) or 'no reason was recorded'}"
    text = start + interval(row.value, row.lo, row.hi)
    if plain(row.chance) is not None:
        text += f", chance {chance_number(row.chance)}"
    return f"{text}, n={count(row.n)}"


def chance_number(chance: Numeric | None) -> str:
    """A chance level: two significant digits, or two decimals where that is more; "–" where there is none."""
    chance = plain(chance)
    if chance is None:
        return MISSING
    return number(chance, places=max(2, decimals(chance) - 1)) if chance else "0"


def p_value(p: Numeric | None) -> str:
    """A p or q value: three decimals, `<0.001` below them, "–" where there is none."""
    p = plain(p)
    if p is None:
        return MISSING
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def count(n: Numeric | None) -> str:
    """A whole number with its thousands separated; "–" where there is none."""
    whole = plain(n)
    return MISSING if whole is None else f"{int(whole):,}"


def counted(n: int, noun: str) -> str:
    """``1 checkpoint``, ``2 checkpoints``, ``2 passes``."""
    plural = "" if n == 1 else "es" if noun.endswith("s") else "s"
    return f"{n:,} {noun}{plural}"


def listed(items: Sequence[str], *, most: int = 4, between: str = ", ") -> str:
    """`L1H0, L1H2 and 3 more`."""
    more = f" and {len(items) - most:,} more" if len(items) > most else ""
    return between.join(items[:most]) + more


def all_of(names: Sequence[str], *, most: int | None = None) -> str:
    """`a`, `a and b`, `a, b and c`; "" of none; of more than `most`, `a, b and 3 more`."""
    if most is not None and len(names) > most:
        names = [*names[:most], f"{len(names) - most:,} more"]
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def of_runs(names: Sequence[str], n_runs: int, *, most: int = 3) -> str:
    """Of which runs something holds: `all 20 runs`, `both runs`, `unique-0 and repeated-0`, `15 of 20 runs (a, b, c and 12 more)`.

    Args:
        names: of these runs.
        n_runs: how many runs there are.
        most: names written out.
    """
    if len(names) == n_runs > 1:
        return "both runs" if n_runs == 2 else f"all {n_runs:,} runs"
    if len(names) <= most:
        return all_of(names)
    return f"{len(names):,} of {n_runs:,} runs ({listed(names, most=most)})"


# Steps, tokens, bytes, time.


def step_number(step: Numeric | None) -> str:
    """A training step with thousands separators."""
    return count(step)


def steps_in_words(steps: Sequence[int], *, most: int = 3) -> str:
    """`step 512`, `steps 0 and 512`, or of more than `most` of them `28 steps, 0 to 2,400`."""
    shown = [count(step) for step in steps]
    if len(shown) <= 1:
        return f"step {MISSING if not shown else shown[0]}"
    if len(shown) <= most:
        return f"steps {all_of(shown)}"
    return f"{len(shown)} steps, {shown[0]} to {shown[-1]}"


def between_steps(before: int | None, at: int) -> str:
    """`between steps 256 and 512`; `by step 512` where it was there at the first measured step."""
    return f"by step {count(at)}" if before is None else f"between steps {count(before)} and {count(at)}"


def bracket(before: int | None, at: int) -> str:
    """`between_steps` for a table: `256–512`, `by 512`."""
    return f"by {count(at)}" if before is None else f"{count(before)}–{count(at)}"


def wider_interval(measured: tuple[int, int], lo: Numeric | None, hi: Numeric | None) -> str:
    """` [95%: 128 to 640]` where an interval of steps is wider than the two measured steps around it, else "".

    Args:
        measured: the two steps.
        lo, hi: the interval's ends, None where it is open.
    """
    since, until = plain(lo), plain(hi)
    if since is not None and until is not None and measured[0] <= since and until <= measured[1]:
        return ""
    words = (
        "the start" if since is None else count(round(since)),
        "the end" if until is None else count(round(until)),
    )
    return f" [95%: {words[0]} to {words[1]}]"


def tokens_words(n: int | None) -> str:
    """Tokens seen in the unit a person would use: ``33.6 B tokens``; "" where unknown."""
    if n is None:
        return ""
    for size_of_unit, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if n >= size_of_unit:
            return f"{n / size_of_unit:.3g} {unit} tokens"
    return f"{n} tokens"


def size(n_bytes: Numeric | None) -> str:
    """Bytes in the largest unit that leaves a number of at least 1: ``812 B``, ``2.4 MB``; "–" where unknown."""
    if n_bytes is None:
        return MISSING
    value, unit = float(n_bytes), "B"
    for unit in ("B", "KB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            break
        value /= 1000
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"


def duration(seconds: Numeric) -> str:
    """``3:41``, ``1:02:03``."""
    whole = max(0, round(float(seconds)))
    hours, rest = divmod(whole, 3600)
    minutes, secs = divmod(rest, 60)
    return f"{hours}:{minutes:02d}:{secs:02d}" if hours else f"{minutes}:{secs:02d}"


def summary_html(text: str, rows: Any) -> str:
    """Words and a table below them, for notebooks; offline, everything escaped.

    Args:
        text: lines; the first one in bold.
        rows: a frame of differences, of which the columns that a person reads are shown.
    """
    first, _, rest = text.partition("\n")
    table = rows[[c for c in _DIFFERENCES if c in rows]].to_html(
        index=False, float_format="%.3f", na_rep="", escape=True, border=0, max_rows=20
    )
    return f"<p><b>{as_html(first)}</b></p><p>{as_html(rest)}</p>{table}"


_DIFFERENCES = ("probe", "metric", "step", "a", "b", "difference", "lo", "hi", "n", "q", "change")
