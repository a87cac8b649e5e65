"""Tables of sign-ins: refresh tokens, revoked access tokens, failed attempts."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, Index, func
from sqlalchemy.orm import Mapped, mapped_column

from gateway.database import Base


class TokenFamily(Base):
    """All tokens that descend from one sign-in; revoked as a whole."""

    __tablename__ = "token_family"

    id: Mapped[str] = mapped_column(primary_key=True)
    subject: Mapped[str]
    kind: Mapped[str]
    client: Mapped[str | None]
    audience: Mapped[str]
    scope: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]


class RefreshToken(Base):
    """One refresh token, known by its digest only; used once."""

    __tablename__ = "refresh_token"

    digest: Mapped[str] = mapped_column(primary_key=True)
    family: Mapped[str] = mapped_column(ForeignKey("token_family.id"), index=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    used_at: Mapped[datetime | None]


class RevokedToken(Base):
    """An access token that must no longer open anything, until it would have expired."""

    __tablename__ = "revoked_token"

    jti: Mapped[str] = mapped_column(primary_key=True)
    expires_at: Mapped[datetime] = mapped_column(index=True)


class FailedLogin(Base):
    """One wrong password; ``key`` is an account's or an address's digest."""

    __tablename__ = "failed_login"
    __table_args__ = (Index("ix_failed_login_key_at", "key", "at"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str]
    at: Mapped[datetime] = mapped_column(server_default=func.now())


class BatchPass(Base):
    """A token, known by its digest only, that opens the files of one batch to one task."""

    __tablename__ = "batch_pass"

    id: Mapped[str] = mapped_column(primary_key=True)
    digest: Mapped[str] = mapped_column(unique=True)
    client: Mapped[str]
    batch_id: Mapped[str]
    expires_at: Mapped[datetime]
