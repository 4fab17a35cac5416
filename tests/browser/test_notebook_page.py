"""The notebook page, as a person uses it, in Debian's Chromium on the whole running service."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Route, WebSocketRoute, expect

from support.browser import click_into, sign_in
from support.patience import Stopwatch, until
from support.service import Running

pytestmark = pytest.mark.browser

CONTROL = "/services/control/api/v1"


def markdown(source: str, cell_id: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "id": cell_id, "metadata": {}, "source": source}


def code(source: str, cell_id: str) -> dict[str, Any]:
    return {
        "cell_type": "code",
        "id": cell_id,
        "metadata": {},
        "source": source,
        "outputs": [],
        "execution_count": None,
    }


def notebook(*cells: dict[str, Any]) -> dict[str, Any]:
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3"}, "odd": {"kept": [1, None]}}
    return {"nbformat": 4, "nbformat_minor": 5, "metadata": metadata, "cells": list(cells)}


@pytest.fixture(scope="module")
def context(browser: Browser, service: Running) -> Iterator[BrowserContext]:
    context, page = sign_in(browser, service, "ada")
    page.close()
    yield context
    context.close()


@pytest.fixture
def page(
    context: BrowserContext, service: Running, request: pytest.FixtureRequest, shots: Path
) -> Iterator[Page]:
    page = context.new_page()
    failures: list[str] = []
    page.on("pageerror", lambda error: failures.append(error.stack or str(error)))
    yield page
    page.screenshot(path=shots / f"{request.node.name}.png")
    page.close()
    assert [failure for failure in failures if "@minicolab" in failure] == []
    service.end_runtimes("ada")


def open_page(page: Page, service: Running, *cells: dict[str, Any]) -> str:
    """Make a notebook with these cells, open its page, return its id."""
    file = service.make_file("ada", content=notebook(*cells))
    page.goto(f"{service.app}/d/{file['id']}")
    page.wait_for_selector(".jp-Notebook .jp-Cell")
    return str(file["id"])


def run_cell(page: Page, number: int, keys: str = "Control+Enter") -> None:
    click_into(page.locator(".jp-CodeCell .cm-content").nth(number))
    page.keyboard.press(keys)


def content(service: Running, file_id: str) -> dict[str, Any]:
    document: dict[str, Any] = service.api(
        "ada", "GET", f"/services/documents/api/v1/files/{file_id}/content"
    ).json()
    return document


def runtimes(service: Running, file_id: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = service.api("ada", "GET", f"{CONTROL}/runtimes?file_id={file_id}").json()[
        "items"
    ]
    return items


def test_a_notebook_opens_without_a_runtime_and_with_its_table_of_contents(
    page: Page, service: Running
) -> None:
    file_id = open_page(
        page, service, markdown("# One\nText **bold** $x^2$ <b>html</b>\n## Two", "m1"), code("1+1", "c1")
    )
    expect(page.locator(".mc-connect-button")).to_have_text("Connect")
    expect(page.locator(".jp-TableOfContents-tree")).to_contain_text("Two")
    expect(page.locator(".jp-MarkdownOutput mjx-container").first).to_be_visible()
    assert page.locator(".jp-Dialog").count() == 0
    assert runtimes(service, file_id) == []


def test_menus_are_colabs_in_order_and_every_item_has_a_command(page: Page, service: Running) -> None:
    open_page(page, service, code("1", "c1"))
    expect(page.locator("#mc-menu .lm-MenuBar-itemLabel")).to_have_text(
        ["File", "Edit", "View", "Insert", "Runtime", "Tools", "Help"]
    )
    expect(page.locator("#jp-MainMenu")).to_be_hidden()
    page.click("#mc-menu .lm-MenuBar-item:has-text('Runtime')")
    expect(page.locator(".lm-Menu-itemLabel:text-is('Manage sessions')")).to_be_visible()
    labels = page.locator(".lm-Menu-itemLabel").all_inner_texts()
    assert [text for text in labels if text][:4] == [
        "Run all",
        "Run before",
        "Run the focused cell",
        "Run selection",
    ]
    assert "Change runtime type" in labels
    assert "Manage sessions" in labels


def test_running_a_cell_connects_by_itself_and_shows_pictures_colours_and_tables(
    page: Page, service: Running
) -> None:
    source = (
        "import matplotlib.pyplot as plt, pandas as pd\nprint('\\x1b[31mred\\x1b[0m')\n"
        "for i in range(3): print('\\rstep', i, end='')\nprint()\nplt.plot([1,2]); plt.show()\npd.DataFrame({'a':[1,2]})"
    )
    open_page(page, service, code(source, "c1"))
    run_cell(page, 0)
    expect(page.locator(".jp-OutputArea-output table")).to_be_visible()
    expect(page.locator(".jp-OutputArea-output img")).to_be_visible()
    expect(page.locator(".jp-OutputArea-output .ansi-red-fg")).to_have_text("red")
    output = page.locator(".jp-OutputArea").first
    expect(output).to_contain_text("step 2")
    expect(output).not_to_contain_text("step 1")
    expect(page.locator(".mc-meter")).to_contain_text("RAM")


def test_the_run_button_shift_enter_and_alt_enter_run(page: Page, service: Running) -> None:
    open_page(page, service, code("print('first')", "c1"), code("print('second')", "c2"))
    page.locator(".jp-CodeCell .jp-InputPrompt").first.click()
    expect(page.locator(".jp-OutputArea-output").first).to_contain_text("first")
    run_cell(page, 1, "Alt+Enter")
    expect(page.locator(".jp-OutputArea-output").nth(1)).to_contain_text("second")
    expect(page.locator(".jp-CodeCell")).to_have_count(3)
    run_cell(page, 0, "Shift+Enter")
    expect(page.locator(".jp-CodeCell").nth(1)).to_have_class(re.compile("jp-mod-active"))


def test_an_edit_is_saved_by_itself_and_the_page_says_so_and_odd_metadata_stays(
    page: Page, service: Running
) -> None:
    file_id = open_page(page, service, code("x = 1", "c1"))
    click_into(page.locator(".cm-content").first)
    page.keyboard.press("Control+End")
    page.keyboard.type("  # typed")
    expect(page.locator(".mc-save")).to_have_text("All changes saved")
    until(lambda: "# typed" in json.dumps(content(service, file_id)))
    assert content(service, file_id)["metadata"]["odd"] == {"kept": [1, None]}


def test_the_title_renames_the_file_and_its_address_stays(page: Page, service: Running) -> None:
    file_id = open_page(page, service, code("1", "c1"))
    page.fill(".mc-title", "A better name")
    page.locator(".mc-title").press("Enter")
    until(
        lambda: (
            service.api("ada", "GET", f"/services/documents/api/v1/files/{file_id}").json()["name"]
            == "A better name.ipynb"
        )
    )
    page.reload()
    expect(page.locator(".mc-title")).to_have_value("A better name.ipynb")


def test_a_reload_finds_the_running_cell_and_goes_on_with_its_output(page: Page, service: Running) -> None:
    source = "import os, time\nprint('begin')\nwhile not os.path.exists('/content/go'): time.sleep(0.05)\nprint('finished')"
    file_id = open_page(page, service, code("k = 'kept'", "c0"), code(source, "c1"))
    run_cell(page, 0)
    expect(page.locator(".mc-meter")).to_be_visible()
    run_cell(page, 1)
    expect(page.locator(".jp-OutputArea-output")).to_contain_text("begin")
    page.reload()
    expect(page.locator(".jp-CodeCell").nth(1).locator(".jp-InputPrompt")).to_have_attribute(
        "data-running", "true"
    )
    runtime = runtimes(service, file_id)
    assert len(runtime) == 1
    service.execute("ada", runtime[0]["id"], "open('/content/go','w').close()")
    output = page.locator(".jp-CodeCell").nth(1).locator(".jp-OutputArea")
    expect(output).to_contain_text("finished")
    assert output.inner_text().count("begin") == 1
    expect(page.locator(".jp-CodeCell").nth(1).locator(".jp-InputPrompt")).to_have_attribute(
        "data-running", "false"
    )
    until(lambda: "finished" in json.dumps(content(service, file_id)["cells"]))


def test_what_a_running_cell_says_before_the_reloaded_page_is_joined_to_its_kernel_is_not_lost(
    page: Page, service: Running
) -> None:
    source = "import os, time\nprint('begin')\nwhile not os.path.exists('/content/go'): time.sleep(0.05)\nprint('finished')"
    file_id = open_page(page, service, code(source, "c1"))
    run_cell(page, 0)
    expect(page.locator(".jp-OutputArea-output")).to_contain_text("begin")

    def deaf(socket: WebSocketRoute) -> None:
        to = socket.connect_to_server()
        socket.on_message(to.send)
        to.on_message(lambda _: None)

    page.route_web_socket(re.compile("/api/kernels/.*/channels"), deaf)
    page.reload()
    prompt = page.locator(".jp-CodeCell .jp-InputPrompt")
    expect(prompt).to_have_attribute("data-running", "true")
    service.execute("ada", runtimes(service, file_id)[0]["id"], "open('/content/go','w').close()")
    expect(page.locator(".jp-CodeCell .jp-OutputArea")).to_have_text(re.compile(r"^\s*begin\s+finished\s*$"))
    expect(prompt).to_have_attribute("data-running", "false")


def test_a_second_tab_uses_the_same_kernel_and_sees_edits_and_outputs(
    page: Page, service: Running, context: BrowserContext
) -> None:
    file_id = open_page(
        page, service, code("secret = 41\nprint('one')", "c1"), code("print(secret + 1)", "c2")
    )
    run_cell(page, 0)
    expect(page.locator(".jp-OutputArea-output")).to_contain_text("one")
    second = context.new_page()
    second.goto(f"{service.app}/d/{file_id}")
    expect(second.locator(".jp-OutputArea-output")).to_contain_text("one")
    expect(second.locator(".mc-meter")).to_be_visible()
    run_cell(second, 1)
    expect(second.locator(".jp-CodeCell").nth(1).locator(".jp-OutputArea-output")).to_contain_text("42")
    expect(page.locator(".jp-CodeCell").nth(1).locator(".jp-OutputArea-output")).to_contain_text("42")
    assert len(runtimes(service, file_id)) == 1
    second.close()


def test_a_save_by_hand_just_when_the_service_saves_asks_nothing(page: Page, service: Running) -> None:
    """The document is shared: that its file is newer than the page knew is the service's own doing."""

    def newer(route: Route) -> None:
        reply = route.fetch()
        route.fulfill(response=reply, json={**reply.json(), "hash": "f" * 64, "hash_algorithm": "sha256"})

    file_id = open_page(page, service, code("1", "c1"))
    page.route(re.compile(r"content=0.*hash=1"), newer)
    click_into(page.locator(".cm-content").first)
    page.keyboard.type("+1")
    with page.expect_response(re.compile(r"content=0.*hash=1")):
        page.keyboard.press("Control+s")
    expect(page.locator(".mc-save")).to_have_text("All changes saved")
    assert page.locator(".jp-Dialog").count() == 0
    assert "+1" in json.dumps(content(service, file_id))


def test_a_runtime_that_disappears_is_told_within_two_seconds_and_the_page_stays(
    page: Page, service: Running
) -> None:
    file_id = open_page(page, service, code("import os; print(os.uname().nodename)", "c1"))
    run_cell(page, 0)
    expect(page.locator(".jp-OutputArea-output")).to_contain_text("r-")
    expect(page.locator(".mc-meter")).to_be_visible()
    old = runtimes(service, file_id)[0]["id"]
    supervisor = next(p for p in Path("/proc").glob("[0-9]*") if _is_supervisor(p, old))
    with Stopwatch() as watch:
        os.kill(int(supervisor.name), signal.SIGKILL)
        expect(page.locator(".mc-connect-button")).to_have_text("Reconnect")
    assert watch.seconds < 2
    assert page.locator(".jp-Dialog").count() == 0
    click_into(page.locator(".cm-content").first)
    page.keyboard.press("Control+End")
    page.keyboard.type("  # still here")
    until(lambda: "still here" in json.dumps(content(service, file_id)))
    page.click(".mc-connect-button")
    expect(page.locator(".mc-meter")).to_be_visible()
    run_cell(page, 0)
    expect(page.locator(".jp-OutputArea-output")).not_to_contain_text(old)
    assert runtimes(service, file_id)[0]["id"] != old


def _is_supervisor(process: Path, runtime_id: str) -> bool:
    try:
        words = (process / "cmdline").read_bytes()
    except OSError:
        return False
    return b"spawner.local.supervisor" in words and runtime_id.encode() in words


def test_interrupt_restart_and_delete_do_what_they_say(page: Page, service: Running) -> None:
    file_id = open_page(
        page,
        service,
        code("print('begun')\nwhile True: pass", "c1"),
        code("kept = 1\nprint('kept')", "c2"),
        code("print('kept' in globals())", "c3"),
    )
    run_cell(page, 1)
    expect(page.locator(".jp-OutputArea-output").first).to_contain_text("kept")
    run_cell(page, 0)
    first = page.locator(".jp-CodeCell").first
    expect(first.locator(".jp-OutputArea-output")).to_contain_text("begun")
    expect(first.locator(".jp-InputPrompt")).to_have_attribute("data-running", "true")
    first.locator(".jp-InputPrompt").click()
    expect(first.locator(".jp-OutputArea")).to_contain_text("KeyboardInterrupt")
    page.click("#mc-menu .lm-MenuBar-item:has-text('Runtime')")
    page.click(".lm-Menu-itemLabel:text-is('Restart session')")
    page.click(".jp-Dialog button:has-text('Yes')")
    run_cell(page, 2)
    expect(page.locator(".jp-CodeCell").nth(2).locator(".jp-OutputArea-output")).to_contain_text("False")
    page.click("#mc-menu .lm-MenuBar-item:has-text('Runtime')")
    page.click(".lm-Menu-itemLabel:text-is('Disconnect and delete runtime')")
    page.click(".jp-Dialog button:has-text('Yes')")
    expect(page.locator(".mc-connect-button")).to_have_text("Connect")
    until(lambda: runtimes(service, file_id) == [])


def test_run_all_before_and_after_and_manage_sessions(page: Page, service: Running) -> None:
    open_page(page, service, code("print('a')", "c1"), code("print('b')", "c2"), code("print('c')", "c3"))
    run_cell(page, 1, "Control+F8")
    expect(page.locator(".jp-OutputArea-output")).to_have_count(1)
    run_cell(page, 1, "Control+F10")
    expect(page.locator(".jp-OutputArea-output")).to_have_count(3)
    page.click("#mc-menu .lm-MenuBar-item:has-text('Runtime')")
    page.click(".lm-Menu-itemLabel:text-is('Manage sessions')")
    expect(page.locator(".jp-Dialog .mc-session:has-text('current session')")).to_contain_text("RAM")
    page.locator(".jp-Dialog .mc-session:has-text('current session') button").click()
    expect(page.locator(".jp-Dialog .mc-session:has-text('current session')")).to_have_count(0)
    page.click(".jp-Dialog button:has-text('Close')")
    expect(page.locator(".mc-connect-button")).to_have_text("Connect")


def test_a_form_shows_without_a_runtime_and_rewrites_its_line(page: Page, service: Running) -> None:
    file_id = open_page(
        page,
        service,
        code(
            '#@title Params\nn = 5 #@param {type:"slider", min:1, max:10, step:1}\nopt = "adam" #@param ["adam","sgd"]',
            "c1",
        ),
    )
    page.locator(".mc-form select").select_option("sgd")
    page.locator(".mc-form input[type=range]").fill("8")
    chosen = '#@title Params\nn = 8 #@param {type:"slider", min:1, max:10, step:1}\nopt = "sgd" #@param ["adam","sgd"]'
    until(lambda: "".join(content(service, file_id)["cells"][0]["source"]) == chosen)
    expect(page.locator(".mc-connect-button")).to_have_text("Connect")


def test_a_text_cell_shows_its_preview_while_it_is_typed(page: Page, service: Running) -> None:
    open_page(page, service, markdown("hello", "m1"))
    page.locator(".jp-MarkdownCell").dblclick()
    expect(page.locator(".jp-MarkdownCell .cm-content")).to_be_focused()
    page.keyboard.press("Control+End")
    page.keyboard.type(" **world** $y^3$")
    expect(page.locator(".mc-preview strong")).to_have_text("world")
    expect(page.locator(".mc-preview mjx-container")).to_be_visible()
    page.keyboard.press("Shift+Enter")
    expect(page.locator(".mc-preview")).to_have_count(0)


def test_a_double_click_on_a_text_gives_the_very_next_key_to_its_editor(page: Page, service: Running) -> None:
    open_page(page, service, markdown("hello", "m1"))
    page.locator(".jp-MarkdownOutput").click()
    # In one go, so that not even a frame passes in between.
    focused = """(text) => {
        text.dispatchEvent(new MouseEvent('dblclick', {bubbles: true, cancelable: true, composed: true}));
        return document.activeElement.className;
    }"""
    assert "cm-content" in page.locator(".jp-MarkdownOutput").evaluate(focused)


def test_drive_mount_asks_and_then_the_drive_is_there_both_ways(page: Page, service: Running) -> None:
    service.make_file("ada", "from-drive.txt", kind="file", content="hello from Drive")
    open_page(
        page,
        service,
        code("import os; print(os.path.exists('/content/drive'))", "c0"),
        code("from google.colab import drive\ndrive.mount('/content/drive')", "c1"),
        code(
            "print(open('/content/drive/My Drive/from-drive.txt').read())\nopen('/content/drive/MyDrive/from-runtime.txt','w').write('back')",
            "c2",
        ),
    )
    run_cell(page, 0)
    expect(page.locator(".jp-OutputArea-output").first).to_contain_text("False")
    run_cell(page, 1)
    expect(page.locator(".jp-Dialog")).to_contain_text("Permit this notebook to access your Drive files?")
    page.click(".jp-Dialog button:has-text('Connect to Drive')")
    expect(page.locator(".jp-CodeCell").nth(1).locator(".jp-OutputArea-output")).to_contain_text(
        "Mounted at /content/drive"
    )
    run_cell(page, 2)
    expect(page.locator(".jp-CodeCell").nth(2).locator(".jp-OutputArea-output").first).to_contain_text(
        "hello from Drive"
    )
    address = "/services/documents/api/v1/files?parent=root&limit=200"
    until(
        lambda: "from-runtime.txt" in {f["name"] for f in service.api("ada", "GET", address).json()["items"]}
    )


def test_where_a_drive_needs_a_restart_the_page_says_what_that_costs_and_does_it(
    page: Page, service: Running
) -> None:
    """The service here can bring a Drive into a running runtime; only its answer to that is another's."""
    refusal = {"status": 409, "code": "restart_needed", "message": "It is connected when a runtime starts."}
    page.route("**/mounts", lambda route: route.fulfill(status=409, json=refusal))
    mount = code("from google.colab import drive\ndrive.mount('/content/drive')", "c1")
    file_id = open_page(page, service, mount)
    output = page.locator(".jp-OutputArea-output")
    for answer in ("Later", "Restart and connect"):
        run_cell(page, 0)
        page.click(".jp-Dialog button:has-text('Connect to Drive')")
        expect(page.locator(".jp-Dialog")).to_contain_text("its variables and its files in /content are lost")
        (before,) = runtimes(service, file_id)
        page.click(f".jp-Dialog button:has-text('{answer}')")
        expect(output.first).to_contain_text("It is connected when a runtime starts.")
    until(
        lambda: [r["state"] for r in runtimes(service, file_id) if r["id"] != before["id"]] == ["ready"],
        "the runtime was not restarted",
    )
    assert [r["id"] for r in runtimes(service, file_id)] != [before["id"]]


def test_saying_no_to_drive_mounts_nothing(page: Page, service: Running) -> None:
    open_page(page, service, code("from google.colab import drive\ndrive.mount('/content/drive')", "c1"))
    run_cell(page, 0)
    page.click(".jp-Dialog button:has-text('No thanks')")
    expect(page.locator(".jp-OutputArea-output")).to_contain_text("credential propagation was unsuccessful")


def test_an_example_is_read_only_runs_and_can_be_copied(
    page: Page, service: Running, context: BrowserContext
) -> None:
    page.goto(f"{service.app}/d/ex-importing_libraries")
    page.wait_for_selector(".jp-Notebook .jp-Cell")
    expect(page.locator(".mc-banner")).to_contain_text("read-only example")
    with context.expect_page() as opened:
        page.click(".mc-banner button")
    copy = opened.value
    copy.wait_for_selector(".jp-Notebook .jp-Cell")
    expect(copy.locator(".mc-title")).to_have_value(re.compile("Copy of"))
    copy.close()


def test_a_broken_notebook_is_a_message_that_offers_the_raw_file_and_stays_untouched(
    page: Page, service: Running
) -> None:
    upload = "/services/documents/api/v1/files/upload?parent=root&name=broken.ipynb"
    broken = b'{"cells": 1, "nbformat"'
    file = service.api(
        "ada", "POST", upload, data=broken, headers={"Content-Type": "application/octet-stream"}
    ).json()
    page.goto(f"{service.app}/d/{file['id']}")
    expect(page.locator("body")).to_contain_text("Download")
    assert (
        service.api("ada", "GET", f"/services/documents/api/v1/files/{file['id']}/content").content == broken
    )


def test_html_in_a_saved_output_runs_no_script(page: Page, service: Running) -> None:
    evil = code("1", "c1")
    evil["outputs"] = [
        {
            "output_type": "display_data",
            "metadata": {},
            "data": {"text/html": "<img src=x onerror='window.pwned=1'><script>window.pwned=1</script>"},
        },
        {"output_type": "display_data", "metadata": {}, "data": {"application/javascript": "window.pwned=1"}},
    ]
    open_page(
        page,
        service,
        evil,
        markdown("<img src=x onerror='window.pwned=1'> [a](javascript:window.pwned=1)", "m1"),
    )
    expect(page.locator(".jp-OutputArea-output")).not_to_have_count(0)
    expect(page.locator(".jp-MarkdownOutput a")).to_be_visible()
    # A picture that is asked for later has failed, and told so: those above have had their say.
    told = """() => new Promise((told) => {
        const picture = document.createElement('img');
        picture.onerror = told;
        picture.src = 'y';
        document.body.append(picture);
    }).then(() => null)"""
    page.evaluate(told)
    assert page.evaluate("window.pwned") is None
