"""What a public forge reads: the workflow, issue forms, the pull request's text, updates of dependencies."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
FORGE = ROOT / ".github"
FORMS = sorted(path for path in (FORGE / "ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml")


def read(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


#: File, and the schema that check-jsonschema brings for it.
SCHEMAS = {
    FORGE / "workflows" / "ci.yml": "github-workflows",
    FORGE / "dependabot.yml": "dependabot",
    FORGE / "ISSUE_TEMPLATE" / "config.yml": "github-issue-config",
    **dict.fromkeys(FORMS, "github-issue-forms"),
    ROOT / "docker-compose.yml": "compose-spec",
}


@pytest.mark.parametrize("path", SCHEMAS, ids=lambda path: path.name)
def test_it_is_as_its_schema_says(path):
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{SCHEMAS[path]}", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout


def test_no_file_is_without_a_schema():
    assert set(FORGE.rglob("*.yml")) <= SCHEMAS.keys()


def test_the_workflow_runs_the_targets_that_ci_runs():
    workflow = read(FORGE / "workflows" / "ci.yml")
    (job,) = workflow["jobs"].values()
    commands = [step["run"] for step in job["steps"] if "run" in step]
    on_the_forge = {target for command in commands for target in command.removeprefix("make ").split()}
    on_the_forge = {name for name in on_the_forge if name.isidentifier() or "-" in name} | set(
        job["strategy"]["matrix"]["target"]
    )
    script = (ROOT / ".ci" / "run").read_text()
    here = {name for found in re.findall(r"make --no-print-directory ([a-z -]+)", script) for name in found.split()}

    assert on_the_forge == here
    assert job["timeout-minutes"] <= 90
    assert workflow["permissions"] == {"contents": "read"}


def test_every_target_of_the_workflow_is_in_the_makefile():
    (job,) = read(FORGE / "workflows" / "ci.yml")["jobs"].values()
    makefile = (ROOT / "Makefile").read_text()

    for target in (*job["strategy"]["matrix"]["target"], "env", "env-research"):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_there_is_a_form_for_each_reason_to_write():
    assert [path.stem for path in FORMS] == ["data-looks-wrong", "does-not-run", "idea"]


def test_updates_are_proposed_for_everything_that_is_locked():
    updates = read(FORGE / "dependabot.yml")
    ecosystems = {update["package-ecosystem"] for update in updates["updates"]}
    folders = [folder for update in updates["updates"] for folder in update.get("directories", [])]

    assert updates["version"] == 2
    assert ecosystems == {"uv", "github-actions", "docker"}
    assert all((ROOT / folder.removeprefix("/") / "Dockerfile").is_file() for folder in folders)
