"""Whose clusters a node's image joins: those of one broker, known by its authority's public key."""

from __future__ import annotations

import hmac

from sealbook.broker.certificates import authority_id
from sealbook.errors import RefusedError
from sealbook.spark.profiles import Profile


def check_owner(profile: Profile, owner: bytes | None) -> None:
    """Refuse the cluster of a broker that this image was not built for.

    Raises
    ------
    RefusedError
        Its authority has another key.
    """
    if owner is not None and not hmac.compare_digest(authority_id(profile.ca), owner):
        raise RefusedError(
            f"This image joins only the clusters of the broker it was built for, and the broker of "
            f"'{profile.name}' has another authority: build an image with `sealbook image build --role "
            "spark-worker --ca FILE`."
        )
