"""The phantom study: its shape, its physics, its files."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lus_cli.config import PhantomConfig
from lus_cli.errors import LusError, UsageError
from lus_cli.phantom import study, true_masks
from lus_cli.phantom.appearance import Scene
from lus_cli.phantom.probe import Grid, speckle
from lus_cli.phantom.scene import Label, Lesion, Look, draw_lesions, draw_look
from lus_cli.progress import silent
from lus_cli.steps import phantom
from lus_cli.study.annotations import ANNOTATIONS, read_annotations
from lus_cli.study.finding import find_sources

SIZE = 64
LESIONS = {Label.B_LINE, Label.CONSOLIDATION, Label.WHITE_LUNG}


def small(root: Path, **changes: object) -> PhantomConfig:
    config = PhantomConfig(root=root, patients=4, videos=16, size=SIZE, max_frames=12, workers=1)
    return dataclasses.replace(config, **changes)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small study: read it, do not change it."""
    root = tmp_path_factory.mktemp("phantom") / "exams"
    phantom.run(small(root), silent)
    return root


@pytest.fixture
def look() -> Look:
    """A plain look: the axis of the probe meets an even pleura, and nothing is in the way."""
    drawn = draw_look(np.random.default_rng(1), np.random.default_rng(2))
    plain = {"tilt": 0.0, "bend": 0.0, "offset": 0.0, "gain_db": 0.0, "noise_db": -60.0}
    clear = {"ribs_deg": (), "comets": (), "contact": (0.0, 0.0), "ticks": False}
    scale = {"depth_cm": 9.0, "pleura_cm": 2.0, "slope_db_per_cm": 0.0, "a_lines_db": 6.0}
    return dataclasses.replace(drawn, **plain, **clear, **scale)


def scene(look: Look, lesions: list[Lesion], size: int = 96, seed: int = 0) -> Scene:
    return Scene(look, lesions, size, np.random.default_rng(seed))


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# --------------------------------------------------------------------------------------- the study


def test_study_has_the_shape_of_the_original() -> None:
    videos = phantom.videos_of(PhantomConfig())
    patients = {v.id.patient for v in videos}
    named = "1017 1045 1047 1048 1050 1051 1052 1066 1067 1068 1069"
    assert " ".join(sorted(patients)) == named
    assert len(videos) == len({v.id for v in videos}) == 246
    assert len({(v.id.patient, v.id.exam) for v in videos}) == 18
    assert {int(v.id.area) for v in videos} == set(range(1, 15))
    assert Counter(v.score for v in videos) == {0: 45, 1: 45, 2: 101, 3: 55}


def test_an_exam_number_belongs_to_one_patient() -> None:
    owners = defaultdict(set)
    for video in phantom.videos_of(PhantomConfig()):
        owners[video.id.exam].add(video.id.patient)
        assert len(video.id.exam) == 4
    assert all(len(patients) == 1 for patients in owners.values())


def test_lengths_differ_as_in_the_original() -> None:
    videos = phantom.videos_of(PhantomConfig())
    lengths = {str(v.id): v.frames for v in videos}
    assert max(lengths, key=lambda video: lengths[video]) == "1017/1048/11"
    assert lengths["1017/1048/11"] == 252
    short = [v.frames for v in videos if v.id.patient in ("1047", "1051")]
    assert max(short) < min(v.frames for v in videos if v.id.patient not in ("1047", "1051"))
    assert len(set(lengths.values())) > 50


@pytest.mark.parametrize("seed", range(3))
def test_every_score_occurs_in_most_patients(seed: int) -> None:
    scores = defaultdict(set)
    for video in phantom.videos_of(PhantomConfig(seed=seed)):
        scores[video.id.patient].add(video.score)
    assert sum(len(found) == 4 for found in scores.values()) >= 9


@pytest.mark.parametrize(
    ("patients", "videos", "exams"),
    [(4, 4, 4), (4, 12, 7), (6, 18, 10), (30, 200, 49), (5, 700, 50)],
)
def test_other_sizes_keep_the_construction(patients: int, videos: int, exams: int) -> None:
    planned = phantom.videos_of(PhantomConfig(patients=patients, videos=videos, max_frames=4))
    assert len({v.id for v in planned}) == videos
    assert len({v.id.exam for v in planned}) == exams
    ids = {v.id.patient for v in planned}
    assert len(ids) == patients
    assert {"1017", "1047", "1051"} <= ids
    assert all(len(patient) == 4 for patient in ids)
    assert {int(v.id.area) for v in planned} <= set(range(1, 15))
    assert {str(v.id): v.frames for v in planned}["1017/1048/11"] == 4
    assert min(v.frames for v in planned) >= 2


def test_fewer_videos_than_patients_is_refused() -> None:
    with pytest.raises(UsageError, match="--videos 4 is fewer than --patients 11"):
        phantom.videos_of(PhantomConfig(videos=4))


def test_look_does_not_know_the_score() -> None:
    video = phantom.videos_of(PhantomConfig())[0]
    looks = {repr(dataclasses.replace(video, score=score).draw()[0]) for score in range(4)}
    assert len(looks) == 1


def test_look_does_not_go_with_the_score() -> None:
    videos = phantom.videos_of(PhantomConfig(patients=100, videos=1500))
    drawn = [dataclasses.asdict(video.draw()[0]) for video in videos]
    scores = [video.score for video in videos]
    for name in drawn[0]:
        ribs_or_comets = name in ("ribs_deg", "comets")
        column = [len(d[name]) if ribs_or_comets else np.sum(d[name]) for d in drawn]
        assert abs(np.corrcoef(column, scores)[0, 1]) < 0.1, name


# ------------------------------------------------------------------------------------- the physics


def test_speckle_is_rayleigh() -> None:
    re, im = speckle((512, 512), (0.8, 1.5))
    envelope = np.hypot(re, im)
    assert envelope.mean() / envelope.std() == pytest.approx(1.91, abs=0.03)
    assert np.mean(envelope**2) == pytest.approx(1, abs=1e-3)
    # A Gaussian point spread function of deviation s leaves exp(-1 / 4s^2) between neighbours.
    assert np.mean(re[1:] * re[:-1]) * 2 == pytest.approx(np.exp(-1 / 4 / 0.8**2), abs=0.02)
    assert np.mean(re[:, 1:] * re[:, :-1]) * 2 == pytest.approx(np.exp(-1 / 4 / 1.5**2), abs=0.02)


def test_speckle_of_a_rendered_lung_is_rayleigh(look: Look) -> None:
    # Each point over time: between the pleura and the first A-line nothing but speckle changes.
    still = scene(dataclasses.replace(look, slide_mm=0.0, noise_db=-90.0), [], size=48)
    mm = still.grid.below_mm[:, 0]
    rows = (mm > 5) & (mm < 15)
    power = np.stack([10 ** (db[rows] / 10) for db, _, _ in still.polar_frames(800)])
    mean, square = np.sqrt(power).mean(0), power.mean(0)
    contrast = np.sqrt(np.median(square / mean**2) - 1)
    assert 1 / contrast == pytest.approx(1.91, abs=0.12)


def test_speckle_changes_slowly(look: Look) -> None:
    still = scene(dataclasses.replace(look, slide_mm=0.0), [])
    levels = np.stack([db[still.grid.below_mm[:, 0] > 3] for db, _, _ in still.polar_frames(80)])
    levels -= levels.mean(axis=0)

    def likeness(apart: int) -> float:
        return float(np.corrcoef(levels[0].ravel(), levels[apart].ravel())[0, 1])

    assert likeness(1) > 0.7
    assert likeness(8) < likeness(1) - 0.2
    assert abs(likeness(79)) < 0.2


def test_a_lines_lie_at_multiples_of_the_pleural_depth(look: Look) -> None:
    healthy = scene(look, [], size=192)
    frames = np.mean([db for db, _, _ in healthy.polar_frames(10)], axis=0)
    middle = frames[:, 5 * frames.shape[1] // 12 : 7 * frames.shape[1] // 12].mean(axis=1)
    pleura = healthy.grid.pleura
    for multiple in (1, 2, 3, 4):
        near = slice(round((multiple - 0.3) * pleura), round((multiple + 0.3) * pleura))
        peak = near.start + int(np.argmax(middle[near]))
        assert abs(peak - multiple * pleura) <= 1
        assert middle[peak] > np.median(middle[near]) + 6


def test_pleura_lies_at_its_depth_in_the_frame(look: Look) -> None:
    size = 192
    _, mask = next(scene(look, [], size).frames(1))
    found = np.flatnonzero(mask[:, size // 2] == Label.PLEURA).mean()
    probe, half = 10 * look.probe_cm, np.deg2rad(look.opening_deg / 2)
    height_mm = 1.03 * (probe * (1 - np.cos(half)) + 10 * look.depth_cm)
    expected = (probe * (1 - np.cos(half)) + 10 * look.pleura_cm) / height_mm * size
    assert found == pytest.approx(expected, abs=0.02 * size)


def band(place: float = 0.0, passing: bool = False) -> Lesion:
    return Lesion(Label.B_LINE, place, width_mm=4.0, depth_mm=0.0, passing=passing, grain=1)


def test_b_lines_reach_the_bottom_and_erase_a_lines(look: Look) -> None:
    ill = scene(look, [band()])
    db, labels, _ = next(ill.polar_frames(1))
    lung = np.arange(ill.grid.rows) > ill.grid.pleura + 6 / ill.grid.row_mm
    columns = (labels == Label.B_LINE)[lung].all(axis=0)
    assert columns.any()
    beside = np.roll(columns, 2 * columns.sum())
    bottom = slice(-ill.grid.rows // 4, None)
    assert db[bottom, columns].mean() > db[bottom, beside].mean() + 6
    repeats = (labels == Label.A_LINE).any(axis=1)
    assert repeats.any()
    assert not (labels == Label.A_LINE)[:, columns].any()


def test_lesions_slide_with_the_lung(look: Look) -> None:
    breath = round(60 / look.breaths_per_min * look.frames_per_s)
    labels = [labels for _, labels, _ in scene(look, [band()]).polar_frames(breath)]
    centres = [np.flatnonzero((frame == Label.B_LINE).any(axis=0)).mean() for frame in labels]
    travelled = np.ptp(centres) * scene(look, []).grid.line_mm
    assert travelled == pytest.approx(look.slide_mm, abs=2)
    pleura = [np.flatnonzero((frame == Label.PLEURA).any(axis=1)).mean() for frame in labels]
    assert np.ptp(pleura) < 1


def test_a_passing_lesion_is_there_in_part_of_the_cycle(look: Look) -> None:
    breath = round(60 / look.breaths_per_min * look.frames_per_s)
    frames = scene(look, [band(passing=True)]).polar_frames(breath)
    seen = [bool((labels == Label.B_LINE).any()) for _, labels, _ in frames]
    assert 0.2 < np.mean(seen) < 0.9


def test_the_first_lesion_always_stays() -> None:
    rng = np.random.default_rng(0)
    for score in (1, 2, 3):
        for _ in range(50):
            lesions = draw_lesions(rng, score, draw_look(rng, rng))
            assert not lesions[0].passing
            assert all(abs(lesion.place) <= 0.36 for lesion in lesions)


@pytest.mark.parametrize("size", [32, 65, 300])
def test_frames_and_masks_have_the_size(look: Look, size: int) -> None:
    for frame, mask in scene(look, [band()], size).frames(2):
        assert frame.shape == mask.shape == (size, size)
        assert frame.dtype == mask.dtype == np.uint8
        assert frame.max() > 100


def test_scan_conversion_keeps_a_constant(look: Look) -> None:
    grid = Grid(dataclasses.replace(look, tilt=0.1, bend=0.1), 96)
    values = grid.convert(np.full((grid.rows, grid.lines), 7.0, np.float32), 0.98)
    np.testing.assert_allclose(values, 7.0, rtol=1e-6)


# --------------------------------------------------------------------------------------- the files


def test_tree_is_whole(root: Path) -> None:
    folders, problems = find_sources(root, mask_text=False)
    assert not problems
    scores = read_annotations(root / ANNOTATIONS)
    planned = {v.id: v for v in phantom.videos_of(small(root))}
    assert set(scores) == {folder.id for folder in folders} == set(planned)
    for folder in folders:
        assert scores[folder.id] == planned[folder.id].score
        assert [f.number for f in folder.frame_files] == list(range(planned[folder.id].frames))
        assert folder.files[-1].name == f"Frame_{len(folder.files) - 1}.jpg"
        with Image.open(folder.files[0]) as image:
            assert (image.mode, image.size, image.format) == ("L", (SIZE, SIZE), "JPEG")


def test_masks_show_what_makes_the_score(root: Path) -> None:
    white = defaultdict(list)
    scores = read_annotations(root / ANNOTATIONS)
    assert set(scores.values()) == {0, 1, 2, 3}
    for video, score in scores.items():
        frames = sorted(true_masks.masks_folder(root).joinpath(*video).glob("Frame_*.png"))
        assert len(frames) == len(list(root.joinpath(*video).glob("*.jpg")))
        masks = np.stack([true_masks.read_mask(path) for path in frames])
        shown = {Label(value) for value in np.unique(masks)}
        needed = {
            0: {Label.PLEURA},
            1: {Label.B_LINE},
            2: {Label.CONSOLIDATION, Label.WHITE_LUNG},
            3: {Label.WHITE_LUNG},
        }
        assert needed[score] <= shown, video
        allowed = [set(), {Label.B_LINE}, LESIONS, {Label.CONSOLIDATION, Label.WHITE_LUNG}]
        assert shown & LESIONS <= allowed[score], video
        white[score].append(np.mean(masks == Label.WHITE_LUNG))
    assert np.median(white[3]) > 1.5 * np.median(white[2])


def test_a_mask_is_read_back_as_written(tmp_path: Path) -> None:
    mask = np.random.default_rng(0).integers(0, 6, (37, 53)).astype(np.uint8)
    true_masks.write_mask(tmp_path / "mask.png", mask)
    np.testing.assert_array_equal(true_masks.read_mask(tmp_path / "mask.png"), mask)
    with Image.open(tmp_path / "mask.png") as image:
        colours = np.asarray(image.convert("RGB"))
    assert tuple(colours[mask == Label.B_LINE][0]) == true_masks.PALETTE[Label.B_LINE]


def test_what_is_no_mask_is_refused(root: Path, tmp_path: Path) -> None:
    Image.new("L", (4, 4)).save(tmp_path / "gray.png")
    with pytest.raises(LusError, match="is not a mask"):
        true_masks.read_mask(tmp_path / "gray.png")
    (tmp_path / "half.png").write_bytes(b"\x89PNG")
    for unreadable in (tmp_path / "half.png", next(root.rglob("*.jpg"))):
        with pytest.raises(LusError, match="cannot be read"):
            true_masks.read_mask(unreadable)


def test_study_json_says_what_was_drawn(root: Path) -> None:
    study = json.loads((true_masks.masks_folder(root) / phantom.STUDY).read_text())
    scores = read_annotations(root / ANNOTATIONS)
    assert {video: entry["score"] for video, entry in study["videos"].items()} == {
        str(video): score for video, score in scores.items()
    }
    entry = study["videos"]["1017/1048/11"]
    assert {"depth_cm", "gain_db", "pleura_cm", "lesions"} <= set(entry)
    assert study["seed"] == 0
    assert study["labels"]["white_lung"] == Label.WHITE_LUNG


def test_result_and_progress_count_the_frames(tmp_path: Path) -> None:
    calls: list[tuple[str, int, int | None]] = []

    def progress(task: str, done: int, total: int | None = None, **facts: object) -> None:
        calls.append((task, done, total))

    result = phantom.run(small(tmp_path / "exams", videos=6), progress)
    frames = len(list((tmp_path / "exams").rglob("*.jpg")))
    assert result.numbers["frames"] == frames
    assert [row[2] for row in result.tables[0].rows] == [
        sum(v.frames for v in phantom.videos_of(small(tmp_path, videos=6)) if v.score == score)
        for score in range(4)
    ]
    assert calls[0] == ("phantom", 0, frames)
    assert calls[-1] == ("phantom", frames, frames)
    assert len(calls) == 7


def test_bytes_depend_on_no_number_of_workers(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study, "POOL_PAYS_FROM", 0)
    other = tmp_path / "exams"
    phantom.run(small(other, workers=2), silent)
    assert files(other) == files(root)
    assert files(true_masks.masks_folder(other)) == files(true_masks.masks_folder(root))


def test_another_seed_gives_other_frames(root: Path, tmp_path: Path) -> None:
    phantom.run(small(tmp_path / "exams", seed=1, videos=4), silent)
    frame = Path("1017", "1048", "11", "Frame_0.jpg")
    assert (tmp_path / "exams" / frame).read_bytes() != (root / frame).read_bytes()


def test_an_existing_tree_is_replaced_only_by_force(tmp_path: Path) -> None:
    root = tmp_path / "exams"
    phantom.run(small(root, videos=5), silent)
    (root / "old" / "1" / "2").mkdir(parents=True)
    with pytest.raises(LusError, match="already exists"):
        phantom.run(small(root, videos=4), silent)
    assert (root / "old").exists()
    phantom.run(small(root, videos=4, force=True), silent)
    assert not (root / "old").exists()
    assert len(find_sources(root, mask_text=False)[0]) == 4


def test_masks_that_are_no_phantoms_stay(tmp_path: Path) -> None:
    masks = tmp_path / "exams-masks"
    masks.mkdir()
    (masks / "mine.txt").write_text("weeks of drawing")
    with pytest.raises(LusError, match="was not written by `lus phantom`: move it away"):
        phantom.run(small(tmp_path / "exams", videos=4, force=True), silent)
    assert (masks / "mine.txt").exists()


@pytest.mark.parametrize("workers", [1, 2])
def test_an_interrupted_run_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    monkeypatch.setattr(study, "POOL_PAYS_FROM", 0)

    def interrupting(task: str, done: int, total: int | None = None, **facts: object) -> None:
        if done:
            assert list(tmp_path.rglob("*.jpg"))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        phantom.run(small(tmp_path / "exams", workers=workers), interrupting)
    assert not list(tmp_path.iterdir())


def test_a_failure_leaves_the_old_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "exams"
    phantom.run(small(root, videos=4), silent)
    before = files(tmp_path)

    def failing(path: Path, mask: np.ndarray) -> None:
        if path.name == "Frame_3.png":
            raise OSError(28, "No space left on device")
        path.touch()

    monkeypatch.setattr(study, "write_mask", failing)
    with pytest.raises(LusError, match="No space left"):
        phantom.run(small(root, videos=8, force=True), silent)
    assert files(tmp_path) == before


def test_no_geometry_leaves_the_grid() -> None:
    """The steepest pleura at the deepest breath once asked for rows beyond the last."""
    look = draw_look(np.random.default_rng(1), np.random.default_rng(2))
    grid = Grid(dataclasses.replace(look, bend=-1.0, tilt=0.0), 64)
    polar = np.ones((grid.rows, grid.lines), np.float32)
    assert grid.convert(polar, 0.9).max() == 1
    assert grid.convert_labels(polar.astype(np.uint8), 0.9).max() == 1
