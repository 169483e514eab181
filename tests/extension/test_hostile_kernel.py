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
from shown import STATE_LINE, STATUS_BAR, TOOLBAR, Indicator, state_line

pytestmark = pytest.mark.xdist_group("browser")

Open = Callable[..., Notebook]

COVERED = "Something in this page covers"

REWRITE = """
for (const host of document.querySelectorAll('.sealbook-Indicator')) {
    window.rootForTheHost = host.shadowRoot;
    host.innerHTML = '<b>Attested</b>';
    host.setAttribute('style', 'display: none !important');
    host.setAttribute('aria-label', 'Kernel trust: Attested');
    host.setAttribute('role', 'img');
    host.setAttribute('aria-hidden', 'true');
    host.setAttribute('hidden', '');
    host.setAttribute('inert', '');
    const fake = document.createElement('span');
    fake.textContent = 'Attested';
    fake.className = 'fake-of-the-kernel';
    host.append(fake);
    host.prepend('Attested');
}
"""

STYLES = """
.sealbook-Indicator, .sealbook-Indicator *, .sealbook-StateLine, span, button, div.frame, .simulated {
  all: unset !important; display: none !important; visibility: hidden !important; opacity: 0 !important;
  font-size: 0 !important; color: transparent !important; --text: transparent !important; --back: #ddf3e2 !important;
  animation: gone 1s infinite !important; clip-path: inset(50%) !important; transform: scale(0) !important; }
.sealbook-Indicator::before, .sealbook-Indicator::after, .sealbook-StateLine::after { content: 'Attested' !important; display: block !important; }
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
    """Tell whether the notice is in the page, as screen readers find it."""
    return any(
        str(node.get("name", {}).get("value", "")).startswith(COVERED) and not node.get("ignored")
        for node in notebook.indicator.tree()
    )


def host(notebook: Notebook, selector: str = TOOLBAR) -> dict[str, Any]:
    return dict(
        notebook.page.evaluate(
            """selector => { const host = document.querySelector(selector), style = getComputedStyle(host);
                       return {text: host.textContent, inner: host.innerHTML, root: host.shadowRoot,
                               attributes: host.getAttributeNames().filter(name => name !== 'class' && !name.startsWith('data-')),
                               display: style.display, visibility: style.visibility, opacity: style.opacity,
                               pseudo: ['::before', '::after'].map(name => getComputedStyle(host, name).content),
                               width: host.getBoundingClientRect().width}; }""",
            selector,
        )
    )


def unpainted(found: dict[str, Any]) -> bool:
    return found["root"] is None and set(found["pseudo"]) <= {"none", "normal"} and found["inner"] == ""


def test_what_a_script_does_to_the_element_is_undone(notebook: Notebook) -> None:
    attack(notebook, script=REWRITE)
    assert notebook.page.evaluate("window.rootForTheHost") is None
    notebook.page.wait_for_timeout(300)
    found = host(notebook)
    assert unpainted(found)
    assert (found["text"], found["attributes"]) == ("", [])
    assert found["width"] > 40
    notebook.page.evaluate(f"document.querySelector('{TOOLBAR}').setAttribute('inert', '')")
    assert wait_until(lambda: host(notebook)["attributes"] == [], seconds=5)
    assert notebook.indicator.text == "Simulated"
    named = [str(node.get("name", {}).get("value", "")) for node in notebook.indicator.tree()]
    assert not any(name.startswith("Kernel trust: Attested") for name in named)
    screenshot(notebook.page, "hostile-kernel")


def test_styles_of_the_page_do_not_get_in(notebook: Notebook) -> None:
    notebook.command("sealbook:open-panel")
    notebook.page.locator("#sealbook-panel [data-section=identity]").wait_for()
    attack(notebook, html=f"<style>{STYLES}</style>")
    found = host(notebook)
    assert (found["display"], found["visibility"], found["opacity"]) == ("flex", "visible", "1")
    assert unpainted(found)
    assert found["width"] > 40
    line = host(notebook, STATE_LINE)
    assert (line["display"], line["visibility"], line["opacity"]) == ("block", "visible", "1")
    assert unpainted(line)
    # The document's name, the state, the verifier's sentence about it.
    assert state_line(notebook.page).split("\n\n")[:2] == [notebook.path, "Simulated"]
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
    notebook.page.evaluate(f"document.querySelector('{TOOLBAR}').setAttribute('inert', '')")
    assert wait_until(lambda: host(notebook)["attributes"] == [], seconds=5)


def test_an_answer_is_not_shown_for_long_where_a_script_keeps_the_page_from_asking_again(
    notebook: Notebook,
) -> None:
    attack(notebook, script="window.setTimeout = window.setInterval = window.requestAnimationFrame = () => 0")
    notebook.expect("Not known", seconds=60)


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
    # What can be seen of it claims nothing either.
    assert notebook.indicator.text == "Covered"
    screenshot(notebook.page, "covered")
    notebook.page.evaluate("document.querySelector('#fake-of-the-kernel').remove()")
    assert wait_until(lambda: not notice(notebook), seconds=15)
    assert notebook.indicator.text == "Simulated"


def test_the_notice_is_not_taken_for_a_cover(notebook: Notebook) -> None:
    bar = Indicator(notebook.page, STATUS_BAR)
    attack(notebook, script=over(True))
    assert wait_until(lambda: notice(notebook), seconds=15)
    notebook.page.wait_for_timeout(5000)  # longer than the notice stays in the top layer at once
    assert notice(notebook)
    assert (notebook.indicator.text, bar.text) == ("Covered", "Simulated")


@pytest.mark.parametrize(
    "style",
    [
        ".jp-NotebookPanel-toolbar { opacity: 0 !important }",
        ".jp-NotebookPanel-toolbar { display: none !important }",
        ".jp-NotebookPanel-toolbar { visibility: hidden !important; filter: blur(9px) !important }",
        ".jp-NotebookPanel-toolbar { width: 60px !important; height: 32px !important; min-width: 0 !important; overflow: hidden !important }",
        ".jp-NotebookPanel-toolbar { transform: scale(0.01) !important }",
    ],
)
def test_hiding_what_is_around_it_is_told(notebook: Notebook, style: str) -> None:
    attack(notebook, html=f"<style>{style}</style>")
    assert wait_until(lambda: notice(notebook), seconds=15)


def test_taking_it_away_is_told(notebook: Notebook) -> None:
    attack(notebook, script="document.querySelectorAll('.sealbook-Indicator').forEach(host => host.remove())")
    assert wait_until(lambda: notice(notebook), seconds=15)


def test_disposing_of_the_widget_is_told(notebook: Notebook) -> None:
    notebook.page.evaluate(
        "for (const item of window.jupyterapp.shell.currentWidget.toolbar.children()) {"
        " if (item.hasClass('sealbook-Indicator')) { item.dispose(); break; } }"
    )
    assert notebook.page.locator(TOOLBAR).count() == 0
    assert wait_until(lambda: notice(notebook), seconds=15)


SAID_TO_BE_HIDDEN = {
    "by its property": (
        "let proto = window.jupyterapp.shell; while (!Object.hasOwn(proto, 'isVisible')) proto = Object.getPrototypeOf(proto);"
        "Object.defineProperty(proto, 'isVisible', {configurable: true, get: () => false});"
    ),
    "by its class": (
        "const node = window.jupyterapp.shell.currentWidget.node; node.classList.add('lm-mod-hidden');"
        "node.style.setProperty('display', 'block', 'important');"
    ),
}


@pytest.mark.parametrize("script", SAID_TO_BE_HIDDEN.values(), ids=SAID_TO_BE_HIDDEN)
def test_a_notebook_that_is_said_to_be_hidden_is_watched(notebook: Notebook, script: str) -> None:
    attack(notebook, script=script + over(False))
    assert wait_until(lambda: notice(notebook), seconds=15)


@pytest.mark.parametrize("excuse", ["lm-Menu", "jp-Dialog", "lm-mod-drag-image", "lm-DockPanel-overlay"])
@pytest.mark.parametrize(
    "shown", ["display: none", "position: fixed; inset: 0; opacity: 0; pointer-events: none"]
)
def test_a_style_alone_gets_no_excuse_for_a_cover(notebook: Notebook, excuse: str, shown: str) -> None:
    box = notebook.page.locator(TOOLBAR).bounding_box()
    assert box is not None
    attack(
        notebook,
        html=f"""<div class="{excuse}" style="{shown}"></div><style>
        body::after {{ content: "Attested"; position: fixed; left: {box["x"]}px; top: {box["y"]}px;
            width: {box["width"]}px; height: {box["height"]}px; background: #ddf3e2; pointer-events: none; z-index: 99999; }}
        </style>""",
    )
    assert wait_until(lambda: notice(notebook), seconds=15)


NOTICE_OFF = {
    "no list finds anything": "Array.prototype.indexOf = () => 0; Array.prototype.splice = () => [];",
    "what comes is removed": """new MutationObserver(records => { for (const record of records) { for (const node of record.addedNodes) {
        if (node.popover === 'manual') { node.remove(); } } } }).observe(document.body, {childList: true});""",
    "it is removed once": """const watch = new MutationObserver(records => { for (const record of records) {
        for (const node of record.addedNodes) { if (!node.id) { watch.disconnect(); node.remove(); } } } });
        setTimeout(() => watch.observe(document.body, {childList: true}), 0);""",
}


@pytest.mark.parametrize("script", NOTICE_OFF.values(), ids=NOTICE_OFF)
def test_the_notice_is_not_switched_off(notebook: Notebook, script: str) -> None:
    attack(notebook, script=over(False) + script)
    assert wait_until(lambda: notice(notebook), seconds=15)


def test_a_page_that_removes_the_notice_for_ever_goes_on_and_claims_nothing(notebook: Notebook) -> None:
    attack(
        notebook,
        script=over(True)
        + """setTimeout(() => new MutationObserver(records => { for (const record of records) {
            for (const node of record.addedNodes) { if (!node.id) { node.remove(); } } } })
            .observe(document.body, {childList: true}), 0);""",
    )
    notebook.expect("Covered", seconds=15)


#: How a script gets at the extension's own modules: through the container that JupyterLab loads extensions from.
CONTAINER = """
const container = window._JUPYTERLAB.sealbook;
const plugins = (await container.get('./index').catch(() => container.get('./extension')))().default;
"""

FAKE_ATTESTED = (
    "{state: 'attested', stale: '', explanation: 'Attested genuine enclave', summary: '', refusals: []}"
)

ACTIVATE = (
    "(async () => {"
    + CONTAINER
    + """
    const sig = {connect() {}, disconnect() {}};
    let factory;
    const app = {serviceManager: {serverSettings: {baseUrl: '/', token: ''}}, shell: {add() {}, activateById() {}},
                 commands: {addCommand() {}, execute() {}}};
    try { plugins[0].activate = () => {}; } catch {}
    window.changed = Object.isFrozen(plugins) && plugins.every(Object.isFrozen) ? '' : 'plugins';
    plugins[0].activate(app, {currentWidget: null, currentChanged: sig}, {addFactory: (a, b, f) => { factory = f; }},
                        null, null, null, null, null, null);
    window.changed += 'activated';
    const node = document.createElement('div'); document.body.append(node);
    const context = {kernelChanged: sig, statusChanged: sig, connectionStatusChanged: sig, disposed: sig, session: null, path: 'x'};
    const widget = factory({sessionContext: context, context: {path: 'x', pathChanged: sig}, disposed: sig, node});
    const prototype = Object.getPrototypeOf(widget._chip), show = prototype.show;
    prototype.show = function () { return show.call(this, FAKE); };
})().catch(error => { window.refusal = String(error); });
""".replace("FAKE", FAKE_ATTESTED)
)

SHARED_WIDGET = """
(async () => {
    let require;
    const chunks = Object.keys(window).find(name => /^(rspack|webpack)Chunk_?sealbook$/.test(name));
    window[chunks].push([['e' + Math.random()], {}, given => { require = given; }]);
    const scope = require.S.default['@lumino/widgets'];
    const prototype = (await scope[Object.keys(scope)[0]].get())().Widget.prototype;
    const keep = prototype.processMessage, got = new Set();
    const take = widget => { if (widget.node && widget.node.classList.contains('sealbook-Indicator')) { got.add(widget); } };
    prototype.processMessage = function (message) { take(this); return keep.call(this, message); };
    const visible = Object.getOwnPropertyDescriptor(prototype, 'isVisible');
    Object.defineProperty(prototype, 'isVisible', {configurable: true, get() { take(this); return visible.get.call(this); }});
    window.reached = new Set();
    // Everything that can be reached from the widget by names: the methods of all of it are replaced or called.
    const fake = FAKE;
    const walk = (thing, depth, from) => {
        if (thing === null || (typeof thing !== 'object' && typeof thing !== 'function') || depth > 4 || from.has(thing)) { return; }
        from.add(thing);
        if (thing instanceof Node || thing === window) { return; }
        for (const name of Reflect.ownKeys(thing).concat(Reflect.ownKeys(Object.getPrototypeOf(thing) ?? {}))) {
            if (/trust|chip|model|server|show|state|place|cover|notice/i.test(String(name)) && name !== 'onAfterShow') {
                window.reached.add(String(name));
                try { thing[name] = fake; } catch {}
            }
            try { walk(thing[name], depth + 1, from); } catch {}
        }
    };
    setInterval(() => { for (const widget of got) {
        const type = widget.constructor;
        window.frozen = Object.isFrozen(type) && Object.isFrozen(type.prototype);
        if (widget._chip) { widget._chip.show(fake); }
        widget.model = {trust: fake, show: (_, update) => update(), seen() {}};
        walk(widget, 0, new Set([Object.prototype, Function.prototype, Array.prototype, prototype]));
    } window.gotWidgets = got.size; }, 50);
    window.jupyterapp.shell.currentWidget.toolbar.hide();
    window.jupyterapp.shell.currentWidget.toolbar.show();
    document.dispatchEvent(new Event('visibilitychange'));
})().catch(error => { window.refusal = String(error) + error.stack; });
""".replace("FAKE", FAKE_ATTESTED)


def test_the_plugins_are_not_activated_by_a_script(notebook: Notebook) -> None:
    attack(notebook, script=ACTIVATE)
    page = notebook.page
    assert wait_until(lambda: page.evaluate("window.refusal !== undefined"), seconds=15)
    assert "active already" in page.evaluate("window.refusal")
    assert page.evaluate("window.changed") == ""
    notebook.look_again()
    page.wait_for_timeout(1000)
    notebook.expect("Simulated")


def test_who_gets_hold_of_the_widget_cannot_have_it_show_anything(notebook: Notebook) -> None:
    notebook.indicator.record()
    attack(notebook, script=SHARED_WIDGET)
    page = notebook.page
    assert wait_until(lambda: page.evaluate("window.gotWidgets > 0"), seconds=15), page.evaluate(
        "window.refusal"
    )
    assert page.evaluate("window.frozen") is True
    notebook.look_again()
    page.wait_for_timeout(1500)
    notebook.expect("Simulated")
    assert not any(text.startswith("Attested") for text in notebook.indicator.recorded)


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
