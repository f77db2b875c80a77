"""Where nothing is sent, whatever a client says; and that what is checked is what is reached."""

import datetime
import socket
import ssl
import threading
from collections.abc import Sequence
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from api.outbound import (
    LONGEST_RESPONSE,
    NoAnswerError,
    Outbound,
    RefusedUrlError,
    Resolve,
    is_on_the_internet,
    resolve,
)
from tests.receiver import Receiver

LOOPBACK = (ip_network("127.0.0.0/8"),)
PUBLIC, PUBLIC_6 = "93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c"
NAMES = {
    "public.example": [PUBLIC, PUBLIC_6],
    "inside.example": ["127.0.0.1"],
    "both.example": [PUBLIC, "10.0.0.5"],
    "both-6.example": [PUBLIC_6, "fd00::1"],
    "xn--bcher-kva.example": [PUBLIC],
}


def table(host: str, port: int) -> Sequence[str]:
    """Names as the table has them, numbers as the system reads them."""
    if host in NAMES:
        return NAMES[host]
    if host.endswith((".example", ".invalid")):
        raise socket.gaierror("no such name")
    return resolve(host, port)


def always(*addresses: str) -> Resolve:
    """A resolver to which all names are the same."""
    return lambda _host, _port: addresses


@pytest.fixture
def outbound() -> Outbound:
    return Outbound((), 20, resolve=table)


@pytest.mark.parametrize(
    "url",
    [
        "https://public.example/hook",
        "https://public.example:8443/hook?key=1",
        "https://public.example:80/",
        f"https://{PUBLIC}/",
        f"https://[{PUBLIC_6}]/",
        "https://bücher.example/",
        "HTTPS://PUBLIC.example",
    ],
)
def test_https_to_the_internet_is_allowed(outbound: Outbound, url: str) -> None:
    outbound.check(url)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        *(
            (f"https://{host}/", "not on the internet")
            for host in (
                "127.0.0.1",
                "2130706433",
                "0x7f000001",
                "0x7f.1",
                "017700000001",
                "127.1",
                "127。0。0。1",
                "0.0.0.0",
                "0",
                "10.1.2.3",
                "100.100.100.200",
                "169.254.169.254",
                "0xa9fea9fe",
                "168.63.129.16",
                "172.16.0.1",
                "192.0.0.192",
                "192.168.1.1",
                "224.0.0.1",
                "240.0.0.1",
                "255.255.255.255",
                "localhost",
                "[::]",
                "[::1]",
                "[::ffff:127.0.0.1]",
                "[::ffff:93.184.215.14]",
                "[::127.0.0.1]",
                "[2002:7f00:1::]",
                "[64:ff9b::7f00:1]",
                "[64:ff9b:1::7f00:1]",
                "[2001:0:7f00:1::1]",
                "[fd00:ec2::254]",
                "[fe80::1]",
                "[fec0::1]",
                "[ff02::1]",
                "inside.example",
                "both.example",
                "both-6.example",
            )
        ),
        # Systems differ on what this one is.
        ("https://localhost./", "no address|not on the internet"),
        ("https://0177.0.0.1/", "not a URL"),
        ("http://public.example/", "plain http"),
        ("file:///etc/passwd", "scheme is 'file'"),
        ("gopher://public.example/", "scheme is 'gopher'"),
        ("ftp://public.example/", "scheme is 'ftp'"),
        ("//public.example/", "scheme is ''"),
        ("public.example", "scheme is ''"),
        ("unix:/run/service.sock", "scheme is 'unix'"),
        ("https://user:password@public.example/", "credentials"),
        ("https://public.example@127.0.0.1/", "credentials"),
        ("https://127.0.0.1\\@public.example/", "backslashes"),
        ("https://public.example\\.inside.example/", "backslashes"),
        ("https://public.example/#@127.0.0.1", "fragment"),
        ("https://public.example/ hook", "blanks"),
        (" https://public.example/", "blanks"),
        ("https://public.example/\r\nHost: inside.example", "control"),
        ("https://public\0.example/", "control"),
        ("https://public.example\t/", "blanks"),
        ("https://public.example\u00a0/", "blanks"),
        ("https://%31%32%37.0.0.1/", "no name"),
        ("https:///hook", "no name"),
        ("https://", "no name"),
        ("https://[::1", "not a URL"),
        ("https://①②⑦.0.0.1/", "not a URL"),
        ("https://public.example:99999999/", "port 99999999"),
        ("https://public.example:0/", "port 0"),
        ("https://public.example:22/", "port 22"),
        ("https://public.example:25/", "port 25"),
        ("https://nowhere.example/", "no address"),
        ("https://a..b.invalid/", "no address"),
    ],
)
def test_a_hostile_url_is_refused(outbound: Outbound, url: str, why: str) -> None:
    with pytest.raises(RefusedUrlError, match=why):
        outbound.check(url)
    with pytest.raises(RefusedUrlError, match=why):
        outbound.post(url, b"{}", {})


def test_what_a_name_leads_to_inside_is_not_told(outbound: Outbound) -> None:
    with pytest.raises(RefusedUrlError) as refused:
        outbound.check("https://both.example/")
    assert "10.0.0.5" not in str(refused.value)


def test_the_operators_networks_may_be_reached_and_no_others() -> None:
    inside = Outbound((ip_network("10.0.0.0/24"), ip_network("fd00::/64")), 20, resolve=table)
    for url in ("http://10.0.0.7/", "https://10.0.0.7:8443/", "https://both.example/"):
        inside.check(url)
    inside.check("https://both-6.example/")
    for url in ("http://10.0.1.7/", "http://127.0.0.1/", "http://public.example/"):
        with pytest.raises(RefusedUrlError):
            inside.check(url)
    assert "10.0.0.0/24" in inside.allowed


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("192.88.99.1", False),
        ("203.0.113.1", False),
        ("2a00:1450:4001:830::200e", True),
        ("2001:db8::1", False),
        ("3fff::1", False),
        ("4000::1", False),
    ],
)
def test_an_address_is_anybodys_or_not(address: str, public: bool) -> None:
    assert is_on_the_internet(ip_address(address)) is public


def test_the_address_that_was_checked_is_the_one_that_is_reached() -> None:
    """A name that changes between two look-ups is looked up once."""
    answers = [["127.0.0.1"], ["127.0.0.9"], ["127.0.0.9"]]
    with Receiver() as receiver:
        out = Outbound(
            (ip_network("127.0.0.1/32"),), 20, resolve=lambda _host, _port: answers.pop(0)
        )
        url = f"http://rebinding.example:{receiver.port}/hook"
        assert out.post(url, b"{}", {}).status == 204
        assert len(answers) == 2
        assert receiver.messages[0].headers["Host"] == f"rebinding.example:{receiver.port}"
        with pytest.raises(RefusedUrlError, match="not on the internet"):
            out.post(url, b"{}", {})
    assert len(receiver.messages) == 1


def test_an_address_that_does_not_answer_leaves_its_turn_to_the_next() -> None:
    with Receiver() as receiver:
        out = Outbound(LOOPBACK, 20, resolve=always("127.0.0.2", "127.0.0.1"))
        # Nothing listens on the first: the receiver is bound to the second alone.
        assert out.post(f"http://two.example:{receiver.port}/", b"{}", {}).status == 204


def test_a_redirect_is_an_answer_and_leads_nowhere() -> None:
    with Receiver() as inside, Receiver(statuses=[302]) as receiver:
        receiver.headers = {"Location": inside.url}
        answer = Outbound(LOOPBACK, 20).post(receiver.url, b"{}", {})
        assert (answer.status, answer.headers["location"]) == (302, inside.url)
    assert inside.messages == []


def test_the_environments_proxies_are_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with Receiver() as proxy, Receiver() as receiver:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        assert Outbound(LOOPBACK, 20).post(receiver.url, b"{}", {}).status == 204
    assert proxy.messages == []


def test_of_a_long_answer_the_beginning_is_read() -> None:
    with Receiver(statuses=[200], body=b"x" * 10_000_000) as receiver:
        assert Outbound(LOOPBACK, 20).post(receiver.url, b"{}", {}).body == b"x" * LONGEST_RESPONSE


def test_a_receiver_that_drips_has_no_more_time_than_any() -> None:
    """Each byte comes in time; all of them would take a minute."""
    with (
        Receiver(drip_seconds=1.0) as receiver,
        pytest.raises(NoAnswerError, match=r"within 1\.5 s"),
    ):
        Outbound(LOOPBACK, 1.5).post(receiver.url, b"{}", {})
    assert len(receiver.messages) == 1


def test_what_is_not_http_is_no_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(10_000)
                connection.sendall(b"SSH-2.0-server\r\n\r\n")

        threading.Thread(target=answer, daemon=True).start()
        port = listener.getsockname()[1]
        with pytest.raises(NoAnswerError):
            Outbound(LOOPBACK, 20).post(f"http://127.0.0.1:{port}/", b"{}", {})
    with pytest.raises(NoAnswerError, match="refused"):
        Outbound(LOOPBACK, 20).post(f"http://127.0.0.1:{port}/", b"{}", {})


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A key and a certificate of hooks.example, which it signs itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "hooks.example")])
    now = datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(days=1)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - day)
        .not_valid_after(now + day)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("hooks.example")]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path / "certificate.pem"
    pem = serialization.Encoding.PEM
    file.write_bytes(
        made.public_bytes(pem)
        + key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return file


def test_tls_is_verified_for_the_name_though_the_address_is_pinned(certificate: Path) -> None:
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(certificate)
    asked: list[str] = []
    serving.sni_callback = lambda _socket, name, _context: asked.append(name)
    trusting = ssl.create_default_context(cafile=str(certificate))
    with Receiver(tls=serving) as receiver:

        def post(name: str, tls: ssl.SSLContext | None) -> int:
            out = Outbound(LOOPBACK, 20, resolve=always("127.0.0.1"), tls=tls)
            return out.post(f"https://{name}:{receiver.port}/", b"{}", {}).status

        assert post("hooks.example", trusting) == 204
        assert asked == ["hooks.example"]
        for name, tls in (("other.example", trusting), ("hooks.example", None)):
            with pytest.raises(NoAnswerError, match="CERTIFICATE_VERIFY_FAILED"):
                post(name, tls)
    assert len(receiver.messages) == 1
