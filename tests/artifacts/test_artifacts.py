"""seal, unseal and open, with keys of a real broker."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import sealbook
from sealbook import artifacts, sealing
from sealbook.broker import Keyring
from sealbook.errors import InputError, SealbookError
from sealbook.sealing import KeyUnavailableError, NotSealedError, UnsealError
from sealbook.sealing.codecs import ContentError

pytestmark = pytest.mark.usefixtures("brokered")


@pytest.mark.parametrize("value", ["text ü", b"\x00bytes", {"a": [1, 2.5, None]}, 7, None, True, ""])
def test_values_come_back(value: Any, tmp_path: Path) -> None:
    sealbook.seal(value, tmp_path / "v.sealed")
    back = sealbook.unseal(tmp_path / "v.sealed")
    assert back == value
    assert type(back) is type(value)


def test_a_dataframe_and_an_array_come_back(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": np.arange(300_000), "b": "x"})
    sealbook.seal(frame, tmp_path / "f.sealed")
    pd.testing.assert_frame_equal(sealbook.unseal(tmp_path / "f.sealed"), frame)
    array = np.arange(3_000_000.0)
    sealbook.seal(array, tmp_path / "a.sealed")
    np.testing.assert_array_equal(sealbook.unseal(tmp_path / "a.sealed"), array)


def test_an_arrow_table_larger_than_a_segment_comes_back(tmp_path: Path) -> None:
    import pyarrow as pa

    table = pa.table({"a": np.random.default_rng(0).random(1_000_000)})
    sealbook.seal(table, tmp_path / "t.sealed")
    assert sealbook.unseal(tmp_path / "t.sealed").equals(table)


def test_a_scikit_learn_model_comes_back(tmp_path: Path) -> None:
    from sklearn.linear_model import LinearRegression

    model = LinearRegression().fit([[0.0], [1.0]], [0.0, 2.0])
    sealbook.seal(model, tmp_path / "m.sealed")
    assert sealbook.unseal(tmp_path / "m.sealed").predict([[3.0]]) == pytest.approx([6.0])


def test_a_sealed_dataframe_is_read_by_pandas_through_its_url(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": [1, 2]})
    sealbook.seal(frame, tmp_path / "f.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(f"sealed::{tmp_path}/f.parquet"), frame)
    frame.to_parquet(f"sealed::{tmp_path}/g.parquet")
    with sealbook.open(tmp_path / "g.parquet") as file:
        pd.testing.assert_frame_equal(pd.read_parquet(file), frame)


def test_a_file_comes_back_to_a_path_or_as_bytes(tmp_path: Path) -> None:
    source = tmp_path / "big.bin"
    source.write_bytes(os.urandom(2_500_000))
    artifact = sealbook.seal(source, tmp_path / "big.sealed")
    assert artifact.codec == "file"
    assert sealbook.unseal(tmp_path / "big.sealed") == source.read_bytes()
    assert sealbook.unseal(tmp_path / "big.sealed", to=tmp_path / "back.bin") == tmp_path / "back.bin"
    assert (tmp_path / "back.bin").read_bytes() == source.read_bytes()


def test_a_directory_comes_back_to_a_path_only(tmp_path: Path) -> None:
    (tmp_path / "d" / "e").mkdir(parents=True)
    (tmp_path / "d" / "e" / "f.txt").write_text("x")
    sealbook.seal(tmp_path / "d", tmp_path / "d.sealed")
    with pytest.raises(InputError, match="say where to put it"):
        sealbook.unseal(tmp_path / "d.sealed")
    sealbook.unseal(tmp_path / "d.sealed", to=tmp_path / "back")
    assert (tmp_path / "back" / "e" / "f.txt").read_text() == "x"


def test_an_object_is_written_to_a_path_as_its_codec_stores_it(tmp_path: Path) -> None:
    sealbook.seal(pd.DataFrame({"a": [1]}), tmp_path / "f.sealed")
    sealbook.unseal(tmp_path / "f.sealed", to=tmp_path / "f.parquet")
    assert pd.read_parquet(tmp_path / "f.parquet").a.tolist() == [1]


def test_the_plaintext_is_nowhere_in_the_sealed_file(tmp_path: Path) -> None:
    sealbook.seal("topsecret " * 1000, tmp_path / "t.sealed")
    assert b"topsecret" not in (tmp_path / "t.sealed").read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["t.sealed"]


def test_context_is_insisted_on(tmp_path: Path) -> None:
    sealbook.seal("x", tmp_path / "x.sealed", context={"study": "7"})
    assert sealbook.unseal(tmp_path / "x.sealed", context={"study": "7"}) == "x"
    with pytest.raises(UnsealError):
        sealbook.unseal(tmp_path / "x.sealed", context={"study": "8"})
    with pytest.raises(UnsealError):
        sealbook.unseal(tmp_path / "x.sealed", context={"study": "8"}, to=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_context_is_insisted_on_also_when_the_host_swaps_the_file_in_between(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sealbook.seal("right", tmp_path / "x.sealed", context={"study": "7"})
    sealbook.seal("wrong", tmp_path / "y.sealed", context={"study": "8"})
    unseal_file = sealing.unseal_file

    def swapped(source: Path, *args: Any, **kwargs: Any) -> Any:
        (tmp_path / "y.sealed").replace(source)
        return unseal_file(source, *args, **kwargs)

    monkeypatch.setattr(sealing, "unseal_file", swapped)
    with pytest.raises(UnsealError):
        sealbook.unseal(tmp_path / "x.sealed", context={"study": "7"}, to=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_key_is_insisted_on(tmp_path: Path) -> None:
    sealbook.seal("right", tmp_path / "a.sealed", key="session/a")
    sealbook.seal("wrong", tmp_path / "b.sealed", key="session/b")
    assert sealbook.unseal(tmp_path / "a.sealed", key="session/a") == "right"
    assert sealbook.unseal(tmp_path / "a.sealed", key="session/a", to=tmp_path / "to").read_text() == "right"
    with sealbook.open(tmp_path / "a.sealed", key="session/a") as file:
        assert file.read() == b"right"
    (tmp_path / "b.sealed").replace(tmp_path / "a.sealed")  # what a host can do
    assert sealbook.unseal(tmp_path / "a.sealed") == "wrong"
    with pytest.raises(UnsealError) as caught:
        sealbook.unseal(tmp_path / "a.sealed", key="session/a")
    with pytest.raises(UnsealError):
        sealbook.unseal(tmp_path / "a.sealed", key="session/a", to=tmp_path / "out")
    with pytest.raises(UnsealError):
        sealbook.open(tmp_path / "a.sealed", key="session/a")
    assert not (tmp_path / "out").exists()
    with pytest.raises(UnsealError) as other:
        sealbook.unseal(tmp_path / "a.sealed", context={"not": "this"})
    assert str(caught.value) == str(other.value)


def test_a_key_is_insisted_on_also_when_the_host_swaps_the_file_in_between(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sealbook.seal("right", tmp_path / "a.sealed", key="session/a")
    sealbook.seal("wrong", tmp_path / "b.sealed", key="session/b")
    unseal_file = sealing.unseal_file

    def swapped(source: Path, *args: Any, **kwargs: Any) -> Any:
        (tmp_path / "b.sealed").replace(source)
        return unseal_file(source, *args, **kwargs)

    monkeypatch.setattr(sealing, "unseal_file", swapped)
    with pytest.raises(UnsealError):
        sealbook.unseal(tmp_path / "a.sealed", key="session/a", to=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_refused_object_leaves_the_old_file(tmp_path: Path) -> None:
    sealbook.seal("old", tmp_path / "x.sealed")
    for refused in ({1, 2}, {1: 2}, pd.DataFrame({"a": [object()]}), np.array([None])):
        with pytest.raises(InputError):
            sealbook.seal(refused, tmp_path / "x.sealed")
    assert sealbook.unseal(tmp_path / "x.sealed") == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["x.sealed"]


def test_an_error_while_writing_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sealbook.sealing.codecs import Payload
    from sealbook.sealing.codecs.plain import TextCodec

    def write(file: Any) -> None:
        file.write(b"half")
        file.close()
        raise OSError(28, "No space left on device")

    sealbook.seal("old", tmp_path / "x.sealed")
    monkeypatch.setattr(TextCodec, "prepare", lambda self, obj: Payload(write))
    with pytest.raises(InputError, match="No space left on device"):
        sealbook.seal("new", tmp_path / "x.sealed")
    assert sealbook.unseal(tmp_path / "x.sealed") == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["x.sealed"]


def test_a_codec_cannot_publish_a_file_that_it_has_not_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sealbook.sealing.codecs import Payload
    from sealbook.sealing.codecs.plain import TextCodec

    def write(file: Any) -> None:
        file.write(b"half")
        file.close()
        raise RuntimeError("a library failed after closing the file")

    monkeypatch.setattr(TextCodec, "prepare", lambda self, obj: Payload(write))
    with pytest.raises(RuntimeError):
        sealbook.seal("new", tmp_path / "x.sealed")
    assert list(tmp_path.iterdir()) == []


def test_tampering_gives_the_same_sentence_whatever_was_changed(tmp_path: Path) -> None:
    path = tmp_path / "x.sealed"
    sealbook.seal("x" * 5000, path)
    original = path.read_bytes()
    sentences = set()
    for at in (0x40, 4096 + 0x40, 8200, 9000, len(original) - 1):
        changed = bytearray(original)
        changed[at] ^= 1
        path.write_bytes(changed)
        with pytest.raises(UnsealError) as caught:
            sealbook.unseal(path)
        sentences.add(str(caught.value))
    assert len(sentences) == 1


def test_a_key_that_the_broker_does_not_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyUnavailableError):
        sealbook.seal("x", tmp_path / "x.sealed", key="nobody/has")
    assert list(tmp_path.iterdir()) == []


def test_a_named_key_is_used_and_the_log_says_what_for(tmp_path: Path, brokered: Any) -> None:
    brokered.keyring.create("team/data", guard="kernel")
    artifact = sealbook.seal("x", tmp_path / "x.sealed", key="team/data")
    assert (artifact.key, artifact.version) == ("team/data", 1)
    sealbook.unseal(tmp_path / "x.sealed")
    log = str(list(brokered.audit.entries()))
    assert "sealed" in log
    assert "unsealed" in log
    assert str(tmp_path / "x.sealed") in log
    assert brokered.audit.verify().ok


def test_the_header_says_that_the_sealer_was_simulated(tmp_path: Path) -> None:
    sealbook.seal("x", tmp_path / "x.sealed")
    sealer = sealing.inspect(tmp_path / "x.sealed").sealer
    assert sealer["simulated"] is True
    assert sealer["measurement"] == "05" * 32
    with sealbook.open(tmp_path / "y.sealed", "wb") as file:
        file.write(b"x")
    assert sealing.inspect(tmp_path / "y.sealed").sealer["simulated"] is True


def test_an_artifact_shows_what_it_is_and_escapes_what_it_shows(tmp_path: Path) -> None:
    artifact = sealbook.seal("x", tmp_path / "x.sealed", context={"study": "<script>"})
    assert "simulated" in repr(artifact)
    assert "session/default (version 1)" in repr(artifact)
    page = artifact._repr_html_()
    assert "simulated" in page
    assert "<script>" not in page
    hostile = dataclasses.replace(artifact, path="<b>", key="<i>", codec="<u>", label="<s>")
    assert not any(tag in hostile._repr_html_() for tag in ("<b>", "<i>", "<u>", "<s>"))


def test_open_reads_at_any_position_and_writes_a_stream(tmp_path: Path) -> None:
    with sealbook.open(tmp_path / "x.sealed", "wb") as file:
        for _ in range(300):
            file.write(b"0123456789" * 1000)
    with sealbook.open(tmp_path / "x.sealed") as file:
        file.seek(2_000_003)
        assert file.read(4) == b"3456"
        file.seek(0, os.SEEK_END)
        assert file.tell() == 3_000_000


def test_an_exception_in_the_block_leaves_no_file(tmp_path: Path) -> None:
    class InterruptedWorkError(Exception):
        pass

    with pytest.raises(InterruptedWorkError), sealbook.open(tmp_path / "x.sealed", "wb") as file:
        file.write(b"half")
        raise InterruptedWorkError
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda d: sealbook.unseal(d / "missing"), InputError),
        (lambda d: sealbook.unseal(d), InputError),
        (lambda d: sealbook.unseal(""), InputError),
        (lambda d: sealbook.unseal("a\0b"), InputError),
        (lambda d: sealbook.unseal(b"bytes"), InputError),
        (lambda d: sealbook.seal("x", d), InputError),
        (lambda d: sealbook.seal("x", d / "no" / "dir"), InputError),
        (lambda d: sealbook.seal("x", d / "x", key="Bad Name"), InputError),
        (lambda d: sealbook.seal("x", d / "x", context={"a": 1}), InputError),
        (lambda d: sealbook.unseal(d / "x", key="Bad Name"), InputError),
        (lambda d: sealbook.open(d / "x", "r"), InputError),
        (lambda d: sealbook.seal(d / "missing", d / "x"), InputError),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(
    call: Any, error: type[Exception], tmp_path: Path
) -> None:
    with pytest.raises(error) as caught:
        call(tmp_path)
    assert isinstance(caught.value, SealbookError)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_not_sealed_is_named(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"x" * 10_000)
    with pytest.raises(NotSealedError):
        sealbook.unseal(tmp_path / "plain")


def test_a_file_of_an_unknown_codec_asks_for_an_update(tmp_path: Path, brokered: Any) -> None:
    with sealing.open_sealed(
        tmp_path / "x", "wb", keys=brokered.remote, key="session/default", codec="pickle"
    ) as file:
        file.write(b"cos\nsystem\n(S'touch pwned'\ntR.")
    with pytest.raises(InputError, match="update sealbook"):
        sealbook.unseal(tmp_path / "x")


def test_authentic_nonsense_is_not_handed_to_the_user(tmp_path: Path, brokered: Any) -> None:
    for codec in ("dataframe", "numpy", "arrow", "sklearn", "keras", "xgboost", "directory"):
        with sealing.open_sealed(
            tmp_path / codec, "wb", keys=brokered.remote, key="session/default", codec=codec
        ) as file:
            file.write(b"nonsense")
        with pytest.raises(ContentError):
            sealbook.unseal(tmp_path / codec, to=tmp_path / "out" if codec == "directory" else None)


def test_an_unattested_process_uses_unguarded_keys_and_says_so(tmp_path: Path, keyring: Keyring) -> None:
    artifact = sealbook.seal("x", tmp_path / "x.sealed", key="open")
    assert artifact.label == "not attested"
    assert "not attested" in repr(artifact)
    assert sealbook.unseal(tmp_path / "x.sealed") == "x"
    assert sealing.inspect(tmp_path / "x.sealed").sealer == {"attested": False}
    for key in (None, "guarded"):
        with pytest.raises(KeyUnavailableError, match="not attested"):
            sealbook.seal("x", tmp_path / "y.sealed", key=key)
    assert not (tmp_path / "y.sealed").exists()


def test_sizes_read_well() -> None:
    assert artifacts._bytes(5) == "5 bytes"
    assert artifacts._bytes(1024) == "1.0 KiB"
    assert artifacts._bytes(3 * 2**30) == "3.0 GiB"
