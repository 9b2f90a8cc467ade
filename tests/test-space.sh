#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Too little space is refused before the first write.

# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"

testRefusedBefore()
{
	mkdir small
	mount_new tmpfs 24M small || return 0
	make_slow_chain 32
	rm D.qcow2
	over small/D.qcow2 "$PWD/B.qcow2"
	HASH=$(content small/D.qcow2)
	freeze small/D.qcow2
	assert_status 74 chain-stream -q small/D.qcow2
	assert_one_error
	assert_err 'D.qcow2.*space'
	assert_frozen
	assert_status 74 chain-rebase -q -b '' small/D.qcow2
	assert_frozen
}

# Somebody else fills the disk half way: 74, the image is as good as before, and when
# there is room again the merge goes on.
testFullHalfWay()
{
	mkdir small
	mount_new tmpfs 48M small || return 0
	make_slow_chain 32
	rm D.qcow2
	over small/D.qcow2 "$PWD/B.qcow2"
	HASH=$(content small/D.qcow2)
	start chain-stream -q --rate=16M small/D.qcow2
	merge_runs || fail "the merge does not start"
	sleep 0.5
	head -c 36M /dev/zero >small/other 2>/dev/null
	finish
	assertEquals "status: $(cat "$WORK/bg.err")" 74 "$STATUS"
	assertEquals "one line: $(cat "$WORK/bg.err")" 1 "$(wc -l <"$WORK/bg.err")"
	assert_content small/D.qcow2 "$HASH"
	assert_leaks_at_worst small/D.qcow2
	rm small/other
	assert_status 0 chain-stream -q small/D.qcow2
	assert_merged small/D.qcow2 "$HASH" ""
}

# limited KIBIBYTES COMMAND...: with a limit on the size of files
limited()
{
	local kib=$1

	shift
	# shellcheck disable=SC2016
	run bash -c 'ulimit -f "$0" && exec "$@"' "$kib" "$@"
}

# A limit (ulimit -f) is no room, neither more nor less: nothing dies of SIGXFSZ, and what
# fits is not refused because the file is made longer in large steps.
testFileSizeLimit()
{
	make_slow_chain 8
	cp D.qcow2 fresh.qcow2
	limited 4096 chain-stream -q D.qcow2
	assertEquals "status: $(cat "$WORK/err")" 74 "$STATUS"
	assert_one_error
	assert_content D.qcow2 "$HASH"
	assert_leaks_at_worst D.qcow2
	assert_status 0 chain-stream -q D.qcow2
	assert_merged D.qcow2 "$HASH" ""
	mv fresh.qcow2 D.qcow2
	limited 16384 chain-stream -q D.qcow2
	assertEquals "status: $(cat "$WORK/err")" 0 "$STATUS"
	assert_merged D.qcow2 "$HASH" ""
}

# shellcheck disable=SC1091
. shunit2
