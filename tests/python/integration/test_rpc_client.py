"""Reaching a node as users do: behind a proxy, with an authority of one's own, and with Ctrl-C at hand."""

from __future__ import annotations

import datetime
import ipaddress
import signal
import socket
import socketserver
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from jupyter_client import BlockingKernelClient
from jupyter_client.manager import start_new_kernel

from counterfoil import errors
from counterfoil.chain import Chain

PROXIES = ["http_proxy", "https_proxy", "all_proxy", "no_proxy"]
AUTHORITIES = ["SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"]
# Nobody resolves it, so whoever reaches it was led there.
NAME = "node.invalid"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """None of the variables is set, whatever this machine needs."""
    for name in [*PROXIES, *map(str.upper, PROXIES), *AUTHORITIES]:
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def certified(name: str, *, issuer: tuple | None = None) -> tuple:
    """A certificate and its key; an authority, unless one issues it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    signer, signing_key = (issuer[0].subject, issuer[1]) if issuer else (subject, key)
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName(NAME), x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(signer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(signing_key, hashes.SHA256())
    )
    return certificate, key


def pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


@contextmanager
def running(server: socketserver.BaseServer) -> Iterator[int]:
    with server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def answer(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], ThreadingHTTPServer]:
    """Makes servers that answer as one development chain does, to whatever name they are asked by."""
    chain = Chain.dev(tmp_path_factory.mktemp("chain") / "chain")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = self.rfile.read(int(self.headers["Content-Length"])).decode()
            response = chain._native.handle(request).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(response)))
            self.end_headers()
            self.wfile.write(response)

        def log_message(self, *_: object) -> None:
            pass

    return lambda: ThreadingHTTPServer(("127.0.0.1", 0), Handler)


@pytest.fixture(scope="module")
def plain(answer: Callable[[], ThreadingHTTPServer]) -> Iterator[int]:
    """The port of a node that speaks HTTP."""
    with running(answer()) as port:
        yield port


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`authority.pem` issued what the node shows, `stranger.pem` did not."""
    folder = tmp_path_factory.mktemp("certificates")
    authority = certified("authority")
    node, key = certified("node", issuer=authority)
    (folder / "authority.pem").write_bytes(pem(authority[0]))
    (folder / "stranger.pem").write_bytes(pem(certified("stranger")[0]))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "node.pem").write_bytes(pem(node) + private)
    return folder


@pytest.fixture(scope="module")
def encrypted(answer: Callable[[], ThreadingHTTPServer], certificates: Path) -> Iterator[int]:
    """The port of a node that speaks HTTPS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "node.pem")
    server = answer()
    server.socket = context.wrap_socket(server.socket, server_side=True)
    with running(server) as port:
        yield port


class Tunnel(socketserver.BaseRequestHandler):
    """An HTTP or SOCKS5 proxy that writes down where it is asked to lead, and leads to 127.0.0.1."""

    def handle(self) -> None:
        greeting = self.request.recv(4096)
        if greeting[:1] == b"\5":
            self.request.sendall(b"\5\0")
            asked = self.request.recv(4096)
            name, port = asked[5:-2].decode(), int.from_bytes(asked[-2:])
            self.request.sendall(b"\5\0\0\1" + bytes(6))
        else:
            while b"\r\n\r\n" not in greeting:
                greeting += self.request.recv(4096)
            verb, target, *_ = greeting.decode().split()
            name, port = target.rsplit(":", 1)
            self.request.sendall(
                b"HTTP/1.1 200 OK\r\n\r\n" if verb == "CONNECT" else b"HTTP/1.1 405 x\r\n\r\n"
            )
        self.server.asked.append(f"{name}:{port}")  # type: ignore[attr-defined]
        with socket.create_connection(("127.0.0.1", int(port))) as there:
            back = threading.Thread(target=pump, args=(there, self.request), daemon=True)
            back.start()
            pump(self.request, there)
            back.join()


def pump(source: socket.socket, sink: socket.socket) -> None:
    while chunk := source.recv(65536):
        sink.sendall(chunk)
    sink.shutdown(socket.SHUT_WR)


class Proxy:
    def __init__(self, port: int, asked: list[str]) -> None:
        self.port, self.asked = port, asked
        self.url = f"http://127.0.0.1:{port}"


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Tunnel)
    server.asked = []  # type: ignore[attr-defined]
    with running(server) as port:
        yield Proxy(port, server.asked)  # type: ignore[attr-defined]


def refusal(url: str) -> str:
    with pytest.raises(errors.ChainError) as refused:
        Chain.connect(url)
    return str(refused.value)


# Authorities


def test_an_unknown_authority_is_refused_at_once(encrypted: int) -> None:
    begin = time.monotonic()
    assert "UnknownIssuer" in refusal(f"https://127.0.0.1:{encrypted}")
    assert time.monotonic() - begin < 5


@pytest.mark.parametrize("name", AUTHORITIES)
def test_a_named_authority_is_trusted(
    encrypted: int, certificates: Path, environment: pytest.MonkeyPatch, name: str
) -> None:
    environment.setenv(name, str(certificates / "authority.pem"))
    assert Chain.connect(f"https://127.0.0.1:{encrypted}").chain_id == 31337
    environment.setenv(name, str(certificates / "stranger.pem"))
    told = refusal(f"https://127.0.0.1:{encrypted}")
    assert "UnknownIssuer" in told
    assert f"the environment sets {name}" in told


def test_a_folder_of_authorities_may_hold_other_files(
    encrypted: int, certificates: Path, environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "1a2b3c4d.0").symlink_to(certificates / "authority.pem")
    (tmp_path / "README").write_text("These are certificates.")
    (tmp_path / "folder").mkdir()
    environment.setenv("SSL_CERT_DIR", f"{certificates}:{tmp_path}")
    environment.setenv("SSL_CERT_FILE", str(certificates / "stranger.pem"))
    assert Chain.connect(f"https://localhost:{encrypted}").chain_id == 31337


@pytest.mark.parametrize("name", AUTHORITIES)
@pytest.mark.parametrize(
    "content",
    [
        None,
        b"",
        b"no certificate",
        b"-----BEGIN CERTIFICATE-----\n%%%\n-----END CERTIFICATE-----\n",
        "folder",
    ],
)
def test_what_holds_no_authority_is_named(
    encrypted: int, environment: pytest.MonkeyPatch, tmp_path: Path, name: str, content: bytes | str | None
) -> None:
    """Falling back to the built-in roots would trust whom the user did not name."""
    path = tmp_path / "authorities"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content:
        path.mkdir()
    environment.setenv(name, str(path))
    told = refusal(f"https://127.0.0.1:{encrypted}")
    assert f"{name} names {path}, which " in told
    assert ("holds no certificate" in told) or ("cannot be read" in told)


def test_without_encryption_no_authority_is_read(
    plain: int, environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    environment.setenv("SSL_CERT_FILE", str(tmp_path / "missing"))
    assert Chain.connect(f"http://127.0.0.1:{plain}").chain_id == 31337


# Proxies


@pytest.mark.parametrize(
    "name", ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]
)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_leads_to_its_scheme(
    plain: int,
    encrypted: int,
    certificates: Path,
    proxy: Proxy,
    environment: pytest.MonkeyPatch,
    scheme: str,
    name: str,
) -> None:
    port = plain if scheme == "http" else encrypted
    url = f"{scheme}://{NAME}:{port}"
    environment.setenv("SSL_CERT_FILE", str(certificates / "authority.pem"))
    environment.setenv(name, proxy.url)
    if name.lower() in (f"{scheme}_proxy", "all_proxy"):
        assert Chain.connect(url).chain_id == 31337
        assert set(proxy.asked) == {f"{NAME}:{port}"}
    else:
        refusal(url)
        assert proxy.asked == []


def test_the_closest_variable_counts(plain: int, proxy: Proxy, environment: pytest.MonkeyPatch) -> None:
    """The scheme's own before all_proxy, lower case before upper case, and empty is not set."""
    nowhere = "http://127.0.0.1:1"
    environment.setenv("ALL_PROXY", nowhere)
    environment.setenv("HTTP_PROXY", proxy.url)
    environment.setenv("http_proxy", "")
    assert Chain.connect(f"http://{NAME}:{plain}").chain_id == 31337
    environment.setenv("HTTP_PROXY", nowhere)
    environment.setenv("http_proxy", proxy.url)
    assert Chain.connect(f"http://{NAME}:{plain}").chain_id == 31337
    environment.setenv("http_proxy", nowhere)
    told = refusal(f"http://{NAME}:{plain}")
    assert "refused" in told
    assert "(the environment sets http_proxy)" in told


def test_socks_leads_too(plain: int, proxy: Proxy, environment: pytest.MonkeyPatch) -> None:
    """ureq without its SOCKS feature would connect to nobody, or directly."""
    environment.setenv("ALL_PROXY", f"socks5h://127.0.0.1:{proxy.port}")
    assert Chain.connect(f"http://{NAME}:{plain}").chain_id == 31337
    assert set(proxy.asked) == {f"{NAME}:{plain}"}


@pytest.mark.parametrize(
    ("host", "listed", "direct"),
    [
        # As with curl and requests, loopback is no exception.
        ("127.0.0.1", "", False),
        ("localhost", "", False),
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "example.com, 127.0.0.1", True),
        ("127.0.0.1", "*", True),
        ("127.0.0.1", "127.0.0.0/8", True),
        ("127.0.0.1", "127.0.0.0/31", True),
        ("127.0.0.1", "127.0.0.2/31", False),
        ("127.0.0.1", "10.0.0.0/8,::1/0", False),
        ("127.0.0.1", "0.0.1", False),
        ("127.0.0.1", "127.0.0.1/x", False),
        ("localhost", "LOCALHOST", True),
        ("LocalHost", "localhost", True),
        ("localhost", ".localhost", True),
        ("localhost", "*.localhost", True),
        ("localhost", "host", False),
        ("localhost", ".", False),
        (NAME, "invalid", True),
        (NAME, ".invalid", True),
        (NAME, "*.invalid", True),
        (NAME, "valid", False),
        (NAME, f"a.{NAME}", False),
    ],
)
def test_no_proxy_is_read_as_elsewhere(
    plain: int, proxy: Proxy, environment: pytest.MonkeyPatch, host: str, listed: str, direct: bool
) -> None:
    url = f"http://{host}:{plain}"
    environment.setenv("HTTP_PROXY", proxy.url)
    environment.setenv("NO_PROXY", listed)
    if direct and host == NAME:
        refusal(url)
    else:
        assert Chain.connect(url).chain_id == 31337
    assert (proxy.asked == []) == direct


@pytest.mark.parametrize("value", ["user:secret@", "ftp://user:secret@host", "http://user:secret@[:1", "%"])
def test_what_is_no_proxy_is_named_without_its_password(
    plain: int, environment: pytest.MonkeyPatch, value: str
) -> None:
    """Connecting directly would leave the way that the user chose."""
    environment.setenv("http_proxy", value)
    told = refusal(f"http://127.0.0.1:{plain}")
    assert "http_proxy names no proxy" in told
    assert "secret" not in told


@pytest.mark.parametrize(
    "address",
    [
        "http://127.0.0.1:1/v3/SECRET",
        "http://user:SECRET@127.0.0.1:1",
        "http://127.0.0.1:1?key=SECRET",
        "https://SECRET node/",
        "https://:SECRET@",
        "http:///SECRET",
        "wss://node.example/v3/SECRET",
        "node.example/v3/SECRET",
        "user:SECRET@node.example",
    ],
)
def test_an_address_is_not_repeated_whole(own_home: Path, address: str) -> None:
    """A gateway's key in an issue, a log or a notebook."""
    with pytest.raises(errors.CounterfoilError) as refused:
        Chain.connect(address)
    assert "SECRET" not in str(refused.value)


# Ctrl-C

WAITING = """
import threading, time
from counterfoil.chain import Chain

count = 0

def run():
    global count
    while True:
        count += 1
        time.sleep(0.001)

threading.Thread(target=run, daemon=True).start()
"""
SCRIPT = """
import sys
try:
    Chain.connect(sys.argv[1])
except KeyboardInterrupt:
    print(time.monotonic(), count)
"""


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """A node that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(60)
        yield listener


@contextmanager
def asked(silent: socket.socket, longer: float) -> Iterator[None]:
    """Waits until somebody waits for the silent node, and some seconds longer."""
    connection, _ = silent.accept()
    with connection:
        connection.settimeout(60)
        assert connection.recv(4096).startswith(b"POST ")
        time.sleep(longer)
        yield


# The wait looks for Ctrl-C every 50 ms: it may come at once after a look, or just before one.
@pytest.mark.parametrize("longer", [0.5, 0.51, 0.52, 0.53, 0.54])
def test_ctrl_c_ends_a_wait_and_others_keep_running(silent: socket.socket, longer: float) -> None:
    url = f"http://127.0.0.1:{silent.getsockname()[1]}"
    heeding = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # it may be ignored here
    )
    arguments = [sys.executable, "-c", heeding + WAITING + SCRIPT, url]
    with (
        subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child,
        asked(silent, longer),
    ):
        begin = time.monotonic()
        child.send_signal(signal.SIGINT)
        output, complaint = child.communicate(timeout=60)
        ended = time.monotonic() - begin
    assert child.returncode == 0, complaint
    raised, count = output.split()
    latency = float(raised) - begin
    print(f"KeyboardInterrupt after {latency * 1000:.0f} ms, process ended after {ended * 1000:.0f} ms")
    assert latency < 2
    assert ended < 5
    assert int(count) > 50


CELL = """
try:
    Chain.connect({url!r})
except KeyboardInterrupt:
    raised = time.monotonic()
    raise
"""


def test_interrupting_a_notebook_ends_a_wait(silent: socket.socket) -> None:
    manager, client = start_new_kernel()
    try:
        assert client.execute(WAITING, reply=True, timeout=60)["content"]["status"] == "ok"
        before = value_of(client, "count")
        cell = client.execute(CELL.format(url=f"http://127.0.0.1:{silent.getsockname()[1]}"))
        with asked(silent, 0.5):
            begin = time.monotonic()
            manager.interrupt_kernel()
            while (reply := client.get_shell_msg(timeout=60))["parent_header"]["msg_id"] != cell:
                pass
            ended = time.monotonic() - begin
        assert reply["content"]["ename"] == "KeyboardInterrupt"
        latency = value_of(client, "raised") - begin
        print(f"KeyboardInterrupt after {latency * 1000:.0f} ms, cell ended after {ended * 1000:.0f} ms")
        assert latency < 2
        assert ended < 5
        assert value_of(client, "count") - before > 50
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def value_of(client: BlockingKernelClient, name: str) -> float:
    reply = {"content": {"status": "aborted"}}
    # For a moment after an interrupt, a kernel refuses what was sent before it noticed.
    while reply["content"]["status"] == "aborted":
        reply = client.execute("", user_expressions={name: name}, reply=True, timeout=60)
    return float(reply["content"]["user_expressions"][name]["data"]["text/plain"])
