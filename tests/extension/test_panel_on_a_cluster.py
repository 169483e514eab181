"""The panel of a notebook whose Spark code runs on a real cluster."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pages import PANEL, Notebook, screenshot, violations
from playwright.sync_api import Page, expect
from scaled import NAME, ScaledUser, scaled

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.xdist_group("browser")]


@pytest.fixture(scope="module")
def cluster(policy_file: Path) -> Iterator[ScaledUser]:
    """A trusted cluster of two workers."""
    with scaled() as user:
        yield user


def switch(page: Page, to: str) -> None:
    section = page.locator(f"{PANEL} [data-section=cluster]")
    section.get_by_role("combobox", name="Run on").select_option(to)
    section.get_by_role("button", name="Switch…").click()
    page.locator(".jp-Dialog button.jp-mod-accept").click()


def test_the_panel_switches_to_the_cluster_shows_every_node_and_its_jobs_and_comes_back(
    cluster: ScaledUser, panel: Notebook, page: Page
) -> None:
    section = page.locator(f"{PANEL} [data-section=cluster]")
    switch(page, to=NAME)
    expect(section).to_contain_text(f"on the cluster {NAME}", timeout=120_000)
    panel.run(
        "import time\ndef slowly(rows):\n    time.sleep(4)\n    return rows\n"
        "print(spark.sparkContext.parallelize(range(8), 8).mapPartitions(slowly).sum())",
        wait=False,
    )
    expect(section).to_contain_text(re.compile("of 8 tasks, [1-9][0-9]* running, 1 stage"), timeout=120_000)
    screenshot(page, "panel-cluster", within=f"{PANEL} [data-section=cluster]")
    expect(page.locator(".jp-OutputArea-output").last).to_have_text("28", timeout=120_000)
    expect(section.locator("progress")).to_have_count(0)
    for node in cluster.nodes():
        entry = section.locator("li", has_text=re.compile(f"^{node['role'].removeprefix('spark-')} "))
        expect(entry.first).to_contain_text(node["measurement"])
        expect(entry.first).to_contain_text("simulated")
    expect(section.locator("li", has_text=re.compile("^worker "))).to_have_count(2)
    assert violations(page) == []

    switch(page, to="")
    expect(section).to_contain_text("in this kernel", timeout=60_000)
    expect(section.locator("li")).to_have_count(0)
