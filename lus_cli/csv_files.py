"""Tables as CSV text."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any


def csv_text(rows: Sequence[Mapping[str, Any]], decimals: int | None = 6) -> str:
    """Rows with the same keys as CSV, under a header. No rows give no text.

    What is undefined, None or NaN, is an empty cell. decimals: of each float; None: as many as it
    takes to read the same number back.
    """
    if not rows:
        return ""

    def cell(value: Any) -> Any:
        if not isinstance(value, float):
            return value
        if math.isnan(value):
            return ""
        return value if decimals is None else f"{value:.{decimals}f}"

    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: cell(value) for key, value in row.items()} for row in rows)
    return text.getvalue()
