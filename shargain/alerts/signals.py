"""What alerts tell a project. A receiver that fails is logged by Django and holds nothing up."""

from django.dispatch import Signal

threshold_reached = Signal()
"""sender: Alert; alert: the one that was raised just now. It is sent once, after the commit, by the process that
raised it. What must not be lost if that process dies then belongs into a webhook, which is tried again."""
