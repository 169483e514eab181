"""A real Jupyter server of the tests' user, in a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
from helpers import wait_until

from sealbook.broker.passphrase import DESCRIPTOR_VARIABLE, hand_over


@dataclass
class JupyterServer:
    """A server and how to talk to it."""

    address: str
    token: str
    root: Path
    log: Path
    process: subprocess.Popen[bytes]

    def request(self, method: str, path: str, **kwargs: Any) -> requests.Response:
        """Ask as the user; `token` in the keywords asks as somebody else, None as nobody."""
        token = kwargs.pop("token", self.token)
        headers = {"Authorization": f"token {token}"} if token is not None else {}
        return requests.request(
            method,
            f"{self.address}/{path}",
            headers=headers | kwargs.pop("headers", {}),
            timeout=60,
            **kwargs,
        )

    def get(self, path: str, **kwargs: Any) -> Any:
        """Return the JSON of an answer that must be 200."""
        answer = self.request("GET", path, **kwargs)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post(self, where: str, /, **body: Any) -> requests.Response:
        return self.request("POST", where, json=body)

    def open(self, path: str, kernel: str) -> requests.Response:
        """Start a kernel for a notebook, as JupyterLab does."""
        return self.post(
            "api/sessions", path=path, name=path.rpartition("/")[2], type="notebook", kernel={"name": kernel}
        )

    def kernel(self, path: str, name: str) -> str:
        """Start a kernel for a notebook and return its id."""
        answer = self.open(path, name)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["kernel"]["id"])

    def trust(self, kernel: str = "", path: str = "") -> dict[str, Any]:
        return dict(self.get("sealbook/api/trust", params={"kernel": kernel, "path": path}))


@contextlib.contextmanager
def jupyter_server(
    root: Path,
    *arguments: str,
    module: str = "jupyter_server",
    extension: str = "sealbook.jupyter.server",
    passphrase: str | None = None,
    **environment: str,
) -> Iterator[JupyterServer]:
    """Run a server on `root`, with the keyring's passphrase as `sealbook lab` hands it over."""
    descriptors: list[int] = []
    if passphrase is not None:
        descriptor, environment[DESCRIPTOR_VARIABLE] = hand_over(passphrase)
        descriptors.append(descriptor)
    token = "a-token-of-the-tests"
    log = root.with_name(root.name + ".log")
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            module,
            "--port=0",
            "--allow-root",
            f"--ServerApp.root_dir={root}",
            f"--ServerApp.jpserver_extensions={{'{extension}': True}}",
            *arguments,
        ],
        env=os.environ | {"JUPYTER_TOKEN": token} | environment,
        stdout=log.open("wb"),
        stderr=subprocess.STDOUT,
        pass_fds=descriptors,
    )
    for descriptor in descriptors:
        os.close(descriptor)
    info = Path(os.environ["JUPYTER_RUNTIME_DIR"]) / f"jpserver-{process.pid}.json"
    try:
        assert wait_until(lambda: info.exists() and info.read_text().strip(), seconds=60), log.read_text()
        address = f"http://127.0.0.1:{json.loads(info.read_text())['port']}"
        yield JupyterServer(address, token, root, log, process)
    finally:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:  # busy with the kernels that a test left to it
            process.kill()
            process.wait()


@contextlib.contextmanager
def jupyterlab(root: Path, **kwargs: Any) -> Iterator[JupyterServer]:
    """Run JupyterLab on `root`, with Notebook 7 beside it; no question stands before what is looked at."""
    settings = root.with_name(root.name + "-settings")
    quiet = settings / "@jupyterlab/apputils-extension/notification.jupyterlab-settings"
    quiet.parent.mkdir(parents=True)
    quiet.write_text('{"fetchNews": "false", "checkForUpdates": false}')
    with jupyter_server(
        root,
        "--no-browser",
        "--expose-app-in-browser",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
        module="jupyterlab",
        JUPYTERLAB_SETTINGS_DIR=str(settings),
        **kwargs,
    ) as server:
        yield server
