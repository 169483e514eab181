"""Puts the built JupyterLab extension into the wheel and the sdist; called by hatchling.

What is built lies in ``extension/build/labextension``, made by ``.ci/extension``. Without it there is no
wheel: one that shows nobody what their kernel is would look complete. An editable install does without:
``.ci/extension`` links the folder into the environment, so that what is built later is there too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

BUILT = "extension/build/labextension"
INSTALLED = "share/jupyter/labextensions/sealbook"
SERVER = "extension/jupyter_server_config.d/sealbook.json"


class ExtensionBuildHook(BuildHookInterface):
    """Adds the files that JupyterLab and jupyter_server look for."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add them; called before anything is packed.

        Raises
        ------
        SystemExit
            The extension is not built.
        """
        wheel = self.target_name == "wheel"
        if wheel:
            build_data["shared_data"][SERVER] = f"etc/jupyter/jupyter_server_config.d/{Path(SERVER).name}"
        if wheel and version == "editable":
            return
        if not (Path(self.root) / BUILT / "package.json").is_file():
            raise SystemExit(
                "The JupyterLab extension is not built: run `.ci/extension` in a checkout of sealbook, "
                "then build again."
            )
        if wheel:
            build_data["shared_data"][BUILT] = INSTALLED
            build_data["shared_data"]["extension/install.json"] = f"{INSTALLED}/install.json"
        else:
            build_data["force_include"][BUILT] = BUILT
