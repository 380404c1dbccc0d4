"""Ask whether an installed package has a known weakness: `make audit`. Says what it could not ask about.

pip-audit calls a package that its advisory service does not answer for "skipped", and ends with "No known
vulnerabilities found" even if that is all of them. Here that is no good end: exit 1 if there is a weakness, 2 if a
package could not be asked about, 0 if all were and none has one.

Asked are PyPI, and OSV for what PyPI did not answer for; `STREAMQ_OSV_URL` names a mirror of OSV's query API.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

CLEAN, WEAK, UNASKED = 0, 1, 2
EDITABLE = "distribution marked as editable"
LONGEST = 300.0
"""Seconds for one service."""


def services() -> dict[str, list[str]]:
    """Return the advisory services, in the order in which they are asked, with pip-audit's options for each."""
    mirror = os.environ.get("STREAMQ_OSV_URL")
    return {"PyPI": ["-s", "pypi"], "OSV": ["-s", "osv", *(["--osv-url", mirror] if mirror else [])]}


def ask(options: list[str]) -> tuple[list[dict[str, Any]], str]:
    """Ask one service about all that is installed; returns what it says of each package, or why it says nothing."""
    command = [
        sys.executable,
        "-m",
        "pip_audit",
        "--skip-editable",
        "--progress-spinner",
        "off",
        "-f",
        "json",
        *options,
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST)
        return json.loads(done.stdout)["dependencies"], ""
    except subprocess.TimeoutExpired:
        return [], f"no answer within {LONGEST:g} s"
    except (ValueError, KeyError):
        lines = done.stderr.strip().splitlines()
        return [], lines[-1][:300] if lines else f"pip-audit ended with {done.returncode}"


def judge(answers: dict[str, list[dict[str, Any]]], troubles: dict[str, str]) -> tuple[int, list[str]]:
    """Return the exit code and what to print: what is weak, what nobody was asked about, and who was asked."""
    known: set[str] = set()
    asked: set[str] = set()
    weak: dict[str, set[str]] = {}
    said: list[str] = []
    for service, packages in answers.items():
        answered = [package for package in packages if "vulns" in package]
        known |= {package["name"] for package in packages if package.get("skip_reason") != EDITABLE}
        asked |= {package["name"] for package in answered}
        for package in answered:
            for found in package["vulns"]:
                fixed = ", ".join(found.get("fix_versions", [])) or "nothing yet"
                text = f"{package['name']} {package['version']}: {found['id']}, fixed in {fixed}"
                weak.setdefault(package["name"], set()).add(text)
        trouble = f" ({troubles[service]})" if troubles.get(service) else ""
        said.append(f"{service} answered for {len(answered)} packages{trouble}")
    said += [f"WEAK: {text}" for texts in weak.values() for text in sorted(texts)]
    unasked = sorted(known - asked)
    if unasked:
        said.append(f"NOT ASKED about {len(unasked)} of {len(known)} packages: {', '.join(unasked)}")
    elif not known:
        said.append("NOT ASKED about any package: no service could be reached")
    said.append(
        "a weakness is known" if weak else f"no weakness is known of the {len(asked)} packages that were asked about"
    )
    return (WEAK if weak else UNASKED if unasked or not known else CLEAN), said


def main() -> int:
    """Ask all services that are needed, and print what comes of it."""
    answers: dict[str, list[dict[str, Any]]] = {}
    troubles: dict[str, str] = {}
    for service, options in services().items():
        answers[service], troubles[service] = ask(options)
        if answers[service] and all("vulns" in package for package in answers[service]):
            break
    code, said = judge(answers, troubles)
    print("\n".join(said))
    return code


if __name__ == "__main__":
    sys.exit(main())
