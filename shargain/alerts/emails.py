"""Alerts as e-mail to a target's owner, where the settings say from whom they come."""

from django.conf import settings
from django.core.mail import EmailMessage

from shargain.alerts.models import PREDICTED, Alert

MAX_NAME = 200


def is_on() -> bool:
    return bool(settings.ALERT_EMAIL_FROM)


def send(alert: Alert, target_name: str, recipient: str) -> None:
    """Send one e-mail. Raises whatever the mail backend does; the event id lets a reader tell a repeated one."""
    # A name is text from outside: a line break in it must not become a header.
    name = " ".join(target_name.split())[:MAX_NAME]
    subject, lines = _text(alert, name)
    EmailMessage(
        subject,
        "\n".join(lines),
        from_email=settings.ALERT_EMAIL_FROM,
        to=[recipient],
        headers={"X-Shargain-Event-Id": str(alert.event_id)},
    ).send()


def _text(alert: Alert, name: str) -> tuple[str, list[str]]:
    end = f"{alert.period_end:%Y-%m-%d %H:%M} UTC" if alert.period_end else "no end"
    lines = [
        f"Target: {name}",
        f"Used: {alert.used:,} of {alert.limit:,} offers",
        f"Period: {alert.period_start:%Y-%m-%d %H:%M} UTC to {end}",
    ]
    if alert.threshold == PREDICTED:
        lines.append(f"At this pace it is used up on {alert.runs_out_at:%Y-%m-%d %H:%M} UTC.")
        return f"{name}: the quota will be used up before its period ends", lines
    if alert.used >= alert.limit:
        lines.append("New offers are discarded until the period ends or the limit rises.")
    return f"{name}: {alert.threshold} % of the quota is used", lines
