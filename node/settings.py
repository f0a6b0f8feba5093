"""What an agent is told when it starts. It derives everything else, and remembers nothing of the cluster."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path

import msgspec

from node import facts
from node.credentials import TlsFiles
from topology.naming import Address, Network, gateway_addresses

#: The least MTU of a link that carries IPv6 (RFC 8200 section 5).
_IPV6_LEAST = 1280


class SettingsError(ValueError):
    """A setting that can't be; the text names the option and says what would be right."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """One node's. `cluster_cidrs` hold every node's pod CIDRs; `tables` are the names of the bridge's flow tables."""

    name: str
    pod_cidrs: tuple[Network, ...]
    cluster_cidrs: tuple[Network, ...]
    node_ips: tuple[Address, ...]
    controllers: tuple[str, ...]
    datapath_type: str = "system"
    ovsdb: str = "unix:/run/openvswitch/db.sock"
    ovs_rundir: Path = Path("/run/openvswitch")
    socket: Path = Path("/run/signalbox/node.sock")
    #: 0: the underlay's less the encapsulation.
    mtu: int = 0
    tables: tuple[tuple[int, str], ...] = ()
    #: What cluster addresses of Services are out of; the ports of nodes that Services may have.
    service_cidrs: tuple[Network, ...] = (ip_network("10.96.0.0/16"), ip_network("fd00:10:96::/112"))
    node_ports: tuple[int, int] = (30000, 32767)
    #: What Open vSwitch shows to controllers over `ssl:`; without it, whatever its database says is left as it is.
    tls: TlsFiles | None = None
    #: Seconds that CNI ADD waits for a pod's flows.
    flow_wait: float = 10.0
    #: Where the container runtime looks for configurations and for plugins; None: the agent installs nothing there.
    cni_conf_dir: Path | None = None
    cni_bin_dir: Path | None = None
    #: Whether Open vSwitch is to give flows to NICs: "auto" (where one takes them), "on" or "off"; and its tc-policy,
    #: empty where that isn't said.
    hw_offload: str = "auto"
    tc_policy: str = ""
    #: Whether Open vSwitch is to start DPDK, for ports of that kind.
    dpdk: bool = False
    #: The command that starts ovs-vswitchd anew, where a setting needs it; empty: nobody does.
    restart_ovs: str = ""
    #: Where ovs-vswitchd listens for ovs-appctl; None: where it does if nobody says otherwise.
    ovs_control: Path | None = None
    sysfs: Path = Path("/sys")
    #: ADDRESS:PORT where the kubelet asks how the agent is; empty: nowhere.
    health: str = ""

    def __post_init__(self) -> None:
        for option, cidrs in (("--pod-cidr", self.pod_cidrs), ("--cluster-cidr", self.cluster_cidrs)):
            versions = [cidr.version for cidr in cidrs]
            if not versions or len(set(versions)) != len(versions):
                raise SettingsError(f"{option}: give one CIDR for each family in use, not {_words(cidrs)}")
        for cidr in self.pod_cidrs:
            if not any(cidr.version == each.version and cidr.subnet_of(each) for each in self.cluster_cidrs):  # type: ignore[arg-type]
                raise SettingsError(f"--pod-cidr {cidr} is in no --cluster-cidr ({_words(self.cluster_cidrs)})")
        if not self.node_ips:
            raise SettingsError("--node-ip: at least one address is needed: tunnels end there (or --kubernetes)")
        for target in self.controllers:
            if label := facts.label_of(target):
                raise SettingsError(f"--controller {target}: {label} is no IP address (a label of nodes: --kubernetes)")
        if not self.controllers:
            raise SettingsError("--controller: at least one is needed, e.g. ssl:192.0.2.1:6653")

        if self.dpdk and self.datapath_type != "netdev":
            raise SettingsError("--dpdk: DPDK's ports are ports of the datapath in userspace: --datapath-type netdev")
        if self.tls is not None and not any(target.startswith("ssl:") for target in self.controllers):
            raise SettingsError("--tls-cert, --tls-key, --tls-ca: no --controller is ssl:IP:PORT")

    @property
    def tls_copies(self) -> Path:
        """Where Open vSwitch finds certificate and key."""
        return self.socket.with_suffix(".tls")

    @property
    def gateways(self) -> tuple[Address, ...]:
        """The gateway port's addresses."""
        return gateway_addresses(self.pod_cidrs)

    def pod_mtu(self, underlay_mtu: int, overhead: int) -> int:
        """The MTU of pods on an underlay of this MTU, of which tunnels take `overhead` bytes.

        Raises SettingsError where IPv6 can't live with it.
        """
        mtu = self.mtu or underlay_mtu - overhead
        if mtu < _IPV6_LEAST and any(cidr.version == 6 for cidr in self.pod_cidrs):
            raise SettingsError(
                f"pods would have an MTU of {mtu}, and IPv6 needs {_IPV6_LEAST}: raise the underlay's MTU (it is "
                f"{underlay_mtu}), or --mtu, or leave out the IPv6 --pod-cidr"
            )
        return mtu


def port_range(option: str, text: str) -> tuple[int, int]:
    """A range of ports, as 30000-32767. Raises SettingsError."""
    low, _, high = text.partition("-")
    if low.isdigit() and high.isdigit() and 1 <= int(low) <= int(high) <= 65535:
        return int(low), int(high)
    raise SettingsError(f"{option} {text}: give two ports, the lower first, as 30000-32767")


def _words(things: tuple[object, ...]) -> str:
    return ", ".join(map(str, things)) or "none"
