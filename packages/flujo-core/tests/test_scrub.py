"""Secrets of a known form never stay in a text, and the time to look is linear in its length."""

from __future__ import annotations

from time import process_time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flujo.core import scrub

BODY = "aB3dE6gH9jK2mN5pQ8sT1vW4yZ7bC0fG3hJ6"  # no real key: digits and letters in a row
JWT = f"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.{BODY}"
PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\nIBAAKC\n-----END RSA PRIVATE KEY-----"

SECRETS = {
    "OpenAI": f"sk-proj-{BODY}",
    "Anthropic": f"sk-ant-api03-{BODY}",
    "Stripe": f"sk_live_{BODY}",
    "GitHub": f"ghp_{BODY}",
    "GitHub fine": f"github_pat_{BODY}",
    "GitLab": f"glpat-{BODY}",
    "Slack": f"xoxb-{BODY}",
    "AWS": "AKIAABCDEFGHIJKLMNOP",
    "Google": f"AIza{BODY}",
    "Google OAuth": f"ya29.{BODY}",
    "Hugging Face": f"hf_{BODY}",
    "Groq": f"gsk_{BODY}",
    "xAI": f"xai-{BODY}",
    "NVIDIA": f"nvapi-{BODY}",
    "npm": f"npm_{BODY}",
    "PyPI": f"pypi-{BODY}",
    "SendGrid": f"SG.{BODY}.{BODY}",
    "DigitalOcean": f"dop_v1_{BODY}",
    "JWT": JWT,
    "PEM": PEM,
    "PEM without an end": PEM[:50],
}


@pytest.mark.parametrize("secret", SECRETS.values(), ids=SECRETS)
@pytest.mark.parametrize("frame", ["{}", "calling with {} failed", "('{}',)", "key={}\nnext"])
def test_a_secret_of_a_known_form_is_masked_wherever_it_stands(secret: str, frame: str) -> None:
    cleaned = scrub(frame.format(secret))
    assert "[SECRET]" in cleaned
    assert BODY not in cleaned
    assert secret not in cleaned


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("Authorization: Bearer abc", "Authorization: [SECRET]"),
        ("Authorization: Basic dXNlcjpwYXNz, Accept: */*", "Authorization: [SECRET], Accept: */*"),
        ("{'Authorization': 'Basic dXNlcjpwYXNz'}", "{'Authorization': '[SECRET]'}"),
        ('{"authorization": "Token abc"}', '{"authorization": "[SECRET]"}'),
        ("(b'authorization', b'Basic dXNl')", "(b'authorization', b'[SECRET]')"),
        ("bearer abcdefghijklmnop", "bearer [SECRET]"),
        ("{'x-api-key': 'abc'}", "{'x-api-key': '[SECRET]'}"),
        ("password=hunter2&x=1", "password=[SECRET]&x=1"),
        ('"password": "correct horse battery"', '"password": "[SECRET]"'),
        ("password='a'", "password='[SECRET]'"),
        ("DB_PASSWORD = hunter2", "DB_PASSWORD = [SECRET]"),
        ("AWS_SECRET_ACCESS_KEY=abc/def+ghi", "AWS_SECRET_ACCESS_KEY=[SECRET]"),
        ("AWS_SECRET_KEY=abcdef", "AWS_SECRET_KEY=[SECRET]"),
        ("client_secret=abcdef", "client_secret=[SECRET]"),
        ("access_token=abcdef; refresh_token=ghijkl", "access_token=[SECRET]; refresh_token=[SECRET]"),
        ("AccountKey=abcd==;EndpointSuffix=x", "AccountKey=[SECRET];EndpointSuffix=x"),
        ("postgresql://app:s3cr:et@db/x", "postgresql://app:[SECRET]@db/x"),
        ("https://:token@host/", "https://:[SECRET]@host/"),
    ],
)
def test_named_credentials_are_masked_and_what_stands_around_them_is_kept(text: str, cleaned: str) -> None:
    assert scrub(text) == cleaned


@pytest.mark.parametrize(
    "text",
    [
        "",
        "the step 'extract' failed: ValueError: 3 is not 4",
        "see https://example.org:8080/path?x=1 for more",
        "the secret of good soup is time",
        "tokens: 128, max_tokens=512, total_tokens_limit of 10 tokens reached",
        "task-list and risk-assessment-of-the-whole-project",
        "password: no",
    ],
)
def test_ordinary_text_is_left_as_it_is(text: str) -> None:
    assert scrub(text) is text or scrub(text) == text


@settings(deadline=None)
@given(st.text(max_size=200), st.text(max_size=200), st.sampled_from(sorted(SECRETS.values())))
def test_no_text_around_a_secret_lets_it_through(before: str, after: str, secret: str) -> None:
    assert secret not in scrub(f"{before} {secret} {after}")


@settings(deadline=None)
@given(st.text(max_size=300))
def test_cleaning_twice_changes_nothing_more(text: str) -> None:
    assert scrub(scrub(text)) == scrub(text)


HOSTILE = ["eyJ-", "eyJaaaaaaaa.", "a://", "a.", "-----BEGIN ", "-----BEGIN PRIVATE KEY-----", "password", "password="]
HOSTILE += ["secret-", "authorization:", "authorization: ", "bearer ", "sk-", "SG.aaaaaaaaaaaaaaaa.", "x" * 50 + "://"]
HOSTILE += ["=", " ", "'", 'secret="', "secret '"]


@pytest.mark.alone
@pytest.mark.parametrize("piece", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_takes_time_in_proportion_to_its_length(piece: str) -> None:
    text = piece * (200_000 // len(piece))
    started = process_time()
    scrub(text)
    assert process_time() - started < 1.5, "200 kB; a quadratic pattern would take minutes"
