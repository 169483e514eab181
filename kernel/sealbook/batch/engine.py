"""The papermill engine ``sealbook``: no cell runs before the kernel's evidence was accepted."""

from __future__ import annotations

from typing import Any

from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine
from papermill.log import logger
from papermill.utils import merge_kwargs, remove_args

from sealbook.attestation import AttestationResult
from sealbook.errors import RefusedError

#: Where the executed notebook carries the attestation result.
METADATA = "sealbook"


class AttestedEngine(NBClientEngine):
    """Runs notebooks like papermill's own engine, in attested kernels only.

    The executed notebook's metadata has the attestation result under ``sealbook``. Whatever
    an earlier run left there is removed first, so that it never speaks for this one.
    """

    @classmethod
    def execute_managed_notebook(
        cls,
        nb_man: Any,
        kernel_name: str,
        log_output: bool = False,
        stdout_file: Any = None,
        stderr_file: Any = None,
        start_timeout: int = 60,
        execution_timeout: int | None = None,
        **kwargs: Any,
    ) -> Any:
        """Run the notebook; the arguments are those of ``papermill.engines.NBClientEngine``.

        Raises
        ------
        RefusedError
            The kernel is not attested or its evidence was refused. It was shut down; no cell was run.
        """
        nb_man.nb.metadata.pop(METADATA, None)
        passed_on = remove_args(["input_path", "timeout", "startup_timeout"], **kwargs)
        arguments = merge_kwargs(
            passed_on,
            timeout=execution_timeout or kwargs.get("timeout"),
            startup_timeout=start_timeout,
            kernel_name=kernel_name,
            log=logger,
            log_output=log_output,
            stdout_file=stdout_file,
            stderr_file=stderr_file,
        )
        return AttestedNotebookClient(nb_man, **arguments).execute()


class AttestedNotebookClient(PapermillNotebookClient):
    """papermill's notebook client with the check at the two doors that a cell has to pass."""

    # The name without async_: nbclient made the synchronous twin when it defined the class, so an
    # override of the asynchronous method would never be called, and nothing would be refused.
    def start_new_kernel_client(self, **kwargs: Any) -> Any:
        """Check the kernel before anything connects to it."""
        try:
            result = self._required_result()
        except BaseException:
            self._cleanup_kernel()
            raise
        self.nb.metadata[METADATA] = {"attestation": result.to_dict(), "summary": result.summary()}
        return super().start_new_kernel_client(**kwargs)

    def papermill_execute_cells(self) -> None:
        """Check again: cells also get here with a client that somebody else made."""
        self._required_result()
        super().papermill_execute_cells()

    def _required_result(self) -> AttestationResult:
        result = getattr(getattr(self.km, "provisioner", None), "attestation", None)
        if not isinstance(result, AttestationResult):
            raise RefusedError(
                f"The kernel '{self.kernel_name}' is not attested, so no cell was run; use an attested one "
                "with `-k sealbook-simulated`, or leave out `--engine sealbook`."
            )
        if not result.require().attested:
            raise RefusedError(
                f"The kernel '{self.kernel_name}' is not attested, because it runs in {result.tee}, so no "
                "cell was run; use an attested one with `-k sealbook-gramine-sgx`, or leave out "
                "`--engine sealbook`."
            )
        return result
