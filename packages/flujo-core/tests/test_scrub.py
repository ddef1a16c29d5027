"""Secrets of a known form never stay in a text, and the time to look is linear in its length."""

from __future__ import annotations

from time import process_time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flujo.core import GuardDenied, RunAborted, scrub, scrubbing

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
    "Cerebras": f"csk-{BODY}",
    "OpenRouter": f"sk-or-v1-{BODY}",
    "ElevenLabs": f"sk_{BODY}",
    "Perplexity": f"pplx-{BODY}",
    "Replicate": f"r8_{BODY}",
    "LangSmith": f"lsv2_pt_{BODY}_{BODY[:8]}",
    "Langfuse": f"pk-lf-{BODY}",
    "Together": f"tgp_v1_{BODY}",
    "Tavily": f"tvly-dev-{BODY}",
    "Pinecone": f"pcsk_{BODY}_{BODY}",
    "Jina": f"jina_{BODY}",
    "Notion": f"ntn_{BODY}",
    "Linear": f"lin_api_{BODY}",
    "Stripe webhook": f"whsec_{BODY}",
    "Stripe restricted": f"rk_live_{BODY}",
    "Shopify": f"shpat_{BODY}",
    "Square": f"sq0atp-{BODY}",
    "Supabase": f"sbp_{BODY}",
    "Grafana": f"glsa_{BODY}",
    "PostHog": f"phx_{BODY}",
    "New Relic": f"NRAK-{BODY[:27].upper()}",
    "Docker": f"dckr_pat_{BODY}",
    "PlanetScale": f"pscale_tkn_{BODY}",
    "Databricks": "dapi" + "0123456789abcdef" * 2,
    "Mailgun": "key-" + "0123456789abcdef" * 2,
    "Twilio": "SK" + "0123456789abcdef" * 2,
    "Telegram": f"1234567890:AA{BODY}",
    "Vault": f"hvs.{BODY}",
    "Doppler": f"dp.st.{BODY}",
    "Atlassian": f"ATATT3{BODY}",
    "1Password": f"ops_eyJ{BODY}",
    "age": f"AGE-SECRET-KEY-1{BODY.upper()}",
    "GitLab runner": f"glrt-{BODY}",
    "Slack app": f"xapp-1-{BODY}",
    "Slack hook": f"https://hooks.slack.com/services/T0/B0/{BODY}",
    "AWS session": f"IQoJb3JpZ2lu{BODY}{BODY}",
    "AWS temporary": "ASIAABCDEFGHIJKLMNOP",
    "Bedrock": f"ABSK{BODY}{BODY}",
    "Google client": f"GOCSPX-{BODY}",
    "Google refresh": f"1//0{BODY}",
    "Entra": f"abc8Q~{BODY}",
    "JWT": JWT,
    "JWE": f"eyJhbGciOiJkaXIifQ..{BODY}.{BODY}.{BODY}",
    "PEM": PEM,
    "PEM without an end": PEM[:50],
    "OpenSSH": PEM.replace("RSA", "OPENSSH"),
    "EC": PEM.replace("RSA ", ""),
    "PGP": PEM.replace("RSA PRIVATE KEY", "PGP PRIVATE KEY BLOCK"),
    "certificate": PEM.replace("RSA PRIVATE KEY", "CERTIFICATE"),
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
        ("postgresql://app:s3c/r3t@db/x", "postgresql://app:[SECRET]@db/x"),
        ("redis://u:p@ss:w@rd@host:6379/0", "redis://u:[SECRET]@host:6379/0"),
        ("GET /v1?token=abcdefgh&x=1", "GET /v1?token=[SECRET]&x=1"),
        ("https://h/b?sv=2&sig=abcd%2Fefgh&se=3", "https://h/b?sv=2&sig=[SECRET]&se=3"),
        ("?X-Amz-Signature=abcdef0123&X-Amz-Date=2", "?X-Amz-Signature=[SECRET]&X-Amz-Date=2"),
        ("Cookie: session=abc123", "Cookie: [SECRET]"),
        ("Proxy-Authorization: Basic dXNlcjpwYXNz", "Proxy-Authorization: [SECRET]"),
        (
            "Authorization: AWS4-HMAC-SHA256 Credential=AK/x/s3/aws4_request, SignedHeaders=x, Signature=0a1b2c done",
            "Authorization: [SECRET] done",
        ),
        ('Authorization: Digest username="ann", response="0a1b2c", uri=/x', "Authorization: [SECRET]"),
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
        "see http://localhost:8080/@scope/of/ann@example.org",
        "the secret of good soup is time",
        "tokens: 128, max_tokens=512, total_tokens_limit of 10 tokens reached",
        "task-list and risk-assessment-of-the-whole-project",
        "password: no",
        "token: x, sig: y; the key = z",
        "glove-making-for-beginners and love-of-the-game",
        "a signature: def f(x): ... of ops_engineering",
        "hash 0123456789abcdef0123456789abcdef, run 6f1ed002ab5595859014ebf0951522d9",
        "the model openai:gpt-4o-mini-2024-07-18 and claude-3-5-sonnet-20241022",
        "map[3]/loop#2/ask took 0.25 s; at 2026-11-28T10:22:23+00:00",
    ],
)
def test_ordinary_text_is_left_as_it_is(text: str) -> None:
    assert scrub(text) is text or scrub(text) == text


MADE_OF = st.sampled_from(
    (
        *(
            "a",
            "Z",
            "5",
            " ",
            ",",
            ";",
            "'",
            '"',
            "/",
            "@",
            "&",
            "?",
            "~",
            ".",
            "-",
            "_",
            "\n",
            "..",
            ":",
            "=",
            "://",
            ":AA",
        ),
        *("-----BEGIN A-----", "eyJabcdefgh", "abc8Q~", BODY[:16], BODY, "sk-", "1//0", "SG.", "key-", "123456789"),
        *(
            "password",
            "api_key",
            "token",
            "authorization",
            "Set-Cookie",
            "coo\u212aie",
            "Bearer ",
            "splunk  ",
            "\u017fplunk ",
        ),
        *("https", "u:p", "slack.com/services/", "0123456789abcdef"),
    )
)


@given(st.lists(MADE_OF, max_size=9).map("".join))
@settings(max_examples=1_500, deadline=None)
def test_a_text_that_is_not_looked_at_closely_holds_nothing_that_a_closer_look_finds(text: str) -> None:
    close = text
    for pattern, replacement in scrubbing._PATTERNS:
        close = pattern.sub(replacement, close)
    assert scrub(text) == (close if close.isascii() else close.encode(errors="backslashreplace").decode())


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


ORDINARY = "the quick brown fox of step 'extract' reads https://example.org/a?b=1, and retries 3 times. "


def seconds(text: str) -> float:
    """The least of some timings: noise only ever adds."""
    found = []
    for _ in range(3):
        started = process_time()
        scrub(text)
        found.append(process_time() - started)
    return min(found)


@pytest.mark.alone
@pytest.mark.parametrize("piece", [ORDINARY, *HOSTILE], ids=range(len(HOSTILE) + 1))
def test_time_grows_in_proportion_to_the_length_of_the_text(piece: str) -> None:
    """Of eight times the text: 8 is linear, 64 quadratic."""
    short, long = (seconds(piece * (size // len(piece))) for size in (5_000, 40_000))
    assert long < 24 * max(short, 1e-3)


@pytest.mark.parametrize(
    "error", [RunAborted(f"{BODY} password=x1y2z3", "sk"), GuardDenied("p", "h", "password=x1y2z3")]
)
def test_the_reason_of_an_error_is_scrubbed_as_its_texts_are(error: RunAborted | GuardDenied) -> None:
    assert error.reason == error.why
    assert "x1y2z3" not in f"{error} {error.args} {vars(error)}"
