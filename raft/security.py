"""Who may talk to a server: TLS between servers, TLS and a bearer token for clients.

Rules of this module
    1. Between servers TLS is mutual or absent: each side shows a certificate of the authority that the other
       trusts, and the side that dials checks that the certificate is for the address it dialled. Unless
       `peer_identity` is "any", the certificate must also name the member that the other side says it is, as a DNS
       name or the common name: otherwise whoever has a certificate of that authority could speak for every member.
    2. Clients see the server's certificate; they have to show one of their own where an authority for clients
       is named, and the token where there is one. Both are checked before anything else is looked at.
    3. Whatever is wrong with a file is found at the start, and said in a sentence.
"""

from __future__ import annotations

import hmac
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raft.settings import SettingsError, TlsFiles


@dataclass(frozen=True, slots=True)
class Contexts:
    """What sockets need; None where there is no TLS."""

    accept_peers: ssl.SSLContext | None
    dial_peers: ssl.SSLContext | None
    accept_clients: ssl.SSLContext | None
    dial_clients: ssl.SSLContext | None  # for calls that are passed on to the leader


def contexts(peers: TlsFiles, clients: TlsFiles) -> Contexts:
    """Reads certificates and keys.

    Raises:
        SettingsError: one cannot be used.
    """
    return Contexts(
        accept_peers=_accepting(peers) if peers.cert else None,
        dial_peers=_dialling(peers, peers.ca) if peers.cert else None,
        accept_clients=_accepting(clients) if clients.cert else None,
        dial_clients=_dialling(clients, clients.ca or peers.ca or clients.cert) if clients.cert else None,
    )


def reload(current: Contexts, peers: TlsFiles, clients: TlsFiles) -> None:
    """Reads certificates anew, for connections that are made from now on."""
    for context, files in (
        (current.accept_peers, peers),
        (current.dial_peers, peers),
        (current.accept_clients, clients),
        (current.dial_clients, clients),
    ):
        if context is not None:
            _load_chain(context, files)


def token_matches(token: str, authorization: str) -> bool:
    """Whether the header of a call carries the token; takes as long for a wrong one as for the right one.

    >>> token_matches("secret", "Bearer secret"), token_matches("secret", "bearer  secre")
    (True, False)
    """
    scheme, _, given = authorization.partition(" ")
    return scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), token.encode())


def names_in(certificate: dict[str, Any]) -> set[str]:
    """Whom a certificate, as `ssl` tells of it, is for.

    >>> sorted(names_in({"subject": ((("commonName", "n1"),),), "subjectAltName": (("DNS", "n1.example"),)}))
    ['n1', 'n1.example']
    """
    alternatives = {name for kind, name in certificate.get("subjectAltName", ()) if kind == "DNS"}
    common = {name for part in certificate.get("subject", ()) for kind, name in part if kind == "commonName"}
    return alternatives | common


def wrong_identity(certificate: dict[str, Any] | None, name: str) -> str | None:
    """What is wrong with a member that shows this certificate, if anything."""
    names = names_in(certificate or {})
    if name in names:
        return None
    shown = ", ".join(sorted(names)) or "nobody"
    return f"the certificate of {name} is for {shown}: name the member in it, or set peer_identity to any"


def _accepting(files: TlsFiles) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    _load_chain(context, files)
    if files.ca is not None:
        _load_authority(context, files.ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _dialling(files: TlsFiles, authority: Path | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    _load_chain(context, files)
    if authority is not None:
        _load_authority(context, authority)
    return context


def _load_chain(context: ssl.SSLContext, files: TlsFiles) -> None:
    try:
        context.load_cert_chain(str(files.cert), str(files.key))
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(
            f"cannot use the certificate {files.cert} with the key {files.key}: {error}; both must be PEM files"
        ) from error


def _load_authority(context: ssl.SSLContext, path: Path) -> None:
    try:
        context.load_verify_locations(str(path))
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(f"cannot use the authority {path}: {error}; it must be a PEM file") from error
