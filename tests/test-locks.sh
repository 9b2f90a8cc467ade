#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Images in use: 75 with pid and program; and others are refused while we merge.

# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"

testQemuIo()
{
	make_chain
	qemu_io_holds D.qcow2
	refused qemu-io
	# a snapshot of a live image would be garbage at the guest's next write
	assert_status 75 chain-snapshot D.qcow2 E.qcow2
	assertFalse "nothing is left" "[ -e E.qcow2 ]"
	exec 7>&-
	wait "$PID"
	assert_status 0 chain-stream -q -b A.qcow2 D.qcow2
	assert_merged D.qcow2 "$HASH" A.qcow2
}

# refused PROGRAM: D is held by $PID, which is PROGRAM
refused()
{
	holds "$PID" || fail "$1 does not hold the image"
	freeze ./*.qcow2
	LIMIT=20 assert_status 75 chain-stream -q -b A.qcow2 D.qcow2
	assert_one_error
	assert_err "(^|[^0-9])$PID([^0-9]|\$)"
	assert_err "$1"
	LIMIT=20 assert_status 75 chain-rebase -q -b A.qcow2 D.qcow2
	assert_status 0 chain-info -o +holders D.qcow2
	assert_out "$PID"
	assert_out "$1"
	assert_status 0 chain-info --json -o +holders D.qcow2
	assertTrue "holders: $(cat "$WORK/out")" "grep -q '$1' '$WORK/out'"
	LIMIT=20 assert_status 75 chain-info --check D.qcow2
	assert_one_error
	assert_err "D.qcow2: in use by pid $PID \($1\) of user $(id -un): its tables change"
	assert_frozen
}

testQemuNbd()
{
	make_chain
	start qemu-nbd -t -f qcow2 -k "$WORK/nbd.sock" D.qcow2
	refused qemu-nbd
	kill "$PID"
	finish
	assert_status 0 chain-stream -q D.qcow2
	assert_merged D.qcow2 "$HASH" ""
}

testStorageDaemon()
{
	need qemu-storage-daemon || return 0
	make_chain
	start qemu-storage-daemon \
		--blockdev driver=qcow2,node-name=d,file.driver=file,file.filename=D.qcow2
	refused qemu-storage-da
}

# A reader of the active image is in the way, too; a reader of a layer is not.
testReaders()
{
	make_chain
	start qemu-nbd -r -t -f qcow2 -k "$WORK/nbd.sock" B.qcow2
	holds "$PID"
	assert_status 0 chain-stream -q -b A.qcow2 D.qcow2
	assert_merged D.qcow2 "$HASH" A.qcow2
	kill "$PID"
	finish
	start qemu-nbd -r -t -f qcow2 -k "$WORK/nbd2.sock" D.qcow2
	holds "$PID"
	LIMIT=20 assert_status 75 chain-stream -q D.qcow2
	assert_err "D.qcow2: in use by pid $PID \(qemu-nbd\) of user .* open for reading"
	kill "$PID"
	finish
}

# What the run would be refused, the dry run is: read by somebody, a layer of a guest's image.
testDryRun()
{
	local image

	make_chain
	freeze ./*.qcow2
	start qemu-nbd -r -t -f qcow2 -k "$WORK/nbd.sock" D.qcow2
	holds "$PID"
	for image in D.qcow2 C.qcow2; do
		LIMIT=20 refused_too 75 chain-stream -q $image
		LIMIT=20 refused_too 75 chain-rebase -q -b A.qcow2 $image
		LIMIT=20 refused_too 75 chain-rebase -q -u -b A.qcow2 -F qcow2 $image
	done
	kill "$PID"
	finish
	start qemu-nbd -t -f qcow2 -k "$WORK/nbd2.sock" D.qcow2
	holds "$PID"
	LIMIT=20 refused_too 75 chain-stream -q C.qcow2
	kill "$PID"
	finish
	assert_frozen
	# readers of layers are welcome to both
	start qemu-nbd -r -t -f qcow2 -k "$WORK/nbd3.sock" C.qcow2
	holds "$PID"
	assert_status 0 chain-stream -q -n D.qcow2
	assert_status 0 chain-stream -q D.qcow2
}

# A layer that somebody writes is no layer.
testLayerHeld()
{
	make_chain
	start qemu-nbd -t -f qcow2 -k "$WORK/nbd.sock" B.qcow2
	holds "$PID"
	LIMIT=20 assert_status 75 chain-stream -q D.qcow2
	assert_err B.qcow2
	assert_err "$PID"
	# what it would do nobody knows while B changes
	LIMIT=20 assert_status 75 chain-stream -q -n D.qcow2
	assert_err "B.qcow2: .*pid $PID "
	kill "$PID"
	finish
	assert_status 0 chain-stream -q D.qcow2
	assert_merged D.qcow2 "$HASH" ""
}

# A lock on the whole file, as cloud-hypervisor takes it
testForeignLock()
{
	need python3 || return 0
	make_chain
	start python3 -c 'import fcntl, struct, sys, time
f = open("D.qcow2", "r+b")
fcntl.fcntl(f, 37, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0))
open("locked", "w").close()
time.sleep(60)'
	until_true 5 test -e locked
	LIMIT=20 assert_status 75 chain-stream -q D.qcow2
	assert_err "$PID"
	kill "$PID"
	finish
}

testWhileWeMerge()
{
	make_slow_chain 32
	start chain-stream -q --rate=8M D.qcow2
	merge_runs || fail "the merge does not start"
	assertFalse "a writer gets in" "qemu-io -f qcow2 -c 'write 0 64k' D.qcow2 >/dev/null 2>&1"
	assertFalse "a resize gets in" "qemu-img resize -q D.qcow2 +1M >/dev/null 2>&1"
	assertFalse "a writer of a layer gets in" \
		"qemu-io -f qcow2 -c 'write 0 64k' B.qcow2 >/dev/null 2>&1"
	assertTrue "a reader of a layer is welcome" \
		"qemu-io -r -f qcow2 -c 'read 0 64k' B.qcow2 >/dev/null 2>&1"
	LIMIT=20 assert_status 75 chain-stream -q D.qcow2
	assert_err "$PID"
	assert_err chain-stream
	LIMIT=20 assert_status 75 chain-rebase -q -b A.qcow2 D.qcow2
	assert_status 0 chain-info D.qcow2
	kill -TERM "$PID"
	finish
	assert_merged D.qcow2 "$HASH" B.qcow2
}

# Two that start at once: one of them wins, and nothing is hurt.
testRace()
{
	local pids=() i won=0

	make_slow_chain 8
	for i in 1 2 3 4; do
		chain-stream -q --rate=16M D.qcow2 2>/dev/null &
		pids+=($!)
	done
	for i in "${pids[@]}"; do
		wait "$i" && ((won++))
	done
	assertTrue "$won have won" "[ $won -le 1 ]"
	assert_status 0 chain-stream -q D.qcow2
	assert_merged D.qcow2 "$HASH" ""
}

testWaitLock()
{
	make_chain
	start qemu-nbd -t -f qcow2 -k "$WORK/nbd.sock" D.qcow2
	holds "$PID"
	(
		sleep 1
		kill "$PID"
	) &
	LIMIT=30 assert_status 0 chain-stream -q --wait-lock=20s -b A.qcow2 D.qcow2
	assert_merged D.qcow2 "$HASH" A.qcow2
	finish
	start qemu-nbd -t -f qcow2 -k "$WORK/nbd.sock" D.qcow2
	holds "$PID"
	LIMIT=20 assert_status 75 chain-stream -q --wait-lock=1s D.qcow2
	kill "$PID"
	finish
}

# The time limit is over while it waits: for the image itself, and for a layer.
testWaitLockAndTimeLimit()
{
	local image command

	make_chain
	for image in D.qcow2 B.qcow2; do
		start qemu-nbd -t -f qcow2 -k "$WORK/nbd.sock" $image
		holds "$PID"
		freeze ./*.qcow2
		for command in chain-stream "chain-rebase -b A.qcow2" "chain-rebase -u -b A.qcow2"; do
			# the layers are nothing to it
			[[ $image = B.qcow2 && $command = *-u* ]] && continue
			# shellcheck disable=SC2086
			LIMIT=20 assert_status 75 $command -q --wait-lock=10m --time-limit=1s D.qcow2
			assert_one_error
			assert_err "$image: in use by pid $PID "
		done
		assert_frozen
		kill "$PID"
		finish
	done
}

# A killed process has its locks until its last system call ends: the next command waits for
# that, as nobody can do anything about it. The call here is a write to a frozen file system.
testKilled()
{
	mkdir m
	mount_new ext4 256M m || return 0
	need fsfreeze || return 0
	cd m || return 1
	make_slow_chain 32
	killed
	LIMIT=30 assert_status 0 chain-info --check D.qcow2
	finish
	killed
	LIMIT=30 assert_status 0 chain-stream -q D.qcow2
	assert_merged D.qcow2 "$HASH" ""
	finish
	cd ..
}

# A merge is killed, and ends some time later
killed()
{
	start chain-stream -q --rate=16M D.qcow2
	merge_runs || fail "the merge does not start"
	fsfreeze -f .
	later "fsfreeze -u '$PWD'"
	until_true 5 grep -q '^State:.D' "/proc/$PID"/task/*/status || fail "nothing waits"
	kill -9 "$PID"
	(
		sleep 0.5
		fsfreeze -u .
	) &
}

# chain-info takes no lock: a guest can start while it looks.
testInfoTakesNone()
{
	make_chain
	need strace || return 0
	assert_status 0 strace -f -e trace=fcntl -o "$WORK/trace" chain-info D.qcow2
	assertFalse "it locks" "grep -q 'SETLK.*D.qcow2\|F_OFD_SETLK' '$WORK/trace'"
}

# shellcheck disable=SC1091
. shunit2
