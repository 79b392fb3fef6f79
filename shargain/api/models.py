"""The bearer tokens that scrapers present."""

import hashlib
import re
import secrets
from datetime import datetime, timedelta
from typing import Self

from django.conf import settings
from django.contrib.auth.models import AbstractBaseUser
from django.db import models
from django.db.models import ExpressionWrapper, Q
from django.db.models.functions import Now
from django.utils import timezone

# A fixed mark lets secret scanners and people recognise a token that went astray.
MARK = "shg_"
PREFIX_LENGTH = len(MARK) + 6
MAX_NAME_LENGTH = 100

_SHAPE = re.compile(re.escape(MARK) + r"[A-Za-z0-9_-]{43}")
_USE_NOT_NOTED = Q(last_used_at=None) | Q(last_used_at__lt=Now() - timedelta(minutes=1))


class ScraperToken(models.Model):
    """One scraper's right to post offers for its owner's targets. Only the token's hash is kept."""

    name = models.CharField(max_length=MAX_NAME_LENGTH, help_text="Which scraper uses the token.")
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="scraper_tokens"
    )
    # A plain SHA-256 is enough: 256 random bits cannot be guessed, however fast the hash is.
    token_hash = models.CharField(max_length=64, unique=True, editable=False)
    prefix = models.CharField(
        max_length=PREFIX_LENGTH,
        editable=False,
        help_text="How the token begins, to recognise it by.",
    )
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    expires_at = models.DateTimeField(
        null=True, blank=True, help_text="The first moment at which it is refused. Empty: never."
    )
    revoked_at = models.DateTimeField(null=True, blank=True, editable=False)
    last_used_at = models.DateTimeField(
        null=True, blank=True, editable=False, help_text="To the minute."
    )

    is_use_due: bool  # only where `authenticate` asked for it

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix}…)"

    @classmethod
    def issue(
        cls, owner: AbstractBaseUser, name: str, expires_at: datetime | None = None
    ) -> tuple[Self, str]:
        """Make a token and return it with its plain text, which cannot be had again.

        Raises `ValueError` for an empty or overlong name and an end that is naive or past.
        """
        _check_name(name)
        _check_end(expires_at)
        plain = MARK + secrets.token_urlsafe(32)
        token = cls.objects.create(
            owner=owner,
            name=name,
            token_hash=_digest(plain),
            prefix=plain[:PREFIX_LENGTH],
            expires_at=expires_at,
        )
        return token, plain

    @classmethod
    def authenticate(cls, plain: str) -> Self | None:
        """Return the token of this plain text if it may be used now, and note its use.

        One look-up by hash decides, by the clock of PostgreSQL. Unknown, expired and revoked
        tokens and those of deactivated owners are the same `None`.
        """
        if not _SHAPE.fullmatch(plain):
            return None
        token = (
            cls.objects.filter(token_hash=_digest(plain), revoked_at=None, owner__is_active=True)
            .exclude(expires_at__lte=Now())
            .annotate(is_use_due=ExpressionWrapper(_USE_NOT_NOTED, models.BooleanField()))
            .first()
        )
        if token is not None and token.is_use_due:
            # At most one write a minute, whoever comes first: a token in use must not be a hot row.
            cls.objects.filter(_USE_NOT_NOTED, pk=token.pk).update(last_used_at=Now())
        return token

    def revoke(self) -> None:
        """Refuse the token from now on. A second call keeps the first moment."""
        type(self).objects.filter(pk=self.pk, revoked_at=None).update(revoked_at=Now())
        self.refresh_from_db(fields=["revoked_at"])


def _digest(plain: str) -> str:
    return hashlib.sha256(plain.encode()).hexdigest()


def _check_name(name: str) -> None:
    if not 1 <= len(name.strip()) <= len(name) <= MAX_NAME_LENGTH or "\0" in name:
        raise ValueError(
            f"The token's name is {name[:MAX_NAME_LENGTH]!r}: give 1 to {MAX_NAME_LENGTH}"
            " characters without NUL."
        )


def _check_end(expires_at: datetime | None) -> None:
    if expires_at is None:
        return
    if timezone.is_naive(expires_at):
        raise ValueError(f"expires_at is {expires_at}: give it a time zone.")
    if expires_at <= timezone.now():
        raise ValueError(f"expires_at is {expires_at}: give a moment in the future, or none.")
