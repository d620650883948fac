"""What has no wheel on a platform: docs/platforms.md and the builder of the images against the lock file."""

import re

import pytest

from cli.stack import ROOT, SERVICES
from tests.support.lock import PLATFORMS, to_build

IMAGES = [*SERVICES, "simulator"]
SERVICES_PYTHON, RESEARCH_PYTHON = (3, 13), (3, 12)
DOCKERFILE = (ROOT / "services" / "Dockerfile").read_text()
DOCS = (ROOT / "docs" / "platforms.md").read_text()


def compiled_in_the_builder():
    (names,) = re.findall(r"^# Without a wheel for ARM: (.+)$", DOCKERFILE, re.MULTILINE)
    return set(names.split())


@pytest.mark.parametrize("service", IMAGES)
def test_on_arm_only_what_the_builder_compiles_has_no_wheel(service):
    """Else the image could not be built there, or would be without the compiler."""
    missing = to_build([service], PLATFORMS["Linux ARM64"], SERVICES_PYTHON)

    assert missing == (compiled_in_the_builder() if service == "collector" else set())


@pytest.mark.parametrize("service", IMAGES)
def test_on_x86_64_every_image_is_made_of_wheels(service):
    assert to_build([service], PLATFORMS["Linux x86-64"], SERVICES_PYTHON) == set()


def test_the_images_are_based_on_the_pythons_that_the_wheels_were_looked_for():
    research = (ROOT / "research" / "Dockerfile").read_text()

    assert re.findall(r"^ARG PYTHON=(.+)$", DOCKERFILE, re.MULTILINE) == ["{}.{}".format(*SERVICES_PYTHON)]
    assert re.findall(r"^ARG PYTHON=(.+)$", research, re.MULTILINE) == ["{}.{}".format(*RESEARCH_PYTHON)]
    assert DOCKERFILE.count("-slim-bookworm") == 2


@pytest.mark.parametrize("name", PLATFORMS)
def test_the_table_names_what_is_built_from_source(name):
    (row,) = re.findall(rf"^\| {name} \|(.+)\|$", DOCS, re.MULTILINE)
    services, beside, research = (set(re.findall(r"`([^`]+)`", cell)) for cell in row.split("|"))

    assert services == to_build(IMAGES, PLATFORMS[name], SERVICES_PYTHON)
    assert beside == to_build(["local", "dev", "docs"], PLATFORMS[name], SERVICES_PYTHON)
    assert research == to_build(["research"], PLATFORMS[name], RESEARCH_PYTHON)


def test_a_package_without_a_wheel_is_found():
    """The judge of the tests above, on a machine that nothing is made for."""
    barren = PLATFORMS["Linux ARM64"].__class__("linux", "riscv64", ("manylinux_2_17_riscv64",))

    assert {"numpy", "cryptofeed"} <= to_build(["collector", "converter"], barren, SERVICES_PYTHON)
