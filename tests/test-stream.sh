#!/bin/bash
# SPDX-License-Identifier: MIT
#
# chain-stream: to a base, by depth, to none.

# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"

testToNone()
{
	make_chain
	freeze A.qcow2 B.qcow2 C.qcow2
	assert_status 0 chain-stream -q D.qcow2
	assertEquals "quiet" "" "$(cat "$WORK/out" "$WORK/err")"
	assert_merged D.qcow2 "$HASH" ""
	rm A.qcow2 B.qcow2 C.qcow2
	assert_content D.qcow2 "$HASH"
}

testToEachBase()
{
	local base

	for base in A B; do
		rm -f ./*.qcow2
		make_chain
		freeze A.qcow2 B.qcow2 C.qcow2
		assert_status 0 chain-stream -q -b $base.qcow2 D.qcow2
		assert_merged D.qcow2 "$HASH" $base.qcow2
		assertEquals qcow2 "$(backing_format D.qcow2)"
		assert_frozen
	done
}

# Swallowed images stay what they were, for the overlays of others.
testOtherOverlays()
{
	local other

	make_chain
	over other.qcow2 C.qcow2
	fill other.qcow2 9 2M 100k
	other=$(content other.qcow2)
	assert_status 0 chain-stream -q -b A.qcow2 D.qcow2
	assert_merged D.qcow2 "$HASH" A.qcow2
	assert_merged other.qcow2 "$other" C.qcow2
}

# --depth=N: the lowest N-1 and the active one remain
testDepth()
{
	local n wanted

	for n in 1 2 3; do
		rm -f ./*.qcow2
		make_chain
		case $n in
		1) wanted= ;;
		2) wanted=A.qcow2 ;;
		3) wanted=B.qcow2 ;;
		esac
		assert_status 0 chain-stream -q --depth=$n D.qcow2
		assert_merged D.qcow2 "$HASH" "$wanted"
		assertEquals "$n" "$(qemu-img info --backing-chain --output=json D.qcow2 | jq length)"
	done
}

# A mistyped base is not hidden by there being nothing to do.
testNothingToDoAndNoBase()
{
	new D.qcow2 1M
	new A.qcow2 1M
	freeze D.qcow2
	assert_status 66 chain-stream -b nosuch.qcow2 D.qcow2
	assert_one_error
	assert_status 64 chain-stream -b D.qcow2 D.qcow2
	assert_one_error
	assert_status 0 chain-stream -b A.qcow2 D.qcow2
	assert_err 'nothing to do: has no backing file'
	assert_frozen
}

testNothingToDo()
{
	make_chain
	freeze ./*.qcow2
	assert_status 0 chain-stream A.qcow2
	assertTrue "it says so" "[ -s '$WORK/out' ] || [ -s '$WORK/err' ]"
	assert_status 0 chain-stream -b C.qcow2 D.qcow2
	assertTrue "it says so" "[ -s '$WORK/out' ] || [ -s '$WORK/err' ]"
	assert_status 0 chain-stream --depth=4 D.qcow2
	assert_status 0 chain-stream --depth=9 D.qcow2
	assert_frozen
}

# A merge of the middle: C becomes D's only other layer's overlay.
testMiddle()
{
	make_chain
	assert_status 0 chain-stream -q -b A.qcow2 C.qcow2
	assert_merged D.qcow2 "$HASH" C.qcow2
	assertEquals A.qcow2 "$(backing C.qcow2)"
}

testThreads()
{
	local j

	for j in 1 2 8; do
		rm -f ./*.qcow2
		make_chain
		assert_status 0 chain-stream -q -j $j D.qcow2
		assert_merged D.qcow2 "$HASH" ""
	done
}

testEmptyOverlays()
{
	local hash

	new A.qcow2 3M
	fill A.qcow2 1 0 2M
	over B.qcow2 A.qcow2
	over C.qcow2 B.qcow2
	hash=$(content C.qcow2)
	assert_status 0 chain-stream -q -b A.qcow2 C.qcow2
	assert_merged C.qcow2 "$hash" A.qcow2
	assertTrue "nothing to copy, nothing copied" "[ $(bytes C.qcow2) -le 393216 ]"
	assert_status 0 chain-stream -q C.qcow2
	assert_merged C.qcow2 "$hash" ""
}

testBackingString()
{
	make_chain
	ln -s A.qcow2 golden.qcow2
	assert_status 0 chain-stream -q -b A.qcow2 --backing-string=golden.qcow2 D.qcow2
	assert_merged D.qcow2 "$HASH" golden.qcow2
}

# The base may be the backing file already, and only its name another one.
testBackingStringOfDirectBase()
{
	local string

	make_chain
	for string in "$PWD/C.qcow2" ./C.qcow2 "file:$PWD/C.qcow2" C.qcow2; do
		freeze D.qcow2
		assert_status 0 chain-stream -n -b C.qcow2 --backing-string="$string" D.qcow2
		assert_out 'would merge 0 images'
		assert_frozen
		assert_status 0 chain-stream -b C.qcow2 --backing-string="$string" D.qcow2
		assertEquals "$string" "" "$(cat "$WORK/out" "$WORK/err")"
		assert_merged D.qcow2 "$HASH" "$string"
		assertEquals qcow2 "$(backing_format D.qcow2)"
		freeze D.qcow2
		assert_status 0 chain-stream -b C.qcow2 --backing-string="$string" D.qcow2
		assert_one_error
		assert_err '^chain-stream: D.qcow2: nothing to do: the header names the base so already$'
		assert_frozen
	done
	assert_status 0 chain-stream --depth=4 --backing-string=./C.qcow2 D.qcow2
	assert_merged D.qcow2 "$HASH" ./C.qcow2
	freeze D.qcow2
	for string in B.qcow2 missing.qcow2; do
		assert_status 64 chain-stream -b C.qcow2 --backing-string=$string D.qcow2
		assert_one_error
		assert_err "^chain-stream: D.qcow2: the backing string \"$string\" does not lead to "
	done
	assert_status 64 chain-stream -b C.qcow2 --backing-string='json:{}' D.qcow2
	assert_one_error
	assert_err '^chain-stream: D.qcow2: --backing-string=json:..: a json: name without'
	assert_status 0 chain-stream -b C.qcow2 D.qcow2
	assert_err 'nothing to do: the base is the direct backing file already$'
	assert_frozen
}

# A string that a reader would resolve to another file is refused before the work.
testWrongBackingString()
{
	make_chain
	cp B.qcow2 other.qcow2
	freeze ./*.qcow2
	run chain-stream -q -b A.qcow2 --backing-string=other.qcow2 D.qcow2
	assertNotEquals "refused" 0 "$STATUS"
	run chain-stream -q -b A.qcow2 --backing-string=missing.qcow2 D.qcow2
	assertNotEquals "refused" 0 "$STATUS"
	assert_frozen
}

testBaseNotInChain()
{
	make_chain
	new X.qcow2 5M
	freeze ./*.qcow2
	assert_status 64 chain-stream -b X.qcow2 D.qcow2
	assert_one_error
	assert_status 64 chain-stream -b D.qcow2 D.qcow2
	assert_status 66 chain-stream -b missing.qcow2 D.qcow2
	assert_frozen
}

# What is merged again gives the same; a merge from the top down and by steps, too.
testBySteps()
{
	make_chain
	assert_status 0 chain-stream -q -b B.qcow2 D.qcow2
	assert_merged D.qcow2 "$HASH" B.qcow2
	assert_status 0 chain-stream -q -b A.qcow2 D.qcow2
	assert_merged D.qcow2 "$HASH" A.qcow2
	assert_status 0 chain-stream -q D.qcow2
	assert_merged D.qcow2 "$HASH" ""
}

testPrintMerged()
{
	make_chain
	assert_status 0 chain-stream -q -b A.qcow2 --print-merged D.qcow2
	assertEquals "$PWD/B.qcow2
$PWD/C.qcow2" "$(sort "$WORK/out")"
	assert_status 0 chain-stream -q --print-merged=0 D.qcow2
	assertEquals "$PWD/A.qcow2" "$(tr '\0' '\n' <"$WORK/out")"
}

testJsonEvents()
{
	make_chain
	assert_status 0 chain-stream --json -b A.qcow2 D.qcow2
	assertTrue "each line is JSON: $(cat "$WORK/out")" "jq -e . <'$WORK/out' >/dev/null"
	assertEquals "completed once" 1 \
		"$(jq -c 'select(.event == "BLOCK_JOB_COMPLETED")' "$WORK/out" | wc -l)"
	assertEquals created "$(jq -r 'select(.event == "JOB_STATUS_CHANGE").data.status' \
		"$WORK/out" | head -n 1)"
	assertEquals null "$(jq -r 'select(.event == "JOB_STATUS_CHANGE").data.status' \
		"$WORK/out" | tail -n 1)"
}

testJsonError()
{
	make_chain
	rm A.qcow2
	run chain-stream --json D.qcow2
	assertEquals 66 "$STATUS"
	assertTrue "JSON or nothing: $(cat "$WORK/out")" "jq . <'$WORK/out' >/dev/null"
	assert_one_error
}

# A guest of a raw disk can make it look like qcow2, which names any file it likes.
testProbedLayers()
{
	make_chain
	# the extension that records the format becomes one that nobody knows
	poke C.qcow2 112 11 22 33 44
	cp D.qcow2 E.qcow2
	assert_status 0 chain-stream -b A.qcow2 D.qcow2
	assert_err '^chain-stream: B.qcow2: no header records its format; it was found by looking at it: qcow2;'
	assert_merged D.qcow2 "$HASH" A.qcow2
	assert_status 0 chain-stream -n E.qcow2
	assert_err '^chain-stream: B.qcow2: no header records its format'
	# it stays where it is
	assert_status 0 chain-stream -b B.qcow2 E.qcow2
	assert_err 'B.qcow2: no header records its format;.*recorded now'
	assert_status 0 chain-stream -b A.qcow2 E.qcow2
	assertEquals "nothing probed" "" "$(cat "$WORK/err")"
	assert_merged E.qcow2 "$HASH" A.qcow2
}

# What the user named is another file by now: it is not merged, and nobody is to remove layers.
testReplacedMeanwhile()
{
	make_slow_chain 8
	cp D.qcow2 new.qcow2
	start chain-stream --rate=4M --print-merged -b A.qcow2 D.qcow2
	merge_runs
	mv D.qcow2 old.qcow2
	mv new.qcow2 D.qcow2
	finish
	assertEquals "$(cat "$WORK/bg.err")" 75 "$STATUS"
	assertEquals "" "$(cat "$WORK/bg.out")"
	assertTrue "grep -q '^chain-stream: D.qcow2: was renamed, removed or replaced' '$WORK/bg.err'"
	assert_content old.qcow2 "$HASH"
	assertEquals B.qcow2 "$(backing old.qcow2)"
	assert_sound old.qcow2
	assert_status 0 chain-stream -q -b A.qcow2 old.qcow2
	assert_merged old.qcow2 "$HASH" A.qcow2
}

# Nor is the header to name a base that is not where it was: it may come back.
testBaseGoneMeanwhile()
{
	local command how

	make_slow_chain 8
	new X.qcow2 16M
	cp D.qcow2 fresh.qcow2
	for command in "chain-stream -b A.qcow2" "chain-rebase -F qcow2 -b X.qcow2"; do
		for how in moved replaced; do
			cp fresh.qcow2 D.qcow2
			# shellcheck disable=SC2086
			start $command --rate=4M D.qcow2
			merge_runs || fail "the merge does not start"
			mkdir away
			mv A.qcow2 X.qcow2 away
			[ $how = moved ] || cp away/* .
			finish
			assertEquals "$command, $how: $(cat "$WORK/bg.err")" 75 "$STATUS"
			assertTrue "$(cat "$WORK/bg.err")" "grep -q \
				'^chain-[a-z]*: [AX].qcow2: was renamed, removed or replaced by another file meanwhile' \
				'$WORK/bg.err'"
			assertEquals "one line" 1 "$(wc -l <"$WORK/bg.err")"
			assertEquals B.qcow2 "$(backing D.qcow2)"
			mv away/* .
			rmdir away
			assert_content D.qcow2 "$HASH"
			# shellcheck disable=SC2086
			assert_status 0 $command -q D.qcow2
			assert_content D.qcow2 "$HASH"
			assert_sound D.qcow2
		done
	done
}

# 40 layers, each with a little
testDeep()
{
	local i hash

	new 0.qcow2 4M
	fill 0.qcow2 1 0 1M
	for ((i = 1; i <= 40; i++)); do
		over $i.qcow2 $((i - 1)).qcow2
		((i % 4)) || fill $i.qcow2 $i $((i * 70))k 64k
	done
	hash=$(content 40.qcow2)
	assert_status 0 chain-stream -q -b 0.qcow2 40.qcow2
	assert_merged 40.qcow2 "$hash" 0.qcow2
	assert_status 0 chain-stream -q 40.qcow2
	assert_merged 40.qcow2 "$hash" ""
}

testFullStdout()
{
	make_chain
	chain-stream -q -b A.qcow2 --print-merged D.qcow2 >/dev/full 2>"$WORK/err"
	assertEquals "a failed write to stdout" 74 $?
	assert_merged D.qcow2 "$HASH" A.qcow2
	# what can be asked for no more is on stderr then
	assert_err "^chain-stream: D.qcow2: left the chain: $PWD/C.qcow2\$"
	assert_err "^chain-stream: D.qcow2: left the chain: $PWD/B.qcow2\$"
	full_stdout merged
	chain-stream -q --json D.qcow2 >/dev/full 2>"$WORK/err"
	full_stdout merged
	chain-rebase -q --json -F qcow2 -b A.qcow2 D.qcow2 >/dev/full 2>"$WORK/err"
	full_stdout rebased
	# a dry run does nothing that could be said
	for o in -q --json; do
		chain-stream $o -n D.qcow2 >/dev/full 2>"$WORK/err"
		assertEquals "$o" 74 $?
		assert_one_error
		assert_err '^chain-stream: standard output: cannot write: No space left on device$'
	done
}

# full_stdout DONE: the last line says that this was done, and what failed
full_stdout()
{
	tail -n 1 "$WORK/err" >last
	assertTrue "$1: $(cat "$WORK/err")" "grep -q \
		': D.qcow2: $1; but standard output: cannot write: No space left on device$' last"
}

# shellcheck disable=SC1091
. shunit2
