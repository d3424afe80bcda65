"""What is shown of URLs from outside."""

from __future__ import annotations

import json
import logging
import pickle
import stat
from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError

from coinml.collection.download import FetchOptions
from coinml.collection.options import CollectOptions
from coinml.collection.sources import as_sources, check_recordable
from coinml.errors import InvalidInputError, LocalError
from coinml.ledger import Ledger
from coinml.runtime.addresses import Url, credential_in, masked, plain
from coinml.runtime.settings import Settings

SECRET = "Zq7vK1xw"
SHOWN = {
    f"postgresql+psycopg://ann:{SECRET}@db:5432/coin": "postgresql+psycopg://ann:***@db:5432/coin",
    f"postgresql://db/coin?user=ann&password={SECRET}": "postgresql://db/coin?user=***&password=***",
    f"postgresql://ann:pa/{SECRET}@db/coin": "postgresql://ann:***@db/coin",
    f"postgresql://ann:pa?{SECRET}@db/coin": "postgresql://ann:***@db/coin",
    f"http://{SECRET}@mlflow:5000": "http://***@mlflow:5000",
    f"http://{SECRET}:@mlflow:5000/a": "http://***@mlflow:5000/a",
    f"https://ghp_{SECRET}{SECRET}:x-oauth-basic@host/": "https://***@host/",
    f"https://host/x?{SECRET}": "https://host/x?***",
    f"https://host/x?a=1;token={SECRET}#access_token={SECRET}": (
        "https://host/x?a=***;token=***#access_token=***"
    ),
    f"s3://key:{SECRET}@bucket/sets": "s3://***@bucket/sets",
    f"simplecache::s3://key:{SECRET}@bucket": "simplecache::s3://***@bucket",
    "https://www.youtube.com/watch?v={id}": "https://www.youtube.com/watch?v={id}",
    "http://127.0.0.1:9/#/experiments/1/runs/2": "http://127.0.0.1:9/#/experiments/1/runs/2",
    "http://127.0.0.1:9/a@b": "http://127.0.0.1:9/a@b",
    "sqlite:////srv/a@b/ledger.db": "sqlite:////srv/a@b/ledger.db",
    "/srv/sets?x=y": "/srv/sets?x=y",
}


@pytest.mark.parametrize("url", SHOWN)
def test_every_text_of_a_url_is_masked(url: str, caplog: pytest.LogCaptureFixture) -> None:
    class Options(BaseModel):
        place: Url

    held = Url(url)
    with caplog.at_level(logging.INFO):
        logging.getLogger("coinml").info("%s and %r", held, held)
    texts = (
        str(held),
        f"{held}",
        f"{held:>3}",
        format(held),
        masked(url),
        masked(f"no answer from {url} at all")
        .removeprefix("no answer from ")
        .removesuffix(" at all"),
        str(Url(held)),
        Options(place=held).model_dump()["place"],
        json.loads(Options(place=url).model_dump_json())["place"],
    )
    assert set(texts) == {SHOWN[url]}
    for text in (repr(held), repr(Options(place=held)), repr([held]), str((held,)), caplog.text):
        assert SECRET not in text


def test_a_url_is_the_whole_url_to_libraries() -> None:
    from sqlalchemy import make_url

    url = f"postgresql+psycopg://ann:{SECRET}@db:5432/coin?sslmode=require"
    held = pickle.loads(pickle.dumps(Url(url)))
    assert isinstance(held, Url)
    assert held == url
    assert hash(held) == hash(url)
    assert plain(held) == url
    assert type(plain(held)) is str
    assert make_url(held).password == SECRET
    assert held.removeprefix("postgresql") == url.removeprefix("postgresql")


def test_the_settings_hold_urls_that_mask_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    place = f"postgresql://db/coin?password={SECRET}"
    monkeypatch.setenv("COINML_LEDGER_URL", place)
    monkeypatch.setenv("COINML_EMBEDDINGS_ROOT", f"s3://key:{SECRET}@bucket/sets")
    monkeypatch.setenv("COINML_PROXY", f"http://{SECRET}@proxy:3128")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://{SECRET}@mlflow:5000")
    settings = Settings()
    assert settings.ledger_url == place
    held = (settings.ledger_url, settings.embeddings_root, settings.proxy, settings.tracking_uri)
    assert all(isinstance(one, Url) for one in held)
    for text in (repr(settings), str(settings.model_dump()), settings.model_dump_json(), str(held)):
        assert SECRET not in text


@pytest.mark.parametrize(
    "source",
    [
        "https://{secret}@host/{{id}}.mp4",
        "https://ann:{secret}@host/{{id}}.mp4",
        "https://host/{{id}}.mp4?token={secret}",
        "https://host/{{id}}.mp4?x=1&X-Amz-Signature={secret}",
        "https://host/watch?v={{id}}&api_key={secret}",
        "https://host/watch?v={{id}}&pass%77ord={secret}",
    ],
)
def test_a_source_with_a_credential_is_refused_and_not_shown(source: str) -> None:
    given = source.format(secret=SECRET)
    with pytest.raises(InvalidInputError, match=r"source 2 of 2 .*not shown") as raised:
        check_recordable(("https://host/{id}.mp4", given))
    assert SECRET not in str(raised.value)
    with pytest.raises(ValidationError) as refused:
        CollectOptions(source=given)
    assert SECRET not in str(refused.value)


def test_ordinary_sources_are_taken() -> None:
    for source in ("https://host/watch?v={id}&t=3&list=key", "https://host/?key={id}"):
        assert credential_in(source) is None
        assert as_sources(source)[0].url("video000001") == source.replace("{id}", "video000001")


def test_the_ledgers_errors_do_not_show_the_password() -> None:
    pytest.importorskip("psycopg")
    for url in (
        f"postgresql+psycopg://127.0.0.1:9/coin?user=ann&password={SECRET}",
        f"postgresql+psycopg://{SECRET}@127.0.0.1:9/coin",
        f"oracle://h/coin?password={SECRET}",
    ):
        with pytest.raises((LocalError, InvalidInputError)) as raised, Ledger(Url(url)) as ledger:
            ledger.datasets()
        assert "password=" not in str(raised.value).replace("password=***", "")
        if "password" in url:
            assert SECRET not in str(raised.value)


def test_digests_of_credentials_are_keyed_by_the_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = FetchOptions(proxy=f"http://ann:{SECRET}@proxy:3128")
    digests = []
    for home in ("one", "two"):
        monkeypatch.setenv("COINML_HOME", str(tmp_path / home))
        digests.append(options.credentials())
        assert options.credentials() == digests[-1]
        key = tmp_path / home / "data" / "digest.key"
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
        assert [path.name for path in key.parent.iterdir()] == ["digest.key"]
    assert digests[0] != digests[1]
    assert all(digest and len(digest) == 16 for digest in digests)
    # A machine with a copy of the key agrees.
    key.write_bytes((tmp_path / "one" / "data" / "digest.key").read_bytes())
    assert options.credentials() == digests[0]
    key.write_bytes(b"short")
    with pytest.raises(LocalError, match=r"digest\.key: has 5 bytes and not 32"):
        options.credentials()
    assert FetchOptions().credentials() is None
