"""Where the address of the collateral service comes from, and what is no address."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sealbook.attestation.pccs import INTEL_PCS, PccsService, configured_service
from sealbook.errors import InputError

#: As Intel's package installs it (DCAP 1.13 and newer), shortened.
QCNL = """{
  // *** ATTENTION : This file is in JSON format so the keys are case sensitive. Don't change them.

  //PCCS server address
  "pccs_url": "https://localhost:8081/sgx/certification/v4/"

  // To accept insecure HTTPS certificate, set this option to false
  ,"use_secure_cert": false

  //,"collateral_service": "https://commented.example.org/sgx/certification/v4/"
  /* ,"collateral_service":
     "https://commented.example.org/sgx/certification/v4/" */
  ,"retry_times": 6
}
"""


class Places:
    """The places where an address can be named."""

    def __init__(self, directory: Path) -> None:
        self.root = directory / "root"
        self.config = directory / "home" / "config.toml"
        self.qcnl = self.root / "etc" / "sgx_default_qcnl.conf"
        self.environment: dict[str, str] = {}
        self.config.parent.mkdir()
        self.qcnl.parent.mkdir(parents=True)

    def service(self) -> PccsService:
        return configured_service(root=self.root, environment=self.environment, config=self.config)

    def refused(self) -> str:
        with pytest.raises(InputError) as caught:
            self.service()
        assert str(caught.value).endswith(".")
        assert "\n" not in str(caught.value)
        return str(caught.value)


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(tmp_path)


def test_the_first_place_that_names_a_service_counts(places):
    assert places.service() == PccsService(INTEL_PCS, None, "built in")
    assert places.service().built_in
    places.qcnl.write_text(QCNL)
    assert places.service().url == "https://localhost:8081/sgx/certification/v4/"
    assert places.service().origin == str(places.qcnl)
    places.config.write_text('[pccs]\nurl = "https://mine.example.org"\n')
    assert places.service().url == "https://mine.example.org/sgx/certification/v4/"
    assert places.service().origin == str(places.config)
    places.environment["SEALBOOK_PCCS"] = "https://now.example.org:8443/"
    assert places.service().url == "https://now.example.org:8443/sgx/certification/v4/"
    assert "SEALBOOK_PCCS" in places.service().origin
    assert not places.service().built_in


def test_an_empty_variable_names_nothing(places):
    places.environment["SEALBOOK_PCCS"] = " "
    assert places.service().built_in


def test_a_certificate_authority_counts_whoever_named_the_address(places):
    places.config.write_text('[pccs]\nca = "ca.pem"\n')
    assert places.service().ca == places.config.parent / "ca.pem"
    places.qcnl.write_text(QCNL)
    assert places.service().ca == places.config.parent / "ca.pem"
    places.config.write_text('[pccs]\nca = "/etc/ssl/pccs.pem"\n')
    places.environment["SEALBOOK_PCCS"] = "https://now.example.org"
    assert places.service().ca == Path("/etc/ssl/pccs.pem")


def test_intels_file_may_have_collateral_come_from_elsewhere_than_certificates(places):
    places.qcnl.write_text(QCNL.replace("//,", ",").replace("commented", "other"))
    assert places.service().url == "https://other.example.org/sgx/certification/v4/"


def test_the_older_form_of_intels_file_is_read(places):
    places.qcnl.write_text(
        "# PCCS server address\nPCCS_URL=https://localhost:8081/sgx/certification/v4/\n#USE_SECURE_CERT=FALSE\n"
    )
    assert places.service().url == "https://localhost:8081/sgx/certification/v4/"


@pytest.mark.parametrize("text", ["", "{}", "# nothing\n", '{"retry_times": 6}'])
def test_a_file_of_intels_without_an_address_names_nothing(places, text):
    places.qcnl.write_text(text)
    assert places.service().built_in


@pytest.mark.parametrize(
    "text", ["{", '{"pccs_url": 7}', '{"pccs_url": "a", "pccs_url": "b"}', "\xff", "{" + " " * 70_000]
)
def test_a_damaged_file_of_intels_is_said_with_what_to_do(places, text):
    places.qcnl.write_bytes(text.encode("latin-1"))
    sentence = places.refused()
    assert "sgx_default_qcnl.conf" in sentence


@pytest.mark.parametrize(
    "text",
    [
        "[pccs",
        "pccs = 7",
        "[pccs]\nurl = 7",
        '[pccs]\nurl = ""',
        '[pccs]\naddress = "https://x"',
        '[pcs]\nurl = "https://x"',
        "\xff",
        "#" * 70_000,
    ],
)
def test_damaged_settings_are_said_and_not_passed_over(places, text):
    places.config.write_bytes(text.encode("latin-1"))
    places.qcnl.write_text(QCNL)
    assert "config.toml" in places.refused()


@pytest.mark.parametrize(
    ("address", "because"),
    [
        ("pccs.example.org", "no https address"),
        ("ftp://pccs.example.org", "no https address"),
        ("file:///etc/passwd", "no https address"),
        ("https://", "no https address"),
        ("https://a b", "no https address"),
        ("https://[::1", "cannot be read"),
        ("https://pccs:99999", "cannot be read"),
        ("https://user:password@pccs.example.org", "has a user"),
        ("https://pccs.example.org/?key=1", "has a user, a query"),
        ("https://pccs.example.org/#x", "fragment"),
        ("http://pccs.example.org", "plain http"),
        ("http://10.0.0.1", "plain http"),
        ("http://localhost.example.org", "plain http"),
        ("https://pccs.example.org/sgx/certification/v3/", "version 3"),
        ("https://pccs.example.org/\n", "not an address"),
        ("https://pccs\u0430.example.org", "not an address"),
        ("https://" + "a" * 2000, "not an address"),
    ],
)
def test_what_cannot_be_asked_safely_is_refused(address, because):
    with pytest.raises(InputError, match=because) as caught:
        PccsService(address)
    assert "password" not in str(caught.value)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.8.8", "[::1]"])
def test_plain_http_is_accepted_on_this_machine(host):
    assert PccsService(f"http://{host}:8080").local


@pytest.mark.parametrize(
    ("given", "normal"),
    [
        ("https://h", "https://h/sgx/certification/v4/"),
        ("https://h/", "https://h/sgx/certification/v4/"),
        ("https://h/sgx/certification/v4", "https://h/sgx/certification/v4/"),
        ("https://h:1/behind/sgx/certification/v4/", "https://h:1/behind/sgx/certification/v4/"),
        ("https://h/behind", "https://h/behind/sgx/certification/v4/"),
    ],
)
def test_every_way_to_write_an_address_has_one_normal_form(given, normal):
    assert PccsService(given).url == normal
    assert not PccsService(given).local


def test_a_kernel_does_not_even_import_what_asks_the_network():
    """The relying party chooses the service; inside the enclave neither address nor client is of use."""
    program = (
        "import sys, sealbook, sealbook.session, sealbook.attestation, sealbook.jupyter.kernelapp, "
        "sealbook.jupyter.magics;"
        "print([name for name in sys.modules if name.startswith('sealbook.attestation.pccs')])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
