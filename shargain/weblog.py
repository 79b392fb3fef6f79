"""The log of the web server, gunicorn."""

import os

from gunicorn.config import Config
from gunicorn.glogging import Logger

from shargain.logs import formatter
from shargain.printable import RecordFormatter


class RecordLogger(Logger):
    """For `--logger-class`: repeats nothing of a client's that could pose as a record or steer a terminal."""

    def setup(self, cfg: Config) -> None:
        super().setup(cfg)
        # Read here, for gunicorn's first process loads no settings; the others refuse what is neither.
        is_json = os.environ.get("LOG_FORMAT") == "json"
        for log, format_ in ((self.error_log, self.error_fmt), (self.access_log, self.access_fmt)):
            text = RecordFormatter(format_, self.datefmt)
            for handler in log.handlers:
                handler.setFormatter(formatter("json") if is_json else text)
