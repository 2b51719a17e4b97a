"""Credentials in addresses: seen under every name that a service has for them, and nothing else taken for one."""

import pytest

from wfm.credentials import carries_credentials, without_credentials

SECRET = "wJalrXUtnFEMIK7MDENG"


@pytest.mark.parametrize(
    "url",
    [
        "https://h/a.mp4?apikey={}",  # the first three passed as harmless before
        "https://h/a.mp4?key={}",
        "https://h/a.mp4?X-Amz-Credential={}",
        "https://h/a.mp4?x=1&X-Goog-Signature={}",
        "https://h/a.mp4?sv=2024&sig={}",
        "https://h/a.mp4?Key-Pair-Id={}",
        "https://h/a.mp4?api_key={}",
        "https://h/a.mp4?X-Amz-Security-Token={}",
        "https://h/a.mp4?%6bey={}",
        "https://h/a.mp4#access_token={}",
        "https://h/a.mp4;auth={}",
        "s3://AKIA:{}@bucket/a.mp4",
        "s3://AKIA:wJalr/{}@bucket/a.mp4",  # the last four passed as harmless
        "https://h/a.mp4?hmac={}",
        "https://h/a.mp4?PHPSESSID={}",
        "https://h/a.mp4?ak=1&sk={}",
    ],
)
def test_an_address_with_a_credential_is_seen_and_blanked(url: str) -> None:
    assert carries_credentials(url.format(SECRET))
    shown = without_credentials(f"could not read {url.format(SECRET)} (403)")
    assert SECRET not in shown
    assert shown.endswith(" (403)")


@pytest.mark.parametrize(
    "url",
    [
        "https://h/a.mp4?t=30&keyframes=1",
        "https://h/monkey=2/a.mp4",
        "s3://bucket/a@b.mp4",
        "/films/a@b.mp4",
        "http://h:8080/a@b.mp4",
        "http://h:80?t=a@b",
        "http://[::1]:80/a@b.mp4",
        "https://h/a.mp4?v=3",
    ],
)
def test_harmless_addresses_stay_as_they_are(url: str) -> None:
    assert not carries_credentials(url)
    assert without_credentials(url) == url


def test_values_of_the_environment_and_of_options_are_blanked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    assert (
        without_credentials(f"signing with {SECRET} and option-value", ["option-value"]) == "signing with *** and ***"
    )
