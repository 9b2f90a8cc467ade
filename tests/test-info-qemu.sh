#!/bin/bash
# SPDX-License-Identifier: MIT
#
# chain-info --json says all that `qemu-img info --backing-chain` says, with equal values.
# shellcheck source=lib.sh disable=SC1091
. "$(dirname "$0")/lib.sh"
# shellcheck source=lib-info.sh disable=SC1091
. "$(dirname "$0")/lib-info.sh"

testVersions()
{
	new a 1M -o compat=0.10
	same a
	new b 3M -o compat=1.1,lazy_refcounts=on,refcount_bits=1,cluster_size=512
	same b
	new c 1T -o compression_type=zstd,extended_l2=on,refcount_bits=64,cluster_size=2M
	same c
	new d 0
	same d
}

testRaw()
{
	truncate -s 1000001 odd
	same odd
	printf x >one
	same one
	FORMAT=raw over a odd 2M
	FORMAT=raw over b one
	same a
	same b
}

testDataFile()
{
	new a 4M -o data_file=a.raw
	new b 4M -o data_file=b.raw,data_file_raw=on
	fill a 1 0 1M
	fill b 1 0 1M
	same a
	same b
	over c a
	same c
}

testSnapshotsAndBitmaps()
{
	new a 4M
	qemu-img snapshot -c one a
	qemu-img snapshot -c 'zwei ü' a
	qemu-img bitmap --add -g 64k a b0
	qemu-img bitmap --add --disable -g 512 a b1
	same a
	new v2 4M -o compat=0.10
	qemu-img snapshot -c one v2
	same v2
	# the only entry: bitmaps that a writer left behind are in use
	poke a $(($(bitmap_directory a) + 15)) 01
	same a
}

# The host offset of the first directory entry: the extension's last field.
bitmap_directory()
{
	local at

	at=$(LC_ALL=C grep -obaP '\x23\x85\x28\x75\x00\x00\x00\x18' "$1" | head -1 | cut -d: -f1)
	echo $((16#$(peek "$1" $((at + 24)) 8)))
}

testVmState()
{
	local at

	new a 4M
	qemu-img snapshot -c one a
	at=$((16#$(peek a 64 8)))
	# size of the state, clock; then the 64-bit size and the icount in the extra data
	poke a $((at + 24)) 12 34 56 78 9a bc de f0 00 00 10 00
	poke a $((at + 40)) 00 00 00 00 00 12 34 56
	poke a $((at + 56)) 00 00 00 00 00 00 04 d2
	same a
}

testLuks()
{
	local iv

	for iv in plain64 plain essiv; do
		luks "l-$iv" -o "encrypt.ivgen-alg=$iv,encrypt.ivgen-hash-alg=sha256" \
			-o encrypt.cipher-alg=aes-128
		same "l-$iv"
	done
	luks cbc -o encrypt.cipher-mode=cbc
	same cbc
	over d cbc
	same d
	new aes 1M --object secret,id=s,data=abc -o encrypt.format=aes,encrypt.key-secret=s
	same aes
}

testNames()
{
	mkdir -p sub/deeper
	new sub/base 1M
	over sub/rel base
	over top sub/rel
	over abs "$PWD/sub/base"
	over fil "file:sub/base"
	over sub/deeper/up ../base
	over obj 'json:{"driver":"qcow2","file":{"driver":"file","filename":"sub/base"}}'
	over flat 'json:{"file.filename":"sub/base"}'
	for f in sub/rel ./top "$PWD/top" abs fil sub/deeper/up obj flat; do
		same "$f"
	done
	cp sub/base './a:b'
	over colon ./a:b
	same colon
	same ./colon
}

testOddNames()
{
	for name in 'with space' $'new\nline' 'ünïcödé' $'bad\xff\xc3x' $'\xed\xa0\x80\xf5' '"q\b'; do
		new "./$name" 1M
		over o "./$name"
		same o
		same "./$name"
	done
}

testFormatIsBelieved()
{
	new a 1M
	FORMAT=raw over b 'json:{"driver":"qcow2","file":{"driver":"file","filename":"a"}}'
	same b
	FORMAT=raw over c a
	same c
}

testDirtyAndCorrupt()
{
	new a 1M -o lazy_refcounts=on
	poke a 79 01
	same a
	new b 1M
	poke b 79 02
	same b
	over c b
	same c
}

testLongChain()
{
	new 0 1M
	for i in $(seq 1 60); do
		over "$i" "$((i - 1))"
	done
	same 60
}

. shunit2
