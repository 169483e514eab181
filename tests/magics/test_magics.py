"""The magics in a real IPython shell, with keys of a real broker."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from traitlets.config import Config

import sealbook
from sealbook import sealing, session
from sealbook.attestation import AttestationResult, Refusal
from sealbook.broker import Keyring
from sealbook.errors import SealbookError
from sealbook.jupyter.magics.completion import offers
from sealbook.jupyter.magics.display import AttestationView, KeysView
from sealbook.session import KeyEntry


@dataclasses.dataclass
class Cell:
    """What running a cell showed."""

    ok: bool
    error: BaseException | None
    value: Any
    stdout: str
    stderr: str
    displayed: list[Any]


@pytest.fixture(scope="module")
def one_shell() -> Iterator[InteractiveShell]:
    config = Config()
    config.HistoryManager.enabled = False
    shell = InteractiveShell.instance(config=config, colors="nocolor")
    shell.extension_manager.load_extension("sealbook")
    yield shell
    InteractiveShell.clear_instance()


@pytest.fixture
def shell(one_shell: InteractiveShell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> InteractiveShell:
    monkeypatch.chdir(tmp_path)
    one_shell.reset(new_session=False)
    return one_shell


def run(shell: InteractiveShell, code: str) -> Cell:
    with capture_output() as captured:
        result = shell.run_cell(code, silent=False, store_history=False)
    return Cell(
        result.success,
        result.error_in_exec or result.error_before_exec,
        result.result,
        captured.stdout,
        captured.stderr,
        captured.outputs,
    )


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def refused(cell: Cell) -> str:
    """Check that a cell failed with one plain line, and return it."""
    assert not cell.ok
    assert isinstance(cell.error, SealbookError)
    shown = plain(cell.stdout).strip()
    assert shown.splitlines() == [str(cell.error)]
    assert "Traceback" not in cell.stdout + cell.stderr
    return shown


def refusal_of(accepted: AttestationResult, refusal: Refusal, **changes: Any) -> AttestationResult:
    """Return the result as it is when the verifier refused."""
    return dataclasses.replace(accepted, accepted=False, identity="", refusals=(refusal,), **changes)


# -- attested -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("brokered")
def test_attest_shows_the_result_of_the_verifier_and_says_simulated(shell: InteractiveShell) -> None:
    cell = run(shell, "%attest")
    assert cell.ok
    (shown,) = cell.displayed
    for text in (shown.data["text/html"], shown.data["text/plain"]):
        assert "simulated" in text.lower()
        assert "05" * 32 in text
    assert "no hardware protects it" in shown.data["text/html"]
    assert not re.search(r"<script|on\w+=|javascript:", shown.data["text/html"])


@pytest.mark.usefixtures("brokered")
def test_attest_fresh_makes_new_evidence(shell: InteractiveShell) -> None:
    before = session.current().result
    assert run(shell, "%attest").ok
    assert session.current().result is before
    assert run(shell, "%attest --fresh").ok
    after = session.current().result
    assert before is not None
    assert after is not None
    assert after.evidence_id != before.evidence_id


def test_attest_fresh_fails_when_the_evidence_is_refused(
    shell: InteractiveShell, brokered: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(brokered.remote, "_evidence", lambda nonce: b"no quote")
    refused(run(shell, "%attest --fresh"))


def test_attest_fails_the_cell_when_the_result_is_a_refusal(
    shell: InteractiveShell, brokered: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    accepted = session.current().result
    assert accepted is not None
    result = refusal_of(accepted, Refusal("identity", "It is another program.", "Start the right one."))
    monkeypatch.setattr(session.current(), "_result", result)
    cell = run(shell, "%attest")
    assert not cell.ok
    assert "another program" in str(cell.error)
    assert "Refused" in cell.displayed[0].data["text/html"]


@pytest.mark.usefixtures("brokered")
def test_seal_and_unseal_give_the_same_variable_back(shell: InteractiveShell) -> None:
    frame = pd.DataFrame({"a": [1, 2]})
    shell.user_ns["frame"] = frame
    cell = run(shell, "%seal frame frame.sealed --context study=7 --context site=ulm")
    assert cell.ok, cell
    assert "simulated" in cell.displayed[0].data["text/plain"]
    assert "simulated" in cell.displayed[0].data["text/html"]
    assert cell.stderr == ""
    assert run(shell, "back = %unseal frame.sealed -c study=7 -c site=ulm").ok
    pd.testing.assert_frame_equal(shell.user_ns["back"], frame)
    assert run(shell, "%unseal frame.sealed").value.equals(frame)


@pytest.mark.usefixtures("brokered")
def test_unseal_is_an_expression_in_a_loop_and_takes_variables(shell: InteractiveShell) -> None:
    cell = run(
        shell,
        "for n in range(3):\n    %seal n n{n}.sealed\n"
        "total = 0\nfor n in range(3):\n    x = %unseal n{n}.sealed\n    total += x\ntotal",
    )
    assert cell.ok, cell
    assert cell.value == 3


@pytest.mark.usefixtures("brokered")
def test_paths_with_spaces_are_quoted_as_in_a_shell(shell: InteractiveShell, tmp_path: Path) -> None:
    shell.user_ns["x"] = "text"
    assert run(shell, "%seal x 'a b.sealed'").ok
    assert (tmp_path / "a b.sealed").exists()
    assert run(shell, '%unseal "a b.sealed"').value == "text"


@pytest.mark.usefixtures("brokered")
def test_the_text_of_a_cell_is_sealed_and_not_run(shell: InteractiveShell) -> None:
    cell = run(shell, "%%seal note.sealed --context kind=note\nmade = True\nüber")
    assert cell.ok, cell
    assert "made" not in shell.user_ns
    assert run(shell, "%unseal note.sealed").value == "made = True\nüber\n"


def test_a_named_key_seals(shell: InteractiveShell, brokered: Any, tmp_path: Path) -> None:
    brokered.keyring.create("team/data", guard="kernel")
    shell.user_ns["x"] = np.arange(3)
    assert run(shell, "%seal x x.sealed --key team/data").ok
    assert sealing.inspect(tmp_path / "x.sealed").keys == (("team/data", 1),)


def test_a_default_key_can_be_chosen(shell: InteractiveShell, brokered: Any, tmp_path: Path) -> None:
    brokered.keyring.create("team/data", guard="kernel")
    shell.user_ns["x"] = 1
    cell = run(shell, "%keys --default team/data")
    assert cell.ok
    assert "default" in cell.displayed[0].data["text/plain"]
    assert run(shell, "%seal x x.sealed").ok
    assert sealing.inspect(tmp_path / "x.sealed").keys == (("team/data", 1),)


def test_keys_lists_names_and_guards_and_no_secret(shell: InteractiveShell, brokered: Any) -> None:
    brokered.keyring.create("team/data", guard="kernel", description="x")
    secret = brokered.keyring.key("team/data").secret
    (shown,) = run(shell, "%keys").displayed
    for text in (shown.data["text/html"], shown.data["text/plain"]):
        assert "team/data" in text
        assert "policy kernel" in text
        assert "session/default" in text
        assert "simulated" in text.lower()
        assert secret.hex() not in text


@pytest.mark.usefixtures("brokered")
def test_unseal_to_a_path_writes_there(shell: InteractiveShell, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("x")
    assert run(shell, "import pathlib; p = pathlib.Path('in.txt')\n%seal p f.sealed").ok
    assert run(shell, "%unseal f.sealed --to out.txt").ok
    assert (tmp_path / "out.txt").read_text() == "x"


@pytest.mark.usefixtures("brokered")
def test_unseal_insists_on_a_key(shell: InteractiveShell, tmp_path: Path) -> None:
    shell.user_ns["x"] = "text"
    assert run(shell, "%seal x x.sealed -k session/a").ok
    assert run(shell, "%unseal x.sealed --key session/a").value == "text"
    refused(run(shell, "%unseal x.sealed -k session/b"))
    refused(run(shell, "%unseal x.sealed -k session/b --to out"))
    assert not (tmp_path / "out").exists()
    assert "not a key name" in refused(run(shell, "%unseal x.sealed --key 'Bad Name'"))
    assert "session/a" in complete(shell, "%unseal x.sealed --key session/")


# -- bad input ----------------------------------------------------------------------------------


BAD = {
    "%seal": "required: NAME, PATH",
    "%seal frame": "required: PATH",
    "%seal nowhere x.sealed": "no variable 'nowhere'",
    "%seal fram x.sealed": "did you mean 'frame'?",
    "%seal frame x.sealed extra": "Unrecognized arguments: extra",
    "%seal frame x.sealed --ke open": "Unrecognized arguments",
    "%seal frame x.sealed --key 'Bad Name'": "not a key name",
    "%seal frame x.sealed --key nobody": "nobody",
    "%seal frame x.sealed --context study": "write --context NAME=VALUE",
    "%seal frame x.sealed --context =7": "write --context NAME=VALUE",
    "%seal frame x.sealed -c a=1 -c a=2": "given twice",
    "%seal frame 'x.sealed": "quotation mark",
    "%seal frame no/such/place": "no directory for no/such/place",
    "%seal thing x.sealed": "never pickles",
    "%%seal\ntext": "required: PATH",
    "%unseal": "required: PATH",
    "%unseal missing.sealed": "missing.sealed",
    "x = %unseal missing.sealed": "missing.sealed",
    "%unseal plain.txt": "not a file sealed",
    "%unseal missing.sealed --key": "expected one argument",
    "%keys extra": "Unrecognized arguments: extra",
    "%keys --default": "expected one argument",
    "%keys --default ../x": "not a key name",
    "%attest now": "Unrecognized arguments: now",
}


@pytest.mark.usefixtures("brokered")
@pytest.mark.parametrize("line", BAD)
def test_bad_input_fails_the_cell_with_one_line(line: str, shell: InteractiveShell, tmp_path: Path) -> None:
    shell.user_ns.update(frame=pd.DataFrame({"a": [1]}), thing=object())
    (tmp_path / "plain.txt").write_text("plain " * 2000)
    assert BAD[line] in refused(run(shell, line))
    assert [path.name for path in tmp_path.iterdir()] == ["plain.txt"]


@pytest.mark.usefixtures("brokered")
def test_tampering_and_a_wrong_context_fail_the_cell_with_one_line(
    shell: InteractiveShell, tmp_path: Path
) -> None:
    shell.user_ns["x"] = "text"
    assert run(shell, "%seal x x.sealed -c a=1").ok
    first = refused(run(shell, "%unseal x.sealed -c a=2"))
    content = bytearray((tmp_path / "x.sealed").read_bytes())
    content[-1] ^= 1
    (tmp_path / "x.sealed").write_bytes(content)
    assert refused(run(shell, "y = %unseal x.sealed")) == first
    assert "y" not in shell.user_ns


@pytest.mark.usefixtures("brokered")
def test_a_refusal_can_be_caught_by_its_class(shell: InteractiveShell) -> None:
    cell = run(
        shell,
        "from sealbook.errors import InputError\n"
        "try:\n    x = %unseal missing\nexcept InputError:\n    x = 'caught'\nx",
    )
    assert cell.value == "caught"


@pytest.mark.usefixtures("brokered")
def test_control_characters_in_an_error_are_not_sent_to_the_terminal(shell: InteractiveShell) -> None:
    cell = run(shell, "get_ipython().run_line_magic('unseal', '\"a\\x1b[2Jb\\nAttested\"')")
    assert not cell.ok
    assert "\x1b[2J" not in cell.stdout
    assert len(cell.stdout.strip().splitlines()) == 1


# -- help and completion ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("%attest --help", ["usage: %attest", "--fresh"]),
        ("%seal --help", ["usage: %seal", "NAME PATH", "--key", "--context"]),
        ("%seal -h", ["usage: %seal"]),
        ("%%seal --help\nx", ["usage: %%seal", "PATH"]),
        ("%unseal --help", ["usage: %unseal", "--to", "--key", "insist"]),
        ("%keys --help", ["usage: %keys", "--default"]),
    ],
)
@pytest.mark.usefixtures("brokered")
def test_help_is_printed_and_nothing_happens(line: str, words: list[str], shell: InteractiveShell) -> None:
    cell = run(shell, line)
    assert cell.ok
    assert all(word in cell.stdout for word in words)
    assert cell.displayed == []


@pytest.mark.parametrize("name", ["attest", "seal", "unseal", "keys"])
def test_the_question_mark_shows_the_same_help(name: str, shell: InteractiveShell) -> None:
    assert f"usage: %{name}" in shell.find_magic(name).__doc__


def complete(shell: InteractiveShell, line: str) -> list[str]:
    return shell.complete(text="", line=line, cursor_pos=len(line))[1]


@pytest.mark.usefixtures("brokered")
def test_the_tab_key_offers_variables_paths_options_and_keys(shell: InteractiveShell, tmp_path: Path) -> None:
    shell.user_ns.update(patients=1, other=2)
    (tmp_path / "patients.sealed").touch()
    (tmp_path / "sub").mkdir()
    session.current().keys.current("session/default")
    assert complete(shell, "%seal pat") == ["patients"]
    assert complete(shell, "%seal patients pat") == ["patients.sealed"]
    assert "sub/" in complete(shell, "%unseal s")
    assert "patients.sealed" in complete(shell, "df = %unseal pat")
    assert "patients.sealed" in complete(shell, "    %unseal pat")
    assert complete(shell, "%seal patients x --k") == ["--key"]
    assert complete(shell, "%seal patients x --key ses") == ["session/default"]
    assert complete(shell, "%keys --default ses") == ["session/default"]
    assert complete(shell, "%attest --f") == ["--fresh"]


@pytest.mark.usefixtures("brokered")
def test_completion_knows_where_in_the_line_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "f.sealed").touch()
    (tmp_path / "with space").touch()
    names = {"frame": 1, "_hidden": 1, "function": print, "module": re}
    assert offers("%seal ", "", names) == ["frame"]
    assert offers("%seal frame ", "", names) == ["f.sealed"]
    assert offers("%seal --key k frame ", "", names) == ["f.sealed"]
    assert offers("%seal frame f.sealed ", "", names) == []
    assert offers("%%seal ", "", names) == ["f.sealed"]
    assert offers("%unseal f.sealed --to ", "", names) == ["f.sealed"]
    assert offers("%unseal --context ", "", names) == []
    assert offers("%unseal no/such/", "no/such/", names) == []
    assert offers("print(1)", "", names) == []
    assert offers("%%unseal ", "", names) == []


def test_completion_of_keys_raises_nothing_while_somebody_types(
    keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert offers("%seal x y --key ", "", {}) == ["open"]

    def locked() -> Any:
        raise SealbookError("The keyring is locked.")

    monkeypatch.setattr(session, "_current", session.UnattestedSession(locked))
    assert offers("%seal x y --key ", "", {}) == []


# -- not attested -------------------------------------------------------------------------------


@pytest.mark.usefixtures("keyring")
def test_attest_fails_the_cell_in_an_unattested_kernel(shell: InteractiveShell) -> None:
    for line in ("%attest", "%attest --fresh"):
        cell = run(shell, line)
        assert "not attested" in refused(cell)
        assert cell.displayed == []


@pytest.mark.usefixtures("keyring")
def test_every_magic_says_that_the_kernel_is_not_attested(shell: InteractiveShell) -> None:
    shell.user_ns["x"] = "text"
    for line in ("%seal x x.sealed -k open", "%unseal x.sealed", "%keys", "%%seal y.sealed -k open\ntext"):
        cell = run(shell, line)
        assert cell.ok, cell
        assert "not attested" in cell.stderr


@pytest.mark.usefixtures("keyring")
@pytest.mark.parametrize("option", ["", "-k guarded", "-k session/other"])
def test_keys_that_demand_attestation_are_refused_in_an_unattested_kernel(
    option: str, shell: InteractiveShell, tmp_path: Path
) -> None:
    shell.user_ns["x"] = "text"
    assert "not attested" in refused(run(shell, f"%seal x x.sealed {option}"))
    assert list(tmp_path.iterdir()) == []


def test_a_file_sealed_to_a_guarded_key_stays_closed_in_an_unattested_kernel(
    shell: InteractiveShell, keyring: Keyring, tmp_path: Path
) -> None:
    sealing.write_bytes(
        tmp_path / "x.sealed", b"secret", key="guarded", keys=sealing.InMemoryKeys(keyring.key("guarded"))
    )
    assert "demands attestation" in refused(run(shell, "y = %unseal x.sealed"))
    assert "y" not in shell.user_ns


@pytest.mark.usefixtures("keyring")
def test_keys_says_which_ones_are_for_attested_kernels_only(shell: InteractiveShell) -> None:
    (shown,) = run(shell, "%keys").displayed
    for text in (shown.data["text/html"], shown.data["text/plain"]):
        assert "Not attested" in text
        assert "only in an attested kernel" in text


# -- how it looks -------------------------------------------------------------------------------


@pytest.mark.usefixtures("brokered")
def test_every_value_of_an_attestation_is_escaped() -> None:
    accepted = session.current().result
    assert accepted is not None
    evil = "<img src=x onerror=alert(1)>"
    hostile = {"policy_id": evil, "tcb_status": evil, "advisories": (evil,)}
    admitted = dataclasses.replace(accepted, identity=evil, **hostile)
    result = refusal_of(accepted, Refusal(evil, evil, evil), **hostile)
    for shown in (AttestationView(admitted), AttestationView(result)):
        assert "<img" not in shown._repr_html_()
        assert "&lt;img" in shown._repr_html_()
    assert "\x1b" not in repr(AttestationView(dataclasses.replace(accepted, policy_id="a\x1b[2J")))


def test_every_value_of_a_list_of_keys_is_escaped() -> None:
    evil = "<img src=x>"
    page = KeysView((KeyEntry(evil, evil, True),), "attested", evil)._repr_html_()
    assert "<img" not in page
    assert page.count("&lt;img") == 3


@pytest.mark.usefixtures("brokered")
def test_the_package_gives_the_extension_to_load_ext() -> None:
    assert sealbook.load_ipython_extension.__module__ == "sealbook.jupyter.magics"


# -- a broker, but no evidence (Gramine without SGX) -------------------------------------------


@pytest.mark.usefixtures("unattested")
def test_attest_shows_that_nothing_is_proven_and_lets_the_notebook_go_on(shell: InteractiveShell) -> None:
    for line in ("%attest", "%attest --fresh"):
        cell = run(shell, line)
        assert cell.ok, cell
        shown = cell.displayed[-1]  # the panel of the cell before is updated too
        for text in (shown.data["text/html"], shown.data["text/plain"]):
            assert "not attested" in text.lower()
            assert "gramine-direct" in text
            assert "nothing was measured" in text
            assert not re.search(r"simulated|genuine|intel", text.lower())
        assert 'data-state="not attested"' in shown.data["text/html"]


@pytest.mark.usefixtures("unattested")
def test_sealing_without_evidence_works_and_warns_each_time(shell: InteractiveShell) -> None:
    shell.user_ns["value"] = [1, 2]
    for line in ("%seal value v.sealed", "back = %unseal v.sealed", "%keys"):
        cell = run(shell, line)
        assert cell.ok, cell
        assert "not attested: its host can read" in cell.stderr
        assert "Only keys whose policy accepts that are available" in cell.stderr
    assert shell.user_ns["back"] == [1, 2]
    assert "Not attested" in cell.displayed[0].data["text/plain"]


def test_a_refusal_under_a_policy_for_such_kernels_is_shown_with_its_reason(
    shell: InteractiveShell, unattested: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    accepted = session.current().result
    assert accepted is not None
    result = refusal_of(
        accepted, Refusal("policy", "It has expired.", "Write another."), status="contraindicated"
    )
    monkeypatch.setattr(session.current(), "_result", result)
    cell = run(shell, "%attest")
    assert not cell.ok
    assert "It has expired" in str(cell.error)
    assert "Refused by policy" in cell.displayed[0].data["text/html"]
