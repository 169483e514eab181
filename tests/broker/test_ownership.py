"""The key that signs challenges for a person's images."""

from __future__ import annotations

import pytest

from sealbook.broker import Keyring, MemoryStore
from sealbook.broker.ownership import OWNER_KEY, make_owner, owner_signing_key, signing_key_for
from sealbook.errors import InputError
from sealbook.sealing import KeyUnavailableError


@pytest.fixture
def keyring() -> Keyring:
    return Keyring(MemoryStore())


def test_the_owner_is_made_once_and_stays_the_same_through_rotations(keyring):
    owner = make_owner(keyring)
    assert len(owner) == 32
    keyring.rotate(OWNER_KEY)
    assert make_owner(keyring) == owner


def test_two_keyrings_have_two_owners(keyring):
    assert make_owner(keyring) != make_owner(Keyring(MemoryStore()))


def test_the_signing_key_is_not_the_stored_secret(keyring):
    make_owner(keyring)
    assert owner_signing_key(keyring).private_bytes_raw() != keyring.reserved(OWNER_KEY).secrets[0]


def test_a_keyring_signs_for_its_own_images_only(keyring):
    owner = make_owner(keyring)
    assert signing_key_for(keyring, owner.hex()).public_key().public_bytes_raw() == owner
    with pytest.raises(InputError, match="another owner"):
        signing_key_for(keyring, "ab" * 32)


def test_without_an_owner_there_is_nothing_to_sign_with(keyring):
    with pytest.raises(KeyUnavailableError):
        owner_signing_key(keyring)
