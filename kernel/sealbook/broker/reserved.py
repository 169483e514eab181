"""Names of the keyring that are sealbook's own: what lies there seals nothing and goes to nobody."""

from __future__ import annotations

from typing import Final

#: What the key is derived from that signs challenges for a person's images.
OWNER_KEY: Final = "image-owner"

#: What the authority is derived from that issues certificates to nodes which proved what they are.
NODE_CA: Final = "node-ca"

#: What the authority is derived from that issues the broker's own certificate, and that clients pin.
BROKER_CA: Final = "broker-ca"

#: What makes the challenges of a service, so that it need not remember those it has handed out.
CHALLENGES: Final = "challenges"

#: The secrets of clusters, one for each version of ``cluster.NAME``.
CLUSTER_PREFIX: Final = "cluster."


def is_reserved(name: str) -> bool:
    """Tell whether `name` is one that no file is sealed with and no enclave or program gets."""
    return name in (OWNER_KEY, NODE_CA, BROKER_CA, CHALLENGES) or name.startswith(CLUSTER_PREFIX)
