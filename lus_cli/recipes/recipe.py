"""The recipe: all options that determine what a training run learns."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, Literal

import typer

# Its file sets every field of Recipe. The other recipes list only what differs from it.
DEFAULT_RECIPE = "standard"
# The largest seed that NumPy, scikit-learn and torch all accept.
MAX_SEED = 2**32 - 1


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All options that determine what a training run learns.

    The fields have no defaults: the file of DEFAULT_RECIPE provides them. Another recipe, a TOML
    file or flags override these values. Only fields that runs of earlier versions lack
    have a default, which does what those versions did.
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
            "in every run, and in every epoch if they do not fit in memory."
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
    feature_norm: Annotated[
        Literal["none", "video"],
        typer.Option(
            help="Normalisation of each channel of the feature maps: none; or video, which uses its "
            "mean and standard deviation over the steps and cells of the video, and so removes "
            "differences between scanners."
        ),
    ]
    projection: Annotated[
        int,
        typer.Option(
            help="Reduce the feature maps to this number of channels, by a 1x1 convolution with an "
            "offset for each depth; 0 keeps them as they are.",
            min=0,
            max=4096,
        ),
    ]
    attention: Annotated[
        bool, typer.Option(help="Multiply each feature map by a learned spatial attention mask.")
    ]
    attention_channels: Annotated[
        tuple[int, ...],
        typer.Option(
            help='Channels of the hidden attention convolutions, such as 64,32; "" for none.',
            min=1,
            max=4096,
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
        typer.Option(help="Pooling of the LSTM outputs over the steps of a video."),
    ]
    dropout: Annotated[
        float,
        typer.Option(
            help="Dropout probability before the LSTM and before the last layer.", min=0.0, max=0.95
        ),
    ]
    feature_dropout: Annotated[
        float,
        typer.Option(
            help="Dropout probability of whole channels of the feature maps.", min=0.0, max=0.95
        ),
    ]
    padding: Annotated[
        Literal["packed", "zeros", "last"],
        typer.Option(
            help="Padding of videos for the LSTM: packed uses none; zeros and last pad to the "
            "longest video with black or repeated frames, as in the report."
        ),
    ]

    members: Annotated[
        int,
        typer.Option(
            help="Number of heads (attention, LSTM and last layer) that are trained with different "
            "initial weights over one CNN and averaged.",
            min=1,
            max=100,
        ),
    ]
    leave_out: Annotated[
        bool,
        typer.Option(
            help="Leave out a different part of the training and validation patients for each member, "
            "and validate it on that part; needs a frozen CNN and at least two members."
        ),
    ]
    decision: Annotated[
        Literal["auto", "most-probable", "frequencies", "kappa"],
        typer.Option(
            help="How probabilities become a score: the most probable score, or cuts of the "
            "expected score. The cuts reproduce the frequencies of the scores, or maximise kappa, on "
            "the patients that the model is validated on; auto uses cuts by frequencies only if some "
            "score is hardly ever the most probable."
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

    optimizer: Annotated[
        Literal["sgd", "adamw"], typer.Option(help="Optimizer: SGD with momentum or AdamW.")
    ]
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
            help="Decay per step of the moving average of the weights; the averaged weights are "
            "validated and saved. 0 disables it.",
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

    windows: Annotated[
        int,
        typer.Option(
            help="Number of time steps per video, each a picture of the maximum, mean and standard "
            "deviation of a window of frames; 0 makes every frame a time step.",
            min=0,
            max=1000,
        ),
    ]
    window_frames: Annotated[
        int,
        typer.Option(
            help="Number of frames per window, instead of a fixed number of --windows; 0 disables it.",
            min=0,
            max=10_000,
        ),
    ] = 0
    whole_video: Annotated[
        bool,
        typer.Option(
            help="Add a first time step before the windows: the picture of the whole video."
        ),
    ] = False
    scan_lines: Annotated[
        bool,
        typer.Option(
            help="Resample frames along the scan lines of the probe, with depth along the rows."
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
            help="Use different frames in every epoch: a random one from each of --frames-per-video "
            "equal segments of the video."
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
    gamma: Annotated[
        float,
        typer.Option(
            help="Largest change of the gray curve in augmentation: levels from 0 to 1 are raised to "
            "a power between 1 / (1 + gamma) and 1 + gamma; 0 disables it.",
            min=0.0,
            max=4.0,
        ),
    ] = 0.0
    depth: Annotated[
        float,
        typer.Option(
            help="Largest zoom along the depth in augmentation, a factor between 1 / (1 + depth) and "
            "1 + depth, like another depth setting of the scanner; 0 disables it.",
            min=0.0,
            max=4.0,
        ),
    ] = 0.0
    crop: Annotated[
        float,
        typer.Option(
            help="Largest share of a picture's width that augmentation cuts off at its sides, like a "
            "probe with a narrower sector; 0 disables it.",
            min=0.0,
            max=0.9,
        ),
    ] = 0.0
    speckle: Annotated[
        float,
        typer.Option(
            help="Standard deviation of the multiplicative noise that augmentation applies to each picture, "
            "correlated over two pixels; 0 disables it.",
            min=0.0,
            max=2.0,
        ),
    ] = 0.0
    augmented_copies: Annotated[
        int,
        typer.Option(
            help="Number of augmented copies of each training video whose feature maps are stored "
            "with --freeze; an epoch uses the video or one of its copies.",
            min=0,
            max=1000,
        ),
    ] = 0
    seed: Annotated[
        int,
        typer.Option(
            help="Random seed of the initial weights, the video order and the augmentation.",
            min=0,
            max=MAX_SEED,
        ),
    ]


def recipe_of(options: Recipe) -> Recipe:
    """The recipe alone, of options that hold a recipe among others."""
    return Recipe(**{field.name: getattr(options, field.name) for field in fields(Recipe)})
