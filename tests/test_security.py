"""What is read is never executed, names stay names, and nothing goes out by the network.

That pages escape what they show: test_report.py, test_prediction_page.py, test_crossval.py.
"""

from __future__ import annotations

import ast
import io
import os
import pickle
import re
import shutil
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from lus_cli.cache.chunks import FrameFormat
from lus_cli.cache.layout import Cache
from lus_cli.cache.tables import TABLES, as_texts, tables_checksum, write_table
from lus_cli.cache.video_cache import VideoCache
from lus_cli.cli import app
from lus_cli.config import PrepareConfig
from lus_cli.errors import LusError
from lus_cli.model.checkpoint import (
    Card,
    checksum,
    load_best,
    load_last,
    new_model,
    save_best,
    save_last,
)
from lus_cli.model.weights import read_state_dict
from lus_cli.options import build
from lus_cli.progress import silent
from lus_cli.recipes.recipe import Recipe
from lus_cli.steps import prepare
from lus_cli.study import mat_files
from lus_cli.study.frames import MOST_SCANS, read_frame
from lus_cli.study.ids import VideoId
from lus_cli.study.sources import MatFile
from lus_cli.study.study import StudyFiles, read_study
from tests.conftest import PAPER
from tests.study.test_sources import coloured, pixels, write_mat, write_mat_video

PACKAGE = Path(__file__).parents[1] / "lus_cli"
MODULES = sorted(PACKAGE.rglob("*.py"))
RECIPE = build(Recipe, PAPER | {"weights": "none", "hidden": 8, "attention_channels": [4]})


class Touching:
    """Makes the file `executed` when whoever reads it executes pickles."""

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, ("executed", "w")


def zipped() -> bytes:
    file = io.BytesIO()
    torch.save({"format_version": 2, "model": {}, "epochs": Touching()}, file)
    return file.getvalue()


def legacy() -> bytes:
    file = io.BytesIO()
    torch.save(Touching(), file, _use_new_zipfile_serialization=False)
    return file.getvalue()


def array() -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([Touching()], object), allow_pickle=True)
    return file.getvalue()


HOSTILE: dict[str, Callable[[], bytes]] = {
    "pickle 0": lambda: pickle.dumps(Touching(), 0),
    "pickle 5": lambda: pickle.dumps(Touching(), 5),
    "zip": zipped,
    "legacy": legacy,
    "array": array,
}


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_hostile_file_does_something_where_pickles_are_executed(bare: Path) -> None:
    pickle.loads(pickle.dumps(Touching()))
    assert (bare / "executed").exists()


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_checkpoint_is_refused_and_not_executed(bare: Path, kind: str) -> None:
    for name in ("last.pt", "last-previous.pt"):
        Path(name).write_bytes(HOSTILE[kind]())
    with pytest.raises(LusError, match=r"last\.pt is damaged.*start a new run"):
        load_last(Path("last.pt"))
    assert not Path("executed").exists()


@pytest.mark.parametrize("suffix", ["pt", "pth", "bin", "safetensors"])
@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_weights_are_refused_and_not_executed(bare: Path, kind: str, suffix: str) -> None:
    path = Path(f"weights.{suffix}")
    path.write_bytes(HOSTILE[kind]())
    with pytest.raises(LusError, match=r"the weights in .* cannot be read safely"):
        read_state_dict(path)
    assert not Path("executed").exists()


@pytest.mark.parametrize("kind", ["zip", "legacy"])
def test_a_class_with_an_endless_name_is_not_passed_to_pytorch(bare: Path, kind: str) -> None:
    """Its message about one of 200,000 characters takes PyTorch a quarter of a minute."""
    endless = b"\x80\x02ctorch\n" + b"A" * 200_000 + b"\n."
    path = Path("weights.pth")
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("weights/data.pkl", endless)
    else:
        start = [torch.serialization.MAGIC_NUMBER, torch.serialization.PROTOCOL_VERSION, {}]
        path.write_bytes(b"".join(pickle.dumps(part, 2) for part in start) + endless)
    with pytest.raises(LusError, match=r"read safely \(a name of 2000\d\d characters\)"):
        read_state_dict(path)


def test_hostile_weights_end_the_command_in_one_line(bare: Path, prepared: Path) -> None:
    Path("weights.pth").write_bytes(zipped())
    command = ["train", "--cache", str(prepared), "--weights", "weights.pth", "--dry-run"]
    done = CliRunner().invoke(app, [*command, "--device", "cpu", "--threads", "1"])
    assert done.exit_code == 1
    assert "error the weights in weights.pth cannot be read safely" in done.output
    assert not Path("executed").exists()


# ------------------------------------------------------------------------------ more than it seems


@pytest.mark.parametrize("read", [load_last, read_state_dict])
def test_an_archive_that_unpacks_to_more_than_its_size_is_refused(
    bare: Path, read: Callable[[Path], object]
) -> None:
    save_last(Path("last.pt"), {"model": {"w": torch.zeros(1_000_000)}})
    with zipfile.ZipFile("last.pt") as old, zipfile.ZipFile("bomb.pt", "w") as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry), zipfile.ZIP_DEFLATED)
    with pytest.raises(LusError, match="unpacks to more than its size"):
        read(Path("bomb.pt"))


def test_a_card_that_asks_for_more_than_its_weights_gets_no_memory(bare: Path) -> None:
    """4096 LSTM units are 2.7e8 weights: their memory must not be taken before they are missed."""
    card = Card(RECIPE, FrameFormat(32, False, False), 9, 1, 1.0, "")
    save_best(Path("best.safetensors"), new_model(RECIPE).state_dict(), card)
    weights = load_file("best.safetensors")
    text = card.to_json().replace('"hidden": 8', '"hidden": 4096')
    save_file(weights, "best.safetensors", {"lus": text, "checksum": checksum(text, weights)})
    before = drawn()
    with pytest.raises(LusError, match="is not a lus model"):
        load_best(Path("best.safetensors"))
    assert drawn() == before  # no weight was drawn


def drawn() -> bytes:
    return torch.get_rng_state().numpy().tobytes()


@pytest.mark.parametrize(
    "change", [{"size": 10**6}, {"size": "9"}, {"color": 1}, {"size": -1}, {"more": 1}]
)
def test_a_frame_format_that_is_none_is_refused(change: dict[str, object]) -> None:
    with pytest.raises((ValueError, TypeError)):
        FrameFormat.from_json({"size": 9, "letterbox": False, "color": False} | change)


def test_a_jpeg_of_endless_scans_is_refused(bare: Path) -> None:
    from PIL import Image

    Image.fromarray(pixels(length=1)[0]).save("a.jpg", progressive=True)
    content = Path("a.jpg").read_bytes()
    start = content.index(b"\xff\xda")
    Path("a.jpg").write_bytes(content[:start] + content[start:-2] * MOST_SCANS + b"\xff\xd9")
    with pytest.raises(LusError, match="more than 100 scans"):
        read_frame(Path("a.jpg"), "L", 32, False)


@pytest.mark.parametrize("name", ["frames", "Score_matrix"])
def test_a_mat_array_larger_than_memory_is_refused_before_it_is_read(bare: Path, name: str) -> None:
    write_mat_video(Path("v.mat"), coloured(pixels()))
    if name == "frames":
        content = Path("v.mat").read_bytes()
        small, large = (struct.pack("<4i", 48, 64, 3, last) for last in (5, 200_000))
        assert small in content
        Path("v.mat").write_bytes(content.replace(small, large))
    else:
        with h5py.File(
            "v_score.mat", "w"
        ) as file:  # three thousand million zeros that nobody wrote
            file.create_dataset(name, (10**9, 3), "f8", chunks=(1024, 3))
    source = MatFile(VideoId("p", "1", "a"), bare, "v.mat")
    with pytest.raises(LusError, match=r"save it as version 7\.3|most of Score_matrix was never"):
        source.highest_score() if name == "Score_matrix" else list(source.frames("L"))


def test_a_mat_file_in_enormous_chunks_is_refused(
    bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mat_files, "BLOCK_BYTES", 20_000)  # two frames
    frames = coloured(pixels())
    write_mat(Path("v.mat"), "frames", frames.transpose(1, 2, 3, 0), "7.3")
    source = MatFile(VideoId("p", "1", "a"), bare, "v.mat")
    read = np.stack([np.asarray(image) for _, image in source.frames("RGB")])
    np.testing.assert_array_equal(read, frames)
    with h5py.File("v.mat", "r+") as file:
        del file["frames"]
        stored = frames.transpose(0, 3, 2, 1)
        file.create_dataset("frames", data=stored, chunks=stored.shape, compression="gzip")
    with pytest.raises(LusError, match="has chunks of 46080 bytes"):
        list(source.frames("RGB"))


def test_small_arrays_in_enormous_chunks_are_refused(
    bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chunk is unpacked as a whole: one of a megabyte of packed zeros takes gigabytes."""
    monkeypatch.setattr(mat_files, "BLOCK_BYTES", 20_000)
    source = MatFile(VideoId("p", "1", "a"), bare, "v.mat")

    def in_chunks(path: str, name: str, values: np.ndarray, chunks: tuple[int, ...]) -> None:
        with h5py.File(path, "w") as file:
            limits = (None,) * values.ndim
            file.create_dataset(name, data=values, chunks=chunks, maxshape=limits)

    in_chunks("v.mat", "frames", np.zeros((3, 64, 48), np.uint8), (3, 100, 100))
    with pytest.raises(LusError, match="frames has chunks of 30000 bytes"):
        list(source.frames("L"))
    in_chunks("v.mat", "frames", np.zeros((3, 64, 48), np.uint8), (3, 64, 48))
    in_chunks("v_score.mat", "Score_matrix", np.zeros((1, 3)), (1000, 3))
    with pytest.raises(LusError, match="Score_matrix has chunks of 24000 bytes"):
        source.highest_score()


# ------------------------------------------------------------------------------ names stay names


def hostile_cache(prepared: Path, cache: Path, table: str, value: str) -> Cache:
    """A cache whose checksums fit, and in which one text is what lus would never write."""
    cache.mkdir()
    shutil.copy(prepared / "videos.h5", cache / "videos.h5")
    with h5py.File(cache / "videos.h5", "r+") as file:
        _, *others = file[table].asstr()[:]
        write_table(file, table, as_texts([value, *others]))
        file.attrs[TABLES] = tables_checksum(file)
    return Cache(cache)


@pytest.mark.parametrize("value", ["../../escaped", "..", "/etc", "a/b", "a\\b", ""])
@pytest.mark.parametrize("table", ["patient", "exam", "area"])
def test_ids_in_a_cache_name_no_other_folder(
    prepared: Path, tmp_path: Path, table: str, value: str
) -> None:
    """Pictures are called after them."""
    cache = hostile_cache(prepared, tmp_path / "cache", table, value)
    with pytest.raises(LusError, match="an id is not a valid name"):
        VideoCache(cache.videos)


@pytest.mark.parametrize("value", ["../../secret", "/etc/passwd", "a/../../b", "..\\b", "C:/b"])
def test_sources_in_a_cache_lie_in_their_study(prepared: Path, tmp_path: Path, value: str) -> None:
    cache = hostile_cache(prepared, tmp_path / "cache", "source_path", value)
    for read in (lambda videos: videos.source(0), lambda videos: videos.source_paths):
        with pytest.raises(LusError, match="a source path leads out of its study"):
            read(VideoCache(cache.videos))


@pytest.mark.parametrize("option", ["--frame", "--video", "--run"])
@pytest.mark.parametrize("escape", ["../../x", "/tmp/x", "x\0", "x/../../../y", "..", "."])
def test_no_option_names_a_place_outside_the_cache(
    bare: Path, prepared: Path, option: str, escape: str
) -> None:
    before = everything(bare)
    word = escape if option == "--run" else f"1017/1048/{escape}/1"
    command = ["attention", "--cache", str(prepared), option, word, "--device", "cpu"]
    done = CliRunner().invoke(app, command)
    if option == "--run" and "\0" not in escape:  # it may be a path, of a folder that is only read
        assert done.exit_code == 1
        assert f"there is no run at {escape}" in done.output
    else:
        assert done.exit_code == 2
        assert "is not a" in done.output
    assert everything(bare) == before


@pytest.mark.parametrize("escape", ["../../x", "/tmp/x", "x/../../../y", "..", "."])
@pytest.mark.parametrize("command", ["train", "crossval"])
def test_no_run_is_made_outside_the_cache(
    bare: Path, prepared: Path, command: str, escape: str
) -> None:
    before = everything(bare)
    words = [command, "--cache", str(prepared), "--run", escape, "--recipe", "demo"]
    done = CliRunner().invoke(app, [*words, "--device", "cpu"])
    assert done.exit_code == 2
    assert "is not a valid run name" in done.output
    assert everything(bare) == before


def everything(folder: Path) -> list[tuple[str, int]]:
    return sorted((str(path), path.lstat().st_mtime_ns) for path in folder.rglob("*"))


def test_a_study_of_links_is_read_and_not_written_to(
    exams: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link for a patient leads out of the tree: what lus makes must not follow it."""
    monkeypatch.setattr(prepare, "draw_figures", lambda *_: {})
    elsewhere, tree, cache = (tmp_path / name for name in ("elsewhere", "tree", "cache"))
    shutil.copytree(exams, elsewhere)
    tree.mkdir()
    for entry in elsewhere.iterdir():
        (tree / entry.name).symlink_to(entry)
    before = everything(elsewhere)
    prepare.run(PrepareConfig(exams=tree, cache=cache, size=32, workers=1), silent)
    assert everything(elsewhere) == before
    assert all(path.resolve().is_relative_to(cache) for path in cache.rglob("*"))


@pytest.mark.parametrize(
    "name", ["../secret.mp4", "/secret.mp4", "a/../../secret.mp4", "C:secret.mp4"]
)
def test_a_label_table_names_nothing_outside_its_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "videos").mkdir()
    for path in (tmp_path / "secret.mp4", tmp_path / "videos" / "a.mp4"):
        path.write_bytes(b"")
    table = tmp_path / "labels.csv"
    table.write_text(f"file,patient,exam,area,score\n{name},p,1,a,1\n")
    with pytest.raises(LusError, match="is not a file in the folder of videos"):
        read_study(StudyFiles(tmp_path / "videos", labels=table))


# ------------------------------------------------------------------------------ the code itself


def calls() -> Iterator[tuple[str, str, ast.Call]]:
    """Every call in the package: where, its dotted name, itself."""
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                yield f"{path.name}:{node.lineno}", ast.unparse(node.func), node


def given(call: ast.Call, name: str) -> object:
    found = [keyword.value for keyword in call.keywords if keyword.arg == name]
    return found[0].value if found and isinstance(found[0], ast.Constant) else None


def test_nothing_is_unpickled() -> None:
    readers = {"torch.load": ("weights_only", True), "np.load": ("allow_pickle", False)}
    seen = set()
    for place, name, call in calls():
        if name in readers:
            option, wanted = readers[name]
            assert given(call, option) is wanted, f"{place}: {name} without {option}={wanted}"
            seen.add(name)
        last = name.rpartition(".")[2]
        assert not (name.startswith(("pickle.", "marshal.", "shelve.")) and last.startswith("load"))
        assert name not in ("eval", "exec", "os.system", "os.popen", "joblib.load", "yaml.load")
        assert given(call, "shell") is not True, place
        assert last not in ("extractall", "unpack_archive"), place
    assert seen == readers.keys()


def test_nothing_goes_out_by_the_network() -> None:
    """But for torchvision's download of ImageNet weights, of whose error the name is needed."""
    network = {
        "urllib",
        "http",
        "socket",
        "ssl",
        "requests",
        "httpx",
        "aiohttp",
        "ftplib",
        "smtplib",
    }
    network |= {"huggingface_hub", "urllib3", "websockets", "telnetlib", "xmlrpc", "webbrowser"}
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            used = {name for name in names if name.partition(".")[0] in network}
            assert used <= {"urllib.error.URLError"}, f"{path.name} imports {used}"
    assert not [place for place, name, _ in calls() if "load_state_dict_from_url" in name]


def test_pages_escape_by_default() -> None:
    made = [call for _, name, call in calls() if name.endswith("Environment")]
    assert made
    assert all(given(call, "autoescape") is True for call in made)
    unescaped = {
        found
        for path in (PACKAGE / "pages").glob("*.html")
        for found in re.findall(r"\{\{([^}]*)\|\s*safe\b", path.read_text())
    }
    assert {found.strip() for found in unescaped} <= {"video.clip.script"}  # numbers, as JSON
    assert not [
        path.name for path in (PACKAGE / "pages").glob("*.html") if "autoescape" in path.read_text()
    ]


def test_a_message_cannot_steer_the_terminal() -> None:
    hostile = "a\x1b[2J\n\r\u2028\u202e" + os.fsdecode(b"\xff") + "b" * 100_000
    error = LusError(hostile, hostile)
    assert str(error).isprintable()
    assert len(str(error)) < 3000
    assert error.message.startswith("a    ")  # the command that clears the screen went whole
