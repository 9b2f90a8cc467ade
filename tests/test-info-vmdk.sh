#!/bin/bash
# SPDX-License-Identifier: MIT
#
# chain-info --json of a vmdk says what `qemu-img info` says, and refuses what that refuses.
# shellcheck source=lib.sh disable=SC1091
. "$(dirname "$0")/lib.sh"
# shellcheck source=lib-info.sh disable=SC1091
. "$(dirname "$0")/lib-info.sh"

NEVER=$((16#ffffffff))

# vmdk FILE SIZE TYPE [ARGUMENT...]
vmdk()
{
	local file=$1 size=$2 type=$3

	shift 3
	qemu-img create -q -f vmdk -o "subformat=$type" "$@" -- "$file" ${size:+"$size"} ||
		fail "create $file"
}

# text FILE TYPE LINES: a descriptor; printf's escapes in LINES
text()
{
	# shellcheck disable=SC2059 # the lines are the format
	printf "version=1\nCID=1234abcd\nparentCID=ffffffff\ncreateType=\"$2\"\n$3" >"$1"
}

# le BYTES NUMBER...: little-endian numbers
le()
{
	local bytes=$1 n i out=

	shift
	for n; do
		for ((i = 0; i < bytes; i++)); do
			printf -v out '%s\\x%02x' "$out" $((n >> 8 * i & 255))
		done
	done
	printf %b "$out"
}

zeros()
{
	head -c "$1" /dev/zero
}

# set_le FILE OFFSET BYTES NUMBER
set_le()
{
	le "$3" "$4" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}

# cowd FILE SECTORS GRAIN DIRECTORY WORDS
cowd()
{
	{ printf COWD && le 4 1 3 "$2" "$3" "$4" "$5" && zeros 484 &&
		printf 'CID=1\nparentCID=ffffffff\n'; } >"$1"
}

# se FILE SECTORS
se()
{
	{ le 8 $((16#cafebabe)) $((16#200000001)) "$2" 8 64 0 0 0 0 0 1 1 0 0 0 0 2 1 &&
		zeros 368 && le 8 $((16#cafecafe)) && zeros 504; } >"$1"
}

# Both refuse it, ours at once, for good, and with this state (damaged) and status (65)
refused()
{
	# it dies of some
	bash -c 'ulimit -c 0 -n 1000 && timeout 20 qemu-img info -U -- "$1"; exit' - "$1" \
		>/dev/null 2>&1 && fail "qemu-img info $1 says what it is"
	refused_here "$@"
}

refused_here()
{
	LIMIT=1 assert_status "${3:-65}" chain-info --json -- "$1"
	assert_one_error
	assertEquals "$1: $(cat "$WORK/out")" "vmdk ${2:-damaged} null" \
		"$(jq -r '.[0] | "\(.format) \(.state) \(."virtual-size")"' "$WORK/out")"
}

testKinds()
{
	local kind

	for kind in monolithicSparse monolithicFlat twoGbMaxExtentSparse twoGbMaxExtentFlat \
		streamOptimized; do
		vmdk "$kind" 5G "$kind"
		same "$kind" 65
	done
	vmdk six 3M monolithicSparse -o compat6=on
	same six 65
	vmdk zeroed 3M monolithicSparse -o zeroed_grain=on
	same zeroed 65
	# without a sector it is a cover for its descriptor, of a type that others may not have
	vmdk none 0 monolithicSparse
	refused none unsupported
}

testBacking()
{
	vmdk base 5M monolithicSparse
	vmdk mid "" monolithicSparse -b base -F vmdk
	vmdk top "" twoGbMaxExtentSparse -b mid -F vmdk
	same top 65
	FORMAT=vmdk over q top
	same q 65
	same "$PWD/q" 65
	vmdk odd 5M monolithicFlat
	printf 'parentFileNameHint="base"\n' >>odd
	same odd 65
	vmdk none 5M monolithicFlat
	printf 'parentFileNameHint=""\nparentFileNameHint="base"\n' >>none
	same none 65
}

testNames()
{
	local f

	mkdir -p sub/deeper
	seq 9999 >sub/f
	cp sub/f sub/deeper/
	cp sub/f 'sub/a:b'
	cp sub/f 'sub/with "quote'
	text sub/plain monolithicFlat 'RW 8 FLAT "f" 0\n'
	text sub/dot monolithicFlat 'RW 8 FLAT "./f" 0\n'
	text sub/up monolithicFlat 'RW 8 FLAT "../sub/deeper/f" 0\n'
	text sub/abs monolithicFlat "RW 8 FLAT \"$PWD/sub/f\" 0\n"
	text sub/colon monolithicFlat 'RW 8 FLAT "a:b" 0\n'
	text sub/self monolithicFlat 'RW 8 FLAT "self" 0\n'
	text sub/twice monolithicFlat 'RW 8 FLAT "f" 0\nRW 8 FLAT "f" 8\n'
	for f in plain dot up abs colon self twice; do
		same "sub/$f" 65
		same "./sub/$f" 65
		same "sub/deeper/../$f" 65
		same "$PWD/sub/$f" 65
	done
	cd sub || return
	same plain 65
	same self 65
	same colon 65
	ln -s sub/plain ../link
	refused ../link missing 66
}

# What stands where, as QEMU reads it, which is its own way
testText()
{
	local i lines=('RW 8 FLAT "f" 0' 'RW 8 FLAT "f" 0\r\n' '\n\n \nRW 8 FLAT "f" 0\n\n'
		'RW\n8\nFLAT\n"f"\n0' 'RW 8FLAT"f"0\nRW 8 FLAT "f"0' 'RW 8 VMFS "f' '\tRW +8 VMFS "f"'
		'RW 8 VMFS "f"\nRW 8 ZERO\nRW 8 ZERO "f"\nRDONLY 8 FLAT "f" 0\nNOACCESS 8 ZERO'
		'RW 0 FLAT "f" 0\nRW -8 FLAT "f" 0\nRW 8 VMFS "f"' 'RW 8 VMFS "f"\0RW 8 FLAT "x"'
		'RW 8 VMFS "f"\nRW 8 VMFS ""\nRW x VMFS "f"' 'RW 8 FLAT "f" 99999999999999999999'
		'RW 18014398507384832 FLAT "f" 0' 'RW 8 VMFS "f"\nrw 8 VMFS "f"\nRWX 8 VMFS "f"')

	seq 999 >f
	for i in "${!lines[@]}"; do
		text "$i" vmfs "${lines[i]}"
		same "$i" 65
	done
	text vmfs vmfs 'RW 8 VMFS "f"\n'
	sed 's/$/\r/' vmfs >crlf
	same crlf 65
	sed 's/CID=1234abcd/CID=-1/; s/CID=ffffffff/CID=0x123456789/' vmfs >cids
	same cids 65
	# of the 10240 bytes that are looked at, the last one is the end
	sed '/^parentCID/d' vmfs >short
	printf '#%0*d\nparentCID=1234567\n' $((10239 - 18 - $(bytes short))) 0 >>short
	same short 65
	# of the two that are looked for as "CID", the first counts
	sed '/^CID=/d' vmfs >parent
	same parent 65
	sed 's/^version/# comment\n#\n  \n   \r\nversion/; s/=1$/=3/' vmfs >comments
	same comments 65
	{ cat vmfs && yes '# comment' | head -c 2M && echo 'RW 8 VMFS "f"'; } >long
	same long 65
}

# What is a descriptor at all: of the first sector, or not
testProbe()
{
	local i heads=('version=4\n' 'version=1' '\nversion=1\n' ' version=1\n' 'version=11\n'
		'version=1\r' '# version=1\n' '  \r\r\nversion=1\n' '\0version=1\n' 'VMDK' 'kdmv'
		' ' '#' '\t\nversion=1\n' 'Version=1\n' 'version=1 \n' 'VERSION=1\nversion=1\n')

	for i in "${!heads[@]}"; do
		# shellcheck disable=SC2059 # the head is the format
		printf "${heads[i]}" >"$i"
		refused_raw "$i"
	done
	seq 999 >f
	text x vmfs 'RW 8 VMFS "f"\n'
	{ printf '#%0500d\n' 0 && cat x; } >in
	same in 65
	{ printf '#%0501d\n' 0 && cat x; } >out
	refused_raw out
}

testTextRefused()
{
	local lines

	seq 999 >f
	for lines in '' 'RW 8 FLAT "" 0' 'RW 8 FLAT "f"' 'RW 8 FLAT "f" -1' 'RW 8 VMFS "f" 0' \
		'RW 8 SPARSE "f"\n0' 'RW 8 ZERO "f" 0' 'RW 18014398507384833 VMFS "f"' \
		'RW 99999999999999999999 VMFS "f"' 'RW 9007199254740992 VMFS "f"\nRW 9007199254740992 VMFS "f"' \
		'RW 8 VMFS "f"\nparentFileNameHint="f\n' 'RW 8 SPARSE "f"' 'RW 8 VMFSSPARSE "f"' \
		'RW 8 SESPARSE "f"' "$(printf 'RW 8 VMFS "%0300d"' 0)"; do
		text x vmfs "$lines"
		refused x
	done
	text long vmfs 'RW 8 VMFS "f"\n'
	printf 'parentFileNameHint="%04095d"' 0 >>long
	qemu-img info -U --output=json long >"$WORK/q" || fail "a name of 4095 bytes"
	# there can be no such file
	assert_status 65 chain-info --json long
	[ "$(jq -s '.[1] |= .[0] | '"$SUPERSET" "$WORK/q" "$WORK/out")" = true ] || fail "differs"
	sed 's/Hint="/&0/' long >longer
	refused longer
	for type in monolithicSparse fullDevice streamOptimized "$(printf %0127d 0)"; do
		text x "$type" 'RW 8 VMFS "f"\n'
		refused x unsupported
	done
	text x vmfs 'RW 8 VMFS "f"\n'
	for lines in '/CID=1/d; /CID=f/d' '/parentCID/d' 's/CID=1.*/CID=/; s/CID=f/CID=/' \
		'/createType/d' 's/"vmfs"/"vmfs/; s/"f"/f/' 's/"vmfs"/"vmfs/; s/VMFS.*//'; do
		sed "$lines" x >y
		refused y
	done
	printf 'version=1\n' >x
	refused x
}

testHeaders()
{
	local field at bytes n

	# version, flags, words of a table, and the sectors of: a grain, the directories, the disk
	while read -r field at bytes n; do
		vmdk x 10M monolithicSparse
		set_le x "$at" "$bytes" "$((n))"
		same x 65
	done <<-'END'
		version 4 4 3
		flags 8 4 0
		grain 20 8 1
		grain 20 8 3
		grain 20 8 0x200000
		words 44 4 1
		second 48 8 0x3fffffff000000
		directory 56 8 0
		directory 56 8 0x100000
		disk 12 8 0x3fffffff
		disk 12 8 0x20000000000
		compression 77 2 2
	END
	while read -r field at bytes n; do
		vmdk x 10M monolithicSparse
		set_le x "$at" "$bytes" "$((n))"
		refused x "$([ "$field" = version ] && echo unsupported)"
	done <<-'END'
		version 4 4 4
		version 4 4 0xffffffff
		grain 20 8 0
		grain 20 8 0x200001
		grain 20 8 1<<32
		grain 20 8 1<<63
		words 44 4 0
		words 44 4 513
		second 48 8 0x3fffffffe00000
		directory 56 8 0x3fffffffffffff
		directory 56 8 -1
		data 64 8 1000000
		disk 12 8 1<<63
		disk 12 8 1<<54
		disk 12 8 1<<55
		disk 12 8 -1
	END
	vmdk x 10M monolithicSparse
	truncate -s 600 x
	refused x
	truncate -s 4 x
	refused x
	truncate -s 3 x
	refused_raw x
}

# raw for both
refused_raw()
{
	same "$1"
	assertEquals raw "$(jq -r '.[0].format' "$WORK/out")"
}

testStream()
{
	local at

	{ printf KDMV && le 4 1 $((16#30001)) && le 8 6144 128 1 1 && le 4 512 && le 8 0 -1 0 &&
		printf '\0\n \r\n' && le 2 1 && zeros 433; } >header
	{ cat header && printf 'CID=1\nparentCID=2\n' && zeros 494 && le 4 0 0 0 3 && zeros 496 &&
		cat header && zeros 512; } >x
	# the footer's, which counts: where the directory is, and the disk
	set_le x 1592 8 2
	set_le x 1548 8 8192
	same x 65
	assertEquals 4194304 "$(jq '.[0]."virtual-size"' "$WORK/out")"
	# marks: size, type; magic; marks: value, size, type
	for at in 1032 1036 1536 2048 2056 2060; do
		cp x y
		set_le y "$at" 4 5
		refused y
	done
	set_le x 1592 8 -1
	refused x
	cp header x
	refused x
	# where QEMU looks for the footer of an extent: as many bytes from its start as the
	# descriptor has
	text d twoGbMaxExtentSparse 'RW 8 SPARSE "header"\n'
	refused d
}

testCowd()
{
	cowd c 5000 8 4 2
	same c 65
	text v vmfsSparse 'RW 1 VMFSSPARSE "c"\nRW 1 SPARSE "c"\n'
	same v 65
	cowd d $NEVER 1 $NEVER $((32 << 20))
	same d 65
	# not of one kind: no cluster size, no dirty flag
	text v vmfsSparse 'RW 1 VMFSSPARSE "c"\nRW 1 VMFSSPARSE "d"\n'
	same v 65
	assertEquals "null null" "$(jq -r '.[0] | "\(."cluster-size") \(."dirty-flag")"' "$WORK/out")"
	text v vmfs 'RW 1 VMFSSPARSE "c"\nRW 8 VMFS "c"\n'
	same v 65
	cowd d 5000 8 4 $(((32 << 20) + 1))
	refused d
	cowd d 5000 $((16#200001)) 4 2
	refused d
	# QEMU tells of clusters without a byte, and dies of it when it reads
	cowd d 5000 0 4 2
	refused_here d
}

testSesparse()
{
	local at n state

	se s 9000
	text v seSparse 'RW 1 SESPARSE "s"\n'
	same v 65
	# the grain directory: sectors past the end
	set_le s 128 8 1000000
	same v 65
	while read -r at n state; do
		se s 9000
		set_le s "$at" 8 "$((n))"
		refused v "$state"
	done <<-'END'
		0 1 damaged
		8 1 unsupported
		16 1<<54 damaged
		16 1<<63 damaged
		24 16 unsupported
		32 32 unsupported
		40 1 unsupported
		48 1 unsupported
		72 1 unsupported
		80 5 damaged
		80 0x3fffffffffffff damaged
		128 0x3fffffffffffff damaged
		136 0x80001 damaged
		208 1 unsupported
		512 1 damaged
		536 1 unsupported
		544 1 unsupported
	END
}

testSparseExtents()
{
	vmdk x 5G twoGbMaxExtentSparse
	set_le x-s002 20 8 64
	same x 65
	# compressed: the descriptor's type no longer counts
	set_le x-s003 77 2 1
	same x 65
	assertEquals streamOptimized \
		"$(jq -r '.[0]."format-specific".data."create-type"' "$WORK/out")"
	rm x-s003
	refused x missing 66
	assert_err '^chain-info: x: x-s003: cannot open: No such file or directory$'
	: >x-s003
	refused x
	assert_err 'x-s003: is empty'
}

# A header that covers a descriptor; there it is not looked at again
testCover()
{
	seq 9999 >f
	vmdk x 10M monolithicSparse
	set_le x 12 8 0
	refused x unsupported # monolithicSparse
	text d vmfs 'RW 8 VMFS "f"\n'
	dd if=d of=x bs=512 seek=1 conv=notrunc,sync status=none
	same x 65
	set_le x 28 8 1000000
	refused x
	set_le x 28 8 $((1 << 54))
	refused x
	set_le x 28 8 1
	text d vmfsSparse 'RW 8 SPARSE "x"\nRW 8 SPARSE "x"\n'
	dd if=d of=x bs=512 seek=1 conv=notrunc,sync status=none
	refused x unsupported
	refused d unsupported
}

testOtherFiles()
{
	mkdir folder
	mkfifo fifo
	text x vmfs 'RW 8 VMFS "folder"\n'
	refused x unsupported
	text x vmfs 'RW 8 VMFS "missing"\n'
	refused x missing 66
	# QEMU waits for the one and reads the other
	text x vmfs 'RW 8 VMFS "fifo"\n'
	refused_here x unsupported
	text x vmfs 'RW 8 SPARSE "fifo"\n'
	refused_here x unsupported
	text x vmfs 'RW 8 VMFS "/dev/zero"\n'
	refused_here x unsupported
	assert_err '^chain-info: x: /dev/zero: is a character device, not a disk image$'
	text x vmfs 'RW 8 VMFS "x"\nRW 8 SPARSE "x"\n'
	refused x
	text x vmfs 'RW 8 VMFS "nbd:localhost:10809"\n'
	refused x missing 66
}

# What would take for ever if it were read again and again
testManyLines()
{
	: >f
	text x vmfs ''
	cp x y
	yes 'RW 1 FLAT "f" 0' | head -n 100000 >>x
	refused x unsupported
	assert_err '^chain-info: x: has more than 2048 extents$'
	{ cat y && yes '' | head -c 1000000 && echo 'RW 1 FLAT "f" 0'; } >x
	refused x unsupported
	{ cat y && yes '' | head -c 1000000; } >x
	refused_here x
	{ cat y && yes '' | head -c 500000 && echo RW && yes '' | head -c 500000; } >x
	refused_here x
	{ cat y && yes RW | head -c 1000000; } >x
	refused_here x
	{ cat y && printf 'RW ' && yes 1 | head -c 1000000 | tr -d '\n' && echo ' VMFS "f"'; } >x
	refused x
	{ cat y && yes 'RW 1 VMFS "f"' | head -n 500; } >x
	same x 65
	# their names are few bytes, but their folder's is shown with each
	{ cat y && yes 'RW 1 VMFS "f"' | head -n 1900; } >x
	# (not refused_here, which would show megabytes)
	LIMIT=1 assert_status 65 chain-info --json "$(yes ./ | head -n 1900 | tr -d '\n')x"
	assert_one_error
	assertEquals unsupported "$(jq -r '.[0].state' "$WORK/out")"
	assert_err ' the names of its extents have more than [0-9]+ bytes$'
}

# A sum past 2^64 is a small disk for QEMU, and so is one of a size below 0.
testSums()
{
	: >f
	text x vmfs 'RW 9223372036854775807 VMFS "f"\nRW 9223372036854775807 VMFS "f"\nRW 2050 VMFS "f"\n'
	refused_here x
	vmdk s 10M monolithicSparse
	set_le s 12 8 -1
	text x vmfs 'RW 1 SPARSE "s"\nRW 2050 VMFS "f"\n'
	refused_here x
}

. shunit2
