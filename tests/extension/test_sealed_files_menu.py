"""Sealed files in the file browser: the real menu, the real server, real keys and real files."""

from __future__ import annotations

import re

import pytest
from helpers import wait_until
from jupyter_server_process import JupyterServer
from pages import screenshot
from playwright.sync_api import Locator, Page, expect

from sealbook import sealing

pytestmark = pytest.mark.xdist_group("browser")

TABLE = b"name,dose\nAda,3\n"


@pytest.fixture
def browser_page(page: Page, lab: JupyterServer) -> Page:
    """JupyterLab's file browser with one table in it."""
    for old in lab.root.glob("table*"):
        old.unlink()
    (lab.root / "table.csv").write_bytes(TABLE)
    page.goto(f"{lab.address}/lab?token={lab.token}&reset")
    item(page, "table.csv").wait_for(timeout=60_000)
    return page


def item(page: Page, name: str) -> Locator:
    return page.locator(".jp-DirListing-item").filter(has_text=re.compile(f"^{re.escape(name)}"))


def choose(page: Page, name: str, entry: str) -> None:
    """Choose an entry of a file's context menu."""
    item(page, name).first.click(button="right")
    page.locator(".lm-Menu-item").filter(has_text=entry).first.click()


def accept(page: Page, **answers: str) -> None:
    """Answer the questions of the dialog."""
    for question, answer in answers.items():
        field = page.locator(f".jp-Dialog [name={question}]")
        if field.evaluate("node => node.tagName") == "SELECT":
            field.select_option(answer)
        else:
            field.fill(answer)
    page.locator(".jp-Dialog button.jp-mod-accept").click()


def seal(page: Page, lab: JupyterServer, key: str = "letters") -> None:
    choose(page, "table.csv", "Seal…")
    accept(page, key=key)
    item(page, "table.csv.sealed").wait_for()
    assert (lab.root / "table.csv.sealed").is_file()


def test_a_file_is_sealed_inspected_rekeyed_and_unsealed_from_the_menu(
    browser_page: Page, lab: JupyterServer
) -> None:
    page = browser_page
    seal(page, lab)
    sealed = lab.root / "table.csv.sealed"
    assert TABLE not in sealed.read_bytes()
    assert sealing.inspect(sealed).keys == (("letters", 1),)
    expect(item(page, "table.csv.sealed").first).to_have_attribute("data-file-type", "sealbook-sealed")

    item(page, "table.csv.sealed").first.click(button="right")
    page.locator(".lm-Menu-item").filter(has_text="Rekey…").first.wait_for()
    screenshot(page, "sealed-menu", width=800)
    page.keyboard.press("Escape")
    choose(page, "table.csv.sealed", "Inspect Sealed File")
    view = page.locator(".sealbook-SealedView")
    expect(view).to_contain_text("letters v1")
    expect(view).to_contain_text("not authenticated")
    expect(view).to_contain_text(sealing.inspect(sealed).file_id)
    screenshot(page, "sealed-file")

    choose(page, "table.csv.sealed", "Rekey…")
    accept(page, to="more/letters")
    assert wait_until(lambda: sealing.inspect(sealed).keys == (("more/letters", 1),))

    choose(page, "table.csv.sealed", "Unseal to…")
    accept(page, target="table-again.csv")
    assert wait_until((lab.root / "table-again.csv").exists)
    assert (lab.root / "table-again.csv").read_bytes() == TABLE


def test_a_double_click_inspects_and_reads_none_of_the_bytes(browser_page: Page, lab: JupyterServer) -> None:
    page = browser_page
    seal(page, lab)
    asked: list[str] = []
    page.on(
        "request", lambda request: asked.append(request.url) if "table.csv.sealed" in request.url else None
    )
    item(page, "table.csv.sealed").first.dblclick()
    expect(page.locator(".sealbook-SealedView")).to_contain_text("letters v1")
    assert [url for url in asked if "/api/contents/" in url and "content=1" in url] == []


def test_a_file_that_is_in_the_way_is_asked_about(browser_page: Page, lab: JupyterServer) -> None:
    page = browser_page
    seal(page, lab)
    choose(page, "table.csv.sealed", "Unseal to…")
    accept(page)
    expect(page.locator(".jp-Dialog-body")).to_contain_text("table.csv exists")
    (lab.root / "table.csv").write_bytes(b"newer")
    page.locator(".jp-Dialog button.jp-mod-accept").click()
    assert wait_until(lambda: (lab.root / "table.csv").read_bytes() == TABLE)


def test_a_key_that_demands_attestation_is_refused_in_the_servers_sentence(
    browser_page: Page, lab: JupyterServer
) -> None:
    page = browser_page
    seal(page, lab, key="patients")
    choose(page, "table.csv.sealed", "Unseal to…")
    accept(page, target="table-never.csv")
    expect(page.locator(".jp-Dialog-body")).to_contain_text("attest")
    assert not (lab.root / "table-never.csv").exists()


def test_other_files_offer_only_to_be_sealed_and_sealed_ones_do_not(
    browser_page: Page, lab: JupyterServer
) -> None:
    page = browser_page
    seal(page, lab)

    def entries(name: str) -> set[str]:
        item(page, name).first.click(button="right")
        texts = {t for t in page.locator(".lm-Menu-itemLabel").all_inner_texts() if t}
        page.keyboard.press("Escape")
        return texts & {"Seal…", "Inspect Sealed File", "Unseal to…", "Rekey…"}

    item(page, "table.csv").first.click()
    assert entries("table.csv.sealed") == {"Inspect Sealed File", "Unseal to…", "Rekey…"}
    page.locator(".jp-DirListing-item[title*='table.csv\\n'], .jp-DirListing-item").filter(
        has_not_text="sealed"
    ).first.click(button="right")
    texts = set(page.locator(".lm-Menu-itemLabel").all_inner_texts())
    assert "Seal…" in texts
    assert not texts & {"Inspect Sealed File", "Unseal to…", "Rekey…"}


def test_the_menu_and_its_dialog_need_no_mouse(browser_page: Page, lab: JupyterServer) -> None:
    page = browser_page
    item(page, "table.csv").first.click()
    page.keyboard.press("Shift+F10")
    page.locator(".lm-Menu-item").filter(has_text="Seal…").first.wait_for()
    for _ in range(40):
        if page.locator(".lm-Menu-item.lm-mod-active").filter(has_text="Seal…").count():
            break
        page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.locator(".jp-Dialog [name=key]").wait_for()
    assert page.evaluate("document.activeElement.name") == "key"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.name") == "target"
    page.keyboard.press("Enter")
    assert wait_until((lab.root / "table.csv.sealed").exists)
