"""What quotas tell a project: Django signals, sent by the tasks, the commands and the admin alike.

A receiver that fails is logged by Django and holds nothing up.
"""

from django.dispatch import Signal

spend_ended = Signal(use_caching=True)
"""sender: the definition model; course: the Course of a call that has ended, well or not. On the hot path:
a receiver is to take microseconds."""
counts_written = Signal()
"""sender: the definition model; counts: used units by quota id, as a sync has just committed them."""
sync_ended = Signal()
"""sender: the definition model; report: a SyncReport; seconds: how long it took."""
audit_ended = Signal()
"""sender: the definition model; report: an AuditReport; seconds: how long it took. Where the report has
drifts or problems, somebody should look."""
