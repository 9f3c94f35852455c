"""CSV that a spreadsheet shows and never obeys: the one place that writes it. No torch, and no pandas until there is a table.

A run, a token or a reason may be named ``=HYPERLINK(...)`` by whoever made the files, and a spreadsheet runs a cell that
begins like that. Such text gets an apostrophe in front, which spreadsheets take for "this is text"; what a terminal obeys
becomes U+FFFD. Numbers are as they were.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from byrote.probes.wording import visible

if TYPE_CHECKING:
    import pandas as pd

_FORMULA = re.compile(r"[\s\x00-\x20\u200b-\u200f\ufeff]*[=+\-@\uff1d\uff0b\uff0d\uff20]|[\t\r\n]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def csv_cell(value: Any) -> Any:
    """One value as CSV may hold it: text made harmless, several texts joined by spaces, truth as true or false.

    Args:
        value: numbers, None and NaN are returned as they are.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        value = " ".join(visible(part) for part in value)
    if not isinstance(value, str):
        return value
    begins_formula = _FORMULA.match(value) and not _NUMBER.fullmatch(value)
    return f"'{visible(value)}" if begins_formula else visible(value)


def csv_rows(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table as CSV; None is an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([csv_cell(name) for name in names])
    writer.writerows([csv_cell(value) for value in row] for row in rows)
    return text.getvalue()


def csv_frame(frame: pd.DataFrame, *, float_format: str | None = None) -> str:
    """A data frame as CSV without its index; numbers as pandas writes them."""
    import numpy as np
    import pandas as pd
    from pandas.api.types import is_bool_dtype, is_float_dtype, is_numeric_dtype

    safe = frame.copy(deep=False)
    for place, kind in enumerate(frame.dtypes):
        column = frame.iloc[:, place]
        if float_format is not None and is_float_dtype(kind):  # pandas formats each cell in four calls
            values = column.to_numpy(np.float64, na_value=np.nan).tolist()
            cells = [float_format % value if value == value else None for value in values]
        elif is_numeric_dtype(kind) or is_bool_dtype(kind):
            continue
        elif isinstance(kind, pd.StringDtype):
            codes, words = pd.factorize(column)
            cells = np.array([*map(csv_cell, words), None], dtype=object)[codes]
        else:
            known = {value: csv_cell(value) for value in set(filter(_is_text, column))}
            cells = [known[v] if _is_text(v) else _other(v) for v in column.astype(object)]
        safe.isetitem(place, pd.Series(cells, index=frame.index, dtype=object))
    safe.columns = [csv_cell(str(name)) for name in frame.columns]
    return str(safe.to_csv(index=False, lineterminator="\n", float_format=float_format))


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _other(value: Any) -> Any:
    """Numbers and what is missing stay; anything else is text."""
    if (
        value is None
        or isinstance(value, bool | int | float)
        or type(value).__name__ in ("NAType", "NaTType")
    ):
        return value
    return value if hasattr(value, "dtype") and value.ndim == 0 else csv_cell(str(value))
