"""What `sealbook doctor` says of Gramine, and of the kernels that run in it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sealbook.cli.findings import MISSING, OK, TODO, Finding, Machine
from sealbook.errors import SealbookError

#: Older ones do not know what the images' manifests say.
_OLDEST = (1, 9)
_GET_IT = "install Gramine 1.9 or newer from its own packages: https://gramine.readthedocs.io"
_LAUNCHER = "sealbook.jupyter.gramine_launcher"


@dataclass(frozen=True)
class GramineKernel:
    """A kernelspec that starts a kernel in Gramine.

    Attributes
    ----------
    image
        The directory that it runs; None where it names none.
    """

    name: str
    sgx: bool
    image: Path | None

    @property
    def tee(self) -> str:
        """What `--tee` calls it; also the program that runs it."""
        return "gramine-sgx" if self.sgx else "gramine-direct"


def kernels(machine: Machine) -> list[GramineKernel]:
    """Return the kernels in Gramine that Jupyter offers here."""
    from jupyter_client.kernelspec import KernelSpecManager

    manager = KernelSpecManager()
    if machine.kernel_dirs is not None:
        manager.kernel_dirs = list(machine.kernel_dirs)
    found = []
    for name in sorted(manager.find_kernel_specs()):
        try:
            spec = manager.get_kernel_spec(name)
        except Exception:  # noqa: S112 - somebody else's damaged kernelspec; ours is looked at by its name
            continue
        if _LAUNCHER in spec.argv:
            found.append(GramineKernel(name, _is_sgx(spec.argv), _image(spec.argv)))
    return found


def examine(machine: Machine, installed: list[GramineKernel]) -> Iterator[Finding]:
    """Look at Gramine's programs and at each installed kernel.

    Parameters
    ----------
    installed
        The kernels of :func:`kernels`; what they need must be done, what they do not is only missing.
    """
    for program, needed in (
        ("gramine-direct", any(not kernel.sgx for kernel in installed)),
        ("gramine-sgx", any(kernel.sgx for kernel in installed)),
    ):
        yield _runner(machine, program, TODO if needed else MISSING)
    for program in ("gramine-manifest", "gramine-sgx-sign"):
        if machine.program(program) is None:
            yield Finding(
                program, MISSING, "not on PATH", f"`sealbook image build` needs it, kernels do not; {_GET_IT}"
            )
        else:
            yield Finding(program, OK, str(machine.program(program)))
    if not installed:
        yield Finding(
            "Gramine kernels",
            MISSING,
            "none installed",
            "`sealbook image build`, then `sealbook install --tee gramine-sgx` or `--tee gramine-direct`",
        )
    for kernel in installed:
        yield _kernel(machine, kernel)


def _runner(machine: Machine, program: str, lacking: str) -> Finding:
    where = machine.program(program)
    if where is None:
        return Finding(program, lacking, "not on PATH", f"{_GET_IT}; simulated kernels do not need it")
    line = machine.first_line([where, "--version"])
    version = _version(line)
    if version is None:
        return Finding(program, lacking, f"{where} does not say which version it is", _GET_IT)
    if version < _OLDEST:
        return Finding(program, lacking, f"{line} is too old", _GET_IT)
    return Finding(program, OK, line)


def _version(line: str) -> tuple[int, int] | None:
    found = re.search(r"Gramine (\d+)\.(\d+)", line)
    return (int(found[1]), int(found[2])) if found else None


def _kernel(machine: Machine, kernel: GramineKernel) -> Finding:
    subject = f"kernel {kernel.name}"
    again = f"`sealbook image build --force`, then `sealbook install --tee {kernel.tee}`"
    if kernel.image is None:
        return Finding(subject, TODO, "its kernelspec names no image", again)
    if not kernel.image.is_dir():
        return Finding(subject, TODO, f"its image {kernel.image} is not there", again)
    from sealbook.image import Image

    try:
        image = Image.open(kernel.image)
        problems = image.problems(kernel.tee)
    except SealbookError as error:
        return Finding(subject, TODO, str(error), again)
    where = machine.program(kernel.tee)
    version = _version(machine.first_line([where, "--version"])) if where else None
    here = ".".join(map(str, version)) if version else None
    # Without Gramine there is nothing to compare with, and a line of its own.
    if here is not None and here != image.facts.gramine:
        problems.append(f"It was built with Gramine {image.facts.gramine}, and this is {here}.")
    if problems:
        return Finding(subject, TODO, f"{kernel.image}: {' '.join(problems)[:600]}", again)
    return Finding(subject, OK, f"{kernel.image}, {'for SGX' if kernel.sgx else 'not attested'}")


def _is_sgx(argv: list[str]) -> bool:
    return _option(argv, "--tee") != "gramine-direct"


def _image(argv: list[str]) -> Path | None:
    value = _option(argv, "--image")
    return Path(value) if value else None


def _option(argv: list[str], name: str) -> str | None:
    for place, word in enumerate(argv):
        if word.startswith(f"{name}="):
            return word.removeprefix(f"{name}=")
        if word == name and place + 1 < len(argv):
            return argv[place + 1]
    return None
