#!/bin/sh
# What udhcpc calls with what it is told: configures the interface, and writes it down for the test.
set -e
echo "$1 ip=$ip mask=$mask mtu=$mtu router=$router routes=$staticroutes lease=$lease server=$serverid" >>"$TOLD"
case $1 in
deconfig)
    ip -4 address flush dev "$interface"
    ip link set "$interface" up
    ;;
bound | renew)
    ip link set "$interface" mtu "$mtu"
    ip address replace "$ip/$mask" dev "$interface"
    # Pairs of a network and the router to it; 0.0.0.0 is none: it is on the wire.
    set -- $staticroutes
    while [ $# -gt 1 ]; do
        if [ "$2" = 0.0.0.0 ]; then
            ip route replace "$1" dev "$interface"
        else
            ip route replace "$1" via "$2" dev "$interface"
        fi
        shift 2
    done
    ;;
esac
