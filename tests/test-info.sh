#!/bin/bash
# SPDX-License-Identifier: MIT
#
# chain-info: the chain as a tree, as JSON, broken or not; --map, --check, --dot.

# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"

testTree()
{
	make_chain
	assert_status 0 chain-info D.qcow2
	for f in A B C D; do
		assert_out $f.qcow2
	done
	assertEquals "one line per image and a heading" 5 "$(wc -l <"$WORK/out")"
	assertEquals "" "$(cat "$WORK/err")"
}

# superset QEMU OURS: every field of every image, with equal values
superset()
{
	jq -n -e --slurpfile qemu "$1" --slurpfile ours "$2" '
		def within($o): if type == "object" then
				. as $q | ($o | type) == "object" and all(keys[];
					. as $k | $o | has($k)) and all(keys[];
					. as $k | $q[$k] | within($o[$k]))
			elif type == "array" then
				. as $q | ($o | type) == "array" and length == ($o | length) and
					all(range(length); . as $i | $q[$i] | within($o[$i]))
			else . == $o end;
		$qemu[0] | within($ours[0])' >/dev/null
}

# qemu-img info and chain-info of $1
assert_superset()
{
	qemu-img info --backing-chain --output=json "$1" >qemu.json 2>qemu.err ||
		fail "qemu-img info $1: $(cat qemu.err)"
	assert_status 0 chain-info --json "$1"
	cp "$WORK/out" ours.json
	superset qemu.json ours.json || fail "$1: $(diff <(jq -S . qemu.json) <(jq -S . ours.json))"
}

testJsonSuperset()
{
	make_chain
	assert_superset D.qcow2
	assert_superset "$PWD/D.qcow2"
	rm -f ./*.qcow2
	make_chain -o compat=0.10
	assert_superset D.qcow2
	rm -f ./*.qcow2
	make_chain -o extended_l2=on,lazy_refcounts=on,compression_type=zstd,refcount_bits=64
	assert_superset D.qcow2
}

testJsonSupersetOfExtras()
{
	make_chain
	qemu-img snapshot -c s1 D.qcow2
	qemu-img snapshot -c 'another name' D.qcow2
	qemu-img bitmap --add -g 128k D.qcow2 b0
	qemu-img bitmap --add --disable D.qcow2 b1
	assert_superset D.qcow2
	new data.qcow2 2M -o data_file=data.raw,data_file_raw=on
	assert_superset data.qcow2
	head -c 100001 "$(seed_file 1)" >disk.raw
	FORMAT=raw over R.qcow2 disk.raw
	assert_superset R.qcow2
	qemu-img create -q -f qcow2 --object secret,id=s,data=x \
		-o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10 L.qcow2 1M
	assert_superset L.qcow2
	mkdir d
	over d/T.qcow2 ../D.qcow2
	assert_superset d/T.qcow2
	qemu-img create -q -f qcow2 -u -b "json:{\"file.filename\":\"$PWD/D.qcow2\"}" -F qcow2 J.qcow2 5M
	assert_superset J.qcow2
}

testSeveralImages()
{
	make_chain
	assert_status 0 chain-info --json D.qcow2 B.qcow2
	assertEquals "an array a line" 2 "$(wc -l <"$WORK/out")"
	assertEquals "4 2" "$(jq length "$WORK/out" | xargs)"
	assert_status 66 chain-info --json missing.qcow2 B.qcow2
	assertTrue "the good one is shown" "grep -q B.qcow2 '$WORK/out'"
}

# own and visible bytes add up
testOwnAndVisible()
{
	make_chain
	assert_status 0 chain-info -o +own,visible,holders,snapshots,bitmaps D.qcow2
	assert_out A.qcow2
	assert_status 64 chain-info -o nonsense D.qcow2
	assert_status 0 chain-info -v D.qcow2
}

testBroken()
{
	make_chain
	rm B.qcow2
	assert_status 66 chain-info D.qcow2
	assert_out D.qcow2
	assert_out C.qcow2
	assert_out 'B.qcow2.*missing'
	assert_one_error
	assert_status 66 chain-info --json D.qcow2
	assertTrue "JSON" "jq -e '.[0].filename == \"D.qcow2\"' <'$WORK/out' >/dev/null"
}

testLoop()
{
	make_chain
	qemu-img rebase -u -f qcow2 -F qcow2 -b C.qcow2 A.qcow2
	assert_status 65 chain-info D.qcow2
	assert_out A.qcow2
	assert_out loop
	assert_status 65 chain-info --json D.qcow2
	assertTrue "JSON" "jq -e . <'$WORK/out' >/dev/null"
}

# Neighbours of one answer joined, so that how it was cut does not matter
joined()
{
	jq -c 'map({start, length, depth, zero, data, offset}) | reduce .[] as $e ([];
		if length > 0 and (.[-1] as $l | $l.depth == $e.depth and $l.zero == $e.zero and
			$l.data == $e.data and
			(if $l.offset == null then $e.offset == null
			else $e.offset == $l.offset + $l.length end))
		then .[-1].length += $e.length else . + [$e] end) | .[]' "$1"
}

testMap()
{
	local o

	for o in cluster_size=64k compat=0.10 cluster_size=4k extended_l2=on; do
		rm -f ./*.qcow2
		make_chain -o $o
		qemu-img map --output=json D.qcow2 >qemu.json
		assert_status 0 chain-info --map --json D.qcow2
		cp "$WORK/out" ours.json
		assertEquals "$o" "$(joined qemu.json)" "$(joined ours.json)"
	done
	assert_status 0 chain-info --map D.qcow2
	assert_out A.qcow2
}

testCheckSound()
{
	make_chain
	assert_status 0 chain-info --check D.qcow2
	assert_status 0 chain-info --check A.qcow2 B.qcow2
	qemu-img snapshot -c s1 D.qcow2
	fill D.qcow2 9 0 1M
	qemu-img bitmap --add D.qcow2 b0
	assert_status 0 chain-info --check --json D.qcow2
	assertEquals 0 "$(jq '[.. | .leaks? // 0] | add' "$WORK/out")"
}

# Where the refcount of host cluster $2 of $1 lies (16 bits wide, one block)
refcount_at()
{
	local table block

	table=$((16#$(peek "$1" 48 8)))
	block=$((16#$(peek "$1" $table 8)))
	echo $((block + 2 * $2))
}

# --check says what qemu-img check says.
testCheckVerdicts()
{
	local n

	new A.qcow2 2M
	fill A.qcow2 1 0 1M
	n=$(($(bytes A.qcow2) / 65536 - 1))
	# a leak: a refcount too high
	cp A.qcow2 leak.qcow2
	poke leak.qcow2 "$(refcount_at leak.qcow2 $n)" 00 02
	qemu-img check -q leak.qcow2 >/dev/null 2>&1
	assertNotEquals "qemu-img sees it" 0 $?
	run chain-info --check leak.qcow2
	# COPIED promises refcount 1: with the flag set this is corruption for QEMU, too
	qemu-img check --output=json leak.qcow2 >qemu.json 2>/dev/null
	if jq -e '.corruptions // 0 > 0' qemu.json >/dev/null; then
		assertEquals 65 "$STATUS"
	else
		assertEquals 0 "$STATUS"
		assert_out '[Ll]eak'
	fi
	# an unreferenced cluster with a refcount: leaks only
	cp A.qcow2 leak2.qcow2
	truncate -s +65536 leak2.qcow2
	poke leak2.qcow2 "$(refcount_at leak2.qcow2 $((n + 1)))" 00 01
	qemu-img check -q leak2.qcow2 >/dev/null 2>&1
	assertEquals "leaks only" 3 $?
	assert_status 0 chain-info --check leak2.qcow2
	assert_out '[Ll]eak'
	assert_status 0 chain-info --check --json leak2.qcow2
	assert_out '"leaks": ?1'
	# a refcount too low
	cp A.qcow2 low.qcow2
	poke low.qcow2 "$(refcount_at low.qcow2 $n)" 00 00
	qemu-img check -q low.qcow2 >/dev/null 2>&1
	assertEquals "corrupt" 2 $?
	assert_status 65 chain-info --check low.qcow2
}

testDot()
{
	make_chain
	assert_status 0 chain-info --dot D.qcow2
	assert_out '^ *(strict )?digraph'
	assert_out 'D.qcow2'
	assert_out "->"
	if command -v dot >/dev/null; then
		assertTrue "Graphviz reads it" "dot -Tdot <'$WORK/out' >/dev/null"
	fi
	new 'quote".qcow2' 1M
	assert_status 0 chain-info --dot 'quote".qcow2'
}

# Nothing is written, and a read-only look does not need a lock.
testChangesNothing()
{
	make_chain
	touch -d '2001-01-01' ./*.qcow2
	freeze ./*.qcow2
	assert_status 0 chain-info -v D.qcow2
	assert_status 0 chain-info --map D.qcow2
	assert_status 0 chain-info --check D.qcow2
	assert_frozen
	assertEquals 2001 "$(date -r D.qcow2 +%Y)"
	assertEquals "no page" "" "$(ls -A "$CHAIN_RUNTIME_DIR")"
}

testFullStdout()
{
	make_chain
	chain-info D.qcow2 >/dev/full 2>"$WORK/err"
	assertEquals 74 $?
	chain-info --json D.qcow2 >/dev/full 2>"$WORK/err"
	assertEquals 74 $?
}

# A long chain
testDeep()
{
	local i

	new 0.qcow2 1M
	for ((i = 1; i <= 60; i++)); do
		cp 0.qcow2 $i.qcow2
		qemu-img rebase -u -f qcow2 -F qcow2 -b $((i - 1)).qcow2 $i.qcow2
	done
	LIMIT=20 assert_status 0 chain-info --json 60.qcow2
	assertEquals 61 "$(jq length "$WORK/out")"
}

# shellcheck disable=SC1091
. shunit2
