"""Attack case 51 and the policy file: what is refused, with line and cause, and what it says it admits."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from sealbook.attestation import Policy, PolicyError, policy_text
from sealbook.attestation.intel import ROOT_CA_DER
from sealbook.attestation.simulated import CertificateSpec, Forge
from sealbook.attestation.simulated.forge import new_key, pem

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


def _text(**arguments: Any) -> str:
    return policy_text(**{"mrenclave": b"\xaa" * 32, "root": None, "now": NOW, **arguments})


def _line(text: str, part: str) -> int:
    return next(number for number, line in enumerate(text.splitlines(), 1) if part in line)


def test_the_written_policy_is_read_back_with_the_strictest_values() -> None:
    policy = Policy.parse(_text())
    assert policy.trust_root.kind == "intel"
    assert not policy.simulated
    assert policy.identities[0].mrenclave == (b"\xaa" * 32,)
    assert policy.tcb == type(policy.tcb)()
    assert policy.collateral == type(policy.collateral)()
    assert policy.freshness == type(policy.freshness)()
    assert policy.release.keys == ("*",)
    assert Policy.render(mrenclave=b"\xaa" * 32, root=None, now=NOW) == _text()


def test_a_policy_of_required_fields_only_has_the_strictest_values_and_releases_nothing() -> None:
    text = f"""
        schema = 1
        id = "p"
        created = 2026-01-01T00:00:00Z
        expires = 2027-01-01T00:00:00Z
        tee = "sgx"
        trust_root = "intel"
        [[identity]]
        name = "k"
        mrenclave = ["{"ab" * 32}"]
    """
    policy = Policy.parse(text)
    assert policy.tcb.allowed_statuses == ("UpToDate",)
    assert policy.tcb.equal_eval_data_numbers
    flags = (policy.tcb.allow_dynamic_platform, policy.tcb.allow_cached_keys, policy.tcb.allow_smt)
    assert flags == (False, False, False)
    assert policy.collateral.monotonic
    assert not policy.release.admits_key("anything")


@pytest.mark.parametrize(
    ("after", "field", "where"),
    [
        ("version = 1", "colour = 1", ""),
        ("name = ", "colour = 1", " in [identity]"),
        ("[tcb]", "allow_debug = true", " in [tcb]"),
        ("[collateral]", "colour = 1", " in [collateral]"),
        ("[freshness]", "colour = 1", " in [freshness]"),
        ("[release]", "colour = 1", " in [release]"),
    ],
)
def test_attack_51_an_unknown_field_is_refused_with_its_line(after: str, field: str, where: str) -> None:
    lines = _text().splitlines()
    place = next(index for index, line in enumerate(lines) if line.startswith(after))
    lines.insert(place + 1, field)
    name = field.partition(" ")[0]
    with pytest.raises(PolicyError) as caught:
        Policy.parse("\n".join(lines), source="p.toml")
    assert str(caught.value) == f"p.toml, line {place + 2}: unknown field '{name}'{where}."
    assert caught.value.exit_code == 2


def test_attack_51_an_unknown_table_is_refused_with_its_line() -> None:
    text = _text() + "\n[debug]\nallow = true\n"
    with pytest.raises(PolicyError, match=rf"line {_line(text, '[debug]')}: unknown field 'debug'"):
        Policy.parse(text)


def test_attack_51_a_policy_other_than_the_approved_one_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "kernel.toml"
    file.write_text(_text())
    approved = Policy.load(file).digest
    file.write_text(_text().replace("# ", "#   "))
    assert Policy.load(file, digest=approved).digest == approved
    file.write_text(_text(allowed_statuses=("UpToDate", "OutOfDate")))
    with pytest.raises(PolicyError, match="not the policy that was approved"):
        Policy.load(file, digest=approved)


@pytest.mark.parametrize("version", [0, 2, 99])
def test_attack_51_another_schema_version_is_refused(version: int) -> None:
    with pytest.raises(PolicyError, match=r"line 3: schema .* is not known"):
        Policy.parse(_text().replace("schema = 1", f"schema = {version}"))


@pytest.mark.parametrize(
    ("line", "replacement", "cause"),
    [
        ("schema = 1", "", "schema is missing"),
        ('trust_root = "intel"', "", "trust_root is missing"),
        ('trust_root = "intel"', 'trust_root = "any"', "trust_root is"),
        ('trust_root = "intel"', "trust_root = 1", "trust_root is"),
        ('tee = "sgx"', "", "tee is missing"),
        ('tee = "sgx"', 'tee = "none"', "tee is 'sgx'"),
        ('id = "kernel"', "", "id is missing"),
        ('id = "kernel"', 'id = "../x"', "id has letters"),
        ("created = 2026-11-23T12:00:00Z", "", "created is missing"),
        ("created = 2026-11-23T12:00:00Z", "created = 2026-11-23T12:00:00", "a time with zone"),
        ("created = 2026-11-23T12:00:00Z", 'created = "today"', "a time with zone"),
        ("expires = 2027-11-23T12:00:00Z", "", "expires is missing"),
        ("expires = 2027-11-23T12:00:00Z", "expires = 2025-11-23T12:00:00Z", "expires before"),
        ("[[identity]]", "[identity]", "no enclave is admitted"),
        ('mrenclave = ["', 'mrenclave = ["ab', "mrenclave is a list of 64"),
        ('name = "kernel"', "", "name is missing"),
        ("monotonic = true ", "monotonic = 1", "monotonic is true or false"),
        ("grace_seconds = 0 ", "grace_seconds = -1 ", "grace_seconds is a whole number"),
        ("grace_seconds = 0 ", "grace_seconds = true ", "grace_seconds is a whole number"),
        ("sgx_types = [0, 1, 2]", 'sgx_types = ["0"]', "sgx_types is a list"),
        ("sgx_types = [0, 1, 2]", "sgx_types = []", "sgx_types is a list"),
        ('allowed_statuses = ["UpToDate"]', 'allowed_statuses = ["Revoked"]', "possible are"),
        ('allowed_statuses = ["UpToDate"]', "allowed_statuses = []", "no TCB status is allowed"),
        ("ppid_deny = []", 'ppid_deny = ["xyz"]', "ppid_deny is a list of 32"),
        ("nonce_ttl_seconds = 60", "nonce_ttl_seconds = 0", "nonce_ttl_seconds is a whole number"),
        ('keys = ["*"]', 'keys = ["a*b"]', "only stand at the end"),
        ("[tcb]", "[tcb", "not TOML"),
        ("[tcb]", 'tcb = "x"', "tcb is a table|unknown field"),
    ],
)
def test_a_wrong_field_is_refused_with_its_cause(line: str, replacement: str, cause: str) -> None:
    text = _text()
    assert line in text
    with pytest.raises(PolicyError, match=cause) as caught:
        Policy.parse(text.replace(line, replacement, 1), source="p.toml")
    assert str(caught.value).startswith("p.toml")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("field", "table"),
    [
        ("grace_seconds", "[tcb]"),
        ("max_age_seconds", "[collateral]"),
        ("nonce_ttl_seconds", "[freshness]"),
        ("ttl_seconds", "[release]"),
    ],
)
@pytest.mark.parametrize("seconds", [10 * 365 * 24 * 3600 + 1, 2**40])
def test_a_time_longer_than_ten_years_is_refused_with_its_line(field: str, table: str, seconds: int) -> None:
    lines = [line for line in _text().splitlines() if not line.startswith(f"{field} ")]
    lines.insert(lines.index(table) + 1, f"{field} = {seconds}")
    line = lines.index(table) + 2
    with pytest.raises(PolicyError, match=rf"p\.toml, line {line}: {field} is a whole number from [01] to"):
        Policy.parse("\n".join(lines), source="p.toml")


@pytest.mark.parametrize("field", ["created", "expires"])
@pytest.mark.parametrize("when", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_a_time_that_utc_does_not_have_is_refused_with_its_line(field: str, when: str) -> None:
    lines = [f"{field} = {when}" if line.startswith(f"{field} ") else line for line in _text().splitlines()]
    line = lines.index(f"{field} = {when}") + 1
    with pytest.raises(PolicyError, match=rf"line {line}: {field} is a time that does not exist in UTC"):
        Policy.parse("\n".join(lines))


def test_ten_years_are_accepted() -> None:
    text = _text().replace("ttl_seconds = 43200", f"ttl_seconds = {10 * 365 * 24 * 3600}", 1)
    assert NOW + timedelta(seconds=Policy.parse(text).release.ttl_seconds) > NOW


def test_the_line_of_a_wrong_field_in_the_second_identity_is_the_second_ones() -> None:
    text = _text() + '\n[[identity]]\nname = "other"\nmrenclave = ["00"]\n'
    with pytest.raises(PolicyError, match=f"line {len(text.splitlines())}: mrenclave"):
        Policy.parse(text)


def _with_identity(fields: str) -> str:
    text = _text()
    return text.replace(f'mrenclave = ["{"aa" * 32}"]', fields, 1)


@pytest.mark.parametrize(
    ("fields", "cause"),
    [
        ("", "mrenclave is missing"),
        (f'mrsigner = "{"bb" * 32}"', "mrenclave is missing"),
        ("mrsigner_only = true", "mrsigner_only needs"),
        (f'mrsigner_only = true\nmrsigner = "{"bb" * 32}"', "mrsigner_only needs"),
        (
            f'mrsigner_only = true\nmrsigner = "{"bb" * 32}"\nisv_prod_id = 1\nmin_isv_svn = 1\n'
            f'mrenclave = ["{"aa" * 32}"]',
            "contradicts",
        ),
        (f'mrenclave = ["{"aa" * 32}"]\nattributes_value = "{"01" * 16}"', "outside attributes_mask"),
        (f'mrenclave = ["{"aa" * 32}"]\nmisc_select_value = 1', "outside misc_select_mask"),
        (
            f'mrenclave = ["{"aa" * 32}"]\nattributes_mask = "02{"00" * 15}"\n'
            f'attributes_value = "02{"00" * 15}"',
            "never admitted",
        ),
        (
            f'mrenclave = ["{"aa" * 32}"]\nattributes_mask = "01{"00" * 15}"',
            "never admitted",
        ),
    ],
)
def test_an_identity_that_admits_too_much_is_refused(fields: str, cause: str) -> None:
    with pytest.raises(PolicyError, match=cause):
        Policy.parse(_with_identity(fields))


def test_two_identities_of_one_name_are_refused() -> None:
    text = _text() + f'\n[[identity]]\nname = "kernel"\nmrenclave = ["{"00" * 32}"]\n'
    with pytest.raises(PolicyError, match="used twice"):
        Policy.parse(text)


def test_a_simulated_root_must_be_declared() -> None:
    forge = Forge.create(NOW)
    text = _text(root=forge.root)
    assert Policy.parse(text).simulated
    with pytest.raises(PolicyError, match="simulated = true"):
        Policy.parse(text.replace("simulated = true", ""))
    with pytest.raises(PolicyError, match="simulated = true"):
        Policy.parse(text.replace("simulated = true", "simulated = false"))


def test_intels_root_cannot_be_declared_simulated_and_is_recognised() -> None:
    root = x509.load_der_x509_certificate(ROOT_CA_DER)
    text = _text().replace(
        'trust_root = "intel"', f'[trust_root]\ncertificate = """\n{pem(root).decode()}"""\n'
    )
    assert Policy.parse(text).trust_root.kind == "intel"
    with pytest.raises(PolicyError, match="Intel's root, which is not simulated"):
        Policy.parse(text.replace("[trust_root]", "[trust_root]\nsimulated = true"))


def test_a_root_that_is_unfit_or_not_named_simulated_is_refused() -> None:
    key = new_key()
    unnamed = CertificateSpec("Some Root CA", NOW, authority=True).issue(
        key, issuer="Some Root CA", issuer_key=key
    )
    leaf = CertificateSpec("SIMULATED leaf", NOW).issue(key, issuer="SIMULATED leaf", issuer_key=key)
    not_self_signed = Forge.create(NOW).pck_ca
    for root, cause in (
        (unnamed, "must contain SIMULATED"),
        (leaf, "not a certificate authority"),
        (not_self_signed, "not a self-signed"),
    ):
        with pytest.raises(PolicyError, match=cause):
            _text(root=root)


def test_two_roots_in_one_policy_are_refused() -> None:
    one, other = Forge.create(NOW).root, Forge.create(NOW).root
    text = _text(root=one).replace(pem(one).decode(), pem(one, other).decode())
    with pytest.raises(PolicyError, match="not one PEM certificate"):
        Policy.parse(text)
    with pytest.raises(PolicyError, match="not TOML"):
        Policy.parse('trust_root = "intel"\n' + _text(root=one))


def test_a_policy_outside_its_time_is_refused(scene: Any, refused_by: Any) -> None:
    policy = scene.policy(expires=scene.now + timedelta(hours=1))
    assert scene.verify(policy=policy).accepted
    late = scene.now + timedelta(hours=1)
    with pytest.raises(PolicyError, match="expired on"):
        policy.check_valid(late)
    refused_by(scene.verify(policy=policy, now=late), "policy")
    early = scene.policy(created=scene.now + timedelta(seconds=1))
    with pytest.raises(PolicyError, match="in force only from"):
        early.check_valid(scene.now)
    refused_by(scene.verify(policy=early), "policy")


def test_the_digest_follows_the_meaning_and_not_the_layout() -> None:
    policy = Policy.parse(_text())
    assert Policy.parse("# a comment\n" + _text()).digest == policy.digest
    for change in (
        {"mrenclave": b"\xab" * 32},
        {"id": "other"},
        {"days": 1},
        {"keys": ("a",)},
        {"mrsigner": bytes(32)},
        {"root": Forge.create(NOW).root},
        {"accepted_advisories": ("INTEL-SA-00001",)},
    ):
        assert Policy.parse(_text(**change)).digest != policy.digest


def test_the_explanation_names_everything_that_loosens_the_policy() -> None:
    text = _text(keys=("mine/*",), allowed_statuses=("UpToDate", "OutOfDate"))
    strict = " ".join(Policy.parse(_text()).explain())
    assert "genuine Intel SGX hardware" in strict
    assert "aaaaaaaaaaaaaaaa" in strict
    for before, after, said in (
        ("", "", "UpToDate or OutOfDate"),
        ("", "", "Releases mine/*"),
        ("allow_smt = false", "allow_smt = true", "hyper-threading"),
        ("equal_eval_data_numbers = true", "equal_eval_data_numbers = false", "different TCB evaluations"),
        ("accepted_advisories = []", 'accepted_advisories = ["INTEL-SA-1"]', "INTEL-SA-1"),
        ("ppid_allow = []", f'ppid_allow = ["{"00" * 16}"]', "Only 1 listed machines"),
        ("grace_seconds = 0 ", "grace_seconds = 86400 ", "for 1 day after"),
    ):
        sentences = Policy.parse(text.replace(before, after, 1)).explain()
        assert any(said in sentence for sentence in sentences), said
        assert said not in strict
        assert all(sentence.endswith(".") for sentence in sentences)
    only = _with_identity(f'mrsigner_only = true\nmrsigner = "{"bb" * 32}"\nisv_prod_id = 1\nmin_isv_svn = 1')
    assert "Any code of that signer is admitted" in " ".join(Policy.parse(only).explain())


def test_a_policy_file_that_is_missing_binary_or_too_long_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="cannot be read"):
        Policy.load(tmp_path / "none.toml")
    with pytest.raises(PolicyError, match="cannot be read"):
        Policy.load(tmp_path)
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PolicyError, match="not UTF-8"):
        Policy.load(tmp_path / "binary.toml")
    (tmp_path / "long.toml").write_bytes(b"#" * 300_000)
    with pytest.raises(PolicyError, match="longer than"):
        Policy.load(tmp_path / "long.toml")
    with pytest.raises(PolicyError, match="not TOML"):
        Policy.parse("x = " + "[" * 10_000)


def test_release_rules_admit_exactly_what_they_name() -> None:
    release = Policy.parse(_text(keys=("session/*", "one"))).release
    assert release.admits_key("session/a")
    assert release.admits_key("one")
    assert not release.admits_key("one2")
    assert not release.admits_key("other/session/a")
    assert release.admits_role("kernel")
    text = _text().replace("roles = []", 'roles = ["worker"]').replace("audiences = []", 'audiences = ["me"]')
    release = Policy.parse(text).release
    assert not release.admits_role("kernel")
    assert release.admits_audience("me")
    assert not release.admits_audience("you")
