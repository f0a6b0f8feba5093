"""Datapath flows that TC takes and others that it doesn't: for each rule both, as alike as can be.

The spellings are those of `dpctl/dump-flows` of a kernel and, with `-m`, of the userspace datapath; the verdicts follow
from lib/netdev-offload-tc.c and lib/tc.c of Open vSwitch 3.1. An entry names the match or the action that it is about,
then two flows: what follows the port they enter by, and their actions. Last is what the reason must say.
"""

from __future__ import annotations

_V4, _V6 = "eth_type(0x0800),ipv4({}frag=no)", "eth_type(0x86dd),ipv6({}frag=no)"
_IP, _IPV6 = _V4.format(""), _V6.format("")
_TCP, _UDP, _SCTP, _ICMP = (_V4.format(f"proto={each},") for each in (6, 17, 132, 1))
_TUNNEL = "tunnel(tun_id=0x5,src=10.0.0.2,dst=10.0.0.1,ttl=64/0,{}flags(-df-csum+key))"
_FROM_TUNNEL = f"{_TUNNEL.format('')},{_IP}"
_TO_CONTROLLER = (
    "userspace(pid=1,controller(reason=1,dont_send=0,continuation=0,recirc_id=1,rule_cookie=0x5,controller_id=0,"
    "max_len=256)),3"
)
_SAMPLE = "flow_sample(probability=65,collector_set_id=1,obs_domain_id=0,obs_point_id=0,output_port=3)"

Flow = tuple[str, str]
#: What it is about, a flow that is taken, one that isn't, a part of the reason.
CORPUS: list[tuple[str, Flow, Flow, str]] = [
    # Matches ------------------------------------------------------------------------------------------------------
    ("ct_state", (f"ct_state(+est+trk-new),{_IP}", "3"), (f"ct_state(+est+trk-new+dnat),{_IP}", "3"), "dnat"),
    ("ct_state", (f"ct_state(0x2a/0x3d),{_IP}", "3"), (f"ct_state(0x6a/0x7d),{_IP}", "3"), "snat"),
    # A bit that a packet has counts only if it is matched.
    ("ct_state", (f"ct_state(0xea/0x3d),{_IP}", "3"), (f"ct_state(0xea/0xbd),{_IP}", "3"), "dnat"),
    # A whole value is all bits of it.
    ("ct_state", (f"ct_state(+est+trk),{_IP}", "3"), (f"ct_state(est|trk),{_IP}", "3"), "dnat"),
    ("ct_state", (f"ct_state(+inv+trk),{_IP}", "drop"), (f"ct_state(+inv+rel+trk),{_IP}", "drop"), "+inv"),
    ("ct_state", (f"ct_state(+new-rpl+trk),{_IP}", "3"), (f"ct_state(+new+rpl+trk),{_IP}", "3"), "+new"),
    ("ct_tuple4", (f"ct_tuple4(src=1.2.3.4/0.0.0.0),{_IP}", "3"), (f"ct_tuple4(src=1.2.3.4),{_IP}", "3"), "tuple"),
    ("ct_tuple6", (f"ct_tuple6(src=fd00::1/::),{_IPV6}", "3"), (f"ct_tuple6(src=fd00::1),{_IPV6}", "3"), "tuple"),
    ("skb_mark", (f"skb_mark(0),{_IP}", "3"), (f"skb_mark(0x1),{_IP}", "3"), "packet mark"),
    ("skb_mark", (f"skb_mark(0/0),{_IP}", "3"), (f"skb_mark(0/0x1),{_IP}", "3"), "packet mark"),
    ("skb_priority", (f"skb_priority(0/0),{_IP}", "3"), (f"skb_priority(0),{_IP}", "3"), "priority"),
    ("dp_hash", (f"dp_hash(0/0),{_IP}", "3"), (f"dp_hash(0x3/0xf),{_IP}", "3"), "hash"),
    ("packet_type", (f"packet_type(ns=0,id=0),{_IP}", "3"), ("packet_type(ns=1,id=0x800)", "3"), "Ethernet"),
    ("vlan.vid", (f"eth_type(0x8100),vlan(vid=5,pcp=0),encap({_IP})", "3"),
     (f"eth_type(0x8100),vlan(vid=5/0xff,pcp=0),encap({_IP})", "3"), "VLAN"),
    ("vlan.pcp", (f"eth_type(0x8100),vlan(vid=5,pcp=0/0x0),encap({_IP})", "3"),
     (f"eth_type(0x8100),vlan(vid=5,pcp=1/0x1),encap({_IP})", "3"), "VLAN"),
    ("vlan.cfi", (f"eth_type(0x8100),vlan(vid=5,pcp=0,cfi=1),encap({_IP})", "3"),
     (f"eth_type(0x8100),vlan(vid=5,pcp=0,cfi=0),encap({_IP})", "3"), "CFI"),
    ("vlan.tci", (f"vlan(tci=0x0000),{_IP}", "3"), (f"vlan(tci=0x0000/0x1000),{_IP}", "3"), "VLAN"),
    ("mpls", ("eth_type(0x8847),mpls(label=5,tc=0,ttl=64,bos=1)", "3"),
     ("eth_type(0x8847),mpls(lse0=0x5040,lse1=0x6140)", "3"), "one MPLS label"),
    ("ipv6.frag", ("eth_type(0x0800),ipv4(frag=later)", "3"), ("eth_type(0x86dd),ipv6(frag=later)", "3"), "ragments"),
    ("ipv6.label", (_V6.format("label=0x5/0,"), "3"), (_V6.format("label=0x5,"), "3"), "flow label"),
    ("nd", ("eth_type(0x86dd),ipv6(proto=58,frag=no),icmpv6(type=135,code=0),nd(target=fd00::1/::)", "3"),
     ("eth_type(0x86dd),ipv6(proto=58,frag=no),icmpv6(type=135,code=0),nd(target=fd00::1)", "3"), "neighbour"),
    ("nd_ext", ("eth_type(0x86dd),ipv6(proto=58,frag=no),nd_ext(nd_reserved=0x0/0)", "3"),
     ("eth_type(0x86dd),ipv6(proto=58,frag=no),nd_ext(nd_reserved=0xe0000000)", "3"), "neighbour"),
    ("tunnel.flags", (_FROM_TUNNEL, "3"), (_FROM_TUNNEL.replace("+key", "+key-oam"), "3"), "oam"),
    # Without a tunnel's ends, what is matched of one is nothing.
    ("tunnel.flags", (f"tunnel(ttl=64/0,flags(-oam)),{_IP}", "3"),
     (f"tunnel(src=1.2.3.4,ttl=64/0,flags(-oam)),{_IP}", "3"), "oam"),
    ("tunnel.vxlan", (f"{_TUNNEL.format('geneve({class=0x102,type=0x80,len=4,0x1}),')},{_IP}", "3"),
     (f"{_TUNNEL.format('vxlan(gbp(id=5,flags=0)),')},{_IP}", "3"), "group policy"),
    ("tunnel.erspan", (f"{_TUNNEL.format('tos=0/0,')},{_IP}", "3"),
     (f"{_TUNNEL.format('erspan(ver=1,idx=0x5),')},{_IP}", "3"), "unknown"),
    ("nsh", ("eth_type(0x894f),nsh(flags=0/0,spi=0/0)", "3"), ("eth_type(0x894f),nsh(flags=0,spi=0x5)", "3"), "NSH"),
    ("eth", (f"eth(src=0a:58:00:00:00:01),{_IP}", "3"), (f"eth(colour=1),{_IP}", "3"), "unknown"),
    # Actions ------------------------------------------------------------------------------------------------------
    ("userspace", (_IP, "3"), (_IP, _TO_CONTROLLER), "told to the controller"),
    ("userspace", (_IP, "drop"), (_IP, "userspace(pid=1,slow_path(action))"), "slow_path(action)"),
    ("userspace", (_IP, "3"), (_IP, "userspace(pid=1,ipfix(output_port=3)),3"), "sFlow or IPFIX"),
    ("sample", (_IP, "3"),
     (_IP, "sample(sample=0.1%,actions(userspace(pid=1,sFlow(vid=0,pcp=0,output=3)))),3"), "sFlow or IPFIX"),
    ("sample", (_IP, "3"),
     (_IP, f"sample(sample=0.1%,actions(userspace(pid=1,{_SAMPLE}))),3"), "samples"),
    ("psample", (_IP, "3"), (_IP, "psample(group=1,cookie=0x1),3"), "samples"),
    ("hash", (_IP, "recirc(0x1)"), (_IP, "hash(l4(0)),recirc(0x1)"), "hash"),
    ("clone", (_IP, "clone(tnl_push(tnl_port(4),header(size=50,type=4),out_port(1)),1)"),
     (_IP, "clone(set(eth(src=0a:58:00:00:00:01)),4),3"), "clone"),
    ("trunc", (_IP, "3"), (_IP, "trunc(100),3"), "cut"),
    ("push_eth", (_IP, "push_vlan(vid=5,pcp=0),3"),
     (_IP, "push_eth(src=0a:58:00:00:00:01,dst=0a:58:00:00:00:02),3"), "no such"),
    ("pop_eth", (_IP, "pop_vlan,3"), (_IP, "pop_eth,3"), "no such"),
    ("push_nsh", (_IP, "push_mpls(label=5,tc=0,ttl=64,bos=1,eth_type=0x8847),3"), (_IP, "push_nsh(flags=0,spi=0x5),3"),
     "no such"),
    ("pop_nsh", (_IP, "pop_mpls(eth_type=0x800),3"), (_IP, "pop_nsh(),3"), "no such"),
    ("encap_nsh", (_IP, "3"), (_IP, "encap_nsh(flags=0),3"), "no such"),
    ("add_mpls", (_IP, "3"), (_IP, "add_mpls(label=5,tc=0,ttl=64,bos=1,eth_type=0x8847),3"), "no such"),
    ("dec_ttl", (_TCP, "set(ipv4(ttl=63)),3"), (_TCP, "dec_ttl(le_1(userspace(pid=1))),3"), "no such"),
    ("lb_output", (_IP, "3"), (_IP, "lb_output(1)"), "bond"),
    ("an action of tomorrow", (_IP, "meter(1),3"), (_IP, "teleport(1),3"), "no such"),
    ("ct", (_IP, "ct(commit,zone=5,mark=0x1/0x1,label=0x5/0xff,nat(dst=10.0.0.1:80)),3"),
     (_IP, "ct(commit,zone=5,helper=ftp),3"), "helper"),
    ("ct", (_IP, "ct_clear,ct(zone=5,nat),recirc(0x1)"), (_IP, "ct_clear,ct(zone=5,helper=tftp,nat),recirc(0x1)"),
     "helper"),
    ("check_pkt_len", (_IP, "check_pkt_len(size=200,gt(set(eth(src=0a:58:00:00:00:01)),4),le(5)),3"),
     (_IP, "check_pkt_len(size=200,gt(trunc(100),4),le(5)),3"), "cut"),
    # What is rewritten --------------------------------------------------------------------------------------------
    ("set ipv4", (_TCP, "set(ipv4(src=10.0.0.1,dst=10.0.0.2,tos=0x4/0xfc,ttl=63)),3"),
     (_TCP, "set(ipv4(frag=first)),3"),
     "frag"),
    ("set ipv6", (_V6.format("proto=17,"), "set(ipv6(dst=fd00::2,hlimit=63)),3"),
     (_V6.format("proto=17,"), "set(ipv6(label=0x5)),3"), "label"),
    ("set ipv4", (_UDP, "set(ipv4(ttl=63)),3"), (_SCTP, "set(ipv4(ttl=63)),3"), "protocol 132"),
    # TC looks at the packet that made the flow, whether its protocol is matched or not.
    ("set ipv4", (_V4.format("proto=6/0,"), "set(ipv4(ttl=63)),3"), (_V4.format("proto=47/0,"), "set(ipv4(ttl=63)),3"),
     "protocol 47"),
    ("set ipv6", (_V6.format("proto=0/0,"), "set(ipv6(hlimit=63)),3"),
     (_V6.format("proto=0,"), "set(ipv6(hlimit=63)),3"), "protocol 0"),
    ("set eth", (_SCTP, "set(eth(src=0a:58:00:00:00:01,dst=0a:58:00:00:00:02)),3"),
     (_SCTP, "set(eth(type=5)),3"), "type"),
    ("set tcp", (_TCP, "set(tcp(src=80,dst=81)),3"), (_SCTP, "set(sctp(src=80,dst=81)),3"), "sctp"),
    ("set udp", (_UDP, "set(udp(src=80)),3"), (_ICMP, "set(icmp(type=0)),3"), "icmp"),
    ("set skb_mark", (_IP, "set(eth(src=0a:58:00:00:00:01)),3"), (_IP, "set(skb_mark(0x1)),3"), "skb_mark"),
    ("set skb_priority", (_IP, "3"), (_IP, "set(skb_priority(0x1)),3"), "skb_priority"),
    ("set arp", ("eth_type(0x0806),arp(sip=10.0.0.1,tip=10.0.0.2,op=1)", "3"),
     ("eth_type(0x0806),arp(sip=10.0.0.1,tip=10.0.0.2,op=1)", "set(arp(op=2)),3"), "arp"),
    ("set nd", (_IPV6, "3"), (_IPV6, "set(nd(target=fd00::1)),3"), "nd"),
    ("set tunnel", (_IP, "set(tunnel(tun_id=0x5,dst=10.0.0.2,ttl=64,tp_dst=4789,flags(df|key))),4"),
     (_IP, "set(tunnel(tun_id=0x5,dst=10.0.0.2,ttl=64,tp_dst=6081,flags(df|key|oam))),4"), "oam"),
    ("set tunnel", (_IP, "set(tunnel(tun_id=0x5,dst=10.0.0.2,geneve({class=0x102,type=0x80,len=4,0x1}),flags(key))),4"),
     (_IP, "set(tunnel(tun_id=0x5,dst=10.0.0.2,vxlan(gbp(id=5)),flags(key))),4"), "vxlan"),
    # Together -----------------------------------------------------------------------------------------------------
    ("the number of actions", (_IP, ",".join(map(str, range(2, 18)))), (_IP, ",".join(map(str, range(2, 19)))), "16"),
    ("a copy, then a chain", (_IP, "4,ct(zone=5),recirc(0x1)"), (_FROM_TUNNEL, "4,ct(zone=5),recirc(0x1)"),
     "came by a tunnel"),
    ("a copy, then a chain", (_FROM_TUNNEL, "ct(zone=5),recirc(0x1)"),
     (_FROM_TUNNEL, "set(tunnel(tun_id=0x5,dst=10.0.0.3,flags(key))),4,ct(zone=5),recirc(0x1)"), "came by a tunnel"),
]  # fmt: skip

#: What is taken, whatever its value and mask.
TAKEN = [
    "eth(src=0a:58:00:00:00:01/ff:ff:00:00:00:00,dst=0a:58:00:00:00:02)",
    "eth_type(0x0806),arp(sip=10.0.0.1,tip=10.0.0.2/255.255.0.0,op=1/0xff,sha=0a:58:00:00:00:01,tha=00:00:00:00:00:00)",
    "eth_type(0x0800),ipv4(src=10.0.0.0/255.0.0.0,dst=10.0.0.2,proto=6,tos=0/0x3,ttl=64,frag=no),"
    "tcp(src=80/0xfff0,dst=81),tcp_flags(+syn-ack)",
    "eth_type(0x86dd),ipv6(src=fd00::/ffff::,dst=fd00::2,label=0/0,proto=17,tclass=0/0x3,hlimit=64,frag=no),"
    "udp(src=80,dst=81)",
    "eth_type(0x0800),ipv4(proto=132,frag=no),sctp(src=80,dst=81)",
    "eth_type(0x0800),ipv4(proto=1,frag=first),icmp(type=8,code=0)",
    "eth_type(0x86dd),ipv6(proto=58,frag=no),icmpv6(type=128,code=0)",
    # As TC's own flows are dumped.
    "skb_priority(0/0),skb_mark(0/0),ct_state(0/0x23),ct_zone(0/0),ct_mark(0/0x2),ct_label(0/0x1),dp_hash(0/0),"
    "packet_type(ns=0/0,id=0/0),eth(src=0a:58:00:00:00:01,dst=00:00:00:00:00:00/00:00:00:00:00:00),eth_type(0x0800),"
    "ipv4(src=0.0.0.0/0.0.0.0,dst=0.0.0.0/0.0.0.0,proto=0/0,tos=0/0,ttl=0/0,frag=no)",
    "tunnel(tun_id=0x5,src=10.0.0.2,dst=10.0.0.1,ttl=0/0,tp_dst=6081,geneve({class=0x102,type=0x80,len=4,0x10002/0x7f}),"
    "flags(+key)),ct_state(-new-trk),ct_mark(0/0x2),eth_type(0x0800),ipv4(proto=17,ttl=63,frag=no)",
    "tunnel(tun_id=0x5,src=10.0.0.2,dst=10.0.0.1,ttl=64,geneve({len=4}),flags(df|csum|key)),eth_type(0x0800)",
    "ct_state(+trk),ct_zone(0x5b04),ct_mark(0x1/0x3),ct_label(0x1/0xffffffff),eth_type(0x0800),ipv4(frag=no)",
    "tunnel(tun_id=0x5,ipv6_src=fd00::2,ipv6_dst=fd00::1,tos=0,ttl=64,tp_src=1/0,tp_dst=4789,flags(+csum+key))",
]
