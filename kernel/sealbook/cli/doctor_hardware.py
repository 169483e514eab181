"""What `sealbook doctor` says of the hardware and the system: SGX, its memory, the services around it."""

from __future__ import annotations

import grp
import os
import stat
from collections.abc import Iterator

from sealbook.cli.findings import MISSING, OK, TODO, Finding, Machine
from sealbook.cli.options import size

#: What a kernel with the data science packages needs without swapping enclave pages all the time.
_ENOUGH_EPC = 4 << 30
#: Linux's default. Gramine copies a process page by page when it forks, one mapping each.
_LOW_MAP_COUNT = 65530
_WANTED_MAP_COUNT = 1_048_576


def examine(machine: Machine, *, needed: bool) -> Iterator[Finding]:
    """Look at everything a kernel on SGX hardware needs of the system.

    Parameters
    ----------
    needed
        Such a kernel is installed here, so what is missing must be done.
    """
    lacking = TODO if needed else MISSING
    yield _processor(machine, lacking)
    yield _device(machine, "/dev/sgx_enclave", lacking, why="kernels on SGX hardware run in it")
    # Not opened by the kernel itself: the quoting service does.
    yield _device(machine, "/dev/sgx_provision", MISSING, why="aesmd quotes through it")
    yield _enclave_memory(machine)
    yield _aesm(machine, lacking)


def _processor(machine: Machine, lacking: str) -> Finding:
    flags: set[str] = set()
    for line in machine.read("/proc/cpuinfo").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "flags":
            flags = set(value.split())
            break
    if {"sgx", "sgx_lc"} <= flags:
        return Finding("processor", OK, "SGX with flexible launch control")
    if "sgx" in flags:
        return Finding(
            "processor",
            lacking,
            "SGX without flexible launch control (no flag sgx_lc)",
            "set SGX launch control to unlocked in the firmware, or use another machine",
        )
    return Finding(
        "processor",
        lacking,
        "no SGX (no flag sgx in /proc/cpuinfo)",
        "enable SGX in the firmware of an Intel Xeon that has it; simulated kernels need none",
    )


def _device(machine: Machine, name: str, lacking: str, *, why: str) -> Finding:
    path = machine.at(name)
    try:
        found = path.stat()
    except OSError:
        return Finding(
            name, lacking, "no such device", f"enable SGX in the firmware and use Linux 6.0 or newer; {why}"
        )
    if os.access(path, os.R_OK | os.W_OK):
        return Finding(name, OK, "accessible")
    if found.st_mode & (stat.S_IRGRP | stat.S_IWGRP) == stat.S_IRGRP | stat.S_IWGRP and found.st_gid != 0:
        remedy = f'`sudo usermod -aG {_group(found.st_gid)} "$USER"`, then log in again; {why}'
    else:
        group = "sgx_prv" if name.endswith("provision") else "sgx"
        remedy = f"`sudo chgrp {group} {name} && sudo chmod 660 {name}`, and join that group; {why}"
    return Finding(name, lacking, "no access", remedy)


def _group(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)


def _enclave_memory(machine: Machine) -> Finding:
    """Read what Linux 5.17 and newer say for each node; the processor itself is asked with cpuid only."""
    total, nodes = 0, 0
    for path in machine.at("/sys/devices/system/node").glob("node*/x86/sgx_total_bytes"):
        text = machine.read("/" + str(path.relative_to(machine.root))).strip()
        if text.isdigit():
            total, nodes = total + int(text), nodes + 1
    if not nodes:
        return Finding(
            "enclave memory",
            MISSING,
            "unknown: this Linux does not say",
            "Linux 5.17 or newer says it; otherwise `sudo dmesg | grep -i 'sgx: EPC'`",
        )
    detail = size(total) + (f" on {nodes} nodes" if nodes > 1 else "")
    if total < _ENOUGH_EPC:
        return Finding(
            "enclave memory",
            MISSING,
            detail,
            "kernels run slowly in so little: set the SGX reserved memory (PRMRR) in the firmware higher",
        )
    return Finding("enclave memory", OK, detail)


def _aesm(machine: Machine, lacking: str) -> Finding:
    path = machine.at("/var/run/aesmd/aesm.socket")
    if path.is_socket():
        return Finding("AESM", OK, str(path))
    return Finding(
        "AESM",
        lacking,
        "no aesmd socket, so no quotes",
        "install sgx-aesm-service and libsgx-aesm-quote-ex-plugin from Intel's packages, then "
        "`sudo systemctl enable --now aesmd`",
    )


def map_count(machine: Machine) -> Finding:
    """Say how many mappings a process may have; a kernel in Gramine needs many when it starts a program.

    Never more than "missing": small kernels get along with Linux's default.
    """
    text = machine.read("/proc/sys/vm/max_map_count").strip()
    if not text.isdigit():
        return Finding("vm.max_map_count", MISSING, "unknown", "`sysctl vm.max_map_count` shows it")
    if int(text) > _LOW_MAP_COUNT:
        return Finding("vm.max_map_count", OK, text)
    command = f"sudo sysctl -w vm.max_map_count={_WANTED_MAP_COUNT}"
    keep = f"echo vm.max_map_count={_WANTED_MAP_COUNT} | sudo tee /etc/sysctl.d/90-sealbook.conf"
    return Finding(
        "vm.max_map_count",
        MISSING,
        f"{text}: a large kernel in Gramine cannot start programs",
        f"`{command}`, and `{keep}` to keep it",
    )
