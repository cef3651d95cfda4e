#!/bin/sh
# Asks for a lease on every Ethernet interface of the host and keeps it.
# Runs in a pod of the host's network namespace with NET_ADMIN and NET_RAW.
set -eu

case "${1:-}" in
"")
	started=""
	while :; do
		for path in /sys/class/net/*; do
			name=${path##*/}
			# 1 is ARPHRD_ETHER; a device behind it tells hardware from bridges and veth pairs.
			[ "$(cat "$path/type")" = 1 ] && [ -e "$path/device" ] || continue
			case " $started " in *" $name "*) continue ;; esac
			started="$started $name"
			echo "dhcp: $name: asking for a lease"
			ip link set "$name" up
			udhcpc -f -i "$name" -s "$0" -t 5 -T 1 -A 2 &
		done
		sleep 2
	done
	;;
deconfig)
	ip addr flush dev "$interface"
	;;
bound | renew)
	ip addr replace "$ip/$mask" dev "$interface"
	for gateway in ${router:-}; do
		ip route replace default via "$gateway" dev "$interface"
		break
	done
	{
		[ -n "${domain:-}" ] && echo "search $domain"
		for server in ${dns:-}; do echo "nameserver $server"; done
	} >/host-etc/resolv.conf || echo "dhcp: $interface: could not write resolv.conf"
	echo "dhcp: $interface: $1 $ip/$mask router ${router:-none} dns ${dns:-none}"
	;;
leasefail | nak)
	echo "dhcp: $interface: $1 ${message:-}"
	;;
esac
