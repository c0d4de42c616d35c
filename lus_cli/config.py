"""What every step can be told: one frozen dataclass a step, each option written once.

A field's annotation carries its help, unit and range as Typer metadata. The command line makes its
options from these fields (cli.py), and a TOML file sets the same fields by the same names, checked
against the same ranges. Precedence: flags over the file, the file over the defaults written here.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import typer
from typer.models import ParameterInfo

from lus_cli.errors import UsageError

DEFAULT_CACHE = Path("cache")
# Its file holds a value for every field of Recipe; the other recipes list what differs from it.
DEFAULT_RECIPE = "paper"
# Where the report's two patients with the shortest videos go, where the study has them.
REPORT_TEST_PATIENTS = ("1047", "1051")

# What NumPy, scikit-learn and torch all take.
MAX_SEED = 2**32 - 1
MAX_TOML = 1 << 20  # bytes

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


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides what a training run learns.

    There are no defaults here: they are the numbers of the recipe DEFAULT_RECIPE, over which any
    other recipe, file or flag is laid.
    """

    name: Annotated[str, typer.Option(help="Name of the recipe; runs are called after it.")]

    backbone: Annotated[
        str, typer.Option(help="CNN, by its name in torchvision, or efficientnet_lite0.")
    ]
    weights: Annotated[
        str, typer.Option(help="Backbone weights: imagenet, none, or a file (.pth, .safetensors).")
    ]
    head: Annotated[
        Literal["lstm", "kernel"],
        typer.Option(
            help="lstm: the network of the report. kernel: one picture of the whole video, the CNN "
            "as its weights are, and likeness to the training videos; for few videos."
        ),
    ]
    freeze: Annotated[
        bool,
        typer.Option(
            help="Leave the CNN as its weights are: its feature maps are computed once and kept in "
            "the cache."
        ),
    ]
    feature_cache: Annotated[
        Literal["float16", "float32", "none"],
        typer.Option(
            help="How a frozen CNN's feature maps are kept; none: computed anew every epoch."
        ),
    ]
    feature_stride: Annotated[
        int,
        typer.Option(
            help="Cut the CNN where a cell of its map spans more pixels; 0: whole.", min=0
        ),
    ]
    attention: Annotated[bool, typer.Option(help="Mask each feature map by learned attention.")]
    attention_channels: Annotated[
        tuple[int, ...],
        typer.Option(help="Channels of the attention's inner convolutions.", min=1, max=4096),
    ]
    attention_mask: Annotated[
        Literal["sigmoid", "softmax"],
        typer.Option(
            help="sigmoid: every cell of a map has a mask of its own; softmax: the cells of a frame "
            "share what attention there is."
        ),
    ]
    hidden: Annotated[int, typer.Option(help="LSTM units per direction.", min=1, max=4096)]
    pool: Annotated[
        Literal["mean", "max", "last", "attention"],
        typer.Option(help="How LSTM outputs over the real frames become one vector."),
    ]
    dropout: Annotated[
        float, typer.Option(help="Dropout before the last layer.", min=0.0, max=0.95)
    ]
    padding: Annotated[
        Literal["packed", "zeros", "last"],
        typer.Option(help="packed: real frames only; zeros, last: pad as the report did."),
    ]

    loss: Annotated[
        Literal["sord", "sord-wide", "cross-entropy"],
        typer.Option(help="Loss; sord-wide moves score 0 to -0.5 (Roy et al. 2020)."),
    ]
    class_weights: Annotated[
        bool, typer.Option(help="Weight each video by the inverse frequency of its score.")
    ]
    balanced_sampling: Annotated[
        bool, typer.Option(help="Draw training videos so that every score comes up equally often.")
    ]

    optimizer: Annotated[Literal["sgd", "adamw"], typer.Option(help="Optimizer.")]
    learning_rate_cnn: Annotated[
        float, typer.Option(help="Learning rate of the CNN.", min=0.0, max=10.0)
    ]
    learning_rate: Annotated[
        float, typer.Option(help="Learning rate of everything else.", min=0.0, max=10.0)
    ]
    momentum: Annotated[float, typer.Option(help="Momentum of sgd.", min=0.0, max=0.999)]
    weight_decay: Annotated[float, typer.Option(help="Weight decay.", min=0.0, max=1.0)]
    clip_norm: Annotated[
        float, typer.Option(help="Largest norm of the gradient; 0: not clipped.", min=0.0)
    ]
    schedule: Annotated[
        Literal["constant", "cosine"], typer.Option(help="Learning rate over the epochs.")
    ]
    warmup_epochs: Annotated[
        int, typer.Option(help="Epochs over which the learning rate rises to its value.", min=0)
    ]
    average: Annotated[
        float,
        typer.Option(
            help="Validate and keep a moving average of the weights, with this decay a step; 0: none.",
            min=0.0,
            max=0.9999,
        ),
    ]
    batch_size: Annotated[
        int, typer.Option(help="Videos a batch, over all processes together.", min=1)
    ]
    accumulate: Annotated[
        int,
        typer.Option(
            help="Batches a step: the step of one large batch in the memory of a small one.",
            min=1,
            max=1000,
        ),
    ]
    checkpointing: Annotated[
        bool,
        typer.Option(
            help="Compute the CNN's activations again for the gradient instead of keeping them: "
            "far less memory, about a third more time."
        ),
    ]
    precision: Annotated[
        Literal["float32", "bf16", "fp16"],
        typer.Option(help="Precision of the CNN; what follows it stays in float32."),
    ]
    epochs: Annotated[int, typer.Option(help="Passes over the training videos.", min=1)]
    patience: Annotated[
        int,
        typer.Option(
            help="Epochs without a better validation loss before stopping; 0: all.", min=0
        ),
    ]

    stride: Annotated[int, typer.Option(help="Take every n-th frame of a video.", min=1)]
    frames_per_video: Annotated[
        int, typer.Option(help="At most so many frames a video, evenly spread; 0: all.", min=0)
    ]
    standardize: Annotated[
        bool,
        typer.Option(help="Bring every frame to the same mean and contrast instead of ImageNet's."),
    ]
    jitter: Annotated[
        bool,
        typer.Option(
            help="Train on other frames every epoch: one at random from each even stretch."
        ),
    ]
    flip: Annotated[bool, typer.Option(help="Mirror half of the training videos left to right.")]
    gain: Annotated[
        float,
        typer.Option(help="Vary brightness and contrast by up to this factor.", min=0.0, max=0.9),
    ]
    shift: Annotated[
        float, typer.Option(help="Move frames by up to this share of their side.", min=0.0, max=0.5)
    ]
    seed: Annotated[
        int, typer.Option(help="Seed of weights, order and augmentation.", min=0, max=MAX_SEED)
    ]


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
    bootstrap: Annotated[
        int, typer.Option(help="Patient resamples behind each interval.", min=0, max=100_000)
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
    bootstrap: Annotated[
        int, typer.Option(help="Patient resamples behind each interval.", min=0, max=100_000)
    ] = 1000
    seed: Annotated[int, typer.Option(help="Seed of the bootstrap.", min=0, max=MAX_SEED)] = 0
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
    bootstrap: Annotated[
        int, typer.Option(help="Patient resamples behind each interval.", min=0, max=100_000)
    ] = 1000
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


# ------------------------------------------------------------------------- fields, TOML in and out

Config = TypeVar("Config")


def flag_of(name: str) -> str:
    """The option that sets a field."""
    return "--" + name.replace("_", "-")


@dataclass(frozen=True)
class OptionField:
    """One field of a config: its bare type and its Typer metadata."""

    name: str
    type: Any
    info: ParameterInfo

    @property
    def flag(self) -> str:
        return flag_of(self.name)

    @property
    def optional(self) -> bool:
        return get_origin(self.type) in (Union, UnionType) and NoneType in get_args(self.type)

    @property
    def bare(self) -> Any:
        """The type without `| None`."""
        return (
            next(a for a in get_args(self.type) if a is not NoneType)
            if self.optional
            else self.type
        )

    def read(self, value: Any, where: str) -> Any:
        """`value`, as TOML or the command line gives it, as this field's type and in its range.

        Raises UsageError naming `where`.
        """
        kind, origin = self.bare, get_origin(self.bare)
        if value is None and self.optional:
            return None
        if origin is tuple:
            return self.read_list(value, where)
        if origin in (Union, UnionType):  # a number, or a word that stands for one
            kind, words = get_args(kind)
            if value in get_args(words):
                return value
            value = whole_number(value, where, get_args(words))
        if origin is Literal:
            if value not in get_args(kind):
                raise UsageError(f"{where} is {value!r}", f"one of {', '.join(get_args(kind))}")
            return value
        if kind is Path and isinstance(value, (str, Path)):
            return as_path(value, where)
        if type(value) is int:
            self.check_range(value, where)  # before it is a float: it may be too large for one
            value = kind(value) if kind is float else value
        if type(value) is not kind:
            raise UsageError(f"{where} must be {kind.__name__}, not {value!r}")
        self.check_range(value, where)
        return value

    def read_list(self, value: Any, where: str) -> tuple[Any, ...]:
        """Like `read`, for a list, whose items may also be given with commas between them."""
        if not isinstance(value, (list, tuple)):
            raise UsageError(f"{where} must be a list, not {value!r}")
        kind = get_args(self.bare)[0]
        if kind is Path:  # its name may hold commas and spaces
            return tuple(as_path(item, where) for item in value)
        items = [item.strip() for entry in value for item in str(entry).split(",")]
        try:
            read = tuple(kind(item) for item in items if item)
        except ValueError:
            raise UsageError(f"{where} cannot be read: {','.join(items)}") from None
        for item in read:
            self.check_range(item, where)
        return read

    def check_range(self, value: Any, where: str) -> None:
        """Raises UsageError, naming `where`, for a number out of this field's range."""
        if not isinstance(value, (int, float)):
            return
        if isinstance(value, float) and not math.isfinite(value):
            raise UsageError(f"{where} is {value}", "write a number")
        low, high = getattr(self.info, "min", None), getattr(self.info, "max", None)
        low, high = 0 if low is None else low, MAX_SEED if high is None else high
        if not low <= value <= high:
            raise UsageError(f"{where} is {value}", f"from {low} to {high}")


def as_path(value: str | Path, where: str) -> Path:
    """A path that the system can look up. Raises UsageError, naming `where`, for any other."""
    try:
        Path(value).exists()  # a name that is too long, or holds a NUL, is an error everywhere
    except (OSError, ValueError, TypeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"{where} is no path that can be used", reason) from None
    return Path(value)


def whole_number(value: Any, where: str, words: tuple[str, ...]) -> Any:
    """The number in a text, anything else as it is; UsageError names the words it could have been."""
    try:
        return int(value) if isinstance(value, str) else value
    except ValueError:
        raise UsageError(f"{where} is {value!r}", f"a number, or {', '.join(words)}") from None


def fields_of(config: type) -> dict[str, OptionField]:
    """The fields of a config class, by name, in the order in which they are written."""
    hints = get_type_hints(config, include_extras=True)
    fields = {}
    for entry in dataclasses.fields(config):
        if not entry.metadata.get("option", True):
            continue
        kind, *metadata = get_args(hints[entry.name])
        info = next(m for m in metadata if isinstance(m, ParameterInfo))
        fields[entry.name] = OptionField(entry.name, kind, info)
    return fields


def defaults_of(config: type) -> dict[str, Any]:
    """The values that the fields of a config class take when nobody sets them."""
    own = {f.name: f.default for f in dataclasses.fields(config)}
    options = fields_of(config)
    known = {n: v for n, v in own.items() if n in options and v is not dataclasses.MISSING}
    return known | (read_toml(recipe_path(DEFAULT_RECIPE)) if issubclass(config, Recipe) else {})


def build(config: type[Config], values: dict[str, Any], where: str = "") -> Config:
    """A config from field values; `where` (a file's name) goes before the field in an error."""
    fields = fields_of(config)
    checked = {}
    for name, value in (defaults_of(config) | values).items():
        if name not in fields:
            near = difflib.get_close_matches(name, fields, n=1)
            raise UsageError(
                f"{where or config.__name__}: there is no field {name!r}",
                f"did you mean {near[0]!r}?" if near else f"fields are {', '.join(fields)}",
            )
        checked[name] = fields[name].read(value, f"{where}: {name}" if where else fields[name].flag)
    return config(**checked)


def read_toml(path: Path) -> dict[str, Any]:
    """The fields set in a TOML file. Raises UsageError if it cannot be read."""
    try:
        if path.stat().st_size > MAX_TOML:
            raise UsageError(f"{path} is larger than {MAX_TOML >> 20} MB", "that is no recipe")
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UsageError(f"{path} cannot be read", error.strerror or str(error)) from error
    except (ValueError, RecursionError) as error:  # a number of 5000 digits is a plain ValueError
        raise UsageError(f"{path} is not TOML", str(error)) from error


def recipe_path(name: str) -> Path:
    """The file of a recipe that ships with lus. Raises UsageError naming those there are."""
    folder = Path(__file__).parent / "recipes"
    path = folder / f"{name}.toml"
    names = sorted(p.stem for p in folder.glob("*.toml"))
    if name not in names:
        raise UsageError(f"there is no recipe {name!r}", f"recipes are {', '.join(names)}")
    return path


def to_toml(config: Any, only: type | None = None) -> str:
    """Every field of `config` (of the class `only`, if given) as TOML, its help as a comment above.

    Reading it back with `build` gives the same values. Fields that are None are left out: None is
    what they are when absent.
    """
    import tomlkit  # tens of milliseconds, and only run folders need it

    document = tomlkit.document()
    for name, entry in fields_of(only or type(config)).items():
        value = getattr(config, name)
        if value is None:
            continue
        document.add(tomlkit.comment(str(entry.info.help)))
        plain = list(value) if isinstance(value, tuple) else value
        document.add(name, tomlkit.item(str(plain) if isinstance(plain, Path) else plain))
    return tomlkit.dumps(document)
