"""What renewal tells a project. A receiver that fails is logged by Django and holds nothing up."""

from django.dispatch import Signal

gap_found = Signal()
"""sender: Subscription; target_id, start, end: a time in which no quota rules a target that has a plan, so that
nothing limits it. It may lie ahead, when it can still be closed, or behind, where a period was armed too late."""
