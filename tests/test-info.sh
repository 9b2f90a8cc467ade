#!/bin/bash
# SPDX-License-Identifier: MIT
#
# chain-info: table, columns, maps, verdicts, broken chains, images in use.
# shellcheck source=lib.sh disable=SC1091
. "$(dirname "$0")/lib.sh"

testTable()
{
	make_chain
	assert_status 0 chain-info D.qcow2
	assertEquals 5 "$(wc -l <"$WORK/out")"
	assert_out '^IMAGE +FORMAT +SIZE +DISK +CLUSTER +FLAGS'
	assert_out '^`-C.qcow2 +qcow2 +5 MiB'
	assert_out '^    `-A.qcow2'
	assert_status 0 chain-info -n -b -o image,size D.qcow2
	assertEquals 4 "$(wc -l <"$WORK/out")"
	assert_out '^D.qcow2 +5242880$'
	assert_status 0 chain-info -n -b -o OWN,visible,IMAGE D.qcow2
	# A: 3 MiB, less what B's 1 MiB of data and 512 KiB of zeros, C and D hide
	assert_out '^3145728 +[0-9]+ +.*A.qcow2'
	assert_out '^1048576 +[0-9]+ +.*B.qcow2'
	assert_status 0 chain-info -o help
	assert_out '^VISIBLE '
	assert_status 64 chain-info -o nonsense D.qcow2
	assert_status 64 chain-info
	assert_status 64 chain-info --map --check D.qcow2
}

# A line for each image, so that the lines can be counted, also where nothing is to be said.
testEmptyLines()
{
	new A.qcow2 1M
	over B.qcow2 A.qcow2
	over C.qcow2 B.qcow2
	assert_status 0 chain-info -n -o backing A.qcow2
	assertEquals '$' "$(sed -n l "$WORK/out")"
	assert_status 0 chain-info -n -o backing C.qcow2
	assertEquals 'B.qcow2$ A.qcow2$ $' "$(sed -n l "$WORK/out" | paste -sd ' ')"
	assert_status 0 chain-info -n -o backing A.qcow2 B.qcow2
	assertEquals '$ A.qcow2$ $' "$(sed -n l "$WORK/out" | paste -sd ' ')"
	assert_status 0 chain-info -o backing A.qcow2
	assertEquals 'BACKING$ $' "$(sed -n l "$WORK/out" | paste -sd ' ')"
}

# What qemu-img map says of data, summed by depth
testVisible()
{
	make_chain
	qemu-img map --output=json D.qcow2 >"$WORK/q"
	assert_status 0 chain-info -v --json D.qcow2
	# a cluster of data in a layer may have been written only partly: QEMU looks for holes
	# in the file, we do not
	assertEquals "$(jq -c '[group_by(.depth)[] | [.[] | select(has("offset")) | .length] | add]' "$WORK/q")" \
		"$(jq -c '[.[]."visible-bytes"]' "$WORK/out")"
}

testMap()
{
	make_chain
	assert_status 0 chain-info --map --json D.qcow2
	assertEquals 5242880 "$(jq '[.[].length] | add' "$WORK/out")"
	assertEquals true "$(jq '[., .[1:]] | transpose | map(select(.[1]))
		| all(.[0].start + .[0].length == .[1].start)' "$WORK/out")"
	# each byte of data is where the map says
	qemu-img convert -O raw D.qcow2 raw
	jq -r '.[] | select(.data) | "\(.start) \(.length) \(.offset) \(.filename)"' "$WORK/out" |
		while read -r start length offset file; do
			cmp -s -n "$length" -i "$start:$offset" raw "$file" || echo differs
		done >"$WORK/differs"
	assertEquals '' "$(cat "$WORK/differs")"
	assert_status 0 chain-info --map D.qcow2
	assert_out '^ +START +LENGTH +DEPTH +KIND +OFFSET +FILE'
	tail -n +2 "$WORK/out" >lines
	assert_status 0 chain-info --map -b -n D.qcow2
	assertEquals "$(cat lines)" "$(cat "$WORK/out")"
}

# As everywhere in JSON, what is no UTF-8 is told in a field of its own; of a data file, too.
testMapOfNoUtf8()
{
	new $'A\xff' 1M
	fill $'A\xff' 1 0 64k
	over B.qcow2 $'A\xff' -o data_file=$'data\xfe'
	fill B.qcow2 2 512k 64k
	assert_status 0 chain-info --map --json B.qcow2
	assertEquals '[["A�","A\\xff"],["data�","data\\xfe"]]' "$(jq -c '[.[] | select(.data) |
		[.filename, ."filename-escaped"] | map(split("/")[-1])]' "$WORK/out")"
	assert_status 0 chain-info --map --json $'A\xff'
	assertEquals '["A�","A\\xff"]' "$(jq -c '.[0] | [.filename, ."filename-escaped"] |
		map(split("/")[-1])' "$WORK/out")"
	mv $'A\xff' A.qcow2
	assert_status 0 chain-info --map --json A.qcow2
	assertEquals "none but there" false "$(jq '.[0] | has("filename-escaped")' "$WORK/out")"
}

testMapShortAndCompressed()
{
	truncate -s 300k base
	FORMAT=raw over m base 1M
	put m 'write -c -P 3 512k 128k'
	over t m 2M
	assert_status 0 chain-info --map --json t
	assertEquals '[[0,307200,2],[307200,217088,2],[524288,131072,1],[655360,393216,2],[1048576,1048576,1]]' \
		"$(jq -c '[.[] | [.start, .length, .depth]]' "$WORK/out")"
	assertEquals 131072 "$(jq '[.[] | select(.compressed) | .length] | add' "$WORK/out")"
}

# Past the end of a layer that ends with zeros nothing is there any more. For people both read
# zero because of the same layer, and are one line.
testMapZeroUpToTheEnd()
{
	truncate -s 1M raw
	FORMAT=raw over t raw 2M
	new short 1M
	put short 'write -z 512k 512k'
	over u short 2M
	for f in t u; do
		assert_status 0 chain-info --map --json "$f"
		assertEquals "$f" "$(qemu-img map --output=json "$f" |
			jq -c '[.[] | [.start, .length, .present, .zero]]')" \
			"$(jq -c '[.[] | [.start, .length, .present, .zero]]' "$WORK/out")"
	done
	assert_status 0 chain-info --map -n t
	assertEquals "0 2097152 1 zero - raw" "$(xargs <"$WORK/out")"
}

# Whose is which?
testMapOfSeveral()
{
	make_chain
	assert_status 66 chain-info --map --json A.qcow2 nosuch.qcow2 D.qcow2
	assertEquals '[true,false,true]' "$(jq -sc 'map(length > 0)' "$WORK/out")"
	assert_status 66 chain-info --map A.qcow2 nosuch.qcow2 D.qcow2
	assertEquals "A.qcow2: nosuch.qcow2: D.qcow2:" "$(grep ':$' "$WORK/out" | xargs)"
	assert_status 0 chain-info --map D.qcow2
	assert_no_out ':$'
	assert_status 0 chain-info --map -n A.qcow2 D.qcow2
	assert_no_out ':$'
}

testMissing()
{
	make_chain
	mv A.qcow2 away
	assert_status 66 chain-info D.qcow2
	assert_one_error
	assert_err 'A.qcow2: .*\(backing file of B.qcow2\); if it was moved, chain-rebase -u '
	assert_out '`-A.qcow2 .*missing'
	# whoever came by a link from elsewhere is not told to break the image
	mv away A.qcow2
	mkdir cur
	ln -s ../D.qcow2 cur/disk.qcow2
	assert_status 66 chain-info cur/disk.qcow2
	assert_err "^chain-info: cur/C.qcow2: .*\(backing file of cur/disk.qcow2, a symbolic link\); it is there for $PWD/D.qcow2, so name the image that way$"
	mv A.qcow2 away
	assert_status 66 chain-info D.qcow2
	assert_out '`-A.qcow2 .*missing'
	assert_status 66 chain-info --json D.qcow2
	assertEquals '["D.qcow2","C.qcow2","B.qcow2","A.qcow2"]' "$(jq -c '[.[].filename]' "$WORK/out")"
	assertEquals '["missing",66]' "$(jq -c '.[3] | [.state, .status]' "$WORK/out")"
	assert_status 66 chain-info --map D.qcow2
	assert_status 66 chain-info -v D.qcow2
	assert_status 66 chain-info nowhere
	assert_status 66 chain-info --dot D.qcow2
	assert_out 'missing'
	# the others are shown all the same
	mv away A.qcow2
	assert_status 66 chain-info nowhere D.qcow2
	assert_out 'A.qcow2'
}

testLoop()
{
	new a 1M
	over b a
	over c b
	qemu-img rebase -u -b c -F qcow2 a
	for f in a b c; do
		LIMIT=5 assert_status 65 chain-info "$f"
		assert_one_error
		assert_out 'loop'
	done
	qemu-img rebase -u -b ./a -F qcow2 a
	LIMIT=5 assert_status 65 chain-info a
}

testDamaged()
{
	make_chain
	poke B.qcow2 20 00 00 00 40
	assert_status 65 chain-info D.qcow2
	assert_one_error
	assert_out '`-B.qcow2 +qcow2 +5 MiB.*damaged'
	over e A.qcow2
	qemu-img rebase -u -b A.qcow2 -F vmdk e
	assert_status 65 chain-info e
	assert_err 'vmdk'
	mkfifo fifo
	qemu-img rebase -u -b fifo -F qcow2 e
	LIMIT=5 assert_status 65 chain-info e
	qemu-img rebase -u -b nbd://localhost/x -F raw e
	assert_status 65 chain-info e
	assert_out 'nbd://localhost/x .*unsupported'
}

testTruncated()
{
	make_chain
	truncate -s 100000 B.qcow2
	assert_status 65 chain-info D.qcow2
	assert_one_error
	assert_out 'B.qcow2 +qcow2 +5 MiB.*damaged'
	assert_out 'A.qcow2'
	assert_status 65 chain-info -v --json D.qcow2
	assertEquals '[0,null,"damaged",null]' "$(jq -c '[.[0].depth] + [.[1:][].state]' "$WORK/out")"
	assert_status 65 chain-info --map D.qcow2
}

testDataFileMissing()
{
	new a 4M -o data_file=a.raw
	over b a
	rm a.raw
	assert_status 66 chain-info --json b
	assertFalse "a moved data file is no rebase" "grep -q chain-rebase '$WORK/err'"
	assertEquals '[null,"missing"]' "$(jq -c '[.[].state]' "$WORK/out")"
	assertEquals '"a.raw"' "$(jq '.[1]."format-specific".data."data-file"' "$WORK/out")"
	assert_status 66 chain-info -v b
}

# Its tables may be in order, but half of it is not there: what plain chain-info says
testCheckWithoutDataFile()
{
	new a 4M -o data_file=a.raw
	assert_status 0 chain-info --check a
	assert_out '^a: sound, '
	rm a.raw
	assert_status 66 chain-info a
	cp "$WORK/err" said
	for how in '' --json; do
		# shellcheck disable=SC2086
		assert_status 66 chain-info --check $how a
		assertEquals "$(cat said)" "$(cat "$WORK/err")"
		assertEquals "and no verdict" "" "$(cat "$WORK/out")"
	done
}

testProbed()
{
	new a 1M
	over b a
	# no format any more: the extension becomes one that nobody knows
	poke b 112 11 22 33 44
	assert_status 0 chain-info b
	assert_err 'does not say its format'
	assert_out 'a .*probed'
	assert_status 0 chain-info -q b
	assertEquals '' "$(cat "$WORK/err")"
	assert_status 0 chain-info --json b
	assertEquals '[null,true]' "$(jq -c '[.[].probed]' "$WORK/out")"
}

# Figures that no header can have are not known, and a file that is too short is called that.
testNoHeader()
{
	printf 'QFI\373' >four.qcow2
	assert_status 65 chain-info four.qcow2
	assert_one_error
	assert_err 'four.qcow2: is too short for a qcow2 image: .* the file 4$'
	assert_out '^four.qcow2 +qcow2 +- +[0-9.]+ [KMG]?i?B +- +damaged$'
	assert_status 65 chain-info --json four.qcow2
	assertEquals '["damaged",false,false]' \
		"$(jq -c '.[0] | [.state, has("virtual-size"), has("cluster-size")]' "$WORK/out")"
	new a.qcow2 1M
	head -c 80 a.qcow2 >short.qcow2
	assert_status 65 chain-info -o image,size,refbits short.qcow2
	assert_err 'the file ends within its header'
	assert_out '^short.qcow2 1 MiB$'
	poke a.qcow2 20 00 00 00 05
	assert_status 65 chain-info -o image,size,cluster a.qcow2
	assert_out '^a.qcow2 1 MiB +-$'
	assert_status 65 chain-info --json a.qcow2
	assertEquals '[1048576,false]' \
		"$(jq -c '.[0] | [."virtual-size", has("cluster-size")]' "$WORK/out")"
	poke a.qcow2 20 00 00 00 10 ff ff ff ff ff ff ff ff
	assert_status 65 chain-info --json a.qcow2
	assertEquals '[false,65536]' \
		"$(jq -c '.[0] | [has("virtual-size"), ."cluster-size"]' "$WORK/out")"
	# what is no image at all, without a backslash for two
	echo 'no image' >text
	qemu-img create -q -f qcow2 -u -b text -F qcow2 over.qcow2 1M
	assert_status 65 chain-info over.qcow2
	assert_err 'text: is not a qcow2 image: it does not begin with "QFI" and a byte 0xfb'
}

# It would be raw, but its name says that its header is gone: each command asks.
testCalledQcow2()
{
	local f command

	new w.qcow2 1M
	new base 1M
	dd if=/dev/zero of=w.qcow2 bs=4k count=1 conv=notrunc status=none
	: >empty.qcow2
	echo 'no image' >text.QCOW2
	freeze ./*
	for f in w.qcow2 empty.qcow2 text.QCOW2; do
		assert_status 0 chain-info --json "$f"
		assertEquals "$f" '["raw",null]' "$(jq -c '[.[] | .format, .state]' "$WORK/out")"
		assert_one_error
		assert_err "^chain-info: $f: is called qcow2, but .* is it damaged"
		assert_status 0 chain-info -q "$f"
		assertEquals '' "$(cat "$WORK/err")"
		for command in "chain-stream" "chain-rebase -b base" "chain-info --check"; do
			# shellcheck disable=SC2086
			assert_status 65 $command "$f"
			assert_one_error
			assert_err "$f: is called qcow2, but .* is it damaged"
		done
	done
	# a layer of which no header says what it is, too; where it says raw, all is well
	new over.qcow2 1M
	qemu-img rebase -u -b w.qcow2 -F raw over.qcow2
	assert_status 0 chain-info over.qcow2
	assertEquals '' "$(cat "$WORK/err")"
	poke over.qcow2 112 11 22 33 44
	assert_status 0 chain-info over.qcow2
	assert_one_error
	assert_err 'w.qcow2: is called qcow2'
	assert_frozen
}

testInUse()
{
	make_chain
	start sh -c 'sleep 60 | qemu-io -f qcow2 D.qcow2'
	until_true 10 sh -c 'chain-info D.qcow2 | grep -q in-use' || fail 'never in use'
	assert_status 0 chain-info -v D.qcow2
	assert_out 'in-use.*[0-9]+ qemu-io'
	assert_status 0 chain-info -o +holders --json D.qcow2
	assertEquals '[["qemu-io",true],["qemu-io",false]]' \
		"$(jq -c '[.[0,3].holders[] | [.program, .writer]]' "$WORK/out")"
	assert_status 75 chain-info --check D.qcow2
	assert_one_error
}

testCheck()
{
	make_chain
	assert_status 0 chain-info --check D.qcow2
	assert_out '^D.qcow2: sound, '
	assert_status 0 chain-info --check --json D.qcow2 A.qcow2
	for f in D A; do
		qemu-img check --output=json "$f.qcow2"
	done >"$WORK/q"
	assertEquals "$(jq -S -c . "$WORK/q")" "$(jq -S -c . "$WORK/out")"
	truncate -s 5M raw
	assert_status 65 chain-info --check raw
	assert_err 'raw: a raw image has no tables'
	# an entry of the snapshot table that lacks the size of the disk: version 3 asks for it
	new s.qcow2 1M
	qemu-img snapshot -c 1234567890123456 s.qcow2
	assert_status 0 chain-info --check s.qcow2
	poke s.qcow2 $((0x$(peek s.qcow2 64 8) + 39)) 08
	run qemu-img check s.qcow2
	assertEquals 2 "$STATUS"
	assert_status 65 chain-info --check s.qcow2
	assert_err incomplete
}

# What plain chain-info says of a file that is neither qcow2 nor raw
testCheckOfAnotherFormat()
{
	local format

	for format in vmdk vdi vhdx qed luks; do
		if [ $format = luks ]; then
			printf 'LUKS\xba\xbe\0\1' >x.luks
			truncate -s 1M x.luks
		else
			qemu-img create -q -f $format x.$format 1M || fail "create x.$format"
		fi
		assert_status 65 chain-info --check x.$format
		assert_one_error
		assert_err "x.$format: it looks like format \"$format\", which is not supported"
		assertEquals "and no verdict" "" "$(cat "$WORK/out")"
	done
}

testControlCharacters()
{
	name=$'a\033[31m\nb'
	new "$name" 1M
	over o "$name"
	for how in '' -v --map --check --dot; do
		# shellcheck disable=SC2086
		assert_status 0 chain-info $how o "$name"
		assert_no_out $'\033'
	done
	rm "$name"
	assert_status 66 chain-info o
	assert_one_error
	assert_out 'a\\x1b\[31m\\nb'
}

testOutputIsWatched()
{
	make_chain
	for how in '' --json --map --check --dot --watch=0.1 '--watch=0.1 --json'; do
		# shellcheck disable=SC2086
		timeout 20 chain-info $how D.qcow2 >/dev/full 2>"$WORK/err"
		assertEquals "chain-info $how" 74 $?
		assert_err 'No space left on device'
	done
}

# More images than the soft limit on open files allows
testManyLayers()
{
	new 0 1M
	for i in $(seq 1 30); do
		qemu-img create -q -f qcow2 -u -b "$((i - 1))" -F qcow2 "$i" 1M
	done
	ulimit -S -n 20
	assert_status 0 chain-info -o depth,image 30
	assertEquals 32 "$(wc -l <"$WORK/out")"
}

. shunit2
