"""The forms of a source, what is shown of it, and copying from folders and buckets."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from coinml.collection.copies import copy_video
from coinml.collection.download import is_unreachable
from coinml.collection.options import CollectOptions
from coinml.collection.sources import Source, as_sources, check_folders
from coinml.collection.whole_dataset import collect
from coinml.data.records import Dataset, Video
from coinml.errors import InvalidInputError
from coinml.faults.classification import Fault, explain
from coinml.ledger import DOWNLOADED, PENDING
from tests.helpers.local_collector import LocalCollector, ids

ID = "-video00000"


@pytest.mark.parametrize(
    ("template", "name", "url", "local"),
    [
        (
            "https://www.youtube.com/watch?v={id}",
            "youtube.com",
            f"https://www.youtube.com/watch?v={ID}",
            False,
        ),
        ("http://127.0.0.1:80/{id}.mp4", "127.0.0.1:80", f"http://127.0.0.1:80/{ID}.mp4", True),
        ("/copies/{id}.mp4", "/copies", f"/copies/{ID}.mp4", True),
        ("/copies", "/copies", f"/copies/{ID}", True),
        ("file:///my%20copies/{id}.webm", "/my copies", f"/my copies/{ID}.webm", True),
        ("s3://bucket/a/{id}.mp4", "s3://bucket", f"s3://bucket/a/{ID}.mp4", False),
        ("memory://here/", "memory://here", f"memory://here/{ID}", False),
    ],
)
def test_a_source_has_a_name_and_an_url(template: str, name: str, url: str, local: bool) -> None:
    (source,) = as_sources(template)
    assert (source.name, source.url(ID), source.is_local) == (name, url, local)
    assert source.shown(ID) == url


def test_a_home_folder_and_a_long_name() -> None:
    (home, deep) = as_sources(["~/copies/{id}.mp4", "/a" + "/folder" * 60 + "/{id}.mp4"])
    assert home.url(ID) == str(Path.home() / "copies" / f"{ID}.mp4")
    # The ledger's column has 200 characters.
    assert len(deep.name) <= 200
    assert deep.name != Source("/a" + "/folder" * 59 + "/{id}.mp4").name


@pytest.mark.parametrize(
    "template",
    [
        "",
        "{id}",
        "copies/{id}.mp4",
        "-{id}",
        "https://tube/watch",
        "https:///{id}",
        "nope://a/{id}",
        "s3://",
        "http://[::1/{id}",
    ],
)
def test_another_form_is_refused_with_the_allowed_ones(template: str) -> None:
    with pytest.raises(InvalidInputError, match=r"source .*: allowed are an http\(s\) URL"):
        as_sources(template)
    with pytest.raises(InvalidInputError, match="no source"):
        as_sources([])


@pytest.mark.parametrize(
    "template",
    [
        "https://joe:hush-hush@tube.example/{id}.mp4",
        "https://hush-hush@tube.example/{id}",
        "s3://joe:hush-hush@bucket/{id}.mp4",
    ],
)
def test_a_password_in_a_source_is_refused_and_not_shown(template: str) -> None:
    for given in (template, ["/copies", template]):
        with pytest.raises(InvalidInputError, match="contains a user name or a password") as caught:
            as_sources(given)
        assert "COINML_COOKIES" in str(caught.value)
        # Before it becomes a parameter of a run.
        with pytest.raises(ValidationError, match="contains a user name or a password") as refused:
            CollectOptions(source=given)
        told = str(caught.value) + str(refused.value)
        assert "hush" not in told
        assert "joe" not in told


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ("ftp://x/{id}", r"ftp:// is not supported: allowed are .*s3, .*gs, "),
        ("SFTP://127.0.0.1:9/{id}", "sftp:// is not supported"),
        ("local:///copies/{id}", "local:// is not supported"),
        ("zip://copies.zip/{id}", "zip:// is not supported"),
        ("file://copies/{id}.mp4", "'copies' is read as a host"),
        ("~no-such-user/{id}.mp4", "there is no such user"),
        ("http://host:port/{id}", "no host"),
        ("http://host/{id}/{foo}.mp4", r"'\{foo\}' is not allowed: the only .* is \{id\}"),
        ("http://host/{id}/{}.mp4", r"'\{\}' is not allowed"),
        ("http://host/{ID}.mp4", r"'\{ID\}' is not allowed"),
        ("http://host/{id}?v={foo}", r"'\{foo\}' is not allowed"),
        ("http://host/{{id}}.mp4", r"'\{' is not allowed"),
        ("http://host/{id", r"'\{' is not allowed"),
        ("/copies/{id}/{foo:03}.mp4", r"'\{foo:03\}' is not allowed"),
        ("s3://bucket/{label}/{id}.mp4", r"'\{label\}' is not allowed"),
    ],
)
def test_a_wrong_source_is_named_alone_and_nothing_is_connected_to(
    wrong: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def connect(*_: Any, **__: Any) -> None:
        raise AssertionError("connects")

    monkeypatch.setattr("socket.getaddrinfo", connect)
    monkeypatch.setattr("socket.socket.connect", connect)
    right = "https://right.example/{id}.mp4"
    for given in (wrong, [right, wrong], [wrong, right]):
        with pytest.raises(InvalidInputError, match=says) as caught:
            as_sources(given)
        # Before a run begins, too.
        with pytest.raises(InvalidInputError, match=says):
            check_folders([given] if isinstance(given, str) else given)
        assert f"source {wrong!r}: " in str(caught.value)
        assert "right.example" not in str(caught.value)


def test_braces_that_are_no_placeholder_are_percent_encoded(tmp_path: Path, served: Path) -> None:
    folder = tmp_path / "a{b}"
    folder.symlink_to(served)
    assert copied(f"file://{tmp_path}/a%7Bb%7D/{{id}}.mp4", tmp_path / "in").is_file()
    with pytest.raises(InvalidInputError, match=r"'\{b\}' is not allowed.*%7B"):
        as_sources(str(folder))
    with pytest.raises(InvalidInputError, match=r"'\{' is not allowed") as caught:
        as_sources("https://tube.example/{id}?v=hush{hush}hush")
    assert "hush" not in str(caught.value)


def test_the_values_of_a_query_are_not_shown() -> None:
    source = Source("https://tube.example/get?id={id}&token=hush-hush-hush&v=1")
    assert source.url(ID) == f"https://tube.example/get?id={ID}&token=hush-hush-hush&v=1"
    assert source.shown(ID) == f"https://tube.example/get?id={ID}&token=***&v=***"
    assert source.secrets == ("hush-hush-hush",)
    with pytest.raises(InvalidInputError) as caught:
        as_sources("https://tube.example/get?token=hush-hush-hush")
    assert "hush" not in str(caught.value)


def test_a_source_is_a_text_or_a_list() -> None:
    one, two = "https://tube.example/{id}", "/copies"
    assert CollectOptions(source=one).sources == (one,)
    assert CollectOptions.model_validate({"source": [one, two]}).sources == (one, two)
    assert CollectOptions().sources == ()
    assert CollectOptions(source=one).model_dump(mode="json")["source"] == one
    assert as_sources([one, two, one]) == as_sources([one, two])


def copied(template: str, folder: Path, video_id: str = ID) -> Path:
    (source,) = as_sources(template)
    told: list[None] = []
    fetched = copy_video(video_id, source, folder, on_data=lambda: told.append(None))
    assert len(told) == 1
    return fetched.path


def fault_of(template: str, folder: Path, video_id: str = ID) -> tuple[Fault, bool]:
    with pytest.raises(Exception) as caught:  # noqa: PT011
        copied(template, folder, video_id)
    assert not list(folder.glob("*")) if folder.exists() else True
    return explain(caught.value)[0], is_unreachable(caught.value)


def test_copies_in_a_folder(served: Path, tmp_path: Path) -> None:
    whole = (served / f"{ID}.mp4").read_bytes()
    folder = tmp_path / "copies"
    folder.mkdir()
    (folder / "odd.MKV").write_bytes(whole)
    (folder / "plain.webm").write_bytes(whole)
    (folder / "bare").write_bytes(whole)
    for video_id, template, name in (
        (ID, f"{served}/{{id}}.mp4", f"{ID}.mp4"),
        (ID, f"file://{served}/{{id}}.mp4", f"{ID}.mp4"),
        (ID, str(served), f"{ID}.mp4"),
        ("plain", f"{folder}/", "plain.webm"),
        ("odd", f"{folder}/{{id}}.MKV", "odd.mkv"),
        ("bare", f"{folder}/{{id}}", "bare.mp4"),
    ):
        path = copied(template, tmp_path / "incoming", video_id)
        assert path == tmp_path / "incoming" / name
        assert path.read_bytes() == whole
        path.unlink()
    os.mkfifo(folder / "pipe.mp4")
    for video_id in ("absent", "pipe"):
        assert fault_of(str(folder), tmp_path / "in2", video_id) == (Fault.GONE, False)
    # A disk that is not mounted does not make its videos count as gone.
    for away in (f"{tmp_path}/away", f"{tmp_path}/away/{{id}}.mp4"):
        assert fault_of(away, tmp_path / "in2") == (Fault.TRANSIENT, True)


def test_a_copy_that_cannot_be_read_is_no_fault_of_this_machine(
    served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root reads everything, so the refusal of `open` is made here."""

    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("coinml.collection.copies._Folder.open", refuse)
    assert fault_of(str(served), tmp_path / "incoming") == (Fault.BLOCKED, False)


def test_copies_are_collected_and_the_row_says_from_where(
    collector: LocalCollector, tmp_path: Path
) -> None:
    some = collector.register(3)
    folder = tmp_path / "copies"
    folder.mkdir()
    for one in some[1:]:
        os.link(collector.served / f"{one}.mp4", folder / f"{one}.mp4")
    away = str(tmp_path / "away")
    report = collector.run(None, some, source=[away, str(folder), str(collector.served)])  # type: ignore[arg-type]
    assert set(report.downloaded) == set(some)
    rows = {row.video_id: row for row in collector.ledger.rows("mini")}
    assert [rows[one].source for one in some] == [str(collector.served)] + [str(folder)] * 2
    assert rows[some[1]].url == f"{folder}/{some[1]}.mp4"
    assert (folder / f"{some[1]}.mp4").is_file()
    collector.assert_consistent()


def test_a_single_folder_that_is_not_there_is_an_input_error(
    collector: LocalCollector, tmp_path: Path
) -> None:
    some = collector.register(3)
    away = tmp_path / "away"
    for template in (str(away), f"{away}/{{id}}.mp4", f"file://{away}"):
        with pytest.raises(InvalidInputError, match=f"there is no folder {away}"):
            collector.run(None, some, source=template)  # type: ignore[arg-type]
    assert set(collector.states().values()) == {PENDING}


def test_a_folder_that_is_not_there_is_refused_before_the_run(
    collector: LocalCollector, tmp_path: Path
) -> None:
    collector.register(1)
    dataset = Dataset(
        name="mini",
        videos=(Video(video_id=ID, label="saw", subset="training", split="train"),),
    )
    away = tmp_path / "away"
    host = "http://127.0.0.1:9/{id}.mp4"
    for template in (str(away), f"{away}/{{id}}.mp4", f"file://{away}", f"{away}{'x' * 300}"):
        for given in (template, [host, template], [template, host]):
            options = CollectOptions(source=given)  # type: ignore[arg-type]
            with pytest.raises(InvalidInputError) as caught:
                collect(dataset, collector.ledger, folder=collector.folder, options=options)
            told = str(caught.value)
            assert told.startswith(f"source {template!r}: there is no folder {away}")
            assert "127.0.0.1" not in told
    assert set(collector.states().values()) == {PENDING}
    assert collector.ledger.attempts("mini", ID) == []
    check_folders([host, str(tmp_path)])


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """A bucket of a real S3 server on loopback; the keys are made up."""
    moto = pytest.importorskip("moto.server", reason="pip install 'coinml[dev]'")
    pytest.importorskip("s3fs", reason="pip install 'coinml[s3]'")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in (
        ("AWS_ACCESS_KEY_ID", "made-up"),
        ("AWS_SECRET_ACCESS_KEY", "made-up"),
        ("AWS_ENDPOINT_URL", f"http://{host}:{port}"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
        ("NO_PROXY", "127.0.0.1"),
    ):
        monkeypatch.setenv(name, value)
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    s3fs.S3FileSystem().mkdir("copies")
    yield "s3://copies"
    s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


def test_copies_in_a_bucket(
    collector: LocalCollector, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import s3fs

    some = collector.register(4)
    filesystem = s3fs.S3FileSystem()
    filesystem.put_file(str(collector.served / f"{some[0]}.mp4"), f"copies/a/{some[0]}.mp4")
    filesystem.put_file(str(collector.served / f"{some[1]}.mp4"), f"copies/b/{some[1]}.mp4")
    sources = [f"{bucket}/a/{{id}}.mp4", f"{bucket}/b", f"{collector.served}"]
    report = collector.run(None, some[:3], source=sources)  # type: ignore[arg-type]
    assert set(report.downloaded) == set(some[:3])
    rows = {row.video_id: row for row in collector.ledger.rows("mini")}
    assert [rows[one].source for one in some[:3]] == [bucket, bucket, str(collector.served)]
    assert rows[some[1]].url == f"{bucket}/b/{some[1]}.mp4"
    outcomes = [one.outcome for one in collector.ledger.attempts("mini", some[1])]
    assert outcomes == ["gone", DOWNLOADED]
    collector.assert_consistent()
    incoming = collector.folder / ".incoming"
    assert fault_of("s3://no-such-bucket/{id}.mp4", incoming) == (Fault.TRANSIENT, True)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    s3fs.S3FileSystem.clear_instance_cache()
    assert fault_of(f"{bucket}/a/{{id}}.mp4", incoming) == (Fault.TRANSIENT, True)


def test_copies_in_any_file_system_of_fsspec(tmp_path: Path) -> None:
    import fsspec

    filesystem = fsspec.filesystem("memory")
    filesystem.pipe_file(f"/drawn/{ID}.mp4", bytes(100))
    assert copied("memory://drawn/{id}.mp4", tmp_path / "in").read_bytes() == bytes(100)
    assert fault_of("memory://drawn/{id}.mp4", tmp_path / "in2", "absent") == (Fault.GONE, False)


@pytest.mark.parametrize("host", ["no-such-host.invalid", "127.0.0.1:9"])
def test_a_driver_that_cannot_connect_is_a_source_that_cannot_be_reached(
    host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real FTP driver, which connects when it is made, in the place of a bucket's."""
    from fsspec.implementations.ftp import FTPFileSystem
    from fsspec.registry import _registry

    class Driver(FTPFileSystem):  # type: ignore[misc]
        protocol = "oss"

    monkeypatch.setitem(_registry, "oss", Driver)
    assert fault_of(f"oss://{host}/{{id}}.mp4", tmp_path / "in") == (Fault.TRANSIENT, True)


def test_threads_copy_at_once(served: Path, tmp_path: Path) -> None:
    """Several collectors share one folder of unfinished files."""
    errors: list[BaseException] = []

    def work(video_id: str) -> None:
        try:
            copied(str(served), tmp_path / "incoming", video_id)
        except BaseException as err:
            errors.append(err)

    threads = [threading.Thread(target=work, args=(one,)) for one in ids(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert {path.name for path in (tmp_path / "incoming").iterdir()} == {
        f"{one}.mp4" for one in ids(20)
    }
