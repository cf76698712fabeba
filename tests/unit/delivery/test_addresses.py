"""Which addresses are called."""

from __future__ import annotations

import pytest

from bridge.delivery.addresses import is_loopback_host, why_refused


@pytest.mark.parametrize(
    "host",
    [
        "8.8.8.8",
        "10.0.0.5",
        "172.16.3.4",
        "192.168.1.1",
        "100.64.0.1",
        "2606:4700::1111",
        "fd12:3456::1",
        "::ffff:10.0.0.5",
        "2002:0a00:0001::1",
    ],
)
def test_public_and_private_addresses_are_called(host):
    assert why_refused(host, loopback_allowed=False) is None


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        ("169.254.169.254", "a metadata service"),
        ("169.254.170.2", "a metadata service"),
        ("169.254.170.23", "a metadata service"),
        ("fd00:ec2::254", "a metadata service"),
        ("fd00:0ec2:0:0:0:0:0:254", "a metadata service"),
        ("fd00:ec2::23", "a metadata service"),
        ("fd20:ce::254", "a metadata service"),
        ("100.100.100.200", "a metadata service"),
        ("168.63.129.16", "a metadata service"),
        ("::ffff:169.254.169.254", "a metadata service"),
        ("::ffff:a9fe:a9fe", "a metadata service"),
        ("::169.254.169.254", "a metadata service"),
        ("64:ff9b::169.254.169.254", "a metadata service"),
        ("64:ff9b:1::a9fe:a9fe", "a metadata service"),
        ("2002:a9fe:a9fe::1", "a metadata service"),
        ("169.254.0.1", "link-local"),
        ("fe80::1", "link-local"),
        ("fe80::1%eth0", "link-local"),
        ("::ffff:169.254.1.1", "link-local"),
        ("0.0.0.0", "unspecified"),
        ("0.1.2.3", "unspecified"),
        ("::", "unspecified"),
        ("::ffff:0.0.0.0", "unspecified"),
        ("224.0.0.1", "multicast"),
        ("239.1.2.3", "multicast"),
        ("ff02::1", "multicast"),
        ("::ffff:224.0.0.1", "multicast"),
        ("255.255.255.255", "reserved"),
        ("240.0.0.1", "reserved"),
        ("fec0::1", "site-local"),
    ],
)
@pytest.mark.parametrize("loopback_allowed", [True, False])
def test_some_addresses_are_never_called(host, reason, loopback_allowed):
    assert why_refused(host, loopback_allowed=loopback_allowed) == reason


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1", "64:ff9b::127.0.0.1"])
def test_loopback_is_called_only_where_it_was_meant(host):
    assert why_refused(host, loopback_allowed=False) == "loopback"
    assert why_refused(host, loopback_allowed=True) is None


def test_a_name_is_no_address_and_is_judged_once_it_is_one():
    assert why_refused("metadata.google.internal", loopback_allowed=False) is None


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LocalHost",
        "localhost.",
        "api.localhost",
        "ip6-localhost",
        "127.0.0.1",
        "127.1.2.3",
        "::1",
        "[::1]",
        "::ffff:127.0.0.1",
    ],
)
def test_a_host_may_say_that_it_is_this_machine(host):
    assert is_loopback_host(host)


@pytest.mark.parametrize(
    "host", ["localhost.example.com", "notlocalhost", "example.com", "10.0.0.1", "64:ff9b::127.0.0.1", ""]
)
def test_no_other_host_says_so(host):
    assert not is_loopback_host(host)
