"""What a pipeline's code logs and raises under the command line holds no secret, in whatever way it is shown."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from test_scrub import SECRETS

PIPELINE = """
import json, logging
from flujo.core import Pipeline, Step

SECRETS = json.loads(open("secrets.json").read())
log = logging.getLogger("mine")
{set_up}
for secret in SECRETS:
    log.warning("loading with %s", secret)

async def work(text: str) -> str:
    if text == "late":
        logging.basicConfig(format="%(levelname)s %(message)s")
    for secret in SECRETS:
        log.warning("calling with %s", secret)
        log.warning(f"calling with {{secret}}", extra={{"header": secret}})
        try:
            raise ValueError(secret)
        except ValueError:
            log.exception("it failed")
    raise RuntimeError(" ".join(SECRETS))

pipeline = Pipeline(Step(work))
"""

SET_UPS = {
    "nothing": "",
    "basicConfig": "logging.basicConfig()",
    "extra": "handler = logging.StreamHandler(); logging.root.addHandler(handler)\n"
    "form = '%(message)s %(header)s %(exc_text)s'\n"
    "handler.setFormatter(logging.Formatter(form, defaults={'header': ''}))",
    "a logger's own handler": "log.addHandler(logging.StreamHandler()); log.propagate = False",
}


@pytest.mark.parametrize(
    ("set_up", "argument"),
    [*((set_up, "--debug") for set_up in SET_UPS.values()), ("", "--json")],
    ids=[*SET_UPS, "json"],
)
def test_no_secret_is_printed(tmp_path: Path, set_up: str, argument: str) -> None:
    secrets = list(SECRETS.values())
    (tmp_path / "secrets.json").write_text(json.dumps(secrets))
    (tmp_path / "flow.py").write_text(PIPELINE.format(set_up=set_up))
    text = "late" if not set_up else "now"
    command = [sys.executable, "-m", "flujo_cli", "run", "flow.py", "--text", text, argument]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 3, done.stderr
    printed = done.stdout + done.stderr
    assert not [name for name, secret in SECRETS.items() if secret in printed]
    assert printed.count("calling with") == 2 * len(secrets)
    assert printed.count("loading with") == len(secrets)
    assert "it failed" in printed
