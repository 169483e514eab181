"""Attack cases 46, 47 and 49, and joining without the right to: refused, with the reason in the log."""

from __future__ import annotations

import base64
import dataclasses
import ssl
import time
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from broker_service import CLUSTER, OTHER, node_facts, served
from sealbook.attestation import UnattestedAttester
from sealbook.broker import Keyring, MemoryStore, tls
from sealbook.broker.certificates import (
    Authority,
    fingerprint,
    membership,
    pem,
    public_der,
)
from sealbook.broker.client import BrokerClient, BrokerUnreachableError
from sealbook.errors import RefusedError


@pytest.fixture
def broker(tmp_path):
    with served(tmp_path) as world:
        yield world


def attest(broker, **kw):
    return broker.http("POST", "/v1/attest", broker.attest_request(**kw))


def load(enrolment) -> x509.Certificate:
    return x509.load_pem_x509_certificate(enrolment.certificate.encode())


def settled(broker, event: str, text: str) -> bool:
    """Refusals of TLS are recorded beside the handshake, so the log may be a moment late."""
    for _ in range(100):
        if text in broker.reasons(event):
            return True
        time.sleep(0.02)
    return False


def test_an_honest_request_is_accepted(broker):
    status, answer = attest(broker)
    assert status == 200
    assert broker.events("attest")[-1]["decision"] == "accepted"
    assert set(answer) == {"result", "session", "expires", "certificate", "ca", "sealed"}


@pytest.mark.parametrize("evidence", [b"", b"not evidence", b"\x03\x00" + bytes(1000)])
def test_no_evidence_is_refused(broker, evidence):
    assert attest(broker, evidence=evidence)[0] in (400, 403)
    assert broker.reasons("attest")
    assert broker.events("certificate") == []


def test_a_node_that_is_not_attested_is_refused(broker):
    status, answer = attest(broker, attester=UnattestedAttester())
    assert (status, answer["code"]) == (403, "refused")
    assert broker.reasons("attest")


def test_another_measurement_is_refused(broker):
    status, answer = attest(broker, attester=broker.attester(OTHER))
    assert (status, answer["code"]) == (403, "refused")
    assert (
        "measurement" in broker.reasons("attest").lower() or "mrenclave" in broker.reasons("attest").lower()
    )
    assert broker.events("certificate") == []


def test_a_replayed_nonce_is_refused_and_so_is_the_whole_request_sent_twice(broker):
    body = broker.attest_request()
    assert broker.http("POST", "/v1/attest", body)[0] == 200
    status, answer = broker.http("POST", "/v1/attest", body)
    assert (status, answer["code"]) == (409, "refused")
    assert "was used before" in broker.reasons("attest")
    assert len(broker.events("certificate")) == 1


def test_a_nonce_that_this_broker_did_not_issue_is_refused(broker):
    nonce = b"\x07" * 32
    assert attest(broker, quoted={"nonce": nonce}, nonce=nonce)[0] == 409
    assert "not issued here" in broker.reasons("attest")


@pytest.mark.parametrize(
    "quoted",
    [
        {"role": "spark-master"},
        {"cluster": "other"},
        {"hosts": ["elsewhere"]},
        {"tls_key": b"another key"},
        {"hpke_key": b"\x09" * 32},
        {"audience": "another broker"},
        {"nonce": b"\x01" * 32},
    ],
    ids=lambda quoted: next(iter(quoted)),
)
def test_46_a_request_for_something_else_than_the_evidence_says_is_refused(broker, quoted):
    """More names, another key or role: what is certified is what the enclave itself bound."""
    status, answer = attest(broker, quoted=quoted)
    assert (status, answer["code"]) == (403, "refused")
    assert broker.events("attest")[-1]["decision"] == "refused"
    assert broker.events("certificate") == []


def test_46_a_certificate_is_no_authority_and_names_only_the_quoted_hosts(broker):
    enrolment = broker.enrol(hosts=["worker.example", "127.0.0.1"])
    extensions = load(enrolment).extensions
    basic = extensions.get_extension_for_class(x509.BasicConstraints).value
    names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    usage = extensions.get_extension_for_class(x509.KeyUsage).value
    assert basic.ca is False
    assert usage.key_cert_sign is False
    assert [str(name.value) for name in names] == ["worker.example", "127.0.0.1"]
    assert public_der(load(enrolment).public_key()) == public_der(enrolment.tls_private_key.public_key())


def compressed(key: ec.EllipticCurvePublicKey) -> bytes:
    point = key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint)
    head = bytes.fromhex("3039301306072a8648ce3d020106082a8648ce3d030107032200")
    return head + point


@pytest.mark.parametrize(
    "spki",
    [
        b"",
        public_der(ec.generate_private_key(ec.SECP384R1()).public_key()),
        public_der(rsa.generate_private_key(65537, 2048).public_key()),
        public_der(ec.generate_private_key(ec.SECP256R1()).public_key()) + b"\x00",
        compressed(ec.generate_private_key(ec.SECP256R1()).public_key()),
    ],
    ids=["nothing", "P-384", "RSA", "bytes after it", "compressed"],
)
def test_49_a_key_of_another_kind_or_in_another_encoding_is_refused(broker, spki):
    status, answer = attest(broker, quoted={"tls_key": spki}, tls_key=spki)
    assert (status, answer["code"]) == (400, "input")
    assert "P-256" in broker.reasons("attest")


@pytest.mark.parametrize("key", [b"", b"\x01" * 31, bytes(32), b"\x01" + bytes(31)])
def test_49_an_hpke_key_that_makes_secrets_known_is_refused(broker, key):
    assert attest(broker, quoted={"hpke_key": key}, hpke_key=key)[0] == 400
    assert "X25519" in broker.reasons("attest")


@pytest.mark.parametrize(
    "quoted",
    [
        *({"without": [name]} for name in ("tls_key", "hpke_key", "cluster", "hosts", "broker_key")),
        {"also": {"more": b"x"}},
    ],
    ids=str,
)
def test_49_evidence_that_binds_fewer_or_more_claims_is_refused(broker, quoted):
    status, answer = attest(broker, quoted=quoted)
    assert (status, answer["code"]) == (403, "refused")


@pytest.mark.parametrize(
    "hosts",
    [
        *(["*.example"], ["a b"], [""], ["x" * 64 + ".example"], ["fe80::1%eth0"], ["a", "a"]),
        *([str(n) for n in range(17)], [1], "localhost", {"a": 1}, None, ["ü.example"], ["a\n"]),
    ],
    ids=repr,
)
def test_hosts_that_are_no_names_are_refused(broker, hosts):
    status, answer = attest(broker, hosts=hosts)
    assert (status, answer["code"]) == (400, "input")
    assert "hosts" in broker.reasons("attest")


def test_an_unknown_role_or_cluster_is_refused(broker):
    assert attest(broker, quoted={"role": "boss"}, role="boss")[0] == 400
    assert "A node is one of" in broker.reasons("attest")
    assert attest(broker, quoted={"cluster": "nowhere"}, cluster="nowhere")[0] == 403
    assert "no cluster 'nowhere'" in broker.reasons("attest")
    assert attest(broker, quoted={"cluster": "../x"}, cluster="../x")[0] == 400


def test_evidence_relayed_by_another_broker_is_refused(broker, tmp_path):
    """A broker in the middle passes challenge and evidence on: the evidence names its key and not ours."""
    (tmp_path / "other").mkdir()
    with served(tmp_path / "other") as other:
        status, answer = attest(broker, quoted={"broker_key": other.broker_key()})
    assert (status, answer["code"]) == (403, "refused")
    assert broker.events("certificate") == []


def test_another_nodes_certificate_without_its_key_is_no_use(broker):
    enrolment = broker.enrol()
    stolen = dataclasses.replace(enrolment, tls_private_key=ec.generate_private_key(ec.SECP256R1()))
    with pytest.raises(ssl.SSLError):
        broker.client().members(stolen)


def test_what_is_sealed_to_another_node_does_not_open(broker):
    one, two = broker.enrol(), broker.enrol()
    mixed = dataclasses.replace(one, hpke_private_key=two.hpke_private_key)
    with pytest.raises(RefusedError, match="not made for this node"):
        broker.client().release(mixed, "data", None, "seal")
    mixed = dataclasses.replace(one, report_data=two.report_data)
    with pytest.raises(RefusedError, match="not made for this node"):
        broker.client().release(mixed, "data", None, "seal")


def test_a_rogue_authoritys_certificate_is_refused(broker):
    """It says everything right, and even has the right membership tag, but another authority signed it."""
    enrolment = broker.enrol()
    facts = node_facts(enrolment.certificate)
    rogue = rogue_authority()
    now = datetime.now(UTC)
    key = enrolment.tls_private_key.public_key()
    made = rogue.issue_node(key, facts, ["localhost"], now=now, expires=now + timedelta(hours=1))
    with pytest.raises(BrokerUnreachableError, match="expired or is of another broker"):
        broker.client().members(dataclasses.replace(enrolment, certificate=pem(made)))
    assert settled(broker, "connection", "certificate was refused")


def rogue_authority() -> Authority:
    keyring = Keyring(MemoryStore())
    return Authority(keyring.make_reserved("node-ca", guard="node-ca", description=""))


def test_a_members_certificate_says_what_it_proved(broker):
    enrolment = broker.enrol(role="spark-executor")
    facts = node_facts(enrolment.certificate)
    assert facts.cluster == CLUSTER
    assert facts.role == "spark-executor"
    assert facts.measurement == "31" * 32
    assert facts.simulated is True
    assert facts.session == enrolment.session


def test_a_members_certificate_is_made_with_the_secret_of_its_cluster(broker):
    enrolment = broker.enrol()
    assert enrolment.cluster_secret == broker.service.clusters.find(CLUSTER).secrets[-1]
    spki = public_der(load(enrolment).public_key())
    assert node_facts(enrolment.certificate).membership == membership(enrolment.cluster_secret, spki)


def test_a_refusal_by_a_peer_is_in_the_audit_log_with_its_reason(broker):
    enrolment = broker.enrol()
    peer = fingerprint(load(broker.enrol()))
    reason = "The certificate was made without the secret of this cluster."
    broker.client().event(enrolment, "peer-refused", {"reason": reason, "peer": peer})
    entry = broker.events("peer")[-1]
    assert (entry["decision"], entry["reasons"], entry["peer"]) == ("reported", [reason], peer)


@pytest.mark.parametrize(
    "facts",
    [
        {"reason": "x"},
        {"reason": "", "peer": ""},
        {"reason": "x" * 501, "peer": ""},
        {"reason": 1, "peer": ""},
        {"reason": "x", "peer": "AB" * 32},
        {"reason": "x", "peer": "ab"},
        {"reason": "x", "peer": "", "more": 1},
        [],
    ],
    ids=repr,
)
def test_a_report_of_anything_else_is_refused(broker, facts):
    enrolment = broker.enrol()
    body = {"action": "peer-refused", "facts": facts}
    assert broker.http("POST", "/v1/event", body, enrolment=enrolment)[0] == 400
    assert broker.events("peer") == []


def test_47_an_expired_certificate_is_refused_with_its_reason_in_the_log(tmp_path):
    with served(tmp_path, certificate_seconds=2) as broker:
        enrolment = broker.enrol()
        assert len(broker.client().members(enrolment)) == 1
        time.sleep(2.2)
        with pytest.raises(BrokerUnreachableError, match="has expired or"):
            broker.client().members(enrolment)
        with pytest.raises(BrokerUnreachableError, match="has expired or"):
            broker.client().renew(enrolment)
        assert settled(broker, "connection", "certificate has expired")


def test_47_a_certificate_that_expires_on_an_open_connection_is_refused_too(tmp_path):
    with served(tmp_path, certificate_seconds=3) as broker:
        enrolment = broker.enrol()
        with broker.client()._connect(enrolment) as connection:
            assert len(connection.ask("GET", "/v1/members")["members"]) == 1
            time.sleep(3.2)
            with pytest.raises(RefusedError, match="certificate expired at"):
                connection.ask("GET", "/v1/members")
        assert "certificate expired at" in broker.reasons("connection")


def test_47_a_certificate_is_not_renewed_nor_a_key_released_when_the_policy_no_longer_admits_the_node(broker):
    enrolment = broker.enrol()
    other = broker.enrol()
    assert len(broker.client().members(enrolment)) == 2
    broker.add_policy("nodes", measurement=OTHER)
    with pytest.raises(RefusedError):
        broker.client().renew(enrolment)
    assert broker.events("renew")[-1]["decision"] == "refused"
    with pytest.raises(RefusedError):
        broker.client().release(enrolment, "data", None, "seal")
    assert broker.events("release")[-1]["decision"] == "refused"
    assert broker.client().members(other) == (), "a node of an old measurement is a member of nothing"


def test_a_nodes_certificate_does_not_pass_as_a_brokers(broker, tmp_path):
    """A node that poses as the broker has a certificate for the right name, from the wrong authority."""
    import socket
    import threading

    node = broker.enrol(hosts=["localhost", "127.0.0.1"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_identity(context, node.certificate, node.tls_private_key)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def pose() -> None:
            connection, _ = listener.accept()
            with connection, pytest.raises(OSError):
                context.wrap_socket(connection, server_side=True).recv(1)

        thread = threading.Thread(target=pose)
        thread.start()
        with pytest.raises(RefusedError, match="is not the one whose CA was given"):
            BrokerClient(f"https://127.0.0.1:{listener.getsockname()[1]}", broker.ca).name()
        thread.join()


def test_the_brokers_certificate_does_not_pass_as_a_nodes(broker):
    certificate, key = broker.service.identity()
    enrolment = dataclasses.replace(broker.enrol(), certificate=certificate, tls_private_key=key)
    with pytest.raises(BrokerUnreachableError, match="expired or is of another broker"):
        broker.client().members(enrolment)


def test_another_brokers_authority_is_not_trusted(broker, tmp_path):
    (tmp_path / "other").mkdir()
    with served(tmp_path / "other") as other:
        with pytest.raises(RefusedError, match="is not the one whose CA was given"):
            BrokerClient(broker.url, other.ca).name()
        stranger = other.enrol()
    with pytest.raises(BrokerUnreachableError, match="expired or is of another broker"):
        broker.client().members(stranger)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/renew"),
        ("POST", "/v1/release"),
        ("GET", "/v1/keys"),
        ("GET", "/v1/members"),
        ("POST", "/v1/event"),
    ],
)
def test_without_a_certificate_there_is_nothing(broker, method, path):
    status, answer = broker.http(method, path, {} if method == "POST" else None)
    assert (status, answer["code"]) == (403, "refused")
    assert "needs the certificate of a node" in broker.reasons("connection")


def test_a_certificate_that_the_broker_forgot_is_refused(broker):
    """Of the right authority, and valid, but of no session: the broker's state was moved away."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    facts = node_facts(broker.enrol().certificate)
    made = broker.service._node_ca.issue_node(
        key.public_key(), facts, [], now=now, expires=now + timedelta(hours=1)
    )
    enrolment = dataclasses.replace(broker.enrol(), certificate=pem(made), tls_private_key=key)
    with pytest.raises(RefusedError, match="belongs to no session"):
        broker.client().members(enrolment)
    assert "belongs to no session" in broker.reasons("connection")


def test_only_tls_1_3_is_spoken(broker):
    context = tls.client_context(broker.ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    import socket

    with socket.create_connection(("127.0.0.1", broker.server.port)) as sock, pytest.raises(ssl.SSLError):
        context.wrap_socket(sock, server_hostname="127.0.0.1")


def test_a_session_cannot_be_resumed_and_so_no_certificate_outlives_its_end(broker):
    import socket

    enrolment = broker.enrol()
    context = tls.client_context(broker.ca)
    tls.load_identity(context, enrolment.certificate, enrolment.tls_private_key)
    sock = socket.create_connection(("127.0.0.1", broker.server.port))
    with context.wrap_socket(sock, server_hostname="127.0.0.1") as connection:
        connection.sendall(b"GET /v1/members HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"200" in connection.recv(4096)
        assert connection.session is None or not connection.session.has_ticket


def test_the_secrets_of_the_service_are_not_in_its_files_nor_in_any_text(broker, tmp_path, capsys):
    enrolment = broker.enrol()
    key = broker.client().release(enrolment, "data", None, "seal")
    secrets = [
        key.secret,
        enrolment.cluster_secret,
        *(broker.keyring.reserved(name).secrets[0] for name in ("node-ca", "broker-ca")),
        enrolment.hpke_private_key.private_bytes_raw(),
    ]
    texts = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    texts += [repr(enrolment).encode(), str(capsys.readouterr()).encode()]
    for secret in secrets:
        for form in (secret, secret.hex().encode(), base64.b64encode(secret)):
            assert not any(form in text for text in texts)


def test_a_nodes_certificate_is_for_both_ends_and_the_brokers_for_one(broker):
    own = x509.load_pem_x509_certificate(broker.service.identity()[0].encode())
    node = load(broker.enrol())
    usages = [
        {
            usage.dotted_string
            for usage in each.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        }
        for each in (own, node)
    ]
    server, client = "1.3.6.1.5.5.7.3.1", "1.3.6.1.5.5.7.3.2"
    assert usages == [{server}, {server, client}]


def test_a_broker_at_an_address_that_its_certificate_does_not_name_is_refused(tmp_path):
    with (
        served(tmp_path, hosts=("broker.example",)) as broker,
        pytest.raises(RefusedError, match="is not the one whose CA was given"),
    ):
        broker.client().name()
