"""What CONTRIBUTING.md, the commit hooks and the changelog say agrees with the rest of the source."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from natsproto import __version__

ROOT = Path(__file__).resolve().parents[2]
DEV = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["dev"]


def test_the_test_that_contributing_runs_exists() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    ((path, name),) = re.findall(r"pytest .*?(tests/\S+\.py)::(\w+)", text)
    assert re.search(rf"^(async )?def {name}\(", (ROOT / path).read_text(), re.MULTILINE)


def test_hooks_run_the_tools_of_the_development_environment() -> None:
    hooks = (ROOT / ".pre-commit-config.yaml").read_text()
    pinned = set(re.findall(r'additional_dependencies: \["([^"]+)"\]', hooks))
    assert {item.partition("==")[0] for item in pinned} == {"ruff", "mypy"}
    assert hooks.count("additional_dependencies") == hooks.count("- id:")
    assert pinned <= set(DEV)


def test_the_newest_version_of_the_changelog_is_this_one() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    versions = re.findall(r"^## \[(.+?)\](?: - (\d{4}-\d\d-\d\d))?$", text, re.MULTILINE)
    assert [name for name, _ in versions[:2]] == ["Unreleased", __version__]
    assert all(date for _, date in versions[1:])
    assert len(versions) == text.count("\n## ")


def test_the_changelog_uses_the_headings_of_keep_a_changelog() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    kinds = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert set(re.findall(r"^### (.+)$", text, re.MULTILINE)) <= kinds


def test_what_papers_refer_to_is_there() -> None:
    """Links, and names of papers, in the papers at the top and in the templates for issues."""
    for path in [*ROOT.glob("*.md"), *(ROOT / ".github").rglob("*.yml")]:
        text = path.read_text()
        links = re.findall(r"\]\((?!\w+:)([^)#]+)(?:#[^)]*)?\)", text)
        assert not [link for link in links if not (ROOT / link).exists()], path.name
        named = set(re.findall(r"\b[A-Z]+\.md\b", text))
        assert not [name for name in named if not (ROOT / name).is_file()], path.name
