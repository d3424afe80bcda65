"""The settings of this machine: what a wrong variable is told."""

import pytest

from coinml.errors import InvalidInputError
from coinml.runtime.settings import Settings


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("COINML_RATE_PER_HOUR", "fast", "COINML_RATE_PER_HOUR='fast': Input should be a valid"),
        ("COINML_RATE_PER_HOUR", "0", "greater than 0"),
        ("COINML_RATE_PER_HOUR", "inf", "finite"),
        ("COINML_RATES_PER_HOUR", "60", "COINML_RATES_PER_HOUR='60': Input should be a valid dict"),
        (
            "COINML_RATES_PER_HOUR",
            "a.org=60",
            "COINML_RATES_PER_HOUR='a.org=60': .*Expecting value: line 1",
        ),
        ("COINML_RATES_PER_HOUR", '{"a.org": -1}', r"at \['a.org'\]: .*greater than 0"),
        ("COINML_PARALLEL", "0", "COINML_PARALLEL='0': .*greater than or equal to 1"),
        ("COINML_BYTES_PER_S", "1MB", "COINML_BYTES_PER_S='1MB': .*integer"),
    ],
)
def test_a_wrong_variable_is_named_with_its_value(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(InvalidInputError, match=said):
        Settings()


def test_a_wrong_secret_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidInputError) as refused:
        Settings(proxy=["user:planted@host"])
    assert "COINML_PROXY" in str(refused.value)
    assert "planted" not in str(refused.value)
