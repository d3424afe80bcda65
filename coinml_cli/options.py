"""The options that several commands share, each spelled and explained once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from coinml.data.records import Target as Target_
    from coinml.embedding_sets.options import SetOptions
    from coinml.selection import Selection

Dataset = Annotated[
    str, typer.Option(help="`mini`, a COIN-layout JSON file, or `folder:DIR` (one folder a class).")
]
Known = Annotated[
    str | None, typer.Option("--dataset", help="Name of a dataset; the only one needs none.")
]
Name = Annotated[
    str | None,
    typer.Option(help="Dataset name; by default `coin` for a JSON, DIR's for a folder."),
]
Classes = Annotated[
    str | None,
    typer.Option(metavar="A,B", help="Only these classes."),
]
Limit = Annotated[
    int | None,
    typer.Option(min=1, help="So many videos, stratified by class and split."),
]
Group = Annotated[
    str | None,
    typer.Option(
        metavar="REGEX", help="Files whose names match alike stay on one side of the split."
    ),
]
Source = Annotated[
    str | None,
    typer.Option(metavar="URL", help="URL template with {id}; by default YouTube."),
]
Budget = Annotated[int | None, typer.Option(min=1, help="Try at most so many videos now.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Videos a download task.")]
MaxWait = Annotated[
    float,
    typer.Option(min=0, metavar="S", help="Wait out pauses of the source up to so many seconds."),
]
MaxHeight = Annotated[
    int, typer.Option(min=64, metavar="ROWS", help="Rows of the picture at most.")
]
Only = Annotated[
    str | None,
    typer.Option(metavar="A,B", help="Only what stands under these faults, or is `pending`."),
]
RetryNow = Annotated[
    bool,
    typer.Option("--retry-now", help="Ask for what failed without waiting for its time."),
]
Reprobe = Annotated[
    bool, typer.Option("--reprobe", help="Ask for what is gone, whether its time has come or not.")
]
Encoder = Annotated[
    str | None,
    typer.Option(
        help="Hub id or folder of a VideoMAE, or `tiny` for the one in the package; by default "
        "VideoMAE-base, and for `mini` the tiny one."
    ),
]
Revision = Annotated[str | None, typer.Option(help="Revision of the hub id.")]
Clips = Annotated[int, typer.Option(min=1, help="Clips a video.")]
Stride = Annotated[int, typer.Option(min=1, help="Frames between a clip's frames.")]
Snap = Annotated[
    str, typer.Option(help="Where clips may begin: `exact` places, or the `keyframe` nearest.")
]
KeepTokens = Annotated[
    float,
    typer.Option(metavar="PART", help="Part of the tokens that the encoder sees, up to 1."),
]
KeepSeed = Annotated[int, typer.Option(help="Seed of the choice of tokens.")]
Extent = Annotated[
    str | None,
    typer.Option(
        metavar="PART",
        help="The whole `video`, its `annotated` extent, or its `segments` one by one; by default "
        "the video, and for steps the segments.",
    ),
]
Target = Annotated[str, typer.Option(help="What to tell apart: `task`, `domain` or `step`.")]
Decoder = Annotated[str, typer.Option(help="`auto`, `pyav`, `decord` or `torchcodec`.")]
Runner = Annotated[
    str, typer.Option(help="`local`: this machine's devices; `dask`: a cluster's workers.")
]
Address = Annotated[
    str | None,
    typer.Option(metavar="URL", help="The Dask scheduler's, such as tcp://10.0.0.5:8786."),
]
Devices = Annotated[
    str | None,
    typer.Option(
        metavar="A,B", help="A process for each, such as `cuda:0,cuda:1`; by default every GPU."
    ),
]
Deadline = Annotated[
    float,
    typer.Option(min=0.001, metavar="S", help="Seconds that decoding one video may take."),
]
Heads = Annotated[
    str, typer.Option(metavar="A,B", help="Of `mlp`, `svm`, `attentive`, `logreg` and `knn`.")
]
Sweep = Annotated[
    int,
    typer.Option(
        metavar="N", min=0, help="First try N options of each head, and train with the best."
    ),
]
Seed = Annotated[int, typer.Option(help="Of everything random in training.")]
ByReference = Annotated[
    bool,
    typer.Option(
        "--encoder-ref", help="The registered model names its encoder on the hub, not carries it."
    ),
]
DropLeaks = Annotated[
    bool,
    typer.Option(
        "--drop-leaks", help="Train without videos that are in val or test as well, under any id."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="JSON, and nothing else, on stdout.")]


def selection(
    dataset: str, name: str | None, classes: str | None, limit: int | None, group: str | None
) -> Selection:
    """The part of a dataset that these options name."""
    from coinml.selection import Selection

    return Selection(dataset=dataset, name=name, classes=listed(classes), limit=limit, group=group)


def set_options(
    encoder: str | None,
    revision: str | None,
    clips: int,
    stride: int,
    snap: str,
    keep_tokens: float,
    keep_seed: int,
    extent: str | None,
    target: str | None = None,
) -> SetOptions:
    """The embedding set that these options name.

    Raises:
        InvalidInputError: A value that is not allowed, or an extent that the target is not
            learnt on.
    """
    from pydantic import ValidationError

    from coinml.data.targets import extent_of
    from coinml.embedding_sets.options import SetOptions
    from coinml.errors import InvalidInputError

    given = {
        "encoder": encoder,
        "revision": revision,
        "clips": clips,
        "stride": stride,
        "snap": snap,
        "keep_tokens": keep_tokens,
        "keep_seed": keep_seed,
        "extent": extent_of(target, extent),
    }
    try:
        return SetOptions.model_validate(given)
    except ValidationError as err:
        first = err.errors()[0]
        option = str(first["loc"][0]).replace("_", "-")
        raise InvalidInputError(f"--{option} {first['input']}: {first['msg']}") from err


def target(text: str) -> Target_:
    """What an option says is told apart.

    Raises:
        InvalidInputError: None of the targets.
    """
    from coinml.data.targets import TARGETS
    from coinml.errors import InvalidInputError

    for known in TARGETS:
        if text == known:
            return known
    raise InvalidInputError(f"--target {text}: one of {', '.join(TARGETS)} is allowed")


def listed(text: str | None) -> tuple[str, ...]:
    """The parts of an option that takes several with commas between them."""
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())
