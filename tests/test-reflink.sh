#!/bin/bash
# SPDX-License-Identifier: MIT
#
# On a file system with reflinks a merge writes next to nothing.

# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=tests/lib-live.sh
. "$(dirname "$0")/lib-live.sh"
# shellcheck source=tests/lib-stalls.sh
. "$(dirname "$0")/lib-stalls.sh"

# Blocks in use on the file system, in KiB
used()
{
	sync -f "$1"
	df --output=used "$1" | tail -n 1
}

# merges TYPE SIZE
merges()
{
	local before grown

	mkdir m
	mount_new "$1" "$2" m || return 0
	cd m || return 1
	make_slow_chain 48
	before=$(used .)
	assert_status 0 chain-stream --json -b A.qcow2 D.qcow2
	assert_merged D.qcow2 "$HASH" A.qcow2
	grown=$(($(used .) - before))
	assertTrue "reflinked: $(merge_result reflinked)" "[ $(merge_result reflinked) -ge 49000000 ]"
	assertTrue "written: $(merge_result written)" "[ $(merge_result written) -le 503316 ]"
	# the metadata of the file system and of the image: 1 % and a little
	assertTrue "$1 grew by $grown KiB" "[ $grown -le 1536 ]"
	assert_status 0 chain-stream --json D.qcow2
	assert_merged D.qcow2 "$HASH" ""
	rm A.qcow2 B.qcow2
	assert_content D.qcow2 "$HASH"
	# what is odd for reflinks still comes out right
	make_chain -o cluster_size=1k
	assert_status 0 chain-stream -q -b A.qcow2 D.qcow2
	assert_merged D.qcow2 "$HASH" A.qcow2
	rm -f ./*.qcow2
	make_chain -o extended_l2=on
	assert_status 0 chain-stream -q D.qcow2
	assert_merged D.qcow2 "$HASH" ""
	head -c 3000001 "$(seed_file 1)" >disk.raw
	head -c 1000001 "$(seed_file 2)" >>disk.raw
	FORMAT=raw over R.qcow2 disk.raw
	HASH=$(content R.qcow2)
	assert_status 0 chain-stream -q --verify R.qcow2
	assert_merged R.qcow2 "$HASH" ""
}

testXfs()
{
	merges xfs 512M
}

testBtrfs()
{
	merges btrfs 512M
}

# clones COMMAND...: of how many clones a live merge of 48 MiB is made while that runs beside
# it; each clone is slow
clones()
{
	make_slow_chain 48
	hold D.qcow2 || return 1
	start "$@"
	assert_status 0 "${FAULTY[@]}" FAULT_CLONE=20 \
		strace -f -e trace=ioctl -o "$WORK/trace" chain-stream -q -j 1 D.qcow2
	kill "$PID"
	wait "$PID" 2>/dev/null
	assertEquals "$HASH" "$(guest_content)"
	release
	assert_merged D.qcow2 "$HASH" ""
	CLONES=$(grep -c FICLONERANGE "$WORK/trace")
	rm -f ./*.qcow2
}

# While a guest is active one clone takes less, so that its requests do not wait for long.
testGuestIsActive()
{
	local idle

	need_holder || return 0
	need strace || return 0
	make_faults || return 0
	mkdir m
	mount_new xfs 512M m || return 0
	cd m || return 1
	clones sleep 60
	idle=$CLONES
	# shellcheck disable=SC2016 # its own argument
	clones bash -c 'while :; do qemu-io -f raw -c "read 0 4k" "$1"; sleep 0.05; done' - \
		"nbd+unix:///?socket=$WORK/sock"
	assertTrue "$idle clones beside an idle guest" "[ $idle -le 16 ]"
	assertTrue "$CLONES clones beside an active one" "[ $CLONES -ge 32 ]"
	cd ..
}

# scattered THREADS: of how many clones a live merge of D.qcow2 is made
scattered()
{
	hold D.qcow2 || return 1
	assert_status 0 strace -f -e trace=ioctl -o "$WORK/trace" chain-stream -q -j "$1" D.qcow2
	release
	assert_merged D.qcow2 "$HASH" ""
	CLONES=$(grep -c FICLONERANGE "$WORK/trace")
}

# 128 MiB whose neighbours in the file are 613 clusters apart for the guest, on a file system
# of that size.
make_scattered()
{
	local i commands=()

	need_holder || return 1
	need strace || return 1
	mkdir m
	mount_new xfs "$1" m || return 1
	cd m || return 1
	new A.qcow2 128M
	for ((i = 0; i < 2048; i++)); do
		commands+=("write -P $((i % 255 + 1)) $((i * 613 % 2048 * 64))k 64k")
	done
	put A.qcow2 "${commands[@]}"
	over D.qcow2 A.qcow2
	HASH=$(content D.qcow2)
}

# What a layer wrote in any order is shared in the order in which it lies there, beside an idle
# guest too, and however many threads there are.
testScattered()
{
	make_scattered 4G || return 0
	cp D.qcow2 again.qcow2
	scattered 1
	# 4 MiB a call, and a little: a try first, and where the layer's own tables lie
	assertTrue "$CLONES calls" "[ $CLONES -ge 32 ] && [ $CLONES -le 48 ]"
	mv again.qcow2 D.qcow2
	scattered 16
	assertTrue "$CLONES calls of 16 threads" "[ $CLONES -ge 32 ] && [ $CLONES -le 48 ]"
	cd ..
}

# in_the_file N: that many clusters of D.qcow2 are on the disk, at least
in_the_file()
{
	qemu-img map -U --output=json D.qcow2 |
		jq -e "[.[] | select(.depth == 0 and .data).length] | add >= $1 * 65536" >/dev/null
}

# Beside an idle guest, too, what is shared is linked while the rest is cloned.
testLinkedMeanwhile()
{
	prepare
	make_scattered 4G && need_stalls || return 0
	hold D.qcow2 || return 1
	arm worker clones clone /D.qcow2 0 0 20 1 stall 0
	merge chain-stream -q -j 2 D.qcow2
	reached worker clones
	until_true 10 in_the_file 256 || fail "nothing is linked"
	go worker clones
	merge_ends 0
	release
	HOLD_WITH=()
	assert_merged D.qcow2 "$HASH" ""
	cd ..
}

# What clones lease counts against the guest's reserve until they are linked, and what is
# left of the room is no whole number of clusters.
testLittleRoom()
{
	local n room

	make_scattered 560M || return 0
	for n in 1 8; do
		cp D.qcow2 "again-$n.qcow2"
	done
	for n in 1 8; do
		mv "again-$n.qcow2" D.qcow2
		room=$(($(df --output=avail -m . | tail -n 1) - 256))
		assertTrue "room for $room MiB" "[ $room -ge 40 ] && [ $room -le 120 ]"
		scattered "$n"
	done
	cd ..
}

# One clone of --verify, too, takes no more than there is: 200 MiB side by side, and 44 MiB beside
# what is kept for the guest.
testLittleRoomToVerify()
{
	need_holder || return 0
	mkdir m
	mount_new xfs 700M m || return 0
	cd m || return 1
	new A.qcow2 256M
	put A.qcow2 'write -P 1 0 200M'
	over D.qcow2 A.qcow2
	HASH=$(content D.qcow2)
	sync -f .
	fallocate -l $(($(df --output=avail -k . | tail -n 1) - 300 * 1024))K hog
	hold D.qcow2 || return 1
	assert_status 0 chain-stream --json --verify D.qcow2
	assertTrue "reflinked: $(merge_result reflinked)" \
		"[ $(merge_result reflinked) -ge $((200 << 20)) ]"
	assertEquals "$HASH" "$(guest_content)"
	release
	assert_merged D.qcow2 "$HASH" ""
	cd ..
}

# A guest that wakes up beside several items, each of which leases: little room, and threads
# that wait for each other.
testGuestWakesInLittleRoom()
{
	local at i n room row writes

	need_holder || return 0
	need strace || return 0
	make_faults || return 0
	mkdir m
	mount_new xfs 660M m || return 0
	cd m || return 1
	make_slow_chain 200
	room=$(($(df --output=avail -m . | tail -n 1) - 256))
	assertTrue "room for $room MiB" "[ $room -ge 40 ] && [ $room -le 120 ]"
	qemu-img convert -O raw D.qcow2 "$WORK/disk.raw"
	hold D.qcow2 || return 1
	start "${FAULTY[@]}" FAULT_CLONE=100 strace -f -e trace=ioctl -o "$WORK/trace" \
		chain-stream -q -j 8 D.qcow2
	until_true 10 grep -q 'FICLONERANGE.*dest_offset=[1-9]' "$WORK/trace"
	# for so long that each thread has linked a part and waits for its next turn; what is
	# linked is the guest's, and is never cloned again (each place is written once)
	for ((i = 0; i < 48; i++)); do
		writes=()
		for ((n = 0; n < 10; n++)); do
			at=$((i * 10 + n))
			row=$((at / 24))
			at=$(((at % 24 + 2) * 1024 + row * 48))
			writes+=(-c "write -P $((i + 1)) ${at}k 4k")
		done
		qemu-io -f raw "${writes[@]}" -c 'sleep 150' "$NBD" >/dev/null ||
			fail "the guest's write"
		qemu-io -f raw "${writes[@]}" "$WORK/disk.raw" >/dev/null
	done
	finish
	assertEquals "$(cat "$WORK/bg.err")" 0 "$STATUS"
	release
	assert_merged D.qcow2 "$(content "$WORK/disk.raw" raw)" ""
	cd ..
}

# Where the file system does not share after all it is copied, and others share meanwhile.
testRefused()
{
	local live i commands

	make_faults || return 0
	mkdir m
	mount_new xfs 460M m || return 0
	cd m || return 1
	for live in '' live; do
		make_slow_chain 48
		# each MiB of B is a call of its own then
		commands=()
		for ((i = 0; i < 48; i++)); do
			commands+=("write -P 7 $((i * 1024 + 512))k 64k")
		done
		put D.qcow2 "${commands[@]}"
		HASH=$(content D.qcow2)
		[ -z "$live" ] || hold D.qcow2 || return 1
		with_faults FAULT_REFUSE=2 chain-stream --json -j 4 D.qcow2
		assertEquals "$live: $(cat "$WORK/err")" 0 "$STATUS"
		assertTrue "copied: $(merge_result copied)" "[ $(merge_result copied) -ge 4000000 ]"
		assertTrue "reflinked: $(merge_result reflinked)" "[ $(merge_result reflinked) -ge 4000000 ]"
		[ -z "$live" ] || release
		assert_merged D.qcow2 "$HASH" ""
		rm -f ./*.qcow2
	done
	cd ..
}

# reflinked: so many bytes, by the page
reflinked()
{
	chain-info --jobs --json D.qcow2 | jq -e ".[0].reflinked $1" >/dev/null
}

# A guest that wakes up while much is being cloned: from then on it is linked by and by, so that
# who ends the merge does not lose it all.
testGuestWakes()
{
	local reader

	need_holder || return 0
	need strace || return 0
	make_faults || return 0
	mkdir m
	mount_new xfs 1500M m || return 0
	cd m || return 1
	make_slow_chain 48
	hold D.qcow2 || return 1
	start "${FAULTY[@]}" FAULT_CLONE=100 strace -f -e trace=ioctl -o "$WORK/trace" \
		chain-stream -q -j 8 D.qcow2
	until_true 10 grep -q 'FICLONERANGE.*dest_offset=[1-9]' "$WORK/trace"
	# shellcheck disable=SC2016 # its own argument
	bash -c 'while :; do qemu-io -f raw -c "read 0 4k" "$1"; sleep 0.05; done' - "$NBD" \
		>/dev/null 2>&1 &
	reader=$!
	later "kill $reader"
	until_true 20 reflinked '> 0' || fail "nothing is linked"
	assertTrue "linked in parts" "reflinked '< 48 * 1024 * 1024'"
	chain-stream --cancel D.qcow2 || fail "cannot be ended"
	finish
	kill $reader
	release
	assert_content D.qcow2 "$HASH"
	assert_status 0 chain-stream --json D.qcow2
	assertTrue "linked before: $(merge_result reflinked)" \
		"[ $(merge_result reflinked) -le $((46 * 1024 * 1024)) ]"
	assert_merged D.qcow2 "$HASH" ""
	cd ..
}

# The blocks of a file system that shares nothing, that of the base, say nothing about what the
# others can share: what is foretold is what happens.
testBaseElsewhere()
{
	local said

	mkdir m e
	mount_new xfs 512M m || return 0
	mount_new ext4 64M e || return 0
	new e/A.qcow2 64M
	put e/A.qcow2 'write -P 1 0 1M'
	cd m || return 1
	over B.qcow2 ../e/A.qcow2 -o cluster_size=2k
	put B.qcow2 'write -P 2 2k 8M' 'write -P 3 20m 2k' 'write -P 4 30m 6k'
	over D.qcow2 B.qcow2 -o cluster_size=2k
	HASH=$(content D.qcow2)
	assert_status 0 chain-stream -n --json -b ../e/A.qcow2 D.qcow2
	said=$(merge_result reflinked)/$(merge_result copied)
	assert_status 0 chain-stream --json -b ../e/A.qcow2 D.qcow2
	assertEquals "reflinked and copied" "$said" "$(merge_result reflinked)/$(merge_result copied)"
	assert_merged D.qcow2 "$HASH" ../e/A.qcow2
}

# shellcheck disable=SC1091
. shunit2
