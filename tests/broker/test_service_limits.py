"""Attack case 55 for the service: oversize, slow, broken and too many requests, and what it says of them."""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import ssl
import time
from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker_service import served
from sealbook.broker import tls
from sealbook.broker.client import BrokerBusyError, BrokerClient, BrokerUnreachableError
from sealbook.broker.service import protocol
from sealbook.broker.service.limits import BusyError, RateLimit, asker_at
from sealbook.errors import InputError, RefusedError


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    plenty = {"strangers": RateLimit(10_000, 10_000)}
    with served(tmp_path_factory.mktemp("broker"), server=plenty) as world:
        world.node = world.enrol()
        yield world


def connected(broker) -> ssl.SSLSocket:
    sock = socket.create_connection(("127.0.0.1", broker.server.port), timeout=20)
    return tls.client_context(broker.ca).wrap_socket(sock, server_hostname="127.0.0.1")


def answer_to(broker, data: bytes) -> bytes:
    with connected(broker) as connection:
        connection.sendall(data)
        received = b""
        try:
            while piece := connection.recv(65536):
                received += piece
                if b"\r\n\r\n" in received and received.endswith(b"}"):
                    break
        except (ConnectionError, ssl.SSLError):
            pass
        return received


def test_a_body_that_says_it_is_too_long_is_refused_unread(broker):
    head = b"POST /v1/attest HTTP/1.1\r\nHost: x\r\nContent-Length: 65537\r\n\r\n"
    assert b" 413 " in answer_to(broker, head).split(b"\r\n")[0]
    head = head.replace(b"65537", b"9" * 30)
    assert answer_to(broker, head).split(b" ")[1] in (b"413", b"400")


def test_a_body_in_pieces_is_refused_when_it_becomes_too_long(broker):
    piece = b"8000\r\n" + b"x" * 0x8000 + b"\r\n"
    head = b"POST /v1/attest HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert b" 413 " in answer_to(broker, head + piece * 3).split(b"\r\n")[0]


def test_headers_that_are_too_long_are_refused(broker):
    head = b"GET /v1/broker HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 40_000 + b"\r\n\r\n"
    assert b" 400 " in answer_to(broker, head).split(b"\r\n")[0]


def test_a_client_that_sends_slowly_or_nothing_is_dropped(broker, monkeypatch):
    monkeypatch.setattr(protocol, "REQUEST_SECONDS", 0.6)
    for start in (b"", b"POST /v1/challenge HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n", b"G"):
        with connected(broker) as connection:
            began = time.monotonic()
            try:
                connection.sendall(start)
                # A byte now and then must not buy more time.
                for _ in range(8):
                    time.sleep(0.2)
                    connection.sendall(b"X")
                assert connection.recv(1) == b""
            except (ConnectionError, ssl.SSLError):
                pass
            assert time.monotonic() - began < 5


def test_a_body_that_does_not_come_is_not_waited_for(broker, monkeypatch):
    monkeypatch.setattr(protocol, "REQUEST_SECONDS", 0.6)
    began = time.monotonic()
    assert answer_to(broker, b"POST /v1/challenge HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\n{") == b""
    assert time.monotonic() - began < 5


def test_a_connection_that_is_used_again_has_its_full_time_again(broker, monkeypatch):
    monkeypatch.setattr(protocol, "REQUEST_SECONDS", 1.0)
    with connected(broker) as connection:
        for _ in range(4):
            time.sleep(0.4)
            connection.sendall(b"GET /v1/broker HTTP/1.1\r\nHost: x\r\n\r\n")
            received = b""
            while not received.endswith(b"}"):
                received += connection.recv(65536)
            assert b" 200 " in received


def test_a_handshake_that_does_not_come_is_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(protocol, "HANDSHAKE_SECONDS", 0.6)
    with served(tmp_path) as broker, socket.create_connection(("127.0.0.1", broker.server.port)) as sock:
        sock.settimeout(10)
        began = time.monotonic()
        assert sock.recv(1) == b""
        assert time.monotonic() - began < 5


def test_beyond_the_limit_of_connections_new_ones_are_dropped_and_old_ones_go_on(broker, monkeypatch):
    with connected(broker) as first:
        monkeypatch.setattr(protocol, "MAX_CONNECTIONS", 1)
        with pytest.raises((ConnectionError, ssl.SSLError, AssertionError)), connected(broker) as second:
            second.sendall(b"GET /v1/broker HTTP/1.1\r\nHost: x\r\n\r\n")
            assert second.recv(1) != b""
        first.sendall(b"GET /v1/broker HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b" 200 " in first.recv(65536)


@pytest.mark.parametrize("limit", ["MAX_STRANGERS", "MAX_STRANGERS_AT"])
def test_connections_without_a_certificate_never_take_the_room_of_nodes(broker, monkeypatch, limit):
    node = broker.enrol()
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(connected(broker))
        monkeypatch.setattr(protocol, limit, 3)
        with pytest.raises((ConnectionError, ssl.SSLError, AssertionError)), connected(broker) as more:
            more.sendall(b"GET /v1/broker HTTP/1.1\r\nHost: x\r\n\r\n")
            assert more.recv(1) != b""
        assert node.session in {member.session for member in broker.client().members(node)}
    # They are gone, and so is what they took.
    assert broker.client().name() == broker.service.name


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{", b"[]", b"null", b'{"a":1}', b'{"nonce":1,"nonce":1}'),
        *(b"[" * 60_000, b"\xff", b'"\\ud800"', b"NaN"),
    ],
    ids=lambda body: repr(body[:12]),
)
def test_what_is_no_request_is_one_sentence(broker, body):
    for path in ("/v1/challenge", "/v1/attest"):
        status, answer = broker.http("POST", path, raw=body or b" ")
        assert (status, answer["code"]) == (400, "input")
        assert answer["error"].endswith(".")


def test_unknown_fields_types_paths_and_methods_are_refused(broker):
    assert broker.http("POST", "/v1/attest", broker.attest_request(more=1))[0] == 400
    for field, value in (("nonce", "!"), ("nonce", 1), ("role", 1), ("role", "x" * 2000), ("evidence", None)):
        assert broker.http("POST", "/v1/attest", broker.attest_request(**{field: value}))[0] == 400
    assert broker.http("GET", "/v2/x")[0] == 404
    assert broker.http("GET", "/v1/attest")[0] == 405
    assert broker.http("POST", "/v1/challenge?x=1", {})[0] == 200


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.one_of(
        st.binary(max_size=300),
        st.text(max_size=200).map(lambda text: b"POST /v1/attest HTTP/1.1\r\nHost: x\r\n" + text.encode()),
    )
)
def test_whatever_bytes_come_the_service_goes_on(broker, data):
    with connected(broker) as connection:
        connection.sendall(data + b"\r\n\r\n")
        connection.settimeout(0.02)
        with contextlib.suppress(TimeoutError, OSError):
            connection.recv(65536)
    assert broker.client().name() == broker.service.name


_FIELDS = ["nonce", "role", "cluster", "evidence", "tls_key", "hpke_key", "hosts", "more"]

_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(fields=st.dictionaries(st.sampled_from(_FIELDS), _json))
def test_whatever_json_comes_the_answer_is_a_refusal_with_a_sentence(broker, fields):
    status, answer = broker.http("POST", "/v1/attest", broker.attest_request() | fields)
    assert status in ((400, 403, 409) if fields else (200,))
    if fields:
        assert set(answer) == {"code", "error"}
        assert answer["code"] in ("input", "refused")


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.sampled_from(["/v1/release", "/v1/event", "/v1/renew"]), body=_json)
def test_whatever_a_node_asks_the_service_does_not_fail(broker, path, body):
    enrolment = broker.node
    keyed = {"/v1/release": ("key", "version", "purpose"), "/v1/event": ("action", "facts"), "/v1/renew": ()}
    shaped = dict.fromkeys(keyed[path], body)
    status, answer = broker.http("POST", path, shaped, enrolment=enrolment)
    assert status in (200, 400, 403, 404)
    assert status == 200 or answer["code"] != "internal"


def test_too_many_requests_from_one_address_are_429_with_one_sentence(tmp_path):
    with served(tmp_path, server={"strangers": RateLimit(0.001, 5)}) as broker:
        statuses = [broker.http("POST", "/v1/challenge", {})[0] for _ in range(7)]
        assert statuses == [200] * 5 + [429] * 2
        status, answer = broker.http("POST", "/v1/attest", {})
        assert (status, answer["code"]) == (429, "busy")
        assert answer["error"].count(".") == 1
        with pytest.raises(BrokerBusyError):
            broker.client().name()
        # Who is in is not kept out by strangers at the same address, and who is not does not fill the log.
        before = len(list(broker.audit.entries()))
        assert broker.http("GET", "/v1/members")[0] == 429
        assert len(list(broker.audit.entries())) == before


def test_too_many_requests_of_one_session_are_429_and_others_go_on(tmp_path):
    with served(tmp_path, server={"nodes": RateLimit(0.001, 3)}) as broker:
        one, two = broker.enrol(), broker.enrol()
        for _ in range(3):
            broker.client().release(one, "data", None, "seal")
        with pytest.raises(BrokerBusyError):
            broker.client().release(one, "data", None, "seal")
        broker.client().release(two, "data", None, "seal")


def test_a_rate_recovers_with_time_and_has_a_bound_of_memory():
    moment = [0.0]
    limit = RateLimit(2, 3, clock=lambda: moment[0])
    for _ in range(3):
        limit.take("a")
    with pytest.raises(BusyError):
        limit.take("a")
    limit.take("b")
    moment[0] = 0.5
    limit.take("a")
    with pytest.raises(BusyError):
        limit.take("a")
    moment[0] = 100.0
    for _ in range(3):
        limit.take("a")
    with pytest.raises(BusyError):
        limit.take("a")
    for number in range(20_000):
        limit.take(str(number))
    assert len(limit._buckets) <= 8192


def test_an_address_counts_with_its_neighbours_in_ipv6_and_alone_in_ipv4():
    assert asker_at("2001:db8::1") == asker_at("2001:db8::ffff:1")
    assert asker_at("2001:db8::1") != asker_at("2001:db8:0:1::1")
    assert asker_at("192.0.2.1") == asker_at("::ffff:192.0.2.1") != asker_at("192.0.2.2")


def test_a_failure_inside_says_nothing_of_its_cause(broker, monkeypatch, caplog):
    monkeypatch.setattr(broker.service, "challenge", lambda: 1 / 0)
    with caplog.at_level(logging.DEBUG):
        status, answer = broker.http("POST", "/v1/challenge", {})
    assert (status, answer) == (503, {"code": "internal", "error": "The broker failed; see its log."})


def test_no_request_is_in_any_log(broker, caplog, capfd):
    with caplog.at_level(logging.DEBUG):
        broker.http("POST", "/v1/attest", broker.attest_request(role="marker-of-mine"))
        answer_to(broker, b"garbage with marker-of-mine\r\n\r\n")
    assert "marker-of-mine" not in caplog.text
    assert "marker-of-mine" not in "".join(capfd.readouterr())


def test_a_client_gives_a_slow_broker_up_in_time():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ca = _any_ca()
        client = BrokerClient(f"https://127.0.0.1:{listener.getsockname()[1]}", ca, timeout=0.5)
        began = time.monotonic()
        with pytest.raises(BrokerUnreachableError, match=r"no answer within 0\.5 seconds") as caught:
            client.name()
        assert time.monotonic() - began < 5
        assert caught.value.exit_code == 2


def test_a_broker_that_is_down_is_one_sentence():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(BrokerUnreachableError, match=r"Connection refused"):
        BrokerClient(f"https://127.0.0.1:{port}", _any_ca()).name()
    with pytest.raises(BrokerUnreachableError, match="does not answer"):
        BrokerClient("https://nowhere.invalid:1", _any_ca()).name()


def _any_ca() -> str:
    from sealbook.broker import Keyring, MemoryStore
    from sealbook.broker.certificates import Authority

    return Authority(Keyring(MemoryStore()).make_reserved("broker-ca", guard="x", description="")).pem


@pytest.mark.parametrize(
    "url",
    [
        "http://a:1",
        "https://a",
        "a:1",
        "",
        "https://a:b",
        "https://a:99999",
        "https://a:1/path",
        "https://:1",
    ],
)
def test_an_address_that_is_none_is_one_sentence(url):
    with pytest.raises(InputError, match="is not an address here"):
        BrokerClient(url, _any_ca())


def test_a_ca_that_is_none_is_one_sentence():
    with pytest.raises(InputError, match="is not one certificate"):
        BrokerClient("https://a:1", "nonsense")


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 302 Found\r\nLocation: https://elsewhere\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"8000\r\n" + b"x" * 0x8000 + b"\r\n",
        b"not HTTP\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n" + b"x" * 300_000,
    ],
    ids=["list", "text", "redirect", "cut", "garbage", "long"],
)
def test_a_client_refuses_answers_that_are_none(broker, answer, tmp_path):
    import threading

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_identity(context, *broker.service.identity())
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            try:
                with context.wrap_socket(connection, server_side=True) as secured:
                    secured.recv(4096)
                    secured.sendall(answer)
            except OSError:
                pass

        thread = threading.Thread(target=serve)
        thread.start()
        client = BrokerClient(f"https://127.0.0.1:{listener.getsockname()[1]}", broker.ca, timeout=2)
        with pytest.raises(RefusedError):
            client.name()
        thread.join()


def test_every_refusal_is_json(broker):
    assert json.loads(answer_to(broker, b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n").partition(b"\r\n\r\n")[2])


@pytest.mark.parametrize("broken", ["audit.jsonl.head", "policy"])
def test_what_is_wrong_on_the_owners_side_is_said_to_the_owner_only(tmp_path, broken, caplog):
    """A log that cannot be written, or a policy that is gone: nothing is released, and no path is told."""
    with served(tmp_path) as broker:
        if broken == "policy":
            broker.policies.clear()
        else:
            (tmp_path / broken).write_text("broken")
        status, answer = broker.http("POST", "/v1/attest", broker.attest_request())
        assert status in (403, 503)
        assert answer["error"].endswith("log says why.")
        assert str(tmp_path) not in answer["error"]
        assert "nodes" not in answer["error"]
        assert any(text in caplog.text for text in ("could not be written", "There is no policy"))
        assert broker.service.sessions.alive(datetime.now(UTC)) == ()
