"""A recipe: every number that decides what is trained, and how."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from lus_cli.errors import UsageError

# Its file holds a value for every field of Recipe; the other recipes list what differs from it.
DEFAULT_RECIPE = "paper"
# What NumPy, scikit-learn and torch all take.
MAX_SEED = 2**32 - 1


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


def recipe_path(name: str) -> Path:
    """The file of a recipe that ships with lus. Raises UsageError naming those there are."""
    folder = Path(__file__).parent
    path = folder / f"{name}.toml"
    names = sorted(p.stem for p in folder.glob("*.toml"))
    if name not in names:
        raise UsageError(f"there is no recipe {name!r}", f"recipes are {', '.join(names)}")
    return path
