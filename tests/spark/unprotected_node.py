"""The agent with one protection taken away: what shows that the leak test would find a leak.

``python -I -B unprotected_node.py PROTECTION PLAN [executor ...]``
"""

from __future__ import annotations

import sys
from dataclasses import replace

from sealbook.spark import node, settings


def main() -> None:
    protection = sys.argv[1]
    node.AGENT = (__file__, protection)
    if protection == "tls":
        settings.PROTECTIVE = tuple(
            replace(each, value="false") if each.key == "spark.ssl.rpc.enabled" else each
            for each in settings.PROTECTIVE
        )
        settings._VALUES = {each.key: each for each in settings.PROTECTIVE}
    if protection == "executor-logs":
        become = node._exec

        def loudly(command, environment, frame, *, quiet):
            become(command, environment, frame, quiet=False)

        node._exec = loudly
    node.main(sys.argv[2:])


if __name__ == "__main__":
    main()
