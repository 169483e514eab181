"""One format, two programs: each reads what the other wrote, and refuses what the other refuses."""

from __future__ import annotations

import base64
import hashlib
import hmac
import io
import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from java_side import Lab
from real_tink import tink_primitive
from sealbook import sealing
from sealbook.encoding import canonical_json
from sealbook.errors import InputError, SealbookError
from sealbook.sealing import InMemoryKeys, SealingKey, envelope, header, segments
from sealbook.sealing.rotation import rekey

_VECTORS = Path(__file__).parents[1] / "data" / "sealed-vectors"
_SIZES = [
    0,
    1,
    segments.FIRST - 1,
    segments.FIRST,
    segments.FIRST + 1,
    segments.FIRST + segments.REST - 1,
    segments.FIRST + segments.REST,
    segments.FIRST + segments.REST + 1,
    5 * segments.SEGMENT + 12345,
]
#: What a refusal is called on either side.
_SAME = {
    "UnsealError": "UnsealException",
    "NotSealedError": "NotSealedException",
    "KeyUnavailableError": "KeyUnavailableException",
}


@pytest.fixture
def keys(lab: Lab) -> InMemoryKeys:
    keys = InMemoryKeys()
    one, two, lab_key = keys.create("one"), keys.create("one"), keys.create("lab/data")
    lab.use(one, two, lab_key)
    return keys


def data_of(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def python_says(path: Path, keys: Any) -> bytes | str:
    try:
        return sealing.read_bytes(path, keys=keys)
    except SealbookError as error:
        return _SAME[type(error).__name__]


def java_says(lab: Lab, path: Path) -> bytes | str:
    answer = lab.read(path)
    assert "cause" not in answer  # a cause could say which check it was
    return answer["error"] if "error" in answer else answer["data"]


def both_say(lab: Lab, path: Path, keys: Any) -> bytes | str:
    python, java = python_says(path, keys), java_says(lab, path)
    assert python == java
    return python


@pytest.mark.parametrize("size", _SIZES)
def test_java_reads_what_python_wrote(size: int, lab: Lab, keys: InMemoryKeys, tmp_path: Path) -> None:
    path = tmp_path / "data"
    sealing.write_bytes(path, data_of(size), key="lab/data", keys=keys, context={"a": "ä\u2028😀｡\x7f"})
    assert java_says(lab, path) == data_of(size)
    assert lab.ask("length", path=f"sealed://{path}") == {"length": size}


@pytest.mark.parametrize("size", _SIZES)
@pytest.mark.parametrize("piece", [None, 70_001])
def test_python_reads_what_java_wrote(
    size: int, piece: int | None, lab: Lab, keys: InMemoryKeys, tmp_path: Path
) -> None:
    path = tmp_path / "new" / "data"  # Hadoop makes directories
    options = {} if piece is None else {"piece": piece}
    assert lab.write(f"sealed://lab+data{path}", data_of(size), **options) == {}
    assert python_says(path, keys) == data_of(size) == java_says(lab, path)
    info = sealing.inspect(path)
    assert (info.keys, info.codec, info.size) == ((("lab/data", 1),), "file", size)
    assert [entry.name for entry in path.parent.iterdir()] == ["data"]


@pytest.mark.parametrize("size", _SIZES)
def test_tink_opens_what_java_wrote(size: int, lab: Lab, keys: InMemoryKeys, tmp_path: Path) -> None:
    path = tmp_path / "data"
    lab.write(f"sealed://lab+data{path}", data_of(size))
    raw = path.read_bytes()
    opened = header.open_header(raw[: header.HEADER], name="x", keys=keys)
    stream = io.BytesIO(raw[header.HEADER :])
    with tink_primitive(opened.data_key).new_decrypting_stream(stream, opened.header.aad) as file:
        assert file.read() == data_of(size)


def test_what_was_written_once_opens_for_ever(lab: Lab) -> None:
    about = json.loads((_VECTORS / "vectors.json").read_text())
    keys = InMemoryKeys(
        *(SealingKey(k["name"], k["version"], base64.b64decode(k["secret"])) for k in about["keys"])
    )
    lab.use(*(keys.get(k["name"], k["version"]) for k in about["keys"]))
    assert {path.suffix for path in _VECTORS.iterdir()} == {".json", ".sealed"}
    assert len(about["files"]) == len(list(_VECTORS.glob("*.sealed"))) >= 8
    for name, expected in about["files"].items():
        said = both_say(lab, _VECTORS / name, keys)
        shown = said if isinstance(said, str) else hashlib.sha256(said).hexdigest()
        assert shown == expected, name


def test_what_java_writes_can_be_rotated_and_read_again(lab: Lab, keys: InMemoryKeys, tmp_path: Path) -> None:
    path = tmp_path / "data"
    lab.write(f"sealed://lab+data{path}", b"content")
    rekey(path, to="one", keys=keys)
    assert both_say(lab, path, keys) == b"content"
    assert sealing.inspect(path).keys == (("one", 2),)


def test_an_interrupted_rotation_opens_and_any_other_pair_of_slots_does_not(
    lab: Lab, keys: InMemoryKeys, tmp_path: Path
) -> None:
    path = tmp_path / "data"
    sealing.write_bytes(path, b"content", key="lab/data", keys=keys)
    old = path.read_bytes()
    rekey(path, to="one", keys=keys)
    new = path.read_bytes()
    rekey(path, to="lab/data", keys=keys)
    newest = path.read_bytes()
    slot, rest = header.SLOT, old[header.HEADER :]
    firsts = {"old": old[:slot], "new": new[:slot], "newest": newest[:slot], "torn": b"\0" * slot}
    opens = {("old", "old"), ("old", "new"), ("new", "new"), ("new", "newest"), ("newest", "newest")}
    for first, one in firsts.items():
        for second, two in firsts.items():
            path.write_bytes(one + two + rest)
            said = both_say(lab, path, keys)
            assert (said == b"content") == ((first, second) in opens), (first, second)


def test_slots_of_two_files_do_not_go_together(lab: Lab, keys: InMemoryKeys, tmp_path: Path) -> None:
    raws = []
    for name in "ab":
        sealing.write_bytes(tmp_path / name, b"content", key="one", keys=keys)
        raws.append((tmp_path / name).read_bytes())
    a, b = raws
    for raw in (a[:4096] + b[4096:], b[:4096] + a[4096:], a[:8192] + b[8192:]):
        (tmp_path / "mixed").write_bytes(raw)
        assert both_say(lab, tmp_path / "mixed", keys) == "UnsealException"


def test_slots_of_two_rotations_of_one_file_do_not_go_together(
    lab: Lab, keys: InMemoryKeys, tmp_path: Path
) -> None:
    """Both are authentic, of this file, and count one rotation."""
    raws = []
    sealing.write_bytes(tmp_path / "file", b"content", key="lab/data", keys=keys)
    for to in ("one", "lab/data"):
        (tmp_path / "copy").write_bytes((tmp_path / "file").read_bytes())
        rekey(tmp_path / "copy", to=to, keys=keys)
        raws.append((tmp_path / "copy").read_bytes())
    a, b = raws
    (tmp_path / "mixed").write_bytes(a[: header.SLOT] + b[header.SLOT :])
    assert both_say(lab, tmp_path / "mixed", keys) == "UnsealException"


@pytest.mark.parametrize("end", ["segment", "one", "tag", "all", "header", "nothing"])
def test_what_was_cut_or_extended_is_refused_at_opening(
    end: str, lab: Lab, keys: InMemoryKeys, tmp_path: Path
) -> None:
    path = tmp_path / "data"
    sealing.write_bytes(path, data_of(2 * segments.SEGMENT), key="one", keys=keys)
    raw = path.read_bytes()
    cut = {
        "segment": header.HEADER + segments.SEGMENT,
        "one": len(raw) - 1,
        "tag": len(raw) - 16,
        "all": header.HEADER,
        "header": 5000,
        "nothing": 0,
    }[end]
    expected = "NotSealedException" if cut == 0 else "UnsealException"
    path.write_bytes(raw[:cut])
    assert both_say(lab, path, keys) == expected
    for extra in (b"\0", raw[-17:], raw[-segments.SEGMENT :]):
        path.write_bytes(raw + extra)
        assert both_say(lab, path, keys) == "UnsealException"


def test_swapped_segments_are_refused(lab: Lab, keys: InMemoryKeys, tmp_path: Path) -> None:
    path = tmp_path / "data"
    sealing.write_bytes(path, data_of(4 * segments.SEGMENT), key="one", keys=keys)
    raw = bytearray(path.read_bytes())
    one = slice(header.HEADER + segments.SEGMENT, header.HEADER + 2 * segments.SEGMENT)
    two = slice(one.stop, one.stop + segments.SEGMENT)
    raw[one], raw[two] = raw[two], raw[one]
    path.write_bytes(raw)
    assert both_say(lab, path, keys) == "UnsealException"
    # The first segment is intact, and what was authenticated may be read.
    assert lab.read(path, ranges=[[0, 10]])["pieces"] == [data_of(4 * segments.SEGMENT)[:10]]
    assert lab.read(path, ranges=[[segments.FIRST, 10]])["error"] == "UnsealException"


def test_another_key_under_the_same_name_is_refused_and_a_missing_one_named(
    lab: Lab, keys: InMemoryKeys, tmp_path: Path
) -> None:
    path = tmp_path / "data"
    sealing.write_bytes(path, b"content", key="one", keys=keys)
    other = InMemoryKeys(SealingKey.generate("one", 2))
    lab.use(other.get("one", 2))
    assert both_say(lab, path, other) == "UnsealException"
    lab.use()
    assert both_say(lab, path, InMemoryKeys()) == "KeyUnavailableException"


@pytest.mark.parametrize("slots", ["one", "both"])
def test_every_byte_of_the_header_counts(slots: str, lab: Lab, keys: InMemoryKeys, tmp_path: Path) -> None:
    path = tmp_path / "data"
    sealing.write_bytes(path, b"content", key="one", keys=keys, context={"study": "7"})
    raw = path.read_bytes()
    body = len(canonical_json(json.loads(raw[12 : 12 + int.from_bytes(raw[8:12], "big")])))
    # All of what means something in both slots, and some of the padding and of the stream.
    places = [*range(0, 12 + body, 3), *range(12 + body, header.SLOT - 32, 411), *range(4064, 4096, 5)]
    places += [header.SLOT + place for place in places[::4]] + list(range(header.HEADER, len(raw), 5))
    for place in places:
        changed = bytearray(raw)
        changed[place] ^= 1 << (place % 8)
        if slots == "both" and place < header.SLOT:
            changed[place + header.SLOT] ^= 1 << (place % 8)
        path.write_bytes(changed)
        # Without a beginning in either slot it does not even look like a sealed file.
        unlike = slots == "both" and place < len(header.MAGIC)
        assert both_say(lab, path, keys) == ("NotSealedException" if unlike else "UnsealException"), place


def test_a_sequence_that_was_changed_in_both_slots_is_refused(
    lab: Lab, keys: InMemoryKeys, tmp_path: Path
) -> None:
    """Only the MAC stands against it: both slots parse and agree, and the stream is not bound to it."""
    path = tmp_path / "data"
    sealing.write_bytes(path, b"content", key="one", keys=keys)
    path.write_bytes(path.read_bytes().replace(b'"sequence":0', b'"sequence":7'))
    assert sealing.inspect(path).sequence == 7
    assert both_say(lab, path, keys) == "UnsealException"


def _mutations() -> dict[str, Callable[[dict[str, Any]], Any]]:
    def put(name: str, value: Any) -> Callable[[dict[str, Any]], Any]:
        return lambda body: body | {name: value}

    def entry(**change: Any) -> Callable[[dict[str, Any]], Any]:
        return lambda body: body | {"keys": [body["keys"][0] | change]}

    def without(name: str) -> Callable[[dict[str, Any]], Any]:
        return lambda body: {key: value for key, value in body.items() if key != name}

    def times(n: int) -> Callable[[dict[str, Any]], Any]:
        return lambda body: body | {"keys": body["keys"] * n}

    fine = {"as it is": lambda body: body}
    values = {
        "sequence": [1, 2**53, 2**53 + 1, 2**64, 10**400, -1, True, 1.0, "1", None],
        "codec": ["x", "a" * 64, "a" * 65, "A", "", 1, "a\n", None],
        "context": [
            {"a": "b"},
            {"": "b"},
            {"a": 1},
            {"a": None},
            [],
            "x",
            {"a": '\x00\x1f"\\'},
            {"😀": "｡", "｡": "1"},
        ],
        "codec_metadata": [{"a": [1, {"b": None}]}, {"a": 1.5}, [], {"a": 10**500}, {"a": True}, None],
        "sealer": [{"x": "y"}, [], "x", 1, {"d": [[[[[[]]]]]]}, {"n": -5}],
        "format": [2, "1", 1.0, True],
        "algorithm": ["AES256-GCM-HKDF-4KB", "", 1],
        "segment_bytes": [4096, "1048576"],
        "file_id": ["", "AAAA", 5, base64.b64encode(bytes(16)).decode()],
        "commitment": ["", base64.b64encode(bytes(32)).decode()],
        "sealed_at": [
            "2026-02-29T00:00:00Z",
            "2024-02-29T23:59:59Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01T00:00:60Z",
            "2026-1-1T0:0:0Z",
            "0999-01-01T00:00:00Z",
            "1000-01-01T00:00:00Z",
            "9999-12-31T23:59:59Z",
            "10000-01-01T00:00:00Z",
            "2026-01-01T00:00:00+00:00",
            "２026-01-01T00:00:00Z",
            "",
            7,
        ],
        "keys": [[], {}, None, [{}], ["x"], [[]]],
        "unknown": [1],
    }
    changes = fine | {
        f"{name}={value!r:.40}": put(name, value) for name, list_ in values.items() for value in list_
    }
    changes |= {f"without {name}": without(name) for name in (*values, "x") if name != "unknown"}
    changes |= {
        "entry " + str(change)[:40]: entry(**change)
        for change in (
            {"key": "two"},
            {"key": "A"},
            {"key": 1},
            {"version": 0},
            {"version": 1},
            {"version": 2**31},
            {"version": 2**31 - 1},
            {"version": "2"},
            {"version": True},
            {"wrapped": ""},
            {"more": 1},
        )
    }
    changes |= {f"{n} keys": times(n) for n in (2, 4, 5)}
    changes["not an object"] = lambda body: [body]
    return changes


def _compact(body: Any, **options: Any) -> str:
    return json.dumps(body, **{"sort_keys": True, "separators": (",", ":"), "ensure_ascii": False} | options)


#: Ways to write one body down, of which only the first is sealbook's.
_STYLES: dict[str, Callable[[Any], str]] = {
    "canonical": _compact,
    "spaces": lambda body: _compact(body, separators=None),
    "unsorted": lambda body: _compact(
        dict(reversed(body.items())) if isinstance(body, dict) else [], sort_keys=False
    ),
    "ascii": lambda body: _compact(body, ensure_ascii=True),
    "repeated": lambda body: '{"algorithm":"x",' + _compact(body)[1:],
    "raw": lambda body: _compact(body) + " ",
}


@pytest.mark.parametrize("style", _STYLES)
def test_bodies_that_only_who_has_the_key_could_write_are_judged_alike(
    style: str, lab: Lab, keys: InMemoryKeys, tmp_path: Path
) -> None:
    """The MAC is right in all of them: here the two parsers are compared, not the cryptography."""
    path = tmp_path / "data"
    opened_as: dict[str, bytes | str] = {}
    for name, change in _mutations().items():
        sealing.write_bytes(path, b"content", key="one", keys=keys, context={"é": "ü"})
        raw = path.read_bytes()
        opened = header.open_header(raw[: header.HEADER], name="x", keys=keys)
        body = change(json.loads(opened.header.body()))
        text = _STYLES[style](body)
        encoded = text.encode()
        if len(encoded) > header.MAX_BODY:
            continue
        slot = (header.MAGIC + len(encoded).to_bytes(4, "big") + encoded).ljust(header.SLOT - 32, b"\0")
        mac = hmac.digest(envelope.header_mac_key(opened.data_key, opened.header.file_id), slot, "sha256")
        # The stream is bound to the immutable part: seal it anew, so that only the body decides.
        aad = (
            {k: v for k, v in body.items() if k not in ("codec_metadata", "keys", "sequence")}
            if isinstance(body, dict)
            else {}
        )
        try:
            bound = canonical_json(aad)
        except TypeError:
            bound = b""
        cipher = segments.SegmentCipher(opened.data_key, bound)
        sealed = bytearray(len(b"content") + segments.TAG)
        cipher.encrypt_into(0, True, b"content", sealed)
        path.write_bytes((slot + mac) * 2 + cipher.stream_header + sealed)
        opened_as[name] = both_say(lab, path, keys)
    fine = {name for name, said in opened_as.items() if said == b"content"}
    assert ("as it is" in fine) == (style == "canonical")
    if style == "canonical":
        assert {"sequence=1", "codec='x'", "4 keys", "sealed_at='1000-01-01T00:00:00Z'"} <= fine
        assert not fine & {"5 keys", "unknown=1", "sequence=True", "without sealer", "format=2"}


def test_a_commitment_to_another_data_key_is_refused(
    lab: Lab, keys: InMemoryKeys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All else is right: wrapped key, MAC and segments. Who has the key could make such a file."""
    path = tmp_path / "data"
    with monkeypatch.context() as patch:
        patch.setattr(envelope, "commitment", lambda data_key, file_id: bytes(32))
        sealing.write_bytes(path, b"content", key="one", keys=keys)
    assert both_say(lab, path, keys) == "UnsealException"


def test_nothing_hides_in_the_padding(lab: Lab, keys: InMemoryKeys, tmp_path: Path) -> None:
    """Under a right MAC: whoever sealed the file put it there."""
    path = tmp_path / "data"
    sealing.write_bytes(path, b"content", key="one", keys=keys)
    raw = path.read_bytes()
    opened = header.open_header(raw[: header.HEADER], name="x", keys=keys)
    mac_key = envelope.header_mac_key(opened.data_key, opened.header.file_id)
    for place in (header.SLOT - 33, header.SLOT - 1000, 12 + len(opened.header.body())):
        slot = bytearray(raw[: header.SLOT - 32])
        slot[place] = 1
        path.write_bytes((slot + hmac.digest(mac_key, slot, "sha256")) * 2 + raw[header.HEADER :])
        assert both_say(lab, path, keys) == "UnsealException"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    edits=st.lists(
        st.tuples(
            st.sampled_from(["flip", "cut", "insert", "copy", "zero"]),
            st.integers(0, 2**32),
            st.integers(1, 64),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_random_edits_are_judged_alike(
    edits: list[tuple[str, int, int]], lab: Lab, keys: InMemoryKeys, tmp_path: Path
) -> None:
    path = tmp_path / "data"
    if not hasattr(keys, "raw"):
        sealing.write_bytes(path, b"x" * 100, key="one", keys=keys)
        keys.raw = path.read_bytes()  # type: ignore[attr-defined]
    raw = bytearray(keys.raw)  # type: ignore[attr-defined]
    for what, place, length in edits:
        at = place % max(1, len(raw))
        if what == "flip" and raw:
            raw[at] ^= 1 << (length % 8)
        elif what == "cut":
            del raw[at : at + length]
        elif what == "insert":
            raw[at:at] = bytes(length)
        elif what == "copy":
            raw[at : at + length] = raw[: len(raw[at : at + length])]
        else:
            raw[at : at + length] = bytes(len(raw[at : at + length]))
    path.write_bytes(raw)
    said = both_say(lab, path, keys)
    assert isinstance(said, str) or bytes(raw) == keys.raw  # type: ignore[attr-defined]


@given(
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
        max_leaves=12,
    )
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_canonical_json_is_the_same_bytes(value: Any, lab: Lab) -> None:
    try:
        expected = canonical_json(value)
    except (TypeError, InputError):
        return  # half a surrogate pair
    text = base64.b64encode(json.dumps(value).encode()).decode()
    assert base64.b64decode(lab.ask("canonical", text=text)["text"]) == expected


def test_no_refusal_says_more_than_python_would(lab: Lab, keys: InMemoryKeys, tmp_path: Path) -> None:
    path = tmp_path / "data"
    sealing.write_bytes(path, b"content", key="one", keys=keys)
    raw = path.read_bytes()
    messages = set()
    for place in (9, 100, 4090, 4200, 8100, 8200, len(raw) - 1):
        changed = bytearray(raw)
        changed[place] ^= 1
        path.write_bytes(changed)
        messages.add(lab.read(path)["message"])
    path.write_bytes(raw[:-1])
    messages.add(lab.read(path)["message"])
    assert len(messages) == 1


def test_headers_made_by_java_are_the_bytes_that_python_would_make(
    lab: Lab, keys: InMemoryKeys, tmp_path: Path
) -> None:
    path = tmp_path / "data"
    lab.write(path, b"x", conf={"sealbook.key": "one", "sealbook.sealer": '{"attested":false}'})
    raw = path.read_bytes()
    opened = header.open_header(raw[: header.HEADER], name="x", keys=keys)
    assert opened.header.sealer == {"attested": False}
    again = header.encode_slot(replace(opened.header), opened.data_key)
    assert raw[: header.HEADER] == again * 2
