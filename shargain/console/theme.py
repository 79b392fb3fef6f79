"""What unfold asks of the settings: its colours come from a file of our own, not from a style inside each page."""

from typing import Any

from django.http import HttpRequest
from django.templatetags.static import static


def without_inline_style(_: HttpRequest) -> dict[str, Any]:
    """Leaves out the style element that unfold writes its colours into: `console/theme.css` has them."""
    return {"colors": None}


def asset(name: str) -> Any:
    """For UNFOLD["STYLES"]: the address of a static file, found when a page is made."""

    def address(_: HttpRequest) -> str:
        return static(name)

    return address
