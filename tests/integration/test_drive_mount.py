"""drive.mount from a plain client: the link, the consent page in a browser, the pasted code; and OAuth's hostile inputs."""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from playwright.sync_api import Browser

from support.browser import sign_in
from support.kernel import Kernel
from support.patience import PATIENCE
from support.service import Running

CONTROL = "/services/control"
OOB = "urn:ietf:wg:oauth:2.0:oob"


@pytest.fixture(scope="module")
def runtime(service: Running) -> dict[str, Any]:
    return service.start_runtime("ada", service.make_file("ada", "mounting.ipynb")["id"])


@pytest.mark.browser
def test_a_plain_client_mounts_by_link_and_pasted_code(
    service: Running, runtime: dict[str, Any], browser: Browser
) -> None:
    service.make_file("ada", "note.txt", kind="file", content="from the Drive")
    ticket = service.ticket("ada", runtime["id"])
    kernel = Kernel(ticket["url"], ticket["token"])
    context, page = sign_in(browser, service, "ada")

    def paste(prompt: str, printed: str) -> str:
        assert prompt == "Enter your authorization code:\n"
        link = re.search(r"Go to this URL in a browser: (\S+)", printed)
        assert link is not None
        page.goto(link[1])
        assert "mounting.ipynb" in page.inner_text("main")
        page.click("text=Connect to Drive")
        return page.inner_text("#code").strip()

    assert kernel.run("import os; print(os.path.exists('/content/drive'))") == "False\n"
    out = kernel.run("from google.colab import drive\ndrive.mount('/content/drive')", answer=paste)
    assert "Mounted at /content/drive" in out
    assert "from the Drive" in kernel.run("print(open('/content/drive/My Drive/note.txt').read())")
    again = kernel.run("drive.mount('/content/drive')", answer=paste)
    assert (
        'Drive already mounted at /content/drive; to attempt to forcibly remount, call drive.mount("/content/drive", force_remount=True).'
        in again
    )
    kernel.run("open('/content/drive/MyDrive/made-inside.txt', 'w').write('x')")
    names = [
        f["name"]
        for f in service.api("ada", "GET", "/services/documents/api/v1/files?parent=root&limit=200").json()[
            "items"
        ]
    ]
    assert "made-inside.txt" in names
    kernel.run("drive.flush_and_unmount()", answer=paste)
    assert kernel.run("import os; print(os.path.exists('/content/drive/MyDrive'))") == "False\n"
    assert "Drive not mounted, so nothing to flush and unmount." in kernel.run("drive.flush_and_unmount()")
    kernel.close()
    context.close()


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("drive.mount('/content/my drive')", "ValueError: Mountpoint must not contain a space."),
        (
            "open('/content/file','w').close(); drive.mount('/content/file')",
            "ValueError: Mountpoint must either be a directory or not exist",
        ),
        (
            "import os; os.makedirs('/content/full/x'); drive.mount('/content/full')",
            "ValueError: Mountpoint must not already contain files",
        ),
        ("drive.mount('/content/a/b/c')", "ValueError: Mountpoint must be in a directory that exists"),
        (
            "os.symlink('/tmp', '/content/link'); drive.mount('/content/link')",
            "ValueError: Mountpoint must not be a symlink",
        ),
    ],
)
def test_a_bad_mountpoint_gets_colabs_words(
    service: Running, runtime: dict[str, Any], code: str, text: str
) -> None:
    assert text in service.execute("ada", runtime["id"], f"import os\nfrom google.colab import drive\n{code}")


def pkce() -> tuple[str, str]:
    verifier = secrets.token_urlsafe(48)
    return verifier, base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")


def query(runtime_id: str, challenge: str, **changes: str | None) -> dict[str, str]:
    out = {
        "response_type": "code",
        "client_id": runtime_id,
        "redirect_uri": OOB,
        "scope": "drive.mount",
        "state": "s",
        "code_challenge": challenge,
        "code_challenge_method": "S256",
    }
    for name, value in changes.items():
        out.pop(name)
        if value is not None:
            out[name] = value
    return out


def consent(service: Running, user: str, parameters: dict[str, str]) -> requests.Response:
    """Press the button, as a signed-in person."""
    headers = {"Authorization": f"Bearer {service.tokens[user]}"}
    return requests.post(
        f"{service.url}{CONTROL}/oauth/authorize",
        params=parameters,
        data={"decision": "allow"},
        headers=headers,
        timeout=PATIENCE,
    )


def code_of(reply: requests.Response) -> str:
    match = re.search(r'id="code">([^<]+)<', reply.text)
    assert match is not None, reply.text
    return match[1]


def exchange(service: Running, **form: str) -> requests.Response:
    return requests.post(
        f"{service.url}{CONTROL}/oauth/token",
        data={"grant_type": "authorization_code", "redirect_uri": OOB, **form},
        timeout=PATIENCE,
    )


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"redirect_uri": "http://evil.example/"}, id="other-host"),
        pytest.param({"redirect_uri": OOB + "?a"}, id="changed"),
        pytest.param({"code_challenge": None}, id="no-challenge"),
        pytest.param({"code_challenge_method": "plain"}, id="plain"),
        pytest.param({"scope": "everything"}, id="scope"),
        pytest.param({"client_id": "r-aaaaaaaaaaaa"}, id="unknown-client"),
        pytest.param({"response_type": "token"}, id="implicit"),
    ],
)
def test_a_wrong_authorization_request_is_a_page_never_a_redirect(
    service: Running, runtime: dict[str, Any], changes: dict[str, str | None]
) -> None:
    reply = consent(service, "ada", query(runtime["id"], pkce()[1], **changes))
    assert reply.status_code == 400
    assert reply.history == []


def test_nobody_consents_for_another(service: Running, runtime: dict[str, Any]) -> None:
    assert consent(service, "bob", query(runtime["id"], pkce()[1])).status_code == 404


def test_a_code_works_once_for_its_client_with_its_verifier(
    service: Running, runtime: dict[str, Any]
) -> None:
    verifier, challenge = pkce()
    code = code_of(consent(service, "ada", query(runtime["id"], challenge)))
    wrong = exchange(service, code=code, client_id=runtime["id"], code_verifier="x" * 50)
    assert (wrong.status_code, wrong.json()["error"]) == (400, "invalid_grant")
    other = service.start_runtime("bob", service.make_file("bob")["id"])
    foreign = exchange(service, code=code, client_id=other["id"], code_verifier=verifier)
    assert (foreign.status_code, foreign.json()["error"]) == (400, "invalid_grant")
    right = exchange(service, code=code, client_id=runtime["id"], code_verifier=verifier)
    assert right.status_code == 200, right.text
    token = right.json()["access_token"]
    mounts = f"{service.url}{CONTROL}/api/v1/runtimes/{runtime['id']}/mounts"
    headers = {"Authorization": f"Bearer {token}"}
    assert requests.get(mounts, headers=headers, timeout=PATIENCE).status_code == 200
    elsewhere = [
        f"{CONTROL}/api/v1/runtimes",
        f"{CONTROL}/api/v1/runtimes/{other['id']}/mounts",
        "/services/documents/api/v1/files",
        "/hub/api/user",
    ]
    for path in elsewhere:
        assert requests.get(service.url + path, headers=headers, timeout=PATIENCE).status_code in (
            401,
            403,
            404,
        ), path
    reused = exchange(service, code=code, client_id=runtime["id"], code_verifier=verifier)
    assert (reused.status_code, reused.json()["error"]) == (400, "invalid_grant")
    assert requests.get(mounts, headers=headers, timeout=PATIENCE).status_code == 401, (
        "a code used twice takes its token back"
    )


def test_the_link_leads_the_person_back_after_signing_in(service: Running, runtime: dict[str, Any]) -> None:
    reply = requests.get(
        f"{service.app}{CONTROL}/oauth/authorize",
        params=query(runtime["id"], pkce()[1]),
        allow_redirects=False,
        timeout=PATIENCE,
    )
    assert reply.status_code == 302
    assert parse_qs(urlsplit(reply.headers["Location"]).query)["client_id"] == ["service-documents"]
