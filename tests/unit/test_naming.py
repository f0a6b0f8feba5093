"""Names and numbers that all parts derive alike."""

from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topology import naming

CIDRS = (ip_network("10.244.3.0/24"), ip_network("fd00:10:244:3::/64"))
v4_cidrs = st.builds(
    lambda base, length: IPv4Network((base >> (32 - length) << (32 - length), length)),
    st.integers(0, 2**32 - 1),
    st.integers(8, 29),
)
v6_cidrs = st.builds(
    lambda base, length: IPv6Network((base >> (128 - length) << (128 - length), length)),
    st.integers(0, 2**128 - 1),
    st.integers(32, 126),
)
cidr_sets = st.one_of(
    st.tuples(v4_cidrs), st.tuples(v6_cidrs), st.tuples(v4_cidrs, v6_cidrs), st.tuples(v6_cidrs, v4_cidrs)
)


def test_names_and_numbers_stay_what_they_were_or_every_running_cluster_breaks() -> None:
    assert naming.pod_port_name("default", "web-0") == "pod53842afe623a"
    assert f"{naming.datapath_id('node-1'):016x}" == "86af03949ee0ac2b"
    assert f"{naming.object_id('Pod', 'default', 'web-0'):010x}" == "daf1aafbc9"
    assert naming.format_mac(naming.mac_of(naming.POD_MAC_PREFIX, ip_address("10.244.0.5"))) == "0a:58:0a:f4:00:05"


@given(st.text(), st.text())
def test_a_port_name_fits_linux_and_is_known_for_a_pods(namespace: str, name: str) -> None:
    port = naming.pod_port_name(namespace, name)
    assert len(port.encode()) == 15
    assert naming.is_pod_port(port)


def test_other_ports_of_the_bridge_are_not_taken_for_pods() -> None:
    assert not any(map(naming.is_pod_port, (naming.GATEWAY_PORT, naming.TUNNEL_PORT, naming.BRIDGE, "podman0", "eth0")))


def test_kind_namespace_and_name_all_count_in_an_object_id() -> None:
    ids = [("Pod", "a", "b"), ("Pod", "b", "a"), ("Service", "a", "b"), ("Pod", "", "b")]
    assert len({naming.object_id(*key) for key in ids}) == len(ids)


@given(cidr_sets, st.data())
def test_a_pods_mac_tells_its_addresses_whichever_end_carries_it(
    cidrs: tuple[naming.Network, ...], data: st.DataObject
) -> None:
    places = naming.places(cidrs)
    place = data.draw(st.integers(places.start, places.stop - 1))
    prefix = data.draw(st.sampled_from([naming.POD_MAC_PREFIX, naming.HOST_END_MAC_PREFIX]))
    addresses = naming.pod_addresses(place, cidrs)
    assert naming.pod_addresses_of_mac(naming.mac_of(prefix, addresses[0]), cidrs) == addresses


@given(cidr_sets)
def test_places_are_inside_each_cidr_and_leave_out_network_gateway_and_broadcast(
    cidrs: tuple[naming.Network, ...],
) -> None:
    for place in (naming.places(cidrs)[0], naming.places(cidrs)[-1]):
        for cidr, address in zip(cidrs, naming.pod_addresses(place, cidrs), strict=True):
            assert address in cidr
            assert address not in (cidr[0], *naming.gateway_addresses(cidrs))
            assert cidr.version == 6 or address != cidr.broadcast_address


@pytest.mark.parametrize(
    ("mac", "why"),
    [
        ("0a:58:0a:f4:04:05", "outside its node's pod CIDR"),
        ("0a:58:0a:f4:03:00", "outside its node's pod CIDR"),
        ("0a:58:0a:f4:03:01", "outside its node's pod CIDR"),
        ("0a:58:0a:f4:03:ff", "outside its node's pod CIDR"),
        ("02:00:0a:f4:03:05", "not the address of a pod's port"),
    ],
)
def test_a_mac_that_no_pod_of_the_node_can_have_is_refused(mac: str, why: str) -> None:
    with pytest.raises(naming.NamingError, match=why):
        naming.pod_addresses_of_mac(naming.parse_mac(mac), CIDRS)


def test_without_pod_cidrs_no_mac_is_a_pods() -> None:
    with pytest.raises(naming.NamingError, match="has no pod CIDR"):
        naming.pod_addresses_of_mac(naming.parse_mac("0a:58:0a:f4:03:05"), ())


def test_a_place_outside_a_cidr_is_refused() -> None:
    with pytest.raises(naming.NamingError, match=r"place 256 is outside pod CIDR 10\.244\.3\.0/24"):
        naming.pod_addresses(256, CIDRS)


@given(st.integers(0, 2**48 - 1))
def test_macs_read_back_as_written(mac: int) -> None:
    assert naming.parse_mac(naming.format_mac(mac)) == mac


@pytest.mark.parametrize(
    "text", ["", "0a:58:0a:f4:00", "0a:58:0a:f4:00:05:06", "0a:58:0a:f4:00:100", "x:58:0a:f4:00:05"]
)
def test_what_is_no_mac_is_refused(text: str) -> None:
    with pytest.raises(naming.NamingError, match="not a MAC address"):
        naming.parse_mac(text)


def test_link_local_is_the_eui64_that_linux_makes() -> None:
    assert naming.link_local(naming.parse_mac("0a:58:0a:f4:00:05")) == ip_address("fe80::858:aff:fef4:5")
    assert naming.link_local(naming.parse_mac("02:00:00:00:00:01")) == ip_address("fe80::ff:fe00:1")


def test_a_ports_number_says_a_place_as_far_as_there_are_numbers() -> None:
    own = 0xE2AA_0000_0001
    for place in (2, 3, 253):
        number = naming.port_of_place(place)
        assert naming.pod_addresses_of_port(number, own, CIDRS) == naming.pod_addresses(place, CIDRS)
    last = len(naming.PLACE_PORTS) - 1
    assert naming.port_of_place(last) == 0xFEFF, "OpenFlow's own numbers of Open vSwitch begin above"
    with pytest.raises(naming.NamingError, match=f"the highest is {last}"):
        naming.port_of_place(last + 1)
    # A hardware address that says it counts more: numbers of ordinary ports may get so high.
    mac = naming.mac_of(naming.HOST_END_MAC_PREFIX, naming.pod_addresses(5, CIDRS)[0])
    assert naming.pod_addresses_of_port(naming.port_of_place(9), mac, CIDRS) == naming.pod_addresses(5, CIDRS)
    with pytest.raises(naming.NamingError, match="is not the address of a pod's port"):
        naming.pod_addresses_of_port(7, own, CIDRS)
