"""Base of the addresses whose shape is Jupyter's: the page's library asks for them, not our own clients."""

from __future__ import annotations

from typing import Any

from hub.web.body import parse_json
from hub.web.errors import bad_request
from hub.web.handlers import ApiHandler


class JupyterHandler(ApiHandler):
    """Reads JSON whatever its declared type: the page's library declares none.

    A form on another site could send such a body too, but not with the user's cookie: HubIdentity looks at the origin.
    """

    def json_body(self) -> dict[str, Any]:
        value = parse_json(self.request.body)
        if not isinstance(value, dict):
            raise bad_request("bad_body", "Request body must be a JSON object.")
        return value


class ExportFormats(JupyterHandler):
    """`api/nbconvert`: this process converts nothing; downloads in other formats are `api/v1`'s."""

    async def get(self) -> None:
        self.reply({})
