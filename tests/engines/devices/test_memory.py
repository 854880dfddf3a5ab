"""How much memory there is for this process."""

import pytest

from engines.devices import memory


def test_the_machine_has_memory():
    assert 2**27 < memory.memory_size() < 2**50


@pytest.mark.parametrize(
    ("group", "file"),
    [
        ("0::/system.slice/tilewire.service", "system.slice/tilewire.service/memory.max"),
        ("0::/system.slice/tilewire.service", "system.slice/memory.max"),
        ("4:memory:/docker/1", "memory/docker/1/memory.limit_in_bytes"),
        ("0::/", "memory.max"),
    ],
)
def test_the_limit_of_a_control_group_counts(tmp_path, monkeypatch, group, file):
    limit, of_this = tmp_path / "groups" / file, tmp_path / "cgroup"
    limit.parent.mkdir(parents=True)
    limit.write_text("2000000\n", encoding="utf-8")
    of_this.write_text(f"3:cpu:/elsewhere\n{group}\n", encoding="utf-8")
    monkeypatch.setattr(memory, "_GROUPS", tmp_path / "groups")
    monkeypatch.setattr(memory, "_GROUPS_OF_THIS", of_this)
    assert memory.memory_size() == 2_000_000
    limit.write_text("max\n", encoding="utf-8")
    assert memory.memory_size() > 2_000_000
