from __future__ import annotations

import pytest

from coinml.errors import InvalidInputError
from coinml.runtime.devices import find_device, find_devices


@pytest.mark.parametrize(
    ("present", "wanted", "found"),
    [
        (0, "auto", ("cpu",)),
        (1, "auto", ("cuda:0",)),
        (3, "auto", ("cuda:0", "cuda:1", "cuda:2")),
        (0, "cpu, cpu", ("cpu", "cpu")),
        (2, "cuda", ("cuda:0",)),
        (2, "cuda:1,cpu", ("cuda:1", "cpu")),
    ],
)
def test_a_process_for_each_device(
    monkeypatch: pytest.MonkeyPatch, present: int, wanted: str, found: tuple[str, ...]
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: present)
    assert find_devices(wanted) == found


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        ("gpu", "device 'gpu': say auto"),
        ("cpu,", "device '': say auto"),
        ("cpu,auto", "device 'auto': say auto"),
        ("cuda:one", "say auto"),
        ("cuda:2", "device 'cuda:2': torch sees 2 CUDA devices here"),
    ],
)
def test_a_device_that_is_none_is_refused(
    monkeypatch: pytest.MonkeyPatch, wanted: str, says: str
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    with pytest.raises(InvalidInputError, match=says):
        find_devices(wanted)


@pytest.mark.parametrize("name", ["gpu", "abacus", "", "cpu,cpu", "cuda:2", "cuda:one"])
def test_a_single_device_is_refused_in_the_same_words(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    says = "torch sees 2 CUDA devices here" if name == "cuda:2" else "say auto, cpu, cuda or cuda:N"
    with pytest.raises(InvalidInputError, match=f"device '{name}': {says}"):
        find_device(name)


def test_a_single_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert [str(find_device(name)) for name in ("cpu", "cuda", "cuda:1")] == [
        "cpu",
        "cuda",
        "cuda:1",
    ]
    for available, found in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr("torch.cuda.is_available", lambda available=available: available)
        assert str(find_device("auto")) == found
