"""The log of the web server, gunicorn."""

from gunicorn.config import Config
from gunicorn.glogging import Logger

from shargain.printable import RecordFormatter


class RecordLogger(Logger):
    """For `--logger-class`: repeats nothing of a client's that could pose as a record or steer a terminal."""

    def setup(self, cfg: Config) -> None:
        super().setup(cfg)
        for log, format_ in ((self.error_log, self.error_fmt), (self.access_log, self.access_fmt)):
            for handler in log.handlers:
                handler.setFormatter(RecordFormatter(format_, self.datefmt))
