"""Where the service is, and how connections to it are made."""

import os
from typing import Any
from urllib.parse import urlsplit

import httpx

from client.errors import UnexpectedAnswerError, UnreachableServiceError
from client.keys import bearer

DEFAULT_URL = "http://127.0.0.1:8000"
Http = httpx.Client | httpx.AsyncClient
LOOPBACK = {"localhost", "127.0.0.1", "::1"}


def address(base_url: str | None) -> str:
    """The one given, or the environment's (BONSAI_URL), or this machine's."""
    return (base_url or os.environ.get("BONSAI_URL") or DEFAULT_URL).rstrip("/")


def settings(url: str, api_key: str | None, timeout_seconds: float) -> dict[str, Any]:
    """What httpx's clients take; without a key, the environment's (BONSAI_API_KEY)."""
    return {
        "base_url": url,
        "headers": bearer(api_key or os.environ.get("BONSAI_API_KEY")),
        "timeout": timeout_seconds,
        # A proxy for the world outside must not get what is meant for this machine.
        "trust_env": urlsplit(url).hostname not in LOOPBACK,
    }


def reading(http: Http, seconds: float | None) -> httpx.Timeout:
    """The client's timeouts, but for the seconds that pass without a byte of an answer."""
    usual = http.timeout
    return httpx.Timeout(connect=usual.connect, read=seconds, write=usual.write, pool=usual.pool)


def unreachable(http: Http, reason: Exception) -> Exception:
    """The error of an address from which no answer came."""
    return UnreachableServiceError(str(http.base_url).rstrip("/"), reason)


def unexpected(http: Http, reason: object) -> Exception:
    """The error of an answer that is another service's."""
    return UnexpectedAnswerError(str(http.base_url).rstrip("/"), str(reason))
