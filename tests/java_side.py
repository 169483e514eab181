"""The sources in Java and a JVM that answers the tests' questions; see tests/java."""

from __future__ import annotations

import base64
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
JAVA = ROOT / "kernel" / "java"


def load_build() -> Any:
    """The program kernel/java/build.py as a module; it is in no package."""
    spec = importlib.util.spec_from_file_location("sealbook_java_build", JAVA / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


class Lab:
    """kernel/java/test/sealbook/Lab.java, at the other end of two pipes."""

    def __init__(
        self,
        java: str,
        class_path: str,
        *,
        agent: Path | None = None,
        frame: bytes = b"",
        longest_file: int | None = None,
    ) -> None:
        # Spark's jars log at WARN what this JVM lacks of Hadoop; nobody reads it.
        self._process = subprocess.Popen(
            [
                # Bytes; a write beyond fails as on a disk that is full.
                *([] if longest_file is None else ["prlimit", f"--fsize={longest_file}"]),
                *(java, "-Xmx512m", "-XX:TieredStopAtLevel=1", "-cp", class_path),
                *([] if agent is None else [f"-javaagent:{agent}"]),
                "sealbook.Lab",
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stdin is not None
        self._process.stdin.buffer.write(frame)
        self._process.stdin.buffer.flush()

    def ask(self, do: str, **question: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps({"do": do, **question}), file=self._process.stdin, flush=True)
        return json.loads(self._process.stdout.readline())

    def use(self, *keys: Any) -> None:
        """Have these keys of Python, and no others."""
        listed = [
            {"name": k.name, "version": k.version, "secret": base64.b64encode(k.secret).decode()}
            for k in keys
        ]
        assert self.ask("keys", keys=listed) == {}

    def write(self, path: Path | str, data: bytes, **options: Any) -> dict[str, Any]:
        return self.ask("write", path=url(path), data=base64.b64encode(data).decode(), **options)

    def read(self, path: Path | str, **options: Any) -> dict[str, Any]:
        answer = self.ask("read", path=url(path), **options)
        if "data" in answer:
            answer["data"] = base64.b64decode(answer["data"])
        if "pieces" in answer:
            answer["pieces"] = [base64.b64decode(piece) for piece in answer["pieces"]]
        return answer

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)


def url(path: Path | str) -> str:
    return path if isinstance(path, str) else f"sealed://{path}"
