#!/bin/bash
# SPDX-License-Identifier: MIT
#
# A merge through a QEMU where somebody else is at work: its guest, another client, QEMU's own
# stream, an earlier run that was killed and wanted something else.

# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=tests/lib-live.sh
. "$TOP/tests/lib-live.sh"
# shellcheck source=tests/lib-qmp.sh
. "$TOP/tests/lib-qmp.sh"

# gate COMMAND: the socket `gate` is one of QEMU's, which holds that command back, until
# `open_gate`; `at_gate` waits for it
gate()
{
	rm -f gate gate.held
	"$TOP/tests/qmp-gate" gate "$QMP" "$1" &
	later "kill -9 $!"
	until_true 5 test -S gate
}

at_gate()
{
	until_true 10 test -e gate.held || fail "nothing came to the gate: $(cat "$WORK/bg.err")"
}

open_gate()
{
	rm gate.held
}

jobs_left()
{
	say '{"execute": "query-jobs"}' | jq -r '.[].id'
}

no_jobs()
{
	[ -z "$(jobs_left)" ]
}

# finalized_by_another: ours was killed at pending, and another client ended its job
finalized_by_another()
{
	gate job-finalize
	start chain-stream --qmp=gate D.qcow2
	at_gate
	kill -9 "$PID"
	finish
	say "{\"execute\": \"job-finalize\", \"arguments\": {\"id\": \"$(jobs_left)\"}}" >/dev/null
	job_is concluded
}

# A merge that is in QEMU's memory only is no "nothing to do"
testNothingToDo()
{
	need_daemon || return 0
	make_chain
	cp D.qcow2 pristine
	daemon D.qcow2
	say '{"execute": "block-stream", "arguments": {"device": "disk", "job-id": "alone"}}' >out
	until_true 10 no_jobs
	assert_status 0 chain-stream --qmp="$QMP" D.qcow2
	assert_err 'nothing to do'
	kill_holder
	assert_content D.qcow2 "$HASH"
	cp pristine D.qcow2
	daemon D.qcow2
	finalized_by_another
	assert_status 75 chain-stream -n --qmp="$QMP" D.qcow2
	assertEquals "of a dry run nothing is dismissed" 1 "$(jobs_left | wc -l)"
	assert_status 0 chain-stream --qmp="$QMP" D.qcow2
	assert_tidy
	kill_holder
	assert_content D.qcow2 "$HASH"
}

# While the first is at its last message: through a second socket nobody takes its job away
testSecondSocket()
{
	need_daemon || return 0
	make_chain
	daemon D.qcow2
	gate job-dismiss
	start chain-stream --qmp=gate -b A.qcow2 D.qcow2
	at_gate
	assert_status 75 chain-stream --qmp="$QMP2" -n -b A.qcow2 D.qcow2
	assert_status 75 chain-stream --qmp="$QMP2" -b A.qcow2 D.qcow2
	assert_one_error
	assert_err "chain-stream \(process $PID\) merges it"
	assertEquals "the job is there" 1 "$(jobs_left | wc -l)"
	# and if another client does, the merge is no worse
	say "{\"execute\": \"job-dismiss\", \"arguments\": {\"id\": \"$(jobs_left)\"}}" >/dev/null
	open_gate
	finish
	assertEquals "$(cat "$WORK/bg.err")" 0 "$STATUS"
	kill_holder
	assert_content D.qcow2 "$HASH"
	assertEquals A.qcow2 "$(backing D.qcow2)"
}

# reader_is_held: at its first read of the words of D.qcow2
reader_is_held()
{
	until_true 10 test -e GATE.held || fail "it did not read: $(cat "$WORK/bg.err")"
}

# held_up_at OFFSET COMMAND...: `start`, and its first read of D.qcow2 there is held up
held_up_at()
{
	local offset=$1

	shift
	touch GATE.armed
	start env LD_PRELOAD="$WORK/gate.so" GATE_FILE=/D.qcow2 GATE_OFFSET="$offset" "$@"
	reader_is_held
}

# A guest that makes the file longer while its tables are read: once when the merge looks
# what there is, once when it looks what is missing. Then the same with a file that is damaged.
testBusyGuest()
{
	local l1 l2

	need_daemon && need cc || return 0
	[ -e "$WORK/gate.so" ] || cc -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -O2 -shared -fPIC \
		-o "$WORK/gate.so" "$TOP/tests/preload/gate.c" || fail "cannot compile gate.c"
	make_chain
	l1=0x$(peek D.qcow2 40 8)
	l2=$((0x$(peek D.qcow2 "$l1" 8) & 0xfffffffffffe00))
	daemon D.qcow2
	# a signal meanwhile: nothing begins
	gate block-stream
	held_up_at $l2 chain-stream --qmp=gate -b A.qcow2 D.qcow2
	kill -INT "$PID"
	rm GATE.held
	finish
	assertEquals "$(cat "$WORK/bg.err")" 130 "$STATUS"
	assertFalse "it began" "[ -e gate.held ]"
	held_up_at $l2 chain-stream --qmp="$QMP" -b A.qcow2 D.qcow2
	guest_fill 9 4M 64k
	touch GATE.armed
	rm GATE.held
	reader_is_held
	guest_fill 9 4500k 100k
	rm GATE.held
	finish
	assertEquals "$(cat "$WORK/bg.err")" 0 "$STATUS"
	HASH=$(guest_content)
	kill_holder
	assert_content D.qcow2 "$HASH"
	assertEquals A.qcow2 "$(backing D.qcow2)"
	# the word of guest offset 4928k, which nobody has written
	poke D.qcow2 "$((l2 + 77 * 8))" 80 0 0 0 40 0 0 0
	daemon D.qcow2
	assert_status 65 chain-stream --qmp="$QMP" D.qcow2
	assert_err 'guest offset 5046272 .*past the end'
	assert_tidy
}

# killed_merge OPTION...: its job goes on in QEMU
killed_merge()
{
	start chain-stream --qmp="$QMP" --rate=256k "$@"
	qmp_merge_runs
	kill -9 "$PID"
	finish
}

# A killed run wanted the same base under another name; or another base, whose inode has the
# same number on another file system: its job is not taken for ours.
testTakenOver()
{
	need_daemon && mount_new tmpfs 300M one && mount_new tmpfs 300M two || return 0
	new one/A.qcow2 4M
	fill one/A.qcow2 1 0 4M
	over two/B.qcow2 "$PWD/one/A.qcow2"
	fill two/B.qcow2 2 0 2M
	over C.qcow2 "$PWD/two/B.qcow2"
	fill C.qcow2 3 1M 2M
	over D.qcow2 "$PWD/C.qcow2"
	HASH=$(content D.qcow2)
	assertEquals "the inodes" "$(stat -c %i one/A.qcow2)" "$(stat -c %i two/B.qcow2)"
	daemon D.qcow2
	killed_merge -b one/A.qcow2 D.qcow2
	killed_merge -b two/B.qcow2 D.qcow2
	assert_status 0 chain-stream --qmp="$QMP" --backing-string=two/B.qcow2 -b two/B.qcow2 D.qcow2
	assertEquals two/B.qcow2 "$(backing D.qcow2)"
	assert_tidy
	kill_holder
	assert_content D.qcow2 "$HASH"
}

# A QEMU whose names lead nowhere from here, since it has left the folder that they are in
testNamesThatLeadNowhere()
{
	need_machine || return 0
	make_chain
	QMP=$PWD/q
	qemu-system-x86_64 -accel tcg -m 64 -nodefaults -no-user-config -display none -S \
		-daemonize -pidfile pid -qmp "unix:$QMP,server=on,wait=off" \
		-drive file=D.qcow2,format=qcow2,if=virtio,node-name=disk || fail "no QEMU"
	HOLDER=$(cat pid)
	later "kill -9 $HOLDER"
	assert_status 69 chain-stream --qmp="$QMP" -b A.qcow2 D.qcow2
	assert_err '--qmp=SOCKET,NODE'
	assert_status 0 chain-stream --qmp="$QMP,disk" -b A.qcow2 D.qcow2
	kill -9 "$HOLDER"
	assert_content D.qcow2 "$HASH"
	assertEquals A.qcow2 "$(backing D.qcow2)"
}

# From a container QEMU's pid cannot be seen
testNoPid()
{
	need_root && need_daemon && need unshare || return 0
	make_slow_chain 4
	daemon "$PWD/D.qcow2"
	start unshare --fork --pid --kill-child chain-stream --qmp="$QMP" --rate=512k D.qcow2
	qmp_merge_runs
	run chain-info --jobs --json D.qcow2
	assertEquals "0 qemu qemu" "$(jq -r '.[] |
		"\(."owner-pid") \(."owner-kind") \(."owner-program")"' "$WORK/out")"
	assert_status 0 chain-stream --cancel D.qcow2
	finish
	assertEquals "$(cat "$WORK/bg.err")" 75 "$STATUS"
	assert_tidy
}

# The job of a killed run can be ended, and every run ends it, at the latest
testOrphans()
{
	need_daemon || return 0
	make_slow_chain 8
	daemon D.qcow2
	killed_merge D.qcow2
	run chain-info --jobs
	assert_out " dead .* $HOLDER qemu-storage"
	assert_no_out '\(dead\)'
	assert_status 69 chain-stream --cancel D.qcow2
	assert_one_error
	assert_err 'died, .* add --qmp'
	assert_status 64 chain-stream --pause --qmp="$QMP" D.qcow2
	assert_one_error
	assertFalse "a job is there" no_jobs
	CHAIN_QMP=$QMP assert_status 0 chain-stream --cancel D.qcow2
	assertTrue "it is ended" no_jobs
	assert_status 69 chain-stream --cancel --qmp="$QMP" D.qcow2
	assert_err 'has no job'
	killed_merge D.qcow2
	mv A.qcow2 away
	assert_status 66 chain-stream -n --qmp="$QMP" D.qcow2
	assertFalse "a dry run ends nothing" no_jobs
	assert_status 66 chain-stream --qmp="$QMP" D.qcow2
	assertTrue "the run that failed ended it" no_jobs
	mv away A.qcow2
	killed_merge D.qcow2
	say "{\"execute\": \"job-cancel\", \"arguments\": {\"id\": \"$(jobs_left)\"}}" >/dev/null
	job_is concluded
	assert_status 0 chain-stream --qmp="$QMP" D.qcow2
	assert_tidy
	kill_holder
	assert_content D.qcow2 "$HASH"
}

# shellcheck disable=SC1091
. shunit2
