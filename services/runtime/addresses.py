"""Who asks, as far as the network tells: the part of an address that one caller has. Pure."""

import ipaddress

from starlette.types import Scope

# One line of a provider holds more addresses of the sixth version than one could count.
_V6_SUBNET = 64


def network_of(scope: Scope) -> str:
    """The address, or its /64 in the sixth version; `unknown` where the server does not tell."""
    client = scope.get("client")
    try:
        address = ipaddress.ip_address(client[0] if client else "")
    except ValueError:
        return "unknown"
    if address.version == 6:
        return str(ipaddress.ip_network((address, _V6_SUBNET), strict=False))
    return str(address)
