"""What a signature file says, read at the places of the SDM's table and nowhere else."""

from __future__ import annotations

import hashlib
import random

import pytest

from gramine_stand_in import mrsigner, sigstruct, small_image
from sealbook.errors import InputError
from sealbook.image.sigstruct import SIGSTRUCT_BYTES, Sigstruct

FIELDS = {
    "mrenclave": bytes(range(32)),
    "modulus": bytes(range(128)) * 3,
    "product": 0x1234,
    "version": 0xFEDC,
}


def test_every_field_is_read_from_its_place():
    assert Sigstruct.parse(sigstruct(**FIELDS)) == Sigstruct(
        mrenclave=FIELDS["mrenclave"],
        mrsigner=hashlib.sha256(FIELDS["modulus"]).digest(),
        isv_prod_id=0x1234,
        isv_svn=0xFEDC,
        debug=False,
    )


def test_debugging_is_one_bit_of_the_attributes():
    for flags in range(256):
        assert Sigstruct.parse(sigstruct(**FIELDS, flags=flags)).debug == bool(flags & 2)


def test_the_rest_says_nothing():
    rng, wanted = random.Random(1), Sigstruct.parse(sigstruct(**FIELDS))
    used = {*range(128, 512), 928, *range(960, 992), *range(1024, 1028)}
    data = bytearray(sigstruct(**FIELDS))
    for place in set(range(1808)) - used:
        data[place] = rng.randrange(256)
    assert Sigstruct.parse(bytes(data)) == wanted


def test_every_used_byte_counts():
    wanted, data = Sigstruct.parse(sigstruct(**FIELDS)), sigstruct(**FIELDS)
    for place in (128, 511, 960, 991, 1024, 1025, 1026, 1027):
        changed = data[:place] + bytes([data[place] ^ 2]) + data[place + 1 :]
        assert Sigstruct.parse(changed) != wanted, place


@pytest.mark.parametrize("length", [0, 1, 1027, 1807, 1809, 3616])
def test_another_length_is_refused_with_both_lengths(length):
    with pytest.raises(InputError, match=f"has 1808 bytes, this one {length}"):
        Sigstruct.parse(bytes(length))
    assert SIGSTRUCT_BYTES == 1808


def test_the_signer_of_an_image_is_the_hash_of_its_keys_modulus(tmp_path, stand_in, signing_key):
    image = small_image(tmp_path / "image", key=signing_key)
    signed = Sigstruct.parse((image.path / "kernel.sig").read_bytes())
    assert signed.mrsigner == mrsigner(signing_key)
    assert signed.mrenclave == hashlib.sha256((image.path / "kernel.manifest").read_bytes()).digest()
