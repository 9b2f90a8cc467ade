#!/bin/bash
# SPDX-License-Identifier: MIT
#
# External data files in use: locked as their images are, since a guest whose raw disk one is
# never looks at the image.

# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=tests/lib-live.sh
. "$TOP/tests/lib-live.sh"

WRITER='100-101 103 201 203'
LAYER='100 201 203'

# A <- B <- D, each with its data file
make_data_chain()
{
	new A.qcow2 8M -o data_file=A.data
	fill A.qcow2 1 0 2M
	over B.qcow2 A.qcow2 -o data_file=B.data
	fill B.qcow2 2 1M 6M
	over D.qcow2 B.qcow2 -o data_file=D.data
	fill D.qcow2 3 0 50k
	HASH=$(content D.qcow2)
}

# somebody_has FILE: a program (PID) for which it is a raw disk, and which may write
somebody_has()
{
	start qemu-nbd -t -f raw -k "$WORK/nbd.sock" "$1"
	holds "$PID" || fail "qemu-nbd does not hold $1"
}

nobody_has()
{
	kill "$PID"
	finish
}

# refused FILE COMMAND...: 75, one line, with whose FILE is
refused()
{
	local file=$1

	shift
	LIMIT=20 assert_status 75 "$@"
	assert_one_error
	assert_err "$file: in use by pid $PID \(qemu-nbd\)"
}

# lock_bytes PID FILE: those that it holds, as the kernel writes them
lock_bytes()
{
	local inode

	inode=$(stat -c %i "$2")
	sed -n "s/^lock:.*:$inode \([0-9]*\) \([0-9]*\)\$/\1-\2/p" /proc/"$1"/fdinfo/* 2>/dev/null |
		sort -n | sed 's/^\([0-9]*\)-\1$/\1/' | paste -sd' '
}

assert_bytes()
{
	assertEquals "process $1 has of $2" "$3" "$(lock_bytes "$1" "$2")"
}

testActive()
{
	make_data_chain
	new N.qcow2 8M -o data_file=N.data
	somebody_has D.data
	freeze ./*
	refused D.data chain-stream -q D.qcow2
	refused D.data chain-stream -q -n D.qcow2
	refused D.data chain-rebase -q -b A.qcow2 D.qcow2
	refused D.data chain-rebase -q -u -F qcow2 -b A.qcow2 D.qcow2
	refused D.data chain-rebase -q -n -u -F qcow2 -b A.qcow2 D.qcow2
	refused D.data chain-snapshot D.qcow2 E.qcow2
	assertFalse "an overlay is left" "[ -e E.qcow2 ]"
	# it is no new base either
	refused D.data chain-rebase -q -F qcow2 -b D.qcow2 N.qcow2
	assert_frozen
	nobody_has
	assert_status 0 chain-stream -q D.qcow2
	assert_merged D.qcow2 "$HASH" ""
}

testLayer()
{
	make_data_chain
	somebody_has B.data
	freeze ./*
	refused B.data chain-stream -q -b A.qcow2 D.qcow2
	refused B.data chain-stream -q -n D.qcow2
	assert_frozen
	nobody_has
	assert_status 0 chain-stream -q D.qcow2
	assert_merged D.qcow2 "$HASH" ""
}

testReusedOverlay()
{
	make_data_chain
	new E.qcow2 8M -o data_file=E.data
	somebody_has E.data
	freeze ./*
	refused E.data chain-snapshot --reuse D.qcow2 E.qcow2
	assert_frozen
	nobody_has
	assert_status 0 chain-snapshot --reuse D.qcow2 E.qcow2
	assert_merged E.qcow2 "$HASH" D.qcow2
}

testWaitLock()
{
	make_data_chain
	somebody_has D.data
	(
		sleep 0.5
		kill "$PID"
	) &
	LIMIT=30 assert_status 0 chain-stream -q --wait-lock=20s D.qcow2
	assert_merged D.qcow2 "$HASH" ""
	finish
}

# One file that is written as the active image's and read as a layer
testTwoParts()
{
	new D.qcow2 1M -o data_file=D.data
	fill D.qcow2 1 0 64k
	qemu-img rebase -u -f qcow2 -F raw -b D.data D.qcow2
	freeze ./*
	LIMIT=20 assert_status 65 chain-stream -q D.qcow2
	assert_one_error
	assert_err 'D.data: is two parts of one chain'
	assert_frozen
	# where both are only read that is no harm
	over E.qcow2 D.qcow2
	HASH=$(content E.qcow2)
	assert_status 0 chain-stream -q E.qcow2
	assert_merged E.qcow2 "$HASH" ""
}

testWhileWeMerge()
{
	make_data_chain
	start chain-stream -q --rate=2M -b A.qcow2 D.qcow2
	merge_runs || fail "the merge does not start"
	assert_bytes "$PID" D.data "$WRITER"
	assert_bytes "$PID" B.data "$LAYER"
	assertFalse "a writer gets in" "qemu-io -f raw -c 'write 0 64k' D.data >/dev/null 2>&1"
	assertFalse "a writer of a layer gets in" \
		"qemu-io -f raw -c 'write 0 64k' B.data >/dev/null 2>&1"
	assertTrue "a reader of a layer is welcome" \
		"qemu-io -r -f raw -c 'read 0 64k' B.data >/dev/null 2>&1"
	kill -TERM "$PID"
	finish
	assert_merged D.qcow2 "$HASH" B.qcow2
}

testInfo()
{
	make_data_chain
	somebody_has B.data
	assert_status 0 chain-info --json -o +holders D.qcow2
	assertEquals 'false,true,false' "$(jq -r 'map(."in-use") | join(",")' "$WORK/out")"
	assertEquals "$PID" "$(jq -r '.[].holders[].pid' "$WORK/out")"
	assert_status 0 chain-info D.qcow2
	assert_out 'B.qcow2.*in-use'
	nobody_has
}

# --- with a guest ---------------------------------------------------------------

testHolderIsRefused()
{
	local file preload

	need_holder || return 0
	preload=$(holder_preload)
	make_data_chain
	for file in D.data B.data; do
		somebody_has $file
		LIMIT=20 assert_status 1 env ${preload:+"LD_PRELOAD=$preload"} \
			nbdkit -f -U "$WORK/none" "$PLUGIN" D.qcow2
		assert_err "$file: in use by pid $PID \(qemu-nbd\)"
		nobody_has
	done
}

# The bytes of the holder, of a worker beside it, and what is let go of at its end
testHeldMerge()
{
	need_holder || return 0
	make_data_chain
	hold D.qcow2 || return 0
	assert_bytes "$HOLDER" D.data "$WRITER"
	assert_bytes "$HOLDER" B.data "$LAYER"
	assertFalse "a writer gets in" "qemu-io -f raw -c 'write 0 64k' D.data >/dev/null 2>&1"
	start chain-stream -q --rate=2M -b A.qcow2 D.qcow2
	live_runs
	assert_bytes "$PID" D.data "$WRITER"
	assert_bytes "$PID" B.data "$LAYER"
	assert_status 0 chain-stream --set-rate=1G D.qcow2
	finish
	assertEquals "the merge: $(cat "$WORK/bg.err")" 0 "$STATUS"
	assert_bytes "$HOLDER" D.data "$WRITER"
	assert_bytes "$HOLDER" B.data ""
	assert_bytes "$HOLDER" A.data "$LAYER"
	release
	assert_merged D.qcow2 "$HASH" A.qcow2
}

# Another base below a guest
testHeldRebase()
{
	need_holder || return 0
	make_data_chain
	new N.qcow2 8M -o data_file=N.data
	fill N.qcow2 1 0 2M
	hold D.qcow2 || return 0
	somebody_has N.data
	refused N.data chain-rebase -q -F qcow2 -b N.qcow2 D.qcow2
	nobody_has
	assert_status 0 chain-rebase -q -F qcow2 -b N.qcow2 D.qcow2
	assert_bytes "$HOLDER" N.data "$LAYER"
	assert_bytes "$HOLDER" A.data ""
	release
	assert_merged D.qcow2 "$HASH" N.qcow2
}

# The old active image is a layer from then on, with its data file.
testHeldSnapshot()
{
	need_holder || return 0
	make_data_chain
	new E.qcow2 8M -o data_file=E.data
	hold D.qcow2 || return 0
	guest 'write -P 9 0 64k'
	HASH=$(guest_content)
	assert_status 0 chain-snapshot --reuse D.qcow2 E.qcow2
	assert_bytes "$HOLDER" E.data "$WRITER"
	assert_bytes "$HOLDER" D.data "$LAYER"
	guest 'write -P 9 0 64k'
	release
	assert_merged E.qcow2 "$HASH" D.qcow2
}

# A holder that only reads
testReadonly()
{
	need_holder || return 0
	make_data_chain
	hold D.qcow2 readonly=true || return 0
	assert_bytes "$HOLDER" D.data "$LAYER"
	assert_bytes "$HOLDER" B.data "$LAYER"
	assertFalse "a writer gets in" "qemu-io -f raw -c 'write 0 64k' D.data >/dev/null 2>&1"
	release
}

# shellcheck disable=SC1091
. shunit2
