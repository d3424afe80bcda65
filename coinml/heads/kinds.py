"""The kinds of heads: how each is fitted, tuned, stored and drawn.

A kind is a row of `KINDS`. A row names its parts as `module:name`, and they are imported only when
they are used: a command can list the heads without loading torch or scikit-learn.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

from coinml.errors import InvalidInputError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from coinml.heads.protocol import Head
    from coinml.heads.search_space import SearchSpace

DEFAULT_HEADS = ("mlp", "svm")
"""The heads that are trained by default."""

_NOT_OPTIONS = ("train", "val", "seed", "device", "jobs", "on_epoch", "on_fit")
"""Parameters of trainers that do not change what a head learns, or are given for every head."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadKind:
    """One kind of head.

    Attributes:
        name: What users call it; also in the head's file.
        trainer: Function `(train, val, *, seed, ...)` that returns a fitted head. Trainers with
            epochs also take `device` and `on_epoch`, the others `on_fit`.
        head_class: Class of the fitted head; its `load` reads what its `save` wrote.
        search_space: The `SearchSpace` of a sweep.
        suffix: Ending of the head's file, which tells its format; see `heads.files`.
        takes_clips: Whether its input is the embeddings of a video's clips, not their mean.
        draws_random: Whether another seed gives another head.
        has_epochs: Whether it is trained epoch by epoch; the others try settings one by one.
        count_settings: Function of all options that returns the number of settings to try; for
            heads without epochs.
        search_figure: Function that draws the table of the settings tried, if there is one.
        value_check: Function of all options that raises `InvalidInputError` for a value that is
            not allowed whatever the data; None where fitting alone finds it.
        chosen: Function of `Head.settings` and a number of videos: the trainer's options that fit
            this one setting on so many videos; None for heads with epochs.
    """

    name: str
    trainer: str
    head_class: str
    search_space: str
    suffix: str = ".safetensors"
    takes_clips: bool = False
    draws_random: bool = False
    has_epochs: bool = False
    count_settings: str | None = None
    search_figure: str | None = None
    value_check: str | None = None
    chosen: str | None = None

    def load_trainer(self) -> Callable[..., Head]:
        """The function that fits it."""
        trainer: Callable[..., Head] = resolve_name(self.trainer)
        return trainer

    def load_search_space(self) -> SearchSpace:
        """The options that a sweep tries."""
        space: SearchSpace = resolve_name(self.search_space)
        return space

    def load(self, path: Path) -> Head:
        """Read a head of this kind from its file."""
        head: Head = resolve_name(self.head_class).load(path)
        return head

    def check_options(self, options: Mapping[str, Any]) -> None:
        """Check that the trainer has these options.

        Raises:
            InvalidInputError: It does not.
        """
        unknown = sorted(set(options) - set(inspect.signature(self.load_trainer()).parameters))
        if unknown:
            raise InvalidInputError(
                f"{self.name} has no option {', '.join(unknown)}; it has "
                f"{', '.join(self.all_options({}))}"
            )

    def check_values(self, options: Mapping[str, Any]) -> None:
        """Check the values of options, without data.

        Raises:
            InvalidInputError: A value is not allowed.
        """
        if self.value_check is not None:
            resolve_name(self.value_check)(self.all_options(options))

    def all_options(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """These options, and the trainer's defaults for the others."""
        parameters = inspect.signature(self.load_trainer()).parameters
        defaults = {n: one.default for n, one in parameters.items() if n not in _NOT_OPTIONS}
        return defaults | dict(options)

    def logged_options(self, options: Mapping[str, Any]) -> dict[str, object]:
        """What a head is trained with, for the run's parameters.

        For a head with epochs all options. For one that tries settings only the options that were
        given, since `Head.settings` has what was chosen.
        """
        given = self.all_options(options) if self.has_epochs else options
        return {
            name: ", ".join(map(str, value)) if isinstance(value, list | tuple) else value
            for name, value in given.items()
        }

    def chosen_options(self, settings: Mapping[str, Any], videos: int) -> dict[str, Any]:
        """The trainer's options that fit what was chosen, without another search."""
        return {} if self.chosen is None else dict(resolve_name(self.chosen)(settings, videos))

    def max_steps(self, options: Mapping[str, Any]) -> int:
        """Most epochs, or number of settings to try: how often `fit_head` calls `on_step`."""
        given = self.all_options(options)
        if self.count_settings is None:
            return int(given["epochs"])
        return int(resolve_name(self.count_settings)(given))

    def draw_search(self, search: pd.DataFrame) -> Figure | None:
        """The figure of the settings tried; None where the kind has none or none were tried."""
        if self.search_figure is None or search.empty:
            return None
        figure: Figure = resolve_name(self.search_figure)(search)
        return figure


KINDS: dict[str, HeadKind] = {
    kind.name: kind
    for kind in (
        HeadKind(
            name="mlp",
            trainer="coinml.heads.mlp:train_mlp",
            head_class="coinml.heads.mlp:MLPHead",
            search_space="coinml.heads.mlp:SEARCH_SPACE",
            value_check="coinml.heads.mlp:check_values",
            draws_random=True,
            has_epochs=True,
        ),
        HeadKind(
            name="svm",
            trainer="coinml.heads.svm:train_svm",
            head_class="coinml.heads.svm:SVMHead",
            search_space="coinml.heads.svm:SEARCH_SPACE",
            value_check="coinml.heads.svm:check_values",
            count_settings="coinml.heads.svm:count_settings",
            search_figure="coinml.figures.training:svm_search",
            chosen="coinml.heads.svm:chosen",
        ),
        HeadKind(
            name="attentive",
            trainer="coinml.heads.attentive:train_attentive",
            head_class="coinml.heads.attentive:AttentiveHead",
            search_space="coinml.heads.attentive:SEARCH_SPACE",
            value_check="coinml.heads.attentive:check_values",
            takes_clips=True,
            draws_random=True,
            has_epochs=True,
        ),
        HeadKind(
            name="logreg",
            trainer="coinml.heads.baselines:train_logreg",
            head_class="coinml.heads.baselines:BaselineHead",
            search_space="coinml.heads.baselines:LOGREG_SEARCH_SPACE",
            value_check="coinml.heads.baselines:check_values",
            suffix=".skops",
            count_settings="coinml.heads.baselines:count_settings",
            chosen="coinml.heads.baselines:chosen",
        ),
        HeadKind(
            name="knn",
            trainer="coinml.heads.baselines:train_knn",
            head_class="coinml.heads.baselines:BaselineHead",
            search_space="coinml.heads.baselines:KNN_SEARCH_SPACE",
            value_check="coinml.heads.baselines:check_values",
            suffix=".skops",
            count_settings="coinml.heads.baselines:count_settings",
            chosen="coinml.heads.baselines:chosen",
        ),
    )
}
"""Every kind of head by its name."""

HEADS = tuple(KINDS)
"""The names of all heads."""


def head_kind(name: str) -> HeadKind:
    """The kind of head of this name.

    Raises:
        InvalidInputError: There is none.
    """
    check_heads([name])
    return KINDS[name]


def import_libraries() -> None:
    """Import what trainers import when they begin; to be called before several do so in threads.

    Where two threads import parts of one package, each would wait for the other. Python lets one go
    on with a module that is not complete, and its import fails.
    """
    import sklearn.linear_model
    import sklearn.neighbors
    import sklearn.pipeline
    import sklearn.preprocessing
    import sklearn.svm  # noqa: F401


def check_heads(names: Sequence[str]) -> None:
    """Check a list of different heads.

    Raises:
        InvalidInputError: The list is empty, or has an unknown head or one twice.
    """
    unknown = sorted(set(names) - set(KINDS))
    if unknown or not names:
        raise InvalidInputError(
            f"heads {', '.join(unknown) or 'none'}: allowed are {', '.join(KINDS)}"
        )
    if len(set(names)) < len(names):
        raise InvalidInputError(f"heads {', '.join(names)}: one is named twice")


def load_head(path: Path) -> Head:
    """Read a head from its file, which says of which kind it is.

    Raises:
        InvalidInputError: The ending is not a head's, or the content is not.
    """
    from coinml.heads.calibration import CalibratedHead
    from coinml.heads.files import read_head

    suffixes = sorted({kind.suffix for kind in KINDS.values()})
    if path.suffix not in suffixes:
        raise InvalidInputError(f"{path}: a head's file ends in {' or '.join(suffixes)}")
    content = read_head(path, *KINDS)
    head = KINDS[content.kind].load(path)
    return head if content.temperature is None else CalibratedHead(head, content.temperature)


def head_file(name: str) -> str:
    """The file name under which a head of this kind is saved.

    Raises:
        InvalidInputError: There is no such head.
    """
    return f"head{head_kind(name).suffix}"
