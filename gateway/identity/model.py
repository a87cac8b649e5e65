"""Tables of sign-ins: browsers, codes, refresh tokens, revoked access tokens, failed attempts."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, Index, func
from sqlalchemy.orm import Mapped, mapped_column

from gateway.database import Base


class SignIn(Base):
    """A person's browser that has signed in at the gateway's page; its cookie by digest only."""

    __tablename__ = "sign_in"

    id: Mapped[str] = mapped_column(primary_key=True)
    digest: Mapped[str] = mapped_column(unique=True)
    subject: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime] = mapped_column(index=True)
    ended_at: Mapped[datetime | None]


class TokenFamily(Base):
    """All tokens that descend from one sign-in; revoked as a whole."""

    __tablename__ = "token_family"

    id: Mapped[str] = mapped_column(primary_key=True)
    subject: Mapped[str]
    kind: Mapped[str]
    client: Mapped[str | None]
    audience: Mapped[str]
    scope: Mapped[str]
    sign_in: Mapped[str | None] = mapped_column(ForeignKey("sign_in.id"), index=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]


class AuthorizationCode(Base):
    """A code (RFC 6749 §4.1) by its digest, with all that it is bound to; used once.

    Attributes
    ----------
    application
        The ``client_id`` it was made for.
    client
        The tenant that its tokens will be for, as everywhere.
    family
        What it gave, so that a second use can take it back.
    """

    __tablename__ = "authorization_code"

    digest: Mapped[str] = mapped_column(primary_key=True)
    sign_in: Mapped[str] = mapped_column(ForeignKey("sign_in.id"), index=True)
    application: Mapped[str]
    redirect_uri: Mapped[str]
    challenge: Mapped[str]
    nonce: Mapped[str | None]
    is_openid: Mapped[bool]
    client: Mapped[str | None]
    scope: Mapped[str]
    family: Mapped[str | None] = mapped_column(ForeignKey("token_family.id"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime] = mapped_column(index=True)
    used_at: Mapped[datetime | None]


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
