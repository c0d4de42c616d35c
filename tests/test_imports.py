"""The layout's rules, read from the imports: one way only, heavy ones where they belong."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "lus_cli"
MODULES = sorted(p for p in PACKAGE.rglob("*.py") if p.name != "__init__.py")
FOUNDATION = {"cache", "config", "errors"}
EVALUATION = {
    "resampling",
    "references",
    "calibration",
    "clinical",
    "assessment",
    "comparison",
    "confounders",
}
# What only some modules may import.
RESERVED = {
    "h5py": {
        "hdf5_writing",
        "video_cache",
        "mask_file",
        "mat_files",
    },  # MATLAB 7.3 files are HDF5 too
    "hdf5plugin": {"video_cache"},
    "matplotlib": {
        "figures",
        "study_figures",
        "contact_sheet",
        "run_figures",
        "evaluation_figures",
        "clinical_figures",
        "comparison_figures",
        "crossval_figures",
        "attention_figures",
    },
    "jinja2": {"report", "model_card"},
    "onnx": {"onnx_files"},
    "onnxruntime": {"onnx_files"},
    "onnxscript": {"onnx_files"},
    "av": {"video_files", "video_pictures", "video_writing", "frames", "dicom_film"},
    "simplejpeg": {"frames"},
    "pydicom": {"dicom_files", "dicom_frames"},
    "scipy": {"mat_files", "sector", "signs", "confounders", "attention_check"},
    "typer": {"cli", "terminal", "config"},
    "rich": {"cli", "terminal"},
}


def imports(path: Path) -> set[str]:
    """Every module named in an import anywhere in a file, dotted."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def ours(path: Path) -> set[str]:
    """The modules of this package that a file imports, without the package's name."""
    known = {name_of(p) for p in MODULES} | {"steps"}
    named = {name.removeprefix("lus_cli.") for name in imports(path)}
    return {name for name in named if name in known}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_go_one_way(path: Path) -> None:
    name, used = name_of(path), ours(path)
    steps = {u for u in used if u.startswith("steps.")}
    assert not steps, f"{name} imports {steps}: only cli starts steps, and by name"
    assert "cli" not in used or name == "__main__"
    if name in FOUNDATION:
        assert used <= FOUNDATION
    if name in ("model", "losses", "metrics", "phantom_scene", "sector", "aggregation"):
        assert not used, f"{name} knows arrays and tensors only"
    if name == "localisation":
        assert used <= {"resampling"}, "localisation knows arrays only"
    if name in EVALUATION:
        assert used <= EVALUATION | {"metrics", "exam_tree", "words"}, f"{name} knows arrays only"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_heavy_packages_stay_in_their_room(path: Path) -> None:
    roots = {name.partition(".")[0] for name in imports(path)}
    for package, rooms in RESERVED.items():
        assert package not in roots or name_of(path) in rooms, f"{name_of(path)} imports {package}"


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
