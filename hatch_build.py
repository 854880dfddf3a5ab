"""The README as it is in the package: package indexes have no files beside it, so its links are absolute."""

import re
from pathlib import Path
from typing import Any, Final

from hatchling.metadata.plugin.interface import MetadataHookInterface

_LINK: Final = re.compile(r"(!?\[[^\]]*\])\((?!https?://|#)([^)]+)\)")


class ReadmeHook(MetadataHookInterface):
    """Sets `readme`."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Add it to the metadata."""
        source = self.config["source"]

        def absolute(match: re.Match[str]) -> str:
            kind = "raw" if match[1].startswith("!") else "blob"
            return f"{match[1]}({source}/{kind}/main/{match[2]})"

        text = (Path(self.root) / "README.md").read_text("utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": _LINK.sub(absolute, text)}
