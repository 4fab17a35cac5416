"""The Drive page in Chromium, on a whole running service.

Each test works in a folder of its own, through the page as a person would; what it prepares or checks behind the page's back goes
through the REST API with the page's cookie, or to the files on disk, as a runtime would write them.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from support.browser import new_context, sign_in
from support.patience import PATIENCE, Stopwatch
from support.service import Running

pytestmark = pytest.mark.browser

USER = "iris"
API = "/services/documents/api/v1/"
RUNTIMES = "**/services/control/api/v1/runtimes?*"


@dataclass(frozen=True)
class Home:
    """The service, and what a browser holds in which iris, an administrator, is signed in."""

    service: Running
    storage: Any

    @property
    def base(self) -> str:
        return self.service.app


@pytest.fixture(scope="module")
def home(service: Running, browser: Browser) -> Home:
    service.add_user(USER, admin=True)
    context, _ = sign_in(browser, service, USER)
    storage = context.storage_state()
    context.close()
    return Home(service, storage)


class Drive:
    """One page that shows a folder of its own."""

    def __init__(self, page: Page, home: Home, name: str) -> None:
        self.page, self.home, self.name = page, home, name
        page.goto(home.base + "/drive")
        self.folder = self.make(name, kind="folder", parent="root")
        self.open(self.folder["id"])

    def call(self, method: str, path: str, body: object = None) -> Any:
        """Call the REST API with the page's cookie, from the page."""
        script = """async ([method, url, body]) => {
            const reply = await fetch(url, {method, body: body === null ? undefined : JSON.stringify(body),
                                            headers: {'Content-Type': 'application/json'}});
            return {status: reply.status, text: await reply.text()};
        }"""
        reply = self.page.evaluate(script, [method, path if path.startswith("/") else API + path, body])
        assert reply["status"] < 300, reply
        return json.loads(reply["text"]) if reply["text"] else None

    def make(
        self, name: str, kind: str = "file", content: str | None = None, parent: str | None = None
    ) -> dict[str, Any]:
        body = {"parent": parent or self.folder["id"], "name": name, "type": kind}
        if content is not None:
            body["content"] = content
        made: dict[str, Any] = self.call("POST", "files", body)
        return made

    def names(self, folder: str | None = None) -> list[str]:
        """Return what the service says is in a folder."""
        items = self.call("GET", f"files?parent={folder or self.folder['id']}&limit=200")["items"]
        return [item["name"] for item in items]

    def open(self, folder_id: str) -> None:
        self.page.goto(f"{self.home.base}/drive/folders/{folder_id}")
        expect(self.page.locator(".row, .state").first).to_be_visible()

    def row(self, name: str) -> Any:
        return self.page.get_by_role("row").filter(
            has=self.page.locator(".label").get_by_text(name, exact=True)
        )

    def shown(self) -> list[str]:
        return self.page.locator(".row .cell.name .label").all_inner_texts()

    def menu(self, name: str, item: str) -> None:
        """Choose from the context menu of a row."""
        self.row(name).click(button="right")
        self.page.get_by_role("menuitem", name=item, exact=False).click()

    def notice(self, text: str) -> None:
        """Wait for a notice and keep it from going away: it stays as long as the pointer is on it."""
        expect(self.page.get_by_text(text)).to_be_visible()
        self.page.locator(".toast").hover()

    def slow_down(self, bytes_per_second: int) -> Callable[[], None]:
        """Let uploads of this page take long, until the function that is returned is called."""
        network = self.page.context.new_cdp_session(self.page)
        network.send("Network.enable")
        speed = {"offline": False, "latency": 0, "downloadThroughput": -1}
        command = "Network.emulateNetworkConditions"
        network.send(command, {**speed, "uploadThroughput": bytes_per_second})
        return lambda: network.send(command, {**speed, "uploadThroughput": -1})

    def on_disk(self) -> Path:
        """Return the folder of this test as a runtime would see it."""
        found = list((self.home.service.state / "drive").glob(f"*/{self.name}"))
        assert len(found) == 1, found
        return found[0]

    def drop_file(self, selector: str, name: str, content: str) -> None:
        """Let a file from outside the browser go above an element."""
        script = """([selector, name, content]) => {
            const target = document.querySelector(selector);
            const transfer = new DataTransfer();
            transfer.items.add(new File([content], name));
            for (const type of ['dragenter', 'dragover', 'drop']) {
                target.dispatchEvent(new DragEvent(type, {dataTransfer: transfer, bubbles: true, cancelable: true}));
            }
        }"""
        self.page.evaluate(script, [selector, name, content])


@pytest.fixture
def drive(home: Home, browser: Browser, request: pytest.FixtureRequest) -> Iterator[Drive]:
    context = new_context(browser, viewport={"width": 1280, "height": 800}, storage_state=home.storage)
    page = context.new_page()
    page.on(
        "filechooser", lambda _: None
    )  # told of from the start: a chooser that opens before that is asked for is lost
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on(
        "console",
        lambda m: (
            faults.append(m.text) if m.type == "error" and "Failed to load resource" not in m.text else None
        ),
    )
    yield Drive(page, home, re.sub(r"\W+", "-", request.node.name)[:80])
    context.close()
    assert faults == []


def test_an_empty_folder_says_what_to_do_and_a_new_folder_is_opened_by_a_double_click(drive: Drive) -> None:
    page = drive.page
    expect(page.get_by_role("heading", name="Drop files here or use New")).to_be_visible()
    page.get_by_role("button", name="New", exact=True).first.click()
    page.get_by_role("menuitem", name="New folder").click()
    field = page.get_by_role("textbox", name="Name of the folder")
    expect(field).to_be_focused()
    field.fill("Datasets")
    page.keyboard.press("Enter")
    expect(drive.row("Datasets")).to_have_attribute("aria-selected", "true")
    drive.row("Datasets").dblclick()
    expect(page.get_by_role("heading", level=1)).to_have_text("Datasets")
    expect(page).to_have_title("Datasets – minicolab")
    page.get_by_role("navigation", name="Folder path").get_by_role("link", name=drive.name).click()
    expect(drive.row("Datasets")).to_be_visible()
    page.go_back()
    expect(page.get_by_role("heading", level=1)).to_have_text("Datasets")


def test_new_more_colaboratory_makes_a_notebook_in_this_folder_and_opens_it(drive: Drive) -> None:
    page = drive.page
    page.get_by_role("button", name="New", exact=True).first.click()
    page.get_by_role("menuitem", name="More").hover()
    page.get_by_role("menuitem", name="Colaboratory").click()
    page.wait_for_url("**/d/*")
    file_id = page.url.rpartition("/")[2]
    made = drive.call("GET", f"files/{file_id}")
    assert (made["name"], made["parent"], made["type"]) == (
        "Untitled0.ipynb",
        drive.folder["id"],
        "notebook",
    )


def test_a_rename_selects_the_name_without_its_suffix_and_stays_open_when_the_name_is_taken(
    drive: Drive,
) -> None:
    page = drive.page
    drive.make("first.csv", content="a")
    drive.make("second.csv", content="b")
    drive.row("first.csv").click()
    page.keyboard.press("F2")
    field = page.get_by_role("textbox", name="New name")
    expect(field).to_be_focused()
    assert page.evaluate("() => document.getSelection().toString()") == "first"
    field.fill("second.csv")
    page.keyboard.press("Enter")
    expect(page.get_by_text("A file with this name")).to_be_visible()
    field.fill("third.csv")
    page.keyboard.press("Enter")
    drive.notice("Renamed to “third.csv”.")
    expect(drive.row("third.csv")).to_be_visible()
    assert drive.names() == ["second.csv", "third.csv"]
    page.get_by_role("button", name="Undo").click()
    expect(drive.row("first.csv")).to_be_visible()


def test_files_are_moved_by_the_dialog_and_moved_back_by_undo(drive: Drive) -> None:
    page = drive.page
    target = drive.make("Target", kind="folder")
    for name in ("a.txt", "b.txt", "c.txt"):
        drive.make(name, content=name)
    drive.row("a.txt").click()
    drive.row("c.txt").click(modifiers=["Shift"])
    expect(page.get_by_text("3 selected")).to_be_visible()
    page.get_by_role("button", name="Move to…").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("button", name="Move here")).to_be_disabled()
    dialog.get_by_role("button", name="Target").click()
    dialog.get_by_role("button", name="Move here").click()
    drive.notice("3 items moved to “Target”.")
    assert drive.names() == ["Target"]
    assert drive.names(target["id"]) == ["a.txt", "b.txt", "c.txt"]
    page.keyboard.press("Control+z")
    expect(drive.row("b.txt")).to_be_visible()
    assert drive.names() == ["Target", "a.txt", "b.txt", "c.txt"]


def test_a_row_dragged_onto_a_folder_is_moved_into_it(drive: Drive) -> None:
    target = drive.make("Target", kind="folder")
    drive.make("a.txt", content="a")
    expect(drive.row("a.txt")).to_be_visible()
    drive.row("a.txt").drag_to(drive.row("Target"))
    expect(drive.row("a.txt")).to_have_count(0)
    assert drive.names(target["id"]) == ["a.txt"]


def test_a_copy_gets_a_name_of_its_own(drive: Drive) -> None:
    drive.make("plan.md", content="the plan")
    drive.menu("plan.md", "Make a copy")
    expect(drive.row("Copy of plan.md")).to_have_attribute("aria-selected", "true")
    assert (drive.on_disk() / "Copy of plan.md").read_text() == "the plan"


def test_download_saves_the_file_as_it_is(drive: Drive) -> None:
    drive.make("plan.md", content="the plan\n")
    with drive.page.expect_download() as started:
        drive.menu("plan.md", "Download")
    assert started.value.suggested_filename == "plan.md"
    assert Path(started.value.path()).read_text() == "the plan\n"


def test_a_file_in_the_trash_comes_back_by_undo_and_by_restore_and_is_deleted_forever_only_after_asking(
    drive: Drive,
) -> None:
    page = drive.page
    name = f"{drive.name[:40]}.txt"
    drive.make(name, content="a")
    drive.row(name).click()
    page.keyboard.press("Delete")
    drive.notice(f"“{name}” moved to the trash.")
    expect(drive.row(name)).to_have_count(0)
    page.get_by_role("button", name="Undo").click()
    expect(drive.row(name)).to_be_visible()

    drive.menu(name, "Move to trash")
    page.get_by_role("link", name="Trash").click()
    expect(drive.row(name)).to_contain_text(drive.name)
    drive.menu(name, "Restore")
    expect(drive.row(name)).to_have_count(0)
    assert drive.names() == [name]

    drive.call("DELETE", f"files/{drive.call('GET', 'search?q=' + name)['items'][0]['id']}")
    drive.menu(name, "Delete forever")
    page.get_by_role("button", name="Cancel").click()
    expect(drive.row(name)).to_be_visible()
    drive.menu(name, "Delete forever")
    page.get_by_role("dialog").get_by_role("button", name="Delete forever").click()
    expect(drive.row(name)).to_have_count(0)
    assert name not in [item["name"] for item in drive.call("GET", "trash")["items"]]


def test_emptying_the_trash_asks_first_and_then_says_that_it_is_empty(drive: Drive) -> None:
    page = drive.page
    made = drive.make("old.txt", content="a")
    drive.call("DELETE", f"files/{made['id']}")
    page.get_by_role("link", name="Trash").click()
    page.get_by_role("button", name="Empty trash").click()
    page.get_by_role("dialog").get_by_role("button", name="Empty trash").click()
    expect(page.get_by_role("heading", name="The trash is empty")).to_be_visible()
    assert drive.call("GET", "trash")["items"] == []


def test_a_dropped_file_is_uploaded_into_this_folder_and_one_dropped_on_a_folder_row_into_that(
    drive: Drive,
) -> None:
    target = drive.make("Target", kind="folder")
    expect(drive.row("Target")).to_be_visible()
    drive.drop_file(".content", "dropped.txt", "from outside")
    expect(drive.row("dropped.txt")).to_be_visible()
    assert (drive.on_disk() / "dropped.txt").read_text() == "from outside"
    drive.drop_file(f".row[data-id='{target['id']}']", "inner.txt", "deeper")
    expect(drive.page.get_by_text("2 uploads complete").first).to_be_visible()
    assert drive.names(target["id"]) == ["inner.txt"]


def test_200_megabytes_are_uploaded_with_progress_and_every_byte_arrives(
    drive: Drive, tmp_path: Path
) -> None:
    block = hashlib.sha256(b"seed").digest() * 32768  # 1 MiB
    large = tmp_path / "large.bin"
    with large.open("wb") as file:
        for number in range(200):
            file.write(number.to_bytes(4, "big") + block[4:])
    page = drive.page
    at_full_speed = drive.slow_down(1_000_000)
    with page.expect_file_chooser() as chosen:
        page.get_by_role("button", name="New", exact=True).first.click()
        page.get_by_role("menuitem", name="File upload").click()
    chosen.value.set_files(large)
    expect(page.get_by_text("Uploading 1 file").first).to_be_visible()
    expect(page.locator(".upload-state")).to_contain_text("of 200 MB")
    at_full_speed()
    expect(page.get_by_text("1 upload complete").first).to_be_visible(timeout=4 * PATIENCE * 1000)
    expect(drive.row("large.bin")).to_contain_text("200 MB")
    stored, sent = hashlib.sha256(), hashlib.sha256()
    for digest, path in ((stored, drive.on_disk() / "large.bin"), (sent, large)):
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    assert stored.hexdigest() == sent.hexdigest()


def test_a_cancelled_upload_leaves_nothing_and_can_be_tried_again(drive: Drive, tmp_path: Path) -> None:
    page = drive.page
    at_full_speed = drive.slow_down(50_000)
    large = tmp_path / "slow.bin"
    large.write_bytes(bytes(8_000_000))
    with page.expect_file_chooser() as chosen:
        page.keyboard.type("nu")
    chosen.value.set_files(large)
    expect(page.locator(".upload-state")).to_contain_text("of 7.6 MB")
    page.get_by_role("button", name="Cancel slow.bin").click()
    expect(page.get_by_text("Cancelled", exact=True)).to_be_visible()
    at_full_speed()
    assert drive.names() == []
    page.get_by_role("button", name="Try again slow.bin").click()
    expect(drive.row("slow.bin")).to_be_visible()


def test_a_refused_upload_says_why(drive: Drive) -> None:
    drive.drop_file(".content", "ends-with-a-dot.", "x")
    expect(drive.page.locator(".upload-state")).to_have_text("File name ends with a dot.")


def test_a_file_written_inside_a_runtime_appears_by_itself_within_three_seconds(drive: Drive) -> None:
    drive.make("here.txt", content="a")
    expect(drive.row("here.txt")).to_be_visible()
    with Stopwatch() as watch:
        (drive.on_disk() / "from-a-runtime.txt").write_text("written behind the page")
        expect(drive.row("from-a-runtime.txt")).to_be_visible()
    assert watch.seconds < 3
    (drive.on_disk() / "here.txt").unlink()
    expect(drive.row("here.txt")).to_have_count(0)


def test_a_click_on_a_column_sorts_and_a_second_click_turns_the_order_around(drive: Drive) -> None:
    page = drive.page
    for name, size in (("b.txt", 3000), ("a2.txt", 10), ("a10.txt", 700)):
        drive.make(name, content="x" * size)
    drive.make("Folder", kind="folder")
    expect(page.locator(".row")).to_have_count(4)
    assert drive.shown() == ["Folder", "a2.txt", "a10.txt", "b.txt"]
    page.get_by_role("columnheader", name="Size").get_by_role("button").click()
    expect(page.locator(".row .label").nth(1)).to_have_text("b.txt")
    assert drive.shown() == ["Folder", "b.txt", "a10.txt", "a2.txt"]
    expect(page.get_by_role("columnheader", name="Size")).to_have_attribute("aria-sort", "descending")
    page.get_by_role("columnheader", name="Size").get_by_role("button").click()
    expect(page.locator(".row .label").nth(1)).to_have_text("a2.txt")
    page.reload()
    expect(page.get_by_role("columnheader", name="Size")).to_have_attribute("aria-sort", "ascending")


def test_search_finds_by_part_of_a_name_in_every_folder_and_escape_goes_back(drive: Drive) -> None:
    page = drive.page
    inner = drive.make("Inner", kind="folder")
    drive.make("quarterly zebra report.csv", content="a", parent=inner["id"])
    drive.make("other.csv", content="a")
    expect(drive.row("other.csv")).to_be_visible()
    page.keyboard.press("/")
    page.keyboard.type("ZEBRA quart")
    expect(drive.row("quarterly zebra report.csv")).to_contain_text("Inner")
    expect(drive.row("other.csv")).to_have_count(0)
    page.keyboard.type("zzz")
    expect(page.get_by_role("heading", name="No file has that name")).to_be_visible()
    page.keyboard.press("Escape")
    expect(drive.row("other.csv")).to_be_visible()


def test_everything_is_within_reach_of_the_keyboard(drive: Drive) -> None:
    page = drive.page
    drive.make("Folder", kind="folder")
    for name in ("a.txt", "b.txt", "c.txt"):
        drive.make(name, content=f"inside {name}")
    expect(page.locator(".row")).to_have_count(4)
    page.keyboard.press("ArrowDown")
    expect(drive.row("Folder")).to_be_focused()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Shift+ArrowDown")
    expect(page.get_by_text("2 selected")).to_be_visible()
    page.keyboard.press("Control+a")
    expect(page.get_by_text("4 selected")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator(".row[aria-selected=true]")).to_have_count(0)
    page.keyboard.press("End")
    expect(drive.row("c.txt")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_contain_text("inside c.txt")
    page.keyboard.press("Escape")
    expect(drive.row("c.txt")).to_be_focused()
    page.keyboard.press("Shift+F10")
    expect(page.get_by_role("menuitem").first).to_be_focused()
    page.keyboard.press("ArrowDown")
    expect(page.get_by_role("menuitem", name="Open in new tab")).to_be_focused()
    page.keyboard.press("Escape")
    expect(drive.row("c.txt")).to_be_focused()
    page.keyboard.press("Home")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Folder")
    page.keyboard.press("Alt+ArrowUp")
    expect(drive.row("Folder")).to_be_focused()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_contain_text("Keyboard shortcuts")


def test_the_menu_that_is_opened_while_a_dialog_goes_keeps_the_keys(drive: Drive) -> None:
    page = drive.page
    drive.make("a.txt", content="inside a.txt")
    drive.row("a.txt").dblclick()
    expect(page.get_by_role("dialog")).to_contain_text("inside a.txt")
    # In one go: the browser tells that the dialog was closed only later.
    page.evaluate("""async () => {
        const dialog = document.querySelector('dialog[open]');
        const told = new Promise((done) => dialog.addEventListener('close', () => setTimeout(done)));
        dialog.close();
        const press = {key: 'F10', shiftKey: true, bubbles: true, cancelable: true};
        document.activeElement.dispatchEvent(new KeyboardEvent('keydown', press));
        await told;
    }""")
    expect(page.get_by_role("menuitem").first).to_be_focused()


def test_a_picture_is_shown_and_a_file_of_unknown_kind_is_offered_for_download(drive: Drive) -> None:
    page = drive.page
    drive.make(
        "plot.svg", content='<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><rect/></svg>'
    )
    drive.make("weights.h5", content="binary")
    drive.row("plot.svg").dblclick()
    expect(page.get_by_role("img", name="plot.svg")).to_be_visible()
    page.keyboard.press("Escape")
    drive.row("weights.h5").dblclick()
    expect(page.get_by_text("This kind of file can’t be shown here.")).to_be_visible()
    expect(page.get_by_role("link", name="Download")).to_be_visible()


def test_the_address_of_a_file_opens_its_folder_with_the_file_on_top(drive: Drive) -> None:
    made = drive.make("notes.txt", content="remember the milk")
    drive.page.goto(f"{drive.home.base}/d/{made['id']}")
    expect(drive.page.get_by_role("dialog")).to_contain_text("remember the milk")
    drive.page.keyboard.press("Escape")
    expect(drive.row("notes.txt")).to_have_attribute("aria-selected", "true")
    expect(drive.page.get_by_role("heading", level=1)).to_have_text(drive.name)


def test_a_name_is_text_whatever_it_holds(drive: Drive) -> None:
    name = "<img src=x onerror=document.title='harmed'>.txt"
    (drive.on_disk() / name).write_text("a")
    expect(drive.row(name)).to_be_visible()
    drive.row(name).click()
    drive.page.keyboard.press("Delete")
    expect(drive.page.get_by_text(f"“{name}” moved to the trash.")).to_be_visible()
    expect(drive.page).to_have_title(f"{drive.name} – minicolab")


def test_a_folder_of_many_files_loads_the_rest_as_it_is_scrolled(drive: Drive) -> None:
    for number in range(450):
        (drive.on_disk() / f"file {number}.txt").write_text("a")
    page = drive.page
    page.reload()
    expect(page.get_by_text("450 items")).to_be_visible()
    expect(page.locator(".row")).to_have_count(200)
    for loaded in (400, 450):
        page.locator(".row").last.scroll_into_view_if_needed()
        expect(page.locator(".row")).to_have_count(loaded)
    assert drive.shown()[-1] == "file 449.txt"


def test_a_service_that_stops_answering_is_said_in_a_banner_and_files_stay_until_it_answers_again(
    drive: Drive,
) -> None:
    page = drive.page
    drive.make("kept.txt", content="a")
    expect(drive.row("kept.txt")).to_be_visible()
    page.route("**/api/v1/files?*", lambda route: route.abort())
    expect(page.get_by_role("alert")).to_contain_text("minicolab can’t be reached.")
    expect(drive.row("kept.txt")).to_be_visible()
    page.reload()
    expect(page.get_by_role("heading", name="Your files can’t be shown")).to_be_visible()
    # The page looks by itself too. Until the button is pressed its looks fail, so that it is the button that brings the files.
    page.evaluate("""() => {
        const real = window.fetch;
        let pressed = false;
        document.addEventListener('click', () => { pressed = true; }, true);
        window.fetch = (...request) => pressed ? real(...request) : Promise.reject(new TypeError('Failed to fetch'));
    }""")
    page.unroute("**/api/v1/files?*")
    page.get_by_role("button", name="Try again").click()
    expect(drive.row("kept.txt")).to_be_visible()


def test_a_refusal_of_the_service_is_shown_in_its_own_words(drive: Drive) -> None:
    page = drive.page
    drive.make("a.txt", content="a")
    body = json.dumps(
        {"status": 507, "code": "disk_full", "message": "The Drive's disk is full. Nothing was lost."}
    )
    page.route("**/copy", lambda route: route.fulfill(status=507, content_type="application/json", body=body))
    drive.menu("a.txt", "Make a copy")
    expect(
        page.get_by_text("Could not copy “a.txt”: The Drive's disk is full. Nothing was lost.")
    ).to_be_visible()


def test_an_ended_session_offers_to_sign_in(drive: Drive) -> None:
    page = drive.page
    drive.make("kept.txt", content="a")
    expect(drive.row("kept.txt")).to_be_visible()
    page.context.clear_cookies()
    expect(page.get_by_role("alert").get_by_role("button", name="Sign in")).to_be_visible()


def test_a_folder_that_is_gone_says_so_and_leads_home(drive: Drive) -> None:
    page = drive.page
    drive.call("DELETE", f"files/{drive.folder['id']}")
    expect(page.get_by_role("heading", name="This folder is not here any more")).to_be_visible()
    page.get_by_role("button", name="Go to My Drive").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("My Drive")


def test_a_notebook_with_a_live_runtime_has_a_light_and_control_may_be_down(drive: Drive) -> None:
    page = drive.page
    notebook = drive.make("live.ipynb", kind="notebook")
    runtime = drive.home.service.start_runtime(USER, notebook["id"])
    page.reload()
    expect(drive.row("live.ipynb").get_by_role("img", name="Runtime connected")).to_be_visible()
    page.get_by_role("button", name="1 runtime running").click()
    expect(page.get_by_role("menuitem", name="live.ipynb")).to_have_attribute("href", f"/d/{notebook['id']}")
    page.keyboard.press("Escape")
    drive.home.service.api(USER, "DELETE", f"/services/control/api/v1/runtimes/{runtime['id']}")
    page.route(RUNTIMES, lambda route: route.abort())
    page.reload()
    expect(drive.row("live.ipynb")).to_be_visible()
    expect(page.get_by_role("img", name="Runtime connected")).to_have_count(0)
    expect(page.get_by_role("alert")).to_have_count(0)


def test_examples_are_listed_and_one_is_copied_to_the_drive(drive: Drive) -> None:
    page = drive.page
    page.get_by_role("link", name="Examples").click()
    expect(page.get_by_role("link", name="Markdown guide")).to_have_attribute("href", "/d/ex-markdown_guide")
    page.get_by_role("button", name="Copy Markdown guide to Drive").click()
    expect(page.get_by_text("is in your Drive.")).to_be_visible()
    assert "Copy of markdown_guide.ipynb" in drive.names("root")


def test_an_administrator_finds_admin_and_sign_out_in_the_account_menu(drive: Drive) -> None:
    page = drive.page
    page.get_by_role("button", name=f"Account of {USER}").click()
    expect(page.get_by_role("menuitem", name="Admin")).to_have_attribute("href", "/services/control/admin")
    expect(page.get_by_role("menuitem", name="Sign out")).to_have_attribute(
        "href", "/services/documents/logout"
    )


@pytest.mark.parametrize("width", [1280, 760, 360])
def test_nothing_lies_outside_of_the_window(drive: Drive, width: int) -> None:
    page = drive.page
    drive.make(
        "a name that is far longer than any narrow window could show in one line.ipynb", kind="notebook"
    )
    page.set_viewport_size({"width": width, "height": 700})
    expect(page.locator(".row")).to_be_visible()
    page.locator(".row").click()
    assert page.evaluate("() => document.documentElement.scrollWidth") <= width
    for selector in (".avatar", ".row-more", ".search"):
        box = page.locator(selector).first.bounding_box()
        assert box is not None, selector
        assert box["x"] >= 0, selector
        assert box["x"] + box["width"] <= width, selector
