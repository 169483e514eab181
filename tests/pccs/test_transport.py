"""Services that are slow, huge, somewhere else or somebody else; all over real connections."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path

import pytest

from sealbook.attestation.pccs.transport import ServiceError, Transport
from sealbook.errors import InputError

from .conftest import Answer, make_identity


def failing(transport: Transport, url: str, *, max_bytes: int = 1000) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        transport.get(url, max_bytes=max_bytes)
    return caught.value


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "sealbook-pccs"]


@pytest.fixture(autouse=True)
def _no_thread_is_left():
    yield
    end = time.monotonic() + 5
    while threads() and time.monotonic() < end:
        time.sleep(0.02)
    assert threads() == []


def test_a_document_arrives_whole_up_to_its_bound_and_not_a_byte_beyond(start, identity):
    service = start()
    service.answers["x"] = Answer(b"a" * 1000)
    transport = Transport(seconds=5, ca=identity.ca)
    assert transport.get(service.url + "x", max_bytes=1000).body == b"a" * 1000
    assert "more than the 999 bytes" in failing(transport, service.url + "x", max_bytes=999).cause


def test_a_huge_answer_is_not_read_to_its_end(start, identity):
    service = start()
    service.answers["x"] = Answer(b"a" * (64 << 20))
    assert "more than" in failing(Transport(seconds=20, ca=identity.ca), service.url + "x").cause


def test_a_service_that_says_nothing_is_given_up_in_time(start, identity):
    service = start()
    service.answers["x"] = Answer(delay=4)
    began = time.monotonic()
    assert (
        failing(Transport(seconds=0.5, ca=identity.ca), service.url + "x").cause == "did not answer in time"
    )
    assert time.monotonic() - began < 2


def test_a_service_that_drips_is_given_up_in_time_although_every_byte_comes_in_time(start, identity):
    service = start()
    service.answers["x"] = Answer(b"a" * 1000, drip=0.05)
    began = time.monotonic()
    assert (
        failing(Transport(seconds=0.6, ca=identity.ca), service.url + "x").cause == "did not answer in time"
    )
    assert time.monotonic() - began < 2


@pytest.mark.parametrize("first", [b"", b"\x16\x03\x03\x40\x00\x02"])
def test_a_peer_that_never_finishes_the_handshake_is_given_up_in_time(first):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        stop = threading.Event()

        def drip() -> None:
            connection, _ = listener.accept()
            with connection:
                try:
                    connection.sendall(first)
                    while not stop.wait(0.05):
                        connection.sendall(b"\x00")
                except OSError:
                    pass

        thread = threading.Thread(target=drip)
        thread.start()
        began = time.monotonic()
        url = f"https://localhost:{listener.getsockname()[1]}/"
        cause = failing(Transport(seconds=0.5), url).cause
        stop.set()
        thread.join()
    assert time.monotonic() - began < 2
    assert "in time" in cause or "TLS" in cause


def test_all_requests_together_have_the_time_of_one(start, identity):
    service = start()
    service.answers["x"] = Answer(b"x", delay=0.4)
    transport = Transport(seconds=0.7, ca=identity.ca)
    assert transport.get(service.url + "x", max_bytes=10)
    assert failing(transport, service.url + "x").cause == "did not answer in time"
    time.sleep(0.05)
    asked = len(service.asked)
    assert failing(transport, service.url + "x").cause == "did not answer in time"
    assert len(service.asked) == asked


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(start, identity, status):
    elsewhere = start(chain=None)
    elsewhere.answers["x"] = Answer(b"there")
    service = start()
    service.answers["x"] = Answer(status=status, headers={"Location": elsewhere.url + "x"})
    error = failing(Transport(seconds=5, ca=identity.ca), service.url + "x")
    assert f"redirects to another address (status {status})" in error.cause
    assert elsewhere.asked == []


@pytest.mark.parametrize("status", [204, 400, 404, 500, 503])
def test_every_other_status_than_200_is_no_answer(start, identity, status):
    service = start()
    service.answers["x"] = Answer(status=status)
    assert failing(Transport(seconds=5, ca=identity.ca), service.url + "x").status == status


def test_a_certificate_of_an_unknown_authority_is_refused_and_what_to_do_is_said(start):
    service = start()
    error = failing(Transport(seconds=5), service.url)
    assert "certificate that is not trusted" in error.cause
    assert "`ca` under [pccs]" in error.remedy
    assert service.asked == []


def test_a_certificate_for_another_host_is_refused(start, tmp_path):
    other = make_identity(tmp_path / "other", host="pccs.example.org")
    service = start(chain=other.chain)
    error = failing(Transport(seconds=5, ca=other.ca), service.url)
    assert "certificate that is not trusted" in error.cause
    assert service.asked == []


def test_a_named_authority_replaces_those_of_the_system(start, tmp_path, identity, monkeypatch):
    # As if the system trusted the service's issuer.
    monkeypatch.setenv("SSL_CERT_FILE", str(identity.ca))
    service = start()
    service.answers["x"] = Answer(b"x")
    assert Transport(seconds=5).get(service.url + "x", max_bytes=10).body == b"x"
    other = make_identity(tmp_path / "other")
    assert "not trusted" in failing(Transport(seconds=5, ca=other.ca), service.url + "x").cause


@pytest.mark.parametrize("content", [None, b"", b"no certificate"])
def test_an_authority_that_cannot_be_read_is_bad_input(tmp_path, content):
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"ca\.pem, cannot be read"):
        Transport(seconds=5, ca=path)


def test_a_plain_server_behind_an_https_address_is_said(start):
    service = start(chain=None)
    error = failing(Transport(seconds=5), service.url.replace("http:", "https:"))
    assert "TLS" in error.cause


@pytest.mark.parametrize(
    "answer", [b"", b"garbage\r\n\r\n", b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 200 + b"\r\n"]
)
def test_what_is_no_http_is_one_phrase(answer):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def once() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(answer)

        thread = threading.Thread(target=once)
        thread.start()
        error = failing(Transport(seconds=5), f"http://127.0.0.1:{listener.getsockname()[1]}/")
        thread.join()
    assert error.cause.startswith("cannot be")


def test_a_name_that_nobody_has_is_said(monkeypatch):
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    cause = failing(Transport(seconds=5), "https://pccs.invalid/").cause
    assert cause == "cannot be reached (Name or service not known)"


def test_a_name_server_that_does_not_answer_is_given_up_in_time(monkeypatch):
    over = threading.Event()

    def hanging(*_: object, **__: object) -> None:
        over.wait(10)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", hanging)
    began = time.monotonic()
    assert failing(Transport(seconds=0.3), "https://pccs.invalid/").cause == "did not answer in time"
    assert time.monotonic() - began < 2
    over.set()


@pytest.mark.parametrize("address", ["file:///etc/hostname", "ftp://localhost/x", "data:,x"])
def test_nothing_but_http_is_opened(address):
    assert "cannot be reached" in failing(Transport(seconds=5), address).cause


def test_loopback_is_never_reached_through_a_proxy(start, monkeypatch):
    proxy, service = start(chain=None), start(chain=None)
    service.answers["x"] = Answer(b"direct")
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://localhost:{proxy.port}")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert Transport(seconds=5).get(service.url + "x", max_bytes=100).body == b"direct"
    assert proxy.asked == []


def test_a_proxy_of_the_environment_is_used_for_other_hosts(start, monkeypatch):
    proxy = start(chain=None)
    monkeypatch.setenv("https_proxy", f"http://localhost:{proxy.port}")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    error = failing(Transport(seconds=5), "https://pccs.invalid/")
    assert error.cause == "cannot be reached through the proxy"
    assert proxy.asked == ["CONNECT pccs.invalid:443"]


def test_the_machines_certificates_are_used_where_no_file_is_named():
    import ssl

    assert Transport(seconds=1)._context.verify_mode == ssl.CERT_REQUIRED
    assert Transport(seconds=1)._context.check_hostname
    assert Path(ssl.get_default_verify_paths().openssl_cafile)
