#!/bin/bash
# SPDX-License-Identifier: MIT
#
# kill -9 at random moments: nothing is lost, a re-run leaves no leak. KILLS= moments.

# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"

# killed COUNT COMMAND...: a fresh copy of D for each, killed after up to 0.4 s
killed()
{
	local n=$1 i ms hit=0

	shift
	mv D.qcow2 fresh.qcow2
	for ((i = 0; i < n; i++)); do
		cp fresh.qcow2 D.qcow2
		start "$@"
		ms=$((RANDOM * (400 * SLOW) / 32768))
		sleep "$(printf '0.%03d' "$((ms % 1000))")"
		kill -9 "$PID" 2>/dev/null
		finish
		[ "$STATUS" = 137 ] && ((hit++))
		assert_leaks_at_worst D.qcow2
		assert_content D.qcow2 "$HASH"
		if [ -n "$(backing D.qcow2)" ]; then
			assert_status 0 "$@"
		fi
		assert_status 0 chain-stream -q D.qcow2
		assert_merged D.qcow2 "$HASH" ""
		[ -z "$MORE" ] || $MORE
		[ "${__shunit_testSuccess:-0}" = 0 ] || {
			echo "round $i, killed after $ms ms"
			return
		}
	done
	[ "$hit" -gt 0 ] || echo "none of $n was killed while it ran"
	rm fresh.qcow2
}

testCopying()
{
	MORE=
	make_slow_chain 24
	killed "${KILLS:-4}" chain-stream -q --rate=96M D.qcow2
}

testFullSpeed()
{
	MORE=
	make_slow_chain 24
	killed "${KILLS:-3}" chain-stream -q -b A.qcow2 D.qcow2
}

snapshots_hold()
{
	assertEquals "content of the snapshot" "$S1" "$(snapshot_content D.qcow2 s1)"
}

# Small clusters, compressed ones, zeros, snapshots
testManySmall()
{
	new A.qcow2 16M -o cluster_size=4k
	fill A.qcow2 1 0 4M
	over B.qcow2 A.qcow2 -o cluster_size=4k
	fill B.qcow2 2 1M 1M -c
	fill B.qcow2 3 2M 1M
	fill B.qcow2 4 8M 1M
	put B.qcow2 'write -z 3M 3M'
	over D.qcow2 B.qcow2 -o cluster_size=4k
	qemu-img snapshot -c s1 D.qcow2
	fill D.qcow2 5 100k 10k
	HASH=$(content D.qcow2)
	S1=$(snapshot_content D.qcow2 s1)
	MORE=snapshots_hold
	killed "${KILLS:-3}" chain-stream -q --rate=32M -b A.qcow2 D.qcow2
}

# shellcheck disable=SC1091
. shunit2
