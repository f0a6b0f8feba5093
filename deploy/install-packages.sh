#!/bin/sh
# Installs what the lab and the tests need from the distribution (Debian 12, Ubuntu 24.04 or later), where it is missing.
#
# Nothing is configured. Debian starts Open vSwitch's own service when openvswitch-switch is installed; the lab doesn't
# use it, but starts its own switches in network namespaces of its own. So it is with BIRD (bird2), the router that tests of
# BGP have beside a lab: its own service has nothing to do.
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
    bird2:bird
    udhcpc:udhcpc
    git:git
    gcc:cc
    mininet:mnexec
    libc6-dev:/usr/include/stdlib.h
'
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
