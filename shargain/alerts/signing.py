"""How webhooks are signed: HMAC-SHA256 of the moment and the body, with a secret of the endpoint's own."""

import hashlib
import hmac
import secrets

from django.utils.crypto import salted_hmac

SIGNATURE_HEADER = "Shargain-Signature"
EVENT_HEADER = "Shargain-Event-Id"
MARK = "shw_"
_PURPOSE = "shargain.alerts.endpoint"


def new_salt() -> str:
    return secrets.token_hex(16)


def secret_of(salt: str) -> str:
    """The secret of an endpoint, which only SECRET_KEY and its salt together give."""
    return MARK + salted_hmac(_PURPOSE, salt, algorithm="sha256").hexdigest()


def signature(secret: str, timestamp: int, body: bytes) -> str:
    """The header's value: `t=<unix seconds>,v1=<hex>`."""
    signed = f"{timestamp}.".encode() + body
    return f"t={timestamp},v1={hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()}"
