"""The side panel against what the server verified, and with nothing but a keyboard or a screen reader."""

# ruff: noqa: E501 - scripts of pages

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import wait_until
from jupyter_server_process import JupyterServer
from pages import PANEL, REFUSING, Notebook, screenshot, violations
from playwright.sync_api import Page, expect
from profile_of_a_test import authority
from shown import state_line

from sealbook.attestation import Policy
from sealbook.attestation.evidence_file import EvidenceFile
from sealbook.jupyter.kernelspec import SIMULATED
from sealbook.spark import profiles
from sealbook.spark.profiles import Profile

pytestmark = pytest.mark.xdist_group("browser")

Open = Callable[..., Notebook]


def facts_of(page: Page, section: str) -> dict[str, str]:
    """The names and values of one section, as a person reads them."""
    return dict(
        page.evaluate(
            """section => Object.fromEntries(
                [...document.querySelectorAll(`#sealbook-panel [data-section=${section}] dl > div`)]
                    .map(div => [div.querySelector('dt').textContent, div.querySelector('dd').textContent.trim()]))""",
            section,
        )
    )


def server_facts(lab: JupyterServer, notebook: Notebook) -> dict[str, Any]:
    return dict(lab.get(f"sealbook/api/kernels/{notebook.kernel}/attestation"))


def test_the_panel_shows_the_verified_result_and_nothing_else(
    panel: Notebook, page: Page, lab: JupyterServer, policy_file: Path
) -> None:
    found = server_facts(lab, panel)
    identity, policy = found["identity"], Policy.load(policy_file)
    shown = facts_of(page, "identity")
    assert shown["MRENCLAVE"] == identity["mrenclave"] == policy.identities[0].mrenclave[0].hex()
    assert shown["MRSIGNER"] == identity["mrsigner"]
    assert shown["Product id"] == str(identity["isv_prod_id"])
    assert shown["Security version (SVN)"] == str(identity["isv_svn"])
    assert shown["Admitted by"] == identity["entry"]
    assert shown["Digest of the policy"] == identity["policy_digest"] == policy.digest
    assert shown["Fingerprint of the root"] == identity["root_fingerprint"]
    platform = facts_of(page, "platform")
    assert platform["TCB status"] == found["platform"]["tcb_status"]
    expect(page.locator(f"{PANEL} [data-section=platform]")).to_contain_text(found["platform"]["meaning"])
    channel = facts_of(page, "channel")
    assert channel["REPORTDATA"] == found["channel"]["report_data"]
    claims = {c["name"]: c["value"] or "(none)" for c in found["channel"]["claims"]}
    assert claims.items() <= channel.items()
    assert page.locator(PANEL).bounding_box()["width"] >= 320


def test_the_chain_is_drawn_link_by_link_with_every_check(
    panel: Notebook, page: Page, lab: JupyterServer
) -> None:
    chain = server_facts(lab, panel)["chain"]
    assert chain
    drawn = page.evaluate(
        """() => [...document.querySelectorAll('#sealbook-panel .sealbook-Link')].map(link => ({
            name: link.querySelector('summary b').textContent,
            checks: [...link.querySelectorAll('.sealbook-Checks li')].map(li => [li.dataset.check, li.dataset.verdict])}))"""
    )
    words = {True: "passed", False: "failed", None: "open"}
    expected = {link["name"]: [[c["name"], words[c["passed"]]] for c in link["checks"]] for link in chain}
    assert {link["name"]: link["checks"] for link in drawn} == expected
    assert len(drawn) == len(chain)
    # The links up to the root in their order; what joins from the side below the link that it judges.
    names = [link["name"] for link in drawn]
    main = [link["name"] for link in chain if not link["side"]]
    assert [name for name in names if name in main] == main
    above = {name: [m for m in names[: names.index(name)] if m in main][-1] for name in names[1:]}
    judged = {"Policy": "Quote", "QE identity": "Quoting enclave", "TCB info": "PCK certificate"}
    assert {name: above[name] for name in judged} == judged


def test_the_chain_of_real_hardware_leads_to_intel(
    open_notebook: Open, page: Page, lab: JupyterServer
) -> None:
    notebook = open_notebook(name="study")
    notebook.command("application:toggle-left-area")
    notebook.verdict("intel")
    notebook.look_again()
    notebook.expect("Attested")
    notebook.command("sealbook:open-panel")
    expect(page.locator(f"{PANEL} [data-section=platform]")).to_contain_text("INTEL-SA-00615")
    for advisory in server_facts(lab, notebook)["platform"]["advisories"]:
        expect(page.locator(f"{PANEL} [data-section=platform]")).to_contain_text(advisory["meaning"])
    assert facts_of(page, "identity")["Root of trust"] == "intel"
    page.locator(f"{PANEL} .sealbook-Link").filter(has_text="TCB info").locator("summary").first.click()
    screenshot(page, "chain", within=f"{PANEL} [data-section=chain]")


def test_what_is_copied_exported_and_attested_again_is_the_servers(
    panel: Notebook, page: Page, lab: JupyterServer, tmp_path: Path
) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    found = server_facts(lab, panel)
    for name, fact in (
        ("MRENCLAVE", "mrenclave"),
        ("MRSIGNER", "mrsigner"),
        ("Product id", "isv_prod_id"),
        ("Security version (SVN)", "isv_svn"),
        ("Digest of the policy", "policy_digest"),
        ("Fingerprint of the root", "root_fingerprint"),
    ):
        page.get_by_role("button", name=f"Copy {name}", exact=True).click()
        expected = str(found["identity"][fact])
        assert wait_until(lambda said=expected: page.evaluate("navigator.clipboard.readText()") == said), name

    page.get_by_role("button", name="Copy as policy").click()
    assert wait_until(
        lambda: found["identity"]["mrenclave"] in page.evaluate("navigator.clipboard.readText()")
    )
    copied = Policy.parse(page.evaluate("navigator.clipboard.readText()"))
    assert copied.identities[0].mrenclave[0].hex() == found["identity"]["mrenclave"]

    with page.expect_download() as download:
        page.get_by_role("button", name="Export evidence").click()
    exported = tmp_path / download.value.suggested_filename
    download.value.save_as(exported)
    evidence = EvidenceFile.from_json(exported.read_bytes())
    assert evidence.result.mrenclave == found["identity"]["mrenclave"]
    assert evidence.report_data.hex() == found["channel"]["report_data"]

    before = found["trust"]["evidence"]
    page.get_by_role("button", name="Attest again now").click()
    assert wait_until(lambda: lab.trust(panel.kernel)["evidence"] != before)
    panel.expect("Simulated")
    after = server_facts(lab, panel)["channel"]["report_data"]
    assert wait_until(lambda: facts_of(page, "channel").get("REPORTDATA") == after)


def test_attesting_again_keeps_what_was_opened_and_the_place_on_the_page(panel: Notebook, page: Page) -> None:
    quote = page.locator(f"{PANEL} .sealbook-Link").first
    quote.locator("summary").click()
    content = page.locator(f"{PANEL} .sealbook-Content")
    scrolled = "node => { let at = node; while (at && at.scrollTop === 0) at = at.parentElement; return at ? at.scrollTop : 0; }"
    page.locator(f"{PANEL} [data-section=audit]").evaluate("node => node.scrollIntoView()")
    before = content.evaluate(scrolled)
    assert before > 200
    report_data = facts_of(page, "channel")["REPORTDATA"]
    # As the keyboard does it, which does not scroll.
    page.get_by_role("button", name="Attest again now").evaluate("button => button.click()")
    assert wait_until(lambda: facts_of(page, "channel").get("REPORTDATA") not in ("", report_data))
    panel.expect("Simulated")
    assert quote.locator("details").get_attribute("open") is not None
    assert content.evaluate(scrolled) == before


def test_keys_artifacts_and_audit_entries_appear_as_they_come(panel: Notebook, page: Page) -> None:
    expect(page.locator(f"{PANEL} [data-section=keys]")).to_contain_text("No key was asked for")
    panel.run(
        "import sealbook\n\nsealbook.seal({'ada': 3, 'grace': 5}, 'doses.sealed', key='patients')\n"
        "sealbook.unseal('doses.sealed')"
    )
    expect(page.locator(f"{PANEL} [data-section=keys]")).to_contain_text(
        "patients v1, to seal", timeout=20_000
    )
    expect(page.locator(f"{PANEL} [data-section=keys]")).to_contain_text("As the key broker decided")
    expect(page.locator(f"{PANEL} [data-section=artifacts]")).to_contain_text("doses.sealed")
    expect(page.locator(f"{PANEL} [data-section=artifacts]")).to_contain_text("As the kernel reports it")
    expect(page.locator(f"{PANEL} [data-section=audit]")).to_contain_text("release")
    screenshot(page, "panel-light")
    screenshot(page, "panel-keys", within=f"{PANEL} [data-section=cluster]")
    screenshot(page, "panel-audit", within=f"{PANEL} [data-section=audit]")


def test_markup_in_a_path_is_shown_as_it_is_written(panel: Notebook, page: Page, lab: JupyterServer) -> None:
    name = "<img src=x onerror=window.painted=1>.sealed"
    panel.run(f"import sealbook\nsealbook.seal({{'a': 1}}, {name!r}, key='letters')")
    section = page.locator(f"{PANEL} [data-section=artifacts]")
    expect(section).to_contain_text(name, timeout=20_000)
    expect(page.locator(f"{PANEL} [data-section=audit]")).to_contain_text(name)
    assert page.locator(f"{PANEL} img").count() == 0
    assert page.evaluate("window.painted") is None
    (lab.root / name).unlink()  # it would be in the pictures of the file browser


def test_another_kernels_facts_are_never_shown_beside_the_new_one(
    panel: Notebook, page: Page, lab: JupyterServer
) -> None:
    panel.run("import sealbook\nsealbook.seal({'a': 1}, 'before.sealed', key='patients')")
    expect(page.locator(f"{PANEL} [data-section=keys]")).to_contain_text("patients v1", timeout=20_000)
    first = panel.kernel

    def change(name: str) -> None:
        page.evaluate(
            "name => window.jupyterapp.shell.currentWidget.sessionContext.changeKernel({name}).then(() => {})",
            name,
        )

    change(SIMULATED)
    panel.expect("Simulated")
    assert wait_until(lambda: panel.kernel not in ("", first))
    found = server_facts(lab, panel)
    assert wait_until(lambda: facts_of(page, "channel").get("REPORTDATA") == found["channel"]["report_data"])
    expect(page.locator(f"{PANEL} [data-section=keys]")).to_contain_text("No key was asked for")
    expect(page.locator(f"{PANEL} [data-section=audit] li")).to_have_count(len(found["audit"]))
    expect(page.locator(PANEL)).not_to_contain_text("before.sealed")

    change("python3")

    def is_mixed() -> bool:
        # In this order: once the line says something else, the old kernel's facts must be gone.
        line = state_line(page)
        return "Simulated" not in line and page.locator(f"{PANEL} [data-section=identity]").count() > 0

    seen = []
    assert wait_until(lambda: seen.append(is_mixed()) or panel.indicator.text == "Not attested")
    assert wait_until(lambda: seen.append(is_mixed()) or "Not attested" in state_line(page))
    page.wait_for_timeout(2500)  # another question of the panel's
    assert not any([*seen, is_mixed()])
    expect(page.locator(f"{PANEL} [data-section=identity]")).to_have_count(0)


def test_a_kernel_that_was_refused_while_it_ran_has_nothing_but_the_sentence_and_what_was_decided(
    panel: Notebook, page: Page, lab: JupyterServer
) -> None:
    # A double of the server's answer: a kernel that is refused ends within moments.
    sentence = "The kernel's new evidence was refused: the policy does not admit it."
    answer = server_facts(lab, panel) | {
        "identity": None,
        "platform": None,
        "chain": [],
        "chain_note": sentence,
        "channel": None,
        "cluster": None,
    }
    page.route(
        "**/attestation?*",
        lambda route: route.fulfill(body=json.dumps(answer), content_type="application/json"),
    )
    expect(page.locator(f"{PANEL} [data-section=chain]")).to_contain_text(sentence, timeout=20_000)
    for gone in ("identity", "platform", "channel", "cluster"):
        expect(page.locator(f"{PANEL} [data-section={gone}]")).to_have_count(0)
    expect(page.get_by_role("button", name="Export evidence")).to_be_disabled()
    expect(page.get_by_role("button", name="Copy as policy")).to_be_disabled()
    expect(page.locator(f"{PANEL} [data-section=audit]")).to_be_visible()


def test_a_place_that_the_server_does_not_know_is_said_to_be_unknown(
    panel: Notebook, page: Page, lab: JupyterServer
) -> None:
    # A double of the server's answer: no kernel here reports a cluster that its user does not have.
    note = "The kernel reports a cluster that is not among this user's."
    answer = server_facts(lab, panel)
    answer["cluster"] |= {"where": "unknown", "started": True, "note": note}
    page.route(
        "**/attestation?*",
        lambda route: route.fulfill(body=json.dumps(answer), content_type="application/json"),
    )
    section = page.locator(f"{PANEL} [data-section=cluster]")
    expect(section).to_contain_text("not known here", timeout=20_000)
    expect(section).to_contain_text(note)


def test_a_refused_kernel_has_a_panel_that_says_why(
    open_notebook: Open, page: Page, lab: JupyterServer
) -> None:
    notebook = open_notebook(REFUSING, name="study-refused")
    page.locator(".jp-Dialog button.jp-mod-accept").click()
    page.locator(".jp-Dialog").filter(has_text="Select Kernel").get_by_role(
        "button", name="No Kernel"
    ).click()
    notebook.command("application:toggle-left-area")
    notebook.command("sealbook:open-panel")
    assert wait_until(lambda: "not one the policy admits" in state_line(page))
    assert "Refused" in state_line(page)
    # The evidence that was refused, with the check that it did not pass; nothing of it is called proven.
    link = page.locator(f"{PANEL} .sealbook-Link[data-verdict=failed]")
    expect(link).to_have_count(1)
    expect(link.locator("[data-check=measurement][data-verdict=failed]")).to_be_visible()
    identity = page.locator(f"{PANEL} [data-section=identity]")
    expect(identity).to_contain_text("nothing of it is proven")
    assert "Admitted by" not in facts_of(page, "identity")
    expect(page.locator(f"{PANEL} [data-section=audit]")).to_contain_text("attest: refused")
    for button in ("Attest again now", "Export evidence", "Copy as policy"):
        expect(page.get_by_role("button", name=button)).to_be_disabled()
    assert violations(page) == []
    screenshot(page, "refused")


def test_an_error_of_the_server_is_one_sentence_in_a_dialog(panel: Notebook, page: Page) -> None:
    answer = json.dumps({"message": "The kernel kept silent.", "reason": None})
    page.route(
        re.compile(r"/attest(\?|$)"),
        lambda route: route.fulfill(status=409, body=answer, content_type="application/json"),
    )
    page.get_by_role("button", name="Attest again now").click()
    expect(page.locator(".jp-Dialog-body")).to_have_text("The kernel kept silent.")


def test_every_button_is_reached_by_the_keyboard(panel: Notebook, page: Page) -> None:
    page.locator(f"{PANEL} button").first.focus()
    wanted = page.locator(f"{PANEL} button:not(:disabled), {PANEL} summary").count()
    reached: set[int] = set()
    for _ in range(wanted + 12):
        index = page.evaluate(
            "[...document.querySelectorAll('#sealbook-panel button:not(:disabled), #sealbook-panel summary')]"
            ".indexOf(document.activeElement)"
        )
        if index >= 0:
            reached.add(index)
        page.keyboard.press("Tab")
    assert len(reached) == wanted


@pytest.mark.parametrize("theme", ["JupyterLab Light", "JupyterLab Dark"])
def test_axe_finds_nothing(panel: Notebook, page: Page, theme: str) -> None:
    page.evaluate("theme => window.jupyterapp.commands.execute('apputils:change-theme', {theme})", theme)
    page.wait_for_timeout(1500)
    try:
        screenshot(page, f"chain-{theme.split()[-1].lower()}", within=f"{PANEL} [data-section=chain]")
        for link in page.locator(f"{PANEL} summary").all():
            link.click()
        assert violations(page) == []
        screenshot(page, f"links-{theme.split()[-1].lower()}", within=f"{PANEL} [data-section=chain]")
    finally:
        page.evaluate(
            "window.jupyterapp.commands.execute('apputils:change-theme', {theme: 'JupyterLab Light'})"
        )
        page.wait_for_timeout(500)


def test_axe_finds_nothing_in_notebook_7(open_notebook: Open, page: Page) -> None:
    open_notebook(app="notebooks", name="study")
    page.locator(".jp-NotebookPanel-toolbar .sealbook-Indicator").click()
    page.locator(f"{PANEL} [data-section=identity]").wait_for()
    assert violations(page) == []
    screenshot(page, "notebook-7")


def test_the_jobs_of_the_running_cell_are_shown_as_the_kernels_word_until_it_ends(
    panel: Notebook, page: Page
) -> None:
    section = page.locator(f"{PANEL} [data-section=cluster]")
    expect(section).to_contain_text("in this kernel, once Spark starts")
    expect(section).to_contain_text("Spark has not been used in this kernel yet")
    expect(section.locator("progress")).to_have_count(0)
    panel.run(
        "import time\ndef slowly(rows):\n    time.sleep(3)\n    return rows\n"
        "spark.sparkContext.parallelize(range(8), 8).mapPartitions(slowly).count()",
        wait=False,
    )
    expect(section).to_contain_text(re.compile("of 8 tasks, [1-9][0-9]* running, 1 stages?"), timeout=90_000)
    expect(section).to_contain_text("Spark job of the running cell, as the kernel reports it")
    screenshot(page, "panel-progress", within=f"{PANEL} [data-section=cluster]")
    expect(section.locator("progress")).to_have_count(0, timeout=60_000)
    expect(section).not_to_contain_text("once Spark starts")


@pytest.fixture
def silent_cluster(policy_file: Path) -> Iterator[str]:
    """A cluster among this user's whose broker and master do not answer."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    profiles.save(Profile("silent", f"spark://127.0.0.1:{port}", f"https://127.0.0.1:{port}", ca=authority()))
    yield "silent"
    profiles.remove("silent")


def test_the_switch_asks_runs_scale_in_the_kernel_and_says_its_error(
    silent_cluster: str, panel: Notebook, page: Page, lab: JupyterServer
) -> None:
    section = page.locator(f"{PANEL} [data-section=cluster]")
    switch = section.get_by_role("button", name="Switch…")
    expect(switch).to_be_disabled()
    section.get_by_role("combobox", name="Run on").select_option(silent_cluster)

    switch.click()
    expect(page.locator(".jp-Dialog")).to_contain_text("The present Spark session ends")
    page.locator(".jp-Dialog button.jp-mod-reject").click()
    expect(page.locator(".jp-Dialog")).to_have_count(0)

    run_code(page)
    switch.click()
    page.locator(".jp-Dialog button.jp-mod-accept").click()
    said = page.locator(".jp-Dialog-body")
    expect(said).to_contain_text("The kernel says:", timeout=60_000)
    screenshot(page, "switch-refused")
    assert "cluster 'silent'" in said.inner_text()
    assert len(said.inner_text().strip().splitlines()) == 1
    assert page.evaluate("window.runByTheKernel") == ["%scale cluster silent"]
    page.locator(".jp-Dialog button").click()
    expect(section).to_contain_text("in this kernel")
    assert server_facts(lab, panel)["cluster"]["where"] == "local"
    panel.run("%scale")
    expect(page.locator(".jp-OutputArea-output")).to_contain_text("Spark runs in this kernel")


def run_code(page: Page) -> None:
    """Note from now on, in `window.runByTheKernel`, which code the kernel says that it runs."""
    page.evaluate(
        """() => {
            const ran = window.runByTheKernel = [];
            const context = window.jupyterapp.shell.currentWidget.sessionContext;
            context.iopubMessage.connect((_, message) => {
                if (message.header.msg_type === 'execute_input') { ran.push(message.content.code); }
            });
        }"""
    )
