"""Quotes and mount keys from Gramine's pseudo-files, with a stand-in for ``/dev/attestation``.

The stand-in is a directory with real files, and a pipe where Gramine makes a quote at the moment the file
is opened. What Gramine itself does is tested where Gramine runs.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from sealbook.attestation import (
    Attester,
    GramineAttester,
    Quote,
    UnattestedAttester,
    UnattestedStatement,
    gramine,
    mount_key,
    open_attester,
    set_mount_key,
)
from sealbook.errors import InputError, RefusedError, SealbookError

WANTED = bytes(range(64))


class StandIn:
    """Stands in for /dev/attestation of an SGX enclave, which needs Gramine and hardware."""

    def __init__(self, directory: Path, quote: Callable[[bytes], bytes]) -> None:
        self.directory = directory
        self._quote = quote
        self._over = False
        (directory / "keys").mkdir()
        (directory / "attestation_type").write_bytes(b"dcap")
        (directory / "user_report_data").write_bytes(bytes(64))
        self._new_pipe()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def report_data(self) -> bytes:
        return (self.directory / "user_report_data").read_bytes()

    def close(self) -> None:
        self._over = True
        reader = os.open(self.directory / "quote", os.O_RDONLY | os.O_NONBLOCK)
        self._thread.join(timeout=30)
        os.close(reader)

    def _new_pipe(self) -> None:
        os.mkfifo(self.directory / "next")
        (self.directory / "next").replace(self.directory / "quote")

    def _serve(self) -> None:
        while not self._over:
            # Returns when somebody opens the quote; whoever opens it next gets a pipe of their own.
            writer = os.open(self.directory / "quote", os.O_WRONLY)
            self._new_pipe()
            time.sleep(0.002)
            with open(writer, "wb", buffering=0) as pipe:
                if not self._over:
                    pipe.write(self._quote(self.report_data()))


@pytest.fixture
def dev(scene: Any, tmp_path: Path) -> Iterator[StandIn]:
    files = StandIn(tmp_path, lambda data: scene.quote(report_data=data[:64]))
    yield files
    files.close()


def directory_with(path: Path, **files: bytes) -> Path:
    """A directory whose files never change, as a host that answers for Gramine could have."""
    (path / "keys").mkdir(parents=True)
    for name, content in files.items():
        (path / name).write_bytes(content)
    return path


@pytest.fixture
def frozen(scene: Any, tmp_path: Path) -> Path:
    return directory_with(
        tmp_path / "frozen",
        attestation_type=b"dcap",
        user_report_data=bytes(64),
        quote=scene.quote(report_data=WANTED),
    )


def assert_sentence(error: pytest.ExceptionInfo[SealbookError]) -> None:
    assert str(error.value).endswith(".")
    assert "\n" not in str(error.value)


# -- quotes ------------------------------------------------------------------------------------


def test_a_quote_is_made_over_exactly_the_bytes_asked_for_and_passes_the_verifier(
    dev: StandIn, scene: Any
) -> None:
    attester = open_attester(dev.directory)
    assert isinstance(attester, GramineAttester)
    assert isinstance(attester, Attester)
    assert (attester.tee, attester.simulated) == ("sgx", False)
    quote = attester.quote(scene.expected)
    assert dev.report_data() == scene.expected
    assert scene.verify(quote).accepted


@pytest.mark.parametrize("length", [0, 1, 32, 63, 65, 128, 256])
def test_report_data_of_another_length_is_refused_before_gramine_pads_or_cuts_it(
    dev: StandIn, length: int
) -> None:
    with pytest.raises(ValueError, match="64 bytes"):
        GramineAttester(dev.directory).quote(b"\x01" * length)
    assert dev.report_data() == bytes(64)


def test_of_many_threads_each_gets_the_quote_over_its_own_bytes(dev: StandIn) -> None:
    wanted = [hashlib.sha512(str(number).encode()).digest() for number in range(60)]
    # Several attesters: the files are one per process, and so is the lock.
    with ThreadPoolExecutor(6) as pool:
        quotes = list(pool.map(lambda data: GramineAttester(dev.directory).quote(data), wanted))
    assert [Quote.parse(quote).report.report_data for quote in quotes] == wanted


def test_a_quote_over_other_bytes_is_refused(frozen: Path) -> None:
    attester = GramineAttester(frozen)
    assert Quote.parse(attester.quote(WANTED)).report.report_data == WANTED
    for other in (bytes(64), WANTED[:63] + b"\0", b"\1" + WANTED[1:]):
        with pytest.raises(RefusedError, match="other report data") as refused:
            attester.quote(other)
        assert_sentence(refused)


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda quote: b"",
    "cut off": lambda quote: quote[:-1],
    "only the signed part": lambda quote: quote[:432],
    "longer": lambda quote: quote + b"\0",
    "of another version": lambda quote: b"\4" + quote[1:],
    "a statement": lambda quote: UnattestedStatement("gramine-direct", WANTED).encode(),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_what_is_no_quote_is_refused(frozen: Path, what: str) -> None:
    file = frozen / "quote"
    file.write_bytes(DAMAGE[what](file.read_bytes()))
    with pytest.raises(RefusedError, match=r"as a quote is none.*AESM") as refused:
        GramineAttester(frozen).quote(WANTED)
    assert_sentence(refused)


def test_a_quote_longer_than_gramine_makes_is_not_read_to_its_end(frozen: Path) -> None:
    (frozen / "quote").unlink()
    (frozen / "quote").symlink_to("/dev/zero")
    with pytest.raises(RefusedError, match="more than the 8192 bytes"):
        GramineAttester(frozen).quote(WANTED)


@pytest.mark.parametrize("name", ["user_report_data", "quote"])
def test_without_one_of_the_files_there_is_no_quote(frozen: Path, name: str) -> None:
    (frozen / name).unlink()
    with pytest.raises(RefusedError, match=rf"{name} cannot be .* \(No such file") as refused:
        GramineAttester(frozen).quote(WANTED)
    assert_sentence(refused)
    assert "sealbook doctor" in str(refused.value)


def test_report_data_that_cannot_be_written_leads_to_no_quote(frozen: Path) -> None:
    (frozen / "user_report_data").unlink()
    (frozen / "user_report_data").symlink_to("/dev/full")
    with pytest.raises(RefusedError, match="cannot be written"):
        GramineAttester(frozen).quote(WANTED)


def test_report_data_that_is_written_in_part_leads_to_no_quote(
    frozen: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    # A stand-in for a pseudo-file that takes less than it is given; real files here take all.
    monkeypatch.setattr(gramine.os, "write", lambda descriptor, data: write(descriptor, data[:63]))
    with pytest.raises(RefusedError, match="took 63 bytes of 64"):
        GramineAttester(frozen).quote(WANTED)


@pytest.mark.parametrize("kind", [b"none", b"", b"epid", b"dcap\n", b"DCAP", b"dcap2", b"\xff\x1b[2J"])
def test_an_image_without_dcap_attestation_is_refused_and_does_not_count_as_unattested(
    frozen: Path, kind: bytes
) -> None:
    (frozen / "attestation_type").write_bytes(kind)
    for make in (GramineAttester, open_attester):
        with pytest.raises(RefusedError, match=r"attestation type .* build it anew") as refused:
            make(frozen)
        assert_sentence(refused)
        assert "\x1b" not in str(refused.value)


def test_an_attestation_type_without_end_is_refused(frozen: Path) -> None:
    (frozen / "attestation_type").write_bytes(b"dcap" * 100)
    with pytest.raises(RefusedError, match="more than the 64 bytes"):
        GramineAttester(frozen)


# -- no files, no evidence ---------------------------------------------------------------------


def test_without_any_attestation_file_the_kernel_says_that_it_is_not_attested(tmp_path: Path) -> None:
    # As gramine-direct has it: only the keys of encrypted mounts.
    for directory in (directory_with(tmp_path / "direct"), tmp_path / "nothing at all"):
        attester = open_attester(directory)
        assert isinstance(attester, UnattestedAttester)
        assert isinstance(attester, Attester)
        assert (attester.tee, attester.simulated) == ("gramine-direct", False)
        made = UnattestedStatement.parse(attester.quote(WANTED))
        assert (made.tee, made.report_data) == ("gramine-direct", WANTED)


@pytest.mark.parametrize("name", ["attestation_type", "user_report_data", "quote"])
def test_one_attestation_file_is_enough_never_to_fall_back_to_being_unattested(
    tmp_path: Path, name: str
) -> None:
    directory = directory_with(tmp_path / "dev", **{name: b"x"})
    with pytest.raises(RefusedError):
        open_attester(directory)
    # Also one that leads nowhere.
    (directory / name).unlink()
    (directory / name).symlink_to("nowhere")
    with pytest.raises(RefusedError):
        open_attester(directory)


def test_files_that_cannot_be_looked_up_are_not_absent_files(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(RefusedError, match="cannot be looked up"):
        open_attester(tmp_path / "file")


# -- keys of encrypted mounts ------------------------------------------------------------------


def test_the_key_of_a_mount_is_derived_with_hkdf_and_not_the_broker_s_own() -> None:
    app_key = bytes(range(32))
    # RFC 5869 by hand: extract with a salt of zeros, then one block of expand.
    extracted = hmac.digest(bytes(32), app_key, "sha256")
    info = b"sealbook gramine mount key v1\0data"
    derived = mount_key(app_key, "data")
    assert derived == hmac.digest(extracted, info + b"\x01", "sha256")[:16]
    assert derived not in app_key
    assert mount_key(app_key, "scratch") != derived
    assert mount_key(b"\xff" + app_key[1:], "data") != derived


@pytest.mark.parametrize("length", [0, 16, 31, 33, 64])
def test_only_a_whole_key_is_derived_from(length: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        mount_key(bytes(length), "data")


def test_gramine_is_given_exactly_the_sixteen_bytes(tmp_path: Path) -> None:
    directory = directory_with(tmp_path / "dev")
    (directory / "keys" / "data").write_bytes(b"")
    set_mount_key("data", b"0123456789abcdef", directory)
    assert (directory / "keys" / "data").read_bytes() == b"0123456789abcdef"


@pytest.mark.parametrize("length", [0, 15, 17, 32])
def test_a_mount_key_of_another_length_is_not_written(tmp_path: Path, length: int) -> None:
    directory = directory_with(tmp_path / "dev")
    (directory / "keys" / "data").write_bytes(b"")
    with pytest.raises(ValueError, match="16 bytes"):
        set_mount_key("data", bytes(length), directory)
    assert (directory / "keys" / "data").read_bytes() == b""


def test_a_key_for_a_mount_that_the_image_has_not_is_refused_and_makes_no_file(tmp_path: Path) -> None:
    directory = directory_with(tmp_path / "dev")
    with pytest.raises(RefusedError, match="no encrypted mount with the key 'data'") as refused:
        set_mount_key("data", bytes(16), directory)
    assert_sentence(refused)
    assert not (directory / "keys" / "data").exists()


@pytest.mark.parametrize(
    "name", ["", "_sgx_mrenclave", "_sgx_mrsigner", "..", "a/b", "../x", "a\0", "a b", "x" * 65, "\ud800", 7]
)
def test_gramine_s_own_keys_and_names_that_are_paths_are_refused(tmp_path: Path, name: Any) -> None:
    directory = directory_with(tmp_path / "dev")
    for own in ("_sgx_mrenclave", "_sgx_mrsigner"):
        (directory / "keys" / own).write_bytes(b"")
    with pytest.raises(InputError, match="is named with"):
        set_mount_key(name, bytes(16), directory)
    with pytest.raises(InputError, match="is named with"):
        mount_key(bytes(32), name)
    assert (directory / "keys" / "_sgx_mrenclave").read_bytes() == b""


def test_a_mount_key_that_gramine_does_not_take_stands_in_no_error(tmp_path: Path) -> None:
    directory = directory_with(tmp_path / "dev")
    (directory / "keys" / "data").symlink_to("/dev/full")
    key = b"\xabsecret of 16 b."
    with pytest.raises(RefusedError, match="cannot be written") as refused:
        set_mount_key("data", key, directory)
    assert_sentence(refused)
    cause = refused.value.__cause__, refused.value.__context__
    for text in (str(refused.value), repr(refused.value), repr(cause)):
        assert key.hex() not in text
        assert "secret" not in text


def test_a_key_that_is_taken_in_part_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = directory_with(tmp_path / "dev")
    (directory / "keys" / "data").write_bytes(b"")
    write = os.write
    monkeypatch.setattr(gramine.os, "write", lambda descriptor, data: write(descriptor, data[:8]))
    with pytest.raises(RefusedError, match="took 8 bytes of 16"):
        set_mount_key("data", bytes(16), directory)
