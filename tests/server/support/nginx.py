"""nginx with the configuration of the documentation."""

import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.server.support.process import REPOSITORY, reserved_port

HTTP_ONLY = r"\n *listen 443 ssl;.*?ssl_certificate_key[^\n]*"


def is_installed() -> bool:
    return shutil.which("nginx") is not None


def block(page: str, language: str) -> str:
    """The one piece of code of a language in a page of the documentation."""
    text = (REPOSITORY / "server" / "docs" / f"{page}.md").read_text("utf-8")
    (code,) = re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)
    return str(code)


def command(folder: Path, site: str) -> list[str | Path]:
    """What runs nginx in the foreground, as whoever runs the tests, with a site of the documentation's."""
    places = "".join(
        f"{name}_temp_path {folder}/{name}; " for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    main = (
        f"daemon off; pid {folder}/pid; error_log stderr; worker_processes 1;\n"
        f"events {{ worker_connections 256; }}\n"
        f"http {{ access_log off; {places}\n{site}\n}}\n"
    )
    (folder / "nginx.conf").write_text(main, encoding="utf-8")
    return ["nginx", "-p", folder, "-c", folder / "nginx.conf", "-e", "stderr"]


@contextmanager
def running_nginx(folder: Path, servers: Sequence[str]) -> Iterator[str]:
    """nginx in front of servers, without TLS; its URL.

    Args:
        folder: for its files.
        servers: their URLs.
    """
    site = block("several-servers", "nginx")
    documented = re.findall(r"10\.0\.0\.\d+:8080", site)
    for address, server in zip(documented, servers, strict=True):
        site = site.replace(address, server.removeprefix("http://"))
    with reserved_port() as port:
        site = re.sub(HTTP_ONLY, f"\nlisten 127.0.0.1:{port};", site, flags=re.DOTALL)
        process = subprocess.Popen(command(folder, site), stderr=subprocess.DEVNULL)
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait()
