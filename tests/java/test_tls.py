"""Who gets a connection to a node of a cluster, and what is said to whom who does not.

Two engines of Java's TLS, as Spark makes them, in one JVM: TlsLab in kernel/java/test moves their bytes. One
is a node's; the other is a node's too, or an attacker's who does as they like. A node's end is given what
Spark gives where its trust store is missing: a trust manager that trusts everybody.
"""

from __future__ import annotations

import base64
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from java_side import Lab
from sealbook.broker import Keyring, MemoryStore
from sealbook.broker.certificates import Authority, NodeFacts, membership, pem, public_der

_MINUTES = timedelta(minutes=1)


class Cluster:
    """The CA and the secret of one cluster, and the broker's list of its members."""

    def __init__(self, name: str = "lab", ca: Authority | None = None) -> None:
        self.name = name
        keyring = Keyring(MemoryStore())
        self.ca = ca or Authority(keyring.make_reserved("node-ca", guard="any", description=""))
        self.broker_ca = Authority(keyring.make_reserved("broker-ca", guard="any", description=""))
        self.secret = bytes(range(32))

    def member(self, session: str = "s1", role: str = "spark-worker", **left: Any) -> dict[str, Any]:
        expires = left.get("expires", datetime.now(UTC) + 60 * _MINUTES)
        return {"session": session, "role": role, "expires": expires.isoformat()}

    def certificate(
        self,
        key: ec.EllipticCurvePrivateKey,
        *,
        ca: Authority | None = None,
        now: datetime | None = None,
        lasts: timedelta = 60 * _MINUTES,
        secret: bytes | None = None,
        tag_for: ec.EllipticCurvePrivateKey | None = None,
        **facts: Any,
    ) -> str:
        now = now or datetime.now(UTC)
        said = NodeFacts(
            role="spark-worker",
            cluster=self.name,
            measurement="31" * 32,
            simulated=True,
            session="s1",
            membership=membership(secret or self.secret, public_der((tag_for or key).public_key())),
        )
        return pem(
            (ca or self.ca).issue_node(
                key.public_key(), replace(said, **facts), ["localhost"], now=now, expires=now + lasts
            )
        )

    def node(self, **how: Any) -> dict[str, Any]:
        """A real node's end: Spark's engine over our provider."""
        key = ec.generate_private_key(ec.SECP256R1())
        extra = {name: how.pop(name) for name in ("members", "unpolled", "with_peer") if name in how}
        return {
            "attested": True,
            "cluster": self.name,
            "role": how.get("role", "spark-worker"),
            "session": how.get("session", "s1"),
            "certificate": self.certificate(key, **how),
            "key": der(key),
            "ca": self.ca.pem,
            "secret": base64.b64encode(self.secret).decode(),
            "members": [self.member("s1"), self.member("s2", "spark-driver")],
            **extra,
        }

    def stranger(self, **how: Any) -> dict[str, Any]:
        """Another program's end, which trusts everybody, with a certificate made like a node's."""
        key = ec.generate_private_key(ec.SECP256R1())
        return {"certificate": self.certificate(key, **how), "key": der(key)}


def der(key: ec.EllipticCurvePrivateKey) -> str:
    encoded = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    return base64.b64encode(encoded).decode()


@pytest.fixture(scope="module")
def cluster() -> Cluster:
    return Cluster()


def both_ways(peer: dict[str, Any], node: dict[str, Any], lab: Lab, **more: Any) -> list[dict[str, Any]]:
    """Once with the peer connecting to the node, once the other way round; the node is "server" in both."""
    connecting = lab.ask("tls", client=peer, server=node, **more)
    accepting = lab.ask("tls", client=node, server={**peer, "need": True}, **more)
    swapped = {"client": "server", "server": "client"}
    mirrored = {
        swapped.get(name, name.replace(*_swap(name)) if name.endswith("_reports") else name): value
        for name, value in accepting.items()
    }
    return [connecting, mirrored]


def _swap(name: str) -> tuple[str, str]:
    return ("client", "server") if name.startswith("client") else ("server", "client")


def refused_with(reason: str, peer: dict[str, Any], cluster: Cluster, lab: Lab) -> None:
    for said in both_ways(peer, cluster.node(session="s2", role="spark-driver"), lab):
        assert "error" not in said, said
        assert said["word"] == ""
        assert said["server"] == reason
        assert said["server_reports"] == [reason]


def test_members_talk_over_tls_1_3_whatever_spark_asks_the_engine_for(cluster: Cluster, lab: Lab) -> None:
    said = lab.ask("tls", client=cluster.node(session="s2", role="spark-driver"), server=cluster.node())
    assert (said["word"], said["client"], said["server"]) == ("pingpong", None, None)
    assert said["protocol"] == "TLSv1.3"
    assert said["suite"] in ("TLS_AES_256_GCM_SHA384", "TLS_AES_128_GCM_SHA256")
    assert said["client_reports"] == said["server_reports"] == []


def test_a_name_given_to_the_engine_makes_no_difference(cluster: Cluster, lab: Lab) -> None:
    node = cluster.node(session="s2", role="spark-driver", with_peer=True)
    assert lab.ask("tls", client=node, server=cluster.node())["word"] == "pingpong"


def test_a_peer_without_a_certificate_is_refused_although_everybody_is_trusted(
    cluster: Cluster, lab: Lab
) -> None:
    said = lab.ask("tls", client={}, server=cluster.node())
    assert said["word"] == ""
    assert "Empty client certificate chain" in said["server"]
    assert len(said["server_reports"]) == 1
    assert "Empty client certificate chain" in said["server_reports"][0]


_CA = "The peer's certificate was not issued by this cluster's CA."
_DATE = "The peer's certificate, or the cluster's CA, is not valid at this time."
_TAG = "The peer's membership tag was not made with this cluster's secret."
_NOBODY = "The peer's session has ended, was revoked or is not known to the broker."


def test_a_certificate_of_a_rogue_ca_is_refused(cluster: Cluster, lab: Lab) -> None:
    refused_with(_CA, cluster.stranger(ca=Cluster().ca), cluster, lab)


def test_the_same_certificate_from_the_cluster_ca_is_admitted(cluster: Cluster, lab: Lab) -> None:
    """What the other tests change one thing of."""
    for said in both_ways(cluster.stranger(), cluster.node(session="s2", role="spark-driver"), lab):
        assert said["word"] == "pingpong"


@pytest.mark.parametrize("minutes", [-120, 30])
def test_a_certificate_that_is_not_valid_now_is_refused(minutes: int, cluster: Cluster, lab: Lab) -> None:
    peer = cluster.stranger(now=datetime.now(UTC) + minutes * _MINUTES)
    refused_with(_DATE, peer, cluster, lab)


def test_a_node_of_another_cluster_of_the_same_broker_is_refused(cluster: Cluster, lab: Lab) -> None:
    refused_with("The peer belongs to another cluster.", cluster.stranger(cluster="other"), cluster, lab)
    kernel = cluster.stranger(cluster="", role="kernel")
    refused_with("The peer belongs to another cluster.", kernel, cluster, lab)


def test_whoever_has_the_ca_but_not_the_secret_makes_no_member(cluster: Cluster, lab: Lab) -> None:
    refused_with(_TAG, cluster.stranger(secret=bytes(32)), cluster, lab)
    refused_with(_TAG, cluster.stranger(membership=""), cluster, lab)


def test_a_tag_copied_from_another_members_certificate_is_refused(cluster: Cluster, lab: Lab) -> None:
    other = ec.generate_private_key(ec.SECP256R1())
    refused_with(_TAG, cluster.stranger(tag_for=other), cluster, lab)


def test_a_session_that_the_broker_does_not_list_is_refused(cluster: Cluster, lab: Lab) -> None:
    refused_with(_NOBODY, cluster.stranger(session="s3"), cluster, lab)


def test_a_session_listed_in_another_role_is_refused(cluster: Cluster, lab: Lab) -> None:
    refused_with(_NOBODY, cluster.stranger(role="spark-master"), cluster, lab)


def test_a_session_beyond_its_expiry_is_refused(cluster: Cluster, lab: Lab) -> None:
    past = cluster.member(expires=datetime.now(UTC) - _MINUTES)
    for said in both_ways(cluster.stranger(), cluster.node(members=[past]), lab):
        assert said["server"] == _NOBODY


@pytest.mark.parametrize("role", ["kernel", "broker", "", "Spark-Worker"])
def test_who_has_no_role_in_spark_is_refused(role: str, cluster: Cluster, lab: Lab) -> None:
    refused_with("The peer has no role in a Spark cluster.", cluster.stranger(role=role), cluster, lab)


def test_the_brokers_own_certificate_is_no_nodes(cluster: Cluster, lab: Lab) -> None:
    now = datetime.now(UTC)
    key = ec.generate_private_key(ec.SECP256R1())
    for ca, reason in (
        (cluster.broker_ca, _CA),
        # Were there but one CA: a server's certificate is no node's all the same.
        (cluster.ca, "The peer's certificate is not one of a node."),
    ):
        issued = ca.issue_server(key.public_key(), ["localhost"], now=now, expires=now + 60 * _MINUTES)
        refused_with(reason, {"certificate": pem(issued), "key": der(key)}, cluster, lab)


def test_the_ca_itself_is_no_node(cluster: Cluster, lab: Lab) -> None:
    peer = {"certificate": cluster.ca.pem, "key": der(cluster.ca._key)}
    for said in both_ways(peer, cluster.node(), lab):
        assert said["server"] in (_CA, "The peer's certificate is not one of a node.")
        assert said["word"] == ""


def test_tls_1_2_is_refused(cluster: Cluster, lab: Lab) -> None:
    for said in both_ways(cluster.stranger() | {"protocol": "TLSv1.2"}, cluster.node(), lab):
        assert said["word"] == ""
        assert "protocol" in said["server"].lower() + said["client"].lower()


def test_nothing_passes_where_the_check_of_the_peer_was_passed_over(cluster: Cluster, lab: Lab) -> None:
    node = cluster.node(session="s2", role="spark-driver") | {"unchecked": True}
    for said in both_ways(cluster.stranger(), node, lab):
        assert said["word"] == ""
        assert said["server"] == "The peer was not checked."


def test_a_node_whose_own_certificate_was_not_renewed_ends_its_connections(
    cluster: Cluster, lab: Lab
) -> None:
    node = cluster.node(session="s2", role="spark-driver", lasts=timedelta(seconds=4))
    said = lab.ask("tls", client=cluster.stranger(), server=node, then={"sleep": 4500})
    assert (said["word"], said["afterwards"]) == ("pingpong", "")
    assert said["server"] == "This node's certificate has expired and was not renewed; its connections end."


def test_without_a_cluster_too_a_certificate_ends(cluster: Cluster, lab: Lab) -> None:
    past = cluster.stranger(now=datetime.now(UTC) - 120 * _MINUTES) | {"alone": True}
    said = lab.ask("tls", client=past, server=past)
    assert said["word"] == ""


def test_two_nodes_of_different_clusters_refuse_each_other(cluster: Cluster, lab: Lab) -> None:
    other = Cluster("other", ca=cluster.ca)
    said = lab.ask("tls", client=other.node(), server=cluster.node())
    assert said["word"] == ""
    assert said["client"] == "The peer belongs to another cluster."


def test_without_a_cluster_only_the_jvm_itself_gets_in(cluster: Cluster, lab: Lab) -> None:
    own, other = cluster.stranger(), cluster.stranger()
    alone = own | {"alone": True}
    assert lab.ask("tls", client=alone, server=alone)["word"] == "pingpong"
    for peer in (other, other | {"alone": True}, {}):
        for said in both_ways(peer, alone, lab)[: 2 if peer else 1]:
            assert said["word"] == ""
            assert said["server"]


def test_a_node_that_came_after_the_last_poll_is_asked_for(cluster: Cluster, lab: Lab) -> None:
    node = cluster.node(session="s2", role="spark-driver", unpolled=True)
    assert lab.ask("tls", client=cluster.stranger(), server=node)["word"] == "pingpong"


def test_what_was_open_ends_when_the_session_is_revoked(cluster: Cluster, lab: Lab) -> None:
    left = [cluster.member("s2", "spark-driver")]
    node = cluster.node(session="s2", role="spark-driver")
    for said in both_ways(cluster.stranger(), node, lab, then={"members": left}):
        assert said["word"] == "pingpong"
        assert said["afterwards"] == ""
        assert said["server"] == "The peer's session has ended or was revoked; this connection ends with it."


def test_what_was_open_stays_open_while_the_broker_is_down(cluster: Cluster, lab: Lab) -> None:
    node = cluster.node(session="s2", role="spark-driver")
    for said in both_ways(cluster.stranger(), node, lab, then={"broker_down": True}):
        assert (said["word"], said["afterwards"], said["server"]) == ("pingpong", "pingpong", None)


def test_without_the_broker_a_session_ends_at_its_known_expiry(cluster: Cluster, lab: Lab) -> None:
    soon = cluster.member(expires=datetime.now(UTC) + timedelta(seconds=2))
    own = cluster.member("s2", "spark-driver")
    node = cluster.node(session="s2", role="spark-driver", members=[soon, own])
    said = lab.ask("tls", client=cluster.stranger(), server=node, then={"broker_down": True, "sleep": 2500})
    assert said["word"] == "pingpong"
    assert said["server"] == "The peer's session has ended or was revoked; this connection ends with it."


_NO_MEMBER = (
    "This node is no member of its cluster any more, or its broker has not answered for too long; its "
    "connections end."
)


@pytest.mark.parametrize(
    ("then", "forgot"),
    [
        ({"broker_refuses": True}, 1),  # the cluster has a new secret, or is gone
        ({"members": []}, 1),
        ({"members": [{"session": "s1", "role": "spark-worker"}]}, 1),  # of others, without this node
        ({"broker_down": True, "minutes": 11}, 1),
    ],
    ids=["refused", "nobody", "others", "cut off"],
)
def test_who_is_no_member_any_more_has_no_connection_and_no_kept_key(
    then: dict[str, Any], forgot: int, cluster: Cluster, lab: Lab
) -> None:
    then = {**then}
    if then.get("members"):
        then["members"] = [cluster.member("s1")]
    node = cluster.node(session="s2", role="spark-driver")
    for said in both_ways(cluster.stranger(), node, lab, then=then):
        assert (said["word"], said["afterwards"]) == ("pingpong", "")
        assert said["server"] == _NO_MEMBER
        assert forgot in (said["server_forgot"], said["client_forgot"])


def test_a_broker_that_is_down_for_minutes_ends_nothing(cluster: Cluster, lab: Lab) -> None:
    node = cluster.node(session="s2", role="spark-driver")
    for said in both_ways(cluster.stranger(), node, lab, then={"broker_down": True, "minutes": 9}):
        assert (said["word"], said["afterwards"], said["server"]) == ("pingpong", "pingpong", None)
        assert said["server_forgot"] == said["client_forgot"] == 0


def test_reports_to_the_broker_are_few_and_name_the_peer_by_fingerprint(cluster: Cluster, lab: Lab) -> None:
    said = lab.ask("tls", client=cluster.stranger(session="s3"), server=cluster.node())
    assert said["server_reports"] == [_NOBODY]
