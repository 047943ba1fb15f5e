"""TLS between servers and for clients, with certificates made here by openssl, and the bearer token."""

import shutil
import signal
import socket
import ssl
import subprocess
import time
from contextlib import suppress

import pytest

from raft.testing.processes import running

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(
        shutil.which("openssl") is None, reason="openssl is not installed: apt-get install openssl"
    ),
]
MEMBERS = "IP:127.0.0.1,DNS:n1,DNS:n2,DNS:n3"  # one certificate for all is enough here
CALM = ("--election-timeout-ms-min", "2500", "--election-timeout-ms-max", "4000")  # on a busy machine


def openssl(*arguments):
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


class Authority:
    """A certificate authority in a directory."""

    def __init__(self, directory, name):
        self.directory, self.name = directory, name
        self.cert = directory / f"{name}.pem"
        self._key = directory / f"{name}.key"
        openssl(
            "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
            "-subj", f"/CN={name}", "-keyout", str(self._key), "-out", str(self.cert),
        )  # fmt: skip

    def issue(self, name, names="IP:127.0.0.1"):
        """A certificate and its key, for loopback unless other names are given."""
        base = self.directory / f"{self.name}-{name}"
        cert, key, request, extensions = (base.with_suffix(s) for s in (".pem", ".key", ".csr", ".ext"))
        extensions.write_text(f"subjectAltName={names}\n")
        openssl(
            "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
            "-subj", f"/CN={name}", "-keyout", str(key), "-out", str(request),
        )  # fmt: skip
        openssl(
            "x509", "-req", "-days", "2", "-in", str(request), "-CA", str(self.cert), "-CAkey", str(self._key),
            "-CAcreateserial", "-extfile", str(extensions), "-out", str(cert),
        )  # fmt: skip
        return cert, key


def client_context(authority, chain=None):
    context = ssl.create_default_context(cafile=authority.cert)
    if chain is not None:
        context.load_cert_chain(*chain)
    return context


def flags_for(side, cert, key, authority=None):
    flags = [f"--{side}-cert", str(cert), f"--{side}-key", str(key)]
    return [*flags, f"--{side}-ca", str(authority.cert)] if authority else flags


@pytest.fixture(scope="module")
def authorities(tmp_path_factory):
    directory = tmp_path_factory.mktemp("certificates")
    return Authority(directory, "ours"), Authority(directory, "foreign")


def test_everything_is_encrypted_and_everybody_shows_who_they_are(tmp_path, authorities):
    ours, foreign = authorities
    server, client = ours.issue("server", MEMBERS), ours.issue("client", "DNS:client")
    token = tmp_path / "token"
    token.write_text("open sesame\n")
    flags = [
        *flags_for("peer", *server, ours), *flags_for("client", *server, ours), "--token-file", str(token), *CALM,
    ]  # fmt: skip
    with running(tmp_path, 3, *flags, tls=client_context(ours, client)) as cluster:
        leader, follower = cluster.leader(), cluster.follower()

        assert cluster.call(leader, "GET", "/v1/keys/x").status == 401
        assert cluster.call(leader, "GET", "/v1/keys/x").headers["WWW-Authenticate"] == "Bearer"
        assert cluster.call(leader, "GET", "/status", None, {"Authorization": "Bearer guess"}).status == 401
        assert cluster.call(leader, "GET", "/health").status == 200, "probes have no token"
        cluster.headers = {"Authorization": "Bearer open sesame"}
        assert cluster.call(leader, "PUT", "/v1/keys/x", 1).status == 200
        assert (
            cluster.call(follower, "GET", "/v1/keys/x").headers["Location"].startswith("https://127.0.0.1:")
        )
        assert cluster.call(follower, "GET", "/v1/keys/x", None, {"Proxy": "yes"}).body["value"] == 1
        wait_until(
            lambda: all(
                peer["connected"] for peer in cluster.call(leader, "GET", "/status").body["peers"].values()
            )
        )

        for context in (client_context(ours), client_context(ours, foreign.issue("client", "DNS:client"))):
            with pytest.raises(OSError, match=r"(?i)ssl|reset|alert|EOF|closed|Connection|handshake"):
                get_health(cluster, leader, context)
        with pytest.raises(ssl.SSLCertVerificationError):
            get_health(cluster, leader, client_context(foreign, client))
        assert cluster.call(leader, "GET", "/v1/keys/x").body["value"] == 1


def get_health(cluster, name, context):
    """A call over a connection of its own; with TLS 1.3 the client learns of a refusal when it reads."""
    with (
        socket.create_connection(("127.0.0.1", cluster.clients[name]), timeout=5) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as secure,
    ):
        secure.sendall(b"GET /health HTTP/1.1\r\nConnection: close\r\n\r\n")
        if not secure.recv(100):
            raise ConnectionResetError("closed without an answer")


def test_a_server_of_another_authority_does_not_get_in(tmp_path, authorities):
    ours, foreign = authorities
    flags = flags_for("peer", *ours.issue("server", MEMBERS), ours)
    with running(tmp_path, 3, *flags, *CALM) as cluster:
        cluster.call(cluster.leader(), "PUT", "/v1/keys/x", 1)
        stranger = cluster.follower()
        cluster.kill(stranger)
        cluster.start(stranger, *flags_for("peer", *foreign.issue("server", MEMBERS), foreign))
        wait_until(lambda: "peer refused" in cluster.log_file(stranger).read_text())
        leader = next(name for name in cluster.running if name != stranger)
        leader = cluster.call(leader, "GET", "/leader").body["leader"]
        assert cluster.call(leader, "PUT", "/v1/keys/x", 2).status == 200
        assert not cluster.call(leader, "GET", "/status").body["peers"][stranger]["connected"]
        assert cluster.call(stranger, "GET", "/status").body["leader"] is None


def test_a_certificate_speaks_for_the_member_that_it_names(tmp_path, authorities):
    """One of the same authority, for another member: neither does its owner get in, nor does anybody go there."""
    ours, _ = authorities
    flags = flags_for("peer", *ours.issue("server", MEMBERS), ours)
    with running(tmp_path, 3, *flags, *CALM) as cluster:
        cluster.call(cluster.leader(), "PUT", "/v1/keys/x", 1)
        impostor = cluster.follower()
        others = [name for name in cluster.names if name != impostor]
        cluster.kill(impostor)
        cluster.start(impostor, *flags_for("peer", *ours.issue(others[0]), ours))
        said = f"the certificate of {impostor} is for {others[0]}: name the member in it"
        for name in others:
            wait_until(lambda name=name: cluster.log_file(name).read_text().count(said) >= 2)
        leader = cluster.call(others[0], "GET", "/leader").body["leader"]
        assert cluster.call(leader, "PUT", "/v1/keys/x", 2).status == 200
        assert not cluster.call(leader, "GET", "/status").body["peers"][impostor]["connected"]
        assert cluster.call(impostor, "GET", "/status").body["leader"] is None

        cluster.kill(impostor)
        cluster.start(impostor, *flags_for("peer", *ours.issue(impostor), ours))
        wait_until(lambda: cluster.call(impostor, "GET", "/status").body["leader"] == leader)


def test_any_certificate_of_the_authority_will_do_where_that_is_asked_for(tmp_path, authorities):
    flags = flags_for("peer", *authorities[0].issue("server"), authorities[0])
    with running(tmp_path, 3, *flags, "--peer-identity", "any", *CALM) as cluster:
        assert cluster.call(cluster.leader(), "PUT", "/v1/keys/x", 1).status == 200


def test_certificates_are_read_anew_when_asked_to(tmp_path, authorities):
    ours, foreign = authorities
    cert, key = (shutil.copy(path, tmp_path) for path in ours.issue("server"))
    with running(tmp_path, 1, *flags_for("client", cert, key), tls=client_context(ours)) as cluster:
        cluster.leader()
        before = shown(cluster)
        new = ours.issue("renewed")
        shutil.copy(new[0], cert)
        shutil.copy(new[1], key)
        cluster.running["n1"].send_signal(signal.SIGHUP)
        wait_until(lambda: shown(cluster) != before)
        shutil.copy(foreign.issue("wrong")[1], key)
        cluster.running["n1"].send_signal(signal.SIGHUP)
        wait_until(lambda: "certificates not reloaded" in cluster.log_file("n1").read_text())
        assert cluster.call("n1", "PUT", "/v1/keys/x", 1).status == 200


def shown(cluster):
    return ssl.get_server_certificate(("127.0.0.1", cluster.clients["n1"]), timeout=5)


def wait_until(condition, timeout_s=60):
    deadline = time.monotonic() + timeout_s
    while not holds(condition):
        assert time.monotonic() < deadline, f"not within {timeout_s} s"
        time.sleep(0.05)


def holds(condition):
    with suppress(OSError):  # a server that is only starting
        return condition()
    return False
