"""Collateral from a service: fetched, kept, used offline, refused when it has expired."""

from __future__ import annotations

import json
import stat
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sealbook.attestation import Collateral, Policy, Quote, Verifier, policy_text
from sealbook.attestation.collateral_memory import CollateralAge
from sealbook.attestation.pccs import CollateralUnavailableError, source
from sealbook.attestation.pccs.genuine import NotGenuineError, Platform, age_of, expires_at, require_genuine
from sealbook.attestation.pccs.settings import PccsService
from sealbook.attestation.simulated import Forge, QuoteSpec, ReportSpec
from sealbook.attestation.simulated.sgx_extension import SgxExtensionSpec

from .conftest import FIRST, LAST, Answer, Side, rewritten


def refused(side: Side, quote: Quote) -> str:
    """The one sentence that a person reads."""
    with pytest.raises(CollateralUnavailableError) as caught:
        side.source().collateral_for(quote)
    sentence = str(caught.value)
    assert sentence.endswith(".")
    assert "\n" not in sentence
    assert side.service.url in sentence
    assert "SEALBOOK_PCCS" in sentence
    return sentence


# -- fetching --------------------------------------------------------------------------------------


def test_real_collateral_is_fetched_to_the_byte_and_the_verifier_accepts_it(side, pccs, quote, genuine):
    fetched = side.source().collateral_for(quote)
    assert fetched == replace(genuine, pck_certificate_chain=None)
    policy = Policy.parse(
        policy_text(
            mrenclave=quote.report.mrenclave,
            root=None,
            now=FIRST,
            allowed_statuses=("UpToDate", "ConfigurationAndSWHardeningNeeded"),
            accepted_advisories=("INTEL-SA-00289", "INTEL-SA-00615"),
        )
    )
    result = Verifier(policy).verify(
        quote.raw, fetched, now=side.now, expected_report_data=b"Hello, world!".ljust(64, b"\0")
    )
    assert result.accepted
    assert result.root == "intel"
    assert sorted(pccs.asked) == sorted(pccs.answers)


@pytest.mark.parametrize("form", ["der", "hex", "quoted hex", "pem"])
def test_revocation_lists_are_read_in_every_form_that_services_send(side, pccs, quote, genuine, form):
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    for what, der in (("pckcrl", genuine.pck_crl), ("rootcacrl", genuine.root_ca_crl)):
        pccs.find(what).body = {
            "der": der,
            "hex": der.hex().upper().encode() + b"\n",
            "quoted hex": b'"%b"' % der.hex().encode(),
            "pem": x509.load_der_x509_crl(der).public_bytes(Encoding.PEM),
        }[form]
    assert side.source().collateral_for(quote).root_ca_crl == genuine.root_ca_crl


def test_a_service_without_the_roots_list_as_intels_own_leaves_it_to_where_the_pinned_root_says(
    side, pccs, quote, genuine, start
):
    elsewhere = start(chain=None)
    elsewhere.answers["list.der"] = Answer(genuine.root_ca_crl)
    del pccs.answers["rootcacrl"]
    side.options = {"root_crl_url": elsewhere.url + "list.der"}
    assert side.source().collateral_for(quote).root_ca_crl == genuine.root_ca_crl
    assert elsewhere.asked == ["list.der"]


@pytest.mark.parametrize("status", [401, 500, 503])
def test_a_service_that_only_fails_to_give_the_roots_list_is_not_gone_around(
    side, pccs, quote, start, status
):
    elsewhere = start(chain=None)
    pccs.find("rootcacrl").status = status
    side.options = {"root_crl_url": elsewhere.url + "list.der"}
    assert f"answers with status {status}" in refused(side, quote)
    assert elsewhere.asked == []


def test_the_place_of_intels_revocation_list_is_the_one_in_intels_pinned_root():
    from sealbook.attestation.pccs.client import distribution_point

    assert distribution_point() == "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der"


def test_members_of_an_answer_may_come_in_any_order_and_with_space_between(side, pccs, quote, genuine):
    signature = genuine.tcb_info_signature.hex()
    body = f' {{"signature" : "{signature}",\n "tcbInfo" :\t{genuine.tcb_info} }}\n'
    pccs.find("tcb").body = body.encode()
    assert side.source().collateral_for(quote).tcb_info == genuine.tcb_info


# -- the cache -------------------------------------------------------------------------------------


def test_what_was_fetched_is_kept_for_the_user_alone_and_used_without_asking(side, pccs, quote):
    first = side.source().collateral_for(quote)
    pccs.asked.clear()
    assert side.source().collateral_for(quote) == first
    assert pccs.asked == []
    (file,) = side.cache.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(side.cache.stat().st_mode) == 0o700


@pytest.mark.parametrize("later", [timedelta(hours=1), timedelta(days=3), timedelta(days=20)])
def test_without_the_service_attestation_works_while_what_was_kept_is_valid(side, pccs, quote, later):
    first = side.source().collateral_for(quote)
    side.service = replace(side.service)  # the same address, where nobody answers any more
    pccs.answers = {name: Answer(status=503) for name in pccs.answers}
    side.now += later
    assert side.source().collateral_for(quote) == first


def test_it_is_valid_until_the_first_of_its_parts_expires_and_not_a_second_longer(side, pccs, quote, genuine):
    assert expires_at(genuine) == LAST - timedelta(seconds=0) or expires_at(genuine) < LAST + timedelta(
        seconds=1
    )
    side.source().collateral_for(quote)
    pccs.answers = {}
    end = expires_at(genuine)
    side.now = end - timedelta(seconds=1)
    side.source().collateral_for(quote)
    side.now = end
    assert f"expired on {end:%Y-%m-%d}" in refused(side, quote)


def test_every_part_that_has_an_end_counts_for_the_expiry(genuine):
    ends = {"tcb_info": "2025-07-19T10:56:11Z", "qe_identity": "2025-07-19T10:01:18Z"}
    assert expires_at(genuine) == datetime.fromisoformat(ends["qe_identity"])
    for name in ends:
        text = getattr(genuine, name).replace(ends[name], "2025-07-01T00:00:00Z")
        assert expires_at(replace(genuine, **{name: text})) == datetime.fromisoformat("2025-07-01T00:00:00Z")
    forge = Forge.create(FIRST)
    for name in ("pck_crl", "root_ca_crl"):
        forge.issue_collateral(issued=FIRST, validity=timedelta(days=3))
        short = replace(genuine, **{name: getattr(forge.collateral(), name)})
        assert expires_at(short) <= FIRST + timedelta(days=3)
    brief = Forge.create(FIRST - timedelta(days=1), validity=timedelta(days=2)).collateral()
    for name in ("tcb_info_issuer_chain", "qe_identity_issuer_chain", "pck_crl_issuer_chain"):
        assert expires_at(replace(genuine, **{name: getattr(brief, name)})) <= expires_at(genuine)


def test_after_a_day_and_before_the_end_the_service_is_asked_again(side, pccs, quote, genuine):
    side.source().collateral_for(quote)
    for moment in (side.now + timedelta(days=1, minutes=1), expires_at(genuine) - timedelta(hours=20)):
        pccs.asked.clear()
        side.now = moment
        side.source().collateral_for(quote)
        assert len(pccs.asked) == 4


def test_near_its_end_it_is_asked_for_again_although_it_was_fetched_today(side, pccs, quote, genuine):
    side.now = expires_at(genuine) - timedelta(days=2, hours=1)
    side.source().collateral_for(quote)
    pccs.asked.clear()
    side.now += timedelta(minutes=50)
    side.source().collateral_for(quote)
    assert pccs.asked == []
    side.now += timedelta(minutes=20)
    source_ = side.source()
    for _ in range(3):  # the service has nothing newer; asked once, not by every kernel of the minute
        source_.collateral_for(quote)
    assert len(pccs.asked) == 4


def test_a_clock_that_was_set_back_makes_what_was_kept_stale(side, pccs, quote):
    side.source().collateral_for(quote)
    pccs.asked.clear()
    side.now -= timedelta(hours=5)
    side.source().collateral_for(quote)
    assert len(pccs.asked) == 4


def test_a_service_that_lags_does_not_replace_what_is_valid_longer(start, identity, tmp_path):
    forge = Forge.create(FIRST)
    quote = Quote.parse(forge.quote(ReportSpec(), QuoteSpec()))
    service = start()
    side = Side(tmp_path / "c", PccsService(service.url, identity.ca), options={"root": forge.root})
    forge.issue_collateral(issued=FIRST, validity=timedelta(days=10))
    older = forge.collateral()
    forge.issue_collateral(issued=FIRST + timedelta(days=1), validity=timedelta(days=20))
    newer = forge.collateral()
    authority = Platform.of(quote, forge.root).authority
    service.serve(newer, fmspc=quote.fmspc, authority=authority)
    side.now = FIRST + timedelta(days=1)
    assert side.source().collateral_for(quote) == newer
    service.serve(older, fmspc=quote.fmspc, authority=authority)
    side.now += timedelta(days=2)
    for _ in range(2):
        assert side.source().collateral_for(quote) == newer
    assert len(service.asked) == 8


def test_what_is_newer_counts_although_it_ends_earlier(start, identity, tmp_path):
    forge = Forge.create(FIRST)
    quote = Quote.parse(forge.quote(ReportSpec(), QuoteSpec()))
    service = start()
    side = Side(tmp_path / "c", PccsService(service.url, identity.ca), options={"root": forge.root})
    forge.issue_collateral(issued=FIRST, validity=timedelta(days=30))
    older = forge.collateral()
    forge.issue_collateral(issued=FIRST + timedelta(days=1), validity=timedelta(days=10))
    newer = forge.collateral()
    authority = Platform.of(quote, forge.root).authority
    side.now = FIRST + timedelta(days=2)
    for served in (older, newer, older):
        service.serve(served, fmspc=quote.fmspc, authority=authority)
        assert side.source().collateral_for(quote) == (
            older if side.now < FIRST + timedelta(days=3) else newer
        )
        side.now += timedelta(days=2)
    assert len(service.asked) == 12


@pytest.mark.parametrize(
    "part",
    [
        "tcb_info_issued",
        "qe_identity_issued",
        "tcb_eval_data_number",
        "qe_eval_data_number",
        "pck_crl_number",
        "root_crl_number",
    ],
)
def test_an_answer_of_which_one_part_is_older_does_not_replace_what_was_kept(
    side, pccs, quote, monkeypatch, part
):
    """The verifier's memory would refuse it as a rollback."""
    first = side.source().collateral_for(quote)
    lagging: list[Collateral | None] = [None]
    real = source.age_of

    def age_of(collateral: Collateral) -> CollateralAge:
        age = real(collateral)
        return replace(age, **{part: getattr(age, part) - 1}) if collateral is lagging[0] else age

    fetch = source.fetch_collateral

    def fetch_collateral(*arguments: object, **options: object) -> Collateral:
        lagging[:] = [fetch(*arguments, **options)]
        return lagging[0]

    monkeypatch.setattr(source, "age_of", age_of)
    monkeypatch.setattr(source, "fetch_collateral", fetch_collateral)
    side.now += timedelta(days=2)
    found = side.source().collateral_for(quote)
    assert found == first
    assert found is not lagging[0]


def test_the_age_is_what_the_verifier_remembers(genuine):
    tcb_info, qe_identity = (genuine.statement(name) for name in ("tcb_info", "qe_identity"))
    age = age_of(genuine)
    assert age.tcb_eval_data_number == tcb_info["tcbEvaluationDataNumber"]
    assert age.qe_eval_data_number == qe_identity["tcbEvaluationDataNumber"]
    for seconds, statement in (
        (age.tcb_info_issued, tcb_info),
        (age.qe_identity_issued, qe_identity),
    ):
        assert datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") == statement["issueDate"]
    assert age.pck_crl_number >= 1
    assert age.root_crl_number >= 1


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"\xff\x00garbage"),
        lambda path: path.write_text("[" * 100_000),
        lambda path: path.write_text("{}"),
        lambda path: path.write_bytes(path.read_bytes()[:-100]),
        lambda path: path.write_bytes(path.read_bytes() + b" " * (5 << 20)),
        lambda path: rewritten(path, version=2),
        lambda path: rewritten(path, fetched="yesterday"),
        lambda path: rewritten(path, fetched="2025-06-20T00:00:00"),
        lambda path: rewritten(path, fetched=7),
        lambda path: rewritten(path, collateral="{}"),
        lambda path: rewritten(path, fmspc="000000000000"),
        lambda path: rewritten(path, url="https://elsewhere/"),
        lambda path: path.write_text(path.read_text().replace("2025-07-19", "2035-07-19")),
        lambda path: rewritten(path, more=1),
        lambda path: (path.unlink(), path.mkdir()),
    ],
)
def test_a_damaged_or_forged_cache_file_counts_as_not_there(side, pccs, quote, genuine, damage):
    side.source().collateral_for(quote)
    (file,) = side.cache.iterdir()
    damage(file)
    pccs.asked.clear()
    assert side.source().collateral_for(quote).tcb_info == genuine.tcb_info
    assert len(pccs.asked) == 4
    pccs.answers = {}
    if file.is_file():
        assert side.source().collateral_for(quote).tcb_info == genuine.tcb_info


def test_a_forged_cache_file_is_not_used_either_where_the_service_is_away(side, pccs, quote):
    side.source().collateral_for(quote)
    (file,) = side.cache.iterdir()
    file.write_text(file.read_text().replace("2025-07-19", "2035-07-19"))
    pccs.answers = {}
    assert "none was kept" in refused(side, quote)


def test_another_service_or_another_processor_has_a_cache_file_of_its_own(side, start, identity, quote):
    side.source().collateral_for(quote)
    side.service = PccsService(start().url, identity.ca)
    assert "knows no processor" in refused(side, quote)


def test_a_cache_that_cannot_be_written_is_said_and_does_not_stand_in_the_way(side, quote, caplog):
    side.cache = Path("/proc/self/nothing-can-be-made-here")
    source = side.source()
    assert source.collateral_for(quote)
    assert source.collateral_for(quote)
    assert "cannot be written" in caplog.text


# -- when the service fails ------------------------------------------------------------------------


def test_a_service_that_is_away_the_first_time_is_one_sentence_with_what_to_do(side, quote):
    side.service = PccsService("https://127.0.0.1:1", origin="the test")
    sentence = refused(side, quote)
    assert "cannot be reached (Connection refused)" in sentence
    assert "none was kept from before" in sentence
    assert "(the test)" in sentence
    assert "config.toml" in sentence


def test_a_service_without_this_processor_is_said_with_its_number(side, pccs, quote):
    pccs.answers = {name: answer for name, answer in pccs.answers.items() if "fmspc" not in name}
    assert "knows no processor of the FMSPC 00A067110000" in refused(side, quote)


def test_a_service_whose_own_cache_has_expired_is_said(side, quote, genuine):
    side.now = expires_at(genuine)
    assert "sends collateral that expired on 2025-07-19" in refused(side, quote)
    assert not side.cache.exists()


@pytest.mark.parametrize(
    ("part", "body"),
    [
        ("tcb", b""),
        ("tcb", b"<html>Welcome to the hotel's network</html>"),
        ("tcb", b"[]"),
        ("tcb", b'{"tcbInfo":{}}'),
        ("tcb", b'{"tcbInfo":{},"signature":"zz"}'),
        ("tcb", b'{"tcbInfo":{},"signature":7}'),
        ("tcb", b'{"tcbInfo":{},"tcbInfo":{},"signature":""}'),
        ("tcb", b'{"tcbInfo":{},"signature":""} and more'),
        ("tcb", b'{"tcbInfo":' + b"[" * 1000),
        ("tcb", b"\xff\xfe"),
        ("qe", b'{"enclaveIdentity":7,"signature":""}'),
        ("pckcrl", b"not a list"),
        ("pckcrl", b"abc"),
        ("rootcacrl", b""),
        ("rootcacrl", b"30" * 100),
    ],
)
def test_garbage_is_refused_and_never_kept(side, pccs, quote, part, body):
    pccs.find(part).body = body
    sentence = refused(side, quote)
    assert "sends" in sentence
    assert not side.cache.exists()


@pytest.mark.parametrize("part", ["tcb", "qe", "pckcrl"])
@pytest.mark.parametrize("chain", [None, "", "no certificate", "%ff%fe", "é"])
def test_a_missing_or_broken_chain_is_refused_and_never_kept(side, pccs, quote, part, chain):
    headers = pccs.find(part).headers
    for name in list(headers):
        if chain is None:
            del headers[name]
        else:
            headers[name] = chain
    refused(side, quote)
    assert not side.cache.exists()


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("tcb", lambda body: body.replace(b"2025-07-19", b"2035-07-19")),
        ("tcb", lambda body: body.replace(b'"signature":"9ad0', b'"signature":"9ad1')),
        ("tcb", lambda body: body.replace(b'862"}', b'"}')),
        ("qe", lambda body: body.replace(b"2025-07-19", b"2035-07-19")),
        ("pckcrl", lambda body: body[:-1] + bytes([body[-1] ^ 1])),
        ("rootcacrl", lambda body: body[:-1] + (b"0" if body[-1:] != b"0" else b"1")),
    ],
)
def test_what_intel_did_not_sign_is_refused_and_never_kept(side, pccs, quote, part, change):
    answer = pccs.find(part)
    assert change(answer.body) != answer.body
    answer.body = change(answer.body)
    assert "sends" in refused(side, quote)
    assert not side.cache.exists()


def test_collateral_that_somebody_else_signed_is_refused_and_never_kept(side, pccs, quote):
    forge = Forge.create(FIRST, sgx=SgxExtensionSpec(fmspc=bytes.fromhex(quote.fmspc)))
    pccs.serve(forge.collateral(), fmspc=quote.fmspc)
    assert "not signed by the platform's maker" in refused(side, quote)
    assert not side.cache.exists()


@pytest.mark.parametrize("part", ["tcb", "qe"])
def test_a_statement_that_somebody_else_signed_is_refused_beside_genuine_ones(side, pccs, quote, part):
    mine = pccs.answers
    forge = Forge.create(FIRST, sgx=SgxExtensionSpec(fmspc=bytes.fromhex(quote.fmspc)))
    pccs.serve(forge.collateral(), fmspc=quote.fmspc)
    forged = pccs.answers
    pccs.answers = mine | {path: forged[path] for path in forged if path.startswith(part)}
    assert "not signed by the platform's maker" in refused(side, quote)


def test_an_answer_that_names_a_member_twice_is_refused_although_the_last_is_genuine(side, pccs, quote):
    answer = pccs.find("tcb")
    answer.body = b'{"tcbInfo":{},' + answer.body[1:]
    assert "sends a TCB info that is none" in refused(side, quote)


def test_a_revocation_list_in_another_name_is_refused_although_the_key_is_right():
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.serialization import Encoding

    forge = Forge.create(FIRST)
    platform = Platform.of(Quote.parse(forge.quote(ReportSpec(), QuoteSpec())), forge.root)
    for name, works in ((forge.pck_ca.subject, True), (forge.root.subject, False)):
        listed = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(name)
            .last_update(FIRST)
            .next_update(LAST)
            .sign(forge.pck_ca_key, hashes.SHA256())
        )
        collateral = replace(forge.collateral(), pck_crl=listed.public_bytes(Encoding.DER))
        if works:
            require_genuine(collateral, platform, forge.root)
        else:
            with pytest.raises(NotGenuineError, match="PCK revocation list"):
                require_genuine(collateral, platform, forge.root)


def test_collateral_for_another_processor_is_refused_and_never_kept(start, identity, tmp_path):
    forge = Forge.create(FIRST)
    quote = Quote.parse(forge.quote(ReportSpec(), QuoteSpec()))
    platform = Platform.of(quote, forge.root)
    require_genuine(forge.collateral(), platform, forge.root)
    with pytest.raises(NotGenuineError, match="another kind of processor"):
        require_genuine(forge.collateral(), replace(platform, fmspc="ffffffffffff"), forge.root)


def test_a_revocation_list_of_another_authority_is_refused(genuine, quote):
    from cryptography import x509

    from sealbook.attestation.intel import ROOT_CA_DER

    root = x509.load_der_x509_certificate(ROOT_CA_DER)
    platform = Platform.of(quote, root)
    require_genuine(genuine, platform, root)
    with pytest.raises(NotGenuineError, match="PCK revocation list"):
        require_genuine(replace(genuine, pck_crl=genuine.root_ca_crl), platform, root)
    with pytest.raises(NotGenuineError, match="root's revocation list"):
        require_genuine(replace(genuine, root_ca_crl=genuine.pck_crl), platform, root)


def test_a_broken_answer_does_not_harm_while_what_was_kept_is_valid(side, pccs, quote):
    first = side.source().collateral_for(quote)
    pccs.find("tcb").body = b"garbage"
    side.now += timedelta(days=2)
    assert side.source().collateral_for(quote) == first
    assert pccs.asked[-1].startswith(("tcb", "rootcacrl"))


def test_a_service_that_failed_is_not_asked_by_each_key_of_a_list(side, pccs, quote, monkeypatch):
    pccs.answers = {}
    source_ = side.source()
    for _ in range(5):
        with pytest.raises(CollateralUnavailableError):
            source_.collateral_for(quote)
    assert len(pccs.asked) == 1
    monkeypatch.setattr(source, "_SHORT_PAUSE", 0.0)
    with pytest.raises(CollateralUnavailableError):
        source_.collateral_for(quote)
    assert len(pccs.asked) == 2


def test_a_service_that_failed_is_not_asked_each_time_while_what_was_kept_is_valid(
    side, pccs, quote, monkeypatch
):
    monkeypatch.setattr(source, "_SHORT_PAUSE", 0.0)
    source_ = side.source()
    source_.collateral_for(quote)
    pccs.answers = {}
    pccs.asked.clear()
    side.now += timedelta(days=2)
    source_._asked.clear()  # a minute and more has passed
    for _ in range(5):
        source_.collateral_for(quote)
    assert len(pccs.asked) == 1


def test_of_many_kernels_that_start_at_once_one_asks(side, pccs, quote):
    source_ = side.source()
    threads = [threading.Thread(target=source_.collateral_for, args=(quote,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(pccs.asked) == 4


# -- what is never asked for -----------------------------------------------------------------------


def test_a_quote_whose_certificates_do_not_lead_to_intel_makes_nobody_ask(side, pccs, quote):
    forge = Forge.create(FIRST)
    simulated = Quote.parse(forge.quote(ReportSpec(), QuoteSpec()))
    with pytest.raises(NotGenuineError):
        side.source().collateral_for(simulated)
    # Intel's genuine root, which everybody has, below somebody's own certificates.
    mixed = (
        simulated.certification_chain.split(b"-----BEGIN")[:3]
        + quote.certification_chain.split(b"-----BEGIN")[3:]
    )
    with pytest.raises(NotGenuineError):
        side.source().collateral_for(replace(simulated, certification_chain=b"-----BEGIN".join(mixed)))
    # Genuine authority and root, below somebody's own PCK certificate.
    own = (
        simulated.certification_chain.split(b"-----BEGIN")[:2]
        + quote.certification_chain.split(b"-----BEGIN")[2:]
    )
    with pytest.raises(NotGenuineError):
        side.source().collateral_for(replace(simulated, certification_chain=b"-----BEGIN".join(own)))
    assert pccs.asked == []


@pytest.mark.parametrize(
    ("name", "authority"),
    [("PCK Processor CA", "processor"), ("PCK Platform CA", "platform"), ("Root CA 2", None), ("Bill", None)],
)
def test_the_authority_that_is_asked_about_is_the_one_that_issued_the_certificate(
    start, identity, tmp_path, name, authority
):
    forge = Forge.create(FIRST, pck_ca_name=f"SIMULATED SGX {name}")
    quote = Quote.parse(forge.quote(ReportSpec(), QuoteSpec()))
    service = start()
    side = Side(tmp_path / "c", PccsService(service.url, identity.ca), options={"root": forge.root})
    if authority is None:
        with pytest.raises(NotGenuineError, match="authority for processors"):
            side.source().collateral_for(quote)
        assert service.asked == []
    else:
        collateral = forge.collateral()
        service.serve(collateral, fmspc=quote.fmspc, authority=authority)
        assert side.source().collateral_for(quote) == collateral
        assert f"pckcrl?ca={authority}&encoding=der" in service.asked


def test_an_error_nobody_foresaw_is_the_services_and_what_was_kept_still_counts(side, quote, monkeypatch):
    first = side.source().collateral_for(quote)
    monkeypatch.setattr(source, "fetch_collateral", lambda *_, **__: 1 / 0)
    side.now += timedelta(days=2)
    assert side.source().collateral_for(quote) == first
    side.now = LAST
    assert "ZeroDivisionError" in refused(side, quote)


def test_a_cache_file_is_json_that_a_person_can_read(side, quote, genuine):
    side.source().collateral_for(quote)
    (file,) = side.cache.iterdir()
    document = json.loads(file.read_text())
    assert document["fmspc"] == "00a067110000"
    assert document["authority"] == "processor"
    assert Collateral.from_json(document["collateral"]).tcb_info == genuine.tcb_info
