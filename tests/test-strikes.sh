#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Single calls that fail (tests/proof/faults, which sweeps over all of them and found what
# is tested here): the status is right, one sentence says why, and names the file.

# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"

STEP=1

make_nth()
{
	need cc || return 1
	[ -e "$WORK/nth.so" ] || cc -std=gnu17 -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -O2 \
		-fno-builtin -shared -fPIC -pthread -o "$WORK/nth.so" \
		"$TOP"/tests/proof/faults/nth*.c || fail "cannot compile nth.so"
	case $BUILD in
	*/build-*)
		skip "a sanitizer has calls of its own"
		return 1
		;;
	esac
}

# struck KIND N ERRNO COMMAND...: run it; false when there is no N-th call of the kind
struck()
{
	local strike="$1 $2 $3"

	shift 3
	rm -f "$WORK/struck"
	run env LD_PRELOAD="$WORK/nth.so" NTH_STRIKE="$strike" NTH_STRUCK="$WORK/struck" "$@"
	[ -e "$WORK/struck" ]
}

# each KIND ERRNO STATUS REGEX COMMAND...: each call of the kind in turn. Status and sentence
# are these, or the status is 0. D.qcow2 is fresh each time.
each()
{
	local kind=$1 number=$2 status=$3 regex=$4 n=0 failures=0

	shift 4
	cp D.qcow2 fresh
	while struck "$kind" $((n += STEP)) "$number" "$@"; do
		cp fresh D.qcow2
		rm -f E.qcow2
		[ "$STATUS" != 0 ] || continue
		: $((failures++))
		assertEquals "$kind $n of $*: $(cat "$WORK/err")" "$status" "$STATUS"
		assert_one_error
		assert_err "$regex"
	done
	assertTrue "$kind of $*: nothing failed" "[ $failures != 0 ]"
	mv fresh D.qcow2
	rm -f E.qcow2
}

# EINTR is nobody's wish to stop: no 130
testInterrupted()
{
	make_nth || return 0
	make_chain
	each open 4 74 'qcow2: .*Interrupted' chain-stream -q -j 1 -b B.qcow2 D.qcow2
	each truncate 4 74 '^chain-stream: D.qcow2: .*Interrupted' \
		chain-stream -q -j 1 -b B.qcow2 D.qcow2
	each sync 4 74 'Interrupted' chain-snapshot D.qcow2 E.qcow2
	each open 4 74 'qcow2: .*Interrupted' chain-info D.qcow2
}

testCommitNamesTheImage()
{
	make_nth || return 0
	make_chain
	each write 5 74 '^chain-stream: D.qcow2: ' chain-stream -q -j 1 -b B.qcow2 D.qcow2
	each write 28 74 '^chain-stream: D.qcow2: ' chain-stream -q -j 1 -b B.qcow2 D.qcow2
	each sync 5 74 '^chain-stream: .*[ABD].qcow2' \
		chain-stream -q -j 1 -b B.qcow2 D.qcow2
	each truncate 5 74 '^chain-stream: D.qcow2: ' \
		chain-stream -q -j 1 -b B.qcow2 D.qcow2
}

# Space on the disk has nothing to do with the room in a header.
testNoSpaceForTheHeader()
{
	make_nth || return 0
	make_chain
	cp C.qcow2 M.qcow2
	each write 28 74 '^chain-rebase: D.qcow2: ' chain-rebase -q -u -b M.qcow2 D.qcow2
	each sync 28 74 '^chain-rebase: D.qcow2: ' chain-rebase -q -u -b M.qcow2 D.qcow2
}

# ... nor has it when what a crash left is mended.
testNoSpaceForTheMark()
{
	make_nth || return 0
	make_faults || return 0
	make_chain
	with_faults FAULT_EXIT=3 chain-stream -q -j 1 D.qcow2
	assertEquals "it died" 86 "$STATUS"
	assertEquals "the header is not switched yet" C.qcow2 "$(backing D.qcow2)"
	each write 28 74 '^chain-stream: D.qcow2: ' chain-stream -q -j 1 -b B.qcow2 D.qcow2
	each sync 28 74 '^chain-stream: .*[ABD].qcow2' \
		chain-stream -q -j 1 -b B.qcow2 D.qcow2
}

# A file that cannot be looked at is neither another one, nor there, nor damaged.
testCannotLook()
{
	make_nth || return 0
	make_chain
	each stat 5 74 'qcow2: ' chain-snapshot D.qcow2 E.qcow2
	each stat 5 74 'qcow2: ' chain-stream -q -j 1 -b B.qcow2 D.qcow2
	each stat 5 74 'qcow2: ' chain-info D.qcow2
	each read 5 74 'D.qcow2: ' chain-info --check D.qcow2
}

# What there is no memory to print is said, and nothing crashes.
testNoMemory()
{
	local n=0 command STEP=4

	make_nth || return 0
	make_snapshot_chain
	for command in --json --dot ""; do
		# shellcheck disable=SC2086 # words
		run chain-info $command D.qcow2
		cp "$WORK/out" wanted
		n=0
		# shellcheck disable=SC2086
		while struck memory $((n += STEP)) 12 chain-info $command D.qcow2; do
			if [ "$STATUS" = 0 ]; then
				cmp -s "$WORK/out" wanted ||
					fail "chain-info $command, memory $n: another output"
			else
				assertEquals "chain-info $command, memory $n" 74 "$STATUS"
				assert_one_error
			fi
		done
		assertTrue "it takes memory $n times" "[ $n -gt 20 ]"
	done
	each memory 12 74 'memory|allocate' chain-snapshot D.qcow2 E.qcow2
}

# shellcheck disable=SC1091
. shunit2
