"""The options of each command: one frozen dataclass per command, each option defined once.

The annotation of a field holds its help, unit and range as Typer metadata. The command line builds
its options from these fields (cli/). A TOML file sets the same fields by the same names, checked
against the same ranges. Flags override the file, and the file overrides the defaults defined here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import typer

from lus_cli.recipes.recipe import DEFAULT_RECIPE, MAX_SEED, Recipe

DEFAULT_CACHE = Path("cache")
# The two patients with the shortest videos, which the report put into the test part.
REPORT_TEST_PATIENTS = ("1047", "1051")
CachePath = Annotated[
    Path, typer.Option(help="Folder for everything that lus writes.", envvar="LUS_CACHE")
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite existing output.")]
Workers = Annotated[
    int, typer.Option(help="Number of worker processes; 0 starts one per core.", min=0)
]
Threads = Annotated[
    int, typer.Option(help="Number of CPU threads; 0 uses one per core.", min=0, max=1024)
]
Device = Annotated[
    Literal["auto", "cuda", "mps", "cpu"],
    typer.Option(help="Device that runs the model; auto selects the best available accelerator."),
]
RunName = Annotated[
    str | None, typer.Option(help="Name or folder of the trained run. [default: the latest]")
]
ModelName = Annotated[
    str | None,
    typer.Option(
        "--run",
        help="Name or folder of a trained run, or of a cross-validation, whose models are averaged. "
        "[default: the latest run]",
    ),
]
ModelFile = Annotated[
    Path | None,
    typer.Option(
        help="Model to use instead of --run: a best.safetensors file, or a folder that `lus export` "
        "wrote. Results go to models/ in the cache."
    ),
]


@dataclass(frozen=True, kw_only=True)
class PhantomConfig:
    """Options of `lus phantom`."""

    root: Annotated[
        Path | None,
        typer.Argument(help="Folder to write the study to. [default: exams/ in the cache]"),
    ] = None
    patients: Annotated[int, typer.Option(help="Number of patients.", min=4, max=1000)] = 11
    videos: Annotated[int, typer.Option(help="Number of videos.", min=4, max=100_000)] = 246
    seed: Annotated[
        int, typer.Option(help="Random seed of the whole study.", min=0, max=MAX_SEED)
    ] = 0
    size: Annotated[
        int, typer.Option(help="Side length of a frame in pixels.", min=32, max=1024)
    ] = 256
    max_frames: Annotated[
        int, typer.Option(help="Length of the longest video in frames.", min=4, max=1000)
    ] = 252
    workers: Workers = 0
    force: Force = False
    cache: CachePath = DEFAULT_CACHE


@dataclass(frozen=True, kw_only=True)
class ImportConfig:
    """Options of `lus import`."""

    videos: Annotated[
        Path, typer.Argument(help="Folder of video files (mp4, avi, mov, mpeg and similar).")
    ]
    root: Annotated[
        Path | None,
        typer.Argument(help="Folder to write the exam tree to. [default: exams/ in the cache]"),
    ] = None
    labels: Annotated[
        Path | None,
        typer.Option(
            help="CSV file with the columns file,patient,exam,area,score; score may be empty."
        ),
    ] = None
    format: Annotated[
        Literal["table", "covid-blues"],
        typer.Option(
            help="Source of ids and scores: table reads --labels, covid-blues reads the COVID-BLUES "
            "data set as published."
        ),
    ] = "table"
    quality: Annotated[
        int, typer.Option(help="JPEG quality of the written frames.", min=50, max=100)
    ] = 95
    workers: Workers = 0
    force: Force = False
    cache: CachePath = DEFAULT_CACHE


@dataclass(frozen=True, kw_only=True)
class LabelConfig:
    """Options of `lus label`."""

    videos: Annotated[
        tuple[Path, ...],
        typer.Argument(
            help="Exam tree or folder of video files to score, as `lus prepare` reads them; with "
            "--review also crossvals/NAME. [default: exams/ in the cache, else the folder scored "
            "last; for crossvals/NAME the study that was prepared]"
        ),
    ] = ()
    rater: Annotated[
        str | None,
        typer.Option(
            help="Name of the person who scores; each rater has a file. [default: your user name]"
        ),
    ] = None
    labels: Annotated[
        Path | None,
        typer.Option(
            help="CSV file with the columns file,patient,exam,area,score that gives the ids of videos "
            "outside an exam tree; its scores are neither shown nor used."
        ),
    ] = None
    agreement: Annotated[
        bool,
        typer.Option(
            "--agreement",
            help="Print how well the raters agree, and write their common label table and the list "
            "of videos on which they differ.",
        ),
    ] = False
    review: Annotated[
        bool,
        typer.Option(
            "--review",
            help="Show the videos on which raters differ, with their scores, to find a consensus; "
            "with crossvals/NAME, show the videos with doubtful labels instead.",
        ),
    ] = False
    seed: Annotated[
        int, typer.Option(help="Random seed of the order of the videos.", min=0, max=MAX_SEED)
    ] = 0
    mask_text: Annotated[
        bool,
        typer.Option(
            "--mask-text",
            help="Blacken DICOM frames outside their ultrasound regions, where names may be.",
        ),
    ] = False
    port: Annotated[
        int,
        typer.Option(
            help="Port of the page on this machine; 0 selects a free one.", min=0, max=65535
        ),
    ] = 0
    cache: CachePath = DEFAULT_CACHE


@dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """Options of `lus prepare`."""

    exams: Annotated[
        Path | None,
        typer.Argument(
            help="Exam tree or folder of video files to read. [default: exams/ in the cache]"
        ),
    ] = None
    labels: Annotated[
        Path | None,
        typer.Option(
            help="CSV file with the columns file,patient,exam,area,score for videos outside an "
            "exam tree. A column group (hospital, scanner) is optional."
        ),
    ] = None
    annotations: Annotated[
        Path | None,
        typer.Option(
            help="File of scores: id;score lines, or a CSV table, which may have a column group. "
            "[default: Annotations.txt in the exam tree]"
        ),
    ] = None
    mat_scores: Annotated[
        bool,
        typer.Option(
            "--mat-scores",
            help="Take the score of each .mat video from its _score.mat file: the highest of a frame.",
        ),
    ] = False
    mask_text: Annotated[
        bool,
        typer.Option(
            "--mask-text",
            help="Blacken DICOM frames outside their ultrasound regions and leave out DICOM videos "
            "without a region.",
        ),
    ] = False
    size: Annotated[
        int, typer.Option(help="Side length of a stored frame in pixels.", min=16, max=2048)
    ] = 256
    letterbox: Annotated[
        bool,
        typer.Option(help="Keep the aspect ratio and pad with black bars instead of stretching."),
    ] = False
    color: Annotated[bool, typer.Option(help="Store RGB frames instead of grayscale.")] = False
    test_share: Annotated[
        float, typer.Option(help="Fraction of the patients in the test part.", min=0.0, max=0.9)
    ] = 0.2
    test_patients: Annotated[
        tuple[str, ...] | None,
        typer.Option(
            help="Patients to put into the test part, comma-separated. [default: the report's "
            f"{' and '.join(REPORT_TEST_PATIENTS)}, if the study has them]"
        ),
    ] = None
    test_groups: Annotated[
        tuple[str, ...],
        typer.Option(
            help="Groups whose patients are all in the test part, comma-separated; with --test-share 0, "
            "the test part has no other patients."
        ),
    ] = ()
    validation_share: Annotated[
        float,
        typer.Option(
            help="Fraction of the other patients in the validation part.", min=0.0, max=0.9
        ),
    ] = 0.2
    stratify: Annotated[
        bool, typer.Option(help="Balance the share of each score between the parts of the split.")
    ] = False
    folds: Annotated[
        int | Literal["patients", "group"],
        typer.Option(
            help="Number of cross-validation folds; 0 draws none, patients draws one per patient "
            "(leave-one-patient-out), group one per value of the column group, such as a hospital "
            "or scanner (leave-one-source-out).",
            min=0,
            max=1000,
            metavar="NUMBER|patients|group",
        ),
    ] = 5
    seed: Annotated[int, typer.Option(help="Random seed of the split.", min=0, max=MAX_SEED)] = 5
    strict: Annotated[
        bool, typer.Option(help="Treat every problem with a file of the study as an error.")
    ] = False
    dry_run: Annotated[
        bool, typer.Option(help="Report what would be done without writing anything.")
    ] = False
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Only verify the checksums of the existing cache."),
    ] = False
    workers: Workers = 0
    force: Annotated[
        bool,
        typer.Option("--force", help="Draw a new split, even if split.json was edited by hand."),
    ] = False
    cache: CachePath = DEFAULT_CACHE


@dataclass(frozen=True, kw_only=True)
class RecipesConfig:
    """Options of `lus recipes`."""

    name: Annotated[
        str | None,
        typer.Argument(
            help="Recipe to print with all fields, as a TOML file for --config; without it, all "
            "recipes are listed."
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class RunsConfig:
    """Options of `lus runs`."""

    runs: Annotated[
        tuple[str, ...],
        typer.Argument(
            help="Names of runs and cross-validations, or patterns such as 'paper-*'. [default: all]"
        ),
    ] = ()
    sort: Annotated[
        str,
        typer.Option(
            help="Column to sort by: numbers and dates from high to low, texts from A to Z; a minus "
            "before it reverses the order. Columns are the keys of --json, such as test_kappa."
        ),
    ] = "started"
    filter: Annotated[
        tuple[str, ...],
        typer.Option(
            help="List only runs that meet all of these conditions, comma-separated: recipe=paper, "
            "'test_kappa>0.5', 'started>2026-11-01', or a word that any column contains."
        ),
    ] = ()
    folds: Annotated[
        bool, typer.Option("--folds", help="Also list the runs of the folds of cross-validations.")
    ] = False
    remove: Annotated[
        bool,
        typer.Option(
            "--remove",
            help="Delete the named runs and cross-validations, including the runs of their folds. You "
            "are asked first.",
        ),
    ] = False
    yes: Annotated[bool, typer.Option("--yes", help="Delete without asking.")] = False
    cache: CachePath = DEFAULT_CACHE


EXTENDABLE = ("epochs", "patience")  # fields of a recipe that --resume may change


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Recipe):
    """Options of `lus train`."""

    device: Device = "auto"
    threads: Threads = 0
    run: Annotated[
        str | None,
        typer.Option(help="Name of the new run. [default: the recipe's name and a number]"),
    ] = None
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Resume an interrupted run (--run or the latest), or extend a finished one with "
            "--epochs or --patience.",
        ),
    ] = False
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Train on one batch to estimate time and memory; nothing is written.",
        ),
    ] = False
    cache: CachePath = DEFAULT_CACHE
    # The fields of EXTENDABLE given together with --resume; set by the command line, not an option.
    given: tuple[str, ...] = field(default=(), metadata={"option": False})


@dataclass(frozen=True, kw_only=True)
class CrossvalConfig(Recipe):
    """Options of `lus crossval`."""

    repeats: Annotated[
        int,
        typer.Option(
            help="Number of repetitions; the first uses the folds of split.json, the others draw "
            "their own.",
            min=1,
        ),
    ] = 1
    baselines: Annotated[
        bool, typer.Option(help="Evaluate simple baseline methods on the same folds.")
    ] = True
    fold: Annotated[
        int | None,
        typer.Option(
            help="Train only this fold, counted from 1 over all repetitions. This is for job arrays: give "
            "all jobs the same --run, then pool the folds with --resume. [default: all]",
            min=1,
            max=100_000,
        ),
    ] = None
    permutations: Annotated[
        int,
        typer.Option(
            help="Random permutations for each p-value; 0 computes none.", min=0, max=100_000
        ),
    ] = 1000
    device: Device = "auto"
    threads: Threads = 0
    run: Annotated[
        str | None,
        typer.Option(
            help="Name of the cross-validation, which prefixes the names of its runs. [default: the "
            "recipe's name, -cv and a number]"
        ),
    ] = None
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Resume the interrupted cross-validation named by --run."),
    ] = False
    cache: CachePath = DEFAULT_CACHE


Part = Literal["train", "validation", "test", "all"]


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Options of `lus evaluate`."""

    runs: Annotated[
        tuple[str, ...],
        typer.Argument(
            help="Names of the runs to evaluate; several are compared, also several "
            "cross-validations. [default: the latest]"
        ),
    ] = ()
    split: Annotated[
        Part,
        typer.Option(help="Part of the study to evaluate on; all includes the training patients."),
    ] = "test"
    run: ModelName = None
    model: ModelFile = None
    videos: Annotated[
        Path | None,
        typer.Option(help="videos.h5 of another study whose labelled videos are scored instead."),
    ] = None
    trained_patients: Annotated[
        Literal["refuse", "skip", "keep"],
        typer.Option(
            help="How to treat patients in --videos that the run was trained on: stop with an "
            "error, skip their videos, or keep them."
        ),
    ] = "refuse"
    permutations: Annotated[
        int,
        typer.Option(
            help="Random permutations for each p-value; 0 computes none.", min=0, max=100_000
        ),
    ] = 1000
    bootstrap: Annotated[  # the former name of --permutations, which scripts still use
        int | None, typer.Option(help="Same as --permutations.", min=0, max=100_000, hidden=True)
    ] = None
    seed: Annotated[int, typer.Option(help="Seed of the permutations.", min=0, max=MAX_SEED)] = 0
    temperature: Annotated[
        bool,
        typer.Option(help="Score the validation videos and fit a temperature on them."),
    ] = True
    device: Device = "auto"
    threads: Threads = 0
    cache: CachePath = DEFAULT_CACHE


@dataclass(frozen=True, kw_only=True)
class AttentionConfig:
    """Options of `lus attention`."""

    paths: Annotated[
        tuple[Path, ...],
        typer.Argument(
            help="New videos to explain: folders of frames, video files, DICOM files or .mat files, "
            "or folders that contain them. [default: those of the run's study]"
        ),
    ] = ()
    frame: Annotated[
        tuple[str, ...],
        typer.Option(help="Frames to explain, as patient/exam/area/frame, comma-separated."),
    ] = ()
    video: Annotated[
        tuple[str, ...],
        typer.Option(help="Videos to explain, as patient/exam/area, comma-separated."),
    ] = ()
    split: Annotated[
        Part | None,
        typer.Option(help="Part of the study: explain and measure all of its videos."),
    ] = None
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Test on videos of --split whether the maps change when weights are randomised.",
        ),
    ] = False
    format: Annotated[
        Literal["mp4", "gif"] | None,
        typer.Option(
            help="File format of explained videos; with --split, also draw every video. [default: "
            "mp4]"
        ),
    ] = None
    exams: Annotated[
        Path | None,
        typer.Option(
            help="Exam tree with the original frames. [default: the one that was prepared]"
        ),
    ] = None
    run: RunName = None
    model: ModelFile = None
    device: Device = "auto"
    threads: Threads = 0
    cache: CachePath = DEFAULT_CACHE


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """Options of `lus predict`."""

    paths: Annotated[
        tuple[Path, ...],
        typer.Argument(
            help="Folders of frames, video files, DICOM files or .mat files, or folders that "
            "contain them."
        ),
    ] = ()
    check: Annotated[
        Path | None,
        typer.Option(
            help="Folder that `lus export` wrote: check this installation by scoring its test video "
            "and comparing with the expected probabilities."
        ),
    ] = None
    run: ModelName = None
    model: ModelFile = None
    output: Annotated[
        Path | None,
        typer.Option(help="Folder for the output. [default: predictions/<number> in the run]"),
    ] = None
    page: Annotated[
        bool,
        typer.Option(help="Write an HTML page that plays the videos with their attention masks."),
    ] = True
    temperature: Annotated[
        bool,
        typer.Option(
            "--temperature",
            help="Calibrate the probabilities with the temperature fitted by `lus evaluate`.",
        ),
    ] = False
    mask_text: Annotated[
        bool | None,
        typer.Option(
            "--mask-text/--no-mask-text",
            help="Blacken DICOM frames outside their ultrasound regions, as `lus prepare` does. "
            "[default: as in the study that the run was trained on]",
        ),
    ] = None
    trained_patients: Annotated[
        Literal["refuse", "keep"] | None,
        typer.Option(
            help="How to treat videos of patients that the model was trained on, recognised by equal "
            "ids or frames: refuse to score them, or keep them with a note. "
            "[default: refuse for a cross-validation, keep for a run]"
        ),
    ] = None
    device: Device = "auto"
    threads: Threads = 0
    force: Force = False
    cache: CachePath = DEFAULT_CACHE


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Options of `lus export`."""

    run: RunName = None
    model: ModelFile = None
    output: Annotated[
        Path | None,
        typer.Option(help="Folder for the output. [default: export/ in the run]"),
    ] = None
    frames: Annotated[
        int | None,
        typer.Option(
            help="Number of frames per video that model.onnx takes. [default: the recipe's number, "
            "or the length of the longest video]",
            min=1,
        ),
    ] = None
    patients: Annotated[
        bool,
        typer.Option(
            "--patients",
            help="List the patients of each part in the model card and in split.json, so that "
            "`lus evaluate --videos` can recognise them.",
        ),
    ] = False
    threads: Threads = 0
    force: Force = False
    cache: CachePath = DEFAULT_CACHE


@dataclass(frozen=True, kw_only=True)
class DevicesConfig:
    """Options of `lus devices`."""

    backbone: Annotated[
        str | None,
        typer.Option(
            help="Backbone of the model to compare, as for `lus train`. [default: that of recipe "
            f"{DEFAULT_RECIPE}]"
        ),
    ] = None
    threads: Threads = 0


@dataclass(frozen=True, kw_only=True)
class FigureLook:
    """The table [figures] of a file given by --config: how all figures and overlays look."""

    colour_map: Annotated[
        Literal["inferno", "viridis", "magma", "plasma", "cividis", "hot", "gray"],
        typer.Option(help="Colours of attention and Grad-CAM over a frame."),
    ] = "inferno"
    font: Annotated[str, typer.Option(help="Font family of the figures.")] = "DejaVu Sans"
    text_size: Annotated[
        float,
        typer.Option(
            help="Text size of page-wide figures in points; others scale with it.", min=4, max=30
        ),
    ] = 9.0
    dpi: Annotated[
        int,
        typer.Option(
            help="Dots per inch of PNG figures; 0: 200, or 400 if one column wide.", max=2400
        ),
    ] = 0
    titles: Annotated[
        bool, typer.Option(help="Draw titles on figures, and captions around overlays.")
    ] = True
    formats: Annotated[
        tuple[str, ...],
        typer.Option(help="Formats to write in addition to SVG and PNG; only pdf is available."),
    ] = ()


CURRENT = [FigureLook()]  # one entry: the look of this process


def figure_look() -> FigureLook:
    """How this process draws figures and overlays."""
    return CURRENT[0]


def use_figure_look(look: FigureLook) -> None:
    """Sets how this process draws from now on."""
    CURRENT[0] = look
