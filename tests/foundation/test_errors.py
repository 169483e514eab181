"""What a person sees of an error."""

from __future__ import annotations

from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from traitlets.config import Config

from sealbook.errors import RefusedError, SealbookError


def test_in_a_notebook_an_error_is_its_sentence_and_the_line_of_the_cell():
    shell = InteractiveShell(config=Config({"HistoryManager": {"enabled": False}}))
    shell.push({"RefusedError": RefusedError})
    with capture_output() as shown:
        shell.run_cell("def deep():\n    raise RefusedError('The key is not released.')\n\nx = 1\ndeep()")
    assert shown.stdout.strip().splitlines() == [
        "RefusedError: The key is not released.",
        "(line 5 of the cell)",
    ]


def test_what_no_cell_raised_is_its_sentence_alone():
    assert SealbookError("No.")._render_traceback_() == ["SealbookError: No."]
