"""``%scale``: where a notebook's Spark code runs, and who runs it there."""

from __future__ import annotations

import html
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from IPython.core.magic import Magics, line_magic, magics_class
from IPython.display import display

from sealbook.errors import InputError, SealbookError
from sealbook.jupyter.magics.arguments import MagicParser, one_line_errors, printable
from sealbook.spark import present

if TYPE_CHECKING:
    from sealbook.broker.client import MemberNode
    from sealbook.spark.scale import Scale

SCALE = MagicParser(
    "%scale",
    "Show where Spark code of this notebook runs, and the evidence of every node there.\n"
    "`%scale local` lets it run in this kernel, `%scale cluster NAME` on a cluster.",
)
SCALE.add_argument("where", metavar="WHERE", nargs="?", choices=("local", "cluster"), help="local or cluster")
SCALE.add_argument("name", metavar="NAME", nargs="?", help="the cluster")


@magics_class
class ScaleMagics(Magics):
    """The magic of trusted Spark."""

    @line_magic
    @one_line_errors
    def scale(self, line: str) -> None:
        """Show or choose where code runs."""
        arguments = SCALE.read(line)
        if arguments is None:
            return
        driver = present.current()
        running = driver.pid
        if arguments.where == "local":
            if arguments.name is not None:
                raise InputError(
                    "`%scale local` takes no name; a cluster is chosen with `%scale cluster NAME`."
                )
            driver.switch(None)
        elif arguments.where == "cluster":
            driver.switch(arguments.name or "")
        if arguments.where is not None:
            present.refresh_names()
        display(ScaleView.of(driver, ended=running is not None and driver.pid != running))


@dataclass(frozen=True)
class ScaleView:
    """Where code runs, for a person."""

    scale: Scale
    cores: int
    nodes: tuple[MemberNode, ...]
    note: str

    @classmethod
    def of(cls, driver: Any, *, ended: bool = False) -> ScaleView:
        """Ask the driver, and the cluster's broker for its nodes; `ended`: a session ended just now."""
        from sealbook.spark.scale import local_cores

        note = ""
        nodes: list[MemberNode] = []
        if driver.scale.profile is not None:
            try:
                from sealbook.broker.client import SILENT_AFTER

                known = driver.nodes()
                nodes = [node for node in known if node.silent <= SILENT_AFTER]
                if not nodes:
                    note = "The cluster has no nodes."
                elif gone := len(known) - len(nodes):
                    note = f"{gone} more, whose certificates are still valid, said nothing for a minute."
            except SealbookError as error:
                note = str(error)
        return cls(driver.scale, local_cores(), tuple(nodes), note or (_ENDED if ended else ""))

    def head(self) -> str:
        """Return one sentence."""
        profile = self.scale.profile
        if profile is None:
            return f"Spark runs in this kernel, on {self.cores} core{'' if self.cores == 1 else 's'}."
        return f"Spark runs on the cluster '{profile.name}' ({profile.master})."

    def rows(self) -> list[tuple[str, ...]]:
        """Return one row for each node."""
        return [
            (
                node.role.removeprefix("spark-"),
                ", ".join(node.hosts) or "-",
                _LABELS.get(node.label, node.label) or "-",
                node.measurement[:_SHOWN] or "-",
                _time(node.expires),
            )
            for node in self.nodes
        ]

    def __repr__(self) -> str:
        lines = [self.head(), *([self.note] if self.note else [])]
        if self.nodes:
            table = [_HEADER, *([printable(value) for value in row] for row in self.rows())]
            widths = [max(map(len, column)) for column in zip(*table, strict=True)]
            lines += ["  ".join(map(str.ljust, row, widths)).rstrip() for row in table]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        page = f'<p class="sealbook-scale">{html.escape(self.head())}</p>'
        if self.note:
            page += f"<p>{html.escape(self.note)}</p>"
        if self.nodes:
            head = "".join(f"<th>{name}</th>" for name in _HEADER)
            body = "".join(f"<tr>{''.join(_cell(value) for value in row)}</tr>" for row in self.rows())
            page += f"<table><tr>{head}</tr>{body}</table>"
        return page


#: What a person must know who changed the place in the middle of a notebook.
_ENDED = (
    "The Spark session before has ended, and with it its DataFrames, temporary views and cached tables: run "
    "the cells that make them again."
)

#: Digits of a measurement that tell it from others.
_SHOWN = 16

_HEADER = ("Node", "Address", "Evidence", "Measurement", "Certificate until")

#: AttestationResult.label -> how a person reads it.
_LABELS = {
    "attested": "attested",
    "simulated": "simulated: no hardware protects it",
    "not attested": "not attested",
}


def _cell(value: str) -> str:
    return f'<td style="text-align:left;white-space:nowrap">{html.escape(value)}</td>'


def _time(when: datetime) -> str:
    return when.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
