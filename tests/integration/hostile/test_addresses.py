"""Addresses of somebody's own network, in every spelling the C library's resolver takes; nothing is sent to any of them."""

from __future__ import annotations

import pytest

from services.core.errors import RequestInvalid
from services.datasets.address import Guard

# Every spelling of an address that some resolver accepts, and where it leads.
LITERALS = [
    "https://127.0.0.1/a.zip",
    "https://127.1/a.zip",
    "https://127.0.1/a.zip",
    "https://2130706433/a.zip",
    "https://0x7f000001/a.zip",
    "https://0x7f.0.0.1/a.zip",
    "https://0177.0.0.1/a.zip",
    "https://017700000001/a.zip",
    "https://0/a.zip",
    "https://0.0.0.0/a.zip",
    "https://localhost/a.zip",
    "https://10.0.0.1/a.zip",
    "https://10.255.255.255/a.zip",
    "https://172.16.0.1/a.zip",
    "https://172.31.255.254/a.zip",
    "https://192.168.1.1/a.zip",
    "https://192.168.257/a.zip",
    "https://169.254.169.254/latest/meta-data/",
    "https://0xa9fea9fe/latest/meta-data/",
    "https://2852039166/latest/meta-data/",
    "https://100.100.100.200/latest/meta-data/",
    "https://192.0.0.192/opc/v2/instance/",
    "https://168.63.129.16/machine",
    "https://100.64.0.1/a.zip",
    "https://198.18.0.1/a.zip",
    "https://192.0.2.1/a.zip",
    "https://198.51.100.7/a.zip",
    "https://203.0.113.9/a.zip",
    "https://192.88.99.1/a.zip",
    "https://224.0.0.1/a.zip",
    "https://239.255.255.250/a.zip",
    "https://240.0.0.1/a.zip",
    "https://255.255.255.255/a.zip",
    "https://[::]/a.zip",
    "https://[::1]/a.zip",
    "https://[0:0:0:0:0:0:0:1]/a.zip",
    "https://[::ffff:127.0.0.1]/a.zip",
    "https://[::ffff:7f00:1]/a.zip",
    "https://[::ffff:169.254.169.254]/latest/meta-data/",
    "https://[::ffff:a9fe:a9fe]/latest/meta-data/",
    "https://[::127.0.0.1]/a.zip",
    "https://[64:ff9b::7f00:1]/a.zip",
    "https://[64:ff9b:1::a00:1]/a.zip",
    "https://[2002:7f00:1::]/a.zip",
    "https://[2001:0:4136:e378:8000:63bf:3fff:fdd2]/a.zip",
    "https://[2001:db8::1]/a.zip",
    "https://[fe80::1]/a.zip",
    "https://[fc00::1]/a.zip",
    "https://[fd00:ec2::254]/latest/meta-data/",
    "https://[fec0::1]/a.zip",
    "https://[ff02::1]/a.zip",
    "https://[100::1]/a.zip",
    "https://[3fff::1]/a.zip",
]


@pytest.mark.parametrize("url", LITERALS)
def test_an_address_of_somebody_s_own_network_is_refused(url: str) -> None:
    with pytest.raises(RequestInvalid) as caught:
        Guard().check(url)

    (violation,) = caught.value.violations
    assert violation.field == "header.source_url"
    assert "public" in violation.description
    # Which address it was is not for a stranger who is looking for one.
    assert "169.254" not in violation.description
