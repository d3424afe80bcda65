"""All studies, and which conditions each compares."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from coinml.data.records import Target
from coinml.embedding_sets.options import SetOptions
from coinml.encoder.sampling import FLOAT, PRECISIONS
from coinml.errors import InvalidInputError

ORIGINAL = "original"
"""The condition of `resolution` with the original files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One of the conditions that a study compares.

    Attributes:
        name: Shown in tables and in the names of its runs.
        value: Its position on the axis; None where it has none.
        set_options: The embedding set that it needs, where it has one of its own.
    """

    name: str
    value: float | None
    set_options: SetOptions | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyPlan:
    """What a study compares.

    Attributes:
        study: Its name.
        question: The question that it answers.
        axis: Label of the axis of `Condition.value`, with its unit.
        conditions: In the order of the tables. Empty for `dims`, whose conditions depend on the
            data.
        reference: Name of the condition that the others are compared with.
        values: Values of the other conditions, as they were asked for.
    """

    study: str
    question: str
    axis: str
    conditions: tuple[Condition, ...]
    reference: str
    values: tuple[float, ...] = ()

    @property
    def has_sets(self) -> bool:
        """Whether each condition is an embedding set of its own."""
        return all(condition.set_options is not None for condition in self.conditions) and bool(
            self.conditions
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kind:
    question: str
    axis: str
    defaults: tuple[str, ...]
    make: Callable[[tuple[str, ...], SetOptions], tuple[tuple[Condition, ...], str]]


def make_plan(study: str, set_options: SetOptions, conditions: Sequence[str] = ()) -> StudyPlan:
    """The plan of a study.

    Args:
        study: One of `STUDIES`.
        set_options: The embedding set that is varied, or that all conditions share.
        conditions: What to compare, as text: percentages for `data`, picture heights in pixels
            for `resolution`, shares for `tokens`, numbers for `clips` and `dims`, `exact` and
            `keyframe` for `snap`, `float` and `int8` for `precision`. The reference is added
            where it is not named. By default the study's own.

    Raises:
        InvalidInputError: There is no such study, or it has no such condition.
    """
    if study not in STUDIES:
        raise InvalidInputError(f"study {study!r}: one of {', '.join(STUDIES)} is allowed")
    kind = STUDIES[study]
    made, reference = kind.make(tuple(conditions) or kind.defaults, set_options)
    return StudyPlan(
        study=study,
        question=kind.question,
        axis=kind.axis,
        conditions=() if study == "dims" else made,
        reference=reference,
        values=tuple(c.value for c in made if c.value is not None and c.name != reference),
    )


def check_target(target: Target) -> None:
    """Check that a study can predict these classes.

    Steps are refused: a study's intervals assume independent rows, and segments of one video are
    not independent.

    Raises:
        InvalidInputError: The target is `step`.
    """
    if target == "step":
        raise InvalidInputError("studies predict tasks or domains, not steps: --target task")


def percent(part: float) -> str:
    """A share as a percentage."""
    return f"{100 * part:g} %"


def rows_name(rows: float) -> str:
    """Name of the condition of `resolution` with this picture height in pixels."""
    return f"{rows:g}p"


def _snap(texts: tuple[str, ...], options: SetOptions) -> tuple[tuple[Condition, ...], str]:
    allowed = ("exact", "keyframe")
    unknown = sorted(set(texts) - set(allowed))
    if unknown:
        raise InvalidInputError(
            f"study snap: {', '.join(unknown)}: allowed are {' and '.join(allowed)}"
        )
    return tuple(_varied(rule, None, options, snap=rule) for rule in allowed), "exact"


def _precision(texts: tuple[str, ...], options: SetOptions) -> tuple[tuple[Condition, ...], str]:
    unknown = sorted(set(texts) - set(PRECISIONS))
    if unknown:
        raise InvalidInputError(
            f"study precision: {', '.join(unknown)}: allowed are {' and '.join(PRECISIONS)}"
        )
    return tuple(_varied(name, None, options, precision=name) for name in PRECISIONS), FLOAT


def _tokens(texts: tuple[str, ...], options: SetOptions) -> tuple[tuple[Condition, ...], str]:
    parts = sorted({1.0, *_numbers("tokens", texts, above=0, most=1)}, reverse=True)
    made = tuple(_varied(percent(part), part, options, keep_tokens=part) for part in parts)
    return made, percent(1)


def _clips(texts: tuple[str, ...], options: SetOptions) -> tuple[tuple[Condition, ...], str]:
    counts = sorted({options.clips, *_whole("clips", texts, least=1)})
    made = tuple(_varied(str(count), count, options, clips=count) for count in counts)
    return made, str(options.clips)


def _data(texts: tuple[str, ...], _: SetOptions) -> tuple[tuple[Condition, ...], str]:
    shares = sorted({100.0, *_numbers("data", texts, above=0, most=100)})
    made = tuple(Condition(name=f"{share:g} %", value=share / 100) for share in shares)
    return made, "100 %"


def _resolution(texts: tuple[str, ...], _: SetOptions) -> tuple[tuple[Condition, ...], str]:
    rows = sorted(set(_whole("resolution", texts, least=16)))
    made = tuple(Condition(name=rows_name(count), value=count) for count in rows)
    return (*made, Condition(name=ORIGINAL, value=None)), ORIGINAL


def _dims(texts: tuple[str, ...], _: SetOptions) -> tuple[tuple[Condition, ...], str]:
    counts = sorted(set(_whole("dims", texts, least=1)))
    return tuple(Condition(name=str(count), value=count) for count in counts), "all"


def _varied(name: str, value: float | None, options: SetOptions, **change: object) -> Condition:
    return Condition(name=name, value=value, set_options=options.model_copy(update=change))


def _numbers(study: str, texts: tuple[str, ...], *, above: float, most: float) -> list[float]:
    found = []
    for text in texts:
        try:
            number = float(text.rstrip("%p "))
        except ValueError:
            number = above
        if not above < number <= most:
            raise InvalidInputError(
                f"study {study}: {text!r}: numbers above {above:g} and up to {most:g} are allowed"
            )
        found.append(number)
    return found


def _whole(study: str, texts: tuple[str, ...], *, least: int) -> list[int]:
    found = []
    for text in texts:
        digits = text.removesuffix("p").strip()
        if not digits.isdecimal() or int(digits) < least:
            raise InvalidInputError(
                f"study {study}: {text!r}: whole numbers from {least} on are allowed"
            )
        found.append(int(digits))
    return found


STUDIES: Mapping[str, _Kind] = {
    "snap": _Kind(
        question="What does it cost to let clips begin at key frames, and what does it save?",
        axis="where clips begin",
        defaults=("exact", "keyframe"),
        make=_snap,
    ),
    "tokens": _Kind(
        question="What does it cost to give the encoder a share of its tokens, and what does "
        "it save?",
        axis="share of the tokens",
        defaults=("1", "0.5", "0.25", "0.1"),
        make=_tokens,
    ),
    "precision": _Kind(
        question="What does it cost to compute the encoder in int8, and what does it save?",
        axis="precision of the encoder",
        defaults=PRECISIONS,
        make=_precision,
    ),
    "clips": _Kind(
        question="How many clips per video are worth their time?",
        axis="clips per video",
        defaults=("1", "2", "4", "8", "16"),
        make=_clips,
    ),
    "data": _Kind(
        question="Does more data help, and what would all of it bring?",
        axis="training videos",
        defaults=("5", "10", "20", "40", "70", "100"),
        make=_data,
    ),
    "resolution": _Kind(
        question="Does a smaller picture height cost accuracy?",
        axis="picture height in pixels",
        defaults=("144", "240", "360"),
        make=_resolution,
    ),
    "dims": _Kind(
        question="How many dimensions of the embedding are needed?",
        axis="dimensions",
        defaults=("2", "4", "8", "16", "32", "64", "128", "256", "512"),
        make=_dims,
    ),
}
"""The studies by name."""
