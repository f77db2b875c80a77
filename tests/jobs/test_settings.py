"""Settings: where they come from, and what Celery needs of them."""

from ipaddress import ip_network

import pytest

from jobs.settings import Settings


@pytest.mark.parametrize(
    ("redis_url", "broker_url"),
    [
        ("redis://localhost:6379/2", "redis://localhost:6379/2"),
        ("rediss://:secret@host/0", "rediss://:secret@host/0"),
        ("unix:///run/valkey.sock?db=3", "redis+socket:///run/valkey.sock?virtual_host=3"),
        ("unix:///with%20blank/v.sock", "redis+socket:///with%20blank/v.sock?virtual_host=0"),
    ],
)
def test_celery_gets_the_broker_in_its_own_spelling(redis_url: str, broker_url: str) -> None:
    assert Settings(redis_url=redis_url).broker_url == broker_url


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BONSAI_LEASE_SECONDS", "12.5")
    assert Settings().lease_seconds == 12.5


def test_networks_are_listed_with_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings().webhook_networks == ()
    monkeypatch.setenv("BONSAI_WEBHOOK_NETWORKS", "10.0.0.0/8, fd00::/8")
    assert Settings().webhook_networks == (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))
    for wrong in ("10.0.0.1/8", "hooks.example"):
        monkeypatch.setenv("BONSAI_WEBHOOK_NETWORKS", wrong)
        with pytest.raises(ValueError, match="webhook_networks"):
            Settings()


def test_a_setting_out_of_range_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BONSAI_LEASE_SECONDS", "-1")
    with pytest.raises(ValueError, match="lease_seconds"):
        Settings()
