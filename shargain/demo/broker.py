"""Looks into the queue of the Celery broker, whatever kind of broker it is."""

from kombu.exceptions import OperationalError

from shargain.celery import app


def queued() -> int | None:
    """Tasks that wait for a worker; None where the broker does not answer."""
    with app.connection_or_acquire() as connection:
        try:
            queue = connection.default_channel.queue_declare(
                queue=app.conf.task_default_queue, passive=True
            )
        except connection.channel_errors:
            # A broker need not keep a queue that is empty.
            return 0
        except (*connection.connection_errors, OperationalError):
            return None
        return int(queue.message_count)
