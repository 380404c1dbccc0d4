"""`make audit` never says that all is well about what it could not ask."""

from __future__ import annotations

from typing import Any

from tests.audit import CLEAN, UNASKED, WEAK, judge, services


def package(name: str, *weak: str, asked: bool = True) -> dict[str, Any]:
    """What pip-audit reports of a package."""
    if not asked:
        return {"name": name, "skip_reason": f"Dependency not found on PyPI and could not be audited: {name} (1.0)"}
    return {"name": name, "version": "1.0", "vulns": [{"id": one, "fix_versions": ["1.1"]} for one in weak]}


def test_all_that_was_asked_about_is_well() -> None:
    code, said = judge({"PyPI": [package("a"), package("b")]}, {})
    assert code == CLEAN
    assert said[0] == "PyPI answered for 2 packages"


def test_a_weakness_is_told_with_its_fix_whatever_else_could_not_be_asked() -> None:
    code, said = judge({"PyPI": [package("a", "PYSEC-1"), package("b", asked=False)]}, {})
    assert code == WEAK
    assert "WEAK: a 1.0: PYSEC-1, fixed in 1.1" in said
    assert "NOT ASKED about 1 of 2 packages: b" in said


def test_a_package_that_nobody_answered_for_is_named() -> None:
    code, said = judge({"PyPI": [package("a", asked=False)], "OSV": []}, {"OSV": "no such host"})
    assert code == UNASKED
    assert "OSV answered for 0 packages (no such host)" in said
    assert "NOT ASKED about 1 of 1 packages: a" in said


def test_no_answer_at_all_is_not_taken_for_a_good_one() -> None:
    code, said = judge({"PyPI": [], "OSV": []}, {})
    assert code == UNASKED
    assert "NOT ASKED about any package: no service could be reached" in said


def test_another_service_may_answer_for_what_the_first_one_did_not() -> None:
    assert judge({"PyPI": [package("a", asked=False)], "OSV": [package("a")]}, {})[0] == CLEAN
    assert judge({"PyPI": [package("a", asked=False)], "OSV": [package("a", "GHSA-1")]}, {})[0] == WEAK


def test_what_is_installed_from_a_checkout_is_nobodys_to_answer_for() -> None:
    mine = {"name": "streamq", "skip_reason": "distribution marked as editable"}
    assert judge({"PyPI": [package("a"), mine]}, {})[0] == CLEAN


def test_a_mirror_can_be_named(monkeypatch: Any) -> None:
    monkeypatch.setenv("STREAMQ_OSV_URL", "https://mirror.example/v1/query")
    assert services()["OSV"] == ["-s", "osv", "--osv-url", "https://mirror.example/v1/query"]
