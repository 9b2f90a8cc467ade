#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Malformed images that found a defect, or that each get another answer: tests/data/input. Each
# command on each: no crash, no hang, no more than 128 MiB, nothing written, one sentence. Where
# they come from: tests/proof/input.

# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=tests/lib-live.sh
. "$TOP/tests/lib-live.sh"

DRIVE=$TOP/tests/proof/input/drive

# drive FOLDER BUILD [OPTION...]: status in STATUS, what it says in $WORK/out
drive()
{
	local images=$1 build=$2

	shift 2
	mkdir drive
	cd drive || return 1
	run "$DRIVE" --frozen "$images" "$@" "$build"
}

# A half of the commands on each, in turn; with sanitizers, which are slow, a sixth.
testAll()
{
	local preload

	need_holder && need python3 || return 0
	preload=$(holder_preload)
	drive "$TOP/tests/data/input" "$BUILD" --sample 3 --every 2 \
		${preload:+--preload "$preload" --every 6}
	assertEquals "$(head -c 3000 "$WORK/out" "$WORK/err")" 0 "$STATUS"
	assert_out ' 0 wrong$'
}

# Programs that write to a layer, refuse without a sentence, and die
testItLooks()
{
	need_holder && need python3 || return 0
	mkdir -p images fake/bin
	cp "$TOP"/tests/data/input/well*.txt images
	printf '#!/bin/sh\nexit 0\n' >fake/bin/chain-info
	printf '#!/bin/sh\nprintf x >>B.qcow2\n' >fake/bin/chain-stream
	printf '#!/bin/sh\nexit 65\n' >fake/bin/chain-rebase
	printf '#!/bin/sh\nkill -9 $$\n' >fake/bin/chain-snapshot
	chmod +x fake/bin/*
	drive ../images ../fake --only stream --only rebase --only snapshot
	assertEquals "$(head -c 3000 "$WORK/out" "$WORK/err")" 1 "$STATUS"
	assert_out 'stream: status 0, and has written to ..B.qcow2'
	assert_out 'rebase: 0 sentences'
	assert_out 'snapshot: killed by signal 9'
}

# A few MiB of file in which there are hours to walk: our mark and a refcount table whose words
# all name one block of one-bit refcounts; 65536 snapshots that share an L1 table of 32 MiB.
endless_walks()
{
	python3 - <<-'END'
		from struct import pack
		MIB, CLUSTER = 1 << 20, 1 << 21
		def header(name, l1, l1_entries, blocks, snapshots, at, order, *extensions):
		    ends = sum(map(len, extensions)) + 120
		    head = pack('>IIQIIQIIQQIIQQQQII', 0x514649fb, 3, ends if name else 0, len(name),
		                21, 64 * MIB, 0, l1_entries, l1, CLUSTER, blocks, snapshots, at, 0, 0,
		                0, order, 112)
		    return head.ljust(112, b'\0') + b''.join(extensions) + bytes(8) + name
		def image(path, *pieces, length):
		    with open(path, 'wb') as f:
		        for at, data in pieces:
		            f.seek(at)
		            f.write(data)
		        f.truncate(length)
		image('blocks.qcow2',
		      (0, header(b'', 6 * CLUSTER, 1, 4, 0, 0, 0, pack('>IIQ', 0x63686169, 8, 7 * CLUSTER))),
		      (CLUSTER, pack('>Q', 5 * CLUSTER) * (1 << 20)), (5 * CLUSTER, b'\x7f'),
		      length=7 * CLUSTER)
		entry = pack('>QIHHIIQII', 23 * CLUSTER, 4 * MIB, 1, 1, 0, 0, 0, 0, 16)
		entry = (entry + pack('>QQ', 0, 64 * MIB) + b'11').ljust(64, b'\0')
		image('snapshots.qcow2',
		      (0, header(b'A.qcow2', 3 * CLUSTER, 1, 1, 1 << 16, 4 * CLUSTER, 4,
		                 pack('>II', 0xe2792aca, 5) + b'qcow2'.ljust(8, b'\0'))),
		      (CLUSTER, pack('>Q', 2 * CLUSTER)), (2 * CLUSTER, pack('>H', 1) * 64),
		      (4 * CLUSTER, entry * (1 << 16)), length=39 * CLUSTER)
	END
}

testEndlessWalks()
{
	need python3 || return 0
	new A.qcow2 64M
	endless_walks
	LIMIT=30 assert_status 65 chain-rebase -u -b '' blocks.qcow2
	assert_err 'two of its tables lie at 10485760'
	LIMIT=30 assert_status 65 chain-stream blocks.qcow2
	LIMIT=30 assert_status 65 chain-stream snapshots.qcow2
	assert_err 'L1 tables are larger than the file'
}

# number FILE OFFSET: 8 bytes of the file
number()
{
	echo $((16#$(peek "$1" "$2" 8)))
}

# set_count HOST COUNT: the refcount of a cluster of D.qcow2, which are 512 bytes
set_count()
{
	local n=$(($1 / 512)) block

	block=$(number D.qcow2 $(($(number D.qcow2 48) + 8 * (n / 256))))
	poke D.qcow2 $((block + n % 256 * 2)) 00 "$2"
}

# One L2 table for two parts of the disk, which no check minds: nobody can write for one of them
# alone.
testTableForTwoParts()
{
	local what table data l1

	new A.qcow2 2M
	fill A.qcow2 1 0 1M
	for what in "the active image's" "the active image's, too" "a snapshot's"; do
		rm -f D.qcow2
		over D.qcow2 A.qcow2 -o cluster_size=512
		put D.qcow2 'write -P 9 0 512'
		qemu-img snapshot -c s D.qcow2
		l1=$(number D.qcow2 "$(number D.qcow2 64)")
		table=$(($(number D.qcow2 "$l1") & 0x00fffffffffffe00))
		data=$(($(number D.qcow2 "$table") & 0x00fffffffffffe00))
		case $what in
		*too)
			set_count "$table" 03
			set_count "$data" 03
			;;
		a*)
			put D.qcow2 'write -P 8 512 512'
			set_count "$data" 03
			set_count "$table" 02
			;;
		*)
			l1=$(number D.qcow2 40)
			poke D.qcow2 "$l1" 00 00 00 00 00 00 00 00
			;;
		esac
		# shellcheck disable=SC2046 # bytes
		poke D.qcow2 $((l1 + 8)) $(printf '%016x' "$table" | fold -w 2)
		assert_sound D.qcow2
		freeze ./*.qcow2
		refused_too 65 chain-stream -q D.qcow2
		assert_err "the L2 table at $table stands for two parts of the disk"
		refused_too 65 chain-rebase -q -b '' D.qcow2
		assert_frozen
	done
}

# shellcheck disable=SC1091
. shunit2
