"""The addresses of alerts: their kinds, what is refused, and what is shown of them."""

from __future__ import annotations

import pytest

from coinml.errors import InvalidInputError
from coinml_ops.alerts.destinations import destination_of

SECRET = "T0secret"


@pytest.mark.parametrize(
    ("url", "kind", "shown"),
    [
        (
            f"https://example.com:8443/{SECRET}?key={SECRET}",
            "webhook",
            "https://example.com:8443/…",
        ),
        (f"http://ann:{SECRET}@127.0.0.1/", "webhook", "http://127.0.0.1/…"),
        (
            "https://hooks.slack.com/services/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",
            "slack",
            "https://hooks.slack.com/…",
        ),
        (f"mailtos://ann:{SECRET}@example.com?to=b@example.com", "mail", "mailtos://example.com/…"),
        (f"MAILTO://ann:{SECRET}@example.com", "mail", "mailto://example.com/…"),
    ],
)
def test_the_kind_of_an_address_and_what_is_shown(url: str, kind: str, shown: str) -> None:
    found = destination_of(url)
    assert (found.kind, found.shown) == (kind, shown)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "allowed are https://example.com/hook"),
        ("T0secret", "allowed are"),
        ("https:///T0secret", "allowed are"),
        ("https://exa mple.com/T0secret", "allowed are"),
        ("https://example.com/T0secret\nX: y", "allowed are"),
        ("https://example.com:port/T0secret", "allowed are"),
        ("ftp://example.com/T0secret", "ftp is no kind of address"),
        (
            "https://hooks.slack.com/T0secret",
            "incomplete; such an address looks like https://hooks",
        ),
        ("mailtos://example.com?smtp=T0secret", "incomplete; such an address looks like mailtos"),
    ],
)
def test_what_is_no_address_is_refused_without_being_shown(url: str, says: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        destination_of(url)
    assert says in str(refused.value)
    assert SECRET not in str(refused.value)
