"""The rules of the layout, read from the imports: downwards only, and heavy packages in few rooms."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "lus_cli"
MODULES = sorted(p for p in PACKAGE.rglob("*.py") if p.name != "__init__.py")
# From the ground up: a room may import the rooms before it, and itself.
ROOMS = (
    *(
        "errors",
        "words",
        "streams",
        "progress",
        "processes",
        "torchrun",
        "disk_errors",
        "files",
        "folders",
    ),
    *("recipes", "options", "config", "figures", "pages", "terminal"),
    *("study", "cache", "phantom", "model", "evaluation", "training"),
    *("attention", "crossval", "prediction", "labelling", "steps", "cli", "__main__"),
)
# What a room must not know although it lies below, and the modules that know arrays alone.
APART = {
    "phantom": {"cache"},
    "crossval": {"attention"},
    "cli": {
        "study",
        "cache",
        "phantom",
        "model",
        "evaluation",
        "training",
        "attention",
        "crossval",
        "labelling",
    },
}
ARRAYS_ONLY = {
    "model/network",
    "model/losses",
    "cache/sector",
    "evaluation/metrics",
    "phantom/scene",
    "crossval/aggregation",
    "crossval/confident_learning",
    "labelling/agreement",
}
# Which rooms may import a heavy package.
RESERVED = {
    "h5py": {"study", "cache", "attention"},  # MATLAB 7.3 files are HDF5, too
    "hdf5plugin": {"cache"},
    "matplotlib": {"figures", "cache", "training", "evaluation", "crossval", "attention"},
    "jinja2": {"pages", "evaluation"},
    "onnx": {"model"},
    "onnxruntime": {"model"},
    "onnxscript": {"model"},
    "av": {"study", "cache"},  # cache/preprocess.py is copied into exported folders
    "simplejpeg": {"study", "labelling"},
    "pydicom": {"study"},
    "scipy": {"study", "cache", "evaluation", "attention", "crossval"},
    "starlette": {"labelling"},
    "uvicorn": {"labelling"},
    "typer": {"cli", "terminal", "config", "options", "recipes"},
    "rich": {"cli", "terminal"},
}


def imports(path: Path) -> set[str]:
    """Every module named in an import anywhere in a file, dotted."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").as_posix()


def room_of(path: Path) -> str:
    return name_of(path).partition("/")[0]


def rooms_of_imports(path: Path) -> set[str]:
    """The rooms of lus that a file imports from."""
    dotted = (name.split(".") for name in imports(path))
    return {parts[1] for parts in dotted if parts[0] == "lus_cli" and len(parts) > 1} & {*ROOMS}


def test_every_room_is_in_the_plan() -> None:
    assert {room_of(path) for path in MODULES} <= {*ROOMS}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_point_downwards(path: Path) -> None:
    room = room_of(path)
    below = set(ROOMS[: ROOMS.index(room)])
    assert rooms_of_imports(path) <= below | {room}
    assert not rooms_of_imports(path) & APART.get(room, set())


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_steps_do_not_import_each_other(path: Path) -> None:
    if room_of(path) == "steps":
        assert "steps" not in rooms_of_imports(path)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_parts_take_values_and_not_the_options_of_a_command(path: Path) -> None:
    # crossval writes the options of `lus train` for each fold.
    if room_of(path) not in {"config", "cli", "steps", "crossval"}:
        options = [n for n in imports(path) if re.fullmatch(r"lus_cli\.config\.\w+Config", n)]
        assert not options


@pytest.mark.parametrize("name", sorted(ARRAYS_ONLY))
def test_modules_of_formulas_know_arrays_alone(name: str) -> None:
    path = PACKAGE / f"{name}.py"
    assert rooms_of_imports(path) <= {"words", room_of(path)}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_heavy_packages_stay_in_their_rooms(path: Path) -> None:
    roots = {name.partition(".")[0] for name in imports(path)}
    for package, rooms in RESERVED.items():
        assert package not in roots or room_of(path) in rooms, f"{name_of(path)} imports {package}"


def test_there_are_few_modules_at_the_top() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= 14


def test_there_are_no_rooms_for_odds_and_ends() -> None:
    words = {"utils", "helpers", "manager", "data", "common", "misc"}
    assert not words & {part for path in MODULES for part in path.stem.split("_")}


def test_help_loads_nothing_heavy() -> None:
    script = (
        "import sys; sys.argv = ['lus', '--help']\n"
        "from lus_cli.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    loaded = {name.partition(".")[0] for name in done.stderr.split()}
    assert "typer" in loaded
    heavy = {
        "torch",
        "torchvision",
        "numpy",
        "h5py",
        "matplotlib",
        "sklearn",
        "av",
        "PIL",
        "tomlkit",
    }
    assert not heavy & loaded


def test_a_frames_card_waits_for_nothing_but_torch() -> None:
    script = "import sys, lus_cli.steps.attention; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())
    assert "torch" in loaded
    assert not {"scipy.ndimage", "sklearn", "matplotlib", "pydicom"} & loaded
