"""What a worker runs as its ``java``: has the executor starter start the executor, and lives as long as it.

``python -I -S -B executor_client.py SOCKET ARGUMENTS``. It hands over what it was called with, waits,
prints what the starter says, and ends with the executor's status. SIGTERM is passed on; whatever else
ends this process ends the executor, because the starter sees the connection close.

Run as a file without the site's modules, so that it is there within milliseconds: imports nothing else.
"""

import os
import signal
import socket
import sys

#: Seconds until the starter must have taken the request; it does nothing else that takes time.
_PATIENCE = 30
_MAX_ANSWER = 64 * 1024


def request(arguments: list[str], environment: dict[bytes, bytes], directory: bytes) -> bytes:
    """Return the request; see ``executor_request.py``."""
    variables = [name + b"=" + value for name, value in environment.items()]
    count = str(len(arguments)).encode()
    body = b"\0".join([directory, count, *map(os.fsencode, arguments), *variables])
    return len(body).to_bytes(4, "big") + body


def main() -> int:
    """Return the status to end with."""
    place, *arguments = sys.argv[1:]
    answer = b""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_PATIENCE)
        # Until the starter can be told of it; it must not come in between the request's bytes.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        try:
            connection.connect(place)
            connection.sendall(request(arguments, dict(os.environb), os.getcwdb()))  # noqa: PTH109 - bytes
            connection.settimeout(None)
            signal.signal(signal.SIGTERM, lambda *_: connection.send(b"T"))
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
            while len(answer) < _MAX_ANSWER and (piece := connection.recv(4096)):
                answer += piece
        except OSError as error:
            cause = error.strerror or "no answer"
            sys.stderr.write(
                f"sealbook node: The executor starter of this worker cannot be reached ({cause}): end this "
                "worker and start it again.\n"
            )
            return 2
    # The last byte is the status, what is before it a sentence.
    sys.stderr.buffer.write(answer[:-1])
    if not answer:
        sys.stderr.write(
            "sealbook node: The executor starter of this worker has ended, and this executor with it: end "
            "this worker and start it again.\n"
        )
        return 2
    return answer[-1]


if __name__ == "__main__":
    sys.exit(main())
