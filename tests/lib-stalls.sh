# shellcheck shell=bash disable=SC2034 # WORKER and the like are for the tests
# SPDX-License-Identifier: MIT
#
# Holders and workers that stand still, fail or die at a chosen call: tests/preload/stalls.c
# for test files, after lib.sh and lib-live.sh. HOLD_STALLS and WORKER_STALLS are the two
# folders of rules.
#
#	arm holder first pwrite /D.qcow2 4096 0 0 1 stall 0
#	reached holder first		wait until it stands there
#	go holder first			let it go on
#	disarm holder			no rules any more

prepare()
{
	rm -rf "$WORK/holder" "$WORK/worker"
	mkdir "$WORK/holder" "$WORK/worker"
	HOLD_WITH=()
}

# Why a test is left out. Use as: need_stalls || return 0
need_stalls()
{
	need_holder || return 1
	need cc || return 1
	[ -e "$WORK/stalls.so" ] || cc -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -O2 -shared -fPIC \
		-pthread -o "$WORK/stalls.so" "$TOP/tests/preload/stalls.c" ||
		fail "cannot compile stalls.c"
	WORKER=(env "LD_PRELOAD=$WORK/stalls.so" "STALLS=$WORK/worker")
	HOLD_WITH=(env "LD_PRELOAD=$(holder_preload) $WORK/stalls.so" "STALLS=$WORK/holder")
}

# arm WHO RULE...: one rule, in the words of stalls.c; those that were there go
arm()
{
	local who=$1

	shift
	rm -f "$WORK/$who/$1.here" "$WORK/$who/$1.go"
	echo "$*" >"$WORK/$who/rules.new"
	mv "$WORK/$who/rules.new" "$WORK/$who/rules"
}

disarm()
{
	rm -f "$WORK/$1/rules"
}

reached()
{
	until_true "${3:-10}" test -e "$WORK/$1/$2.here" || fail "the $1 did not get to '$2'"
}

go()
{
	touch "$WORK/$1/$2.go"
}

# merge COMMAND...: in the background, under the rules of the worker
merge()
{
	start "${WORKER[@]}" "$@"
}

# merge_ends STATUS: of what merge started
merge_ends()
{
	finish
	assertEquals "status of the merge: $(cat "$WORK/bg.err")" "$1" "$STATUS"
}

# guest_begins QEMU-IO-COMMAND...: a guest that may have to wait, in the background
guest_begins()
{
	local commands=() c

	for c in "$@"; do
		commands+=(-c "$c")
	done
	qemu-io -f raw "${commands[@]}" "$NBD" >"$WORK/guest.bg" 2>&1 &
	GUEST=$!
	later "kill -9 $GUEST"
}

# What it was told, in $WORK/guest.bg
guest_ends()
{
	wait "$GUEST" 2>/dev/null
}

guest_ends_well()
{
	guest_ends
	! grep -qi 'fail\|error' "$WORK/guest.bg" || fail "the guest: $(cat "$WORK/guest.bg")"
}

# guest_at_once QEMU-IO-COMMAND...: what nothing may hold up, of a guest that is killed then:
# qemu-io flushes when it ends, and after each write without -t writeback
guest_at_once()
{
	local commands=() c pid

	for c in "$@"; do
		commands+=(-c "$c")
	done
	# what the last one said must not count before this one begins
	: >"$WORK/guest"
	stdbuf -oL qemu-io -t writeback -f raw "${commands[@]}" "$NBD" >"$WORK/guest" 2>&1 &
	pid=$!
	later "kill -9 $pid"
	# shellcheck disable=SC2016
	until_true 5 bash -c '[ "$(grep -c "bytes at offset" "$0")" = "$1" ]' \
		"$WORK/guest" $# || fail "the guest waits: $(cat "$WORK/guest")"
	kill -9 $pid
	wait $pid 2>/dev/null
}

# both QEMU-IO-COMMAND...: by the guest, and to the oracle, other.qcow2
both()
{
	guest "$@"
	oracle "$@"
}

# What a guest trims reads zero.
oracle()
{
	put other.qcow2 "${@/#discard/write -z}"
}

# A <- B <- D: 2 MiB of data in B that D lacks, a fresh oracle other.qcow2 beside. Options
# go to create.
make_race_chain()
{
	rm -f ./*.qcow2 D.data
	new A.qcow2 4M "$@"
	fill A.qcow2 1 0 1M
	over B.qcow2 A.qcow2 "$@"
	fill B.qcow2 2 64k 2M
	over D.qcow2 B.qcow2 "$@"
	HASH=$(content D.qcow2)
	over other.qcow2 B.qcow2 "$@"
}

# assert_disk BACKING: as the oracle, for the guest and, after the holder's end, for all
assert_disk()
{
	HASH=$(content other.qcow2)
	assertEquals "the guest's disk" "$HASH" "$(guest_content)"
	release
	assert_merged D.qcow2 "$HASH" "$1"
}
