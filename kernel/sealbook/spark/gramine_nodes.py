"""What nodes in Gramine are started from: an image, looked at before anything is started."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sealbook.errors import InputError
from sealbook.image import Image
from sealbook.image.roles import SPARK_WORKER
from sealbook.spark import gramine_launcher
from sealbook.spark.gramine_owner import check_owner
from sealbook.spark.profiles import Profile


@dataclass(frozen=True)
class GramineNodes:
    """How nodes of a cluster run in Gramine.

    Attributes
    ----------
    tee
        ``gramine-sgx``, or ``gramine-direct``, where nothing is attested.
    tables
        The directory of the host with the sealed tables, which the image shows at its own place.
    """

    image: Image
    tee: str
    tables: Path

    @classmethod
    def open(cls, image: Path, tee: str, tables: Path | None) -> GramineNodes:
        """Look at an image and the directory of tables.

        Parameters
        ----------
        tables
            None for the place that the image itself names.

        Raises
        ------
        InputError, RefusedError, MissingDependencyError
            It is no image of nodes, cannot run here, or the directory is missing.
        """
        if tee not in ("gramine-sgx", "gramine-direct"):
            raise InputError(f"'{tee}' is not a tee of nodes: say gramine-sgx, or gramine-direct to develop.")
        opened = Image.open(image.absolute())
        if opened.facts.role != SPARK_WORKER.name:
            raise InputError(
                f"The image {opened.path} is one of kernels and runs no node: build one with "
                f"`sealbook image build --role {SPARK_WORKER.name}`."
            )
        opened.check_runnable(tee)
        opened.check_safe(tee)
        place = (tables or Path(opened.facts.tables or "/")).absolute()
        if not place.is_dir():
            raise InputError(
                f"There is no directory {place} for the sealed tables: make it, or name another with "
                "--tables."
            )
        return cls(opened, tee, place)

    def check_profile(self, profile: Profile) -> None:
        """Refuse a cluster that nodes of this image would refuse to join.

        Raises
        ------
        RefusedError
            It is another broker's.
        """
        owner = self.image.facts.owner
        check_owner(profile, bytes.fromhex(owner) if owner else None)

    def command(self, plan: Path) -> list[str]:
        """Return what starts a node, behind the interpreter and its flags."""
        return gramine_launcher.command(self.tee, self.image.path, self.tables, plan)
