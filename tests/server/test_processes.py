"""Servers as processes: the command and the demo."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from nano_vm.cli import main

from .conftest import PASSWORD

ROOT = Path(__file__).parents[2]


@contextmanager
def running(command: list[str], folder: Path, pattern: str, **env: str) -> Iterator[re.Match[str]]:
    """A process, once it has written what *pattern* finds."""
    log = folder / "log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command, cwd=folder, stdout=stream, stderr=stream, env={**os.environ, **env}
        )
    try:
        until = time.monotonic() + 60
        while (found := re.search(pattern, log.read_text())) is None:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.05)
        yield found
    finally:
        process.send_signal(signal.SIGINT)
        try:
            assert process.wait(30) == 0, log.read_text()
        finally:
            process.kill()


SERVE = ["serve", "--store", "sqlite:///runs.db", "--bind", "127.0.0.1:0"]
FIRST = r"account at (http://127.0.0.1:\d+)/#/setup/(\S+)"


def set_up(address: str, token: str) -> None:
    body = {"token": token, "name": "ada", "password": PASSWORD}
    headers = {"origin": address}
    assert httpx.post(f"{address}/api/v1/setup", json=body, headers=headers).status_code == 201


@pytest.mark.slow
def test_the_command_prints_a_token_once(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "nano_vm", *SERVE]
    with running(command, tmp_path, FIRST) as found:
        set_up(found[1], found[2])
    assert (tmp_path / "runs.db.secret").stat().st_mode & 0o077 == 0
    with running(command, tmp_path, r"serving at (http://\S+)/") as found:
        assert httpx.get(f"{found[1]}/healthz").json() == {"ok": True}
        assert "setup" not in (tmp_path / "log").read_text()
        with httpx.Client(base_url=found[1]) as client:
            took = [client.get("/healthz").elapsed.total_seconds() for _ in range(30)]
        assert min(took[1:]) < 0.03  # no answer waits for an acknowledgement, which takes 0.04 s


@pytest.mark.slow
def test_the_demo_serves_a_run_that_waits(tmp_path: Path) -> None:
    (tmp_path / "answers.yaml").write_text("[unhappy, unhappy, unhappy]\n")
    command = [sys.executable, str(ROOT / "scripts" / "demo_server.py"), "--port", "0"]
    command += ["--model", "scripted:answers.yaml"]
    pattern = r"(http://127.0.0.1:\d+)/projects/shop/\n.* password (\S+)"
    with running(command, tmp_path, pattern) as found:
        client = httpx.Client(base_url=found[1], headers={"origin": found[1]}, timeout=30)
        body = {"name": "max", "password": found[2]}
        assert client.post("/api/v1/login", json=body).is_success
        until = time.monotonic() + 60
        while not (asked := client.get("/api/v1/projects/shop/inbox").json()["asked"]):
            assert time.monotonic() < until
            time.sleep(0.1)
        assert asked[0]["role"] == "manager"
        answer = {name: asked[0][name] for name in ("run", "path", "shown")}
        said = client.post("/api/v1/projects/shop/inbox", json={**answer, "answer": "approve"})
        assert said.is_success, said.text
        run = f"/api/v1/projects/shop/runs/{asked[0]['run']}"
        while client.get(run).json()["run"]["status"] != "success":
            assert time.monotonic() < until
            time.sleep(0.1)
        client.close()
    # what it has paid, too, stood in a folder of its own
    assert sorted(path.name for path in tmp_path.iterdir()) == ["answers.yaml", "log"]


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--bind", "0.0.0.0:8642"], "put a proxy with TLS before it"),
        (["--bind", "0.0.0.0:8642", "--public-url", "http://runs.example.org"], "use https://"),
        (["--public-url", "https://u:p@x"], "--public-url: write https://"),
        (["--store", "postgresql://127.0.0.1:1/none"], "--store: could not open"),
        (["--secret-file", "."], "--secret-file: "),
    ],
)
def test_what_is_not_served(
    more: list[str],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*SERVE, *more]) == 2
    assert told in capsys.readouterr().err


def test_a_port_that_is_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main([*SERVE[:-1], f"127.0.0.1:{port}"]) == 2
    assert "choose another port" in capsys.readouterr().err


def test_the_unit_that_the_page_shows_is_one_that_systemd_takes(tmp_path: Path) -> None:
    page = (ROOT / "docs/how-to/operate-server.md").read_text(encoding="utf-8")
    [unit] = re.findall(r'```ini title="nano-vm-serve.service"\n(.*?)```', page, re.S)
    [command] = re.findall(r"^ExecStart=\S+ (.*?[^\\])$", unit, re.M | re.S)
    words = command.replace("\\\n", " ").split()
    assert main([*words, "--help"]) == 0
    file = tmp_path / "nano-vm-serve.service"
    file.write_text(unit.replace("/opt/nano-vm/bin/nano-vm", sys.executable))
    if shutil.which("systemd-analyze") is None:
        return
    looked = subprocess.run(
        ["systemd-analyze", "verify", str(file)], capture_output=True, text=True, check=False
    )
    assert "nano-vm-serve.service:" not in looked.stderr, looked.stderr
