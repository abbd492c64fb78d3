"""What the pages point to is there, and stands in the site's menu."""

import re
import tomllib
from importlib import import_module
from inspect import getdoc
from pathlib import Path

import pytest
import yaml

from worldmodel.apps.verbs import VERBS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
SITE = yaml.safe_load((ROOT / "mkdocs.yml").read_text())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_lead_somewhere_and_nothing_is_left_to_fill_in(page):
    text = page.read_text()
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    local = [link.partition("#") for link in links if not re.match(r"[a-z]+:", link)]
    assert [link for link, _, _ in local if not (page.parent / link).exists()] == []
    for link, _, anchor in local:
        target = page.parent / link if link else page
        assert not anchor or anchor in anchors(target.read_text()), f"{link}#{anchor}"
    assert re.findall(r"@[A-Z]+@|TODO", text) == []


def anchors(text: str) -> set[str]:
    """What headings can be linked by, as GitHub and mkdocs make it."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", heading.lower()).strip()) for heading in headings}


def in_menu(entry) -> list[str]:
    if isinstance(entry, str):
        return [entry]
    return [page for part in (entry.values() if isinstance(entry, dict) else entry) for page in in_menu(part)]


def test_every_page_stands_in_the_menu_of_the_site_once():
    pages = in_menu(SITE["nav"])
    assert sorted(pages) == sorted(str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md"))
    parts = [next(iter(entry)) for entry in SITE["nav"]]
    assert parts == ["Start", "Tutorial", "How to", "Reference", "Explanation", "Results"]


def documented() -> list[str]:
    return re.findall(
        r"^::: (\S+)$", "".join(path.read_text() for path in sorted((DOCS / "reference").glob("*.md"))), re.M
    )


@pytest.mark.parametrize("name", documented())
def test_what_the_reference_shows_is_there_and_says_what_it_is(name):
    try:
        found = import_module(name)
    except ModuleNotFoundError:
        module, _, attribute = name.rpartition(".")
        found = getattr(import_module(module), attribute)
    assert len(getdoc(found) or "") > 20


def test_the_reference_names_every_verb_with_its_summary():
    text = (DOCS / "reference" / "command-line.md").read_text()
    rows = dict(re.findall(r"^\| `worldmodel ([a-z ]+)` \| (.*) \|$", text, re.M))
    assert rows == {name: verb.summary for name, verb in VERBS.items()}


def test_every_claim_of_the_security_page_names_a_test_that_is_there():
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (DOCS / "security.md").read_text())
    assert len(named) > 30
    missing = [(file, test) for file, test in named if f"def {test}(" not in (ROOT / file).read_text()]
    assert missing == []


def test_the_workflows_run_what_a_contributor_runs():
    steps = [
        step["run"]
        for file in sorted((ROOT / ".github" / "workflows").glob("*.yml"))
        for job in yaml.safe_load(file.read_text())["jobs"].values()
        for step in job["steps"]
        if "run" in step
    ]
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    assert "bash .ci/run" in steps
    assert "sudo make test-full-disk" in steps  # which `make test` skips where nobody may mount
    for step in steps:
        words = step.split()
        assert words[0] in ("sudo", "bash", "make"), step
        if words[0] == "make":
            assert set(words[1:]) <= targets
        if words[:2] == ["sudo", "make"]:
            assert words[2] in targets
    made = (ROOT / ".ci" / "run").read_text().split("make ")[1].split()
    assert made == ["lint", "test"]
    assert set(made) <= targets


def test_issue_forms_have_what_github_asks_for():
    for file in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"):
        form = yaml.safe_load(file.read_text())
        if file.name != "config.yml":
            assert {"name", "description", "body"} <= form.keys()
            assert all(
                part["type"] in ("textarea", "checkboxes", "markdown", "input") for part in form["body"]
            )


def test_every_dependency_has_a_lower_bound_and_all_but_extras_are_tried_at_it():
    """`make test-lowest` pins what stands under dependencies and `dev` to its lowest version."""
    import runpy

    lowest = runpy.run_path(str(ROOT / ".ci" / "lowest_versions.py"))["lowest_versions"]()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [word for extra in project["optional-dependencies"].values() for word in extra]
    assert all(
        re.match(r"[\w.-]+(\[.*\])?>=[\d.]+,<[\d.]+$", word) for word in [*project["dependencies"], *extras]
    )
    assert {"torch", "mujoco", "numpy", "pytest", "imageio"} <= lowest.keys()
    assert lowest["imageio"] == "2.36"
