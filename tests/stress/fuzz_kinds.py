"""The kinds of files and texts that are spoiled, and for each what of lus reads it.

A reader returns where the spoiled input was read, raises LusError where it was refused, and
WrongError where the answer is not what sound input gives.
"""

from __future__ import annotations

import math
import random
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from typer.testing import CliRunner

from lus_cli.attention import mask_file
from lus_cli.cache.chunks import FrameFormat, StoredVideo
from lus_cli.cache.decoding import fitted_frames, stored_frames
from lus_cli.cache.layout import Cache
from lus_cli.cache.split import PARTS, read_split
from lus_cli.cache.video_cache import VideoCache
from lus_cli.cli import app
from lus_cli.cli.settings import settings_from
from lus_cli.config import PrepareConfig, TrainConfig
from lus_cli.errors import LusError
from lus_cli.model.checkpoint import load_best, load_last, weights_digest
from lus_cli.model.weights import load_into
from lus_cli.options import build
from lus_cli.prediction.new_videos import frames_at
from lus_cli.prediction.scorer import fitted_temperature
from lus_cli.progress import silent
from lus_cli.steps import prepare, train
from lus_cli.study.annotations import SCORES
from lus_cli.study.exam_tree import FrameFile
from lus_cli.study.ids import VideoId
from lus_cli.study.mat_files import highest_score
from lus_cli.study.sources import DicomFile, FrameFolder, MatFile, Source, VideoFile
from lus_cli.study.study import StudyFiles, read_study
from lus_cli.study.video_files import frame_rate
from tests.conftest import PAPER
from tests.stress import fuzz_formats as formats
from tests.stress.fuzz_mutations import (
    hostile_json,
    hostile_lines,
    hostile_text,
    hostile_toml,
    spoiled,
)
from tests.stress.fuzz_sandbox import Case, WrongError
from tests.stress.fuzz_seeds import TINY, Seeds

VIDEO = VideoId("p0", "1", "a")


@dataclass(frozen=True)
class Kind:
    """`make` is given the seeds, the case's folder and its random generator."""

    name: str
    share: int  # of every hundred cases
    make: Callable[[Seeds, Path, random.Random], None]


def case_of(kind: Kind, seeds: Seeds, seed: int, number: int) -> Case:
    """A case by the numbers that its line of findings gives."""

    def case(folder: Path) -> None:
        kind.make(seeds, folder, random.Random(f"{seed} {kind.name} {number}"))

    return case


def changed(
    content: bytes,
    random_: random.Random,
    shaped: Callable[[bytes, random.Random], bytes],
    share: float = 0.5,
) -> bytes:
    """Content spoiled by what knows its format, else by bytes."""
    return (shaped if random_.random() < share else spoiled)(content, random_)


# ------------------------------------------------------------------------------------------- pixels


def decoded(source: Source, random_: random.Random) -> StoredVideo:
    """The frames as `lus prepare` stores them; WrongError if they are not what their table says."""
    frame_format = FrameFormat(
        random_.choice((32, 64)), letterbox=random_.random() < 0.5, color=random_.random() < 0.5
    )
    stored = stored_frames(fitted_frames(source, frame_format))
    frames = frames_at(stored, np.arange(stored.length), frame_format)
    if not stored.length or frames.shape != (stored.length, *frame_format.shape):
        raise WrongError(f"frames {frames.shape}, {stored.length} numbers")
    return stored


def image(suffix: str) -> Callable[[Seeds, Path, random.Random], None]:
    shaped = {"jpeg": formats.jpeg, "png": formats.png, "picture": formats.picture}[suffix]

    def read(seeds: Seeds, folder: Path, random_: random.Random) -> None:
        """A frame alone, or as the second of a video whose first is sound."""
        sound = random_.choice(seeds.files(suffix))
        there = formats.written(
            folder / "input" / f"1{sound.suffix}", changed(sound.read_bytes(), random_, shaped)
        )
        files = [FrameFile(1, there)]
        if random_.random() < 0.5:
            files.insert(0, FrameFile(0, sound))
        stored = decoded(FrameFolder(VIDEO, folder, "input", tuple(files)), random_)
        if stored.length != len(files):
            raise WrongError(f"{stored.length} of {len(files)} frames")
        with Image.open(there) as opened:
            if sorted(opened.size) != sorted(stored.source_shape):
                raise WrongError(f"{opened.size} pixels taken for {stored.source_shape}")

    return read


def video(seeds: Seeds, folder: Path, random_: random.Random) -> None:
    sound = random_.choice(seeds.files("video"))
    content = sound.read_bytes()
    spoilt = changed(content, random_, formats.video)
    path = formats.written(folder / "input" / f"v{random_.choice((sound.suffix, '.mp4'))}", spoilt)
    stored = decoded(VideoFile(VIDEO, path.parent, path.name), random_)
    if content.startswith(spoilt) and stored.length != 5:
        raise WrongError(f"{stored.length} of 5 frames of a file that was cut short")
    rate = frame_rate(path)
    if not (math.isfinite(rate) and rate > 0):
        raise WrongError(f"{rate} frames a second")


def dicom(seeds: Seeds, folder: Path, random_: random.Random) -> None:
    sound = random_.choice(seeds.files("dicom"))
    spoilt = changed(sound.read_bytes(), random_, formats.dicom)
    path = formats.written(folder / "input" / "v.dcm", spoilt)
    mask_text = sound.stem == "gray" and random_.random() < 0.5
    decoded(DicomFile(VIDEO, path.parent, path.name, mask_text), random_)


def mat_content(seeds: Seeds, kind: str, name: str, random_: random.Random) -> bytes:
    """A .mat file with something else as `name`, now and then a bomb."""
    if random_.random() < 0.02:
        return random_.choice(seeds.files("bombs")).read_bytes()
    return changed(random_.choice(seeds.files(kind)).read_bytes(), random_, formats.mat(name))


def mat(seeds: Seeds, folder: Path, random_: random.Random) -> None:
    content = mat_content(seeds, "mat", "frames", random_)
    path = formats.written(folder / "input" / "v.mat", content)
    decoded(MatFile(VIDEO, path.parent, path.name), random_)


def mat_scores(seeds: Seeds, folder: Path, random_: random.Random) -> None:
    content = mat_content(seeds, "scores", "Score_matrix", random_)
    path = formats.written(folder / "input" / "s.mat", content)
    if highest_score(seeds.root / "mat" / "v5.mat", path) not in SCORES:
        raise WrongError("a score that is none")


# --------------------------------------------------------------------------------------------- text


def study_with(seeds: Seeds, folder: Path, random_: random.Random, **settings: Any) -> None:
    """What `lus prepare` makes of a study: a dry run, now and then the whole."""
    config = PrepareConfig(cache=folder / "cache", size=32, workers=1, folds=2, **settings)
    root = config.exams or seeds.exams
    study = read_study(StudyFiles(root, annotations=config.annotations))
    for source in study.sources.values():
        if not source.location.resolve().is_relative_to(root.resolve()):
            raise WrongError(f"{source.location} is not in the study")
        if study.scores[source.id] not in SCORES:
            raise WrongError(f"score {study.scores[source.id]}")
    whole = random_.random() < 0.03
    prepare.run(PrepareConfig(**{**asdict(config), "dry_run": not whole}), silent)


def annotations(seeds: Seeds, folder: Path, random_: random.Random) -> None:
    text = (seeds.exams / "Annotations.txt").read_text()
    path = formats.written(folder / "input" / "a.txt", hostile_lines(text, random_))
    study_with(seeds, folder, random_, exams=seeds.exams, annotations=path)


def annotations_csv(seeds: Seeds, folder: Path, random_: random.Random) -> None:
    lines = (seeds.exams / "Annotations.txt").read_text().split()
    rows = [line.replace("/", ",").replace(";", ",") for line in lines]
    text = "\n".join(["patient,exam,area,score", *rows])
    path = formats.written(folder / "input" / "a.csv", hostile_lines(text, random_))
    study_with(seeds, folder, random_, exams=seeds.exams, annotations=path)


def findings(seeds: Seeds, folder: Path, random_: random.Random) -> None:
    """Findings.csv beside links to the patients."""
    root = folder / "input"
    root.mkdir()
    for entry in seeds.exams.iterdir():
        (root / entry.name).symlink_to(entry)
    ids = [
        line.partition(";")[0].replace("/", ",")
        for line in (root / "Annotations.txt").read_text().split()
    ]
    rows = [f"{name},yes," for name in ids]
    (root / "Findings.csv").write_bytes(
        hostile_lines("\n".join(["patient,exam,area,a_lines,b_lines", *rows]), random_)
    )
    prepare.run(PrepareConfig(exams=root, cache=folder / "cache", dry_run=True), silent)


def labels(seeds: Seeds, folder: Path, random_: random.Random) -> None:
    """A label table of files that lie flat in a folder."""
    root = folder / "input"
    root.mkdir()
    names = []
    for path in (*seeds.files("video"), *seeds.files("dicom")):
        (root / path.name).symlink_to(path)
        names.append(path.name)
    rows = [f"{name},p{place},1,a{place},{place % 4}" for place, name in enumerate(names)]
    text = "\n".join(["file,patient,exam,area,score", *rows])
    path = formats.written(folder / "input" / "labels.csv", hostile_lines(text, random_))
    config = PrepareConfig(exams=root, labels=path, cache=folder / "cache", dry_run=True)
    for source in read_study(StudyFiles(root, labels=path)).sources.values():
        if source.location.parent != root or source.location.name not in names:
            raise WrongError(f"{source.location} is not in the folder")
    prepare.run(config, silent)


def recipe(seeds: Seeds, folder: Path, random_: random.Random) -> None:
    """A recipe of one's own: read, and now and then tried on a real batch."""
    path = formats.written(
        folder / "input" / "r.toml", hostile_toml((seeds.run / "config.toml").read_text(), random_)
    )
    config = settings_from(
        TrainConfig, {"config": path, "dry_run": True, "device": "cpu", "threads": 1}
    )
    if config.weights == "imagenet":
        raise WrongError("weights nobody asked for")
    if random_.random() < 0.2:
        values = {**asdict(config), "cache": copied_cache(seeds, folder)}
        train.run(build(TrainConfig, PAPER | values), silent)


def split(seeds: Seeds, folder: Path, random_: random.Random) -> None:
    cache = copied_cache(seeds, folder)
    text = (seeds.cache / "split.json").read_text()
    formats.written(cache / "split.json", hostile_json(text, random_))
    patients = VideoCache(seeds.cache / "videos.h5").patients
    read, _ = read_split(cache / "split.json", patients)
    parts = [name for part in PARTS for name in getattr(read, part)]
    if sorted(parts) != sorted(set(patients)):
        raise WrongError(f"the parts hold {parts}")
    if random_.random() < 0.1:
        config = PrepareConfig(exams=seeds.exams, cache=cache, size=32, workers=1, folds=2)
        prepare.run(config, silent)


def temperature(seeds: Seeds, folder: Path, random_: random.Random) -> None:
    """What `lus evaluate` left for `lus predict`, and which run is the latest."""
    cache = Cache(copied_cache(seeds, folder))
    weights = weights_digest(cache.run("tiny").best)
    fitted = '{"value": 1.5, "fitted_on": {"videos": 3, "patients": 1}}'
    text = f'{{"weights": "{weights}", "temperature": {fitted}, "loss": 1.0}}'
    formats.written(
        cache.run("tiny").evaluation("test") / "scores.json", hostile_json(text, random_)
    )
    found = fitted_temperature(cache.run("tiny"), weights)
    if found is not None and not (math.isfinite(found.value) and found.value > 0):
        raise WrongError(f"a temperature of {found.value}")
    formats.written(cache.latest, hostile_text(random_).encode())
    if cache.run(None).root.resolve() != (cache.runs / "tiny").resolve():
        raise WrongError("another run")


# ---------------------------------------------------------------------------------- what lus wrote


def copied_cache(seeds: Seeds, folder: Path) -> Path:
    """A cache with its run, without pictures, that the case may change."""
    unneeded = shutil.ignore_patterns("figures", "tensorboard", "curves.*", "*.lock", "evaluation")
    shutil.copytree(seeds.cache, folder / "cache", ignore=unneeded)
    shutil.copytree(seeds.cache / "figures", folder / "cache" / "figures")
    return folder / "cache"


def video_cache(seeds: Seeds, folder: Path, random_: random.Random) -> None:
    """videos.h5: refused, or read as it was, by whole videos and by single frames."""
    sound = VideoCache(seeds.cache / "videos.h5")
    content = changed(sound.path.read_bytes(), random_, formats.cache, 0.3)
    videos = VideoCache(formats.written(folder / "input" / "videos.h5", content))
    if videos.entries != sound.entries or videos.frame_format != sound.frame_format:
        raise WrongError("other ids, scores or settings")
    for index in range(len(sound)):
        positions = np.array([random_.randrange(int(sound.lengths[index]))])
        if not np.array_equal(videos.frame_numbers(index), sound.frame_numbers(index)):
            raise WrongError("other frame numbers")
        if not np.array_equal(videos.read(index, positions), sound.read(index, positions)):
            raise WrongError(f"another frame {positions} of video {index}")
        if not np.array_equal(videos.read(index), sound.read(index)):
            raise WrongError(f"other frames of video {index}")


def shard(seeds: Seeds, folder: Path, random_: random.Random) -> None:
    sound = VideoCache(seeds.cache / "videos.h5").stored(0)
    path = folder / "input" / "a.video"
    path.parent.mkdir()
    sound.save(path)
    path.write_bytes(spoiled(path.read_bytes(), random_))
    read = StoredVideo.load(path)
    if read is not None and (read.chunks, read.checksum) != (sound.chunks, sound.checksum):
        raise WrongError("other frames")


def last(seeds: Seeds, folder: Path, random_: random.Random) -> None:
    """last.pt by itself if bytes changed; if it was written anew, as `lus train --resume` takes it."""
    content = (seeds.run / "last.pt").read_bytes()
    if random_.random() < 0.6:
        state = load_last(formats.written(folder / "input" / "last.pt", spoiled(content, random_)))
        if state is None or not same(state, load_last(seeds.run / "last.pt")):
            raise WrongError("another state")
        return
    cache = copied_cache(seeds, folder)
    (cache / "runs" / "tiny" / "last.pt").write_bytes(formats.torch_zip(content, random_))
    values = {**TINY, "run": "tiny", "resume": True, "device": "cpu", "threads": 1, "cache": cache}
    train.run(build(TrainConfig, PAPER | values), silent)


def same(one: Any, other: Any) -> bool:
    """Equal, tensors by their values."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def best(seeds: Seeds, folder: Path, random_: random.Random) -> None:
    content = changed((seeds.run / "best.safetensors").read_bytes(), random_, formats.safetensors)
    model, card = load_best(formats.written(folder / "input" / "best.safetensors", content))
    sound, its_card = load_best(seeds.run / "best.safetensors")
    if card != its_card or not same(model.state_dict(), sound.state_dict()):
        raise WrongError("another model")


def weights(seeds: Seeds, folder: Path, random_: random.Random) -> None:
    """--weights FILE, a few numbers of a small network."""
    sound = random_.choice(seeds.files("weights"))
    shaped = formats.safetensors if sound.suffix == ".safetensors" else formats.torch_zip
    if sound.stem == "old":
        shaped = spoiled
    path = formats.written(
        folder / "input" / f"w{sound.suffix}", changed(sound.read_bytes(), random_, shaped)
    )
    body = nn.Sequential(nn.Conv2d(3, 4, 3))
    load_into(body, path, "a network")


def masks(seeds: Seeds, folder: Path, random_: random.Random) -> None:
    """masks.h5 of an earlier command, to which the next command adds."""
    path = folder / "input" / "masks.h5"
    path.parent.mkdir()
    maps = {"frame_number": np.arange(3), "mask": np.ones((3, 4, 4))}
    mask_file.write_masks(path, {VIDEO: maps})
    path.write_bytes(changed(path.read_bytes(), random_, formats.masks))
    other = VideoId("p1", "1", "a")
    mask_file.stored_videos(path, [VIDEO])
    mask_file.write_masks(path, {VIDEO: maps, other: maps})
    if not np.array_equal(mask_file.read_maps(path, VIDEO)["mask"], maps["mask"]):
        raise WrongError("another mask")


# --------------------------------------------------------------------------------- the command line


def command_line(seeds: Seeds, folder: Path, random_: random.Random) -> None:
    """Hostile words where ids and names of runs and patients go."""
    cache = copied_cache(seeds, folder)
    word = hostile_text(random_)
    if random_.random() < 0.4:
        parts = ["1017", "1048", "11", "0"]
        parts[random_.randrange(4)] = word
        word = "/".join(parts)
    command = random_.choice(
        (
            *(["attention", f"--{name}", word] for name in ("frame", "frame", "video", "run")),
            *(
                ["evaluate", "--bootstrap", "0", f"--{name}", word]
                for name in ("run", "videos", "split")
            ),
            *(
                ["prepare", str(seeds.exams), "--size", "32", f"--{name}", word]
                for name in ("test-patients", "folds")
            ),
            *(
                ["train", "--dry-run", "--weights", "none", f"--{name}", word]
                for name in ("run", "recipe", "backbone", "weights")
            ),
            *(
                ["evaluate", word],
                ["export", "--run", word],
                ["predict", "nowhere", "--run", word],
            ),
            *(
                ["train", "--resume", "--run", word],
                ["crossval", "--resume", "--run", word],
                ["predict", f"nowhere{word}"],
            ),
        )
    )
    # Before the hostile word: behind `--`, an option would be an argument.
    done = CliRunner().invoke(app, [command[0], "--cache", str(cache), *command[1:]])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    if done.exit_code not in (0, 1, 2):
        raise WrongError(f"exit code {done.exit_code}")
    if done.exit_code:
        raise LusError(" ".join(done.output.split())[:1000])


KINDS = (
    Kind("JPEG frame", 10, image("jpeg")),
    Kind("PNG frame", 6, image("png")),
    Kind("TIFF, BMP or WebP frame", 4, image("picture")),
    Kind("video file", 14, video),
    Kind("DICOM", 12, dicom),
    Kind(".mat video", 7, mat),
    Kind(".mat scores", 4, mat_scores),
    Kind("Annotations.txt", 5, annotations),
    Kind("annotations CSV", 3, annotations_csv),
    Kind("Findings.csv", 2, findings),
    Kind("label table CSV", 4, labels),
    Kind("recipe TOML", 5, recipe),
    Kind("split.json", 4, split),
    Kind("scores.json, latest", 1, temperature),
    Kind("videos.h5", 5, video_cache),
    Kind("video shard", 2, shard),
    Kind("last.pt", 3, last),
    Kind("best.safetensors", 2, best),
    Kind("--weights FILE", 3, weights),
    Kind("masks.h5", 1, masks),
    Kind("command line", 2, command_line),
)
