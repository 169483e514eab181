"""Entry point of a node inside Gramine: a master or worker, and the executors it starts beside it.

Started by Gramine itself, as kernels are (:mod:`sealbook.jupyter.gramine_kernel`). The one thing the host
says is in a small mounted file, the node's plan: addresses and sizes. What could make a difference to safety
is not taken from it: which Java runs, where files lie, and whose clusters may be joined stand in the image.

A node runs what its driver sends, and what runs in an enclave can have quotes made over anything. So the
image carries the public key of one broker's authority: a node that joined a cluster of its host's own would
make quotes for the host, with the very measurement that the owner's policy admits.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path
from typing import NoReturn

from sealbook.attestation.gramine import MOUNT_KEY_BYTES, open_attester, set_mount_key
from sealbook.errors import SealbookError
from sealbook.image_owner import OWNER, read_owner
from sealbook.simulated_loader import forget_host_settings
from sealbook.spark import gramine_jvm, node
from sealbook.spark.gramine_owner import check_owner
from sealbook.spark.node_plan import NodePlan

#: Where the manifest mounts the plan; see :mod:`sealbook.image.manifest`.
PLAN = Path("/run/sealbook/registration")

#: Encrypted under a key that this process makes; the executors, which are its children, have it too.
DIRECTORY = Path("/scratch/n")


def fixed(plan: NodePlan) -> NodePlan:
    """Return the plan with what the image decides in place of what the host says."""
    java = Path(os.environ["JAVA_HOME"], "bin/java")
    return dataclasses.replace(plan, directory=DIRECTORY, java=java, heap=gramine_jvm.DAEMON_HEAP)


def main() -> NoReturn:
    """Become the node's JVM; ends with one sentence on standard error when that fails."""
    forget_host_settings()
    os.umask(0o077)
    try:
        # Before anything writes there: a file that is opened without a key stays unusable.
        set_mount_key("scratch", os.urandom(MOUNT_KEY_BYTES))
        plan = fixed(NodePlan.read(PLAN))
        check_owner(plan.profile, read_owner(OWNER))
        plan.directory.mkdir(mode=0o700)
        # Kept for the executors, where the host cannot change it.
        plan.write()
        node.become_daemon(plan, open_attester())
    except SealbookError as error:
        sys.stderr.write(f"sealbook node: {error}\n")
        sys.exit(error.exit_code)
    except OSError as error:
        sys.stderr.write(f"sealbook node: {error.filename or 'It'}: {error.strerror}.\n")
        sys.exit(2)


if __name__ == "__main__":
    main()
