"""What all tests share: a user's home of their own, with an installed kernel.

No test sees or touches the data of the person who runs it: the variables below point every
directory that sealbook, Jupyter or IPython would use into a temporary one before anything is
imported.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

sys.path.insert(0, str(Path(__file__).parent))  # for the helpers beside this file

_HOME = Path(tempfile.mkdtemp(prefix="sealbook-tests-"))
os.environ.update(
    HOME=str(_HOME),
    SEALBOOK_HOME=str(_HOME / "sealbook"),
    JUPYTER_DATA_DIR=str(_HOME / "jupyter"),
    JUPYTER_RUNTIME_DIR=str(_HOME / "runtime"),
    JUPYTER_CONFIG_DIR=str(_HOME / "config"),
    JUPYTER_PLATFORM_DIRS="1",
    # A kernelspec in the environment that runs the tests must not stand before the one made here.
    JUPYTER_PREFER_ENV_PATH="0",
    IPYTHONDIR=str(_HOME / "ipython"),
    # No keyring service of the person's desktop either.
    PYTHON_KEYRING_BACKEND="keyring.backends.fail.Keyring",
    # Keras says nothing of the missing GPU, and two workers share two cores.
    TF_CPP_MIN_LOG_LEVEL="2",
)


def pytest_unconfigure() -> None:
    shutil.rmtree(_HOME, ignore_errors=True)


@pytest.fixture(scope="session")
def user_home() -> Path:
    """The directory that stands for the user's home in this session."""
    return _HOME


@pytest.fixture(scope="session")
def policy_file(user_home: Path) -> Path:
    """The policy of the simulated platform and the code that is installed here; installs the kernel too."""
    from sealbook.cli.install import ensure

    return Path(ensure(name="sealbook-simulated")["policy"])


@pytest.fixture(scope="session")
def kernel_name(policy_file: Path) -> str:
    """The installed kernel `sealbook-simulated`."""
    return "sealbook-simulated"


@pytest.fixture(scope="session")
def keys(policy_file: Path) -> str:
    """The user's keys, two without a guard and one that demands attestation; gives their passphrase."""
    from sealbook.broker import open_keyring

    passphrase = "correct horse battery"  # as all users of the tests: some share a home
    ring = open_keyring(passphrase=lambda: passphrase)
    ring.create("letters", guard="none")
    ring.create("more/letters", guard="none")
    ring.create("patients", guard="simulated")
    return passphrase


# Of a module, not of the session: Playwright has an event loop run in this thread, in which no other test
# could run one of its own.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    program = shutil.which("chromium") or shutil.which("chromium-browser")
    assert program, "The browser tests need chromium: run `sudo apt-get install chromium`, or .ci/programs."
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(
            executable_path=program,
            args=[
                "--no-sandbox",
                "--disable-gpu",
                "--disable-background-networking",
                "--disable-component-update",
            ],
        )


@pytest.fixture
def brokered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A session of this process that a real broker attested."""
    from brokered import attached

    with attached(tmp_path_factory.mktemp("user")) as opened:
        yield opened


@pytest.fixture
def unattested(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A session of this process that its broker opened without evidence, under a policy that says so."""
    from brokered import attached

    with attached(tmp_path_factory.mktemp("user"), attested=False) as opened:
        yield opened


@pytest.fixture
def keyring(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The keyring of a user whose process is not attested: `open` needs no attestation, `guarded` does."""
    from sealbook import session
    from sealbook.broker import Keyring, MemoryStore

    keyring = Keyring(MemoryStore())
    keyring.create("open", guard="none")
    keyring.create("guarded", guard="kernel")
    monkeypatch.delenv(session.KEY_VARIABLE, raising=False)
    monkeypatch.setattr(session, "_current", session.UnattestedSession(lambda: keyring))
    yield keyring
    session.detach()


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A stand-in for an installed Gramine, on the PATH."""
    from gramine_stand_in import GramineStandIn

    gramine = GramineStandIn(tmp_path / "gramine")
    # By monkeypatch, because tests that change PATH once more are undone by it too, in the right order:
    # otherwise the stand-in stayed on the PATH of all later tests, tests/gramine among them.
    monkeypatch.setenv("PATH", gramine.path)
    return gramine


@pytest.fixture(autouse=True)
def _path_left_as_found() -> Iterator[None]:
    found = os.environ["PATH"]
    yield
    assert os.environ["PATH"] == found, "this test leaves another PATH to the next"


@pytest.fixture(scope="session")
def signing_key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key that signs images."""
    from gramine_stand_in import signing_key

    return signing_key(tmp_path_factory.mktemp("key") / "key.pem")
