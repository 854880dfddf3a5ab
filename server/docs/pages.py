"""The pages of the documentation, in their order; `rendering` makes HTML of their Markdown."""

from pathlib import Path
from typing import Final, NamedTuple

__all__ = ["EXAMPLE_ADDRESS", "PAGES", "Page", "source"]

EXAMPLE_ADDRESS: Final = "127.0.0.1:8080"
"""The address in the examples; a page shows the server's own in its place."""

_DIRECTORY: Final = Path(__file__).parent


class Page(NamedTuple):
    """One page. Its Markdown is in the file `NAME.md`, its address is `/docs/NAME`."""

    name: str
    title: str


PAGES: Final = (
    Page("quick-start", "Quick start"),
    Page("page", "The page"),
    Page("client", "Python client"),
    Page("web-pages", "Web pages"),
    Page("low-latency", "Low latency"),
    Page("command-line", "Command line"),
    Page("tasks", "Tasks"),
    Page("providers", "Other services"),
    Page("a1111", "Automatic1111"),
    Page("stability", "Stability"),
    Page("novita", "Novita"),
    Page("scenario", "Scenario"),
    Page("photio", "Photio"),
    Page("progress", "Progress"),
    Page("sessions", "Sessions"),
    Page("webhooks", "Webhooks"),
    Page("errors", "Errors"),
    Page("limits", "Limits"),
    Page("models", "Models"),
    Page("which-model", "Which model?"),
    Page("creative", "Creative upscaling"),
    Page("settings", "Settings"),
    Page("operations", "Operations"),
    Page("backup", "Back-up"),
    Page("several-servers", "Several servers"),
    Page("scale-out", "Scale out"),
    Page("security", "Security"),
    Page("promises", "Promises"),
    Page("development", "Development"),
)


def source(page: Page) -> str:
    """The Markdown of a page."""
    return (_DIRECTORY / f"{page.name}.md").read_text("utf-8")
