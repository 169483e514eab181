"""Which nodes a key may go to besides what their own evidence says: by their cluster, and by its home."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from broker_service import CLUSTER, OTHER, Served, served
from sealbook.attestation import Policy, policy_text
from sealbook.attestation.unattested import UnattestedAttester
from sealbook.broker.certificates import authority_id
from sealbook.broker.owners import MAX_OWNERS, Owner
from sealbook.broker.session import SessionEndedError
from sealbook.errors import InputError, RefusedError
from sealbook.sealing import KeyUnavailableError


@pytest.fixture
def broker(tmp_path) -> Iterator[Served]:
    with served(tmp_path) as broker:
        yield broker


@pytest.fixture
def two(tmp_path) -> Iterator[tuple[Served, Served]]:
    """A home, and the broker of another owner."""
    for name in ("home", "owner"):
        (tmp_path / name).mkdir()
    with served(tmp_path / "home") as home, served(tmp_path / "owner") as owner:
        yield home, owner


# -- the cluster that a node is in --------------------------------------------------------------


def test_a_strict_key_does_not_go_to_a_strict_node_in_a_lax_cluster(broker):
    """Its driver may be anybody whom the lax policy admits, and the node works for that driver."""
    both = f'"{"31" * 32}", "{"32" * 32}"'
    broker.add_policy("lax", edit=lambda text: text.replace(f'"{"31" * 32}"', both))
    broker.service.clusters.add("dev", policy="lax")
    driver = broker.client().enrol(broker.attester(OTHER), role="spark-driver", cluster="dev")
    executor = broker.enrol(role="spark-executor", cluster="dev")
    for node in (driver, executor):
        with pytest.raises(KeyUnavailableError):
            broker.client().release(node, "data", None, "unseal")
        assert "data" not in {entry.name for entry in broker.client().keys(node)}
    assert "a key goes only to clusters whose nodes its own policy admits" in broker.reasons("release")
    broker.keyring.set_guard("data", "lax")
    assert broker.client().release(executor, "data", None, "unseal").name == "data"


def test_a_key_that_no_policy_guards_goes_to_no_node(broker):
    broker.keyring.create("notes", guard="none")
    for cluster in (CLUSTER, ""):
        node = broker.enrol(cluster=cluster)
        with pytest.raises(KeyUnavailableError, match="No policy guards the key 'notes'"):
            broker.client().release(node, "notes", None, "seal")
        assert {entry.name for entry in broker.client().keys(node)} == {"data"}


@pytest.mark.parametrize("version", [None, 1])
def test_a_session_key_goes_to_no_node_because_a_restart_would_make_another_of_the_same_name(broker, version):
    node = broker.enrol()
    with pytest.raises(KeyUnavailableError, match=r"key[s]? that last"):
        broker.client().release(node, "session/default", version, "seal")
    assert "session/default" not in {entry.name for entry in broker.client().keys(node)}


def test_a_kernel_is_no_member_of_a_cluster(broker):
    with pytest.raises(InputError, match="A kernel is no member of a cluster"):
        broker.enrol(role="kernel")


def test_a_cluster_that_was_removed_and_made_again_knows_no_node_of_the_old_one(broker):
    node = broker.enrol()
    other = broker.enrol()
    broker.service.clusters.remove(CLUSTER)
    broker.service.clusters.add(CLUSTER, policy="nodes")
    for ask in (broker.client().renew, broker.client().members):
        with pytest.raises(SessionEndedError, match="has a new secret"):
            ask(node)
    new = broker.enrol()
    assert {member.session for member in broker.client().members(new)} == {new.session}
    assert other.cluster_secret != new.cluster_secret


# -- the cluster's home -------------------------------------------------------------------------


def owner_of(broker: Served, name: str = "hospital") -> Owner:
    return Owner(name, broker.url, broker.ca)


def test_only_the_home_broker_says_which_owners_there_are(two):
    home, owner = two
    assert home.enrol().owners == ()
    home.service.partners.add_owner(CLUSTER, owner_of(owner))
    assert home.enrol().owners == (owner_of(owner),)
    assert home.enrol(cluster="").owners == ()
    home.service.partners.remove_owner(CLUSTER, "hospital")
    assert home.enrol().owners == ()
    with pytest.raises(InputError, match="has no other owner 'hospital'"):
        home.service.partners.remove_owner(CLUSTER, "hospital")


def test_an_owner_admits_nodes_of_the_home_that_it_named_and_of_no_other(two, tmp_path):
    """A host may make a home of its own and take genuine nodes there: they get no key of the owner's."""
    home, owner = two
    owner.service.partners.set_home(CLUSTER, authority_id(home.ca))
    guest = owner.client().enrol_as_guest(owner.attester(), home.enrol())
    assert owner.client().release(guest, "data", None, "unseal").name == "data"
    (tmp_path / "rogue").mkdir()
    with (
        served(tmp_path / "rogue") as rogue,
        pytest.raises(RefusedError, match="no cluster 'trial' of that home"),
    ):
        owner.client().enrol_as_guest(owner.attester(), rogue.enrol())
    refused = owner.events("attest")[-1]
    assert refused["decision"] == "refused"
    assert refused["home"] == authority_id(rogue.ca).hex()


def test_the_home_that_a_node_names_is_the_one_in_its_evidence(two):
    home, owner = two
    right = authority_id(home.ca)
    owner.service.partners.set_home(CLUSTER, right)
    honest = owner.attest_request(home=right, quoted={"home": right})
    assert owner.http("POST", "/v1/attest", honest)[0] == 200
    lying = owner.attest_request(home=right, quoted={"home": b"\x07" * 32})
    assert owner.http("POST", "/v1/attest", lying)[0] == 403


@pytest.mark.parametrize("cluster", [CLUSTER, ""])
def test_a_node_of_another_home_is_no_member_here(two, cluster):
    home, owner = two
    guest = dataclasses.replace(home.enrol(), cluster=cluster)
    with pytest.raises(RefusedError, match="of that home"):
        owner.client().enrol_as_guest(owner.attester(), guest)


def test_a_guest_gets_no_secret_and_may_not_pose_as_a_member(two):
    home, owner = two
    owner.service.partners.set_home(CLUSTER, authority_id(home.ca))
    with pytest.raises(RefusedError, match="is of another broker"):
        owner.enrol()
    owner.client().enrol_as_guest(owner.attester(), home.enrol())
    assert [entry for entry in owner.events("release") if entry["decision"] == "released"] == []


def test_a_home_that_is_changed_puts_out_the_nodes_of_the_old_one(two):
    home, owner = two
    owner.service.partners.set_home(CLUSTER, authority_id(home.ca))
    guest = owner.client().enrol_as_guest(owner.attester(), home.enrol())
    owner.service.partners.set_home(CLUSTER, b"\x09" * 32)
    with pytest.raises(SessionEndedError, match="has a new secret"):
        owner.client().release(guest, "data", None, "unseal")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "session"}, "No data owner is called"),
        ({"name": "a/b"}, "is not a name for a data owner"),
        ({"name": ""}, "is not a name for a data owner"),
        ({"broker": "http://127.0.0.1:8440"}, "is not an address here"),
        ({"broker": "https://127.0.0.1"}, "is not an address here"),
        ({"broker": "https://127.0.0.1:99999"}, "is not an address here"),
        ({"ca": "x"}, "not one certificate in PEM"),
        ({"ca": "x" * 20_000}, "not one certificate in PEM"),
    ],
)
def test_what_is_no_owner_is_refused(broker, change, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(owner_of(broker), **change)


def test_a_cluster_has_so_many_owners_and_no_more(broker):
    partners = broker.service.partners
    for number in range(MAX_OWNERS):
        partners.add_owner(CLUSTER, owner_of(broker, f"o{number}"))
    partners.add_owner(CLUSTER, owner_of(broker, "o3"))
    with pytest.raises(InputError, match="the most there may be"):
        partners.add_owner(CLUSTER, owner_of(broker, "more"))
    assert len(broker.enrol().owners) == MAX_OWNERS


# -- policies that ask for nothing --------------------------------------------------------------


def test_a_policy_that_asks_for_no_evidence_counts_only_where_nobody_else_reaches_the_broker(tmp_path):
    def direct(broker: Served) -> None:
        broker.policies["direct"] = Policy.parse(
            policy_text(id="direct", tee="gramine-direct", now=datetime.now(UTC) - timedelta(hours=1))
        )
        broker.service.clusters.add("open", policy="direct")

    with served(tmp_path, policies=("direct",)) as broker:
        direct(broker)
        for cluster, role in (("", "kernel"), ("open", "spark-worker")):
            with pytest.raises(RefusedError, match="cannot be used"):
                broker.client().enrol(UnattestedAttester(), role=role, cluster=cluster)
    (tmp_path / "local").mkdir()
    with served(tmp_path / "local", policies=("direct",), unattested=True) as broker:
        direct(broker)
        broker.client().enrol(UnattestedAttester(), role="kernel")
        broker.client().enrol(UnattestedAttester(), role="spark-worker", cluster="open")
