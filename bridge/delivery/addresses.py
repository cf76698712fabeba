"""
Which addresses may be called. Pure.

A webhook's host is text that somebody wrote, and what its name resolves to is up to whoever runs its zone. So the
judgement is on addresses, never on names, and it is made where the connection is (`http_client.py`): a name that
resolves to something else a second later gains nothing.

Private networks are allowed, as most functions and services live there. Never allowed: what a machine keeps for talking
to its own hypervisor, and what is no single host's address at all. Loopback is for URLs that say so themselves.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Final

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_METADATA: Final = frozenset(
    ipaddress.ip_address(text)
    for text in (
        "169.254.169.254",  # EC2, Google, Azure, and most others
        "169.254.170.2",  # ECS task credentials
        "169.254.170.23",  # EKS pod identity
        "fd00:ec2::254",  # EC2 over IPv6
        "fd00:ec2::23",  # EKS pod identity over IPv6
        "fd20:ce::254",  # Google over IPv6
        "100.100.100.200",  # Alibaba
        "168.63.129.16",  # Azure's wire server
        "192.0.0.192",  # Oracle
    )
)
"""Mostly link-local anyway; those that are not look like ordinary private or public addresses."""

_LOOPBACK_NAMES: Final = frozenset({"localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback"})
_EMBEDDING: Final = tuple(ipaddress.IPv6Network(text) for text in ("64:ff9b::/96", "64:ff9b:1::/48", "::/96"))
"""NAT64 well-known and local, and IPv4-compatible: the last 32 bits are an IPv4 address."""
_THIS_NETWORK: Final = ipaddress.IPv4Network("0.0.0.0/8")
_LOW_32: Final = 0xFFFFFFFF


def is_loopback_host(host: str) -> bool:
    """Whether a URL's host is a loopback address, or one of the names that RFC 6761 keeps for it."""
    address = _parse(host)
    if address is not None:
        return all(form.is_loopback for form in _forms(address))
    name = host.lower().removesuffix(".")
    return name in _LOOPBACK_NAMES or name.endswith(".localhost")


def why_refused(host: str, *, loopback_allowed: bool) -> str | None:
    """
    Why an address is not called, in a word or two; None where it may be, or where `host` is a name and no address.

    An IPv6 address that carries an IPv4 one (mapped, compatible, 6to4, Teredo, NAT64) is judged as both.
    """
    address = _parse(host)
    if address is None:
        return None
    for form in _forms(address):
        reason = _why_refused(form, loopback_allowed=loopback_allowed)
        if reason is not None:
            return reason
    return None


def _why_refused(address: Address, *, loopback_allowed: bool) -> str | None:
    if address in _METADATA:
        return "a metadata service"
    if address.is_link_local:
        return "link-local"
    if address.is_multicast:
        return "multicast"
    if address.is_unspecified or (isinstance(address, ipaddress.IPv4Address) and address in _THIS_NETWORK):
        # Linux connects 0.0.0.0 to the machine itself.
        return "unspecified"
    if address.is_loopback:
        return None if loopback_allowed else "loopback"
    if isinstance(address, ipaddress.IPv4Address) and address.is_reserved:
        return "reserved"  # 240.0.0.0/4 with the broadcast address
    if isinstance(address, ipaddress.IPv6Address) and address.is_site_local:
        return "site-local"
    return None


def _parse(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return None


def _forms(address: Address) -> Iterator[Address]:
    """The address, and each IPv4 address that a stack or a gateway would make of it."""
    if isinstance(address, ipaddress.IPv4Address):
        yield address
        return
    if address.ipv4_mapped is not None:
        yield address.ipv4_mapped  # the stack itself connects to this one; the outer form has no meaning of its own
        return
    yield address
    if address.sixtofour is not None:
        yield address.sixtofour
    if address.teredo is not None:
        yield from address.teredo
    if any(address in network for network in _EMBEDDING) and int(address) > 1:  # :: and ::1 are themselves
        yield ipaddress.IPv4Address(int(address) & _LOW_32)
