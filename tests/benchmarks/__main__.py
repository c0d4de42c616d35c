"""`python -m tests.benchmarks [PART...]`: measures, prints tables, writes cache/bench.json."""

from __future__ import annotations

import argparse
import datetime
import importlib
import os
import platform
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from lus_cli.files import read_json, write_json
from lus_cli.processes import cores
from tests.benchmarks.measured import Measured, Rows

PARTS = {
    "data": "tests.benchmarks.preparing",
    "train": "tests.benchmarks.training",
    "scale": "tests.benchmarks.scale",
    "start": "tests.benchmarks.starting",
}


def main() -> None:
    options = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    options.add_argument("parts", nargs="*", metavar="PART", help=f"one of {', '.join(PARTS)}")
    options.add_argument("--out", type=Path, default=Path("cache") / "bench.json")
    options.add_argument(
        "--folder", type=Path, help="for studies made on the way [a temporary one]"
    )
    chosen = options.parse_args()
    if unknown := set(chosen.parts) - set(PARTS):
        options.error(f"no part {', '.join(sorted(unknown))}: there are {', '.join(PARTS)}")
    console = Console()
    for part in chosen.parts or PARTS:
        with tempfile.TemporaryDirectory(prefix="lus-bench-", dir=chosen.folder) as folder:
            console.print(f"measuring: {part}")
            measured: Measured = importlib.import_module(PARTS[part]).measure(Path(folder))
        for rows in measured.tables:
            console.print(drawn(rows))
        merge(chosen.out, measured.sections)
    console.print(f"{chosen.out} holds all figures")


def drawn(rows: Rows) -> Table:
    table = Table(*rows.columns, title=rows.title, title_justify="left")
    for row in rows.rows:
        table.add_row(*row)
    return table


def merge(path: Path, sections: dict[str, dict[str, Any]]) -> None:
    """Replaces sections of bench.json, each with the conditions under which it was measured."""
    known = read_json(path, "delete it") if path.is_file() else {}
    conditions = {
        "when": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": platform.platform(),
        "python": platform.python_version(),
        "cores": cores(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }
    for name, figures in sections.items():
        known[name] = {**figures, "conditions": conditions}
    write_json(path, known)


if __name__ == "__main__":
    main()
