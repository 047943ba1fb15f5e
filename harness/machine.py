"""What the machine is, as far as it matters to real clusters: `splitbrain doctor` tells it beside what can be done."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import msgspec

PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
CLOCK_SOURCE = Path("/sys/devices/system/clocksource/clocksource0/current_clocksource")
MB_PER_KB = 1 / 1024

# program, what it is for, the Debian package that has it
TOOLS = (
    ("tc", "network faults on local", "iproute2"),
    ("iptables", "network faults without netem", "iptables"),
    ("nsenter", "local, and fast network faults on docker", "util-linux"),
    ("cc", "clock and disk faults", "gcc libc6-dev"),
    ("haproxy", "--via lb on local and ssh", "haproxy"),
    ("mmdebstrap", "images without a registry", "mmdebstrap"),
)


class Fact(msgspec.Struct, frozen=True):
    """One thing about the machine: what there is, and what helps where there is nothing."""

    value: str
    remedy: str = ""


def facts() -> Mapping[str, Fact]:
    """Everything, by name; nothing here takes longer than starting a program."""
    found = {
        "system": Fact(f"{platform.system()} {platform.release()} {platform.machine()}"),
        "python": Fact(platform.python_version()),
        "user": Fact("root" if os.geteuid() == 0 else f"uid {os.geteuid()}"),
        "cores": Fact(
            str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())
        ),
        "memory": Fact(_memory()),
        "clock source": Fact(_read(CLOCK_SOURCE) or "unknown"),
        "user namespaces": _user_namespaces(),
        "FUSE": _fuse(),
        "control groups": _control_groups(),
    }
    return found | {tool: _tool(tool, purpose, package) for tool, purpose, package in TOOLS}


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _memory() -> str:
    for line in _read(Path("/proc/meminfo")).splitlines():
        if line.startswith("MemAvailable:"):
            return f"{int(line.split()[1]) * MB_PER_KB:.0f} MB available"
    return "unknown"


def _user_namespaces() -> Fact:
    unshare = shutil.which("unshare", path=PATH)
    if unshare is None:
        return Fact("no unshare", "apt-get install util-linux")
    done = subprocess.run([unshare, "-Urn", "true"], capture_output=True, text=True, check=False, timeout=30)  # noqa: S603
    if done.returncode == 0:
        return Fact("yes")
    return Fact(
        f"no ({done.stderr.strip()[:100]})", "sysctl kernel.unprivileged_userns_clone=1, or run as root"
    )


def _fuse() -> Fact:
    device = Path("/dev/fuse")
    if not device.exists():
        return Fact("no /dev/fuse", "modprobe fuse")
    if not os.access(device, os.R_OK | os.W_OK):
        return Fact("/dev/fuse is not for us", "run as root, or as a member of the group fuse")
    return Fact("yes")


def _control_groups() -> Fact:
    root = Path("/sys/fs/cgroup")
    version = "2" if (root / "cgroup.controllers").exists() else "1" if (root / "cpu").exists() else ""
    if not version:
        return Fact("none", "mount them at /sys/fs/cgroup for --node-cpus and --node-memory")
    place = root if version == "2" else root / "cpu"
    if not os.access(place, os.W_OK):
        return Fact(f"version {version}, not writable", "run as root for --node-cpus and --node-memory")
    return Fact(f"version {version}")


def _tool(name: str, purpose: str, package: str) -> Fact:
    found = shutil.which(name, path=PATH)
    if found is None:
        return Fact(f"not found (for {purpose})", f"apt-get install {package} (Debian, Ubuntu)")
    return Fact(found)
