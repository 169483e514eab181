"""Tink itself, told a data key of a sealed file."""

from __future__ import annotations

import base64
import io
import json

import tink
from tink import cleartext_keyset_handle, streaming_aead


def tink_primitive(data_key: bytes) -> streaming_aead.StreamingAead:
    streaming_aead.register()
    template = streaming_aead.streaming_aead_key_templates.AES256_GCM_HKDF_1MB
    text = io.StringIO()
    cleartext_keyset_handle.write(tink.JsonKeysetWriter(text), tink.new_keyset_handle(template))
    keyset = json.loads(text.getvalue())
    # The serialised key ends with its value: field 3, 32 bytes.
    value = base64.b64decode(keyset["key"][0]["keyData"]["value"])
    assert value[-34:-32] == b"\x1a\x20"
    keyset["key"][0]["keyData"]["value"] = base64.b64encode(value[:-32] + data_key).decode()
    handle = cleartext_keyset_handle.read(tink.JsonKeysetReader(json.dumps(keyset)))
    return handle.primitive(streaming_aead.StreamingAead)
