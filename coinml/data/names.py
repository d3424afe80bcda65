"""Names from outside: class names, step labels and the names of video files."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping

from coinml.errors import InvalidInputError

LONGEST_NAME = 255
"""Characters of a class name; file systems allow no longer names of folders."""

_SHOWN = 80
"""Characters of a wrong value that a message shows."""

_LISTED = 5

# Characters without a picture: two names that differ in them alone look the same. Joiners are kept,
# since Indic scripts, Persian and emoji are spelled with them.
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f"
    "\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U000e0000-\U000e0fff]"
)
_JOINERS = dict.fromkeys(map(ord, "\u200c\u200d"))
_LINE_BREAKS = re.compile(r"\s*[^\S ]\s*")
"""White space with a tab, a line break or a wide space in it."""


def plain_name(text: str, where: str) -> str:
    """A name in one spelling, so that names that look the same are the same text.

    The result is in Unicode's NFC, without invisible characters and outer white space, and a space
    stands for line breaks and tabs in it. Several spaces are kept: labels of COIN have them.

    Args:
        text: The name as found.
        where: Where it was found, for the message: file, entry and field.

    Raises:
        InvalidInputError: It is empty, too long or not text (control characters, or bytes that are
            not UTF-8).
    """
    name = unicodedata.normalize("NFC", _INVISIBLE.sub("", text))
    name = _LINE_BREAKS.sub(" ", name).strip()
    if not name:
        raise InvalidInputError(f"{where}: {shown(text)} is not a name")
    if len(name) > LONGEST_NAME:
        raise InvalidInputError(
            f"{where}: {shown(text)} has {len(name):,} characters; a name has at most "
            f"{LONGEST_NAME}"
        )
    require_text(name, where)
    return name


def require_text(text: str, where: str) -> None:
    """Require that a text can be shown, stored in a database and written as UTF-8.

    Raises:
        InvalidInputError: It has control characters or surrogates; the message shows it escaped.
    """
    kinds = {unicodedata.category(character) for character in text}
    if "Cs" in kinds:
        raise InvalidInputError(f"{where}: {shown(text)} is not valid Unicode (not UTF-8)")
    if "Cc" in kinds:
        raise InvalidInputError(f"{where}: {shown(text)} has control characters")
    # Private characters look different on each machine, and U+FFFE and its like are none.
    if "Co" in kinds or any(ord(one) & 0xFFFE == 0xFFFE for one in text):
        raise InvalidInputError(f"{where}: {shown(text)} has characters without a meaning")


def shown(value: object) -> str:
    """A wrong value for a message: its `repr`, cut where it is long."""
    try:
        text = repr(value)
    except ValueError:
        # An integer of thousands of digits; Python does not write it out.
        return f"a {type(value).__name__} too long to show"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def spelling_notes(classes: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """What there is to say of the classes' names, a sentence each.

    Args:
        classes: Each class as found and as `plain_name` spells it.
    """
    pairs = dict.fromkeys(classes)
    respelled = [f"{found!a} as {name!r}" for found, name in pairs if found != name]
    groups: dict[str, set[str]] = defaultdict(set)
    for _, name in pairs:
        groups[
            " ".join(unicodedata.normalize("NFKC", name.translate(_JOINERS)).casefold().split())
        ].add(name)
    notes = (
        [f"class names in another spelling than found: {listed(respelled)}"] if respelled else []
    )
    for group in groups.values():
        if len(group) > 1:
            alike = listed(map(repr, sorted(group)))
            notes.append(f"classes that look alike and are kept apart: {alike}")
    return tuple(notes)


def same_file(labels: Mapping[str, str]) -> str:
    """Videos with one content and their classes, as in "'a' (Boil) = 'b' (Fry)".

    Args:
        labels: Class by id.
    """
    return " = ".join(f"{one!r} ({label})" for one, label in labels.items())


def listed(texts: Iterable[str]) -> str:
    """The first few texts, and how many more there are."""
    texts = list(texts)
    more = f" and {len(texts) - _LISTED} more" if len(texts) > _LISTED else ""
    return ", ".join(texts[:_LISTED]) + more
