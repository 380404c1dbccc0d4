"""Makes each peer's environment in a cache folder, once per list of versions, and says what is in it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from benchmarks.harness import ROOT
from benchmarks.peers.roster import STREAMQ, Peer

ADAPTERS = Path(__file__).parent / "adapters"


def prepare(peer: Peer, cache: Path) -> None:
    """Install a peer's packages unless they are there."""
    if peer is STREAMQ:
        return
    folder = cache / peer.name
    mark = folder / "installed"
    if mark.exists() and mark.read_text() == "\n".join(peer.packages):
        return
    folder.mkdir(parents=True, exist_ok=True)
    print(f"installing {peer.name}: {', '.join(peer.packages)}", file=sys.stderr, flush=True)
    if peer.node:
        subprocess.run(
            ["npm", "install", "--silent", "--no-fund", "--no-audit", *peer.packages], cwd=folder, check=True
        )
    else:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([folder / "bin" / "pip", "install", "--quiet", *peer.packages], check=True)
    mark.write_text("\n".join(peer.packages))


def command(peer: Peer, cache: Path) -> list[str]:
    """Return how the peer's adapter is started."""
    if peer.node:
        return ["node", str(ADAPTERS / peer.adapter)]
    python = sys.executable if peer is STREAMQ else str(cache / peer.name / "bin" / "python")
    return [python, str(ADAPTERS / peer.adapter)]


def environment(peer: Peer, cache: Path) -> dict[str, str]:
    """Return the adapter's environment variables. Only this project's own environment can import streamq's packages."""
    found = {**os.environ, "PYTHONPATH": f"{ADAPTERS}:{ROOT}", "PYTHONWARNINGS": "ignore"}
    if peer.node:
        found["NODE_PATH"] = str(cache / peer.name / "node_modules")
    return found


def versions(peer: Peer, cache: Path) -> dict[str, str]:
    """Return what is installed: the peer's own packages and the client libraries."""
    if peer.node:
        folder = cache / peer.name / "node_modules"
        return {
            name: json.loads((folder / name / "package.json").read_text())["version"] for name in ("bullmq", "ioredis")
        }
    python = command(peer, cache)[0]
    listed = subprocess.run([python, "-m", "pip", "list", "--format", "json"], capture_output=True, check=True).stdout
    wanted = {package.partition("==")[0].partition("[")[0].lower() for package in peer.packages}
    wanted |= {"redis", "hiredis", "uvloop", "coredis", "streamq" if peer is STREAMQ else ""}
    return {one["name"]: one["version"] for one in json.loads(listed) if one["name"].lower() in wanted}
