"""Arguments for yt-dlp's extractors, such as YouTube's PO tokens; their values are secrets."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from coinml.errors import InvalidInputError

_ONE = re.compile(r"([\w-]+):(.+)", re.DOTALL)
_KEY = re.compile(r"[\w-]+")

_SHORTEST_SECRET = 8
"""Values with fewer characters are words such as `web` or `default`, and no tokens."""

Arguments = Mapping[str, Mapping[str, list[str]]]
"""Values by extractor and key, as yt-dlp's Python API takes them (`extractor_args`)."""


def parse_extractor_args(text: str) -> Arguments:
    r"""The arguments in a setting, read as yt-dlp reads its option `--extractor-args`.

    Args:
        text: `EXTRACTOR:KEY=VALUE[,VALUE...][;KEY=...]`, for several extractors with spaces in
            between. A comma within a value is written as `\,`.

    Raises:
        InvalidInputError: Another form; the text is not shown.
    """
    found: dict[str, dict[str, list[str]]] = {}
    for number, part in enumerate(text.split(), start=1):
        match = _ONE.fullmatch(part)
        pairs = [pair.partition("=") for pair in match[2].split(";")] if match else []
        if match is None or not all(_KEY.fullmatch(key) for key, _, _ in pairs):
            raise InvalidInputError(
                f"COINML_YTDLP_EXTRACTOR_ARGS, part {number}: expected "
                "EXTRACTOR:KEY=VALUE[,VALUE][;KEY=VALUE], with a space before the next extractor, "
                "e.g. youtube:player_client=web;po_token=... (the value is not shown: it may be "
                "secret)"
            )
        found[match[1].lower()] = {
            key.lower().replace("-", "_"): [
                value.replace(r"\,", ",") for value in re.split(r"(?<!\\),", values)
            ]
            for key, _, values in pairs
        }
    return found


def secrets_of(arguments: Arguments) -> Iterator[str]:
    """The values that may be secret, and the token in `CLIENT.CONTEXT+TOKEN`."""
    for keys in arguments.values():
        for values in keys.values():
            for value in values:
                for secret in {value, value.rpartition("+")[2]}:
                    if len(secret) >= _SHORTEST_SECRET:
                        yield secret
