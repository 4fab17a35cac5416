"""The endpoints of limits, budgets and usage."""

from __future__ import annotations

import asyncio
import csv
import io
import math
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

from pydantic import ValidationError

from hub.control.handlers import ControlHandler
from hub.control.refusals import as_refusal
from hub.control.usage import exposition
from hub.control.views import balance_model, grant_model, iso, limits_model, usage_model
from hub.quota_settings import QuotaSettings
from hub.web.body import only_fields, text_field
from hub.web.errors import ApiError, bad_request, conflict, not_found, printable
from quota import budgets, metering
from quota.model import Charge, Filter, Grant, Kind, Unit, Who
from quota.service import Refused
from quota.windows import zone_of

DEFAULT_KIND = Kind("NONE", "STANDARD")
REPORT_DAYS = 30
MOST_DAYS = 3660
MOST_HOURS = 1_000_000.0
MOST_EXTENSION_SECONDS = 30 * 86_400.0


class ExtendHandler(ControlHandler):
    """`runtimes/<id>/extend`: a longer life, as often as the settings allow."""

    async def post(self, runtime_id: str) -> None:
        session = self.live(runtime_id)
        try:
            session = await self.control.orchestrator.ends.extend(session)
        except Refused as refused:
            kind = Kind(session.accelerator, session.shape)
            error = as_refusal(self.control, refused.denied, self.who(), kind)
            error.details.pop("offer")
            raise error from None
        self.reply(self.model(session))


class RestoreHandler(ControlHandler):
    """`runtimes/<id>/restore`: the files of an earlier runtime, into /content."""

    async def post(self, runtime_id: str) -> None:
        session = self.live(runtime_id)
        body = self.json_body()
        only_fields(body, {"snapshot_id"})
        wanted = text_field(body, "snapshot_id", max_length=32)
        with self.control.snapshots.opened(session.user, wanted) as path:
            if path is None:
                raise not_found("No such snapshot.")
            files = await self.control.orchestrator.backend.restore(session.id, snapshot=path)
        detail = {"snapshot": wanted, "files": files}
        self.control.sessions.ledger.record(session.id, "restored", detail, self.control.clock.now())
        self.reply({"files": files})


class SnapshotsHandler(ControlHandler):
    """`snapshots`: /content of my ended runtimes."""

    async def get(self) -> None:
        found = await asyncio.to_thread(self.control.snapshots.of, self.user.name)
        self.reply(
            {
                "items": [
                    {
                        "id": s.id,
                        "name": s.name,
                        "file_id": s.file_id,
                        "size_bytes": s.size_bytes,
                        "created": iso(s.created),
                    }
                    for s in found
                ]
            }
        )


class QuotaHandler(ControlHandler):
    """`quota`: my limits, and what is left of my budgets."""

    def get(self) -> None:
        self.reply(self.quota_of(self.who()))

    def quota_of(self, who: Who) -> dict[str, Any]:
        ends, sessions = self.control.orchestrator.ends, self.control.sessions
        live = sessions.ledger.live(who.user)
        ready = [s for s in live if s.ready is not None]
        flavors = self.control.accelerators.flavors(frozenset())
        return {
            "user": who.user,
            "groups": sorted(who.groups),
            "limits": limits_model(ends.limits(who, DEFAULT_KIND)),
            "live": len(live),
            "rate_per_hour": {
                Unit.ACCELERATOR_HOURS: sum(s.price for s in ready),
                Unit.CPU_HOURS: sum(s.cpus for s in ready),
            },
            "budgets": [
                balance_model(b) for b in sessions.balances(ends.rules, budgets.of_user(ends.rules, who))
            ],
            "prices": {f.name: budgets.price_of(ends.rules, f.name) for f in flavors if f.name != "NONE"},
            "keep_content": sessions.ledger.keeps_content(who.user),
            "snapshot_max_bytes": self.control.orchestrator.snapshot_max,
        }


class AdminQuotaHandler(QuotaHandler):
    """`admin/quota?user=NAME`: anybody's limits and budgets, with the groups of their last runtime."""

    def get(self) -> None:
        self.admin()
        user = self.get_query_argument("user", "")
        if not user or len(user) > 255:
            raise bad_request("bad_user", "user must name a user.", field="user")
        live = self.control.sessions.ledger.live(user)
        teams = live[-1].teams if live else _teams_of(self, user)
        self.reply(self.quota_of(Who(user, teams)))


def _teams_of(handler: ControlHandler, user: str) -> frozenset[str]:
    found, _ = handler.control.sessions.ledger.find(Filter(user=user), 0, 1)
    return found[0].teams if found else frozenset()


class KeepContentHandler(ControlHandler):
    """`quota/keep_content`: whether /content is kept in Drive when a runtime of mine ends."""

    async def put(self) -> None:
        body = self.json_body()
        only_fields(body, {"keep"})
        keep = body.get("keep")
        if not isinstance(keep, bool):
            raise bad_request("bad_type", "keep must be true or false.", field="keep")
        if keep and self.control.orchestrator.snapshot_max == 0:
            raise conflict("snapshots_off", "Files of runtimes are not kept on this service.")
        self.control.sessions.ledger.keep_content(self.user.name, keep)
        await self.control.orchestrator.keep_content_of_running(self.user.name)
        self.reply({"keep_content": keep})


class UsageHandler(ControlHandler):
    """`usage`: what was used, by day, user, team or accelerator, as JSON or CSV."""

    def get(self) -> None:
        by = self.get_query_argument("by", "day")
        if by not in metering.BY:
            raise bad_request("bad_by", f"by must be one of: {', '.join(metering.BY)}.", field="by")
        kind = self.get_query_argument("format", "json")
        if kind not in ("json", "csv"):
            raise bad_request("bad_format", "format must be json or csv.", field="format")
        zone = zone_of(self.control.orchestrator.ends.rules.time_zone)
        since, until, first, last = self._span(zone)
        charges = self._charges(since)
        lines, total = metering.report(charges, by, since, until, zone)
        if kind == "csv":
            self._csv(by, lines)
            return
        self.reply(
            {
                "by": by,
                "since": first,
                "until": last,
                "items": [usage_model(line, by) for line in lines],
                "total": usage_model(total),
            }
        )

    def _charges(self, since: datetime) -> list[Charge]:
        user = self.get_query_argument("user", self.user.name)
        if user != self.user.name:
            self.admin()
        charges = self.control.sessions.charges(since)
        return charges if user == "*" else [c for c in charges if c.user == user]

    def _span(self, zone: tzinfo) -> tuple[datetime, datetime, str, str]:
        """Return (since, until) as instants and as days: `until` is the last day that counts."""
        today = self.control.clock.now().astimezone(zone).replace(tzinfo=None)
        last = self._day("until") or today
        first = self._day("since") or last - timedelta(days=REPORT_DAYS - 1)
        if first > last or (last - first).days > MOST_DAYS:
            message = f"since must be a day before until, at most {MOST_DAYS} days."
            raise bad_request("bad_span", message, field="since")
        return (
            _midnight(first, zone),
            _midnight(last + timedelta(days=1), zone),
            f"{first:%Y-%m-%d}",
            f"{last:%Y-%m-%d}",
        )

    def _day(self, name: str) -> datetime | None:
        text = self.get_query_argument(name, None)
        if text is None:
            return None
        try:
            day = datetime.strptime(text, "%Y-%m-%d")  # noqa: DTZ007  # a day of the calendar, without a zone
        except ValueError:
            day = datetime.min  # noqa: DTZ901
        if len(text) != 10 or not 1970 <= day.year <= 2999:
            raise bad_request("bad_day", f"{name} must be a day such as 2026-01-31.", field=name)
        return day

    def _csv(self, by: str, lines: list[metering.Usage]) -> None:
        out = io.StringIO()
        table = csv.writer(out, lineterminator="\n")
        table.writerow([by, "sessions", "seconds", "accelerator_hours", "cpu_hours"])
        for u in lines:
            row = [u.sessions, f"{u.seconds:.3f}", f"{u.accelerator_hours:.6f}", f"{u.cpu_hours:.6f}"]
            table.writerow([_cell(u.key), *row])
        self.set_header("Content-Type", "text/csv; charset=utf-8")
        self.set_header("Content-Disposition", f'attachment; filename="usage-by-{by}.csv"')
        self.finish(out.getvalue())


def _cell(text: str) -> str:
    """Return text that a spreadsheet takes for text, not for a formula."""
    return f"'{text}" if text[:1] in "=+-@\t\r" else text


def _midnight(day: datetime, zone: tzinfo) -> datetime:
    return day.replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=zone).astimezone(UTC)


class AdminExtendHandler(ControlHandler):
    """`admin/runtimes/<id>/extend`: a longer life for anybody's runtime."""

    async def post(self, runtime_id: str) -> None:
        self.admin()
        session = self.control.sessions.ledger.get(runtime_id)
        if session is None:
            raise not_found("No such runtime.")
        body = self.json_body()
        only_fields(body, {"seconds"})
        seconds = number_field(body, "seconds", most=MOST_EXTENSION_SECONDS)
        if session.state != "ready":
            raise conflict("not_ready", f"The runtime is {session.state}; only a ready one can be extended.")
        session = await self.control.orchestrator.ends.extend_by(session, seconds, f"admin {self.user.name}")
        self.reply(self.model(session))


class GrantsHandler(ControlHandler):
    """`admin/grants`: hours on top of budgets."""

    def get(self) -> None:
        self.admin()
        offset, limit = self.page()
        every = self.control.sessions.ledger.grants(datetime(1970, 1, 1, tzinfo=UTC))[::-1]
        items = [grant_model(g) for g in every[offset : offset + limit]]
        self.reply({"items": items, "total": len(every), "offset": offset, "limit": limit})

    async def post(self) -> None:
        self.admin()
        body = self.json_body()
        only_fields(body, {"budget", "holder", "hours", "note"})
        ends = self.control.orchestrator.ends
        name = text_field(body, "budget", max_length=64)
        if name not in {b.name for b in ends.rules.budgets}:
            known = ", ".join(sorted(b.name for b in ends.rules.budgets)) or "none"
            message = f"There is no budget '{printable(name, 40)}'. Budgets: {known}."
            raise ApiError(400, "unknown_budget", message, field="budget")
        holder = text_field(body, "holder", max_length=255)
        if not holder:
            raise bad_request("bad_holder", "holder must name a user or a team.", field="holder")
        hours = number_field(body, "hours", most=MOST_HOURS)
        note = text_field(body, "note", default="", max_length=200)
        grant = Grant(name, holder, hours, note, self.user.name, self.control.clock.now())
        self.control.sessions.ledger.grant(grant)
        await ends.refresh_budgets()
        self.reply(grant_model(grant), 201)


class ReloadHandler(ControlHandler):
    """`admin/reload`: new limits, for running runtimes too; what `minicolab config reload` calls."""

    async def post(self) -> None:
        self.admin()
        body = self.json_body()
        only_fields(body, {"quota"})
        try:
            quota = QuotaSettings.model_validate(body.get("quota"))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(["quota", *(str(part) for part in first["loc"])])
            message = str(first["msg"]).removeprefix("Value error, ")
            raise bad_request("bad_settings", f"{where}: {printable(message, 200)}", field=where) from None
        changed = await self.control.orchestrator.ends.reload(quota)
        self.reply({"changed": changed})


class MetricsHandler(ControlHandler):
    """`metrics`: for Prometheus; administrators and their tokens only."""

    def get(self) -> None:
        self.admin()
        self.set_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
        self.finish(exposition(self.control.sessions))


def number_field(body: dict[str, Any], name: str, *, most: float) -> float:
    """Return a number above 0 and at most `most`, or raise 400."""
    value = body.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise bad_request("bad_type", f"{name} must be a number.", field=name)
    if not math.isfinite(value) or not 0 < value <= most:
        raise bad_request("bad_number", f"{name} must be above 0 and at most {most:g}.", field=name)
    return float(value)
