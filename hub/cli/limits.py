"""`minicolab runtimes|sessions|usage|quota|group`: what runs, what ran, what was used, what is left."""

from __future__ import annotations

import argparse
import sys
from typing import Any
from urllib.parse import quote, urlencode

from hub.cli import simulate
from hub.cli.common import (
    CONFLICT,
    NOT_FOUND,
    TRY_LATER,
    USAGE,
    add_state,
    control_api,
    fail,
    hub_api,
    print_json,
    service_of,
)


def add_parsers(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    runtimes = commands.add_parser("runtimes", help="what runs now").add_subparsers(
        dest="action", required=True
    )
    listing = runtimes.add_parser("list", help="show every live runtime")
    listing.set_defaults(run=_list)
    stop = runtimes.add_parser("stop", help="end a runtime, with a reason its user can read")
    stop.add_argument("id")
    stop.add_argument("--reason", default="")
    stop.set_defaults(run=_stop)
    extend = runtimes.add_parser("extend", help="lengthen the life of a runtime")
    extend.add_argument("id")
    extend.add_argument("--by", required=True, help="how much longer, such as 2h")
    extend.set_defaults(run=_extend)
    sessions = commands.add_parser("sessions", help="show past and present runtimes")
    sessions.add_argument("--user", default="*", help="of one user (default: everybody)")
    sessions.add_argument("--limit", type=int, default=50)
    sessions.set_defaults(run=_sessions)
    usage = commands.add_parser("usage", help="show what was used")
    usage.add_argument("--by", choices=("day", "user", "team", "accelerator"), default="user")
    usage.add_argument("--user", default="*", help="of one user (default: everybody)")
    usage.add_argument("--since", help="first day, such as 2026-01-01")
    usage.add_argument("--until", help="last day")
    usage.add_argument("--csv", action="store_true", help="as CSV")
    usage.set_defaults(run=_usage)
    quota = commands.add_parser("quota", help="limits and budgets").add_subparsers(
        dest="action", required=True
    )
    show = quota.add_parser("show", help="show a user's limits, and what is left of their budgets")
    show.add_argument("user")
    show.set_defaults(run=_quota)
    simulate.add_parser(quota)
    grant = quota.add_parser("grant", help="add hours to a budget of a user or team")
    grant.add_argument("budget")
    grant.add_argument("holder", help="user or team")
    grant.add_argument("hours", type=float)
    grant.add_argument("--note", default="")
    grant.set_defaults(run=_grant)
    group = commands.add_parser("group", help="teams").add_subparsers(dest="action", required=True)
    groups = group.add_parser("list", help="show the groups and their members")
    groups.set_defaults(run=_groups)
    add = group.add_parser("add", help="put users into a group, made when it is not there")
    remove = group.add_parser("remove", help="take users out of a group")
    for parser, run in ((add, _group_add), (remove, _group_remove)):
        parser.add_argument("group")
        parser.add_argument("users", nargs="+")
        parser.set_defaults(run=run)
    for parser in (listing, stop, extend, sessions, usage, show, grant, groups, add, remove):
        add_state(parser)
        parser.add_argument("--json", action="store_true")


def _control(
    arguments: argparse.Namespace, method: str, path: str, body: dict[str, Any] | None = None
) -> Any:
    """Return control's answer, or end with the code that fits its refusal."""
    try:
        status, reply = control_api(service_of(arguments), method, path, body)
    except OSError as error:
        fail(TRY_LATER, f"The service does not answer ({error}). Is it up? See 'minicolab status'.")
    if status >= 400:
        message = reply.get("message") if isinstance(reply, dict) else None
        codes = {400: USAGE, 404: NOT_FOUND, 409: CONFLICT}
        fail(codes.get(status, TRY_LATER), message or f"The service answered with status {status}.")
    return reply


def _table(head: tuple[str, ...], rows: list[tuple[object, ...]], empty: str) -> None:
    if not rows:
        print(empty)
        return
    lines = [head, *([str(value if value is not None else "") for value in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    for line in lines:
        print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


def _list(arguments: argparse.Namespace) -> int:
    items = _control(arguments, "GET", "admin/runtimes?limit=200")["items"]
    if arguments.json:
        print_json(items)
        return 0
    rows: list[tuple[object, ...]] = [
        (
            r["id"],
            r["user"],
            r["file_name"],
            r["state"],
            r["accelerator"],
            r["ready"],
            r["end"]["at"] if r["end"] else "",
            r["end"]["kind"] if r["end"] else "",
        )
        for r in items
    ]
    head = ("runtime", "user", "notebook", "state", "accelerator", "ready", "ends", "by")
    _table(head, rows, "No runtime is live.")
    return 0


def _stop(arguments: argparse.Namespace) -> int:
    body = {"reason": arguments.reason}
    ended = _control(arguments, "DELETE", f"admin/runtimes/{quote(arguments.id, safe='')}", body)
    if arguments.json:
        print_json(ended)
    else:
        print(f"Runtime {ended['id']} of {ended['user']} has ended: {ended['reason']['message']}")
    return 0


def _extend(arguments: argparse.Namespace) -> int:
    from hub.settings import parse_duration

    try:
        seconds = parse_duration(arguments.by).total_seconds()
    except ValueError as error:
        fail(USAGE, f"--by {error}")
    path = f"admin/runtimes/{quote(arguments.id, safe='')}/extend"
    model = _control(arguments, "POST", path, {"seconds": seconds})
    if arguments.json:
        print_json(model)
    else:
        print(f"Runtime {model['id']} of {model['user']} now lives until {model['deadline']}.")
    return 0


def _sessions(arguments: argparse.Namespace) -> int:
    query = urlencode({"user": arguments.user, "limit": arguments.limit})
    items = _control(arguments, "GET", f"sessions?{query}")["items"]
    if arguments.json:
        print_json(items)
        return 0
    rows: list[tuple[object, ...]] = [
        (
            s["id"],
            s["user"],
            s["file_name"],
            s["state"],
            s["created"],
            s["ended"],
            s["reason"]["message"] if s["reason"] else "",
        )
        for s in items
    ]
    _table(("runtime", "user", "notebook", "state", "created", "ended", "reason"), rows, "No sessions yet.")
    return 0


def _usage(arguments: argparse.Namespace) -> int:
    asked = {"by": arguments.by, "user": arguments.user, "since": arguments.since, "until": arguments.until}
    query = {name: value for name, value in asked.items() if value is not None}
    if arguments.csv:
        sys.stdout.write(_control(arguments, "GET", f"usage?{urlencode({**query, 'format': 'csv'})}"))
        return 0
    reply = _control(arguments, "GET", f"usage?{urlencode(query)}")
    if arguments.json:
        print_json(reply)
        return 0
    lines = [(u[arguments.by], u) for u in reply["items"]] + [("total", reply["total"])]
    rows: list[tuple[object, ...]] = [
        (
            key,
            u["sessions"],
            f"{u['hours']:.2f}",
            f"{u['accelerator_hours']:.2f}",
            f"{u['cpu_hours']:.2f}",
        )
        for key, u in lines
    ]
    head = (arguments.by, "sessions", "hours", "accelerator-hours", "CPU-hours")
    _table(head, rows, "Nothing was used.")
    return 0


def _quota(arguments: argparse.Namespace) -> int:
    reply = _control(arguments, "GET", f"admin/quota?{urlencode({'user': arguments.user})}")
    if arguments.json:
        print_json(reply)
        return 0
    limits = reply["limits"]
    print(f"{reply['user']}: {reply['live']} of {limits['max_runtimes']} runtimes live")
    print(
        f"life {limits['max_lifetime_seconds'] / 3600:g} h, idle limit {limits['idle_limit_seconds'] / 60:g} min"
    )
    rows: list[tuple[object, ...]] = [
        (
            b["name"],
            b["holder"],
            b["unit"],
            f"{b['used']:.2f}",
            f"{b['limit']:g}",
            b["window"],
            b["resets_at"],
        )
        for b in reply["budgets"]
    ]
    head = ("budget", "holder", "unit", "used", "limit", "window", "resets")
    _table(head, rows, "No budget binds this user.")
    return 0


def _grant(arguments: argparse.Namespace) -> int:
    body = {
        "budget": arguments.budget,
        "holder": arguments.holder,
        "hours": arguments.hours,
        "note": arguments.note,
    }
    made = _control(arguments, "POST", "admin/grants", body)
    if arguments.json:
        print_json(made)
    else:
        print(f"{made['hours']:g} hours were added to the budget '{made['budget']}' of {made['holder']}.")
    return 0


# -- groups: the hub's ----------------------------------------------------------------------------------------------


def _hub(
    arguments: argparse.Namespace, method: str, path: str, body: dict[str, Any] | None = None
) -> tuple[int, Any]:
    try:
        return hub_api(service_of(arguments), method, path, body)
    except OSError as error:
        fail(TRY_LATER, f"The hub does not answer ({error}). Is the service up? See 'minicolab status'.")


def _groups(arguments: argparse.Namespace) -> int:
    _, items = _hub(arguments, "GET", "/groups")
    if arguments.json:
        print_json([{"name": g["name"], "users": g["users"]} for g in items])
        return 0
    rows: list[tuple[object, ...]] = [(g["name"], ", ".join(sorted(g["users"]))) for g in items]
    _table(("group", "members"), rows, "No groups yet. Make one with: minicolab group add GROUP USER")
    return 0


def _group_add(arguments: argparse.Namespace) -> int:
    name = quote(arguments.group, safe="")
    _hub(arguments, "POST", f"/groups/{name}")  # 409 when it is there
    return _change_members(arguments, "POST", "are now in")


def _group_remove(arguments: argparse.Namespace) -> int:
    return _change_members(arguments, "DELETE", "are no longer in")


def _change_members(arguments: argparse.Namespace, method: str, what: str) -> int:
    path = f"/groups/{quote(arguments.group, safe='')}/users"
    status, reply = _hub(arguments, method, path, {"users": arguments.users})
    if status >= 400:
        message = reply.get("message") if isinstance(reply, dict) else None
        fail(NOT_FOUND, message or f"The hub answered with status {status}.")
    if arguments.json:
        print_json({"name": reply["name"], "users": reply["users"]})
    else:
        print(f"{', '.join(arguments.users)} {what} the group '{arguments.group}'.")
    return 0
