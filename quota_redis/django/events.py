"""What upkeep tells a project: Django signals, sent by the tasks, the commands and the admin alike.

A receiver that fails is logged by Django and holds nothing up.
"""

from django.dispatch import Signal

counts_written = Signal()
"""sender: the definition model; counts: used units by quota id, as a sync has just committed them."""
sync_ended = Signal()
"""sender: the definition model; report: a SyncReport."""
audit_ended = Signal()
"""sender: the definition model; report: an AuditReport. Where it has drifts or problems, somebody should look."""
