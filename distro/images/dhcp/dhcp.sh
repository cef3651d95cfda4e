#!/bin/sh
# The node's addresses: DHCP for IPv4, and for IPv6 what routers advertise and
# DHCPv6 servers give, on every Ethernet interface with hardware behind it, or
# on those that INTERFACES names.
#
# The kernel itself makes addresses and routes of router advertisements
# (accept_ra is 2). They are asked for here, because they say which resolvers
# there are and whether a DHCPv6 server is to be asked.
#
# What was learned is in STATE, a directory of the host: it outlives this
# container, and other pods read it.
set -u

export STATE=/run/dhcp
# Seconds between two router solicitations; most routers' resolvers live longer.
solicit_every=300
# 169.254/16 is nobody's lease; 4294967295 is RFC 2131's "for ever".
export FOREVER=4294967295

wanted() {
	if [ -n "${INTERFACES:-}" ]; then
		case " $INTERFACES " in *" ${1##*/} "*) return 0 ;; *) return 1 ;; esac
	fi
	# 1 is ARPHRD_ETHER; a device tells hardware from bridges and veth pairs.
	read -r type <"$1/type" 2>/dev/null && [ "$type" = 1 ] && [ -e "$1/device" ]
}

# The address of an earlier lease: the one to ask for.
before() { [ -s "$STATE/$1.v4.address" ] && sed 's|^\([0-9.]*\)/.*|-r \1|' "$STATE/$1.v4.address"; }

ipv4() {
	while [ -e "/sys/class/net/$1" ]; do
		# The first "deconfig" of a client is its greeting, and no loss of a lease.
		: >"$STATE/$1.v4.greeting"
		# shellcheck disable=SC2046
		udhcpc -f -i "$1" -s /kios/lease -p "$STATE/$1.v4.pid" -t 5 -T 2 -A 5 \
			-O search -O staticroutes -O mtu -O ntpsrv -x "hostname:$(hostname)" $(before "$1")
		echo "$1: udhcpc ended, starting it again"
		sleep 2
	done
}

# DHCPv6 as the routers want it: "address" or "information".
ipv6() {
	information=
	[ "$2" = information ] && information=-l
	while [ -e "/sys/class/net/$1" ]; do
		# shellcheck disable=SC2086
		udhcpc6 -f -i "$1" -s /kios/lease6 -p "$STATE/$1.v6.pid" -t 5 -T 2 -A 20 $information
		echo "$1: udhcpc6 ended, starting it again"
		sleep 5
	done
}

# Asks the routers once; sets `managed`, which is empty when none answered.
solicit() {
	managed=
	advertised=$(rdisc6 -n -1 -r 3 -w 2000 "$1" 2>/dev/null) || return
	case $(echo "$advertised" | sed -n 's/^Stateful \(.*\) conf\..*: *Yes.*/\1/p' | head -n 1) in
	address) managed=address ;;
	other) managed=information ;;
	*) managed=no ;;
	esac
	{
		# Names are joined by spaces, resolvers stand on lines of their own.
		echo "$advertised" | sed -n 's/^ *DNS search list *: */search /p'
		echo "$advertised" | sed -n 's/^ *Recursive DNS server *: *\([^ ]*\).*/nameserver \1/p' |
			sed "s/^nameserver fe80:.*/&%$1/"
	} | /kios/resolv put "$1.ra"
}

interface() {
	ip link set "$1" up
	ipv4 "$1" &
	had= asked= next=0 patience=3
	while [ -e "/sys/class/net/$1" ]; do
		carrier=0
		read -r carrier <"/sys/class/net/$1/carrier" 2>/dev/null
		read -r now _ </proc/uptime
		now=${now%.*}
		if [ "$carrier" = 1 ]; then
			# Another cable can be another network. A new client asks by itself.
			if [ "$had" = 0 ]; then
				echo "$1: has a carrier again, renewing"
				read -r pid <"$STATE/$1.v4.pid" && kill -USR1 "$pid"
				next=0 patience=3
			fi
			if [ "$now" -ge "$next" ]; then
				next=$((now + solicit_every))
				solicit "$1"
				# Nobody answered: our own address may be tentative yet, and routers boot too.
				if [ -z "$managed" ]; then
					next=$((now + patience))
					[ "$patience" -lt "$solicit_every" ] && patience=$((patience * 2))
				fi
				if [ -n "$managed" ] && [ "$managed" != no ] && [ -z "$asked" ]; then
					echo "$1: routers advertise DHCPv6 ($managed)"
					asked=1
					ipv6 "$1" "$managed" &
				fi
			fi
		fi
		had=$carrier
		sleep 3
	done
	echo "$1: is gone"
}

mkdir -p "$STATE"
rmdir "$STATE/lock" 2>/dev/null
# A shell that is process 1 of its container does not end by SIGTERM unless told so.
trap 'exit 0' TERM
known=" "
while :; do
	for path in /sys/class/net/*; do
		name=${path##*/}
		if wanted "$path"; then
			case "$known" in *" $name "*) continue ;; esac
			known="$known$name "
			echo "$name: asking for a lease"
			interface "$name" &
		fi
	done
	sleep 3 &
	wait $!
	# An interface that went may come again.
	still=" "
	for name in $known; do [ -e "/sys/class/net/$name" ] && still="$still$name "; done
	known=$still
done
