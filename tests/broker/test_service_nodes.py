"""Nodes that are in: members, keys, renewal, revocation, rotation, and two owners in one job."""

from __future__ import annotations

import base64
import dataclasses
import http.client
import json
import time
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding

from broker_service import CLUSTER, OTHER, NodeKeys, node_facts, served
from sealbook.attestation import UnattestedAttester, policy_text, report_data
from sealbook.attestation.policy import Policy
from sealbook.broker import tls
from sealbook.broker.certificates import authority_id, public_der
from sealbook.broker.client import BrokerUnreachableError
from sealbook.broker.session import SessionEndedError
from sealbook.encoding import canonical_json
from sealbook.errors import InputError, RefusedError
from sealbook.sealing import KeyUnavailableError


@pytest.fixture
def broker(tmp_path):
    with served(tmp_path) as world:
        yield world


def sessions(broker, enrolment) -> set[str]:
    return {member.session for member in broker.client().members(enrolment)}


def test_members_are_the_nodes_of_the_same_cluster(broker):
    broker.service.clusters.add("second", policy="nodes")
    one, two = broker.enrol(role="spark-master"), broker.enrol(role="spark-driver")
    other, alone = broker.enrol(cluster="second"), broker.enrol(cluster="")
    assert sessions(broker, one) == {one.session, two.session}
    assert {member.role for member in broker.client().members(one)} == {"spark-master", "spark-driver"}
    assert sessions(broker, other) == {other.session}
    assert sessions(broker, alone) == set()
    assert alone.cluster_secret is None
    assert other.cluster_secret != one.cluster_secret


def test_a_member_can_show_a_person_what_the_evidence_of_the_others_proved(broker):
    broker.service.clusters.add("second", policy="nodes")
    one = broker.enrol(role="spark-master", hosts=["localhost", "127.0.0.1"])
    two, other = broker.enrol(role="spark-driver"), broker.enrol(cluster="second")
    shown = {node.session: node for node in broker.client().nodes(two)}
    assert set(shown) == {one.session, two.session}
    assert other.session not in shown
    master = shown[one.session]
    assert (master.role, master.hosts, master.label) == (
        "spark-master",
        ("localhost", "127.0.0.1"),
        "simulated",
    )
    assert master.measurement == one.result.mrenclave
    assert master.expires == one.expires
    broker.service.sessions.revoke(one.session)
    assert {node.session for node in broker.client().nodes(two)} == {two.session}


def test_a_revoked_node_is_out_at_once(broker):
    one, two = broker.enrol(), broker.enrol()
    assert sessions(broker, one) == {one.session, two.session}
    broker.service.sessions.revoke(two.session)
    assert sessions(broker, one) == {one.session}
    client = broker.client()
    for ask in (
        lambda: client.members(two),
        lambda: client.renew(two),
        lambda: client.release(two, "data", None, "seal"),
        lambda: client.keys(two),
        lambda: client.event(two, "peer-refused", {"reason": "x", "peer": ""}),
    ):
        with pytest.raises(RefusedError, match="revoked"):
            ask()
    assert "revoked" in broker.reasons("connection")


def test_a_node_that_is_revoked_while_it_asks_gets_no_certificate_and_no_key(broker):
    """The request passed the first look, and the owner was faster than the rest of it."""
    enrolment = broker.enrol()
    certificate = x509.load_pem_x509_certificate(enrolment.certificate.encode())
    caller = broker.service.caller(certificate.public_bytes(Encoding.DER))
    broker.service.sessions.revoke(enrolment.session)
    with pytest.raises(SessionEndedError):
        broker.service.renew(caller)
    with pytest.raises(SessionEndedError):  # the last look, in the transaction that keeps the certificate
        broker.service.sessions.certify(
            enrolment.session, fingerprint="ab" * 32, serial="1", expires=enrolment.expires
        )
    with pytest.raises(SessionEndedError):
        broker.service.release(caller, "data", None, "seal")


def test_a_new_secret_ends_the_membership_of_all_and_new_nodes_get_it(broker):
    old = broker.enrol()
    assert broker.service.clusters.rotate(CLUSTER) == 2
    with pytest.raises(SessionEndedError, match="new secret"):
        broker.client().members(old)
    with pytest.raises(SessionEndedError, match="new secret"):
        broker.client().renew(old)
    new = broker.enrol()
    assert new.cluster_secret != old.cluster_secret
    assert sessions(broker, new) == {new.session}


def test_a_cluster_that_was_removed_has_no_nodes(broker):
    old = broker.enrol()
    broker.service.clusters.remove(CLUSTER)
    with pytest.raises(RefusedError, match="no cluster"):
        broker.client().members(old)
    with pytest.raises(RefusedError, match="no cluster"):
        broker.enrol()


def test_another_policy_for_a_cluster_counts_at_once(broker):
    old = broker.enrol()
    broker.add_policy("strict", measurement=OTHER)
    broker.service.clusters.add(CLUSTER, policy="strict")
    with pytest.raises(RefusedError):
        broker.client().renew(old)
    with pytest.raises(RefusedError):
        broker.enrol()
    new = broker.client().enrol(broker.attester(OTHER), role="spark-worker", cluster=CLUSTER)
    assert sessions(broker, new) == {new.session}


def test_a_policy_edit_that_still_admits_a_node_leaves_it_in(broker):
    old = broker.enrol()
    broker.add_policy("nodes", edit=lambda text: text.replace("version = 1", "version = 2"))
    assert sessions(broker, old) == {old.session}
    assert broker.client().renew(old).session == old.session


def test_a_policy_gives_a_clusters_secret_only_where_it_lists_it(broker):
    broker.add_policy("nodes", keys=("data",))
    with pytest.raises(RefusedError, match=r"does not grant the key 'cluster\.trial'"):
        broker.enrol()
    assert broker.events("certificate") == []
    assert broker.events("release")[-1]["decision"] == "refused"
    broker.add_policy("nodes", keys=("cluster.trial",))
    assert broker.enrol().cluster_secret is not None


def test_a_policy_admits_only_its_roles(broker):
    broker.add_policy("nodes", edit=lambda text: text.replace("roles = []", 'roles = ["spark-worker"]'))
    broker.enrol(role="spark-worker")
    with pytest.raises(RefusedError, match="has keys for spark-worker"):
        broker.enrol(role="spark-driver")


def test_renewal_keeps_key_session_and_names_and_ends_with_the_session(tmp_path):
    with served(tmp_path, certificate_seconds=100) as broker:
        broker.add_policy("nodes", edit=lambda text: text.replace("ttl_seconds = 43200", "ttl_seconds = 90"))
        old = broker.enrol(hosts=["a.example"])
        new = broker.client().renew(old)
    one, two = (x509.load_pem_x509_certificate(each.certificate.encode()) for each in (old, new))
    assert one.serial_number != two.serial_number
    assert one.public_key() == two.public_key()
    assert node_facts(old.certificate) == node_facts(new.certificate)
    names = x509.SubjectAlternativeName
    assert one.extensions.get_extension_for_class(names) == two.extensions.get_extension_for_class(names)
    assert two.not_valid_after_utc <= datetime.now(UTC) + timedelta(seconds=90)
    assert new.expires == two.not_valid_after_utc


def test_a_key_comes_as_the_keyring_has_it_and_each_release_is_in_the_log(broker):
    enrolment = broker.enrol()
    keys = NodeKeys(broker.client(), enrolment)
    assert keys.current("data").secret == broker.keyring.key("data").secret
    assert keys.get("data", 1).secret == broker.keyring.key("data", 1).secret
    released = [entry for entry in broker.events("release") if entry["key"] == "data"]
    assert [entry["purpose"] for entry in released] == ["seal", "unseal"]
    assert {entry["session"] for entry in released} == {enrolment.session}
    assert {entry.name for entry in broker.client().keys(enrolment)} == {"data"}


def test_a_rotated_key_seals_anew_and_opens_what_it_sealed(broker):
    keys = NodeKeys(broker.client(), broker.enrol())
    old = keys.current("data")
    broker.keyring.rotate("data")
    new = keys.current("data")
    assert (old.version, new.version) == (1, 2)
    assert old.secret != new.secret
    assert keys.get("data", 1).secret == old.secret


@pytest.mark.parametrize("name", ["node-ca", "broker-ca", "challenges", "image-owner", "cluster.trial"])
def test_what_is_sealbooks_own_is_released_to_nobody_whatever_guards_it(broker, name):
    from sealbook.broker.owner import OwnerKeys
    from sealbook.broker.ownership import make_owner

    make_owner(broker.keyring)
    enrolment = broker.enrol()
    for guard in ("nodes",) if name == "cluster.trial" else ("none", "nodes"):
        broker.keyring.set_guard(name, guard)
        for version in (None, 1):
            with pytest.raises(KeyUnavailableError, match="sealbook's own"):
                broker.client().release(enrolment, name, version, "unseal")
        with pytest.raises(KeyUnavailableError):
            OwnerKeys(broker.keyring, broker.audit).current(name)
        assert name not in {entry.name for entry in broker.client().keys(enrolment)}


def test_a_key_of_another_policy_is_refused(broker):
    broker.add_policy("strict", measurement=OTHER)
    broker.keyring.create("secret", guard="strict")
    with pytest.raises(KeyUnavailableError):
        broker.client().release(broker.enrol(), "secret", None, "unseal")
    assert broker.events("release")[-1]["decision"] == "refused"


def test_two_owners_each_release_only_their_own_keys_to_the_same_node(tmp_path):
    """One node, enrolled at two brokers: `left/data` comes from the one, `right/data` from the other."""
    for name in ("left", "right"):
        (tmp_path / name).mkdir()
    with served(tmp_path / "left") as left, served(tmp_path / "right") as right:
        secrets = {}
        for owner, broker in (("left", left), ("right", right)):
            broker.keyring.create(f"{owner}/data", guard="nodes")
            secrets[owner] = broker.keyring.key(f"{owner}/data").secret
        right.service.partners.set_home(CLUSTER, authority_id(left.ca))
        at_left = left.enrol()
        at_right = right.client().enrol_as_guest(right.attester(), at_left)
        assert at_right.cluster_secret is None
        assert left.client().release(at_left, "left/data", None, "seal").secret == secrets["left"]
        assert right.client().release(at_right, "right/data", None, "seal").secret == secrets["right"]
        with pytest.raises(KeyUnavailableError, match="no key 'right/data'"):
            left.client().release(at_left, "right/data", None, "seal")
        with pytest.raises(KeyUnavailableError, match="no key 'left/data'"):
            right.client().release(at_right, "left/data", None, "seal")
        assert right.client().members(at_right) == ()
        assert right.client().renew(at_right).certificate != at_right.certificate
        # Neither takes the other's certificate.
        with pytest.raises(RefusedError):
            right.client().release(dataclasses.replace(at_left, url=right.url), "right/data", None, "seal")
        assert "certificate" in right.reasons("connection") or _later(right)
        assert {entry["key"] for entry in left.events("release") if entry["decision"] == "released"} == {
            "cluster.trial",
            "left/data",
        }


def _later(broker) -> bool:
    for _ in range(100):
        if broker.reasons("connection"):
            return True
        time.sleep(0.02)
    return False


def test_two_brokers_with_one_keyring_are_not_told_apart_by_their_evidence_alone(broker):
    """The names differ by default, because the authorities do; the key of the connection differs always."""
    assert broker.service.name.startswith("sealbook broker ")
    body = broker.attest_request(quoted={"audience": "sealbook broker 0000000000000000"})
    assert broker.http("POST", "/v1/attest", body)[0] == 403


def test_a_session_that_ended_is_opened_anew_with_the_same_keys(tmp_path):
    with served(tmp_path) as broker:
        broker.add_policy("nodes", edit=lambda text: text.replace("ttl_seconds = 43200", "ttl_seconds = 2"))
        client, first = broker.client(), broker.enrol()
        time.sleep(2.2)
        # Its certificate ended with it, and TLS refuses that before the broker could say anything.
        with pytest.raises(BrokerUnreachableError, match="attest again"):
            client.release(first, "data", None, "seal")
        again = client.enrol_again(broker.attester(), first)
        assert client.release(again, "data", None, "seal").version == 1
        assert again.session != first.session
        assert again.tls_private_key is first.tls_private_key


def test_of_several_policies_the_one_that_accepts_the_evidence_counts(tmp_path):
    with served(tmp_path, policies=("strict", "nodes", "direct"), unattested=True) as broker:
        broker.add_policy("strict", measurement=OTHER)
        broker.policies["direct"] = Policy.parse(
            policy_text(id="direct", tee="gramine-direct", now=datetime.now(UTC) - timedelta(hours=1))
        )
        client = broker.client()
        for attester, policy in (
            (broker.attester(), "nodes"),
            (broker.attester(OTHER), "strict"),
            (UnattestedAttester(), "direct"),
        ):
            enrolment = client.enrol(attester, role="kernel")
            assert broker.events("attest")[-1]["policy"] == policy
            assert node_facts(enrolment.certificate).simulated is (policy != "direct")


def test_without_a_policy_only_nodes_of_clusters_are_admitted(tmp_path):
    with served(tmp_path, policies=()) as broker:
        broker.enrol()
        with pytest.raises(RefusedError, match="only nodes of its clusters"):
            broker.enrol(cluster="")


@pytest.mark.parametrize("name", ["", "A", "a b", "a/b", "x" * 41, "-a", ".", "a.b"])
def test_a_clusters_name_is_a_plain_one(broker, name):
    with pytest.raises(InputError, match="is not a name for a cluster"):
        broker.service.clusters.add(name, policy="nodes")


def test_a_cluster_without_a_policy_is_refused(broker):
    with pytest.raises(InputError, match="must be admitted by a policy"):
        broker.service.clusters.add("new", policy="none")


def test_the_authorities_are_the_same_after_a_restart_and_differ_from_each_other(broker):
    again = broker.new_service()
    assert again.ca_pem == broker.ca
    assert again.node_ca_pem == broker.service.node_ca_pem
    assert again.ca_pem != again.node_ca_pem
    assert again.identity()[0] != broker.service.identity()[0]


def test_the_brokers_own_certificate_is_made_anew_with_the_same_key(tmp_path):
    with served(tmp_path, server={"renewal": 0.2}) as broker:
        import ssl

        address = ("127.0.0.1", broker.server.port)
        first, key = ssl.get_server_certificate(address), broker.broker_key()
        time.sleep(0.5)
        assert ssl.get_server_certificate(address) != first
        assert broker.broker_key() == key


def test_a_sealed_file_moves_to_a_new_key_by_its_header_alone(broker, tmp_path):
    """The owner moves it; a node opens it before and after."""
    from sealbook import sealing
    from sealbook.broker.owner import OwnerKeys

    path = tmp_path / "table.sealed"
    keys = NodeKeys(broker.client(), broker.enrol())
    sealing.write_bytes(path, b"payload " * 50_000, key="data", keys=keys)
    before = path.read_bytes()
    broker.keyring.rotate("data")
    sealing.rekey(path, keys=OwnerKeys(broker.keyring, broker.audit, rewrap_for="data"), to="data")
    after = path.read_bytes()
    assert before != after
    assert before[-300_000:] == after[-300_000:]
    keys = NodeKeys(broker.client(), broker.enrol())
    assert sealing.read_bytes(path, keys=keys) == b"payload " * 50_000
    assert broker.events("release")[-1]["version"] == 2


def test_what_is_sealed_to_a_node_is_bound_to_its_evidence_and_to_the_question(broker):
    """Written out once more, as the Java side has it: RFC 9180, base mode."""
    suite = hpke.Suite(hpke.KEM.X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)
    hpke_key, tls_key = X25519PrivateKey.generate(), ec.generate_private_key(ec.SECP256R1())
    nonce = broker.service.challenge()
    sent = {
        "nonce": nonce,
        "tls_key": public_der(tls_key.public_key()),
        "hpke_key": hpke_key.public_key().public_bytes_raw(),
    }
    broker_key = broker.broker_key()
    body = broker.attest_request(quoted=sent | {"broker_key": broker_key}, **sent)
    status, answer = broker.http("POST", "/v1/attest", body)
    assert status == 200
    claims = {
        "tls_key": sent["tls_key"],
        "hpke_key": sent["hpke_key"],
        "cluster": b"trial",
        "hosts": b'["localhost"]',
        "broker_key": broker_key,
        "home": b"",
    }
    bound = report_data(role="spark-worker", audience=broker.service.name, nonce=nonce, claims=claims)
    sealed = base64.b64decode(answer["sealed"])
    opened = suite.decrypt(sealed, hpke_key, info=b"sealbook attest 1" + bound)
    secret = base64.b64encode(broker.service.clusters.find(CLUSTER).secrets[-1]).decode()
    assert opened == b'{"cluster_secret":"' + secret.encode() + b'","owners":[]}'
    for info in (b"sealbook attest 1", b"sealbook release 1" + bound, b"sealbook attest 1" + bytes(64)):
        with pytest.raises(InvalidTag):
            suite.decrypt(sealed, hpke_key, info=info)

    context = tls.client_context(broker.ca)
    tls.load_identity(context, answer["certificate"], tls_key)
    connection = http.client.HTTPSConnection("127.0.0.1", broker.server.port, context=context)
    connection.request("POST", "/v1/release", b'{"key":"data","version":null,"purpose":"seal"}')
    released = json.loads(connection.getresponse().read())
    connection.close()
    opened = suite.decrypt(
        base64.b64decode(released["sealed"]), hpke_key, info=b"sealbook release 1" + bound + b'["data",1]'
    )
    assert opened == canonical_json({"secret": base64.b64encode(broker.keyring.key("data").secret).decode()})


def test_a_node_whose_certificate_expired_is_no_member_any_more(tmp_path):
    with served(tmp_path, certificate_seconds=2) as broker:
        old = broker.enrol()
        time.sleep(2.1)
        new = broker.enrol()
        assert sessions(broker, new) == {new.session}
        assert old.session != new.session


@pytest.mark.parametrize(
    "edit",
    [
        lambda text: text.replace("roles = []", 'roles = ["spark-driver"]'),
        lambda text: text.replace('keys = ["*"]', 'keys = ["data"]'),
    ],
    ids=["another role", "no cluster"],
)
def test_a_policy_that_no_longer_gives_a_node_its_cluster_ends_its_membership(broker, edit):
    enrolment = broker.enrol()
    assert sessions(broker, enrolment) == {enrolment.session}
    broker.add_policy("nodes", edit=edit)
    with pytest.raises(RefusedError):
        broker.client().renew(enrolment)
    assert sessions(broker, enrolment) == set()


def test_a_node_without_a_cluster_is_not_renewed_when_its_role_is_no_longer_admitted(broker):
    enrolment = broker.enrol(cluster="")
    broker.add_policy("nodes", edit=lambda text: text.replace("roles = []", 'roles = ["spark-driver"]'))
    with pytest.raises(RefusedError, match="has keys for spark-driver"):
        broker.client().renew(enrolment)


def test_of_a_node_it_is_known_when_it_was_heard_of_last(broker):
    one, other = broker.enrol(), broker.enrol()
    with broker.service.sessions._database.transaction() as run:
        run.execute("UPDATE nodes SET seen = seen - 600 WHERE session = ?", (one.session,))

    def silent() -> dict[str, int]:
        return {node.session: node.silent for node in broker.client().nodes(other)}

    assert silent()[one.session] >= 600
    assert silent()[other.session] < 60
    broker.client().members(one)
    assert silent()[one.session] < 60


def test_a_broker_that_is_down_is_said_to_be_down_to_a_node_with_a_certificate_too(tmp_path):
    with served(tmp_path) as broker:
        client, enrolment = broker.client(), broker.enrol()
    with pytest.raises(BrokerUnreachableError, match="does not answer"):
        client.members(enrolment)
