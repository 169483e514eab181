"""A kernel that imitates "attested" with all that its output can do: the indicator goes on saying what the server says.

The kernel of these tests is the real one, in a simulated enclave; what is hostile is the code in its cells. Its output
is trusted by JupyterLab, as that of every cell that was just run, so that its scripts run in the page.
"""

# ruff: noqa: E501 - scripts of pages

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from helpers import wait_until
from pages import Notebook, screenshot

pytestmark = pytest.mark.xdist_group("browser")

Open = Callable[..., Notebook]

COVERED = "Something in this page covers"

REWRITE = """
for (const box of document.querySelectorAll('.sealbook-Indicator')) {
    const host = box.firstElementChild;
    window.rootForTheHost = host.shadowRoot;
    host.innerHTML = '<b>Attested</b>';
    host.setAttribute('style', 'display: none !important');
    host.setAttribute('aria-label', 'Kernel trust: Attested');
    host.setAttribute('aria-hidden', 'true');
    host.setAttribute('hidden', '');
    host.setAttribute('inert', '');
    box.setAttribute('aria-hidden', 'true');
    box.setAttribute('inert', '');
    box.setAttribute('style', 'display: none');
    const fake = document.createElement('span');
    fake.textContent = 'Attested';
    fake.className = 'fake-of-the-kernel';
    box.append(fake);
    box.prepend('Attested');
    host.remove();
    fake.append(host);
}
"""

STYLES = """
.sealbook-Indicator > *, .sealbook-Indicator *, span, button, div.starting, .simulated {
  all: unset !important; display: none !important; visibility: hidden !important; opacity: 0 !important;
  font-size: 0 !important; color: transparent !important; --text: transparent !important; --back: #ddf3e2 !important;
  animation: gone 1s infinite !important; clip-path: inset(50%) !important; transform: scale(0) !important; }
.sealbook-Indicator > *::before, .sealbook-Indicator > *::after { content: 'Attested' !important; display: inline !important; }
@keyframes gone { from { opacity: 0; } to { opacity: 0; } }
"""

PATCHES = """
const attested = {state: 'attested', stale: null, summary: 'Attested', kernel: '', evidence: 'ff', verified_at: null,
                  fresh_until: null, refusals: []};
const text = JSON.stringify(attested);
const answer = () => new Response(text, {status: 200, headers: {'Content-Type': 'application/json'}});
window.fetch = async () => answer();
Response.prototype.text = async () => text;
Response.prototype.json = async () => attested;
Object.defineProperty(Response.prototype, 'ok', {configurable: true, get: () => true});
const parse = JSON.parse;
JSON.parse = value => String(value).includes('"stale"') ? attested : parse(value);
const setter = Object.getOwnPropertyDescriptor(Node.prototype, 'textContent').set;
Object.defineProperty(Node.prototype, 'textContent', {configurable: true,
    get: Object.getOwnPropertyDescriptor(Node.prototype, 'textContent').get,
    set(value) { setter.call(this, String(value).replace(/Simulated[^ ]*( stale)?|Refused/, 'Attested')); }});
const setAttribute = Element.prototype.setAttribute;
Element.prototype.setAttribute = function (name, value) {
    return setAttribute.call(this, name, String(value).replace(/Simulated[^ ]*|simulated|stale/g, 'attested')); };
Element.prototype.attachShadow = function () { return this; };
const then = Promise.prototype.then;
Promise.prototype.then = function (done, failed) {
    return then.call(this, done && (value => done(typeof value === 'string' && value.includes('"stale"') ? text : value)), failed); };
Reflect.apply = () => attested;
Function.prototype.call = (call => function (...all) { return call.apply(this, all); })(Function.prototype.call);
Object.prototype.hasOwnProperty = (own => function (name) { return own.apply(this, [name]); })(Object.prototype.hasOwnProperty);
Object.prototype.state = 'attested';
window.MutationObserver = class { observe() {} disconnect() {} takeRecords() { return []; } };
window.IntersectionObserver = window.MutationObserver;
MutationObserver.prototype.observe = () => {};
"""


@pytest.fixture
def notebook(open_notebook: Open) -> Notebook:
    return open_notebook()


def attack(notebook: Notebook, *, script: str = "", html: str = "") -> None:
    """Have the kernel send it as a cell's output."""
    code = ["from IPython.display import HTML, Javascript, display"]
    if script:
        code.append(f"display(Javascript({json.dumps(script + ';window.attacked = true;')}))")
    if html:
        code.append(f"display(HTML({json.dumps(html)}))")
    notebook.run("\n".join(code))
    if script:
        assert wait_until(lambda: notebook.page.evaluate("window.attacked === true")), "the script ran"


def notice(notebook: Notebook) -> bool:
    """Tell whether the notice is in the page's top layer, and said to screen readers."""
    if not notebook.page.evaluate("document.querySelector('div:popover-open') !== null"):
        return False
    return any(COVERED in str(node.get("name", {}).get("value", "")) for node in notebook.indicator.tree())


def host(notebook: Notebook) -> dict[str, Any]:
    return dict(
        notebook.page.evaluate(
            """() => { const box = document.querySelector('.jp-NotebookPanel-toolbar .sealbook-Indicator');
                       const host = box.firstElementChild, style = getComputedStyle(host);
                       return {alone: box.childNodes.length, text: box.textContent, inner: host.innerHTML,
                               attributes: host.getAttributeNames().concat(box.getAttributeNames().filter(
                                   name => ['style', 'hidden', 'inert', 'aria-hidden'].includes(name))),
                               display: style.display, visibility: style.visibility, opacity: style.opacity,
                               before: getComputedStyle(host, '::before').content,
                               width: host.getBoundingClientRect().width}; }"""
        )
    )


def test_what_a_script_does_to_the_element_is_undone(notebook: Notebook) -> None:
    attack(notebook, script=REWRITE)
    assert notebook.page.evaluate("window.rootForTheHost") is None
    notebook.page.wait_for_timeout(300)
    found = host(notebook)
    assert (found["alone"], found["text"], found["attributes"]) == (1, "", [])
    assert found["width"] > 40
    assert notebook.indicator.text == "Simulated"
    named = [str(node.get("name", {}).get("value", "")) for node in notebook.indicator.tree()]
    assert not any(name.startswith("Kernel trust: Attested") for name in named)
    screenshot(notebook.page, "hostile-kernel")


def test_styles_of_the_page_do_not_get_in(notebook: Notebook) -> None:
    attack(notebook, html=f"<style>{STYLES}</style>")
    found = host(notebook)
    assert (found["display"], found["visibility"], found["opacity"]) == ("flex", "visible", "1")
    assert found["before"] in ("none", "normal")
    assert found["width"] > 40
    style = notebook.indicator.style("color", "background-color", "opacity", "font-size", "display")
    assert style == {
        "color": "rgb(95, 65, 0)",
        "background-color": "rgb(253, 240, 200)",
        "opacity": "1",
        "font-size": "12px",
        "display": "inline-flex" if style["display"] == "inline-flex" else "flex",
    }


def test_replaced_functions_of_the_browser_change_nothing(notebook: Notebook) -> None:
    attack(notebook, script=PATCHES)
    notebook.look_again()
    notebook.page.wait_for_timeout(1500)
    assert notebook.indicator.text == "Simulated"
    # What the server says next comes through too.
    notebook.verdict("ended")
    notebook.look_again()
    notebook.expect("Simulated, stale", seconds=20)
    look = notebook.indicator.look()
    assert look is not None
    assert look.label.startswith("Kernel trust: Simulated, stale.")
    # The element is guarded by observers of before.
    notebook.page.evaluate(
        "document.querySelector('.jp-NotebookPanel-toolbar .sealbook-Indicator').firstElementChild.remove()"
    )
    assert wait_until(lambda: notebook.indicator.text == "Simulated, stale", seconds=5)


def test_messages_of_the_kernel_are_not_looked_at(notebook: Notebook) -> None:
    notebook.indicator.record()
    notebook.run(
        "from comm import create_comm\n"
        "from IPython.display import display\n"
        "from IPython import get_ipython\n"
        "fact = {'state': 'attested', 'summary': 'Attested', 'stale': None, 'evidence': 'ff'}\n"
        "for target in ('sealbook', 'sealbook:trust', 'sealbook.trust', 'jupyter.widget'):\n"
        "    comm = create_comm(target_name=target, data=fact, metadata={'trust': fact})\n"
        "    comm.send(fact)\n"
        "for kind in ('application/vnd.sealbook.trust+json', 'application/vnd.sealbook+json'):\n"
        "    display({kind: fact, 'text/plain': 'Attested'}, raw=True, metadata={'sealbook': fact})\n"
        "kernel = get_ipython().kernel\n"
        "kernel.session.send(kernel.iopub_socket, 'sealbook_trust', fact)\n"
        "kernel.session.send(kernel.iopub_socket, 'status', {'execution_state': 'attested'})\n"
    )
    notebook.look_again()
    notebook.page.wait_for_timeout(1500)
    assert notebook.indicator.text == "Simulated"
    assert not any(text.startswith("Attested") for text in notebook.indicator.recorded)


def over(passing: bool) -> str:
    return f"""
const place = document.querySelector('.jp-NotebookPanel-toolbar .sealbook-Indicator').getBoundingClientRect();
const fake = document.createElement('div');
fake.id = 'fake-of-the-kernel';
fake.textContent = 'Attested';
Object.assign(fake.style, {{position: 'fixed', left: place.left + 'px', top: place.top + 'px', width: place.width + 'px',
    height: place.height + 'px', background: '#ddf3e2', zIndex: 99999, pointerEvents: '{"none" if passing else "auto"}'}});
document.body.append(fake);
"""


@pytest.mark.parametrize("passing", [False, True], ids=["that takes clicks", "that lets clicks through"])
def test_a_picture_over_it_is_told(notebook: Notebook, passing: bool) -> None:
    attack(notebook, script=over(passing))
    assert wait_until(lambda: notice(notebook), seconds=15)
    screenshot(notebook.page, "covered")
    notebook.page.evaluate("document.querySelector('#fake-of-the-kernel').remove()")
    assert wait_until(lambda: not notice(notebook), seconds=15)


@pytest.mark.parametrize(
    "style",
    [
        ".sealbook-Indicator { opacity: 0 !important }",
        ".sealbook-Indicator { display: none !important }",
        ".sealbook-Indicator { visibility: hidden !important; filter: blur(9px) !important }",
        ".sealbook-Indicator { transform: scale(0.01) !important }",
    ],
)
def test_hiding_what_is_around_it_is_told(notebook: Notebook, style: str) -> None:
    attack(notebook, html=f"<style>{style}</style>")
    assert wait_until(lambda: notice(notebook), seconds=15)


def test_taking_it_away_is_told(notebook: Notebook) -> None:
    attack(notebook, script="document.querySelectorAll('.sealbook-Indicator').forEach(box => box.remove())")
    assert wait_until(lambda: notice(notebook), seconds=15)


def test_jupyterlabs_own_menus_and_dialogs_are_no_cover(notebook: Notebook) -> None:
    page = notebook.page
    notebook.command("kernelmenu:restart")
    page.locator(".jp-Dialog").wait_for()
    page.wait_for_timeout(2500)
    assert not notice(notebook)
    page.locator(".jp-Dialog button.jp-mod-reject").first.click()
    page.keyboard.press("Control+Shift+c")
    page.wait_for_timeout(2500)
    assert not notice(notebook)
    page.keyboard.press("Escape")
    page.evaluate("window.jupyterapp.commands.execute('sealbook:open-panel')")
    page.wait_for_timeout(2500)
    assert not notice(notebook)
