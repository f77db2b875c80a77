"""Posts to addresses that clients have named, and never to one that they should not reach.

A name is resolved once; every address that it has must be allowed, and the connection goes to one
of these very addresses, so a name that points elsewhere a moment later is of no use. TLS is still
verified for the name. Redirects are not followed, and the environment's proxies are not asked.
"""

import contextlib
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

import httpcore
import httpx

from jobs.settings import Network

LONGEST_RESPONSE = 1000
"""Bytes of an answer's body that are read."""

_DEFAULT_PORTS = {"https": 443, "http": 80}
_PORTS = {80, 443, *range(1024, 65536)}
"""Others belong to mail, shells and the like."""

_INTERNET_6 = ip_network("2000::/3")
_RESERVED = [
    ip_network(block)
    for block in (
        "192.0.0.0/24",  # protocols, and a cloud's metadata
        "192.88.99.0/24",  # relays of 6to4
        "168.63.129.16/32",  # a cloud's metadata, though the address is a public one
        "2001::/23",  # protocols, among them Teredo
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4: an IPv4 address inside
        "3fff::/20",  # documentation
    )
]
"""Refused beyond what Python says is not global, which its versions differ on."""

_CANNOT_BE_IN_A_URL = re.compile(r"[\s\x00-\x1f\x7f-\x9f\\]")

Address = IPv4Address | IPv6Address
Resolve = Callable[[str, int], Sequence[str]]

_FAILURES = (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError)


class RefusedUrlError(Exception):
    """A URL that nothing is sent to."""


class NoAnswerError(Exception):
    """A receiver that could not be reached, or did not answer as HTTP does."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a receiver has said.

    Attributes:
        headers: by their names in lower case.
        body: its beginning.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


def resolve(host: str, port: int) -> Sequence[str]:
    """The addresses of a name, by the system's resolver; OSError or UnicodeError if it has none."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


class Outbound:
    """The way out: to https on the internet, and to the operator's networks also by http."""

    def __init__(
        self,
        networks: Sequence[Network],
        timeout_seconds: float,
        *,
        resolve: Resolve = resolve,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._networks = networks
        self._timeout_seconds = timeout_seconds
        self._resolve = resolve
        self._given_tls = tls

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        """Made when it is needed: reading all the authorities' certificates takes a while."""
        return self._given_tls or httpx.create_ssl_context()

    @property
    def timeout_seconds(self) -> float:
        """How long a post may take once the name is resolved."""
        return self._timeout_seconds

    @property
    def allowed(self) -> str:
        """What a URL may be, in words."""
        words = "https to an address on the internet, on port 443, 80 or any from 1024"
        if self._networks:
            words += f"; http and https to {', '.join(map(str, self._networks))}"
        return words

    def check(self, url: str) -> None:
        """Raise RefusedUrlError, with what is wrong, if nothing would be sent there now."""
        self._addresses(_parsed(url))

    def post(self, url: str, content: bytes, headers: Mapping[str, str]) -> Answer:
        """Post, and read the answer's beginning; its status is what counts.

        Raises:
            RefusedUrlError: nothing was sent.
            NoAnswerError: it may have arrived or not.
        """
        target = _parsed(url)
        way = _Pinned(self._addresses(target), time.monotonic() + self._timeout_seconds)
        try:
            with (
                httpcore.ConnectionPool(ssl_context=self._tls, network_backend=way) as pool,
                pool.stream(
                    "POST",
                    httpcore.URL(
                        scheme=target.raw_scheme,
                        host=target.raw_host,
                        port=target.port,
                        target=target.raw_path,
                    ),
                    headers=[("Host", target.netloc.decode("ascii")), *headers.items()],
                    content=content,
                ) as response,
            ):
                said = {
                    name.decode("latin-1").lower(): value.decode("latin-1")
                    for name, value in response.headers
                }
                return Answer(response.status, said, _beginning(response))
        except httpcore.TimeoutException as error:
            raise NoAnswerError(f"no answer within {self._timeout_seconds:g} s") from error
        except _FAILURES as error:
            raise NoAnswerError(f"no answer: {error or type(error).__name__}") from error

    def _addresses(self, target: httpx.URL) -> Sequence[str]:
        port = _DEFAULT_PORTS[target.scheme] if target.port is None else target.port
        if port not in _PORTS:
            raise RefusedUrlError(f"port {port} is not one that webhooks are sent to")
        host = target.raw_host.decode("ascii")
        try:
            found = self._resolve(host, port)
        except (OSError, UnicodeError) as error:
            raise RefusedUrlError(f"the name {host} has no address") from error
        for address in found:
            self._require_allowed(target.scheme, host, ip_address(address))
        return found

    def _require_allowed(self, scheme: str, host: str, address: Address) -> None:
        """What the address is stays here: names inside are none of a client's business."""
        if any(address in network for network in self._networks):
            return
        if not is_on_the_internet(address):
            raise RefusedUrlError(f"{host} leads to an address that is not on the internet")
        if scheme != "https":
            raise RefusedUrlError("plain http is for the operator's own networks")


def is_on_the_internet(address: Address) -> bool:
    """Whether an address is anybody's on the internet, and no way to another one inside it."""
    if isinstance(address, IPv6Address) and address not in _INTERNET_6:
        return False
    return (
        address.is_global
        and not address.is_multicast
        and not address.is_reserved
        and not any(address in block for block in _RESERVED)
    )


def _parsed(url: str) -> httpx.URL:
    """A URL that is one for all who read it; RefusedUrlError otherwise."""
    if _CANNOT_BE_IN_A_URL.search(url):
        raise RefusedUrlError("blanks, control characters and backslashes cannot be in a URL")
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise RefusedUrlError(f"it is not a URL: {error}") from error
    if parsed.scheme not in {"http", "https"}:
        raise RefusedUrlError(f"its scheme is {parsed.scheme!r}")
    if parsed.userinfo:
        raise RefusedUrlError("it holds credentials; messages are signed instead")
    if parsed.fragment:
        raise RefusedUrlError("it has a fragment, which is never sent")
    if not re.fullmatch(rb"[0-9A-Za-z.:_-]+", parsed.raw_host):
        raise RefusedUrlError("its host is no name and no address")
    return parsed


def _beginning(response: httpcore.Response) -> bytes:
    body = b""
    # A body that breaks off changes nothing of the status.
    with contextlib.suppress(*_FAILURES):
        for chunk in response.iter_stream():
            body += chunk
            if len(body) >= LONGEST_RESPONSE:
                break
    return body[:LONGEST_RESPONSE]


class _Pinned(httpcore.NetworkBackend):
    """Connects to the given addresses whatever the name, the first that answers; `deadline` is by
    the monotonic clock, and holds for all of the exchange."""

    def __init__(self, addresses: Sequence[str], deadline: float) -> None:
        self._addresses = addresses
        self._deadline = deadline
        self._sockets = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """See the class."""
        del host, timeout
        failure: Exception = httpcore.ConnectError("the name has no address")
        for address in self._addresses:
            left = _left(self._deadline)
            try:
                stream = self._sockets.connect_tcp(
                    address, port, left, local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
            else:
                return _Timed(stream, self._deadline)
        raise failure


class _Timed(httpcore.NetworkStream):
    """A stream that ends at a deadline, however little comes however often."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: float) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        del timeout
        return self._stream.read(max_bytes, _left(self._deadline))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        del timeout
        self._stream.write(buffer, _left(self._deadline))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        del timeout
        stream = self._stream.start_tls(ssl_context, server_hostname, _left(self._deadline))
        return _Timed(stream, self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _left(deadline: float) -> float:
    """Seconds until then; never 0, which would mean not to wait at all and not to say so."""
    return max(deadline - time.monotonic(), 0.001)
