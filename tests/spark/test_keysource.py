"""What the driver's JVM is told about keys, and what the kernel believes about clusters."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from profile_of_a_test import PROFILE

from sealbook import session
from sealbook.errors import InputError, RefusedError
from sealbook.spark import face, profiles
from sealbook.spark.keysource import KeyCallback


@pytest.fixture
def callback(brokered: Any) -> KeyCallback:
    brokered.keyring.create("data", guard="kernel")
    return KeyCallback(lambda: session.current().keys)


def test_a_key_is_its_version_and_its_bytes_and_the_same_for_both_purposes(callback: KeyCallback) -> None:
    answer = callback.key("session/spark", 0, "seal")
    version, _, secret = answer.partition(":")
    assert version == "1"
    assert len(base64.b64decode(secret)) == 32
    assert callback.key("session/spark", 1, "unseal") == answer


@pytest.mark.parametrize(
    ("name", "version", "purpose"),
    [
        (7, 0, "seal"),
        ("session/spark", -1, "seal"),
        ("session/spark", True, "seal"),
        ("session/spark", "1", "unseal"),
        ("session/spark", 0, "export"),
        ("../x", 0, "seal"),
        ("", 0, "seal"),
    ],
)
def test_a_question_that_is_none_is_an_error_of_one_line(
    name: Any, version: Any, purpose: Any, callback: KeyCallback
) -> None:
    answer = callback.key(name, version, purpose)
    assert answer.startswith("error:")
    assert "\n" not in answer
    assert len(answer) < 600


def test_a_key_that_is_not_given_is_said_with_its_reason(callback: KeyCallback) -> None:
    assert callback.key("nobody/has-this", 0, "seal").startswith("error:")
    assert "nobody/has-this" in callback.key("nobody/has-this", 0, "seal")


def test_what_goes_wrong_in_another_way_tells_nothing_of_what_it_was() -> None:
    def fail() -> Any:
        raise ValueError("the secret is 1234")

    answer = KeyCallback(fail).key("data", 0, "seal")
    assert answer.startswith("error:")
    assert "1234" not in answer


# -- clusters, as the user's side describes them -----------------------------------------------


@pytest.fixture
def answered(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Lets the user's side answer something."""

    def put(answer: Any) -> None:
        class Side:
            def cluster(self, name: str) -> Any:
                return answer

        monkeypatch.setattr(session, "_current", Side())

    return put


def test_the_cluster_that_was_asked_for_is_taken(answered: Any) -> None:
    answered({"name": PROFILE.name} | profiles.to_table(PROFILE))
    assert face._find_cluster(PROFILE.name) == PROFILE
    assert face._find_cluster("") == PROFILE
    answered(None)
    assert face._find_cluster("") is None


@pytest.mark.parametrize(
    "change",
    [{"name": "another"}, {"name": ""}, {"name": 7}, {"master": "local[*]"}, {"ca": "x"}, {"surprise": 1}],
)
def test_an_answer_that_is_another_cluster_or_none_is_refused(change: dict[str, Any], answered: Any) -> None:
    answered({"name": PROFILE.name} | profiles.to_table(PROFILE) | change)
    with pytest.raises((InputError, RefusedError)):
        face._find_cluster(PROFILE.name)
