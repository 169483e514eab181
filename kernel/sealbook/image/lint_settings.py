"""Rules for settings whose own value decides: what each may be, and why.

What is not listed here or in :data:`ELSEWHERE` is refused: a setting that the lint does not know is one that
nobody has judged.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sealbook.image.objection import NOT_WRITTEN, Objection, shortened, shown

Name = tuple[str, ...]

#: Tables that a manifest may have. All others are refused with everything in them.
TABLES: frozenset[Name] = frozenset(
    tuple(name.split("."))
    for name in ("fs", "libos", "loader", "sgx", "sgx.cpu_features", "sys", "sys.brk", "sys.fds", "sys.stack")
)

#: Settings with a structure of their own, judged by :mod:`~sealbook.image.lint_files` and
#: :mod:`~sealbook.image.lint_programs`.
ELSEWHERE: frozenset[Name] = frozenset(
    tuple(name.split("."))
    for name in (
        "fs.mounts",
        "fs.root",
        "fs.start_dir",
        "libos.entrypoint",
        "loader.argv",
        "loader.entrypoint",
        "loader.env",
        "sgx.allowed_files",
        "sgx.trusted_files",
    )
)

#: Settings that are refused whatever they say.
REFUSED: dict[str, tuple[str, str]] = {
    "fs.insecure__keys": (
        "a key in the manifest is a key that everybody has",
        "remove it; the broker releases the key after attestation",
    ),
    "loader.insecure__use_cmdline_argv": (
        "the host would choose the program's arguments, and with them what runs",
        "remove it and write loader.argv",
    ),
    "loader.insecure__use_host_env": (
        "the host would choose the environment, LD_PRELOAD included",
        "remove it and write loader.env",
    ),
    "loader.insecure__disable_aslr": (
        "without it an attacker knows where everything lies in memory",
        "remove it",
    ),
    "loader.argv_src_file": (
        "arguments would come from a file that inspection and review do not see",
        "remove it and write loader.argv",
    ),
    "loader.env_src_file": (
        "the environment would come from a file that inspection and review do not see",
        "remove it and write loader.env",
    ),
    "loader.log_file": (
        "what Gramine logs would be kept on the host's disk, under a path of the host",
        "remove it; errors go to stderr, which the launcher reads",
    ),
    "sgx.insecure__rpc_thread_num": (
        "threads outside the enclave read and write its requests (INTEL-SA-00615 and 00657)",
        "remove it",
    ),
    "sgx.insecure__allow_memfaults_without_exinfo": (
        "the host could inject memory faults that the kernel takes for its own",
        "remove it",
    ),
    "sgx.profile": (
        "it writes where the enclave's code is while it runs onto the host's disk",
        "remove it",
    ),
    "sgx.seal_key": (
        "a mask can give the sealing key to a debug enclave, and sealbook seals nothing with that key",
        "remove it",
    ),
    "sys.allowed_ioctls": (
        "such a call is passed to the host and back without any check",
        "remove it",
    ),
    "sys.ioctl_structs": (
        "it describes calls that are passed to the host without any check",
        "remove it",
    ),
    "sys.insecure__allow_eventfd": (
        "the host could wake and confuse threads; eventfd within one process works without it",
        "remove it",
    ),
    "sys.debug__mock_syscalls": (
        "a system call that pretends to have worked can take a check away from under a program",
        "remove it",
    ),
    "sys.experimental__enable_flock": (
        "Gramine says that it may contain vulnerabilities",
        "remove it; the kernel locks nothing with flock",
    ),
}

#: Beginnings with which Gramine itself marks what is not for production, today's and future ones.
UNSAFE_BEGINNINGS = {
    "insecure__": "Gramine itself calls it insecure",
    "debug__": "Gramine has it for debugging",
    "experimental__": "Gramine has not finished it",
}


@dataclass(frozen=True)
class Rule:
    """What one setting may be.

    Attributes
    ----------
    accepts
        Tells whether a value is fine.
    reason
        What goes wrong with any other, or with none.
    remedy
        What to write.
    required
        Whether it must be there, because the reader of a manifest shall not need to know defaults.
    """

    accepts: Callable[[Any], bool]
    reason: str
    remedy: str
    required: bool = False


def _only(*values: object) -> Callable[[Any], bool]:
    # By type too: 1 is not true in TOML.
    return lambda value: any(type(value) is type(each) and value == each for each in values)


def _whole(low: int, high: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _size(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[1-9][0-9]{0,14}[KMG]?", value) is not None


def _false(reason: str) -> Rule:
    return Rule(_only(False), reason, "write false, or nothing")


def _vector_feature(name: str) -> Rule:
    return Rule(
        _only("unspecified", "disabled", "required"),
        f"whether {name} is part of what is attested must be decided, not left to a default",
        'write "unspecified", "disabled" or "required"',
        required=True,
    )


def _hardening_feature(name: str) -> Rule:
    return Rule(
        _only("disabled", "required"),
        f"{name} changes what protects the program, so it must be decided, not left to a default",
        'write "disabled" or "required"',
        required=True,
    )


_YES_OR_NO = _only(True, False)
_ID = _whole(0, 0xFFFF)

RULES: dict[str, Rule] = {
    "libos.check_invalid_pointers": Rule(
        _only(True),
        "without it a bad pointer ends the program where it should get an error",
        "write true, or nothing",
    ),
    "loader.log_level": Rule(
        _only("error", "none"),
        "other levels tell the host what the program does",
        'write "error" or "none"',
        required=True,
    ),
    "loader.uid": Rule(_whole(0, 2**31), "it is not a user id", "write a whole number, or nothing"),
    "loader.gid": Rule(_whole(0, 2**31), "it is not a group id", "write a whole number, or nothing"),
    "sgx.debug": _false("the host can read and change the memory of a debug enclave"),
    "sgx.enable_stats": _false("it counts for the host what the enclave does, and is for debugging"),
    "sgx.vtune_profile": _false("it tells the host where the enclave's code is while it runs"),
    "sgx.edmm_enable": Rule(
        _only(True),
        "without it all of the heap can be written and executed",
        "write true (it needs Linux 6.0)",
        required=True,
    ),
    "sgx.enclave_size": Rule(_size, "it is not a size", 'write such as "64G", or nothing'),
    "sgx.file_check_policy": Rule(
        _only("strict"),
        "every other policy opens files that nobody measured",
        'write "strict"',
        required=True,
    ),
    "sgx.isvprodid": Rule(
        _ID, "a policy cannot tell products of one signer apart", "write a number, 0 to 65535", required=True
    ),
    "sgx.isvsvn": Rule(
        _ID, "a policy cannot ask for a version that has a fix", "write a number, 0 to 65535", required=True
    ),
    "sgx.max_threads": Rule(
        _whole(4, 4096),
        "Gramine needs up to three threads for itself",
        "write a number, 4 to 4096",
        required=True,
    ),
    "sgx.preheat_enclave": Rule(_YES_OR_NO, "it is true or false", "write one of them, or nothing"),
    "sgx.remote_attestation": Rule(
        _only("dcap"),
        "without it there are no quotes and nobody can verify it",
        'write "dcap"',
        required=True,
    ),
    "sgx.use_exinfo": Rule(
        _YES_OR_NO,
        "whether a program learns the address of a memory fault must be decided, not left to a default",
        "write true for a JVM, false for all else",
        required=True,
    ),
    "sgx.cpu_features.avx": _vector_feature("AVX"),
    "sgx.cpu_features.avx512": _vector_feature("AVX-512"),
    "sgx.cpu_features.amx": _vector_feature("AMX"),
    "sgx.cpu_features.mpx": _hardening_feature("MPX"),
    "sgx.cpu_features.pkru": _hardening_feature("PKRU"),
    "sys.disallow_subprocesses": Rule(_YES_OR_NO, "it is true or false", "write one of them, or nothing"),
    "sys.enable_extra_runtime_domain_names_conf": Rule(
        _YES_OR_NO, "it is true or false", "write one of them, or nothing"
    ),
    "sys.enable_sigterm_injection": _false(
        "the host could have a handler run at any moment; it can end the process without that"
    ),
    "sys.brk.max_size": Rule(_size, "it is not a size", 'write such as "256K", or nothing'),
    "sys.fds.limit": Rule(
        _whole(1, 2**20), "it is not a number of files", "write a whole number, or nothing"
    ),
    "sys.stack.size": Rule(
        _size,
        "the default of 256K is too small for numerical libraries, which then crash",
        'write such as "2M"',
        required=True,
    ),
}

_RULES = {tuple(name.split(".")): rule for name, rule in RULES.items()}
_REFUSED = {tuple(name.split(".")): why for name, why in REFUSED.items()}


def check_settings(manifest: Mapping[str, Any]) -> Iterator[Objection]:
    """Judge every setting on its own, and every name."""
    yield from _check_table(manifest, ())
    for name, rule in _RULES.items():
        if rule.required and not _written(manifest, name):
            yield Objection(".".join(name), NOT_WRITTEN, rule.reason, rule.remedy)


def unknown_keys(
    values: Mapping[str, Any], known: frozenset[str] | set[str], setting: str
) -> Iterator[Objection]:
    """Refuse what Gramine 1.9 does not know in a table, or calls unsafe."""
    for key, value in values.items():
        if key not in known:
            yield _unknown(f"{setting}.{shortened(key)}" if setting else shortened(key), key, value)


def _check_table(table: Mapping[str, Any], name: Name) -> Iterator[Objection]:
    for key, value in table.items():
        # Compared part by part: "cpu_features.avx" in quotes is another name than cpu_features.avx.
        here = (*name, key)
        setting = ".".join(shortened(part) for part in here)
        if here in _REFUSED:
            yield Objection(setting, shown(value), *_REFUSED[here])
        elif here in TABLES:
            if isinstance(value, Mapping):
                yield from _check_table(value, here)
            else:
                yield Objection(setting, shown(value), "it is not a table", f"write [{setting}]")
        elif here in _RULES:
            rule = _RULES[here]
            if not rule.accepts(value):
                yield Objection(setting, shown(value), rule.reason, rule.remedy)
        elif here not in ELSEWHERE:
            yield _unknown(setting, key, value)


def _unknown(setting: str, key: str, value: Any) -> Objection:
    for beginning, why in UNSAFE_BEGINNINGS.items():
        if key.startswith(beginning):
            return Objection(setting, shown(value), why, "remove it")
    return Objection(
        setting,
        shown(value),
        "neither Gramine 1.9's schema nor this lint knows such a setting here, so nobody judged it",
        "remove it, or mend its name",
    )


def _written(manifest: Mapping[str, Any], name: Name) -> bool:
    value: Any = manifest
    for part in name:
        if not isinstance(value, Mapping):
            # That it is not a table is an objection already.
            return True
        if part not in value:
            return False
        value = value[part]
    return True
