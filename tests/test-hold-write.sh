#!/bin/bash
# SPDX-License-Identifier: MIT
#
# What a guest wrote is there: while it is served, after the end, after kill -9 as far as it
# was flushed; the image is sound, internal snapshots and layers are as they were, and space
# comes back. SECONDS_EACH: how long each load runs; SEED.

# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=tests/lib-live.sh
. "$TOP/tests/lib-live.sh"
# shellcheck source=tests/lib-kinds.sh
. "$TOP/tests/lib-kinds.sh"

EACH=${SECONDS_EACH:-1.5}
SEED=${SEED:-$RANDOM}

# load [OPTION...]: a load on the held image, whose content before is in the file `before`
load()
{
	LIMIT=60 run "$TOP/tests/live-load" run --initial before --seed "$SEED" \
		--seconds "$EACH" --final after "$@" "$NBD"
	assertEquals "$WHAT: load: $(tail -n 3 "$WORK/err")" 0 "$STATUS"
}

flat()
{
	qemu-img convert -U -O raw D.qcow2 "$1" || fail "convert: $WHAT"
}

# takes KIND...: loads, one after the other, on a chain of that kind
takes()
{
	need_holder || return 0
	for WHAT in "$@"; do
		make_kind "$WHAT"
		flat before
		# shellcheck disable=SC2046 # names without spaces
		freeze $(layers)
		hold D.qcow2 || return 0
		load
		mv after before
		load --align 4096
		guest flush
		assertEquals "$WHAT: while it is held" "$(sha256sum <after)" "$(content D.qcow2)"
		release
		assert_content D.qcow2 "$(sha256sum <after)"
		assert_sound D.qcow2
		assert_frozen
		[[ $WHAT = snapshots* ]] || continue
		assertEquals "$WHAT: s1" "$S1" "$(snapshot_content D.qcow2 s1)"
		assertEquals "$WHAT: s2" "$S2" "$(snapshot_content D.qcow2 s2)"
	done
}

testPlain()
{
	# shellcheck disable=SC2086
	takes $KINDS_PLAIN
}

testForms()
{
	# shellcheck disable=SC2086
	takes $KINDS_FORM
}

testPacked()
{
	# shellcheck disable=SC2086
	takes $KINDS_PACKED
}

# One request at a time on one connection, and many on many
testConnections()
{
	need_holder || return 0
	WHAT=connections
	make_kind v3
	flat before
	hold D.qcow2 || return 0
	load --connections 1 --depth 1
	mv after before
	load --connections 8 --depth 64
	release
	assert_content D.qcow2 "$(sha256sum <after)"
	assert_sound D.qcow2
}

# What is written on one connection is read on another at once; QEMU's client agrees.
testQemuIsTheGuest()
{
	need_holder || return 0
	make_kind v3
	flat before
	hold D.qcow2 || return 0
	guest 'write -P 1 1000 3000' 'write -z 2000 500' 'write -P 2 1M 2M' \
		'discard 1536k 512k' 'write -z -u 2M 256k' flush
	qemu-io -f raw -c 'write -P 1 1000 3000' -c 'write -z 2000 500' -c 'write -P 2 1M 2M' \
		-c 'write -z 1536k 512k' -c 'write -z 2M 256k' before >/dev/null
	assertEquals "$(sha256sum <before)" "$(guest_content)"
	release
	assert_content D.qcow2 "$(sha256sum <before)"
	assert_sound D.qcow2
}

# --- crashes --------------------------------------------------------------------

# crashes KIND: kill -9 under load again and again, each time on what the last one left
crashes()
{
	local round load

	need_holder || return 0
	make_kind "$1"
	WHAT=$1
	flat before
	# shellcheck disable=SC2046
	freeze $(layers)
	for round in 1 2 3 4; do
		hold D.qcow2 || return 0
		rm -f state load.err
		"$TOP/tests/live-load" run --initial before --seed $((SEED + round)) \
			--seconds 60 --state state "$NBD" 2>load.err &
		load=$!
		later "kill -9 $load"
		until_true 10 grep -q begins load.err
		sleep "0.$((RANDOM % 7 + 2))"
		kill_holder
		wait $load
		STATUS=$?
		assertEquals "$WHAT: the load: $(tail -n 3 load.err)" 3 "$STATUS"
		assert_leaks_at_worst D.qcow2
		flat before
		"$TOP/tests/live-load" check state before 2>check.err ||
			fail "$WHAT, round $round, seed $((SEED + round)): $(cat check.err)"
	done
	# the next one who may write takes the leaks back
	hold D.qcow2
	guest 'write -P 3 0 512' flush
	release
	assert_sound D.qcow2
	assert_frozen
	[[ $WHAT = snapshots* ]] || return 0
	assertEquals "$WHAT: s1" "$S1" "$(snapshot_content D.qcow2 s1)"
	assertEquals "$WHAT: s2" "$S2" "$(snapshot_content D.qcow2 s2)"
}

testKill()
{
	crashes v3
	crashes v2
	crashes c512
}

testKillForms()
{
	crashes extended-16k
	crashes snapshots
	crashes lazy
	crashes packed-active
	crashes data-file
}

# FUA is enough, without a flush.
testForcedWrite()
{
	need_holder || return 0
	make_chain
	hold D.qcow2
	guest 'write -f -P 7 3000k 10k'
	kill_holder
	put D.qcow2 'read -P 7 3000k 10k'
	grep -q 'verification failed' "$WORK/qemu-io" && fail "it is not there"
	assert_leaks_at_worst D.qcow2
}

# Without a flush it is there after a while: the holder commits by itself.
testCommitsByItself()
{
	need_holder || return 0
	make_chain
	hold D.qcow2
	guest 'write -P 7 3000k 10k'
	sleep 3
	kill_holder
	put D.qcow2 'read -P 7 3000k 10k'
	grep -q 'verification failed' "$WORK/qemu-io" && fail "it is not there"
	assert_leaks_at_worst D.qcow2
}

# What a crash left stays as it is under -r, and is mended for one who may write.
testReaderMendsNothing()
{
	need_holder || return 0
	make_chain
	hold D.qcow2
	guest 'write -P 7 0 3M'
	sleep 1.5
	guest 'write -P 8 3M 2M'
	kill_holder
	HASH=$(content D.qcow2)
	freeze ./*.qcow2
	HOLD_FILTERS=(-r)
	hold D.qcow2
	HOLD_FILTERS=()
	assertEquals "with -r" "$HASH" "$(guest_content)"
	release
	hold D.qcow2 readonly=true
	assertEquals "readonly" "$HASH" "$(guest_content)"
	release
	assert_frozen
	hold D.qcow2
	release
	assert_content D.qcow2 "$HASH"
	assert_sound D.qcow2
}

# --- space ----------------------------------------------------------------------

used()
{
	echo $(($(stat -c %b "$1") * 512))
}

uses_less()
{
	[ "$(used "$1")" -lt "$2" ]
}

# trim, and zero, give space back to the file system.
testSpaceComesBack()
{
	local c

	need_holder || return 0
	for c in compat=1.1 compat=0.10 cluster_size=4k extended_l2=on; do
		rm -f ./*.qcow2
		new D.qcow2 64M -o $c
		hold D.qcow2 || return 0
		guest 'write -P 1 0 32M' flush
		assertTrue "$c: it took space" "[ $(used D.qcow2) -ge $((32 << 20)) ]"
		guest 'discard 0 16M' 'write -z -u 16M 16M' flush
		until_true 5 uses_less D.qcow2 $((4 << 20)) || fail "$c: still $(used D.qcow2)"
		guest 'read -P 0 0 64M'
		release
		assert_sound D.qcow2
	done
}

# The file does not grow without end when clusters are written and freed in turns.
testFreedIsUsedAgain()
{
	local i

	need_holder || return 0
	new D.qcow2 64M
	hold D.qcow2
	for i in {1..12}; do
		guest "write -P $i 0 8M" flush "discard 0 8M" flush
		guest "write -P $i 20M 8M" flush "discard 20M 8M" flush
	done
	assertTrue "size $(bytes D.qcow2)" "[ $(bytes D.qcow2) -le $((34 << 20)) ]"
	release
	assert_sound D.qcow2
}

# A disk that is full: the guest's own writes fail, reads go on, and later all is well.
testFull()
{
	need_holder || return 0
	mkdir small
	mount_new tmpfs 24M small || return 0
	new A.qcow2 64M
	fill A.qcow2 1 0 4M
	cp A.qcow2 small
	cd small || return
	over D.qcow2 A.qcow2
	hold D.qcow2 || return 0
	run qemu-io -f raw -c 'write -P 2 0 40M' "$NBD"
	assertTrue "no space is said: $(cat "$WORK/out" "$WORK/err")" \
		"grep -qi 'no space' '$WORK/out' '$WORK/err'"
	guest 'discard 0 64M' flush 'read 0 4M' 'write -P 3 1M 1M' flush 'read -P 3 1M 1M'
	release
	assert_sound D.qcow2
	cd ..
}

# shellcheck disable=SC1091
. shunit2
