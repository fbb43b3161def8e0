"""Files that run the service: as far as they can be checked without running it there."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from importlib.resources import files
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from zsic_index.cli.serve import serve

FOLDER = Path(str(files("zsic_index.service") / "deploy"))


def program(name: str) -> str:
    """Return a program; the test is skipped without it."""
    found = shutil.which(name, path="/usr/sbin:/sbin:/usr/bin:/bin:/usr/local/bin")
    if found is None:
        pytest.skip(f"no {name} here")
    return found


@pytest.mark.parametrize("name", ["Containerfile", "zsic-index.service", "nginx.conf"])
def test_they_use_options_that_there_are(name: str) -> None:
    text = (FOLDER / name).read_text(encoding="utf-8")
    lines = [
        line.replace('"', "").replace(",", "") for line in text.splitlines() if "serve" in line
    ]
    known = {option for parameter in serve.params for option in parameter.opts}
    used = {part for line in lines for part in shlex.split(line, posix=False) if part[:2] == "--"}
    assert used
    assert used <= known


def test_the_unit_is_one(tmp_path: Path) -> None:
    program_ = tmp_path / "zsic-index"
    program_.write_text("#!/bin/sh\n")
    program_.chmod(0o755)
    text = (FOLDER / "zsic-index.service").read_text(encoding="utf-8")
    unit = tmp_path / "zsic-index.service"
    unit.write_text(text.replace("/opt/zsic-index/bin/zsic-index", str(program_)))
    done = subprocess.run(
        [program("systemd-analyze"), "verify", "--man=no", unit], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_proxy_s_configuration_is_one(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key", tmp_path / "certificate"
    subprocess.run(
        [
            *(program("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"),
            *("-subj", "/CN=photos.example", "-keyout", key, "-out", certificate),
        ],
        check=True,
        capture_output=True,
    )
    text = (FOLDER / "nginx.conf").read_text(encoding="utf-8")
    text = text.replace("/etc/ssl/photos.example.pem", str(certificate))
    text = text.replace("/etc/ssl/photos.example.key", str(key))
    whole = tmp_path / "nginx.conf"
    whole.write_text(
        f"pid {tmp_path}/pid;\nerror_log stderr;\nevents {{}}\nhttp {{ access_log off;\n{text} }}\n"
    )
    done = subprocess.run(
        [program("nginx"), "-t", "-c", whole, "-p", tmp_path], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_the_container_s_file_is_linted() -> None:
    done = subprocess.run(
        [program("hadolint"), FOLDER / "Containerfile"], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_the_container_s_file_copies_what_there_is() -> None:
    text = (FOLDER / "Containerfile").read_text(encoding="utf-8")
    extras = re.search(r'EXTRAS="([^"]+)"', text)
    assert extras is not None
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for extra in extras[1].split(","):
        assert re.search(rf"^{extra} = \[", project, re.MULTILINE)
