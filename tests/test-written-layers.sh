#!/bin/bash
# SPDX-License-Identifier: MIT
# Layers that another program writes to while they are merged: cp and truncate ask for no lock.

# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=tests/lib-live.sh
. "$TOP/tests/lib-live.sh"

# meddle HOW: with B.qcow2, of which kept.qcow2 is a copy
meddle()
{
	case $1 in
	cut) truncate -s 1M B.qcow2 ;;
	emptied) : >B.qcow2 ;;
	copied) cp kept.qcow2 B.qcow2 ;;
	overwritten) dd if=/dev/urandom of=B.qcow2 bs=1M seek=4 count=4 conv=notrunc status=none ;;
	esac
}

# disturbed HOW COMMAND...: a merge of D.qcow2, as it was made, that is meddled with
disturbed()
{
	local how=$1

	shift
	cp fresh.qcow2 D.qcow2
	start "$@" --rate=4M D.qcow2
	merge_runs || fail "the merge does not start"
	sleep 0.3
	meddle "$how"
	finish
	meddled
	assert_content D.qcow2 "$HASH"
	assert_status 0 "$@" -q D.qcow2
	assert_content D.qcow2 "$HASH"
	assert_sound D.qcow2
}

# With the layer back the disk is as before, and the next run does it.
meddled()
{
	assertEquals "$WHAT: $(cat "$WORK/bg.err")" 75 "$STATUS"
	assertEquals "$WHAT: one line: $(cat "$WORK/bg.err")" 1 "$(wc -l <"$WORK/bg.err")"
	assertTrue "$WHAT: $(cat "$WORK/bg.err")" "grep -q \
		'^chain-[a-z]*: B.qcow2: was written to by another program' '$WORK/bg.err'"
	cp kept.qcow2 B.qcow2
	assertEquals "$WHAT" B.qcow2 "$(backing D.qcow2)"
}

testAtRest()
{
	local command how

	make_slow_chain 8
	new X.qcow2 16M
	cp D.qcow2 fresh.qcow2
	cp B.qcow2 kept.qcow2
	for command in "chain-stream -b A.qcow2" chain-stream "chain-rebase -F qcow2 -b X.qcow2"; do
		for how in cut emptied copied overwritten; do
			WHAT="$command, $how"
			# shellcheck disable=SC2086
			disturbed $how $command
		done
	done
}

# Who waits until another program has let go of a layer merges what that one has written.
testAfterWaiting()
{
	make_slow_chain 4
	qemu_io_holds B.qcow2
	PID_OF_QEMU=$PID
	start chain-stream -q --wait-lock=20 -b A.qcow2 D.qcow2
	sleep 0.5
	echo 'write -P 77 1M 64k' >&7
	until_true 5 grep -q '^wrote\|> wrote' "$WORK/prompt"
	echo quit >&7
	until_true 5 gone "$PID_OF_QEMU"
	exec 7>&-
	finish
	assertEquals "$(cat "$WORK/bg.err")" 0 "$STATUS"
	assert_backing D.qcow2 A.qcow2
	assertEquals "what was written last" ok "$(qemu-io -r -f qcow2 -c 'read -P 77 1M 64k' D.qcow2 |
		grep -q verification || echo ok)"
}

# The time of a base that stays, which nobody reads, may change: some programs note so that they
# use it.
testTouchedBase()
{
	make_slow_chain 8
	start chain-stream -q --rate=8M -b A.qcow2 D.qcow2
	merge_runs || fail "the merge does not start"
	touch A.qcow2
	finish
	assertEquals "$(cat "$WORK/bg.err")" 0 "$STATUS"
	assert_merged D.qcow2 "$HASH" A.qcow2
}

# A raw layer has no tables that would not fit any more.
testRaw()
{
	local how

	head -c 8M /dev/urandom >B.qcow2
	cp B.qcow2 kept.qcow2
	FORMAT=raw over fresh.qcow2 B.qcow2
	HASH=$(content fresh.qcow2)
	for how in cut emptied copied overwritten; do
		WHAT="raw, $how"
		disturbed $how chain-stream
	done
}

# The guest is told, too, and reads no zeros where there is nothing any more.
testHeld()
{
	local how

	need_holder || return 0
	make_slow_chain 8
	cp D.qcow2 fresh.qcow2
	cp B.qcow2 kept.qcow2
	for how in cut copied overwritten; do
		WHAT="held, $how"
		cp fresh.qcow2 D.qcow2
		hold D.qcow2 || return 0
		start chain-stream --rate=4M D.qcow2
		merge_runs || fail "the merge does not start"
		sleep 0.3
		meddle $how
		[ $how != cut ] || run qemu-io -f raw -c 'read 5M 1M' "$NBD"
		[ $how != cut ] || assertTrue "$(cat "$WORK/out" "$WORK/err")" \
			"grep -qi 'read failed: Input/output error' '$WORK/out' '$WORK/err'"
		finish
		meddled
		assertEquals "the guest's disk" "$HASH" "$(guest_content)"
		assert_status 0 chain-stream -q D.qcow2
		assertEquals "the guest's disk" "$HASH" "$(guest_content)"
		release
		assert_merged D.qcow2 "$HASH" ""
	done
}

# shellcheck disable=SC1091
. shunit2
