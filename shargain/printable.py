"""Text from outside on its way to a log or a terminal."""

import logging

_INDENT = "\n    "


def printable(text: str) -> str:
    """The text with everything escaped that could steer a terminal or hide: all that is not printable.

    Line breaks (`\\n`) stay, for text of several lines is common; whoever needs one line splits it.
    """
    if text.isprintable():
        return text
    return "".join(
        char
        if char == "\n" or char.isprintable()
        else char.encode("unicode_escape").decode("ascii")
        for char in text
    )


class RecordFormatter(logging.Formatter):
    """Begins a line for each record and indents what follows, so that no text can pose as a record."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record)).replace("\n", _INDENT)
