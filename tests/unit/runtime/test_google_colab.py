"""google.colab in a real kernel: Drive by page and by pasted code, questions to the page, and what a notebook imports."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from minicolab_runtime.control import Control, ControlError, challenge
from support.patience import Stopwatch
from tests.unit.runtime.harness import Runtime, Socket, text_of


def error_of(messages: list[dict[str, Any]]) -> tuple[str, str]:
    content = next(m["content"] for m in messages if m["msg_type"] == "error")
    return content["ename"], content["evalue"]


def mount_code(point: Path, **options: Any) -> str:
    arguments = "".join(f", {name}={value!r}" for name, value in options.items())
    return f"from google.colab import drive\ndrive.mount({str(point)!r}{arguments})"


class Consent:
    """The page's part of drive.mount: ask the user, let control mount, answer the kernel."""

    def __init__(self, page: Socket) -> None:
        self.page = page
        self.requests: list[dict[str, Any]] = []

    async def run(self, code: str, *, refuse: str | None = None) -> list[dict[str, Any]]:
        """Run a cell and answer what it asks; return its messages."""
        message_id = await self.page.execute(code)
        messages = []
        while True:
            message = await self.page.receive()
            if message["parent_header"].get("msg_id") != message_id:
                continue
            messages.append(message)
            if message["msg_type"] == "colab_request" and "colab_msg_id" in message["metadata"]:
                request = message["content"]["request"]
                self.requests.append({"type": message["metadata"]["colab_request_type"], **request})
                if refuse is not None:
                    await self.page.reply(message, error=refuse)
                    continue
                point = Path(request["mountpoint"])
                if message["metadata"]["colab_request_type"] == "request_auth":
                    for name in ("MyDrive", "My Drive"):
                        (point / name).mkdir(parents=True)
                else:
                    shutil.rmtree(point)
                await self.page.reply(message, data={})
            if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                return messages


async def test_the_page_is_asked_once_and_the_texts_are_colabs(tmp_path: Path, page: Socket) -> None:
    user, point = Consent(page), tmp_path / "drive"
    assert text_of(await user.run(mount_code(point))) == f"Mounted at {point}\n"
    assert user.requests == [
        {
            "type": "request_auth",
            "authType": "dfs_ephemeral",
            "mountpoint": str(point),
            "readonly": False,
        }
    ]
    assert text_of(await user.run(mount_code(point))) == (
        f"Drive already mounted at {point}; to attempt to forcibly remount, "
        f'call drive.mount("{point}", force_remount=True).\n'
    )
    assert len(user.requests) == 1
    said = text_of(await user.run(mount_code(point, force_remount=True, readonly=True)))
    assert said == f"Mounted at {point}\n"
    assert [request["type"] for request in user.requests[1:]] == ["unmount_drive", "request_auth"]
    assert user.requests[-1]["readonly"] is True
    assert text_of(await user.run("drive.flush_and_unmount()")) == ""
    assert not (point / "MyDrive").exists()
    assert text_of(await user.run("drive.flush_and_unmount()")) == (
        "Drive not mounted, so nothing to flush and unmount.\n"
    )


async def test_a_refusal_is_an_error_with_the_pages_words(tmp_path: Path, page: Socket) -> None:
    user = Consent(page)
    said = await user.run(mount_code(tmp_path / "drive"), refuse="Error: access to Drive was cancelled")
    assert error_of(said) == ("MessageError", "Error: access to Drive was cancelled")
    assert not (tmp_path / "drive").exists()


@pytest.mark.parametrize(
    ("make", "point", "said"),
    [
        (None, "with space", "Mountpoint must not contain a space."),
        ("link", "link", "Mountpoint must not be a symlink"),
        ("full", "full", "Mountpoint must not already contain files"),
        ("file", "file", "Mountpoint must either be a directory or not exist"),
        (None, "no/such", "Mountpoint must be in a directory that exists"),
    ],
)
async def test_an_unusable_mount_point_is_refused_before_anyone_is_asked(
    tmp_path: Path, page: Socket, make: str | None, point: str, said: str
) -> None:
    if make == "link":
        (tmp_path / "link").symlink_to(tmp_path)
    elif make == "full":
        (tmp_path / "full").mkdir()
        (tmp_path / "full" / "a").touch()
    elif make == "file":
        (tmp_path / "file").touch()
    user = Consent(page)
    assert error_of(await user.run(mount_code(tmp_path / point))) == ("ValueError", said)
    assert user.requests == []


async def test_waiting_for_consent_has_an_end(tmp_path: Path, page: Socket) -> None:
    messages = await page.result(await page.execute(mount_code(tmp_path / "drive", timeout_ms=400)))
    name, said = error_of(messages)
    assert name == "ValueError"
    assert said.startswith("mount failed: no answer to the consent dialog")


async def test_a_cell_that_waits_for_consent_can_be_interrupted(
    tmp_path: Path, runtime: Runtime, page: Socket
) -> None:
    running = await page.execute(mount_code(tmp_path / "drive"))
    await page.until(lambda m: m["msg_type"] == "colab_request")
    for kernel in await runtime.json("api/kernels"):
        if kernel["execution_state"] == "busy":
            await runtime.json(f"api/kernels/{kernel['id']}/interrupt", "POST")
    assert error_of(await page.result(running))[0] == "KeyboardInterrupt"


# -- without a page: a link and a pasted code -------------------------------------------------------------------------


class FakeControl:
    """A control service that checks what the kernel sends as an OAuth server must, and makes folders appear as mounts."""

    def __init__(self) -> None:
        self.code, self.token = "the-code", "the-token"
        self.challenge = ""
        self.calls: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                if self.path == "/services/control/oauth/token":
                    form = dict(urllib.parse.parse_qsl(body))
                    verified = base64.urlsafe_b64encode(
                        hashlib.sha256(form["code_verifier"].encode()).digest()
                    )
                    outer.calls.append("token")
                    if form["code"] != outer.code or verified.decode().rstrip("=") != outer.challenge:
                        self.answer(400, {"error": "invalid_grant"})
                        return
                    assert form["grant_type"] == "authorization_code"
                    assert form["client_id"] == "r-test"
                    assert form["redirect_uri"] == "urn:ietf:wg:oauth:2.0:oob"
                    self.answer(200, {"access_token": outer.token, "token_type": "Bearer"})
                else:
                    assert self.path == "/services/control/api/v1/runtimes/r-test/mounts"
                    self.check()
                    mount = json.loads(body)
                    outer.calls.append(f"mount readonly={mount['readonly']}")
                    Path(mount["path"], "MyDrive").mkdir(parents=True)
                    self.answer(201, {})

            def do_DELETE(self) -> None:
                self.check()
                query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(self.path).query))
                outer.calls.append("unmount")
                shutil.rmtree(query["path"])
                self.answer(204, None)

            def check(self) -> None:
                assert self.headers["Authorization"] == f"Bearer {outer.token}"

            def answer(self, status: int, body: dict[str, Any] | None) -> None:
                raw = b"" if body is None else json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/services/control/"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def control() -> Iterator[FakeControl]:
    fake = FakeControl()
    yield fake
    fake.server.shutdown()
    fake.server.server_close()


async def test_a_plain_client_gets_a_link_and_pastes_the_code(
    start: Callable[..., Runtime], control: FakeControl, tmp_path: Path
) -> None:
    runtime = start(MINICOLAB_CONTROL_URL=control.url, MINICOLAB_PUBLIC_URL="http://localhost:8000/")
    point = tmp_path / "drive"
    kernel_id = await runtime.start_session()
    async with runtime.http() as http:
        client = await runtime.connect(http, kernel_id)
        for code, said in ((" the-code ", f"Mounted at {point}\n"), ("wrong", None)):
            running = await client.execute(
                mount_code(point, force_remount=False) if said else "drive.mount('/tmp/mc-none')", page=False
            )
            link, question = await client.each(
                lambda m: m["msg_type"] == "stream" and "http" in m["content"]["text"],
                lambda m: m["msg_type"] == "input_request",
            )
            assert link["content"]["text"].startswith(
                "Go to this URL in a browser: http://localhost:8000/services/"
            )
            url = urllib.parse.urlsplit(link["content"]["text"].split()[-1])
            query = dict(urllib.parse.parse_qsl(url.query))
            assert url.path == "/services/control/oauth/authorize"
            assert query["code_challenge_method"] == "S256"
            assert query["response_type"] == "code"
            assert query["client_id"] == "r-test"
            assert query["scope"] == "drive.mount"
            assert query["redirect_uri"] == "urn:ietf:wg:oauth:2.0:oob"
            assert len(query["state"]) >= 16
            control.challenge = query["code_challenge"]
            assert "Enter your authorization code:" in question["content"]["prompt"]
            await client.send("input_reply", {"value": code, "status": "ok"}, channel="stdin")
            messages = await client.result(running)
            if said:
                assert said in text_of(messages)
            else:
                name, sentence = error_of(messages)
                assert name == "AuthorizationError"
                assert "authorization code is not valid" in sentence
        await client.result(await client.execute("drive.flush_and_unmount()", page=False))
        assert control.calls == ["token", "mount readonly=False", "token", "unmount"]
        assert not point.exists()
        await client.close()


def test_the_challenge_is_that_of_the_standard() -> None:
    # RFC 7636, appendix B
    verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
    assert challenge(verifier) == "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"


def test_a_control_service_that_is_not_there_is_told_in_a_sentence() -> None:
    control = Control("http://127.0.0.1:9/services/control/", "http://localhost/services/control/", "r-x")
    with pytest.raises(ControlError, match="cannot be reached"):
        control.sign_in(lambda url: "code")
    with pytest.raises(ControlError, match="No authorization code"):
        control.sign_in(lambda url: " ")
    with pytest.raises(ControlError, match="does not run in a minicolab runtime"):
        Control.from_environment({})


# -- questions to the page --------------------------------------------------------------------------------------------


async def test_a_page_that_lists_a_request_answers_it(page: Socket) -> None:
    code = "from google.colab import output\nprint(output.eval_js('1 + 1') + 1)"
    running = await page.execute(code, supports=["cell_javascript_eval"])
    request = await page.until(lambda m: m["msg_type"] == "colab_request")
    assert request["content"]["request"] == {"script": "1 + 1"}
    assert request["parent_header"]["session"] == page.session
    await page.send(
        "input_reply",
        {"value": {"type": "colab_reply", "colab_msg_id": -1, "data": 7}, "status": "ok"},
        channel="stdin",
    )
    await page.reply(request, data=2)
    assert text_of(await page.result(running)) == "3\n"


@pytest.mark.parametrize(
    "code",
    [
        "output.eval_js('1')",
        "files.upload()",
        "userdata.get('KEY')",
        "snippets.register('x')",
        "_message.blocking_request('get_ipynb')",
        "output.serve_kernel_port_as_iframe(8000)",
        "open('f.txt', 'w').close(); files.download('f.txt')",
    ],
)
@pytest.mark.parametrize("has_page", [True, False])
async def test_what_needs_a_page_fails_at_once_where_nobody_can_answer(
    page: Socket, code: str, has_page: bool
) -> None:
    imports = "from google.colab import output, files, userdata, snippets, _message\n"
    with Stopwatch() as watch:
        messages = await page.result(await page.execute(imports + code, page=has_page))
    assert watch.seconds < 5
    name, said = error_of(messages)
    assert name == "MessageError"
    assert ("not available in this notebook page yet" in said) is has_page


async def test_secrets_are_given_refused_or_missing(page: Socket) -> None:
    for answer, said in (
        ({"exists": True, "access": True, "payload": "s3cret"}, "s3cret"),
        ({"exists": True, "access": False}, "NotebookAccessError"),
        ({"exists": False}, "SecretNotFoundError"),
    ):
        code = (
            "from google.colab import userdata\n"
            "try: print(userdata.get('KEY'))\n"
            "except Exception as e: print(type(e).__name__)"
        )
        running = await page.execute(code, supports=["GetSecret"])
        request = await page.until(lambda m: m["msg_type"] == "colab_request")
        assert request["content"]["request"] == {"key": "KEY"}
        await page.reply(request, data=answer)
        assert text_of(await page.result(running)).strip() == said


async def test_an_upload_lands_in_the_working_folder_under_a_free_name(
    runtime: Runtime, page: Socket
) -> None:
    (runtime.root / "data.csv").write_text("old")
    (runtime.root / ".uploads").mkdir(exist_ok=True)
    (runtime.root / ".uploads" / "1").write_text("new")
    code = "from google.colab import files\nprint(files.upload())"
    running = await page.execute(code, supports=["files_upload"])
    request = await page.until(lambda m: m["msg_type"] == "colab_request")
    await page.reply(request, data={"files": [{"name": "data.csv", "path": ".uploads/1"}]})
    said = text_of(await page.result(running))
    assert said == "Saving data.csv to data (1).csv\n{'data (1).csv': b'new'}\n"
    assert (runtime.root / "data.csv").read_text() == "old"


async def test_clear_can_name_tags(page: Socket) -> None:
    code = "from google.colab import output\noutput.clear(wait=True, output_tags='a')"
    messages = await page.result(await page.execute(code))
    clear = next(m["content"] for m in messages if m["msg_type"] == "clear_output")
    assert clear == {"wait": True, "output_tags": ["a"]}


async def test_javascript_can_call_python(page: Socket) -> None:
    code = (
        "from google.colab import output\n"
        "output.register_callback('add', lambda a, b=0: a + b)\n"
        "print(output._js._invoke_function('add', '[1]', '{\"b\": 2}'))"
    )
    assert text_of(await page.result(await page.execute(code))) == "3\n"


async def test_every_name_that_notebooks_import_is_there(page: Socket) -> None:
    code = (
        "import google.colab\n"
        "from google.colab import auth, data_table, drive, errors, files, output, patches, runtime, snippets\n"
        "from google.colab import syntax, userdata, widgets\n"
        "from google.colab.errors import Error, AuthorizationError, RuntimeManagementError, WidgetException\n"
        "from google.colab.output import eval_js\n"
        "from google.colab.patches import cv2_imshow\n"
        "from google.colab._message import blocking_request, MessageError\n"
        "try:\n    auth.authenticate_user(project_id='p')\n"
        "except errors.AuthorizationError as e: print('drive.mount()' in str(e))\n"
        "try:\n    files.download('/no/such')\nexcept FileNotFoundError as e: print(e)\n"
        "try:\n    userdata.get('a b')\nexcept ValueError as e: print('white space' in str(e))\n"
    )
    said = text_of(await page.result(await page.execute(code)))
    assert said == "True\nCannot find file: /no/such\nTrue\n"


def test_google_stays_a_namespace_for_others() -> None:
    sources = Path(__file__).parents[3] / "images" / "runtime" / "src" / "google"
    assert not (sources / "__init__.py").exists()
    assert (sources / "colab" / "__init__.py").exists()
