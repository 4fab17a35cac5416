"""Two users on one machine can not reach each other, by any route of any service; nobody reaches anything."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import requests

from support.kernel import Kernel
from support.patience import PATIENCE
from support.service import Running

DOCUMENTS = "/services/documents/api/v1"
CONTROL = "/services/control/api/v1"
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def ada(service: Running) -> dict[str, str]:
    """Ada's notebook and its live runtime, with what an intruder would like to have."""
    file = service.make_file("ada", "secret-plans.ipynb")
    runtime = service.start_runtime("ada", file["id"])
    ticket = service.ticket("ada", runtime["id"])
    service.execute("ada", runtime["id"], "open('/content/secret.txt','w').write('ada only')")
    return {
        "file": file["id"],
        "runtime": runtime["id"],
        "url": ticket["url"],
        "browser_url": ticket["browser_url"],
        "token": ticket["token"],
    }


def operations(openapi: Path) -> list[tuple[str, str]]:
    """Return every (method, path) of an OpenAPI file."""
    document = json.loads(openapi.read_text())
    prefix = document["servers"][0]["url"].rstrip("/") if document.get("servers") else ""
    verbs = {"get", "put", "post", "patch", "delete"}
    return [(m.upper(), prefix + p) for p, item in document["paths"].items() for m in item if m in verbs]


ALL = [
    *((m, p, "documents") for m, p in operations(ROOT / "hub/documents/openapi.json")),
    *((m, p, "control") for m, p in operations(ROOT / "hub/control/openapi.json")),
]


def filled(path: str, ada: dict[str, str], which: str) -> str:
    """Return the path with Ada's ids in place of its parameters."""
    out = path
    identity = ada["file"] if which == "documents" else ada["runtime"]
    while "{" in out:
        head, _, rest = out.partition("{")
        out = head + identity + rest.partition("}")[2]
    return out


@pytest.mark.parametrize(("method", "path", "which"), ALL, ids=[f"{m} {p}" for m, p, _ in ALL])
def test_the_other_user_sees_nothing_of_ada_on_this_route(
    service: Running, ada: dict[str, str], method: str, path: str, which: str
) -> None:
    body = {"json": {}} if method in ("POST", "PUT", "PATCH") else {}
    reply = service.api("bob", method, filled(path, ada, which), stream=True, **body)
    if "{" in path:
        assert reply.status_code in (400, 403, 404, 405, 415, 428), (reply.status_code, reply.text[:200])
    text = b"" if "event-stream" in reply.headers.get("Content-Type", "") else reply.content
    reply.close()
    assert b"secret-plans" not in text
    assert ada["token"].encode() not in text
    if method == "GET":
        assert ada["runtime"].encode() not in text or "{" in path


@pytest.mark.parametrize(("method", "path", "which"), ALL, ids=[f"{m} {p}" for m, p, _ in ALL])
def test_nobody_gets_an_answer_on_this_route(
    service: Running, ada: dict[str, str], method: str, path: str, which: str
) -> None:
    if path.rstrip("/").endswith(("/healthz", "/livez", "/oauth/token", "/oauth/authorize")):
        return
    reply = service.api(None, method, filled(path, ada, which), allow_redirects=False)
    assert reply.status_code in (401, 403, 404, 302), reply.status_code
    if reply.status_code == 302:
        assert "login" in reply.headers["Location"] or "oauth2/authorize" in reply.headers["Location"]


@pytest.mark.parametrize(
    "route",
    [
        "api/kernels",
        "api/sessions",
        "api/contents",
        "api/terminals",
        "api/status",
        "minicolab/activity",
        "minicolab/executions",
        "files/secret.txt",
        "api/me",
    ],
)
@pytest.mark.parametrize("who", ["bob's hub token", "bob's ticket", "nobody", "a changed ticket"])
def test_a_runtime_answers_its_owner_only(
    service: Running, ada: dict[str, str], route: str, who: str
) -> None:
    if who == "bob's ticket":
        file = service.make_file("bob")
        token = service.ticket("bob", service.start_runtime("bob", file["id"])["id"])["token"]
        service.end_runtimes("bob")
    else:
        token = {
            "bob's hub token": service.tokens["bob"],
            "nobody": "",
            "a changed ticket": ada["token"][:-2] + "xx",
        }[who]
    headers = {"Authorization": f"token {token}"} if token else {}
    assert requests.get(ada["url"] + route, headers=headers, timeout=PATIENCE).status_code in (401, 403, 404)
    assert (
        requests.get(
            ada["url"] + route, headers={"Authorization": f"token {ada['token']}"}, timeout=PATIENCE
        ).status_code
        < 500
    )


def test_a_websocket_to_anothers_kernel_is_refused(service: Running, ada: dict[str, str]) -> None:
    own = Kernel(ada["url"], ada["token"])
    with pytest.raises(Exception, match=r"40[134]"):
        Kernel(ada["url"], service.tokens["bob"], kernel_id=own.id)
    own.close()


def test_code_in_bobs_runtime_sees_neither_adas_files_nor_her_processes(
    service: Running, ada: dict[str, str]
) -> None:
    file = service.make_file("bob")
    runtime = service.start_runtime("bob", file["id"])
    folder = str(service.state)
    seen = service.execute(
        "bob",
        runtime["id"],
        f"import os, subprocess\nprint(os.path.exists({folder!r} + '/databases'), os.path.exists({folder!r} + '/drive'))\n"
        "print(subprocess.run('cat /proc/*/cmdline', shell=True, capture_output=True).stdout.decode('utf8', 'replace'))\n"
        "print(subprocess.run('grep -rs \"ada only\" /content /tmp /home /root /run 2>/dev/null', shell=True, capture_output=True).stdout)",
    )
    assert seen.startswith("False False")
    assert ada["runtime"] not in seen
    assert "b''" in seen


def test_a_plain_user_can_not_use_the_hub_to_start_or_see_servers(
    service: Running, ada: dict[str, str]
) -> None:
    for method, path in [
        ("POST", "/hub/api/users/bob/servers/r-aaaaaaaaaaaa"),
        ("POST", "/hub/api/users/ada/servers/r-aaaaaaaaaaaa"),
        ("DELETE", f"/hub/api/users/ada/servers/{ada['runtime']}"),
        ("GET", "/hub/api/users/ada"),
        ("GET", "/hub/api/users"),
        ("GET", "/hub/api/proxy"),
        ("POST", "/hub/api/users/ada/tokens"),
        ("GET", "/hub/api/services"),
        ("POST", "/hub/api/shutdown"),
    ]:
        reply = service.api("bob", method, path, json={})
        assert reply.status_code in (403, 404), (method, path, reply.status_code, reply.text)


def test_contents_and_rooms_of_the_page_are_closed_to_others(service: Running, ada: dict[str, str]) -> None:
    for method, path in [
        ("GET", f"/services/documents/api/contents/{ada['file']}/secret-plans.ipynb"),
        ("PUT", f"/services/documents/api/contents/{ada['file']}/secret-plans.ipynb"),
        ("DELETE", f"/services/documents/api/contents/{ada['file']}/secret-plans.ipynb"),
        ("PUT", f"/services/documents/api/collaboration/session/{ada['file']}/secret-plans.ipynb"),
        ("GET", f"/services/documents/api/collaboration/room/json:notebook:{ada['file']}"),
        ("GET", f"/services/documents/files/{ada['file']}/secret-plans.ipynb"),
        ("GET", f"/d/{ada['file']}"),
    ]:
        for user in ("bob", None):
            url = service.app + path if path.startswith("/d/") else service.url + path
            headers = {"Authorization": f"Bearer {service.tokens[user]}"} if user else {}
            body = {"json": {"type": "notebook", "format": "json"}} if method == "PUT" else {}
            reply = requests.request(
                method, url, headers=headers, timeout=PATIENCE, allow_redirects=False, **body
            )
            assert reply.status_code in (302, 401, 403, 404, 405), (user, method, path, reply.status_code)
            assert b"secret-plans" not in reply.content or user is None


def test_a_cookie_from_another_site_changes_nothing(service: Running) -> None:
    session = requests.Session()
    page = session.get(service.app + "/hub/login", timeout=PATIENCE)
    assert page.status_code == 200
    from support.service import PASSWORD

    form = {"username": "bob", "password": PASSWORD, "_xsrf": session.cookies.get("_xsrf", path="/hub/")}
    session.post(service.app + "/hub/login?next=/drive", data=form, timeout=PATIENCE)
    mine = session.get(f"{service.app}{DOCUMENTS}/me", timeout=PATIENCE)
    assert mine.status_code == 200, mine.text
    for origin in ("http://evil.example", f"http://bob.localhost:{service.port}", "null"):
        reply = session.post(
            f"{service.app}{DOCUMENTS}/files",
            json={"parent": "root", "type": "folder", "name": "x"},
            headers={"Origin": origin},
            timeout=PATIENCE,
        )
        assert (reply.status_code, reply.json()["code"]) == (403, "cross_site")
    reply = session.post(
        f"{service.app}{DOCUMENTS}/files",
        json={"parent": "root", "type": "folder", "name": "x"},
        headers={"Origin": service.app},
        timeout=PATIENCE,
    )
    assert reply.status_code == 201
