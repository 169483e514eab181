"""A stand-in for a worker: forks a real executor starter, then becomes a program that only waits.

``python -I -B worker_of_a_test.py SOCKET``. What it starts as an executor is the command it is asked
for, whatever that is; a first argument ``refuse`` is refused, ``fail`` goes wrong and ``wait`` waits
before it becomes one.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from sealbook.errors import RefusedError
from sealbook.spark import executor_starter


def become(request):
    os.chdir(request.directory)
    first, *arguments = request.arguments
    if first == "refuse":
        raise RefusedError("This one is refused.")
    if first == "fail":
        raise ValueError("a secret")
    if first == "wait":
        while not Path(arguments[0]).exists():
            time.sleep(0.05)
        arguments = arguments[1:]
    else:
        arguments = [first, *arguments]
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.execve(arguments[0], arguments, dict(request.environment))  # noqa: S606


def main() -> None:
    place = Path(sys.argv[1])
    if len(sys.argv) > 2:
        executor_starter.PATIENCE = float(sys.argv[2])
    listener = executor_starter.listen(place)
    pid = executor_starter.ExecutorStarter(listener, become).fork()
    print(pid, flush=True)
    os.dup2(2, 1)
    os.execv("/bin/sleep", ["/bin/sleep", "300"])  # noqa: S606


if __name__ == "__main__":
    main()
