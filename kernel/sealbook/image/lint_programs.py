"""Rules for what runs: the entrypoint, its arguments, and an environment that names no code of the host."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping
from typing import Any

from sealbook.image.mounts import LONGEST_PATH, Files, covers, is_plain
from sealbook.image.objection import NOT_WRITTEN, Objection, shortened, shown

_INTERPRETER = re.compile(r"python3(\.[0-9]+)?")
_MODULE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

#: Without them Python obeys PYTHON* variables, looks into the working directory and a home folder for
#: modules, and writes byte code (which Gramine, without time stamps, would have it write at every start).
ISOLATION = ("-I", "-B")

#: The modules that are made to run in an image.
_OWN = "sealbook."
_RUN = f"write -m and a module of {_OWN}*, or the absolute path of a file in sgx.trusted_files"

#: Search paths of programs; they may name measured directories and nothing else.
_SEARCH_PATHS = ("LD_LIBRARY_PATH", "PATH")
#: Python's own variables that neither load nor hide anything. Others may not be there: a child process is
#: started without -I.
_HARMLESS_PYTHON = {
    "PYTHONDONTWRITEBYTECODE",
    "PYTHONIOENCODING",
    "PYTHONNOUSERSITE",
    "PYTHONSAFEPATH",
    "PYTHONUNBUFFERED",
    "PYTHONUTF8",
}
_JVM = "every JVM loads agents and classes by it"
_PERL = "every Perl loads code by it"
#: Without them an interpreter that a cell starts imports from the working directory, which is the host's, or
#: from a home folder. An empty value does not count for Python.
_CHILDREN = ("PYTHONNOUSERSITE", "PYTHONSAFEPATH")
#: Variables with which a shell, the C library or another interpreter loads or runs something before the
#: program begins.
_DANGEROUS = {
    "BASH_ENV": "every bash runs what it names first",
    "BASHOPTS": "it changes how every bash reads a script",
    "ENV": "every shell runs what it names first",
    "GCONV_PATH": "the C library loads code from it",
    "GLIBC_TUNABLES": "it changes what protects memory in every program",
    "IFS": "it changes how every shell reads a script",
    "JAVA_TOOL_OPTIONS": _JVM,
    "JDK_JAVA_OPTIONS": _JVM,
    "LUA_INIT": "every Lua runs it",
    "NODE_OPTIONS": "every Node.js loads code by it",
    "PERLLIB": _PERL,
    "PROMPT_COMMAND": "every bash runs it",
    "PS4": "every traced bash runs it",
    "RUBYOPT": "every Ruby loads code by it",
    "SHELLOPTS": "it changes how every bash reads a script",
    "_JAVA_OPTIONS": _JVM,
}
#: Endings of the names whose values programs take for paths, also where they do not look like one.
_NAMES_PATHS = re.compile(
    r"(DIRS?|PATHS?|HOME|CONF|CONFIG|LIBS?|FILES?|RC|PREFIX|ROOT|TMP|TEMP)$", re.IGNORECASE
)
#: Where programs, libraries and the linker's own files are, whatever the search paths say.
_STANDARD_CODE = ("/bin", "/etc", "/lib", "/lib64", "/sbin", "/usr")
_PATH_IN_VALUE = re.compile(r"/[^\s:;,\"'=]*")


def check_programs(manifest: Mapping[str, Any], files: Files) -> Iterator[Objection]:
    """Judge what runs and what it is told, given the `files` of the manifest."""
    libos, loader = (
        value if isinstance(value, Mapping) else {} for value in map(manifest.get, ("libos", "loader"))
    )
    entrypoint = libos.get("entrypoint")
    yield from _entrypoint(entrypoint, files)
    yield from _arguments(loader.get("argv"), entrypoint, files)
    environment, objections = _environment(loader.get("env"))
    yield from objections
    home = environment.get("JAVA_HOME")
    directories = [*_STANDARD_CODE, *_prefix(entrypoint)]
    if home and is_plain(home) and home != "/":
        directories.append(home)
    if not files.complete:
        return
    for name in _SEARCH_PATHS:
        if name in environment:
            entries = environment[name].split(":")
            fault = next(filter(None, (_fault_of_entry(entry, files) for entry in entries)), None)
            if fault:
                yield Objection(f"loader.env.{name}", *fault)
            else:
                directories += entries
    yield from _named_by_environment(environment, files)
    yield from _mounts_on_code(directories, files)


# -- the entrypoint and its arguments ------------------------------------------------------------


def _entrypoint(path: Any, files: Files) -> Iterator[Objection]:
    setting, found = "libos.entrypoint", shown(path)
    if not is_plain(path) or not _INTERPRETER.fullmatch(posixpath.basename(path)):
        yield Objection(
            setting,
            found,
            "it is not the absolute path of a python3, and what isolates another program is not known here",
            'write such as "/python/bin/python3"',
        )
    elif files.complete and not _is_trusted(path, files):
        yield Objection(
            setting,
            found,
            "it is no measured file, so nobody knows what runs",
            "add it to sgx.trusted_files",
        )


def _arguments(argv: Any, entrypoint: Any, files: Files) -> Iterator[Objection]:
    setting = "loader.argv"
    if argv is None:
        yield Objection(
            setting,
            NOT_WRITTEN,
            "without arguments the interpreter runs what the host writes to its standard input",
            f'write ["python3", "{ISOLATION[0]}", "{ISOLATION[1]}", "-m", "sealbook...."]',
        )
        return
    if not isinstance(argv, list) or not all(isinstance(each, str) and "\0" not in each for each in argv):
        yield Objection(setting, shown(argv), "it is not a list of texts", "write a list of texts")
        return
    shown_argv = shortened(" ".join(argv)) or shown(argv)
    if sorted(argv[1:3]) != sorted(ISOLATION):
        yield Objection(
            setting,
            shown_argv,
            "without isolation Python takes code from the working directory, a home folder or PYTHON*",
            f"begin with python3 {' '.join(ISOLATION)}",
        )
        return
    fault = _fault_of_name(argv[0], entrypoint) or _fault_of_program(argv[3:], files)
    if fault:
        yield Objection(setting, shown_argv, *fault)


def _fault_of_name(name: str, entrypoint: Any) -> tuple[str, str] | None:
    """Judge what the interpreter is told that it is called."""
    if name == entrypoint or _INTERPRETER.fullmatch(name):
        return None
    return (
        "Python takes its own libraries from beside the file that its first argument names",
        "write python3 first, or what libos.entrypoint says",
    )


def _fault_of_program(arguments: list[str], files: Files) -> tuple[str, str] | None:
    if not arguments or arguments[0] == "-":
        return "the interpreter would run what the host writes to its standard input", "add -m and a module"
    first, *rest = arguments
    if first == "-m" and rest and _MODULE.fullmatch(rest[0]):
        # Others run what their arguments or their standard input say: pdb, runpy, code.
        fault = None if rest[0].startswith(_OWN) else (f"nobody judged the module {shortened(rest[0])}", _RUN)
        return fault or _fault_of_rest(rest[1:])
    if first.startswith("-") and first not in {"-m", "-c"}:
        # Some are harmless and some are not: -i reads from the host, -X pycache_prefix loads from anywhere.
        return f"nobody judged the option {shortened(first)}", "remove it"
    if is_plain(first) and (not files.complete or _is_trusted(first, files)):
        return _fault_of_rest(rest)
    return "what it runs is neither a module nor a measured file", _RUN


def _fault_of_rest(rest: list[str]) -> tuple[str, str] | None:
    if not rest:
        return None
    return f"nobody judged what the program does with {shortened(' '.join(rest))}", "remove it"


def _is_trusted(path: str, files: Files) -> bool:
    mount = files.mount_of(path)
    return mount is not None and files.is_code(mount) and mount.on_host(path) in files.trusted


# -- the environment -----------------------------------------------------------------------------


def _environment(env: Any) -> tuple[dict[str, str], list[Objection]]:
    """Return the variables with a value, and the objections to names and forms."""
    values: dict[str, str] = {}
    objections: list[Objection] = []
    if not isinstance(env, Mapping | None):
        return {}, [Objection("loader.env", shown(env), "it is not a table", "write [loader.env]")]
    for name, given in (env or {}).items():
        setting = f"loader.env.{shortened(name)}"
        value = given.get("value") if isinstance(given, Mapping) and set(given) == {"value"} else given
        if isinstance(given, Mapping) and "passthrough" in given:
            objections.append(
                Objection(setting, "passthrough", "its value would come from the host", "write a value")
            )
        elif not isinstance(value, str) or "\0" in value or len(value) > LONGEST_PATH:
            reason = f"it is not a text of at most {LONGEST_PATH} characters"
            objections.append(Objection(setting, shown(given), reason, "write such a text"))
        elif danger := _danger_of(name):
            # The value is not shown: it says nothing about what is wrong.
            objections.append(Objection(setting, "a value", danger, "remove it"))
        else:
            values[name] = value
    arenas = values.get("MALLOC_ARENA_MAX")
    if arenas != "1":
        objections.append(
            Objection(
                "loader.env.MALLOC_ARENA_MAX",
                shown(arenas),
                "with more arenas a process of several threads cannot start another one: a fork takes more "
                "mappings than Linux gives it",
                'write "1"',
            )
        )
    for name in _CHILDREN:
        if not values.get(name):
            objections.append(
                Objection(
                    f"loader.env.{name}",
                    shown(values.get(name)),
                    "interpreters that a cell starts would import what lies in the working directory or a "
                    "home folder",
                    'write "1"',
                )
            )
    return values, objections


def _danger_of(name: str) -> str | None:
    if not _VARIABLE.fullmatch(name):
        return "a shell would take such a name for a function and run it"
    if name.startswith("LD_") and name != "LD_LIBRARY_PATH":
        return "the dynamic linker loads or changes code by it"
    if name.startswith("PYTHON") and name not in _HARMLESS_PYTHON:
        return "child interpreters load code by it or lose what protects them"
    return _PERL if name.startswith("PERL5") else _DANGEROUS.get(name)


def _fault_of_entry(entry: str, files: Files) -> tuple[str, str, str] | None:
    """Judge one directory of a search path."""
    remedy = "name directories of measured files only"
    if not entry:
        return (
            "an empty entry",
            "it is the working directory, where the host can put anything",
            remedy,
        )
    if not is_plain(entry) or re.search(r"[$;]", entry):
        return shown(entry), "it is not one absolute path without . and ..", remedy
    mount = files.mount_of(entry)
    if mount is None or not files.is_code(mount):
        where = mount.setting if mount else "no mount"
        return shown(entry), f"it lies in {where}, where what is loaded is not measured", remedy
    if files.trusted.first_below(mount.on_host(entry) or "") is None:
        return shown(entry), "nothing is measured there, so nothing can be loaded from it", remedy
    return None


def _named_by_environment(environment: Mapping[str, str], files: Files) -> Iterator[Objection]:
    """Refuse a home, a temporary or a configuration directory in which the host can put code."""
    for name, value in environment.items():
        if name in _SEARCH_PATHS or name in _HARMLESS_PYTHON:
            continue
        for found in _PATH_IN_VALUE.findall(value):
            path = posixpath.normpath(f"/{found.lstrip('/')}")
            mount = files.mount_of(path)
            if mount is not None and files.changeable(mount):
                yield Objection(
                    f"loader.env.{name}",
                    shown(found),
                    f"the host can change {mount.path}, and programs load settings and code from where "
                    "variables point",
                    "name a directory in memory or on an encrypted mount",
                )
                break
        else:
            if _is_relative(name, value):
                yield Objection(
                    f"loader.env.{name}",
                    shown(value),
                    "it depends on the working directory or the home folder",
                    "write an absolute path",
                )


def _is_relative(name: str, value: str) -> bool:
    if re.match(r"~|\.\.?(/|$)", value):
        return True
    # An empty one is the working directory too, or is taken for not written.
    return _NAMES_PATHS.search(name) is not None and not all(
        is_plain(path) for path in re.split("[:;,]", value)
    )


# -- where code lies -----------------------------------------------------------------------------


def _prefix(entrypoint: Any) -> list[str]:
    """Return the directory in which an interpreter looks for its libraries: that above its bin."""
    if not is_plain(entrypoint):
        return []
    directory = posixpath.dirname(entrypoint)
    prefix = posixpath.dirname(directory) if posixpath.basename(directory) == "bin" else directory
    # /bin/python3 has the whole root; what of it is code is in the standard directories.
    return [] if prefix == "/" else [prefix]


def _mounts_on_code(directories: list[str], files: Files) -> Iterator[Objection]:
    """Refuse a mount of unmeasured files at, above or below a directory from which code is loaded."""
    for mount in files.mounts:
        if files.is_code(mount):
            continue
        for directory in directories:
            if covers(directory, mount.path) or covers(mount.path, directory):
                yield Objection(
                    mount.setting,
                    shown(mount.path),
                    f"programs load code from {directory}, and what this mount has there is not measured",
                    "mount it elsewhere",
                )
                break
