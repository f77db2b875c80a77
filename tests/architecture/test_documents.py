"""What documents and deployment files say agrees with the code."""

import re
import tomllib
from datetime import timedelta
from pathlib import Path

import yaml

from client.exit_codes import ExitCode
from jobs.deliveries import DELAYS, WebhookEvent
from jobs.settings import Settings

PROJECT = Path(__file__).resolve().parents[2]


def test_every_setting_is_in_the_operations_page() -> None:
    page = (PROJECT / "docs" / "operations.md").read_text()
    missing = [name for name in Settings.model_fields if f"BONSAI_{name.upper()}" not in page]
    assert missing == []


def test_every_event_and_pause_of_webhooks_is_in_their_page() -> None:
    page = (PROJECT / "docs" / "webhooks.md").read_text()
    assert [event for event in WebhookEvent if f"`{event}`" not in page] == []
    (pauses,) = re.findall(r"\| pause \| (.*) \| given up \|", page)
    units = {"s": "seconds", "min": "minutes", "h": "hours"}
    told = [pause.split() for pause in pauses.split(" | ")]
    assert [timedelta(**{units[unit]: int(count)}) for count, unit in told] == list(DELAYS)


def test_every_exit_code_is_in_the_client_page() -> None:
    page = (PROJECT / "docs" / "client.md").read_text()
    assert [code.name for code in ExitCode if f"\n| {code.value} | " not in page] == []


def test_compose_sets_only_settings_that_exist() -> None:
    services = yaml.safe_load((PROJECT / "docker-compose.yml").read_text())["services"]
    known = {f"BONSAI_{name.upper()}" for name in Settings.model_fields}
    for name in ("api", "worker", "migrations"):
        given = {key for key in services[name]["environment"] if key.startswith("BONSAI_")}
        assert given <= known, name


def test_the_tests_that_guarantees_name_exist() -> None:
    page = (PROJECT / "docs" / "guarantees.md").read_text()
    for path, test in re.findall(r"`(tests/[\w/.]*)(?:::(\w+))?`", page):
        assert (PROJECT / path).exists(), path
        assert not test or f"def {test}(" in (PROJECT / path).read_text(), f"{path}::{test}"


def test_links_between_documents_lead_somewhere() -> None:
    pages = [*PROJECT.glob("*.md"), *(PROJECT / "docs").rglob("*.md")]
    for page in pages:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_package_is_shipped() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    shipped = project["tool"]["setuptools"]["packages"]
    roots = {package.split(".")[0] for package in shipped}
    found = {
        ".".join(path.relative_to(PROJECT).parent.parts)
        for root in roots
        for path in (PROJECT / root).rglob("__init__.py")
    }
    assert set(shipped) == found


def test_every_make_target_explains_itself() -> None:
    makefile = (PROJECT / "Makefile").read_text()
    targets = re.findall(r"^([a-z]+):", makefile, flags=re.MULTILINE)
    explained = re.findall(r"^([a-z]+):.*## \S", makefile, flags=re.MULTILINE)
    assert {"help", "setup", "demo", "test", "check", "up", "bench"} <= set(explained)
    assert targets == explained
