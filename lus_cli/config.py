"""What every step can be told: one frozen dataclass a step, each option written once.

A field's annotation carries its help, unit and range as Typer metadata. The command line makes its
options from these fields (cli.py), and a TOML file sets the same fields by the same names, checked
against the same ranges. Precedence: flags over the file, the file over the defaults written here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import typer

from lus_cli.recipes.recipe import DEFAULT_RECIPE, MAX_SEED, Recipe

DEFAULT_CACHE = Path("cache")
# Where the report's two patients with the shortest videos go, where the study has them.
REPORT_TEST_PATIENTS = ("1047", "1051")
CachePath = Annotated[
    Path, typer.Option(help="Folder that holds everything lus makes.", envvar="LUS_CACHE")
]
Force = Annotated[bool, typer.Option("--force", help="Replace what is already there.")]
Workers = Annotated[
    int, typer.Option(help="Processes that work side by side; 0: one a core.", min=0)
]
Device = Annotated[
    Literal["auto", "cuda", "mps", "cpu"],
    typer.Option(help="Where the model runs; auto takes the best accelerator there is."),
]
RunName = Annotated[str | None, typer.Option(help="Run to use. [default: the latest]")]


@dataclass(frozen=True, kw_only=True)
class PhantomConfig:
    """lus phantom."""

    root: Annotated[
        Path | None, typer.Argument(help="Folder to make. [default: exams/ in the cache]")
    ] = None
    patients: Annotated[int, typer.Option(help="Number of patients.", min=4, max=1000)] = 11
    videos: Annotated[int, typer.Option(help="Number of videos.", min=4, max=100_000)] = 246
    seed: Annotated[
        int, typer.Option(help="Seed of everything that is drawn.", min=0, max=MAX_SEED)
    ] = 0
    size: Annotated[int, typer.Option(help="Side of a frame, pixels.", min=32, max=1024)] = 256
    max_frames: Annotated[
        int, typer.Option(help="Length of the longest video, frames.", min=4, max=1000)
    ] = 252
    workers: Workers = 0
    force: Force = False
    cache: CachePath = DEFAULT_CACHE


@dataclass(frozen=True, kw_only=True)
class ImportConfig:
    """lus import."""

    videos: Annotated[
        Path, typer.Argument(help="Folder of video files: mp4, avi, mov, mpeg and the like.")
    ]
    root: Annotated[
        Path | None, typer.Argument(help="Exam tree to make. [default: exams/ in the cache]")
    ] = None
    labels: Annotated[
        Path | None,
        typer.Option(
            help="CSV with the columns file,patient,exam,area,score (score may be empty)."
        ),
    ] = None
    format: Annotated[
        Literal["table", "covid-blues"],
        typer.Option(
            help="How ids and scores are found: a label table, or COVID-BLUES as published."
        ),
    ] = "table"
    quality: Annotated[int, typer.Option(help="JPEG quality of the frames.", min=50, max=100)] = 95
    workers: Workers = 0
    force: Force = False
    cache: CachePath = DEFAULT_CACHE


@dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """lus prepare."""

    exams: Annotated[
        Path | None,
        typer.Argument(
            help="Exam tree, or folder of video files, to read. [default: exams/ in the cache]"
        ),
    ] = None
    labels: Annotated[
        Path | None,
        typer.Option(
            help="CSV with the columns file,patient,exam,area,score, for videos that do not lie in "
            "an exam tree."
        ),
    ] = None
    annotations: Annotated[
        Path | None,
        typer.Option(
            help="Scores: id;score lines or a CSV. [default: Annotations.txt in the tree]"
        ),
    ] = None
    mat_scores: Annotated[
        bool,
        typer.Option(
            "--mat-scores",
            help="Score .mat videos by the highest score in their ..._score.mat.",
        ),
    ] = False
    mask_text: Annotated[
        bool,
        typer.Option(
            "--mask-text",
            help="Blacken DICOM frames outside their ultrasound regions; without a region, a "
            "video is left out.",
        ),
    ] = False
    size: Annotated[int, typer.Option(help="Side of a stored frame, pixels.", min=16, max=2048)] = (
        256
    )
    letterbox: Annotated[
        bool, typer.Option(help="Keep the aspect ratio, with black bars, instead of stretching.")
    ] = False
    color: Annotated[bool, typer.Option(help="Keep RGB instead of grayscale.")] = False
    test_share: Annotated[
        float, typer.Option(help="Share of the patients in the test part.", min=0.0, max=0.9)
    ] = 0.2
    test_patients: Annotated[
        tuple[str, ...] | None,
        typer.Option(
            help="Patients that must be in the test part, comma-separated. [default: the report's "
            f"{' and '.join(REPORT_TEST_PATIENTS)}, where the study has them]"
        ),
    ] = None
    validation_share: Annotated[
        float, typer.Option(help="Share of the other patients in validation.", min=0.0, max=0.9)
    ] = 0.2
    stratify: Annotated[
        bool, typer.Option(help="Draw the parts so that their shares of each score are alike.")
    ] = False
    folds: Annotated[
        int | Literal["patients"],
        typer.Option(
            help="Folds for cross-validation; 0: none; patients: one a patient, to leave one out.",
            min=0,
            max=1000,
            metavar="NUMBER|patients",
        ),
    ] = 5
    seed: Annotated[int, typer.Option(help="Seed of the split.", min=0, max=MAX_SEED)] = 5
    strict: Annotated[bool, typer.Option(help="Any problem in the tree is an error.")] = False
    dry_run: Annotated[bool, typer.Option(help="Only say what would be done.")] = False
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Only check the cache there is, by its checksums."),
    ] = False
    workers: Workers = 0
    force: Annotated[
        bool, typer.Option("--force", help="Draw the split anew, even over one edited by hand.")
    ] = False
    cache: CachePath = DEFAULT_CACHE


EXTENDABLE = ("epochs", "patience")  # of a recipe, what a run may go on with changed


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Recipe):
    """lus train."""

    device: Device = "auto"
    threads: Annotated[int, typer.Option(help="CPU threads; 0: one a core.", min=0, max=1024)] = 0
    run: Annotated[
        str | None, typer.Option(help="Name of the run folder. [default: recipe and a number]")
    ] = None
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with an interrupted run (--run, or the latest); with --epochs or --patience "
            "also with a finished one.",
        ),
    ] = False
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="One real batch: shapes, time, memory; nothing is kept."),
    ] = False
    cache: CachePath = DEFAULT_CACHE
    # Of EXTENDABLE, those that stand next to --resume: what the command line notes, not an option.
    given: tuple[str, ...] = field(default=(), metadata={"option": False})


@dataclass(frozen=True, kw_only=True)
class CrossvalConfig(Recipe):
    """lus crossval."""

    repeats: Annotated[
        int,
        typer.Option(
            help="Times over: the first with the folds of split.json, then others.", min=1
        ),
    ] = 1
    baselines: Annotated[
        bool, typer.Option(help="Measure what simple methods reach on the same folds.")
    ] = True
    permutations: Annotated[
        int,
        typer.Option(help="Random permutations for each p-value; 0: none.", min=0, max=100_000),
    ] = 1000
    device: Device = "auto"
    threads: Annotated[int, typer.Option(help="CPU threads; 0: one a core.", min=0, max=1024)] = 0
    run: Annotated[
        str | None,
        typer.Option(
            help="Name; its runs add repeat and fold to it. [default: recipe, -cv and a number]"
        ),
    ] = None
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the interrupted one that --run names.")
    ] = False
    cache: CachePath = DEFAULT_CACHE


Part = Literal["train", "validation", "test", "all"]


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """lus evaluate."""

    runs: Annotated[
        tuple[str, ...],
        typer.Argument(help="Runs to evaluate; several are compared. [default: the latest]"),
    ] = ()
    split: Annotated[Part, typer.Option(help="Which videos; all includes training patients.")] = (
        "test"
    )
    run: RunName = None
    videos: Annotated[
        Path | None,
        typer.Option(help="videos.h5 of another study: score its labelled videos instead."),
    ] = None
    trained_patients: Annotated[
        Literal["refuse", "skip", "keep"],
        typer.Option(help="What becomes of videos in --videos of patients the run was trained on."),
    ] = "refuse"
    permutations: Annotated[
        int,
        typer.Option(help="Random permutations for each p-value; 0: none.", min=0, max=100_000),
    ] = 1000
    bootstrap: Annotated[  # the former name of --permutations, which scripts still use
        int | None, typer.Option(help="Same as --permutations.", min=0, max=100_000, hidden=True)
    ] = None
    seed: Annotated[int, typer.Option(help="Seed of the permutations.", min=0, max=MAX_SEED)] = 0
    temperature: Annotated[
        bool,
        typer.Option(help="Fit a temperature on the validation videos, which are scored for it."),
    ] = True
    device: Device = "auto"
    threads: Annotated[int, typer.Option(help="CPU threads; 0: one a core.", min=0, max=1024)] = 0
    cache: CachePath = DEFAULT_CACHE


@dataclass(frozen=True, kw_only=True)
class AttentionConfig:
    """lus attention."""

    frame: Annotated[
        tuple[str, ...],
        typer.Option(
            help="Frame to explain, patient/exam/area/frame; comma-separated for several."
        ),
    ] = ()
    video: Annotated[
        tuple[str, ...],
        typer.Option(help="Video to explain, patient/exam/area; comma-separated for several."),
    ] = ()
    split: Annotated[
        Part | None,
        typer.Option(
            help="Explain every video of a part of the study, and measure what the attention finds."
        ),
    ] = None
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Say whether the maps change when weights are drawn anew, on videos of the split.",
        ),
    ] = False
    format: Annotated[
        Literal["mp4", "gif"] | None,
        typer.Option(
            help="File format of a video; with --split also draws every video. [default: mp4]"
        ),
    ] = None
    exams: Annotated[
        Path | None, typer.Option(help="Exam tree with the original frames. [default: as prepared]")
    ] = None
    run: RunName = None
    device: Device = "auto"
    threads: Annotated[int, typer.Option(help="CPU threads; 0: one a core.", min=0, max=1024)] = 0
    cache: CachePath = DEFAULT_CACHE


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """lus predict."""

    paths: Annotated[
        tuple[Path, ...],
        typer.Argument(
            help="Folders of frames, video files, DICOM or .mat files, or folders that hold some."
        ),
    ]
    run: RunName = None
    output: Annotated[
        Path | None,
        typer.Option(help="Folder to write to. [default: predictions/<number> in the run]"),
    ] = None
    page: Annotated[
        bool, typer.Option(help="Write a page with the videos playing under their masks.")
    ] = True
    temperature: Annotated[
        bool,
        typer.Option(
            "--temperature",
            help="Scale the probabilities by the temperature that `lus evaluate` fitted.",
        ),
    ] = False
    mask_text: Annotated[
        bool | None,
        typer.Option(
            "--mask-text/--no-mask-text",
            help="Blacken DICOM frames outside their ultrasound regions, as `lus prepare` does. "
            "[default: as the run's own study]",
        ),
    ] = None
    device: Device = "auto"
    threads: Annotated[int, typer.Option(help="CPU threads; 0: one a core.", min=0, max=1024)] = 0
    force: Force = False
    cache: CachePath = DEFAULT_CACHE


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """lus export."""

    run: RunName = None
    frames: Annotated[
        int | None,
        typer.Option(
            help="Frames of a video that the whole model takes. [default: the recipe's, or those of "
            "the longest video]",
            min=1,
        ),
    ] = None
    patients: Annotated[
        bool, typer.Option("--patients", help="Name the patients of each part in the card.")
    ] = False
    threads: Annotated[int, typer.Option(help="CPU threads; 0: one a core.", min=0, max=1024)] = 0
    force: Force = False
    cache: CachePath = DEFAULT_CACHE


@dataclass(frozen=True, kw_only=True)
class DevicesConfig:
    """lus devices."""

    backbone: Annotated[
        str | None,
        typer.Option(
            help=f"torchvision CNN of the model compared. [default: that of recipe {DEFAULT_RECIPE}]"
        ),
    ] = None
    threads: Annotated[int, typer.Option(help="CPU threads; 0: one a core.", min=0, max=1024)] = 0
