"""Options of commands, made from the fields of the models that the flows take as parameters.

A command names models among its parameters:

    def embed(selection: Selection, set_options: SetOptions, json: Json = False) -> None: ...

`add_command` gives it an option for each field, with the field's default, limits and description,
and calls it with the models. Models are imported when a command's options are first needed, so that
`coinml --help` does not load them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin

import typer
from typer.core import TyperCommand

from coinml.errors import InvalidInputError

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError
    from pydantic.fields import FieldInfo

MODELS = {
    "Selection": "coinml.selection",
    "DownloadOptions": "coinml.collection.options",
    "CollectOptions": "coinml.collection.options",
    "SetOptions": "coinml.embedding_sets.options",
    "EmbedOptions": "coinml.embedding.options",
    "TrainOptions": "coinml.training.options",
    "PretrainOptions": "coinml.pretraining.options",
    "StudyOptions": "coinml.studies.options",
    "GcOptions": "coinml.upkeep.gc_options",
    "ScoreOptions": "coinml.monitoring.options",
}
"""Modules of the models that commands may name."""

SPELLINGS = {
    "by_reference": "--encoder-ref",
    "head_options": "--set",
    "max_wait_s": "--max-wait",
    "deadline_s": "--deadline",
    "settle_s": "--settle",
}
"""Options that are not spelled like their fields."""

METAVARS = {
    "address": "URL",
    "at": "N",
    "cv": "K",
    "cv_repeats": "N",
    "deadline_s": "S",
    "devices": "A,B",
    "extent": "PART",
    "group": "REGEX",
    "head_options": "HEAD.OPTION=VALUE",
    "kernel": "NAME",
    "keep_tokens": "PART",
    "mask_ratio": "PART",
    "masking": "KIND",
    "labels": "FILE",
    "looks": "N",
    "max_height": "PIXELS",
    "max_mb_per_s": "MB",
    "max_minutes": "N",
    "max_wait_s": "S",
    "out": "DIR",
    "settle_s": "S",
    "source": "URL",
    "split_seed": "N",
    "sweep": "N",
    "window": "N",
}
"""What the help calls the values of some options; lists are always `A,B`."""


class Only:
    """Of a model, the command takes these fields; the others keep their defaults."""

    def __init__(self, *fields: str) -> None:
        self.fields = fields


def add_command(
    app: typer.Typer, function: Callable[..., None], *, epilog: str, name: str | None = None
) -> None:
    """Add a command that takes models.

    Args:
        app: The application that gets the command.
        function: The command; its annotations are strings, those of models name one of `MODELS`,
            as `Annotated[Model, Only("field", …)]` where not all of its fields are options.
        epilog: An example, shown below the help.
        name: The command's name, where the function has another.
    """

    class Command(_ModelCommand):
        expanded_from = staticmethod(function)

    app.command(
        name or function.__name__, cls=Command, help=inspect.getdoc(function), epilog=epilog
    )(lambda: None)


class _ModelCommand(TyperCommand):
    """A command whose parameters are made when they are first needed."""

    expanded_from: Callable[..., None]

    @cached_property
    def _expanded(self) -> Any:
        app = typer.Typer(add_completion=False)
        app.command()(expand(self.expanded_from))
        return typer.main.get_command(app)

    @property
    def params(self) -> list[Any]:
        """The options and arguments."""
        # The list itself: Typer appends to it.
        parameters: list[Any] = self._expanded.params
        return parameters

    @params.setter
    def params(self, _: list[Any]) -> None:
        # The parent's constructor sets those of the placeholder, of which there are none.
        pass

    def invoke(self, ctx: Any) -> Any:
        """Call the command with what was parsed."""
        return ctx.invoke(self._expanded.callback, **ctx.params)


def expand(function: Callable[..., None]) -> Callable[..., None]:
    """The function with the fields of models in place of the models, as Typer takes it."""
    parameters: list[inspect.Parameter] = []
    models: dict[str, tuple[type[BaseModel], tuple[str, ...]]] = {}
    for parameter in inspect.signature(function).parameters.values():
        annotation = eval(parameter.annotation, function.__globals__, _Models())
        model, names = _model_of(annotation)
        if model is None:
            kept = parameter.replace(annotation=annotation, kind=inspect.Parameter.KEYWORD_ONLY)
            parameters.append(kept)
        else:
            models[parameter.name] = (model, names)
            parameters += [_option(model, name) for name in names]

    def command(**given: Any) -> None:
        built = {
            key: build(model, {name: given.pop(name) for name in names})
            for key, (model, names) in models.items()
        }
        function(**given, **built)

    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__doc__ = function.__doc__
    return command


def build(model: type[BaseModel], given: Mapping[str, Any]) -> BaseModel:
    """A model from the values of its options; lists are texts with commas between their items.

    Raises:
        InvalidInputError: A value that is not allowed, named by its option.
    """
    from pydantic import ValidationError

    values = {name: _value(model.model_fields[name], value) for name, value in given.items()}
    try:
        return model(**values)
    except ValidationError as err:
        raise InvalidInputError(_message(err)) from err


def _value(field: FieldInfo, given: Any) -> Any:
    if _is_list(field):
        return split(given)
    if _is_repeatable(field):
        # One value is that value, so that it is seen as such among the parameters of a run.
        return (given[0] if len(given) == 1 else tuple(given)) if given else None
    return given


def split(text: str | None) -> tuple[str, ...]:
    """The items of a text with commas between them."""
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())


class _Models(Mapping[str, Any]):
    """The models by their names, imported when they are looked up."""

    def __getitem__(self, name: str) -> Any:
        return getattr(import_module(MODELS[name]), name)

    def __iter__(self) -> Any:
        return iter(MODELS)

    def __len__(self) -> int:
        return len(MODELS)


def _model_of(annotation: Any) -> tuple[type[BaseModel] | None, tuple[str, ...]]:
    """The model that an annotation names, and which of its fields are options."""
    kind, *extras = get_args(annotation) if get_origin(annotation) is Annotated else (annotation,)
    fields = getattr(kind, "model_fields", None)
    if fields is None:
        return None, ()
    named = [extra.fields for extra in extras if isinstance(extra, Only)]
    return kind, named[0] if named else tuple(fields)


def _option(model: type[BaseModel], name: str) -> inspect.Parameter:
    """The Typer option of a field."""
    field = model.model_fields[name]
    default = ",".join(field.default) or None if _is_list(field) else field.default
    kind = list[str] if _is_repeatable(field) else _plain_type(field.annotation)
    option = typer.Option(
        _spelling(name),
        help=field.description,
        metavar=METAVARS.get(name, "A,B" if _is_list(field) else None),
        rich_help_panel=model.model_config.get("title"),
        min=_least(field),
    )
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[kind | None if default is None else kind, option],
    )


def _is_list(field: FieldInfo) -> bool:
    return get_origin(field.annotation) is tuple


def _is_repeatable(field: FieldInfo) -> bool:
    """Whether it takes one text or several: the option may be given several times."""
    kinds = get_args(field.annotation)
    return str in kinds and any(get_origin(kind) is tuple for kind in kinds)


def _plain_type(annotation: Any) -> Any:
    """The type of a value on the command line; what a Literal allows is a text there."""
    parts = (annotation, *get_args(annotation))
    return next((kind for kind in (bool, int, float) if kind in parts), str)


def _least(field: FieldInfo) -> float | None:
    """The smallest value that is allowed; every other limit is left to the model."""
    return next((limit.ge for limit in field.metadata if hasattr(limit, "ge")), None)


def _spelling(field: str) -> str:
    return SPELLINGS.get(field, f"--{field.replace('_', '-')}")


def _message(error: ValidationError) -> str:
    """The first thing that is wrong, in one line."""
    first = error.errors()[0]
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, InvalidInputError):
        return str(cause)
    return f"{_spelling(str(first['loc'][0]))} {first['input']}: {first['msg']}"
