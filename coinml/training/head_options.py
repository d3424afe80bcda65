"""Options of heads that are set by hand, as `mlp.class_weights=balanced`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from coinml.errors import InvalidInputError
from coinml.heads.kinds import check_heads, head_kind

_ALLOWED = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


def parse_head_options(texts: Sequence[str], heads: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Options by head, for the heads that have any.

    Args:
        texts: `HEAD.OPTION=VALUE` each; the values of a list have commas between them.
        heads: The heads that are trained.

    Raises:
        InvalidInputError: A text of another form, a head that is unknown or not trained, an option
            that it does not have, a value that is not allowed, or an option that is set twice.
    """
    found: dict[str, dict[str, Any]] = {}
    for text in texts:
        name, has_value, value = text.partition("=")
        head, has_option, option = (part.strip() for part in name.partition("."))
        if not (has_value and has_option):
            raise InvalidInputError(f"--set {text!r}: allowed is HEAD.OPTION=VALUE")
        check_heads([head])
        if head not in heads:
            raise InvalidInputError(
                f"--set {text!r}: {head} is not trained; trained are {', '.join(heads)}"
            )
        defaults = head_kind(head).all_options({})
        if option not in defaults:
            raise InvalidInputError(
                f"--set {text!r}: {head} has no option {option!r}; it has {', '.join(defaults)}"
            )
        options = found.setdefault(head, {})
        if option in options:
            raise InvalidInputError(f"--set {text!r}: {head}.{option} is set twice")
        options[option] = _parse(value.strip(), defaults[option], text)
    for head, options in found.items():
        _check_values(head, options)
    return found


def _parse(value: str, default: Any, text: str) -> Any:
    """A value of the default's type; a list if that is a sequence."""
    if isinstance(default, list | tuple):
        return [_parse(item.strip(), default[0], text) for item in value.split(",")]
    kind = type(default)
    try:
        parsed = {"true": True, "false": False}[value.lower()] if kind is bool else kind(value)
    except (KeyError, ValueError):
        parsed = math.nan
    if value == "" or (isinstance(parsed, float) and not math.isfinite(parsed)):
        raise InvalidInputError(f"--set {text!r}: {value!r} is not {_ALLOWED[kind]}")
    return parsed


def _check_values(head: str, options: Mapping[str, Any]) -> None:
    try:
        head_kind(head).check_values(options)
    except InvalidInputError as err:
        raise InvalidInputError(f"--set {head}.{err}") from err
