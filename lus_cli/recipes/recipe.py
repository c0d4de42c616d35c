"""The recipe: all options that determine what a training run learns."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from lus_cli.errors import UsageError

# Its file sets every field of Recipe. The other recipes list only what differs from it.
DEFAULT_RECIPE = "paper"
# The largest seed that NumPy, scikit-learn and torch all accept.
MAX_SEED = 2**32 - 1


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All options that determine what a training run learns.

    The fields have no defaults: the file of DEFAULT_RECIPE provides them. Another recipe, a TOML
    file or flags override these values.
    """

    name: Annotated[str, typer.Option(help="Name of the recipe, used to name its runs.")]

    backbone: Annotated[
        str,
        typer.Option(help="CNN backbone: the name of a torchvision model or efficientnet_lite0."),
    ]
    weights: Annotated[
        str,
        typer.Option(
            help="Initial weights of the backbone: imagenet, none, or a .pth or .safetensors file."
        ),
    ]
    head: Annotated[
        Literal["lstm", "kernel"],
        typer.Option(
            help="Model on top of the CNN: lstm trains attention and a BiLSTM, kernel compares one "
            "image per video with the training videos and suits small studies."
        ),
    ]
    freeze: Annotated[
        bool,
        typer.Option(
            help="Do not train the CNN; its feature maps are computed once and stored in the cache."
        ),
    ]
    feature_cache: Annotated[
        Literal["float16", "float32", "none"],
        typer.Option(
            help="Data type of the stored feature maps of a frozen CNN; none computes them again "
            "in every epoch."
        ),
    ]
    feature_stride: Annotated[
        int,
        typer.Option(
            help="Largest stride of the feature map in pixels; deeper CNN layers are removed, 0 "
            "keeps them all.",
            min=0,
        ),
    ]
    attention: Annotated[
        bool, typer.Option(help="Multiply each feature map by a learned spatial attention mask.")
    ]
    attention_channels: Annotated[
        tuple[int, ...],
        typer.Option(
            help="Output channels of the attention's hidden convolutions.", min=1, max=4096
        ),
    ]
    attention_mask: Annotated[
        Literal["sigmoid", "softmax"],
        typer.Option(
            help="Normalisation of the attention mask: sigmoid per cell, or softmax over the cells "
            "of a frame."
        ),
    ]
    hidden: Annotated[
        int, typer.Option(help="Number of LSTM units per direction.", min=1, max=4096)
    ]
    pool: Annotated[
        Literal["mean", "max", "last", "attention"],
        typer.Option(help="Pooling of the LSTM outputs over the frames of a video."),
    ]
    dropout: Annotated[
        float, typer.Option(help="Dropout probability before the last layer.", min=0.0, max=0.95)
    ]
    padding: Annotated[
        Literal["packed", "zeros", "last"],
        typer.Option(
            help="Padding of short videos for the LSTM: packed uses none, zeros and last pad as in "
            "the report."
        ),
    ]

    loss: Annotated[
        Literal["sord", "sord-wide", "cross-entropy"],
        typer.Option(help="Loss function; sord-wide places score 0 at -0.5 (Roy et al. 2020)."),
    ]
    class_weights: Annotated[
        bool,
        typer.Option(help="Weight the loss of each video by the inverse frequency of its score."),
    ]
    balanced_sampling: Annotated[
        bool,
        typer.Option(help="Sample the training videos so that all scores are equally frequent."),
    ]

    optimizer: Annotated[Literal["sgd", "adamw"], typer.Option(help="Optimizer.")]
    learning_rate_cnn: Annotated[
        float, typer.Option(help="Learning rate of the CNN.", min=0.0, max=10.0)
    ]
    learning_rate: Annotated[
        float, typer.Option(help="Learning rate of all layers after the CNN.", min=0.0, max=10.0)
    ]
    momentum: Annotated[
        float, typer.Option(help="Momentum of SGD; AdamW ignores it.", min=0.0, max=0.999)
    ]
    weight_decay: Annotated[
        float, typer.Option(help="Weight decay of the optimizer.", min=0.0, max=1.0)
    ]
    clip_norm: Annotated[
        float, typer.Option(help="Maximum norm of the gradient; 0 disables clipping.", min=0.0)
    ]
    schedule: Annotated[
        Literal["constant", "cosine"],
        typer.Option(help="Learning rate schedule after the warm-up."),
    ]
    warmup_epochs: Annotated[
        int, typer.Option(help="Number of epochs of linear learning rate warm-up.", min=0)
    ]
    average: Annotated[
        float,
        typer.Option(
            help="Decay per step of the moving average of the weights, which is then validated and "
            "saved; 0 disables it.",
            min=0.0,
            max=0.9999,
        ),
    ]
    batch_size: Annotated[
        int, typer.Option(help="Number of videos per batch, summed over all processes.", min=1)
    ]
    accumulate: Annotated[
        int,
        typer.Option(
            help="Number of batches whose gradients are accumulated before each optimizer step.",
            min=1,
            max=1000,
        ),
    ]
    checkpointing: Annotated[
        bool,
        typer.Option(
            help="Recompute the CNN's activations in the backward pass, which saves most of their "
            "memory and takes about a third more time."
        ),
    ]
    precision: Annotated[
        Literal["float32", "bf16", "fp16"],
        typer.Option(help="Floating-point precision of the CNN; all other layers use float32."),
    ]
    epochs: Annotated[int, typer.Option(help="Number of passes over the training videos.", min=1)]
    patience: Annotated[
        int,
        typer.Option(
            help="Stop after this many epochs without a lower validation loss; 0 disables early "
            "stopping.",
            min=0,
        ),
    ]

    stride: Annotated[int, typer.Option(help="Use every n-th frame of a video.", min=1)]
    frames_per_video: Annotated[
        int,
        typer.Option(
            help="Maximum number of evenly spaced frames per video; 0 uses all frames.", min=0
        ),
    ]
    standardize: Annotated[
        bool,
        typer.Option(
            help="Normalise each frame by its own mean and contrast instead of ImageNet's statistics."
        ),
    ]
    jitter: Annotated[
        bool,
        typer.Option(
            help="Draw other frames in every epoch: one at random from each of --frames-per-video "
            "equal segments."
        ),
    ]
    flip: Annotated[
        bool, typer.Option(help="Mirror each training video left to right with probability 0.5.")
    ]
    gain: Annotated[
        float,
        typer.Option(
            help="Maximum relative change of brightness and contrast in augmentation.",
            min=0.0,
            max=0.9,
        ),
    ]
    shift: Annotated[
        float,
        typer.Option(
            help="Maximum shift in augmentation, as a fraction of the frame's side.",
            min=0.0,
            max=0.5,
        ),
    ]
    seed: Annotated[
        int,
        typer.Option(
            help="Random seed of the initial weights, the video order and the augmentation.",
            min=0,
            max=MAX_SEED,
        ),
    ]


def recipe_path(name: str) -> Path:
    """The path of a recipe that ships with lus. Raises UsageError with the names that exist."""
    folder = Path(__file__).parent
    path = folder / f"{name}.toml"
    names = sorted(p.stem for p in folder.glob("*.toml"))
    if name not in names:
        raise UsageError(f"there is no recipe {name!r}", f"recipes are {', '.join(names)}")
    return path
