#!/bin/bash
# SPDX-License-Identifier: MIT
#
# chain-stream and chain-snapshot through a QEMU, killed at every message: the next run finds
# what there is and ends well, and QEMU is left as it was. And QEMU killed at every message:
# the content is right.

# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=tests/lib-live.sh
. "$TOP/tests/lib-live.sh"
# shellcheck source=tests/lib-qmp.sh
. "$TOP/tests/lib-qmp.sh"

# through_proxy N WHERE VICTIM COMMAND...: PROXY is its status, STATUS that of the command
through_proxy()
{
	local n=$1 where=$2

	shift 2
	rm -f proxy
	"$TOP/tests/qmp-tool" proxy proxy "$QMP" "$n" "$where" ${VICTIM:+"$VICTIM"} 2>"$WORK/proxy" &
	later "kill -9 $!"
	until_true 5 test -S proxy
	run "$@"
	wait $!
	PROXY=$?
}

fresh()
{
	rm -f ./*.qcow2
	cp pristine/* .
	daemon D.qcow2
}

begin()
{
	make_chain
	mkdir pristine
	mv ./*.qcow2 pristine
}

# kills WHERE: chain-stream, until it is through; how often it was killed in N
kills()
{
	N=0
	while :; do
		N=$((N + 1))
		fresh
		through_proxy $N "$1" chain-stream --qmp=proxy -b A.qcow2 D.qcow2
		[ $PROXY = 0 ] || break
		assertEquals "message $N, $1: it was killed" 137 "$STATUS"
		assertEquals "message $N, $1: the guest's disk" "$HASH" "$(guest_content)"
		assert_status 0 chain-stream --qmp="$QMP" -b A.qcow2 D.qcow2
		assert_tidy
		kill_holder
		assert_content D.qcow2 "$HASH"
		assertEquals "message $N, $1" A.qcow2 "$(backing D.qcow2)"
		LATER=()
	done
	assertEquals "not killed: $(cat "$WORK/err" "$WORK/proxy")" 0 "$STATUS"
	kill_holder
}

testKilledBeforeEachMessage()
{
	need_daemon || return 0
	begin
	kills before
	assertTrue "messages: $N" "[ $N -gt 10 ]"
}

testKilledAfterEachMessage()
{
	need_daemon || return 0
	begin
	kills after
	assertTrue "messages: $N" "[ $N -gt 10 ]"
}

# The other end dies: 69, and nothing is lost
testQemuKilledAtEachMessage()
{
	local n=0

	need_daemon || return 0
	begin
	while :; do
		n=$((n + 1))
		fresh
		VICTIM=$HOLDER through_proxy $n after chain-stream --qmp=proxy -b A.qcow2 D.qcow2
		[ $PROXY = 0 ] || break
		wait "$HOLDER" 2>/dev/null
		# after the last one the answer may be there already
		[ "$STATUS" = 0 ] || assertEquals "message $n: $(cat "$WORK/err")" 69 "$STATUS"
		assert_content D.qcow2 "$HASH"
		assert_leaks_at_worst D.qcow2
		assert_status 0 chain-stream -b A.qcow2 D.qcow2
		assert_content D.qcow2 "$HASH"
		LATER=()
	done
	kill_holder
	assertTrue "messages: $n" "[ $n -gt 10 ]"
}

# A merge of D.qcow2 is killed while it copies; its job goes on.
kill_a_merge()
{
	make_slow_chain 16
	daemon D.qcow2
	start chain-stream --qmp="$QMP" --rate=2M D.qcow2
	qmp_merge_runs
	kill -9 "$PID"
	finish
}

# While it copies: the job goes on alone, or stands still, and the next run takes it over
testKilledWhileItRuns()
{
	need_daemon || return 0
	kill_a_merge
	# onto something else: what there is, is ended first
	start chain-stream --qmp="$QMP" --rate=2M -b A.qcow2 D.qcow2
	qmp_merge_runs
	assert_status 0 chain-stream --pause D.qcow2
	kill -9 "$PID"
	finish
	job_is paused
	assert_status 0 chain-stream --qmp="$QMP" -b A.qcow2 D.qcow2
	assert_tidy
	kill_holder
	assert_content D.qcow2 "$HASH"
	assertEquals A.qcow2 "$(backing D.qcow2)"
}

# QEMU refuses a snapshot while the job is there, and the sentence says what ends it.
testSnapshotOfAKilledMerge()
{
	need_daemon || return 0
	kill_a_merge
	assert_status 75 chain-snapshot --qmp="$QMP" D.qcow2 E.qcow2
	assert_one_error
	assert_err "^chain-snapshot: D.qcow2: a merge of it that nobody watches any more goes on in this QEMU; "
	assert_err "chain-stream --cancel --qmp=$QMP\$"
	assertFalse "no overlay" "[ -e E.qcow2 ]"
	job_is running
	assert_status 0 chain-stream --cancel --qmp="$QMP" D.qcow2
	assert_tidy
	assert_status 0 chain-snapshot --qmp="$QMP" D.qcow2 E.qcow2
	assertEquals "the guest's disk" "$HASH" "$(guest_content)"
	kill_holder
	assert_content E.qcow2 "$HASH"
}

# Until QEMU has the last message, the transaction, it is as if nothing had been, but for an
# overlay that nobody uses; then the guest is on the overlay
testSnapshotKilled()
{
	local n where seen now

	need_daemon || return 0
	begin
	for where in before after; do
		n=0
		seen=
		while :; do
			n=$((n + 1))
			fresh
			through_proxy $n $where chain-snapshot --qmp=proxy D.qcow2 E.qcow2
			[ $PROXY = 0 ] || break
			assertEquals "message $n: the guest's disk" "$HASH" "$(guest_content)"
			assert_tidy
			guest_fill 7 0 64k
			now=D
			lsof_has "$HOLDER" E.qcow2 && now=E && assert_content D.qcow2 "$HASH"
			assertEquals "written to $now" "$(content $now.qcow2)" "$(guest_content)"
			[ -e E.qcow2 ] && now+=+
			seen+="$now "
			kill_holder
			LATER=()
		done
		assertEquals "not killed: $(cat "$WORK/err" "$WORK/proxy")" 0 "$STATUS"
		kill_holder
		[ $where = before ] && now='D[+]' || now='E[+]'
		assertTrue "killed $where a message: $seen" "echo '$seen' | grep -qxE '(D ){3,}$now '"
	done
}

lsof_has()
{
	[ -n "$(find "/proc/$1/fd" -lname "*/$2")" ]
}

# shellcheck disable=SC1091
. shunit2
