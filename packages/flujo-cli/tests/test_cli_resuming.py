"""The command that goes on with a run, as it is told."""

import pytest

from flujo_cli.questions import resuming


@pytest.mark.parametrize(
    ("store", "told"),
    [
        (None, ""),
        ("sqlite:///my runs.db", " --store 'sqlite:///my runs.db'"),
        ("postgresql://ann:secret@db/flujo", " --store postgresql://ann@db/flujo"),
        ("postgresql://ann:s@cr:et@db/flujo", " --store postgresql://ann@db/flujo"),
        ("postgresql://db/flujo?password=secret&user=ann", " --store 'postgresql://db/flujo?user=ann'"),
        ("postgresql://db/flujo?user=ann&sslpassword=secret", " --store 'postgresql://db/flujo?user=ann&'"),
        ("sqlite:///a:b@c.db", " --store sqlite:///a:b@c.db"),
    ],
)
def test_it_can_be_pasted_and_tells_no_password(store: str | None, told: str) -> None:
    assert resuming("a b.py:x", "run-1", store) == f"flujo runs resume 'a b.py:x' run-1{told}"
