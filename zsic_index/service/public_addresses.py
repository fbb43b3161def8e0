"""Public IP addresses, as opposed to those that only machines of some network reach."""

from __future__ import annotations

import ipaddress

# ipaddress.is_global differs between releases of Python: 3.11 includes multicast, 6to4 and
# site-local addresses. These are IANA's registries of special-purpose addresses, including the few
# that are global but not used by web servers.
_SPECIAL_V4 = tuple(
    ipaddress.IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # this network; Linux takes 0.0.0.0 for itself
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # shared behind carriers' NAT
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # in public space, but it is the host of every virtual machine on Azure
        "169.254.0.0/16",  # link-local, and clouds' metadata
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # relays of 6to4
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
    )
)

_GLOBAL_V6 = ipaddress.IPv6Network("2000::/3")
"""IPv6 space for global unicast.

It excludes loopback, IPv4-mapped and -compatible, unique local, link-local, site-local and
multicast addresses.
"""

_SPECIAL_V6 = tuple(
    ipaddress.IPv6Network(network)
    for network in (
        "2001::/23",  # protocol assignments: Teredo, benchmarks, ORCHID
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4, which carries an IPv4 address
        "3fff::/20",  # documentation
    )
)

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
"""IPv6 space in which networks without IPv4 represent IPv4 addresses, in the last 32 bits.

``64:ff9b:1::/48`` is for local use and not public, whatever address it carries.
"""


def is_public(address: str) -> bool:
    """Return whether an address is a public unicast address.

    Args:
        address: IPv4 or IPv6 address in numeric form. Other texts and addresses with a zone are
            not public.
    """
    if "%" in address:
        return False
    try:
        number = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(number, ipaddress.IPv6Address):
        if number not in _NAT64:
            return number in _GLOBAL_V6 and not any(number in network for network in _SPECIAL_V6)
        number = ipaddress.IPv4Address(int(number) & 0xFFFF_FFFF)
    return not any(number in network for network in _SPECIAL_V4)
