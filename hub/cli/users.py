"""`minicolab user add|list|remove|password|link` and `minicolab token`."""

from __future__ import annotations

import argparse
import getpass
import sys
from urllib.parse import quote

from hub.auth.accounts import Account, AccountError, Accounts
from hub.cli.common import (
    CONFLICT,
    NOT_FOUND,
    TRY_LATER,
    USAGE,
    add_state,
    fail,
    hub_api,
    print_json,
    service_of,
    state_of,
)
from hub.installation import read_holder
from hub.settings import Service, load_service, service_file
from quota.clock import SystemClock


def add_parsers(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    user = commands.add_parser("user", help="accounts of this installation").add_subparsers(
        dest="action", required=True
    )
    add = user.add_parser("add", help="make an account; the password is asked for, or read from stdin")
    add.add_argument("name")
    add.add_argument("--admin", action="store_true", help="may administer the service")
    add.add_argument(
        "--link",
        action="store_true",
        help="no password: print a one-time sign-in link, alone on the last line",
    )
    add.set_defaults(run=_add)
    listing = user.add_parser("list", help="show the accounts")
    listing.add_argument("--json", action="store_true")
    listing.set_defaults(run=_list)
    remove = user.add_parser("remove", help="remove an account; its Drive stays")
    remove.add_argument("name")
    remove.set_defaults(run=_remove)
    password = user.add_parser("password", help="set a new password; asked for, or read from stdin")
    password.add_argument("name")
    password.set_defaults(run=_password)
    link = user.add_parser("link", help="print a one-time sign-in link")
    link.add_argument("name")
    link.set_defaults(run=_link)
    token = commands.add_parser("token", help="print an API token of a user, alone on the last line")
    token.add_argument("name")
    token.add_argument("--note", default="made by the command line")
    token.set_defaults(run=_token)
    for parser in (add, listing, remove, password, link, token):
        add_state(parser)


def _accounts(arguments: argparse.Namespace) -> Accounts:
    path = state_of(arguments) / "databases" / "accounts.sqlite"
    return Accounts(path, SystemClock())


def _read_password() -> str:
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    first = getpass.getpass("Password: ")
    if first != getpass.getpass("Password again: "):
        fail(USAGE, "The two passwords differ.")
    return first


def _refuse(error: AccountError) -> None:
    codes = {"name_taken": CONFLICT, "no_such_user": NOT_FOUND}
    fail(codes.get(error.code, USAGE), str(error))


def _add(arguments: argparse.Namespace) -> int:
    accounts = _accounts(arguments)
    try:
        password = None if arguments.link else _read_password()
        account = accounts.add(arguments.name, password=password, admin=arguments.admin)
    except AccountError as error:
        _refuse(error)
    else:
        _tell_hub(arguments, account)
        print(f"User '{account.name}' was added{' as an administrator' if account.admin else ''}.")
        if arguments.link:
            return _link(arguments)
    return 0


def _tell_hub(arguments: argparse.Namespace, account: Account) -> None:
    """Make the account known to a running hub, so that a token can be made before the first sign-in."""
    if _hub_is_up(arguments):
        _ensure_hub_user(service_of(arguments), account)


def _hub_is_up(arguments: argparse.Namespace) -> bool:
    """Return whether there is a hub to tell: one of `up`, or, in a container of the hub, the one that keeps it running."""
    state = state_of(arguments)
    return read_holder(state) is not None or (
        service_file(state).exists() and bool(load_service(state).addresses.hosts)
    )


def _ensure_hub_user(service: Service, account: Account) -> None:
    try:
        hub_api(service, "POST", f"/users/{quote(account.name)}", {"admin": account.admin})
    except OSError as error:
        fail(TRY_LATER, f"The hub does not answer ({error}). Is the service up? See 'minicolab status'.")


def _list(arguments: argparse.Namespace) -> int:
    rows = _accounts(arguments).list()
    if arguments.json:
        print_json(
            [
                {
                    "name": a.name,
                    "admin": a.admin,
                    "has_password": a.has_password,
                    "created": a.created.isoformat(),
                }
                for a in rows
            ]
        )
        return 0
    for account in rows:
        print(
            f"{account.name:32} {'admin' if account.admin else 'user':6} {'' if account.has_password else 'no password set'}".rstrip()
        )
    if not rows:
        print("No accounts yet. Add one with: minicolab user add NAME")
    return 0


def _remove(arguments: argparse.Namespace) -> int:
    if not _accounts(arguments).remove(arguments.name):
        fail(NOT_FOUND, f"No user named '{arguments.name}'.")
    if _hub_is_up(arguments):
        hub_api(service_of(arguments), "DELETE", f"/users/{quote(arguments.name)}")
    print(f"User '{arguments.name}' was removed. The files in the Drive stay.")
    return 0


def _password(arguments: argparse.Namespace) -> int:
    try:
        _accounts(arguments).set_password(arguments.name, _read_password())
    except AccountError as error:
        _refuse(error)
    print(f"The password of '{arguments.name}' was set.")
    return 0


def _link(arguments: argparse.Namespace) -> int:
    accounts = _accounts(arguments)
    if accounts.get(arguments.name) is None:
        fail(NOT_FOUND, f"No user named '{arguments.name}'.")
    print(f"{service_of(arguments).app_origin}/hub/welcome?token={accounts.make_link(arguments.name)}")
    return 0


def _token(arguments: argparse.Namespace) -> int:
    service = service_of(arguments)
    name = arguments.name
    if service.settings.auth.kind == "local":
        account = _accounts(arguments).get(name)
        if account is None:
            fail(NOT_FOUND, f"No user named '{name}'.")
        _ensure_hub_user(service, account)
    try:
        status, reply = hub_api(service, "POST", f"/users/{quote(name)}/tokens", {"note": arguments.note})
    except OSError as error:
        fail(TRY_LATER, f"The hub does not answer ({error}). Is the service up? See 'minicolab status'.")
    if status == 404:
        fail(NOT_FOUND, f"No user named '{name}' has signed in yet.")
    if status >= 400:
        fail(TRY_LATER, f"The hub refused the token: {reply}")
    print(reply["token"])
    return 0
