"""Identities of drives and files in a SQL database. The folder is the truth; these rows give its files their ids."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, DateTime, Index, Integer, String, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    """The tables of this package."""


class DriveRow(Base):
    __tablename__ = "drive_drives"
    user: Mapped[str] = mapped_column(String(255), primary_key=True)
    id: Mapped[str] = mapped_column(String(32), unique=True, comment="random; names the folder")
    created: Mapped[datetime] = mapped_column(DateTime(timezone=True))


class FileRow(Base):
    __tablename__ = "drive_files"
    __table_args__ = (
        Index("drive_files_by_path", "drive", "path"),
        Index("drive_files_by_identity", "drive", "identity"),
    )
    id: Mapped[str] = mapped_column(String(64), primary_key=True, comment="128 random bits; what URLs name")
    drive: Mapped[str] = mapped_column(String(32))
    path: Mapped[str] = mapped_column(Text, comment="relative to the drive's folder")
    identity: Mapped[str] = mapped_column(
        String(80), comment="device, inode and birth: follows a rename made in a runtime"
    )
    signature: Mapped[str] = mapped_column(
        String(200), comment="changes whenever the content may have changed"
    )
    version: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), default=1)
    created: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    trashed: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    trashed_with: Mapped[str | None] = mapped_column(
        String(64), index=True, comment="the file that was put into the trash, for what lay in it"
    )


class KeyRow(Base):
    __tablename__ = "drive_idempotency"
    user: Mapped[str] = mapped_column(String(255), primary_key=True)
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    body: Mapped[str] = mapped_column(String(64), comment="SHA-256 of the request")
    result: Mapped[str] = mapped_column(String(64), comment="id of the file that was made")
    at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
