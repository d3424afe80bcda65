"""The attrition report: how many videos of a dataset are downloaded, lost and possible."""

from __future__ import annotations

import re
from collections.abc import Mapping

from coinml.ledger import Counts, Status
from coinml.runtime.markdown import markdown_table


def attrition_key(dataset: str) -> str:
    """The key of a dataset's report: lower-case letters, digits and dashes."""
    return "attrition-" + (re.sub(r"[^a-z0-9]+", "-", dataset.casefold()).strip("-") or "dataset")


def attrition_markdown(
    status: Status, *, duplicates: int = 0, sources: Mapping[str, int] | None = None
) -> str:
    """The report in Markdown: videos by state, by source, by split and by class.

    Args:
        status: The counts.
        duplicates: Number of files with the content of another video.
        sources: Number of downloaded videos by source, shown where there are several.
    """
    share = status.downloaded / status.total if status.total else 0.0
    lines = [
        f"# Attrition of {status.dataset}",
        "",
        f"{status.downloaded:,} of {status.total:,} videos are downloaded ({share:.1%}), "
        f"{status.possible:,} are still possible, {_lost(status):,} are lost.",
        "",
        markdown_table(
            ("state", "videos", "share", "means"),
            [
                (name, f"{count:,}", f"{count / status.total:.1%}", means)
                for name, count, means in status.states()
            ],
        ),
    ]
    if duplicates:
        lines += ["", f"{duplicates:,} files have the content of another video."]
    if status.eta_hours:
        lines += ["", f"About {status.eta_hours:.1f} hours to go at the allowed rate."]
    if sources and len(sources) > 1:
        counts = [(name, f"{count:,}") for name, count in sources.items()]
        lines += ["", "## By source", "", markdown_table(("source", "downloaded"), counts)]
    lines += ["", "## By split", "", _counts("split", status.by_split)]
    lines += ["", "## By class", "", _counts("class", status.by_class)]
    return "\n".join(lines) + "\n"


def _lost(status: Status) -> int:
    return sum(counts.lost for counts in status.by_split.values())


def _counts(what: str, groups: Mapping[str, Counts]) -> str:
    worst_first = sorted(groups.items(), key=lambda item: (-item[1].lost, item[0]))
    return markdown_table(
        (what, "all", "downloaded", "lost", "possible"),
        [(name, c.total, c.downloaded, c.lost, c.possible) for name, c in worst_first],
    )
