"""The programs people use kernels from, unchanged: nbclient, nbconvert, papermill, jupyter_server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from helpers import wait_until
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat.v4 import new_code_cell, new_notebook


def notebook(*cells: str, kernel: str) -> nbformat.NotebookNode:
    book = new_notebook(cells=[new_code_cell(source) for source in cells])
    book.metadata["kernelspec"] = {"name": kernel, "display_name": kernel, "language": "python"}
    return book


def test_nbclient_runs_a_notebook(kernel_name: str) -> None:
    book = notebook("x = 6", "x * 7", kernel=kernel_name)
    NotebookClient(book, kernel_name=kernel_name, timeout=60).execute()
    assert book.cells[1].outputs[0]["data"]["text/plain"] == "42"


def test_nbclient_reports_an_error_of_a_cell(kernel_name: str) -> None:
    book = notebook("1 / 0", kernel=kernel_name)
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        NotebookClient(book, kernel_name=kernel_name, timeout=60).execute()


def test_nbconvert_executes_a_notebook(kernel_name: str, tmp_path: Path) -> None:
    nbformat.write(notebook("print(6 * 7)", kernel=kernel_name), tmp_path / "a.ipynb")
    subprocess.run(
        [
            sys.executable,
            "-m",
            "jupyter",
            "nbconvert",
            "--to",
            "notebook",
            "--execute",
            "a.ipynb",
            "--output",
            "b.ipynb",
        ],
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    assert "42" in nbformat.read(tmp_path / "b.ipynb", 4).cells[0].outputs[0]["text"]


def test_papermill_runs_with_the_kernel_alone_and_no_engine(kernel_name: str, tmp_path: Path) -> None:
    nbformat.write(notebook("x = 1", "print(x + 41)", kernel="python3"), tmp_path / "a.ipynb")
    subprocess.run(
        [sys.executable, "-m", "papermill", "-k", kernel_name, "a.ipynb", "b.ipynb"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    assert "42" in nbformat.read(tmp_path / "b.ipynb", 4).cells[1].outputs[0]["text"]


class Server:
    """A real Jupyter server and its REST and websocket interfaces."""

    def __init__(self, root: Path, *options: str) -> None:
        self.token = uuid.uuid4().hex
        self.log = root / "server.log"
        environment = os.environ | {"JUPYTER_TOKEN": self.token}
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "jupyter_server",
                "--port=0",
                "--no-browser",
                "--allow-root",
                f"--ServerApp.root_dir={root}",
                *options,
            ],
            stdout=self.log.open("wb"),
            stderr=subprocess.STDOUT,
            env=environment,
        )
        pattern = f"jpserver-{self.process.pid}.json"
        runtime = Path(os.environ["JUPYTER_RUNTIME_DIR"])
        assert wait_until(lambda: (runtime / pattern).exists(), seconds=60), self.log.read_text()
        time.sleep(0.2)
        self.port = json.loads((runtime / pattern).read_text())["port"]

    def call(self, method: str, path: str, body: Any = None) -> Any:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/api/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"token {self.token}"},
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            text = response.read()
        return json.loads(text) if text else None

    def run(self, kernel_id: str, code: str, timeout: float = 60) -> str:
        """Execute a cell over the server's websocket, as a browser would."""
        import websocket

        address = f"ws://127.0.0.1:{self.port}/api/kernels/{kernel_id}/channels?token={self.token}"
        connection = websocket.create_connection(address, timeout=timeout)
        try:
            header = {
                "msg_id": uuid.uuid4().hex,
                "msg_type": "execute_request",
                "username": "",
                "session": uuid.uuid4().hex,
                "version": "5.3",
                "date": "",
            }
            content = {"code": code, "silent": False, "store_history": True, "allow_stdin": False}
            connection.send(
                json.dumps(
                    {
                        "header": header,
                        "parent_header": {},
                        "metadata": {},
                        "content": content,
                        "channel": "shell",
                    }
                )
            )
            text = []
            while True:
                message = json.loads(connection.recv())
                if message["parent_header"].get("msg_id") != header["msg_id"]:
                    continue
                if message["msg_type"] == "stream":
                    text.append(message["content"]["text"])
                if message["msg_type"] == "execute_result":
                    text.append(message["content"]["data"]["text/plain"])
                if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                    return "".join(text)
        finally:
            connection.close()

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=30)


@pytest.fixture(scope="module")
def server(kernel_name: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("server"), "--KernelRestarter.time_to_dead=0.5")
    yield running
    running.stop()


def test_a_jupyter_server_runs_interrupts_restarts_and_ends_the_kernel(
    server: Server, kernel_name: str
) -> None:
    made = server.call("POST", "kernels", {"name": kernel_name})["id"]
    assert server.run(made, "x = 42\nprint(x)") == "42\n"
    server.call("POST", f"kernels/{made}/interrupt")
    server.call("POST", f"kernels/{made}/restart")
    assert server.run(made, "'x' in globals()") == "False"
    server.call("DELETE", f"kernels/{made}")
    assert server.call("GET", "kernels") == []


def test_a_jupyter_server_starts_a_crashed_kernel_again(server: Server, kernel_name: str) -> None:
    made = server.call("POST", "kernels", {"name": kernel_name})["id"]
    pid = server.run(made, "import os; os.getpid()")
    server.run(made, "import threading; threading.Timer(0.3, lambda: os._exit(1)).start()")

    def other_pid() -> bool:
        try:
            # Short: a cell that was running when the kernel died is never answered.
            return server.run(made, "import os; os.getpid()", timeout=10) != pid
        except Exception:
            return False

    assert wait_until(other_pid, seconds=90)
    server.call("DELETE", f"kernels/{made}")


def test_a_stopped_server_leaves_no_kernel(kernel_name: str, tmp_path: Path) -> None:
    import psutil

    server = Server(tmp_path)
    made = server.call("POST", "kernels", {"name": kernel_name})["id"]
    kernel = psutil.Process(int(server.run(made, "import os; os.getpid()")))
    server.stop()
    assert wait_until(lambda: not kernel.is_running() or kernel.status() == psutil.STATUS_ZOMBIE)
