#!/bin/sh
# Installs what the lab needs from the distribution (Debian 12, Ubuntu 24.04 or later), where it is missing; with `tests`
# also what only tests need.
#
# Nothing is configured. Debian starts Open vSwitch's own service when openvswitch-switch is installed, BIRD's with bird2,
# and a collector on UDP port 2055 with nfdump. None is used: the lab and the tests start their own, in network namespaces
# of their own.
set -eu

# package:program - where the program (or the file) is there, however it came, the package isn't asked for.
wanted='
    openvswitch-switch:ovs-vswitchd
    openvswitch-common:ovsdb-server
    iproute2:ip
    util-linux:nsenter
    ethtool:ethtool
    nftables:nft
    iputils-ping:ping
    procps:ps
    tcpdump:tcpdump
    git:git
    gcc:cc
    libc6-dev:/usr/include/stdlib.h
'
if [ "${1:-}" = tests ]; then
    wanted="$wanted bird2:bird mininet:mnexec udhcpc:udhcpc chromium:chromium chromium-driver:chromedriver nfdump:nfcapd nfdump-sflow:sfcapd"
fi
# Programs of administrators are not on everybody's path.
PATH="$PATH:/usr/sbin:/sbin:/usr/local/sbin"
missing=''
for each in $wanted; do
    command -v "${each#*:}" >/dev/null || test -f "${each#*:}" || missing="$missing ${each%%:*}"
done

if [ -z "$missing" ]; then
    echo 'install-packages: everything is there'
    exit 0
fi
echo "install-packages: installing$missing"
if [ "$(id -u)" -ne 0 ]; then
    echo "install-packages: that takes root: sudo apt-get install$missing" >&2
    exit 1
fi
if ! command -v apt-get >/dev/null; then
    echo "install-packages: there is no apt-get here; install with this system's means:$missing" >&2
    exit 1
fi
export DEBIAN_FRONTEND=noninteractive
install() { apt-get install -y -qq --no-install-recommends $missing >/dev/null; }
# The lists of packages may be missing or old.
install 2>/dev/null || { apt-get update -qq && install; }
