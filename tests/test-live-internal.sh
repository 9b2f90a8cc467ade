#!/bin/bash
# SPDX-License-Identifier: MIT
#
# A live merge of an image with internal snapshots: their content survives, the guest's too, and
# what they share is copied once. SEED.

# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=tests/lib-live.sh
. "$TOP/tests/lib-live.sh"
# shellcheck source=tests/lib-kinds.sh
. "$TOP/tests/lib-kinds.sh"

SEED=${SEED:-$RANDOM}

# merge WANTED COMMAND...: while a guest writes a little before and after it
merge_held()
{
	local wanted=$1

	shift
	hold D.qcow2 || return 1
	guest_fill 9 2500k 200k
	assert_status 0 "$@"
	assert_backing D.qcow2 "$wanted"
	# shared with a snapshot by now, and not to be written to in place
	guest_fill 10 600k 700k
	guest 'write -z 1900k 40k' flush 'discard 3000k 128k' flush
	HASH=$(guest_content)
	release
	assert_merged D.qcow2 "$HASH" "$wanted"
	assert_snapshots "$*"
}

to_base_and_to_none()
{
	need_holder || return 1
	rm -f ./*.qcow2
	make_snapshot_chain "$@"
	freeze A.qcow2 B.qcow2 C.qcow2
	merge_held A.qcow2 chain-stream -q -b A.qcow2 D.qcow2
	merge_held "" chain-stream -q D.qcow2
	assert_frozen
}

testToBaseAndToNone()
{
	to_base_and_to_none -o cluster_size=64k || return 0
	rm A.qcow2 B.qcow2 C.qcow2
	assert_snapshots alone
	# QEMU can go back to one, and delete the other
	qemu-img snapshot -a s1 D.qcow2 && qemu-img snapshot -d s2 D.qcow2
	assert_content D.qcow2 "$S1"
	assert_sound D.qcow2
}

testOptions()
{
	local o

	for o in cluster_size=4k cluster_size=512 extended_l2=on extended_l2=on,cluster_size=16k \
		compat=0.10 refcount_bits=2,cluster_size=4k; do
		to_base_and_to_none -o $o || return 0
	done
}

testCompressed()
{
	need_holder || return 0
	make_chain
	pack A.qcow2
	pack B.qcow2
	qemu-img snapshot -c s1 D.qcow2
	fill D.qcow2 7 600k 300k
	qemu-img snapshot -c s2 D.qcow2
	S1=$(snapshot_content D.qcow2 s1)
	S2=$(snapshot_content D.qcow2 s2)
	merge_held "" chain-stream -q D.qcow2
}

testRebaseAndVerify()
{
	need_holder || return 0
	make_snapshot_chain -o cluster_size=64k
	new X.qcow2 5M
	fill X.qcow2 1 0 1M
	fill X.qcow2 9 2M 3M
	merge_held X.qcow2 chain-rebase -q --verify -b X.qcow2 D.qcow2
}

# The disk was larger, and smaller, when the snapshots were made.
testOtherSizes()
{
	local o

	need_holder || return 0
	for o in cluster_size=64k extended_l2=on,cluster_size=16k cluster_size=1k; do
		rm -f ./*.qcow2
		make_chain -o $o
		qemu-img snapshot -c s1 D.qcow2
		qemu-img resize -q --shrink D.qcow2 4M
		fill D.qcow2 8 2M 100k
		qemu-img snapshot -c s2 D.qcow2
		qemu-img resize -q --shrink D.qcow2 2M
		S1=$(applied s1)
		S2=$(applied s2)
		hold D.qcow2 || return 0
		guest_fill 9 900k 200k
		assert_status 0 chain-stream -q -b A.qcow2 D.qcow2
		assert_status 0 chain-stream -q D.qcow2
		HASH=$(guest_content)
		release
		assert_merged D.qcow2 "$HASH" ""
		assertEquals "$o: s1" "$S1" "$(applied s1)"
		assertEquals "$o: s2" "$S2" "$(applied s2)"
	done
}

# One copy for all of them and the guest; what is cloned or moved compressed, too.
testShared()
{
	local i size

	need_holder || return 0
	make_chain
	for i in 1 2 3 4 5 6; do
		qemu-img snapshot -c s$i D.qcow2
	done
	S1=$(snapshot_content D.qcow2 s1)
	S2=$(snapshot_content D.qcow2 s6)
	HASH=$(content D.qcow2)
	hold D.qcow2 || return 0
	assert_status 0 chain-stream -q D.qcow2
	release
	assert_merged D.qcow2 "$HASH" ""
	assertEquals "$S1" "$(snapshot_content D.qcow2 s1)"
	assertEquals "$S2" "$(snapshot_content D.qcow2 s6)"
	size=$(bytes D.qcow2)
	assertTrue "file of $size" "[ $size -le 9437184 ]"
}

# loaded KIND...: a guest that knows what it wrote, and a merge to a base, then to none
loaded()
{
	local load

	need_holder || return 1
	rm -f ./*.qcow2 before merged
	make_snapshot_chain "$@"
	flat before
	hold D.qcow2 || return 1
	"$TOP/tests/live-load" run --initial before --seed "$SEED" --seconds 300 \
		--until merged --final after "$NBD" 2>load.err &
	load=$!
	later "kill -9 $load"
	until_true 10 grep -q begins load.err
	assert_status 0 chain-stream -q --rate=2M -b A.qcow2 D.qcow2
	assert_status 0 chain-stream -q --rate=2M D.qcow2
	assertEquals "still under load" "" "$(grep -v begins load.err)"
	touch merged
	wait $load
	STATUS=$?
	assertEquals "$*, seed $SEED: the load: $(tail -n 3 load.err)" 0 $STATUS
	release
	assert_merged D.qcow2 "$(checksum <after)" ""
	assert_snapshots "$* under load"
}

testUnderLoad()
{
	loaded -o cluster_size=64k || return 0
	loaded -o cluster_size=2k
	loaded -o extended_l2=on,cluster_size=16k
}

# kill -9 of either: content as it was, leaks at worst, and the next merge ends it.
testKilled()
{
	local who round

	need_holder || return 0
	for who in holder worker; do
		for round in 1 2 3; do
			rm -f ./*.qcow2
			make_snapshot_chain -o cluster_size=4k
			hold D.qcow2 || return 0
			guest_fill 9 2500k 20k
			HASH=$(guest_content)
			start chain-stream -q --rate=3M D.qcow2
			sleep "0.$((RANDOM % 9 + 1))"
			if [ $who = holder ]; then
				kill_holder
				finish
				assert_leaks_at_worst D.qcow2
			else
				kill -9 "$PID"
				finish 2>/dev/null
				assert_status 0 chain-stream -q D.qcow2
				release
			fi
			assert_snapshots "$who killed, round $round"
			assert_status 0 chain-stream -q D.qcow2
			assert_merged D.qcow2 "$HASH" ""
			assert_snapshots "$who killed, round $round, resumed"
		done
	done
}

# A snapshot's L2 table lies in zeros of the guest's: nothing is written there.
testTableInData()
{
	local l1 to

	need_holder || return 0
	make_snapshot_chain
	put D.qcow2 'write -P 0 3M 64k'
	l1=$((16#$(peek D.qcow2 $((16#$(peek D.qcow2 64 8))) 8)))
	to=$(qemu-img map --output=json D.qcow2 | jq '.[] | select(.start <= 3145728 and
		.start + .length > 3145728) | .offset + 3145728 - .start')
	# shellcheck disable=SC2046 # bytes
	poke D.qcow2 "$l1" 80 $(printf '%014x' "$to" | fold -w 2)
	HASH=$(content D.qcow2)
	hold D.qcow2 || return 0
	assert_status 65 chain-stream -q D.qcow2
	assert_err 'data of the guest and a table both lie at'
	assertEquals "the guest's disk" "$HASH" "$(guest_content)"
	release
}

# A cluster that all share has a refcount that counts them.
testTooManyToCount()
{
	need_holder || return 0
	new A.qcow2 4M
	fill A.qcow2 1 0 1M
	over D.qcow2 A.qcow2 -o refcount_bits=1
	qemu-img snapshot -c s1 D.qcow2
	hold D.qcow2 || return 0
	assert_status 65 chain-stream -q D.qcow2
	assert_err 'more internal snapshots than its refcounts can count; merge it at rest'
	release
	assert_status 0 chain-stream -q D.qcow2
	assert_sound D.qcow2
}

# shellcheck disable=SC1091
. shunit2
