#!/bin/bash
# SPDX-License-Identifier: MIT
#
# What chain-snapshot says when it is done: of what stands though its stdout fails, and of a
# guest that stays where he was.

# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=tests/lib-live.sh
. "$TOP/tests/lib-live.sh"
# shellcheck source=tests/lib-qmp.sh
. "$TOP/tests/lib-qmp.sh"

# full_stdout WORDS ARGUMENT...: status 74, and one line: WORDS, and what failed
full_stdout()
{
	local words=$1

	shift
	chain-snapshot --json "$@" >/dev/full 2>"$WORK/err"
	assertEquals "chain-snapshot $*" 74 $?
	assertEquals "chain-snapshot: $words; but standard output: cannot write: No space left on device" \
		"$(cat "$WORK/err")"
}

# in_use IMAGE: as chain-info says it
in_use()
{
	chain-info --json "$1" | jq '.[0]."in-use"'
}

testFullStdout()
{
	make_chain
	full_stdout 'E.qcow2: made' D.qcow2 E.qcow2
	assert_merged E.qcow2 "$HASH" D.qcow2
	new F.qcow2 5M
	full_stdout 'F.qcow2: made' --reuse D.qcow2 F.qcow2
	assert_merged F.qcow2 "$HASH" D.qcow2
	# where nothing was made, nothing is said to stand
	chain-snapshot --json D.qcow2 E.qcow2 >/dev/full 2>"$WORK/err"
	assertEquals 64 $?
	assert_one_error
	assertFalse "$(cat "$WORK/err")" "grep -q ': made' '$WORK/err'"
	# nor does who writes nothing there fail
	chain-snapshot -v D.qcow2 G.qcow2 >/dev/full 2>"$WORK/err"
	assertEquals "$(cat "$WORK/err")" 0 $?
}

# Who took it for a failure would go on with D, to which the guest writes no more.
testFullStdoutOfHeld()
{
	need_holder || return 0
	make_chain
	hold D.qcow2 || return 0
	full_stdout 'E.qcow2: made, and the guest writes to it now' D.qcow2 E.qcow2
	assertEquals "false true" "$(in_use D.qcow2) $(in_use E.qcow2)"
	freeze D.qcow2
	guest_fill 7 1M 100k
	NEW=$(guest_content)
	assert_frozen
	release
	assert_merged E.qcow2 "$NEW" D.qcow2
	assert_content D.qcow2 "$HASH"
}

testFullStdoutOfQemu()
{
	need_machine || return 0
	make_chain
	cp D.qcow2 X.qcow2
	machine D.qcow2 -drive file=X.qcow2,format=qcow2,if=virtio
	full_stdout 'E.qcow2 and the others: made, and the guest writes to it now' \
		--qmp="$QMP" D.qcow2 E.qcow2 X.qcow2 F.qcow2
	assertEquals "true true" "$(in_use E.qcow2) $(in_use F.qcow2)"
	full_stdout 'G.qcow2: made, and the guest writes to it now' --qmp="$QMP" E.qcow2 G.qcow2
	kill_holder
	assert_content G.qcow2 "$HASH"
	assert_content F.qcow2 "$HASH"
}

# stays PROGRAM IMAGE TOP: an overlay of IMAGE is a branch beside TOP, which HOLDER has
stays()
{
	local program=$1 image=$2 top=$3 note

	note="$image: stays a layer of $PWD/$top, too, which pid $HOLDER ($program) has open"
	note+=" and goes on with"
	rm -f branch*.qcow2
	assert_status 0 chain-snapshot -v "$image" branch.qcow2
	assertEquals "$(cat "$WORK/err")" 1 "$(grep -cxF "$note" "$WORK/err")"
	assert_err "^branch.qcow2: a new overlay of $image .qcow2., 5 MiB$"
	assert_status 0 chain-snapshot --json "$image" branch2.qcow2
	assertEquals "$note" "$(jq -r .note "$WORK/out")"
	assertEquals "and on stderr" "" "$(cat "$WORK/err")"
	# no report, no note
	assert_status 0 chain-snapshot "$image" branch3.qcow2
	assert_status 0 chain-snapshot -q "$image" branch4.qcow2
	assertEquals "" "$(cat "$WORK/err")"
	assertEquals "$image true" "$(backing branch4.qcow2) $(in_use "$top")"
}

# no_note IMAGE: of an overlay of it there is nothing to note
no_note()
{
	rm -f branch*.qcow2
	assert_status 0 chain-snapshot --json "$1" branch.qcow2
	assertEquals "$1" false "$(jq 'has("note")' "$WORK/out")"
	assert_status 0 chain-snapshot -v "$1" branch2.qcow2
	assertFalse "$1: $(cat "$WORK/err")" "grep -q 'stays a layer' '$WORK/err'"
}

# A guest's layer gets one more overlay, and the guest does not go over to it.
testLayerOfHeld()
{
	need_holder || return 0
	make_chain
	new X.qcow2 5M
	hold D.qcow2 || return 0
	stays nbdkit C.qcow2 D.qcow2
	stays nbdkit A.qcow2 D.qcow2
	no_note X.qcow2
	assert_status 0 chain-snapshot --json D.qcow2 E.qcow2
	assertEquals "the guest's own" "true false" "$(jq -r '"\(.live) \(has("note"))"' "$WORK/out")"
	# what was his image a moment ago is a layer by now
	stays nbdkit D.qcow2 E.qcow2
	assertEquals "the guest's disk" "$HASH" "$(guest_content)"
	release
	no_note D.qcow2
}

testLayerOfQemu()
{
	need_daemon || return 0
	make_chain
	daemon D.qcow2
	stays qemu-storage-da C.qcow2 D.qcow2
	kill_holder
	no_note C.qcow2
}

# shellcheck disable=SC1091
. shunit2
