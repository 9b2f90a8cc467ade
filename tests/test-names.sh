#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Names with odd characters, and the strings that headers hold.

# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"

# merge_with NAME: a base and a swallowed layer of that name
merge_with()
{
	local name=$1

	rm -rf d
	mkdir d
	new "d/$name-A" 2M
	fill "d/$name-A" 1 0 1M
	over "d/$name-B" "$PWD/d/$name-A"
	fill "d/$name-B" 2 512k 1M
	over "d/$name-D" "$PWD/d/$name-B"
	HASH=$(content "d/$name-D")
	assert_status 0 chain-stream -q -b "d/$name-A" "d/$name-D"
	assert_merged "d/$name-D" "$HASH" "$PWD/d/$name-A"
	assert_status 0 chain-info "d/$name-D"
	assert_status 0 chain-stream -q "d/$name-D"
	assert_merged "d/$name-D" "$HASH" ""
}

testSpace()
{
	merge_with 'two words and  more '
}

testUtf8()
{
	merge_with 'Größe-日本'
}

# What a header says is nobody's wrong usage: 66, there can be no such file.
testTooLong()
{
	local long

	long=$(printf 'a%.0s' {1..300})
	new N.qcow2 1M
	qemu-img create -q -f qcow2 -u -b "$long" -F qcow2 D.qcow2 1M
	for command in chain-info "chain-stream -q" "chain-rebase -q -b N.qcow2 -F qcow2" \
		chain-snapshot; do
		# shellcheck disable=SC2086
		set -- $command D.qcow2
		[ "$command" = chain-snapshot ] && set -- "$@" E.qcow2
		assert_status 66 "$@"
		assert_one_error
		assertFalse "[ -e E.qcow2 ]"
	done
	# the same of an external data file
	new X.qcow2 1M -o data_file=0123456789
	poke X.qcow2 116 00 00 01 2c
	printf %s "$long" | dd of=X.qcow2 bs=1 seek=120 conv=notrunc status=none
	assert_status 66 chain-info X.qcow2
	assert_one_error
}

testShellCharacters()
{
	merge_with "it's \$HOME \"*?;&|<>(){}[]"
}

testNewline()
{
	merge_with $'line\nbreak\ttab'
	new $'bad\n\033[31m.qcow2' 1M
	assert_status 0 chain-info $'bad\n\033[31m.qcow2'
	assertFalse "no escape reaches the terminal" "grep -q \$'\\033' '$WORK/out'"
	printf 'x' >$'bad\n\033[31m.img'
	run chain-stream $'missing\n\033[31m.img'
	assertFalse "no escape in an error" "grep -q \$'\\033' '$WORK/err'"
	assert_one_error
}

# Two that differ in a byte which is no UTF-8 are told apart, as in chain-info, and from one
# that is named as such a byte is shown.
testJsonOfNoUtf8()
{
	new $'A\xff' 1M
	over $'B\xff' $'A\xff'
	fill $'B\xff' 1 0 100k
	over $'B\xfe' $'B\xff'
	over 'B\xfe' $'B\xfe'
	over $'D\xff' 'B\xfe'
	assert_status 0 chain-stream --json -b $'A\xff' $'D\xff'
	assertEquals '["B\\xfe","B�","B�"]' "$(merge_result swallowed |
		jq -c 'map(split("/")[-1])')"
	assertEquals '["B\\\\xfe","B\\xfe","B\\xff"]' "$(merge_result swallowed-escaped |
		jq -c 'map(split("/")[-1])')"
	assertEquals '"D�" "D\\xff" "A�" "A\\xff"' "$(merge_result device) \
$(merge_result device-escaped) $(merge_result backing-filename) \
$(merge_result backing-filename-escaped)"
	assertEquals '"D�" "D\\xff"' "$(jq 'select(.event == "JOB_STATUS_CHANGE").data |
		.id, ."id-escaped"' "$WORK/out" | head -n 2 | paste -sd ' ')"
	assertEquals '"D�" "D\\xff"' "$(jq 'select(.event == "BLOCK_JOB_COMPLETED").data |
		.device, ."device-escaped"' "$WORK/out" | paste -sd ' ')"
	assert_status 66 chain-stream --json $'E\xff'
	assert_out '"error":"E�: '
	assert_out '"error-escaped":"E\\\\xff: '
	# the others are as they are
	over E.qcow2 $'A\xff'
	assert_status 0 chain-stream --json -n E.qcow2
	assertEquals null "$(merge_result device-escaped)"
}

testLeadingDash()
{
	mkdir d
	cd d || return 1
	new -A.qcow2 1M
	fill ./-A.qcow2 1 0 1M
	over -B.qcow2 ./-A.qcow2
	over -D.qcow2 ./-B.qcow2
	HASH=$(content ./-D.qcow2)
	assert_status 0 chain-stream -q -b -A.qcow2 -- -D.qcow2
	assert_content ./-D.qcow2 "$HASH"
	assert_sound ./-D.qcow2
}

# any ':' before the first '/' is a protocol: a file a:b is written ./a:b
testColon()
{
	local hash

	new ./a:b.qcow2 2M
	fill ./a:b.qcow2 1 0 1M
	over B.qcow2 ./a:b.qcow2
	over D.qcow2 B.qcow2
	hash=$(content D.qcow2)
	assert_status 0 chain-stream -q -b a:b.qcow2 D.qcow2
	assert_merged D.qcow2 "$hash" ./a:b.qcow2
	assert_status 0 chain-snapshot ./D.qcow2 ./x:y.qcow2
	assert_status 0 chain-snapshot ./x:y.qcow2 ./z.qcow2
	assert_content z.qcow2 "$hash"
	new E.qcow2 2M
	assert_status 0 chain-rebase -q -F qcow2 -b a:b.qcow2 E.qcow2
	assertEquals ./a:b.qcow2 "$(backing E.qcow2)"
}

# Relative strings are against the overlay's folder, wherever the command runs.
testRelativeFromElsewhere()
{
	mkdir -p run/deep base
	(
		cd base && new A.qcow2 2M && fill A.qcow2 1 0 2M
		cd ../run || exit
		over B.qcow2 ../base/A.qcow2
		over deep/D.qcow2 ../B.qcow2
	)
	fill run/B.qcow2 2 1M 100k
	HASH=$(content run/deep/D.qcow2)
	assert_status 0 chain-stream -q -b base/A.qcow2 run/deep/D.qcow2
	assert_merged run/deep/D.qcow2 "$HASH" ../../base/A.qcow2
}

# The layers lie in one folder, the active image in another.
testReanchor()
{
	mkdir layers vm
	new layers/A.qcow2 2M
	fill layers/A.qcow2 1 0 2M
	(cd layers && over B.qcow2 A.qcow2)
	over vm/D.qcow2 ../layers/B.qcow2
	HASH=$(content vm/D.qcow2)
	cd vm || return 1
	assert_status 0 chain-stream -q -b ../layers/A.qcow2 D.qcow2
	assert_merged D.qcow2 "$HASH" ../layers/A.qcow2
}

testAbsoluteStaysAbsolute()
{
	new A.qcow2 2M
	fill A.qcow2 1 0 2M
	over B.qcow2 "$PWD/A.qcow2"
	over D.qcow2 B.qcow2
	HASH=$(content D.qcow2)
	assert_status 0 chain-stream -q -b A.qcow2 D.qcow2
	assert_merged D.qcow2 "$HASH" "$PWD/A.qcow2"
}

# Which layer is meant is decided by inode, not spelling. (A relative string counts from the
# folder that the image was named in, for QEMU and for us, so the link to D lies beside it.)
testSymlinks()
{
	make_chain
	mkdir links
	ln -s ../A.qcow2 links/base
	ln -s D.qcow2 top
	assert_status 0 chain-stream -q -b links/base top
	assert_merged D.qcow2 "$HASH" A.qcow2
	assertTrue "the link is still one" "[ -L top ]"
}

testHardLink()
{
	make_chain
	ln A.qcow2 same.qcow2
	assert_status 0 chain-stream -q -b ./same.qcow2 D.qcow2
	assert_content D.qcow2 "$HASH"
	assertEquals A.qcow2 "$(backing D.qcow2)"
}

testFileProtocol()
{
	new A.qcow2 2M
	fill A.qcow2 1 0 2M
	over B.qcow2 "file:$PWD/A.qcow2"
	over D.qcow2 "file:$PWD/B.qcow2"
	HASH=$(content D.qcow2)
	assert_status 0 chain-info D.qcow2
	assert_status 0 chain-stream -q -b A.qcow2 D.qcow2
	assert_content D.qcow2 "$HASH"
	assert_sound D.qcow2
}

testJsonNames()
{
	local string

	for string in "json:{\"driver\":\"qcow2\",\"file\":{\"driver\":\"file\",\"filename\":\"$PWD/A.qcow2\"}}" \
		"json:{\"file.filename\":\"$PWD/A.qcow2\"}" \
		"json:{\"driver\":\"qcow2\",\"file.driver\":\"file\",\"file.filename\":\"$PWD/A.qcow2\"}"; do
		rm -f ./*
		new A.qcow2 2M
		fill A.qcow2 1 0 2M
		qemu-img create -q -f qcow2 -u -b "$string" -F qcow2 B.qcow2 2M
		fill B.qcow2 2 0 100k
		over D.qcow2 B.qcow2
		HASH=$(content D.qcow2)
		assert_status 0 chain-info D.qcow2
		assert_status 0 chain-stream -q -b A.qcow2 D.qcow2
		assert_content D.qcow2 "$HASH"
		assert_sound D.qcow2
		assertEquals "copied verbatim" "$string" "$(info D.qcow2 |
			jq -r '."backing-filename"')"
		assert_status 0 chain-stream -q D.qcow2
		assert_merged D.qcow2 "$HASH" ""
	done
}

# A long name fits or is refused before the work.
testLongNames()
{
	local dir i

	dir=$PWD
	for i in 1 2 3; do
		dir=$dir/$(printf 'x%.0s' {1..200})
	done
	mkdir -p "$dir"
	new "$dir/A.qcow2" 1M
	fill "$dir/A.qcow2" 1 0 1M
	over B.qcow2 "$dir/A.qcow2"
	over D.qcow2 B.qcow2
	HASH=$(content D.qcow2)
	assert_status 0 chain-stream -q -b "$dir/A.qcow2" D.qcow2
	assert_merged D.qcow2 "$HASH" "$dir/A.qcow2"

	rm -f B.qcow2 D.qcow2
	over B.qcow2 "$dir/A.qcow2" -o cluster_size=64k
	over D.qcow2 B.qcow2 -o cluster_size=512
	HASH=$(content D.qcow2)
	freeze D.qcow2
	run chain-stream -q -b "$dir/A.qcow2" D.qcow2
	assertNotEquals "no room in a cluster of 512 bytes" 0 "$STATUS"
	assert_one_error
	assert_frozen
}

# The mark that a merge puts into the header takes room, too, and may move the old name to where
# the new one would go.
testLongNameAndMark()
{
	local dir old new length

	dir=$PWD/$(printf 'x%.0s' {1..200})
	mkdir "$dir"
	for length in 350 400 450; do
		rm -f ./*.qcow2 "$dir"/*
		new=$dir/$(printf 'y%.0s' $(seq $((length - ${#dir} - 1))))
		old=$dir/$(printf 'z%.0s' $(seq $((length - ${#dir} - 51))))
		new "$new" 1M
		fill "$new" 1 0 1M
		over "$old" "$new"
		fill "$old" 2 0 64k
		over D.qcow2 "$old" -o cluster_size=1k
		HASH=$(content D.qcow2)
		freeze D.qcow2
		run chain-stream -n -q -b "$new" D.qcow2
		assert_frozen
		if [ "$STATUS" = 0 ]; then
			assert_status 0 chain-stream -q -b "$new" D.qcow2
			assert_merged D.qcow2 "$HASH" "$new"
		else
			assert_err 'has room for'
			assert_status 64 chain-stream -q -b "$new" D.qcow2
			assert_frozen
		fi
	done
}

# A name may stand anywhere in the first cluster, behind any extensions.
testFarName()
{
	local at end rest

	new A.qcow2 1M
	fill A.qcow2 1 0 1M
	for at in 0fd0 0ffc 1000 8000 fe00; do
		rm -f B.qcow2 D.qcow2
		over B.qcow2 A.qcow2
		# an extension of an unknown type up to the name, which moves
		poke B.qcow2 8 00 00 00 00 00 00 ${at:0:2} ${at:2}
		end=$(((0x$at & ~7) - 8))
		rest=$(printf %04x $((end - 120)))
		poke B.qcow2 112 de ad be ef 00 00 "${rest:0:2}" "${rest:2}"
		poke B.qcow2 $end 00 00 00 00 00 00 00 00
		printf A.qcow2 | dd of=B.qcow2 bs=1 seek=$((0x$at)) conv=notrunc status=none
		assert_status 0 chain-info --json B.qcow2
		assertEquals "the name at 0x$at" A.qcow2 \
			"$(jq -r '.[0]."backing-filename"' "$WORK/out")"
		FORMAT=qcow2 over D.qcow2 B.qcow2
		HASH=$(content D.qcow2)
		assert_status 0 chain-stream -q -b A.qcow2 D.qcow2
		assert_merged D.qcow2 "$HASH" A.qcow2
	done
}

testDryRunKeepsNames()
{
	make_chain
	freeze D.qcow2
	assert_status 0 chain-stream -n -b A.qcow2 D.qcow2
	assert_frozen
}

# shellcheck disable=SC1091
. shunit2
