"""The simulated platform: private on disk, safe to race for, always current, always labelled."""

from __future__ import annotations

import fcntl
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sealbook.attestation import (
    Attester,
    CollateralMemory,
    Measurement,
    Policy,
    Quote,
    SimulatedPlatform,
    Verifier,
    policy_text,
)
from sealbook.attestation.simulated import ISV_PROD_ID, ISV_SVN
from sealbook.errors import InputError, RefusedError

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
MEASUREMENT = Measurement(mrenclave=b"\xaa" * 32)


def _policy(platform: SimulatedPlatform) -> Policy:
    text = policy_text(
        mrenclave=MEASUREMENT.mrenclave,
        root=platform.root_certificate,
        now=NOW,
        mrsigner=platform.mrsigner,
        isv_prod_id=ISV_PROD_ID,
        min_isv_svn=ISV_SVN,
    )
    return Policy.parse(text)


def test_its_quotes_pass_the_verifier_and_are_labelled_simulated(tmp_path: Path) -> None:
    platform = SimulatedPlatform.load_or_create(tmp_path / "p", now=NOW)
    attester = platform.attester(MEASUREMENT)
    assert isinstance(attester, Attester)
    assert attester.simulated
    assert attester.tee == "sgx"
    said = bytes(range(64))
    result = Verifier(_policy(platform)).verify(
        attester.quote(said), platform.collateral(), now=NOW, expected_report_data=said
    )
    assert result.require().label == "simulated"
    assert (result.isv_prod_id, result.isv_svn) == (ISV_PROD_ID, ISV_SVN)


def test_its_keys_are_readable_by_the_user_only(tmp_path: Path) -> None:
    platform = SimulatedPlatform.load_or_create(tmp_path / "p", now=NOW)
    assert stat.S_IMODE(platform.directory.stat().st_mode) == 0o700
    keys = list(platform.directory.glob("*.key.pem"))
    assert len(keys) == 6
    for key in keys:
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert "SIMULATED" in (platform.directory / "README").read_text()
    platform.directory.chmod(0o755)
    SimulatedPlatform.load_or_create(tmp_path / "p")
    assert stat.S_IMODE(platform.directory.stat().st_mode) == 0o700


def test_no_private_key_is_in_what_it_shows(tmp_path: Path) -> None:
    platform = SimulatedPlatform.load_or_create(tmp_path / "p", now=NOW)
    shown = repr(platform) + repr(platform._forge) + platform.collateral().to_json().decode()
    assert "PRIVATE" not in shown
    assert "PrivateKey" not in shown


def test_it_stays_the_same_platform(tmp_path: Path) -> None:
    one = SimulatedPlatform.load_or_create(tmp_path / "p", now=NOW)
    two = SimulatedPlatform.load_or_create(tmp_path / "p", now=NOW)
    other = SimulatedPlatform.load_or_create(tmp_path / "q", now=NOW)
    assert one.root_certificate == two.root_certificate != other.root_certificate
    assert one.mrsigner == two.mrsigner != other.mrsigner
    assert one.collateral() == two.collateral()
    ppids = {bytes(Quote.parse(p.attester(MEASUREMENT).quote(bytes(64))).pck.ppid) for p in (one, two, other)}
    assert len(ppids) == 2
    assert all(ppid.startswith(b"SIMULATED") for ppid in ppids)
    quote = other.attester(MEASUREMENT).quote(bytes(64))
    assert not Verifier(_policy(one)).verify(quote, other.collateral(), now=NOW).accepted


def test_processes_that_race_make_one_platform(tmp_path: Path) -> None:
    code = (
        "import sys; from sealbook.attestation import SimulatedPlatform; "
        "p = SimulatedPlatform.load_or_create(sys.argv[1]); "
        "print(p.mrsigner.hex(), p.collateral().to_json().hex())"
    )
    racers = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "p")], stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    said = {racer.communicate(timeout=60)[0] for racer in racers}
    assert len(said) == 1
    assert all(racer.returncode == 0 for racer in racers)


def test_a_process_waits_while_another_one_makes_the_platform(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    code = (
        "import sys; from sealbook.attestation import SimulatedPlatform as S; S.load_or_create(sys.argv[1])"
    )
    with open(tmp_path / "p" / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        waiting = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "p")])
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(3)
        assert not (tmp_path / "p" / "complete").exists()
    assert waiting.wait(60) == 0
    assert (tmp_path / "p" / "complete").exists()


def test_its_collateral_is_renewed_before_it_expires_and_never_goes_back(tmp_path: Path) -> None:
    memory = CollateralMemory(tmp_path / "seen.json")
    SimulatedPlatform.load_or_create(tmp_path / "p", now=NOW)
    issued = set()
    for days in (0, 1, 14, 16, 29, 31, 40, 80, 300):
        now = NOW + timedelta(days=days)
        platform = SimulatedPlatform.load_or_create(tmp_path / "p", now=now)
        collateral = platform.collateral()
        issued.add(collateral.statement("tcb_info")["issueDate"])
        verifier = Verifier(_policy(platform), memory=memory)
        result = verifier.verify(platform.attester(MEASUREMENT).quote(bytes(64)), collateral, now=now)
        assert result.accepted, (days, result.refusals)
        assert result.collateral_expires_at is not None
        assert result.collateral_expires_at - now > timedelta(days=14)
    assert len(issued) == 5


def test_damaged_collateral_is_made_again(tmp_path: Path) -> None:
    platform = SimulatedPlatform.load_or_create(tmp_path / "p", now=NOW)
    (platform.directory / "collateral.json").write_bytes(b"{")
    assert platform.collateral().statement("tcb_info")["id"] == "SGX"
    (platform.directory / "collateral.json").unlink()
    assert platform.collateral().statement("tcb_info")["id"] == "SGX"


def test_a_platform_that_was_only_half_made_is_made_anew(tmp_path: Path) -> None:
    directory = tmp_path / "p"
    SimulatedPlatform.load_or_create(directory, now=NOW)
    (directory / "complete").unlink()
    (directory / "pck.cert.pem").unlink()
    assert SimulatedPlatform.load_or_create(directory, now=NOW).collateral()


@pytest.mark.parametrize("name", ["root.key.pem", "pck.cert.pem"])
def test_a_damaged_platform_is_refused_with_one_sentence(tmp_path: Path, name: str) -> None:
    directory = tmp_path / "p"
    SimulatedPlatform.load_or_create(directory, now=NOW)
    (directory / name).write_bytes(b"nothing")
    with pytest.raises(InputError, match="is damaged; delete the directory"):
        SimulatedPlatform.load_or_create(directory)
    (directory / name).unlink()
    with pytest.raises(InputError, match="cannot be used"):
        SimulatedPlatform.load_or_create(directory)


def test_a_directory_that_cannot_be_made_is_refused_with_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be used"):
        SimulatedPlatform.load_or_create(tmp_path / "file")


@pytest.mark.parametrize("length", [0, 32, 63, 65])
def test_report_data_of_another_length_is_refused(tmp_path: Path, length: int) -> None:
    attester = SimulatedPlatform.load_or_create(tmp_path / "p", now=NOW).attester(MEASUREMENT)
    with pytest.raises(ValueError, match="64 bytes"):
        attester.quote(bytes(length))


def test_it_has_no_collateral_for_another_platform(tmp_path: Path, real_quotes: Path) -> None:
    platform = SimulatedPlatform.load_or_create(tmp_path / "p", now=NOW)
    source = platform.source()
    own = Quote.parse(platform.attester(MEASUREMENT).quote(bytes(64)))
    assert source.collateral_for(own) == platform.collateral()
    genuine = Quote.parse((real_quotes / "phala_sgx" / "quote.bin").read_bytes())
    with pytest.raises(RefusedError, match="no collateral"):
        source.collateral_for(genuine)
