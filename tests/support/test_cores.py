"""Cores that a process may use: those that it may run on, within the quota of its control groups."""

from __future__ import annotations

import pytest

from implicit_atlas.support.cores import cores, usable

OWN = usable()


def groups_of(folder, line: str, files: dict[str, str]):
    """Control groups as Linux shows them: the file that names those of a process, and what is mounted."""
    (folder / "cgroup").write_text(line + "\n")
    for name, content in files.items():
        (folder / "mounted" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "mounted" / name).write_text(content + "\n")
    return folder / "cgroup", folder / "mounted"


@pytest.mark.parametrize(
    ("line", "files", "expected"),
    [
        ("0::/", {"cpu.max": "100000 100000"}, 1),
        ("0::/", {"cpu.max": "max 100000"}, OWN),
        ("0::/", {"cpu.max": "50000 100000"}, 1),  # half a core
        ("0::/", {"cpu.max": "900000000 100000"}, OWN),
        ("0::/slice/own", {"slice/own/cpu.max": "max 100000", "slice/cpu.max": "100000 100000"}, 1),
        ("0::/outside/name", {"cpu.max": "150000 100000"}, 1),  # seen from inside a container
        ("0::/a", {"b/cpu.max": "100000 100000"}, OWN),  # of another group
        ("3:cpu,cpuacct:/", {"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000"}, 1),
        ("3:cpu,cpuacct:/", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, OWN),
        ("3:cpuset:/", {"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000"}, OWN),
        ("0::/", {"cpu.max": "100000 0"}, OWN),
        ("0::/", {"cpu.max": ""}, OWN),
        ("nothing", {"cpu.max": "max"}, OWN),
    ],
)
def test_quotas_of_control_groups_count(tmp_path, line, files, expected):
    assert cores(*groups_of(tmp_path, line, files)) == expected


def test_without_control_groups_there_is_no_quota(tmp_path):
    assert cores(tmp_path / "none", tmp_path) == OWN
