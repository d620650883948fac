"""What the lock file installs on a platform, and which packages of it have no wheel there and so must be built."""

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from packaging.markers import Marker
from packaging.tags import Tag, compatible_tags, cpython_tags, mac_platforms
from packaging.utils import parse_wheel_filename

from tests.support.simulator import ROOT

_GLIBC = 36
"""Of Debian bookworm, on which the images are based."""


@dataclass(frozen=True)
class Platform:
    """A machine that packages are installed on, as far as wheels and markers say."""

    system: str
    machine: str
    tags: tuple[str, ...]

    def compatible(self, python: tuple[int, int]) -> set[Tag]:
        """Return the tags of the wheels that fit."""
        interpreter = "cp{}{}".format(*python)
        return {
            *cpython_tags(python, [interpreter], self.tags),
            *compatible_tags(python, interpreter, self.tags),
        }

    def environment(self, python: tuple[int, int]) -> dict[str, str]:
        """Return what the markers of a requirement are held against."""
        systems = {"linux": ("posix", "Linux"), "darwin": ("posix", "Darwin"), "win32": ("nt", "Windows")}
        name, full = systems[self.system]
        version = ".".join(map(str, python))
        return {
            "implementation_name": "cpython",
            "implementation_version": f"{version}.0",
            "os_name": name,
            "platform_machine": self.machine,
            "platform_python_implementation": "CPython",
            "platform_release": "",
            "platform_system": full,
            "platform_version": "",
            "python_full_version": f"{version}.0",
            "python_version": version,
            "sys_platform": self.system,
            "extra": "",
        }


def _linux(machine: str) -> Platform:
    named = [f"manylinux{year}_{machine}" for year in ("1", "2010", "2014")]
    numbered = [f"manylinux_2_{minor}_{machine}" for minor in range(_GLIBC, 4, -1)]
    return Platform("linux", machine, (*numbered, *named, f"linux_{machine}"))


PLATFORMS = {
    "Linux x86-64": _linux("x86_64"),
    "Linux ARM64": _linux("aarch64"),
    "macOS Apple": Platform("darwin", "arm64", tuple(mac_platforms((13, 0), "arm64"))),
    "macOS Intel": Platform("darwin", "x86_64", tuple(mac_platforms((13, 0), "x86_64"))),
    "Windows": Platform("win32", "AMD64", ("win_amd64",)),
}


def to_build(groups: list[str], platform: Platform, python: tuple[int, int]) -> set[str]:
    """Return the packages that some groups of pyproject.toml install on a platform and that have no wheel for it."""
    tags = platform.compatible(python)
    return {
        package["name"]
        for package in _installed(groups, platform.environment(python))
        if not any(tags & parse_wheel_filename(_name_of(wheel))[3] for wheel in package.get("wheels", ()))
    }


def _name_of(wheel: dict[str, Any]) -> str:
    return str(wheel["url"]).rpartition("/")[2]


def _installed(groups: list[str], environment: dict[str, str]) -> Iterator[dict[str, Any]]:
    """Walk the lock file from the project through everything that it asks for."""
    packages: dict[str, list[dict[str, Any]]] = {}
    for package in tomllib.loads((ROOT / "uv.lock").read_text())["package"]:
        packages.setdefault(package["name"], []).append(package)
    (project,) = (package for package in packages["qlib-crypto"] if package["source"] == {"editable": "."})
    wanted = [*project["dependencies"], *(one for group in groups for one in project["dev-dependencies"][group])]
    seen: set[tuple[str, str, str]] = set()
    while wanted:
        requirement = wanted.pop()
        if not _applies(requirement.get("marker"), environment):
            continue
        (package,) = (one for one in packages[requirement["name"]] if _is_meant(one, requirement, environment))
        for extra in ("", *requirement.get("extra", ())):
            if (key := (package["name"], package["version"], extra)) in seen:
                continue
            seen.add(key)
            if extra:
                wanted += package["optional-dependencies"][extra]
            else:
                wanted += package.get("dependencies", ())
                yield package


def _is_meant(package: dict[str, Any], requirement: dict[str, Any], environment: dict[str, str]) -> bool:
    """Return whether this version is the one of a package that is locked in several."""
    if "version" in requirement:
        return bool(package["version"] == requirement["version"])
    markers = package.get("resolution-markers")
    return markers is None or any(_applies(marker, environment) for marker in markers)


def _applies(marker: str | None, environment: dict[str, str]) -> bool:
    return marker is None or Marker(marker).evaluate(environment)
