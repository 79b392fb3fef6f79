"""Configuration of gunicorn: `--config=python:shargain.monitoring.web_server`."""

from shargain.monitoring.processes import open_directory


def on_starting(_server: object) -> None:
    """Before any process is forked that counts."""
    open_directory()
