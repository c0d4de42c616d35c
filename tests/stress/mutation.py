"""Small faults put into lus, one at a time: which of them would its own tests let pass?

`python -m tests.stress.mutation [MODULE...] [--jobs N]`, with `pip install -e .[stress]`. Each module is
held against its own test files alone, in a copy of the tree. A mutant that no test notices is a finding,
unless `mutation_same` says why none has to.

Mutmut makes the mutants and runs the tests: it imports PyTorch once and forks a process a mutant, where
others start the tests anew each time. It changes what is in functions, not constants of modules.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from mutmut.stats import status_by_exit_code
from rich.console import Console

from tests.stress.mutation_same import why_same

# Each module of lus_cli, and the test files that its mutants are held against.
MODULES = {
    "model/losses": "model/test_losses",
    "evaluation/metrics": "evaluation/test_metrics",
    "cache/split": "cache/test_split",
    "cache/split_drawing": "cache/test_split cache/test_groups",
    "files": "cache/test_layout",
    "folders": "cache/test_layout test_folders",
    "disk_errors": "cache/test_layout test_disk_errors",
    "cache/layout": "cache/test_layout",
    "cache/video_cache": "cache/test_video_cache",
    "cache/video_writer": "cache/test_video_cache",
}
ROOT = Path(__file__).parents[2]
RESULTS = Path("cache/stress/mutation.json")
CONSOLE = Console(soft_wrap=True, markup=False, highlight=False)
# A fork server, because a process that ran PyTorch is not to be forked. The seconds, which count
# fifteenfold, are for machines under load: what is slow there does not count as noticed.
SETTINGS = """
[tool.pytest.ini_options]
addopts = "-p no:cacheprovider"

[tool.mutmut]
source_paths = ["lus_cli"]
only_mutate = ["lus_cli/{module}.py"]
pytest_add_cli_args_test_selection = {tests}
process_isolation = "forkserver"
use_git_change_detection = false
timeout_constant = 10.0
"""


@dataclass
class Tally:
    """What became of the mutants of one module."""

    module: str
    counts: Counter[str] = field(default_factory=Counter)
    survivors: dict[str, str] = field(default_factory=dict)  # name -> what it changed
    explained: dict[str, str] = field(
        default_factory=dict
    )  # the same, of those that need not be noticed
    seconds: float = 0.0


def main() -> None:
    options = argparse.ArgumentParser(prog="python -m tests.stress.mutation", description=__doc__)
    options.add_argument(
        "modules", nargs="*", metavar="MODULE", help=f"of {', '.join(MODULES)} [all]"
    )
    options.add_argument("--jobs", type=int, default=2, help="mutants at a time")
    asked = options.parse_args()
    tallies = []
    for module in asked.modules or MODULES:
        with tempfile.TemporaryDirectory(prefix="lus-mutation-") as folder:
            tallies.append(mutated(module, Path(folder), asked.jobs))
        report(tallies[-1])
    table(tallies)
    keep(tallies)
    sys.exit(any(tally.survivors for tally in tallies))


def mutated(module: str, folder: Path, jobs: int) -> Tally:
    """Runs a module's mutants against its tests, in a copy of the tree in `folder`.

    Raises RuntimeError if the tests fail without any mutant.
    """
    started = time.monotonic()
    for name in ("lus_cli", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    tests = [f"tests/{name}.py" for name in MODULES[module].split()]
    settings = SETTINGS.format(module=module, tests=json.dumps(tests))
    (folder / "pyproject.toml").write_text(settings)
    source = folder / "lus_cli" / f"{module}.py"
    source.write_text(without_decorators(source.read_text()))
    done = mutmut(folder, "run", "--max-children", str(jobs))
    meta = folder / "mutants" / "lus_cli" / f"{module}.py.meta"
    codes = json.loads(meta.read_text())["exit_code_by_key"] if meta.is_file() else {}
    if done.returncode or not codes or None in codes.values():
        raise RuntimeError(f"mutmut could not test {module}:\n{done.stdout}{done.stderr}")
    tally = Tally(module)
    for name, code in codes.items():
        status = status_by_exit_code[code]
        if status not in ("killed", "timeout"):
            change = changed_lines(mutmut(folder, "show", name).stdout)
            same = why_same(change)
            status = "explained" if same else "survived"
            (tally.explained if same else tally.survivors)[name] = change
        tally.counts[status] += 1
    tally.seconds = time.monotonic() - started
    return tally


def mutmut(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "mutmut", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )


def without_decorators(source: str) -> str:
    """The same module with `name = decorator(name)` below each function for the line above it.

    Mutmut leaves functions with a decorator alone, which here are most of some modules.
    """
    lines = source.splitlines()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef) and len(node.decorator_list) == 1:
            decorator = node.decorator_list[0]
            name = ast.unparse(decorator)
            if name == "classmethod":  # the one that it does change, and must be told of
                continue
            above, last = decorator.lineno - 1, node.end_lineno
            assert last is not None
            lines[above] = ""
            lines[last - 1] += f"\n{' ' * node.col_offset}{node.name} = {name}({node.name})"
    return "\n".join(lines) + "\n"


def changed_lines(diff: str) -> str:
    """What a diff takes away and adds, without where: `- old / + new`, each without indentation."""
    body = [line for line in diff.splitlines() if not line.startswith(("---", "+++"))]
    return "\n".join(f"{x[0]} {x[1:].strip()}" for x in body if x.startswith(("-", "+")))


def report(tally: Tally) -> None:
    for name, change in tally.survivors.items():
        CONSOLE.print(f"{name.removeprefix('lus_cli.')} is not noticed:\n{change}\n")


def table(tallies: list[Tally]) -> None:
    columns = ("killed", "timeout", "explained", "survived")
    CONSOLE.print(
        f"{'module':18}{'mutants':>9}{''.join(f'{c:>11}' for c in columns)}{'seconds':>9}"
    )
    for tally in tallies:
        row = "".join(f"{tally.counts[column]:>11}" for column in columns)
        total = sum(tally.counts.values())
        CONSOLE.print(f"{tally.module:18}{total:>9}{row}{tally.seconds:>9.0f}")


def keep(tallies: list[Tally]) -> None:
    """Replaces in the file of results what is known of these modules."""
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    known = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    for tally in tallies:
        known[tally.module] = {
            "counts": dict(tally.counts),
            "survived": tally.survivors,
            "explained": {
                name: {"change": change, "why": why_same(change)}
                for name, change in tally.explained.items()
            },
            "seconds": round(tally.seconds, 1),
        }
    RESULTS.write_text(json.dumps(known, indent=2) + "\n")


if __name__ == "__main__":
    main()
