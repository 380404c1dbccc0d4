"""Templates: what each one needs and shows, what is escaped, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from streamq.processors.emails_templates import BadEmail, render

MEMBER = {"bank_name": "River Bank", "member_name": "Ada <Admin> & Co", "account_number": "DE001234567890"}
CONTEXTS: dict[str, dict[str, Any]] = {
    "welcome": {**MEMBER, "member_number": "M-17"},
    "transaction-notification": {
        **MEMBER, "amount": "1234.50", "currency": "EUR", "transaction_type": "debit",
        "transaction_date": "2025-03-01", "reference": "T-1", "balance": "10.00", "description": "Rent",
    },
    "payment-reminder": {**MEMBER, "amount": "99.90", "currency": "EUR", "due_date": "2025-04-01"},
    "account-alert": {**MEMBER, "alert_title": "New device", "alert_message": "A new device signed in."},
    "system-notification": {**MEMBER, "title": "Maintenance", "message": "Sunday, 2 am"},
}  # fmt: skip
SUBJECTS = {
    "welcome": "Welcome to River Bank, Ada <Admin> & Co",
    "transaction-notification": "EUR 1,234.50 debit on account …7890",
    "payment-reminder": "Reminder: EUR 99.90 due on 2025-04-01",
    "account-alert": "Account alert: New device",
    "system-notification": "Maintenance",
}


@pytest.mark.parametrize("name", CONTEXTS)
def test_each_template_gives_a_subject_a_text_and_an_html_body(name: str) -> None:
    rendered = render(name, CONTEXTS[name])
    assert rendered.subject == SUBJECTS[name]
    assert rendered.html.startswith("<!doctype html>")
    assert "River Bank sent this message automatically" in rendered.text
    assert "River Bank sent this message automatically" in rendered.html
    assert "DE001234567890" not in rendered.text + rendered.html


def test_values_are_escaped_in_html_and_not_in_text() -> None:
    rendered = render("welcome", CONTEXTS["welcome"])
    assert "Ada &lt;Admin&gt; &amp; Co" in rendered.html
    assert "<Admin>" not in rendered.html
    assert "Welcome, Ada <Admin> & Co." in rendered.text


@pytest.mark.parametrize(("name", "value"), [(n, v) for n, context in CONTEXTS.items() for v in context])
def test_a_value_that_the_template_needs_must_be_there(name: str, value: str) -> None:
    optional = {("transaction-notification", "balance"), ("transaction-notification", "description")}
    unused = {("system-notification", "member_name"), ("system-notification", "account_number")}
    if (name, value) in optional | unused | {("welcome", "account_number")}:
        assert render(name, {k: v for k, v in CONTEXTS[name].items() if k != value})
        return
    with pytest.raises(BadEmail, match=f"template '{name}': '{value}' is undefined"):
        render(name, {k: v for k, v in CONTEXTS[name].items() if k != value})


@pytest.mark.parametrize("name", ["", "../welcome", "Welcome", "welcome.html", "a/b", "welcome\n"])
def test_a_name_that_could_leave_the_directory_is_refused(name: str) -> None:
    with pytest.raises(BadEmail, match="not a template's name"):
        render(name, {})


def test_an_unknown_template_is_named() -> None:
    with pytest.raises(BadEmail, match=r"no template 'goodbye\.txt'"):
        render("goodbye", {})


@pytest.mark.parametrize("link", ["javascript:alert(1)", "data:text/html,x", "//evil.example", "https://a b"])
def test_only_web_links_get_into_an_href(link: str) -> None:
    with pytest.raises(BadEmail, match="not a web link"):
        render("welcome", {**CONTEXTS["welcome"], "login_url": link})


@pytest.mark.parametrize(("amount", "text"), [(12.5, "must be a decimal as text"), ("12,5", "not an amount"),
                                              ("NaN", "not an amount")])  # fmt: skip
def test_an_amount_that_is_not_exact_is_refused(amount: Any, text: str) -> None:
    with pytest.raises(BadEmail, match=text):
        render("payment-reminder", {**CONTEXTS["payment-reminder"], "amount": amount})


def test_a_banks_own_templates_come_first_and_the_built_in_ones_stay(tmp_path: Path) -> None:
    (tmp_path / "welcome.txt").write_text("{% block subject %}Hello{% endblock %}Own text")
    (tmp_path / "welcome.html").write_text('{% extends "layout.html" %}{% block body %}<b>Own</b>{% endblock %}')
    (tmp_path / "bare.txt").write_text("no subject")
    (tmp_path / "bare.html").write_text("")
    (tmp_path / "broken.txt").write_text("{% if %}")
    rendered = render("welcome", {"bank_name": "B"}, str(tmp_path))
    assert (rendered.subject, rendered.text) == ("Hello", "HelloOwn text\n")
    assert "<b>Own</b>" in rendered.html
    assert render("account-alert", CONTEXTS["account-alert"], str(tmp_path)).subject == "Account alert: New device"
    with pytest.raises(BadEmail, match="template 'bare' has no block 'subject'"):
        render("bare", {}, str(tmp_path))
    with pytest.raises(BadEmail, match=r"template broken\.txt, line 1: Expected an expression"):
        render("broken", {}, str(tmp_path))
