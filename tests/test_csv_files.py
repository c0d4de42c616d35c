"""Tables as CSV."""

from __future__ import annotations

import csv
import io
import math

from lus_cli.files import csv_text


def test_floats_have_six_decimals_and_what_is_undefined_is_empty() -> None:
    rows = [{"name": 'a,"b"', "value": 1 / 3, "low": None, "videos": 3}]
    rows += [{"name": "c", "value": math.nan, "low": -0.5, "videos": 0}]
    expected = 'name,value,low,videos\n"a,""b""",0.333333,,3\nc,,-0.500000,0\n'
    assert csv_text(rows) == expected


def test_without_decimals_a_number_is_read_back_the_same() -> None:
    values = [1 / 3, 1e-30, 5.0]
    read = csv.DictReader(io.StringIO(csv_text([{"value": v} for v in values], decimals=None)))
    assert [float(row["value"]) for row in read] == values


def test_no_rows_are_no_text() -> None:
    assert csv_text([]) == ""
