#!/bin/bash
# SPDX-License-Identifier: MIT
#
# A holder whose disk fails at an awkward moment.

# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=tests/lib-live.sh
. "$TOP/tests/lib-live.sh"
# shellcheck source=tests/lib-stalls.sh
. "$TOP/tests/lib-stalls.sh"

# A commit found no room for a refcount; the flush after it is about later writes as well.
testFlushAfterAFullDisk()
{
	need_holder || return 0
	make_faults || return 0
	new D.qcow2 64M
	# the one refcount block of a new image
	HOLD_WITH=(LD_PRELOAD="$(holder_preload) $WORK/faults.so" FAULT_FILE=/D.qcow2
		FAULT_ERRNO=28 FAULT_FROM=0x20000 FAULT_TO=0x30000)
	hold D.qcow2 || return 0
	HOLD_WITH=()
	# each write with FUA; the end of qemu-io would be another flush
	run qemu-io -f raw -c 'write -P 1 0 64k' -c 'write -P 2 20M 64k' -c 'sigraise 9' "$NBD"
	kill_holder
	assertContains "the first one fails" "$(cat "$WORK/out" "$WORK/err")" "No space left"
	assertContains "the second one does not" "$(cat "$WORK/out")" "wrote 65536/65536"
	run qemu-io -r -f qcow2 -c 'read -P 2 20M 64k' D.qcow2
	assertNotContains "what was flushed" "$(cat "$WORK/out" "$WORK/err")" "failed"
	assert_leaks_at_worst D.qcow2
}

# More requests than there are slots in an epoch wait for a sync: a read does not.
testReadBesideManyFlushes()
{
	need_stalls || return 0
	/usr/bin/python3 -c 'import nbd' 2>/dev/null || skip "no python3-libnbd" || return 0
	new D.qcow2 64M
	put D.qcow2 'write -P 1 0 16M'
	HOLD_FILTERS=(-t 200)
	hold D.qcow2 || return 0
	HOLD_FILTERS=()
	arm holder sync sync /D.qcow2 0 0 0 1 stall 0
	cat >guest.py <<-'EOF'
		import nbd, os, sys, time
		h = nbd.NBD()
		h.connect_uri(sys.argv[1])
		for i in range(160):
		    h.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(512)), i << 16,
		                 flags=nbd.CMD_FLAG_FUA)
		while not os.path.exists(sys.argv[2]):
		    h.poll(10)
		end = time.time() + 1
		while time.time() < end:
		    h.poll(10)
		h.pread(512, 15 << 20)
		os._exit(0)
	EOF
	LIMIT=20 run /usr/bin/python3 guest.py "$NBD" "$WORK/holder/sync.here"
	assertEquals "the read: $(cat "$WORK/err")" 0 "$STATUS"
	go holder sync
	disarm holder
	kill_holder
	assert_leaks_at_worst D.qcow2
}

# One table comes slowly from the disk: reads by other tables go on.
testReadBesideASlowTable()
{
	need_stalls || return 0
	prepare
	need_stalls
	new D.qcow2 1G
	put D.qcow2 'write -P 1 0 64k' 'write -P 3 256M 64k' 'write -P 2 512M 2M'
	hold D.qcow2 || return 0
	assert_status 0 qemu-io -r -f raw -c 'read -P 1 0 4k' "$NBD"
	arm holder table pread /D.qcow2 1 $((0x70000)) 0 1 stall 0
	guest_begins 'read -P 2 512M 64k'
	reached holder table
	LIMIT=10 run qemu-io -r -f raw -c 'read -P 3 256M 64k' "$NBD"
	assertEquals "the other read: $(cat "$WORK/err")" 0 "$STATUS"
	go holder table
	guest_ends
	release
	assert_sound D.qcow2
}

# A filter's own thread is inside when the holder is told to end (readahead does not wait for
# it): it ends first.
testFilterAtTheEnd()
{
	need_stalls || return 0
	nbdkit --filter=readahead null --dump-plugin >/dev/null 2>&1 ||
		skip "no filter readahead" || return 0
	prepare
	need_stalls
	# the first 512 MiB have no L2 table; readahead asks for what lies behind
	new D.qcow2 1G
	put D.qcow2 'write -P 1 512M 2M'
	HOLD_FILTERS=(--filter=readahead)
	hold D.qcow2 || return 0
	HOLD_FILTERS=()
	arm holder table pread /D.qcow2 1 $((0x40000)) 0 1 stall 0
	mkfifo fifo
	qemu-io -r -f raw "$NBD" <fifo >"$WORK/guest.bg" 2>&1 &
	GUEST=$!
	later "kill -9 $GUEST"
	exec 7>fifo
	echo "read $((0x1fff0000)) 64k" >&7
	reached holder table
	# nbdkit ends once its clients have gone; before it has heard of its end, it would wait
	# for readahead, too
	kill "$HOLDER"
	until_true 10 grep -q futex "/proc/$HOLDER/wchan" || fail "it still waits for clients"
	exec 7>&-
	wait $GUEST
	sleep 1
	assertTrue "it waits" "grep -q '^State:.[^Z]' /proc/$HOLDER/status"
	go holder table
	release
	assert_sound D.qcow2
}

# shellcheck disable=SC1091
. shunit2
