from argparse import ArgumentParser
from datetime import datetime, timedelta
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from shargain.api.models import ScraperToken

MAX_DAYS = 3650


class Command(BaseCommand):
    help = "Issue a token for a scraper. The token alone goes to standard output, this one time."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("username", help="the owner of the targets that the scraper posts to")
        parser.add_argument("name", help="which scraper it is for")
        parser.add_argument("--days", type=int, help="days until it expires; without it: never")

    def handle(self, *, username: str, name: str, days: int | None, **_options: Any) -> None:
        users = get_user_model()
        try:
            owner = users.objects.get_by_natural_key(username)
            token, plain = ScraperToken.issue(owner, name, _end(days))
        except users.DoesNotExist:
            raise CommandError(f"There is no user {username!r}: create it first.") from None
        except ValueError as error:
            raise CommandError(str(error)) from error
        self.stderr.write(f"{token} for {username}. Keep it now: it is not shown again.")
        self.stdout.write(plain)


def _end(days: int | None) -> datetime | None:
    if days is None:
        return None
    if not 1 <= days <= MAX_DAYS:
        raise ValueError(f"--days is {days}: give 1 to {MAX_DAYS}.")
    return timezone.now() + timedelta(days=days)
