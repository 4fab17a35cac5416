"""The trash."""

from __future__ import annotations

from hub.documents.api.base import DriveHandler, entry_model


class TrashHandler(DriveHandler):
    """`trash`"""

    async def get(self) -> None:
        found = await self.run(self.files.list_trash)
        self.reply(
            {"items": [entry_model(e) for e in found], "total": len(found), "offset": 0, "limit": len(found)}
        )

    async def delete(self) -> None:
        self.reply({"deleted": await self.run(self.files.empty_trash)})


class TrashedHandler(DriveHandler):
    """`trash/<id>`"""

    async def delete(self, file_id: str) -> None:
        await self.run(self.files.delete_forever, file_id)
        self.set_status(204)
        self.finish()


class RestoreHandler(DriveHandler):
    """`files/<id>/restore`"""

    async def post(self, file_id: str) -> None:
        self.reply_entry(await self.run(self.files.restore, file_id))
