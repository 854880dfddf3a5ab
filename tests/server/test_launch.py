"""The command starts a server anew where memory in huge pages has to be asked for, and only there."""

import os
import sys

import pytest

from server import cli, launch

ANEW, AS_IT_IS = "started anew", "as it is"


@pytest.fixture
def start(monkeypatch, tmp_path):
    """What becomes of a command, and with which environment."""

    def execve(path, arguments, environment):
        assert path == arguments[0] == sys.executable
        environments.append(environment)
        raise SystemExit(ANEW)

    environments = []
    pages = tmp_path / "enabled"
    monkeypatch.setattr(os, "execve", execve)
    monkeypatch.setattr(cli, "main", lambda: sys.exit(AS_IT_IS))
    monkeypatch.setattr(launch, "_PAGES", pages)
    for name in ("PYTHONMALLOC", "GLIBC_TUNABLES"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments, enabled="always [madvise] never\n"):
        monkeypatch.setattr(sys, "argv", ["tilewire", *arguments])
        if enabled is not None:
            pages.write_text(enabled, "utf-8")
        with pytest.raises(SystemExit) as ended:
            launch.main()
        return ended.value.code, environments[-1] if environments else None

    return run


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has them")
def test_a_server_asks_for_huge_pages(start):
    how, environment = start("serve", "--port", "0")
    assert how == ANEW
    assert environment["PYTHONMALLOC"] == "malloc"
    assert environment["PATH"] == os.environ["PATH"]


@pytest.mark.parametrize(
    ("arguments", "enabled"),
    [
        (("upscale", "serve"), "always [madvise] never\n"),
        ((), "always [madvise] never\n"),
        (("serve",), "[always] madvise never\n"),
        (("serve",), "always madvise [never]\n"),
        (("serve",), None),
    ],
)
def test_nothing_else_is_started_anew(start, arguments, enabled):
    assert start(*arguments, enabled=enabled) == (AS_IT_IS, None)


@pytest.mark.parametrize("name", ["PYTHONMALLOC", "GLIBC_TUNABLES"])
def test_what_the_environment_says_stays(start, monkeypatch, name):
    monkeypatch.setenv(name, "")
    assert start("serve") == (AS_IT_IS, None)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has them")
def test_a_server_that_cannot_start_anew_runs_as_it_is(start, monkeypatch):
    def execve(*_):
        raise PermissionError

    monkeypatch.setattr(os, "execve", execve)
    assert start("serve") == (AS_IT_IS, None)
