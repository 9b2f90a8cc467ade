# shellcheck shell=bash disable=SC2034 # HASH is for the tests
# SPDX-License-Identifier: MIT
#
# Chains of many kinds whose active image is D.qcow2, for tests that go through all of them.
# After lib.sh.

KINDS_PLAIN="v3 v2 one empty short raw-odd snapshots snapshots-v2"
KINDS_FORM="c512 c4k c2M c512-r64 r1 lazy extended extended-16k extended-allocated data-file allocated"
KINDS_PACKED="zlib zstd packed-active packed-v2"
# Programs with sanitizers are several times slower: with the address sanitizer every
# second kind, with the thread sanitizer the others. KINDS_ALL=1: all.
every_second()
{
	local skip=$1 kind

	shift
	for kind in "$@"; do
		((skip ^= 1)) && echo "$kind"
	done
}

case ${KINDS_ALL:+all}$BUILD in
*/build-address*) skip=0 ;;
*/build-thread*) skip=1 ;;
*) skip= ;;
esac
if [ -n "$skip" ]; then
	# shellcheck disable=SC2086 # words
	{
		KINDS_PLAIN=$(every_second $skip $KINDS_PLAIN)
		KINDS_FORM=$(every_second $skip $KINDS_FORM)
		KINDS_PACKED=$(every_second $skip $KINDS_PACKED)
	}
fi
KINDS="$KINDS_PLAIN $KINDS_FORM $KINDS_PACKED"

# pack IMAGE [OPTION]: the same content in compressed clusters, over the same backing file
pack()
{
	local below

	below=$(backing "$1")
	qemu-img convert -c -O qcow2 ${2:+-o "$2"} ${below:+-B "$below" -F qcow2} \
		-- "$1" packed.qcow2 || fail "pack $1"
	mv packed.qcow2 "$1"
}

# A chain whose layers are shorter than what is above them, in turn, of odd sizes
make_short_chain()
{
	new A.qcow2 5000192
	fill A.qcow2 1 0 4M
	over B.qcow2 A.qcow2 2000384
	fill B.qcow2 2 1M 512k
	over C.qcow2 B.qcow2 3500032
	fill C.qcow2 3 1900k 300k
	over D.qcow2 C.qcow2 4500480
	fill D.qcow2 4 3400k 100k
}

# A raw layer whose size is a multiple of nothing
make_raw_chain()
{
	head -c 1234567 "$(seed_file 1)" >A.raw
	tail -c 234567 "$(seed_file 2)" >>A.raw
	FORMAT=raw over B.qcow2 A.raw 3M
	fill B.qcow2 2 1200k 100k
	over D.qcow2 B.qcow2 4M
	fill D.qcow2 3 100k 3k
}

# make_kind KIND: a fresh chain in the working folder; its content in HASH
make_kind()
{
	rm -f ./*.qcow2 ./*.raw ./*.data
	case $1 in
	v3) make_chain ;;
	v2) make_chain -o compat=0.10 ;;
	one) new D.qcow2 3M && fill D.qcow2 1 100k 1M ;;
	empty)
		make_chain
		mv D.qcow2 Z.qcow2
		over D.qcow2 Z.qcow2
		;;
	short) make_short_chain ;;
	raw-odd) make_raw_chain ;;
	snapshots) make_snapshot_chain ;;
	snapshots-v2) make_snapshot_chain -o compat=0.10 ;;
	snapshots-16k) make_snapshot_chain -o extended_l2=on,cluster_size=16k ;;
	c512) make_chain -o cluster_size=512 ;;
	c4k) make_chain -o cluster_size=4k ;;
	c2M) make_chain -o cluster_size=2M ;;
	c512-r64) make_chain -o cluster_size=512,refcount_bits=64 ;;
	r1) make_chain -o refcount_bits=1 ;;
	lazy) make_chain -o lazy_refcounts=on ;;
	extended) make_chain -o extended_l2=on,cluster_size=64k ;;
	extended-16k) make_chain -o extended_l2=on,cluster_size=16k ;;
	data-file)
		make_chain
		over E.qcow2 C.qcow2 -o data_file=D.data
		fill E.qcow2 5 100k 100k
		put E.qcow2 'write -z 3584k 128k'
		mv E.qcow2 D.qcow2
		;;
	allocated)
		new D.qcow2 3M -o preallocation=metadata
		fill D.qcow2 1 1M 200k
		;;
	extended-allocated)
		make_chain -o extended_l2=on
		over E.qcow2 C.qcow2 -o extended_l2=on,preallocation=metadata
		fill E.qcow2 5 100k 100k
		mv E.qcow2 D.qcow2
		;;
	zlib) make_chain && pack A.qcow2 && pack B.qcow2 ;;
	zstd) make_chain -o compression_type=zstd && pack A.qcow2 compression_type=zstd &&
		pack C.qcow2 compression_type=zstd ;;
	packed-active) make_chain && pack D.qcow2 ;;
	packed-v2) make_chain -o compat=0.10 && pack D.qcow2 compat=0.10 ;;
	*) fail "no kind $1" ;;
	esac
	HASH=$(content D.qcow2)
}

# Every file of the chain but the active image and its data file
layers()
{
	find . -maxdepth 1 \( -name '*.qcow2' -o -name '*.raw' \) ! -name D.qcow2
}

# flat FILE: the disk as a raw file
flat()
{
	qemu-img convert -U -O raw D.qcow2 "$1" || fail "convert D.qcow2"
}

# assert_snapshots WHAT: the internal snapshots of make_snapshot_chain are what they were
assert_snapshots()
{
	assertEquals "$1: s1" "$S1" "$(snapshot_content D.qcow2 s1)"
	assertEquals "$1: s2" "$S2" "$(snapshot_content D.qcow2 s2)"
}
