"""Stand-ins for a PCCS: a real HTTPS server on this machine that serves what a test gives it."""

from __future__ import annotations

import http.server
import ipaddress
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote as escape

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from sealbook.attestation import Collateral, Quote
from sealbook.attestation.pccs import PccsCollateral, PccsService

GENUINE = Path(__file__).parents[1] / "data" / "sgx-quotes" / "phala_sgx"
#: When the genuine collateral was valid (tests/data/sgx-quotes/README.md).
FIRST, LAST = (datetime.fromtimestamp(seconds, UTC) for seconds in (1750330571, 1752919278))
API = "/sgx/certification/v4/"


@dataclass
class Answer:
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    status: int = 200
    #: Seconds to wait before the answer, and between its bytes.
    delay: float = 0.0
    drip: float = 0.0


@dataclass
class Service:
    """What it serves, and what it was asked."""

    port: int = 0
    scheme: str = "https"
    answers: dict[str, Answer] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"{self.scheme}://localhost:{self.port}{API}"

    def serve(self, collateral: Collateral, *, fmspc: str, authority: str = "processor") -> None:
        """Answer as a PCCS does that has this collateral."""
        self.answers = {
            f"tcb?fmspc={fmspc.upper()}": Answer(
                b'{"tcbInfo":%b,"signature":"%b"}'
                % (collateral.tcb_info.encode(), collateral.tcb_info_signature.hex().encode()),
                {"TCB-Info-Issuer-Chain": escape(collateral.tcb_info_issuer_chain)},
            ),
            "qe/identity": Answer(
                b'{"enclaveIdentity":%b,"signature":"%b"}'
                % (collateral.qe_identity.encode(), collateral.qe_identity_signature.hex().encode()),
                {"SGX-Enclave-Identity-Issuer-Chain": escape(collateral.qe_identity_issuer_chain)},
            ),
            f"pckcrl?ca={authority}&encoding=der": Answer(
                collateral.pck_crl, {"SGX-PCK-CRL-Issuer-Chain": escape(collateral.pck_crl_issuer_chain)}
            ),
            "rootcacrl": Answer(collateral.root_ca_crl.hex().encode()),
        }

    def find(self, beginning: str) -> Answer:
        """The answer to the request that begins so."""
        return next(answer for path, answer in self.answers.items() if path.startswith(beginning))


class _Handler(http.server.BaseHTTPRequestHandler):
    service: Service

    def do_GET(self) -> None:
        what = self.path.removeprefix(API)
        self.service.asked.append(what)
        answer = self.service.answers.get(what, Answer(status=404))
        time.sleep(answer.delay)
        try:
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.end_headers()
            if answer.drip:
                for byte in answer.body:
                    self.wfile.write(bytes([byte]))
                    time.sleep(answer.drip)
            else:
                self.wfile.write(answer.body)
        except OSError:
            pass  # the client had enough

    def do_CONNECT(self) -> None:
        """Say no, as a proxy does that lets nothing out."""
        self.service.asked.append(f"CONNECT {self.path}")
        self.send_response(403)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@dataclass(frozen=True)
class Identity:
    """A certificate for this machine, and the authority that issued it."""

    ca: Path
    chain: Path


def make_identity(directory: Path, *, host: str = "localhost") -> Identity:
    now = datetime.now(UTC)

    def certificate(
        name: str,
        key: ec.EllipticCurvePrivateKey,
        issuer: str,
        signer: ec.EllipticCurvePrivateKey,
        *,
        ca: bool,
    ) -> x509.Certificate:
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, issuer)]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        )
        if not ca:
            names = [x509.DNSName(host), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
            builder = builder.add_extension(
                x509.SubjectAlternativeName(names[: 2 if host == "localhost" else 1]), critical=False
            )
        return builder.sign(signer, hashes.SHA256())

    authority_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    authority = certificate("stand-in CA", authority_key, "stand-in CA", authority_key, ca=True)
    own = certificate("stand-in PCCS", key, "stand-in CA", authority_key, ca=False)
    directory.mkdir(parents=True, exist_ok=True)
    pem = serialization.Encoding.PEM
    (directory / "ca.pem").write_bytes(authority.public_bytes(pem))
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (directory / "chain.pem").write_bytes(private + own.public_bytes(pem))
    return Identity(directory / "ca.pem", directory / "chain.pem")


@pytest.fixture(scope="session")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Identity:
    return make_identity(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def start(identity: Identity) -> Iterator[Callable[..., Service]]:
    """Start servers on loopback; they end with the test."""
    running: list[http.server.ThreadingHTTPServer] = []

    def start(*, chain: Path | None = identity.chain) -> Service:
        service = Service(scheme="https" if chain else "http")
        handler = type("Handler", (_Handler,), {"service": service})
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.daemon_threads = True
        server.block_on_close = False
        server.handle_error = lambda *_: None  # type: ignore[method-assign]
        if chain:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(chain)
            server.socket = context.wrap_socket(
                server.socket, server_side=True, do_handshake_on_connect=False
            )
        service.port = server.server_address[1]
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        running.append(server)
        return service

    yield start
    for server in running:
        server.shutdown()
        server.server_close()


@pytest.fixture
def genuine() -> Collateral:
    return Collateral.from_json((GENUINE / "collateral.json").read_bytes())


@pytest.fixture
def quote() -> Quote:
    """A real quote of real hardware, whose collateral was valid from FIRST to LAST."""
    return Quote.parse((GENUINE / "quote.bin").read_bytes())


@pytest.fixture
def pccs(start: Callable[..., Service], genuine: Collateral, quote: Quote) -> Service:
    """A service with the real collateral."""
    service = start()
    service.serve(genuine, fmspc=quote.fmspc)
    return service


@dataclass
class Side:
    """The relying party's side: a cache, a clock that can be set, and the service that is configured."""

    cache: Path
    service: PccsService
    now: datetime = FIRST + timedelta(days=1)
    timeout: float = 5.0
    options: dict[str, object] = field(default_factory=dict)

    def source(self) -> PccsCollateral:
        """A new one, as after a restart of Jupyter: what it knows is in the cache."""
        return PccsCollateral(
            self.cache,
            service=lambda: self.service,
            timeout=self.timeout,
            clock=lambda: self.now,
            **self.options,
        )


@pytest.fixture
def side(pccs: Service, identity: Identity, tmp_path: Path) -> Side:
    return Side(tmp_path / "cache", PccsService(pccs.url, identity.ca))


def rewritten(path: Path, **changes: object) -> None:
    """Change members of a cache file."""
    document = json.loads(path.read_text())
    path.write_text(json.dumps(document | changes))
