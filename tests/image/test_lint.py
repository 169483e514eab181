"""Each rule of the lint: one thing is changed in a sound manifest, and exactly that is objected to."""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from sealbook.errors import InputError
from sealbook.image.lint import Objection, lint, lint_path
from sealbook.image.lint_settings import ELSEWHERE, REFUSED, RULES, TABLES
from sealbook.image.reading import MAX_MANIFEST_BYTES, parse_manifest, read_manifest

from .conftest import SOUND

MISSING = object()
HASH = "5" * 64


def write(manifest: dict[str, Any], setting: str, value: Any) -> dict[str, Any]:
    """Write a setting, making its tables, or remove it."""
    *tables, name = setting.split(".")
    place = manifest
    for table in tables:
        place = place.setdefault(table, {})
    if value is MISSING:
        del place[name]
    else:
        place[name] = value
    return manifest


def objection_to(manifest: Mapping[str, Any]) -> Objection:
    (objection,) = lint(manifest)
    return objection


def mount(manifest: dict[str, Any], **entry: Any) -> dict[str, Any]:
    manifest["fs"]["mounts"].append(entry)
    return manifest


def trust(manifest: dict[str, Any], uri: str) -> dict[str, Any]:
    manifest["sgx"]["trusted_files"].append({"uri": uri, "sha256": HASH})
    return manifest


def environment(manifest: dict[str, Any], **variables: Any) -> dict[str, Any]:
    manifest["loader"]["env"] |= variables
    return manifest


def test_there_is_nothing_against_a_sound_manifest(manifest):
    before = copy.deepcopy(manifest)
    assert lint(manifest) == []
    assert manifest == before


def test_there_is_nothing_against_what_gramine_itself_adds_when_it_renders_a_manifest(manifest):
    manifest["sgx"] |= {"enable_stats": False, "debug": False, "vtune_profile": False}
    manifest["libos"]["check_invalid_pointers"] = True
    manifest["sys"]["enable_sigterm_injection"] = False
    assert lint(manifest) == []


def test_there_is_nothing_against_what_sealbook_renders():
    from sealbook.image.build import ENVIRONMENT
    from sealbook.image.interpreter import EXECUTABLE
    from sealbook.image.manifest import EMPTY, Content, render
    from sealbook.image.roles import KERNEL

    directories = [*ENVIRONMENT["PATH"].split(":"), *ENVIRONMENT["LD_LIBRARY_PATH"].split(":")]
    trusted = dict.fromkeys(
        [*(f"root{each}/x" for each in directories), f"root{EXECUTABLE}", f"root/{EMPTY}"], HASH
    )
    for work in ("host", "encrypted"):
        content = Content(
            name="base",
            entrypoint=str(EXECUTABLE),
            argv=KERNEL.argv,
            environment=ENVIRONMENT,
            libos="gramine/libsysdb.so",
            work=work,
            enclave_size="64G",
            trusted=trusted | {"gramine/libsysdb.so": HASH},
        )
        assert lint(parse_manifest(render(content).encode())) == []


# -- settings ------------------------------------------------------------------------------------

UNSAFE_VALUES = [
    ("a debug enclave", "sgx.debug", True, "host can read and change the memory"),
    ("a text for debug", "sgx.debug", "false", "host can read"),
    ("a number for debug", "sgx.debug", 0, "host can read"),
    ("pointers that are not checked", "libos.check_invalid_pointers", False, "bad pointer"),
    ("a log level that tells what happens", "loader.log_level", "debug", "tell the host"),
    ("a log level of warnings", "loader.log_level", "warning", "tell the host"),
    ("a log level left to a default", "loader.log_level", MISSING, "tell the host"),
    ("a user id below zero", "loader.uid", -1, "user id"),
    ("a group id that is none", "loader.gid", "root", "group id"),
    ("statistics for the host", "sgx.enable_stats", True, "counts for the host"),
    ("a profile for VTune", "sgx.vtune_profile", True, "where the enclave's code is"),
    ("an enclave without EDMM", "sgx.edmm_enable", False, "written and executed"),
    ("EDMM left to a default", "sgx.edmm_enable", MISSING, "written and executed"),
    ("an enclave size that is none", "sgx.enclave_size", "big", "not a size"),
    ("a policy that opens every file", "sgx.file_check_policy", "allow_all_but_log", "nobody measured"),
    ("a file policy left to a default", "sgx.file_check_policy", MISSING, "nobody measured"),
    ("a product id left to a default", "sgx.isvprodid", MISSING, "tell products"),
    ("a product id that is too large", "sgx.isvprodid", 65536, "tell products"),
    ("a version left to a default", "sgx.isvsvn", MISSING, "has a fix"),
    ("a version that is true", "sgx.isvsvn", True, "has a fix"),
    ("fewer threads than Gramine needs", "sgx.max_threads", 3, "for itself"),
    ("threads left to a default", "sgx.max_threads", MISSING, "for itself"),
    ("preheating that is neither true nor false", "sgx.preheat_enclave", 1, "true or false"),
    ("an enclave without attestation", "sgx.remote_attestation", "none", "no quotes"),
    ("attestation left to a default", "sgx.remote_attestation", MISSING, "no quotes"),
    ("exception information left to a default", "sgx.use_exinfo", MISSING, "memory fault"),
    ("exception information that is no answer", "sgx.use_exinfo", "yes", "memory fault"),
    ("AVX left to a default", "sgx.cpu_features.avx", MISSING, "AVX"),
    ("AVX-512 left to a default", "sgx.cpu_features.avx512", MISSING, "AVX-512"),
    ("AMX that is neither", "sgx.cpu_features.amx", "on", "AMX"),
    ("MPX left to a default", "sgx.cpu_features.mpx", MISSING, "MPX"),
    ("a hardening feature left to the host", "sgx.cpu_features.pkru", "unspecified", "PKRU"),
    ("subprocesses that are neither", "sys.disallow_subprocesses", 1, "true or false"),
    ("a resolver that is neither", "sys.enable_extra_runtime_domain_names_conf", "yes", "true or false"),
    ("signals that the host injects", "sys.enable_sigterm_injection", True, "run at any moment"),
    ("a program break that is no size", "sys.brk.max_size", 5, "not a size"),
    ("no files at all", "sys.fds.limit", 0, "number of files"),
    ("a stack left to a default", "sys.stack.size", MISSING, "too small"),
    ("a stack of no size", "sys.stack.size", "0", "too small"),
]


@pytest.mark.parametrize(
    ("setting", "value", "reason"),
    [case[1:] for case in UNSAFE_VALUES],
    ids=[case[0] for case in UNSAFE_VALUES],
)
def test_a_setting_with_an_unsafe_value_or_none_is_refused(manifest, setting, value, reason):
    objection = objection_to(write(manifest, setting, value))
    assert objection.setting == setting
    assert reason in objection.reason
    assert objection.remedy
    assert (objection.found == "not written") == (value is MISSING)


def test_every_rule_of_a_value_has_a_case_here():
    assert {case[1] for case in UNSAFE_VALUES} == set(RULES)


REFUSED_SETTINGS = {
    "fs.insecure__keys": {"data": "00112233445566778899aabbccddeeff"},
    "loader.insecure__use_cmdline_argv": True,
    "loader.insecure__use_host_env": True,
    "loader.insecure__disable_aslr": True,
    "loader.argv_src_file": "file:image/root/argv",
    "loader.env_src_file": "file:image/root/env",
    "loader.log_file": "kernel.log",
    "sgx.insecure__rpc_thread_num": 2,
    "sgx.insecure__allow_memfaults_without_exinfo": True,
    "sgx.profile": {"enable": "main"},
    "sgx.seal_key": {"flags_mask": "0x0"},
    "sys.allowed_ioctls": [{"request_code": 1}],
    "sys.ioctl_structs": {"one": []},
    "sys.insecure__allow_eventfd": True,
    "sys.debug__mock_syscalls": [{"name": "sched_yield"}],
    "sys.experimental__enable_flock": True,
}


@pytest.mark.parametrize("setting", REFUSED_SETTINGS)
def test_a_setting_that_is_never_safe_is_refused_with_its_own_reason(manifest, setting):
    objection = objection_to(write(manifest, setting, REFUSED_SETTINGS[setting]))
    assert objection.setting == setting
    assert (objection.reason, objection.remedy) == REFUSED[setting]


def test_every_setting_that_is_never_safe_has_a_case_and_a_reason_of_its_own():
    assert set(REFUSED_SETTINGS) == set(REFUSED)
    reasons = [reason for reason, _ in REFUSED.values()]
    assert len(set(reasons)) == len(reasons)


@pytest.mark.parametrize("value", [False, 0, [], {}], ids=repr)
def test_a_setting_that_is_never_safe_is_refused_also_where_it_is_off(manifest, value):
    assert objection_to(write(manifest, "sys.insecure__allow_eventfd", value)).setting.endswith("eventfd")


@pytest.mark.parametrize(
    "table", ["", "fs.", "libos.", "loader.", "sgx.", "sgx.cpu_features.", "sys.", "sys.stack."]
)
@pytest.mark.parametrize(
    ("beginning", "reason"),
    [("insecure__", "calls it insecure"), ("debug__", "for debugging"), ("experimental__", "not finished")],
)
def test_a_future_setting_that_gramine_marks_as_unsafe_is_refused_as_such(manifest, table, beginning, reason):
    objection = objection_to(write(manifest, f"{table}{beginning}new", False))
    assert objection.setting == f"{table}{beginning}new"
    assert reason in objection.reason


def test_a_mark_of_gramine_counts_in_a_mount_too(manifest):
    manifest["fs"]["mounts"][1]["insecure__key"] = "00"
    objection = objection_to(manifest)
    assert objection.setting == "fs.mounts[1].insecure__key"
    assert "calls it insecure" in objection.reason


@pytest.mark.parametrize(
    "name", ["sgxx", "sgx.debugg", "sgx.cpu_features.sse", "loader.pal_internal_mem_size"]
)
def test_what_the_schema_does_not_know_is_refused(manifest, name):
    objection = objection_to(write(manifest, name, {}))
    assert objection.setting == name
    assert "nobody judged it" in objection.reason


def test_a_name_in_quotes_is_not_the_setting_that_it_looks_like(manifest):
    manifest["sgx"]["cpu_features.avx"] = "unspecified"
    assert "nobody judged it" in objection_to(manifest).reason
    del manifest["sgx"]["cpu_features.avx"]
    manifest["sgx.debug"] = False
    assert "nobody judged it" in objection_to(manifest).reason


@pytest.mark.parametrize("table", ["sys.stack", "sys.fds", "sgx.cpu_features"])
def test_what_must_be_a_table_and_is_none_is_refused(manifest, table):
    assert objection_to(write(manifest, table, "text")).reason == "it is not a table"


def test_the_lint_knows_every_setting_of_gramines_schema():
    # From Gramine 1.9's manifest schema; what is inside lists and mounts is judged by tests further down.
    schema = """
        fs.mounts fs.root fs.start_dir fs.insecure__keys libos.entrypoint libos.check_invalid_pointers
        loader.entrypoint loader.argv loader.argv_src_file loader.env loader.env_src_file loader.gid
        loader.insecure__use_cmdline_argv loader.insecure__use_host_env loader.insecure__disable_aslr
        loader.log_file loader.log_level loader.uid sgx.allowed_files sgx.cpu_features.avx
        sgx.cpu_features.avx512 sgx.cpu_features.amx sgx.cpu_features.mpx sgx.cpu_features.pkru sgx.debug
        sgx.edmm_enable sgx.enable_stats sgx.enclave_size sgx.file_check_policy
        sgx.insecure__allow_memfaults_without_exinfo sgx.insecure__rpc_thread_num sgx.isvprodid sgx.isvsvn
        sgx.max_threads sgx.preheat_enclave sgx.profile sgx.remote_attestation sgx.seal_key sgx.trusted_files
        sgx.use_exinfo sgx.vtune_profile sys.allowed_ioctls sys.brk.max_size sys.disallow_subprocesses
        sys.enable_extra_runtime_domain_names_conf sys.enable_sigterm_injection
        sys.experimental__enable_flock sys.insecure__allow_eventfd sys.ioctl_structs sys.debug__mock_syscalls
        sys.stack.size sys.fds.limit
    """
    known = {*RULES, *REFUSED, *(".".join(name) for name in ELSEWHERE)}
    assert known == set(schema.split())
    assert not known & {".".join(name) for name in TABLES}


def test_an_empty_manifest_has_every_objection_that_something_is_missing():
    settings = {objection.setting for objection in lint({})}
    assert {name for name, rule in RULES.items() if rule.required} < settings
    assert {
        "fs.mounts",
        "fs.root",
        "libos.entrypoint",
        "loader.argv",
        "loader.entrypoint",
        "loader.env.MALLOC_ARENA_MAX",
        "sgx.trusted_files",
    } < settings


@pytest.mark.parametrize("value", [None, 1, "x", [], [1], {"x": 1}, [[]], [{}]], ids=repr)
def test_whatever_stands_somewhere_the_lint_answers(manifest, value):
    places = [("fs",), ("sgx",), ("loader",), ("libos",), ("sys",)]
    places += [tuple(name.split(".")) for name in (*RULES, *REFUSED)] + list(ELSEWHERE)
    for *tables, name in places:
        broken = copy.deepcopy(manifest)
        place = broken
        for table in tables:
            place = place.setdefault(table, {})
        place[name] = value
        objections = lint(broken)
        assert all(isinstance(text, str) and text for each in objections for text in each.to_dict().values())


# -- trusted files -------------------------------------------------------------------------------


def test_a_trusted_file_without_a_hash_is_refused(manifest):
    manifest["sgx"]["trusted_files"].append("file:image/root/x")
    objection = objection_to(manifest)
    assert objection.setting == "sgx.trusted_files"
    assert objection.found == "file:image/root/x"
    assert "measures nothing" in objection.reason
    manifest["sgx"]["trusted_files"][-1] = {"uri": "file:image/root/x"}
    assert "measures nothing" in objection_to(manifest).reason


@pytest.mark.parametrize("digest", ["", "5" * 63, "g" * 64, "A" * 64, 5, None], ids=repr)
def test_a_hash_that_is_none_is_refused(manifest, digest):
    manifest["sgx"]["trusted_files"].append({"uri": "file:image/root/x", "sha256": digest})
    assert "measures nothing" in objection_to(manifest).reason


def test_a_trusted_directory_is_refused(manifest):
    assert "directory has no hash" in objection_to(trust(manifest, "file:image/root/lib/")).reason


def test_a_trusted_file_that_is_there_twice_is_refused(manifest):
    assert "twice" in objection_to(trust(manifest, "file:image/root/bin/sh")).reason


def test_what_the_schema_does_not_know_of_a_trusted_file_is_refused(manifest):
    manifest["sgx"]["trusted_files"][-1]["sha512"] = HASH
    assert "nobody judged it" in objection_to(manifest).reason


def test_a_manifest_without_trusted_files_is_refused(manifest):
    assert "nothing would be measured" in objection_to(write(manifest, "sgx.trusted_files", MISSING)).reason


def test_thousands_of_files_with_one_fault_are_one_objection(manifest):
    manifest["sgx"]["trusted_files"] += [f"file:image/root/{number}" for number in range(5000)]
    assert objection_to(manifest).found == "file:image/root/0 and 4999 more"


# -- URIs ----------------------------------------------------------------------------------------

BAD_URIS = [
    ("file:/image/x", "absolute path"),
    ("file:/home/ada/x", "home folder"),
    ("file:/root/x", "home folder"),
    ("file:/Users/ada", "home folder"),
    ("file:/home", "home folder"),
    ("file:~/x", "home folder"),
    ("file:..", "leaves the launch directory"),
    ("file:../x", "leaves the launch directory"),
    ("file:image/../../x", "leaves the launch directory"),
    ("file:", "the launch directory itself"),
    ("file:.", "the launch directory itself"),
    ("file:image/..", "the launch directory itself"),
    ("file:image/./x", "hides what it names"),
    ("file:image//x", "hides what it names"),
    ("file:image/a/../x", "hides what it names"),
    ("file:image/a\nb", "control character"),
    ("dev:sgx_enclave", "only files"),
    ("image/x", "only files"),
    (5, "a URI is a text"),
]


@pytest.mark.parametrize(("uri", "reason"), BAD_URIS, ids=lambda value: repr(value)[:30])
def test_a_uri_that_leaves_the_launch_directory_or_hides_what_it_names_is_refused(manifest, uri, reason):
    for change in (
        lambda each: each["sgx"]["trusted_files"].append({"uri": uri, "sha256": HASH}),
        lambda each: each["sgx"]["allowed_files"].append(uri),
        lambda each: each["fs"]["root"].update(uri=uri),
        lambda each: each["fs"]["mounts"].append({"path": "/new", "uri": uri}),
        lambda each: each["fs"]["mounts"][1].update(uri=uri),
        lambda each: each["loader"]["entrypoint"].update(uri=uri),
    ):
        broken = copy.deepcopy(manifest)
        change(broken)
        assert reason in objection_to(broken).reason


# -- allowed files -------------------------------------------------------------------------------


@pytest.mark.parametrize("uri", ["file:other", "file:work/sub", "file:launch", "file:scratch", "file:data/x"])
def test_an_allowed_file_that_is_not_made_for_that_is_refused(manifest, uri):
    manifest["sgx"]["allowed_files"].append(uri)
    objection = next(each for each in lint(manifest) if each.setting == "sgx.allowed_files[2]")
    assert "the host may change it" in objection.reason


@pytest.mark.parametrize(
    "uri",
    [
        "file:image",
        "file:image/root/",
        "file:image/root/bin",
        "file:image/root/bin/sh",
        "file:image/root/bin/sh/x",
    ],
)
def test_an_allowed_file_over_or_under_a_trusted_one_is_refused(manifest, uri):
    manifest["sgx"]["allowed_files"].append(uri)
    objection = objection_to(manifest)
    assert objection.setting == "sgx.allowed_files[2]"
    assert "is not checked" in objection.reason


def test_launch_parameters_that_are_a_directory_are_refused(manifest):
    manifest["sgx"]["allowed_files"][0] += "/"
    assert "one file, not a directory" in objection_to(manifest).reason


def test_an_encrypted_directory_that_is_still_allowed_is_refused(manifest):
    manifest["fs"]["mounts"][3] |= {"type": "encrypted", "key_name": "work"}
    objection = objection_to(manifest)
    assert objection.setting == "sgx.allowed_files[1]"
    assert "the host may change it" in objection.reason


def test_allowed_files_that_are_no_list_are_refused(manifest):
    assert "sgx.allowed_files" in {
        each.setting for each in lint(write(manifest, "sgx.allowed_files", "file:work"))
    }


def test_the_notebooks_directory_may_be_allowed_with_or_without_a_slash(manifest):
    manifest["sgx"]["allowed_files"][1] = "file:work"
    assert lint(manifest) == []


def test_a_second_mount_of_what_the_host_may_change_is_refused(manifest):
    objection = objection_to(mount(manifest, path="/more", uri="file:work"))
    assert objection.setting == "fs.mounts[5]"
    assert "the host may change" in objection.reason
    manifest["fs"]["mounts"][-1]["uri"] = "file:work/packages"
    assert "the host may change" in objection_to(manifest).reason


# -- mounts --------------------------------------------------------------------------------------


@pytest.mark.parametrize("root", [MISSING, "file:image/root", {}])
def test_a_root_left_to_the_working_directory_is_refused(manifest, root):
    assert objection_to(write(manifest, "fs.root", root)).setting in {"fs.root", "fs.root.uri"}


def test_what_depends_on_a_broken_root_is_not_objected_to_as_well(manifest):
    manifest["loader"]["argv"][3:] = ["/python/lib/python311.zip"]
    assert lint(manifest) == []
    assert objection_to(write(manifest, "fs.root", MISSING)).setting == "fs.root"


@pytest.mark.parametrize("kind", ["encrypted", "tmpfs", "untrusted_shm", 5])
def test_a_root_without_measured_files_is_refused(manifest, kind):
    assert "measured files" in objection_to(write(manifest, "fs.root.type", kind)).reason


def test_what_the_schema_does_not_know_of_the_root_is_refused(manifest):
    assert objection_to(write(manifest, "fs.root.key_name", "data")).setting == "fs.root.key_name"


@pytest.mark.parametrize("mounts", [MISSING, {}, "x"])
def test_mounts_that_are_no_list_are_refused(manifest, mounts):
    objection = objection_to(write(manifest, "fs.mounts", mounts))
    assert objection.setting == "fs.mounts"
    assert (objection.found == "not written") == (mounts is MISSING)


def test_a_mount_that_is_no_table_is_refused(manifest):
    manifest["fs"]["mounts"].append("/x")
    assert objection_to(manifest).reason == "it is not a table"


def test_memory_that_is_shared_with_the_host_is_refused(manifest):
    objection = objection_to(mount(manifest, type="untrusted_shm", path="/shm", uri="dev:/dev/shm"))
    assert "while the kernel uses it" in objection.reason


@pytest.mark.parametrize("kind", ["proc", "", 5, ["chroot"]], ids=repr)
def test_a_mount_of_an_unknown_kind_is_refused(manifest, kind):
    assert "no such kind" in objection_to(mount(manifest, type=kind, path="/x")).reason


def test_what_the_schema_does_not_know_of_a_mount_is_refused(manifest):
    assert "nobody judged it" in objection_to(mount(manifest, type="tmpfs", path="/x", size="1G")).reason


@pytest.mark.parametrize(
    "path", [None, "", "x", "./x", "/x/", "/x/../y", "//x", "/x//y", "/x\0", 5], ids=repr
)
def test_a_mount_at_no_plain_absolute_path_is_refused(manifest, path):
    objection = objection_to(mount(manifest, type="tmpfs", path=path))
    assert objection.setting == "fs.mounts[5].path"
    assert "not an absolute path" in objection.reason
    assert (objection.found == "not written") == (path is None)


def test_a_mount_over_the_root_is_refused(manifest):
    assert "fs.root" in objection_to(mount(manifest, type="tmpfs", path="/")).reason


@pytest.mark.parametrize("path", ["/dev", "/dev/attestation", "/proc", "/proc/self", "/sys"])
def test_a_mount_over_gramines_own_files_is_refused(manifest, path):
    assert "attestation" in objection_to(mount(manifest, type="tmpfs", path=path)).reason


@pytest.mark.parametrize("path", ["/scratch", "/run", "/run/sealbook"])
def test_a_mount_that_hides_another_is_refused(manifest, path):
    objection = objection_to(mount(manifest, type="tmpfs", path=path))
    assert "it hides fs.mounts" in objection.reason


def test_a_manifest_without_the_memory_that_private_keys_pass_through_is_refused(manifest):
    assert manifest["fs"]["mounts"].pop(0)["path"] == "/tmp"
    objection = objection_to(manifest)
    assert (objection.setting, objection.found) == ("fs.mounts", "no /tmp")
    assert "private keys" in objection.reason
    # A directory of measured files, which could not be written to, is not taken for it.
    trust(manifest, "file:image/root/tmp/x")
    assert objection_to(manifest) == objection


@pytest.mark.parametrize(
    "entry",
    [
        {"uri": "file:image/root/lib"},
        {"uri": "file:work"},
        {"uri": "file:new", "type": "encrypted", "key_name": "new"},
    ],
    ids=["measured", "the host's", "encrypted"],
)
def test_memory_that_private_keys_pass_through_is_nothing_else(manifest, entry):
    manifest["fs"]["mounts"][0] = {"path": "/tmp"} | entry
    (objection,) = [each for each in lint(manifest) if each.setting == "fs.mounts[0].type"]
    assert "private keys" in objection.reason
    assert objection.remedy == 'write { type = "tmpfs", path = "/tmp" }'


def test_a_directory_of_the_host_over_the_memory_that_private_keys_pass_through_is_refused(manifest):
    mount(manifest, path="/tmp", uri="file:work")
    assert {"fs.mounts[5].type", "fs.mounts[5]"} == {each.setting for each in lint(manifest)}


@pytest.mark.parametrize(
    "entry", [{"type": "tmpfs"}, {"uri": "file:image/root/lib"}], ids=["memory", "measured"]
)
def test_nothing_is_mounted_below_the_memory_that_private_keys_pass_through(manifest, entry):
    objection = objection_to(mount(manifest, path="/tmp/x", **entry))
    assert objection.setting == "fs.mounts[5]"
    assert "over a part of /tmp" in objection.reason


def test_private_keys_and_models_pass_through_the_memory_that_is_demanded():
    from sealbook.broker import tls
    from sealbook.image.manifest import MEMORY_PLACE
    from sealbook.sealing.codecs import keras

    assert MEMORY_PLACE == tls._ENCLAVE_MEMORY == str(keras._GRAMINE_MEMORY_FILES)


def test_a_mount_whose_files_are_neither_measured_nor_allowed_is_refused(manifest):
    objection = objection_to(mount(manifest, path="/more", uri="file:more"))
    assert "neither measured nor allowed" in objection.reason
    assert lint(trust(manifest, "file:more/x")) == []
    manifest["fs"]["mounts"][5]["type"] = "chroot"
    assert lint(manifest) == []


def test_the_notebooks_directory_must_be_allowed_or_encrypted(manifest):
    manifest["sgx"]["allowed_files"].pop()
    assert objection_to(manifest).setting == "fs.mounts[3]"
    manifest["fs"]["mounts"][3] |= {"type": "encrypted", "key_name": "work"}
    assert lint(manifest) == []


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (MISSING, "without a name"),
        ("", "without a name"),
        (5, "without a name"),
        ("default", "every mount without a name"),
        ("_sgx_mrsigner", "attested to you or not"),
        ("_sgx_mrenclave", "attested to you or not"),
        ("_new", "attested to you or not"),
        ("../data", "a file's name"),
    ],
)
def test_an_encrypted_mount_without_a_key_of_its_own_is_refused(manifest, name, reason):
    write(manifest["fs"]["mounts"][2], "key_name", name)
    objection = objection_to(manifest)
    assert objection.setting == "fs.mounts[2].key_name"
    assert reason in objection.reason


def test_two_mounts_with_one_key_are_refused(manifest):
    mount(manifest, type="encrypted", path="/more", uri="file:more", key_name="data")
    objection = objection_to(manifest)
    assert objection.setting == "fs.mounts[5].key_name"
    assert "fs.mounts[2] has the same key" in objection.reason


def test_the_scratch_key_is_the_scratch_mounts_and_no_others(manifest):
    entry = manifest["fs"]["mounts"][1]
    assert entry["path"] == "/scratch"
    entry["key_name"] = "other"
    assert objection_to(manifest).setting == "fs.mounts[1].key_name"
    entry["path"], entry["key_name"] = "/elsewhere", "scratch"
    del manifest["loader"]["env"]["HOME"], manifest["loader"]["env"]["TMPDIR"]
    assert "for nothing else" in objection_to(manifest).reason


def test_recovery_of_encrypted_files_is_true_or_false(manifest):
    manifest["fs"]["mounts"][2]["enable_recovery"] = True
    assert lint(manifest) == []
    manifest["fs"]["mounts"][2]["enable_recovery"] = "yes"
    assert objection_to(manifest).setting == "fs.mounts[2].enable_recovery"


@pytest.mark.parametrize("uri", ["file:scratch", "file:scratch/sub"])
def test_encrypted_mounts_with_the_same_files_are_refused(manifest, uri):
    manifest["fs"]["mounts"][2]["uri"] = uri
    objections = lint(manifest)
    assert {each.setting for each in objections} == {"fs.mounts[1].uri", "fs.mounts[2].uri"}
    assert all("same files" in each.reason for each in objections)


@pytest.mark.parametrize("uri", ["file:work", "file:work/sub", "file:launch"])
def test_an_encrypted_mount_over_files_that_the_host_changes_is_refused(manifest, uri):
    manifest["fs"]["mounts"][2]["uri"] = uri
    assert "same files" in objection_to(manifest).reason


def test_an_encrypted_mount_over_measured_files_is_refused(manifest):
    trust(manifest, "file:data/x")
    assert "measured files lie there" in objection_to(manifest).reason


@pytest.mark.parametrize("path", ["work", "/work/", "/work/..", 5])
def test_a_start_directory_that_is_no_plain_path_is_refused(manifest, path):
    assert objection_to(write(manifest, "fs.start_dir", path)).setting == "fs.start_dir"


@pytest.mark.parametrize("value", [MISSING, "file:image/gramine/libsysdb.so"])
def test_a_library_os_left_to_the_installation_is_refused(manifest, value):
    assert "is installed" in objection_to(write(manifest, "loader.entrypoint", value)).reason


@pytest.mark.parametrize("digest", [MISSING, "0" * 63, 5])
def test_a_library_os_without_a_hash_is_refused(manifest, digest):
    objection = objection_to(write(manifest, "loader.entrypoint.sha256", digest))
    assert "any library OS would do" in objection.reason


def test_what_the_schema_does_not_know_of_the_library_os_is_refused(manifest):
    assert "nobody judged it" in objection_to(write(manifest, "loader.entrypoint.sha1", "0")).reason


# -- what runs -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", [MISSING, 5, "python3", "bin/python3", "/python/bin/../bin/python3", "/bin/sh", "/"]
)
def test_an_entrypoint_that_is_no_absolute_path_of_an_interpreter_is_refused(manifest, path):
    objection = objection_to(write(manifest, "libos.entrypoint", path))
    assert objection.setting == "libos.entrypoint"
    assert "python3" in objection.reason
    assert (objection.found == "not written") == (path is MISSING)


@pytest.mark.parametrize("path", ["/bin/python3", "/scratch/python3", "/tmp/python3", "/work/python3"])
def test_an_entrypoint_that_is_not_measured_is_refused(manifest, path):
    assert "libos.entrypoint" in {each.setting for each in lint(write(manifest, "libos.entrypoint", path))}


def test_an_entrypoint_on_an_encrypted_mount_is_refused_although_its_host_file_has_a_hash(manifest):
    trust(write(manifest, "libos.entrypoint", "/data/python3"), "file:data/python3")
    assert {"libos.entrypoint", "fs.mounts[2].uri"} <= {each.setting for each in lint(manifest)}


def test_a_mount_that_puts_another_file_over_the_entrypoint_is_refused(manifest):
    objections = lint(mount(manifest, path="/python/bin", uri="file:work"))
    assert {"libos.entrypoint", "loader.env.PATH", "fs.mounts[5]"} <= {each.setting for each in objections}


def test_missing_arguments_are_refused(manifest):
    assert "standard input" in objection_to(write(manifest, "loader.argv", MISSING)).reason


@pytest.mark.parametrize("argv", ["python3 -I -B", [1], ["python3", "a\0b"]])
def test_arguments_that_are_no_texts_are_refused(manifest, argv):
    assert objection_to(write(manifest, "loader.argv", argv)).reason == "it is not a list of texts"


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["python3"],
        ["python3", "-m", "x"],
        ["python3", "-I", "-m", "x"],
        ["python3", "-B", "-m", "x"],
        ["python3", "-I", "-I", "-m", "x"],
        ["-I", "-B", "-m", "x"],
        ["python3", "-m", "-I", "-B"],
    ],
    ids=" ".join,
)
def test_an_interpreter_that_is_not_isolated_is_refused(manifest, argv):
    objection = objection_to(write(manifest, "loader.argv", argv))
    assert "without isolation" in objection.reason
    assert objection.found == (" ".join(argv) or "a list of 0")


@pytest.mark.parametrize("rest", [[], ["-"], ["-", "-m", "x"]], ids=str)
def test_an_interpreter_that_would_run_what_the_host_types_is_refused(manifest, rest):
    assert (
        "standard input"
        in objection_to(write(manifest, "loader.argv", ["python3", "-I", "-B", *rest])).reason
    )


@pytest.mark.parametrize(
    "option",
    [["-i"], ["-X", "pycache_prefix=/work"], ["-Xfrozen_modules"], ["-W", "error::x.Y"], ["-x"], ["--check"]],
)
def test_an_option_of_the_interpreter_that_nobody_judged_is_refused(manifest, option):
    argv = ["python3", "-I", "-B", *option, "-m", "sealbook.x"]
    assert "nobody judged the option" in objection_to(write(manifest, "loader.argv", argv)).reason


@pytest.mark.parametrize(
    "program",
    [
        ["-m"],
        ["-m", "../x"],
        ["-c", "pass"],
        ["x.py"],
        ["/work/x.py"],
        ["/scratch/x.py"],
        ["/python/lib/missing.py"],
    ],
    ids=" ".join,
)
def test_a_program_that_is_neither_a_module_nor_measured_is_refused(manifest, program):
    argv = ["python3", "-I", "-B", *program]
    assert "neither a module nor" in objection_to(write(manifest, "loader.argv", argv)).reason


@pytest.mark.parametrize(
    "argv",
    [
        ["python3", "-B", "-I", "-m", "sealbook.x"],
        ["python3.11", "-I", "-B", "-m", "sealbook.x.y_1"],
        ["/python/bin/python3", "-I", "-B", "-m", "sealbook.x"],
        ["python3", "-I", "-B", "/python/lib/python311.zip"],
    ],
    ids=" ".join,
)
def test_an_isolated_interpreter_with_a_measured_program_is_fine(manifest, argv):
    assert lint(write(manifest, "loader.argv", argv)) == []


@pytest.mark.parametrize("module", ["pdb", "runpy", "code", "sealbook", "sealbookish.x", "x.sealbook.y"])
def test_a_module_that_is_not_made_to_run_in_an_image_is_refused(manifest, module):
    argv = ["python3", "-I", "-B", "-m", module]
    assert f"nobody judged the module {module}" in objection_to(write(manifest, "loader.argv", argv)).reason


@pytest.mark.parametrize("program", [["-m", "sealbook.x"], ["/python/lib/python311.zip"]], ids=" ".join)
@pytest.mark.parametrize("rest", [["/work/x.py"], ["-i", "x"], [""]], ids=str)
def test_arguments_of_the_program_are_refused_because_they_may_name_code(manifest, program, rest):
    argv = ["python3", "-I", "-B", *program, *rest]
    assert "nobody judged what the program does" in objection_to(write(manifest, "loader.argv", argv)).reason


@pytest.mark.parametrize("name", ["/work/bin/python3", "work/python3", "./python3", "", "sh"])
def test_an_interpreter_that_is_told_to_lie_elsewhere_is_refused(manifest, name):
    argv = [name, "-I", "-B", "-m", "sealbook.x"]
    assert "its own libraries from beside" in objection_to(write(manifest, "loader.argv", argv)).reason


# -- the environment -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["LANG", "PYTHONPATH", "LD_PRELOAD", "HTTP_PROXY"])
@pytest.mark.parametrize(
    "value", [{"passthrough": True}, {"passthrough": False}, {"value": "x", "passthrough": True}]
)
def test_a_variable_of_the_host_is_refused(manifest, name, value):
    objection = objection_to(environment(manifest, **{name: value}))
    assert objection.setting == f"loader.env.{name}"
    assert "come from the host" in objection.reason


@pytest.mark.parametrize("value", [5, [], {}, {"value": 5}, {"value": "x", "more": 1}, "a\0b"], ids=repr)
def test_a_variable_that_is_no_text_is_refused(manifest, value):
    assert objection_to(environment(manifest, NEW=value)).reason.startswith("it is not a text")


def test_a_variable_may_be_a_table_with_a_value(manifest):
    assert lint(environment(manifest, NEW={"value": "x"}, HOME={"value": "/scratch"})) == []
    assert objection_to(environment(manifest, HOME={"value": "/work"})).setting == "loader.env.HOME"


def test_an_environment_that_is_no_table_is_refused(manifest):
    assert objection_to(write(manifest, "loader.env", "PATH=/bin")).setting == "loader.env"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("LD_PRELOAD", "dynamic linker"),
        ("LD_AUDIT", "dynamic linker"),
        ("LD_NEW", "dynamic linker"),
        ("PYTHONPATH", "child interpreters"),
        ("PYTHONSTARTUP", "child interpreters"),
        ("PYTHONHOME", "child interpreters"),
        ("PYTHONINSPECT", "child interpreters"),
        ("PYTHONNEW", "child interpreters"),
        ("BASH_ENV", "every bash runs"),
        ("BASHOPTS", "every bash reads"),
        ("ENV", "every shell runs"),
        ("GCONV_PATH", "loads code"),
        ("JAVA_TOOL_OPTIONS", "every JVM"),
        ("JDK_JAVA_OPTIONS", "every JVM"),
        ("_JAVA_OPTIONS", "every JVM"),
        ("PERL5LIB", "every Perl"),
        ("PERL5OPT", "every Perl"),
        ("PERLLIB", "every Perl"),
        ("RUBYOPT", "every Ruby"),
        ("NODE_OPTIONS", "every Node.js"),
        ("LUA_INIT", "every Lua"),
        ("GLIBC_TUNABLES", "protects memory"),
        ("IFS", "reads a script"),
        ("PROMPT_COMMAND", "bash runs it"),
        ("PS4", "bash runs it"),
        ("SHELLOPTS", "reads a script"),
        ("BASH_FUNC_ls%%", "for a function"),
        ("a.b", "for a function"),
        ("", "for a function"),
    ],
)
def test_a_variable_by_which_code_is_loaded_is_refused_and_its_value_not_shown(manifest, name, reason):
    objection = objection_to(environment(manifest, **{name: "/lib/the-value"}))
    assert objection.setting == f"loader.env.{name}"
    assert reason in objection.reason
    assert "the-value" not in str(objection)


@pytest.mark.parametrize(
    "name", ["DONTWRITEBYTECODE", "IOENCODING", "NOUSERSITE", "SAFEPATH", "UNBUFFERED", "UTF8"]
)
def test_a_variable_of_python_that_loads_nothing_is_fine(manifest, name):
    assert lint(environment(manifest, **{f"PYTHON{name}": "1"})) == []


@pytest.mark.parametrize("value", [MISSING, "2", "", 1])
def test_more_than_one_arena_is_refused_because_a_fork_would_fail(manifest, value):
    write(manifest, "loader.env.MALLOC_ARENA_MAX", value)
    objections = [each for each in lint(manifest) if "arenas" in each.reason]
    assert [each.setting for each in objections] == ["loader.env.MALLOC_ARENA_MAX"]


@pytest.mark.parametrize("name", ["PATH", "LD_LIBRARY_PATH"])
@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("", "the working directory"),
        (":/bin", "the working directory"),
        ("/bin:", "the working directory"),
        ("/bin::/lib", "the working directory"),
        (".", "not one absolute path"),
        ("bin", "not one absolute path"),
        ("/lib/../bin", "not one absolute path"),
        ("/bin/", "not one absolute path"),
        ("/bin;/work", "not one absolute path"),
        ("$ORIGIN/../lib", "not one absolute path"),
        ("/lib/$LIB", "not one absolute path"),
        ("/work", "not measured"),
        ("/bin:/work/bin", "not measured"),
        ("/scratch/bin", "not measured"),
        ("/data", "not measured"),
        ("/tmp", "not measured"),
        ("/run/sealbook/registration", "not measured"),
        ("/opt", "nothing is measured there"),
    ],
)
def test_a_search_path_outside_of_measured_directories_is_refused(manifest, name, value, reason):
    objection = objection_to(environment(manifest, **{name: value}))
    assert objection.setting == f"loader.env.{name}"
    assert reason in objection.reason


@pytest.mark.parametrize(
    "value",
    [
        "/work",
        "/work/.config",
        "/scratch:/work",
        "-I/work/include",
        "-Dx=/work",
        "file:///work/x",
        "/scratch/../work",
        "/run/sealbook/registration",
    ],
)
def test_a_variable_that_points_to_where_the_host_writes_is_refused(manifest, value):
    objection = objection_to(environment(manifest, HOME=value))
    assert objection.setting == "loader.env.HOME"
    assert "the host can change" in objection.reason


@pytest.mark.parametrize("value", ["~", "~/x", ".", "./x", "..", "../x"])
def test_a_variable_that_points_to_the_working_directory_is_refused(manifest, value):
    assert "working directory" in objection_to(environment(manifest, JUPYTER_CONFIG_DIR=value)).reason


@pytest.mark.parametrize(
    "name",
    [
        *(
            "HOME",
            "TMPDIR",
            "XDG_DATA_DIRS",
            "CLASSPATH",
            "OPENSSL_CONF",
            "NEW_CONFIG",
            "RUBYLIB",
        ),
        *("SSL_CERT_FILE", "MATPLOTLIBRC", "TMP", "TEMP", "NEW_PREFIX", "NEW_ROOT", "new_dir"),
    ],
)
def test_a_variable_that_programs_take_for_a_path_is_absolute(manifest, name):
    for value in ("x", "x/y", "", "/scratch:x", "/scratch:", "/scratch/../x", "/scratch;x"):
        changed = environment(copy.deepcopy(manifest), **{name: value})
        objection = objection_to(changed)
        assert objection.setting == f"loader.env.{name}"
        assert "working directory" in objection.reason
    assert lint(environment(manifest, **{name: "/scratch/x:/tmp"})) == []


@pytest.mark.parametrize("name", ["PYTHONSAFEPATH", "PYTHONNOUSERSITE"])
@pytest.mark.parametrize("value", [MISSING, ""])
def test_without_what_keeps_child_interpreters_from_the_working_directory_it_is_refused(
    manifest, name, value
):
    objection = objection_to(write(manifest, f"loader.env.{name}", value))
    assert objection.setting == f"loader.env.{name}"
    assert "interpreters that a cell starts" in objection.reason


@pytest.mark.parametrize(
    "value", ["", "/scratch/work", "/workers", "/tmp/x", "https://example.org/work", ".5", "a b"]
)
def test_a_variable_that_points_elsewhere_is_fine(manifest, value):
    assert lint(environment(manifest, NEW=value)) == []


@pytest.mark.parametrize(
    "path",
    [
        "/lib",
        "/lib/x",
        "/bin",
        "/usr",
        "/usr/lib/python3",
        "/etc",
        "/bin/x",
        "/sbin",
        "/lib64",
        "/python",
        "/python/lib/x",
    ],
)
@pytest.mark.parametrize("kind", ["tmpfs", "encrypted"])
def test_a_mount_of_unmeasured_files_where_code_is_loaded_from_is_refused(manifest, path, kind):
    entry = {"uri": "file:new", "key_name": "new"} if kind == "encrypted" else {}
    # Whatever the search paths say.
    environment(manifest, PATH="/python/bin", LD_LIBRARY_PATH="/python/lib")
    objections = lint(mount(manifest, type=kind, path=path, **entry))
    # Over /lib and /python the search paths and the entrypoint are objected to as well.
    (objection,) = [each for each in objections if each.setting == "fs.mounts[5]"]
    assert "load code from" in objection.reason


def test_a_mount_above_a_directory_of_a_search_path_is_refused(manifest):
    manifest["fs"]["mounts"][0:0] = [
        {"type": "tmpfs", "path": "/opt"},
        {"path": "/opt/lib", "uri": "file:image/root/lib"},
    ]
    environment(manifest, LD_LIBRARY_PATH="/lib:/opt/lib")
    objection = objection_to(manifest)
    assert objection.setting == "fs.mounts[0]"
    assert "load code from /opt/lib" in objection.reason


def test_a_directory_of_code_below_one_that_the_host_changes_is_refused(manifest):
    mount(manifest, path="/work/lib", uri="file:image/root/lib")
    assert lint(manifest) == []
    objection = objection_to(environment(manifest, LD_LIBRARY_PATH="/work/lib"))
    assert objection.setting == "fs.mounts[3]"
    assert "load code from /work/lib" in objection.reason


def test_an_interpreter_that_is_mounted_as_one_file_is_found(manifest):
    mount(manifest, path="/opt/bin/python3", uri="file:image/root/python/bin/python3")
    assert lint(write(manifest, "libos.entrypoint", "/opt/bin/python3")) == []


def test_a_mount_of_measured_files_among_code_is_fine(manifest):
    trust(mount(manifest, path="/usr/lib/extra", uri="file:image/extra"), "file:image/extra/x.so")
    assert lint(manifest) == []


def test_an_interpreter_outside_of_a_bin_has_its_libraries_beside_it(manifest):
    trust(write(manifest, "libos.entrypoint", "/opt/python3"), "file:image/root/opt/python3")
    assert lint(manifest) == []
    objection = objection_to(mount(manifest, type="tmpfs", path="/opt/lib"))
    assert "load code from /opt" in objection.reason


def test_an_interpreter_directly_below_the_root_does_not_make_all_of_it_code(manifest):
    trust(write(manifest, "libos.entrypoint", "/bin/python3"), "file:image/root/bin/python3")
    assert lint(manifest) == []


# -- what is shown -------------------------------------------------------------------------------


def test_no_objection_shows_a_key_or_more_than_a_line(manifest):
    write(manifest, "fs.insecure__keys", {"data": "00112233445566778899aabbccddeeff"})
    write(manifest, "loader.log_level", "x" * 10_000)
    write(manifest, f"sgx.{'y' * 10_000}", 10**5000)
    environment(manifest, **{"z" * 10_000: {"passthrough": True}})
    for objection in lint(manifest):
        assert "00112233" not in str(objection)
        assert len(str(objection)) < 600


def test_an_objection_is_one_sentence(manifest):
    text = str(objection_to(write(manifest, "sgx.isvsvn", True)))
    assert text == (
        "sgx.isvsvn (true): a policy cannot ask for a version that has a fix; write a number, 0 to 65535."
    )


# -- reading -------------------------------------------------------------------------------------


def test_a_manifest_that_is_too_large_is_refused_unread(tmp_path):
    path = tmp_path / "huge"
    with path.open("wb") as file:
        file.truncate(MAX_MANIFEST_BYTES + 1)
    with pytest.raises(InputError, match="larger than"):
        read_manifest(path)
    with pytest.raises(InputError, match="larger than"):
        parse_manifest(bytes(MAX_MANIFEST_BYTES + 1))


@pytest.mark.parametrize(
    "text",
    ["not toml", "[sgx", "a = 1\na = 2", "\xff", f"a = {'[' * 100_000}", f"a = {'9' * 10_000}", "a = \x00"],
    ids=["words", "open table", "twice", "no UTF-8", "deep", "long number", "NUL"],
)
def test_what_is_not_toml_is_one_sentence(text):
    with pytest.raises(InputError) as refused:
        parse_manifest(text.encode("latin-1"), "the.manifest")
    sentence = str(refused.value)
    assert sentence.startswith("the.manifest is not TOML: ")
    assert "\n" not in sentence
    assert len(sentence) < 300


@pytest.mark.parametrize("line", ["sgx.{}b = 1", "[sgx.{}b]", "x = {{ {}b = 1 }}"])
def test_a_name_of_very_many_parts_is_refused_before_it_takes_minutes(line):
    begin = time.process_time()
    with pytest.raises(InputError, match="more than the 64 dots"):
        parse_manifest(line.format("a." * 1_000_000).encode())
    assert time.process_time() - begin < 5
    assert parse_manifest(line.format("a." * 60).encode())


def test_more_mounts_or_allowed_files_than_can_be_judged_are_refused(manifest):
    allowed = copy.deepcopy(manifest)
    allowed["sgx"]["allowed_files"] = ["file:work"] * 501
    assert "sgx.allowed_files" in {each.setting for each in lint(allowed) if "so many" in each.reason}
    manifest["fs"]["mounts"] += [{"type": "tmpfs", "path": f"/m/{number}"} for number in range(496)]
    objection = objection_to(manifest)
    assert (objection.setting, objection.found) == ("fs.mounts", "a list of 501")
    assert "so many" in objection.reason
    del manifest["fs"]["mounts"][-1]
    assert lint(manifest) == []


def test_paths_and_values_longer_than_gramine_takes_are_refused(manifest):
    assert "longer than" in objection_to(trust(copy.deepcopy(manifest), f"file:{'x' * 4092}")).reason
    assert lint(trust(copy.deepcopy(manifest), f"file:{'x' * 4091}")) == []
    path = f"/{'x' * 4096}"
    assert (
        "not an absolute path" in objection_to(mount(copy.deepcopy(manifest), type="tmpfs", path=path)).reason
    )
    assert "4096 characters" in objection_to(environment(manifest, NEW="x" * 4097)).reason


def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(InputError, match="not a regular file"):
        read_manifest(pipe)


def test_a_large_manifest_is_judged_in_seconds(manifest):
    for number in range(30_000):
        trust(manifest, f"file:image/root/python/lib/{number}")
    manifest["fs"]["mounts"] += [
        {"path": f"/m/{number}", "uri": f"file:image/root/python/lib/{number}"} for number in range(400)
    ]
    begin = time.process_time()
    assert lint(manifest) == []
    assert time.process_time() - begin < 10


def test_of_an_image_both_manifests_are_judged(tmp_path):
    (tmp_path / "kernel.manifest").write_text(SOUND.read_text())
    assert lint_path(tmp_path) == {tmp_path / "kernel.manifest": []}
    signed = tmp_path / "kernel.manifest.sgx"
    signed.write_text(SOUND.read_text().replace("debug = false", "debug = true"))
    judged = lint_path(tmp_path)
    assert judged[tmp_path / "kernel.manifest"] == []
    assert [each.setting for each in judged[signed]] == ["sgx.debug"]
    assert [each.setting for each in lint_path(signed)[signed]] == ["sgx.debug"]


def test_a_directory_without_a_manifest_is_no_image(tmp_path):
    with pytest.raises(InputError, match="is no kernel image"):
        lint_path(tmp_path)
    with pytest.raises(InputError, match="cannot be read"):
        lint_path(Path(tmp_path, "missing"))
