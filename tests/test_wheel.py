"""The wheel holds all of lus, and lus runs from it in an environment that never saw the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SMALL = "--patients 5 --videos 10 --size 48 --max-frames 8 --workers 1"
TINY = "--weights none --feature-stride 16 --epochs 1 --frames-per-video 3 --threads 1"
PIPELINE = (
    "prepare --size 48 --workers 1",
    f"train {TINY} --device cpu",
    "evaluate --device cpu --threads 1",
    "attention --device cpu --threads 1",
)
# One process for all of them, as importing PyTorch takes longer than any of them.
IN_ONE_PROCESS = f"""
import lus_cli
from lus_cli.cli import app
print(lus_cli.__file__)
for command in {PIPELINE}:
    app(command.split(), standalone_mode=False)
"""


def run(*command: str | Path, cwd: Path) -> str:
    """What a command prints; fails with its output if it ends with another exit code than 0."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        command,
        cwd=cwd,
        env=environment | {"OMP_NUM_THREADS": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a copy of the source, so that the checkout stays as it is."""
    source = tmp_path_factory.mktemp("source")
    shutil.copytree(
        ROOT / "lus_cli", source / "lus_cli", ignore=shutil.ignore_patterns("__pycache__")
    )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    folder = tmp_path_factory.mktemp("wheel")
    # Without isolation, because an isolated build downloads setuptools.
    build = ("-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index")
    run(sys.executable, *build, "--wheel-dir", folder, source, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_every_module_and_data_file(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    files = (path for path in (ROOT / "lus_cli").rglob("*") if path.is_file())
    needed = {
        path.relative_to(ROOT).as_posix()
        for path in files
        if "__pycache__" not in path.parts and path.name != "README.md"
    }
    assert packed == needed
    assert {"lus_cli/recipes/standard.toml", "lus_cli/pages/report.html"} <= packed


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel, and with what it depends on from the environment of
    the tests; the folder of its programs.

    A .pth file names the other environment's packages, as Python reads no .pth file in a folder
    that one names: the editable installation of lus there stays out of sight.
    """
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=os.name != "nt")
    paths = {"base": str(folder), "platbase": str(folder)}
    scheme = "venv" if "venv" in sysconfig.get_scheme_names() else sysconfig.get_default_scheme()
    programs = Path(sysconfig.get_path("scripts", scheme, paths))
    packages = Path(sysconfig.get_path("purelib", scheme, paths))
    install = ("-m", "pip", "--python", programs / "python", "install", "--quiet")
    run(sys.executable, *install, "--no-deps", "--no-index", wheel, cwd=folder)
    others = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (packages / "dependencies.pth").write_text("\n".join(others) + "\n")
    return programs


def test_the_pipeline_runs_from_the_wheel(environment: Path, tmp_path: Path) -> None:
    run(environment / "lus", "phantom", *SMALL.split(), cwd=tmp_path)
    printed = run(environment / "python", "-c", IN_ONE_PROCESS, cwd=tmp_path)
    assert Path(printed.splitlines()[0]).is_relative_to(environment.parent)
    folder = tmp_path / "cache" / "runs" / "standard-1"
    assert (folder / "evaluation" / "test" / "report.html").stat().st_size > 10_000
    assert list((folder / "attention").glob("*.png"))
