"""clusters.toml: strict, commented, and never half-written."""

from __future__ import annotations

import dataclasses
import tomllib

import pytest
from profile_of_a_test import PROFILE, authority

from sealbook.errors import InputError
from sealbook.spark import profiles


@pytest.fixture
def path(tmp_path):
    return tmp_path / "clusters.toml"


def test_what_is_saved_is_loaded(path):
    profiles.save(PROFILE, path)
    assert profiles.load("lab", path) == PROFILE
    assert profiles.load_all(path) == {"lab": PROFILE}
    assert path.stat().st_mode & 0o777 == 0o600


def test_others_stay_when_one_is_saved_or_removed(path):
    other = dataclasses.replace(PROFILE, name="other")
    profiles.save(PROFILE, path)
    profiles.save(other, path)
    profiles.remove("lab", path)
    profiles.remove("lab", path)
    assert profiles.load_all(path) == {"other": other}


def test_the_file_is_commented(path):
    profiles.save(PROFILE, path)
    text = path.read_text()
    assert text.count("#") >= 5
    assert "pinned" in text


def test_a_profile_survives_a_table_for_other_formats():
    assert profiles.from_table("lab", profiles.to_table(PROFILE), "here") == PROFILE


def test_no_file_is_no_profiles(path):
    assert profiles.load_all(path) == {}
    with pytest.raises(InputError, match="cluster up lab"):
        profiles.load("lab", path)


def test_the_names_there_are_are_said(path):
    profiles.save(PROFILE, path)
    with pytest.raises(InputError, match="there are: lab"):
        profiles.load("lap", path)


def change(path, before: str, after: str) -> None:
    profiles.save(PROFILE, path)
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("schema = 1", "schema = 2"),
        ("schema = 1", "schema = 1\nsecret = 'x'"),
        ("cores = 2", "cores = 0"),
        ("cores = 2", "cores = true"),
        ("cores = 2", 'cores = "2"'),
        ("cores = 2", "cores = 2\npassword = 'x'"),
        ('memory = "1500m"', 'memory = "much"'),
        ('memory = "1500m"', "memory = 1500"),
        ('master = "spark://10.0.0.1:7077"', ""),
        ("spark://10.0.0.1:7077", "http://10.0.0.1:7077"),
        ("spark://10.0.0.1:7077", "spark://10.0.0.1"),
        ("spark://10.0.0.1:7077", "spark://10.0.0.1:7077/x"),
        ("spark://10.0.0.1:7077", "spark://me:pw@10.0.0.1:7077"),
        ("spark://10.0.0.1:7077", "spark://10.0.0.1:99999"),
        ("https://10.0.0.1:8440", "http://10.0.0.1:8440"),
        ("-----BEGIN CERTIFICATE-----", "-----BEGIN PRIVATE KEY-----"),
        ("[clusters.lab]", "[clusters.'La b']"),
        ("[clusters.lab]", "[clusters.lab"),
        # Owners are named to the home broker, and in no file of the machine where a node runs.
        ("cores = 2", "cores = 2\nowners = []"),
    ],
)
def test_anything_not_understood_is_one_sentence(path, before, after):
    change(path, before, after)
    with pytest.raises(InputError) as refusal:
        profiles.load_all(path)
    assert "\n" not in str(refusal.value)


def test_a_file_that_is_too_large_or_no_file_is_refused(path):
    path.write_bytes(b"#" * (2 << 20))
    with pytest.raises(InputError, match="larger"):
        profiles.load_all(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(InputError):
        profiles.load_all(path)


@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "a/b", "..", "a" * 41, "a_b", "ä"])
def test_names_that_could_be_more_than_names_are_refused(name):
    with pytest.raises(InputError):
        dataclasses.replace(PROFILE, name=name)


def test_two_certificates_are_not_one_authority():
    with pytest.raises(InputError, match="one certificate"):
        dataclasses.replace(PROFILE, ca=authority() + authority())


def test_text_is_quoted_for_toml(path):
    assert tomllib.loads(profiles.text({"lab": PROFILE}))["clusters"]["lab"]["ca"] == PROFILE.ca
