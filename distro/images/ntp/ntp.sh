#!/bin/sh
# The node's clock: OpenNTPD steps it to what a server says, and then slews.
#
# OpenNTPD steps in the first 15 seconds of its life or never, and slews at
# half a millisecond a second, whatever the offset. So it is started again, to
# step, when nobody answered in that time (networks come late), and when the
# clock is off by more than STEP_ABOVE seconds (a machine that was paused).
set -u

state=/run/ntp
conf=$state/ntpd.conf
lines=$state/output
step_above=${STEP_ABOVE:-10}

# The DHCP servers' NTP servers, else those of the manifest; all of a pool's addresses are asked.
servers() {
	given=$(cat /run/dhcp/*.ntp 2>/dev/null)
	if [ -n "$given" ] && [ "${USE_DHCP:-yes}" = yes ]; then
		for server in $given; do echo "server $server"; done
	else
		for server in $NTP_SERVERS; do echo "servers $server"; done
	fi
}

# Whether one of ntpd's lines tells of an offset that is to be stepped.
is_far() {
	offset=${1##*"adjusting local clock by "}
	offset=${offset#-}
	case ${offset%%[.s]*} in
	"" | *[!0-9]*) return 1 ;;
	esac
	[ "${offset%%[.s]*}" -ge "$step_above" ]
}

stop() { kill "$pid" 2>/dev/null && wait "$pid"; }

mkdir -p /var/lib/openntpd/db /var/lib/openntpd/run
rm -f "$lines"
mkfifo "$lines"
pid=
trap '[ -n "$pid" ] && stop; exit 0' TERM
step=-s
while :; do
	wanted=$(servers)
	echo "$wanted" >"$conf"
	echo "asking:" $wanted
	# shellcheck disable=SC2086
	ntpd -d $step -f "$conf" >"$lines" 2>&1 &
	pid=$!
	exec 3<"$lines"
	again=
	while [ -z "$again" ]; do
		if read -r -t 20 line <&3; then
			echo "$line"
			case $line in
			*"set local clock to "*) step= ;;
			*"skipping initial time setting"*) again="no server has answered yet" ;;
			*"adjusting local clock by "*) is_far "$line" && step=-s again="the clock is too far off to slew" ;;
			esac
		elif ! kill -0 "$pid" 2>/dev/null; then
			again="ntpd ended"
		elif [ "$wanted" != "$(servers)" ]; then
			again="other servers"
		fi
	done
	echo "starting ntpd again: $again"
	stop
	exec 3<&-
	sleep 2
done
