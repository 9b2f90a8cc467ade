#!/bin/bash
# SPDX-License-Identifier: MIT
#
# The holder serves what the chain holds, refuses what it cannot serve before there is a
# socket, and has QEMU's locks as long as it lives.

# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=tests/lib-live.sh
. "$TOP/tests/lib-live.sh"
# shellcheck source=tests/lib-kinds.sh
. "$TOP/tests/lib-kinds.sh"

# --- what it serves -------------------------------------------------------------

# serves KIND...: as a server of one who may write, with -r, and as a reader
serves()
{
	local kind

	need_holder || return 0
	for kind in "$@"; do
		make_kind "$kind"
		freeze ./*
		hold D.qcow2 || return 0
		assertEquals "$kind" "$HASH" "$(guest_content)"
		release
		assert_content D.qcow2 "$HASH"
		assert_sound D.qcow2
		serves_unchanged "$kind"
	done
}

# Nothing is written, not even the access by the kernel's clock.
serves_unchanged()
{
	make_kind "$1"
	freeze ./*
	HOLD_FILTERS=(-r)
	hold D.qcow2
	HOLD_FILTERS=()
	assertEquals "$1 with -r" "$HASH" "$(guest_content)"
	release
	hold D.qcow2 readonly=true
	assertEquals "$1 readonly" "$HASH" "$(guest_content)"
	release
	assert_frozen
}

testPlain()
{
	# shellcheck disable=SC2086
	serves $KINDS_PLAIN
}

testForms()
{
	# shellcheck disable=SC2086
	serves $KINDS_FORM
}

testPacked()
{
	# shellcheck disable=SC2086
	serves $KINDS_PACKED
}

testWhatItCan()
{
	local f preload

	need_holder || return 0
	make_chain
	hold D.qcow2
	run nbdinfo --json "$NBD"
	for f in can_cache can_df can_fast_zero can_flush can_fua can_multi_conn can_trim can_zero; do
		assertEquals "$f" true "$(jq -r ".exports[0].$f" "$WORK/out")"
	done
	assertEquals "size" 5242880 "$(jq -r '.exports[0]."export-size"' "$WORK/out")"
	assertEquals "any alignment" 1 "$(jq -r '.exports[0].block_size_minimum' "$WORK/out")"
	assertTrue "its name is said" "jq -r '.exports[0].description' '$WORK/out' | grep -q D.qcow2"
	assertEquals "writable" false "$(jq -r '.exports[0].is_read_only' "$WORK/out")"
	release
	hold D.qcow2 readonly=true
	run nbdinfo --json "$NBD"
	assertEquals "read only" true "$(jq -r '.exports[0].is_read_only' "$WORK/out")"
	run qemu-io -f raw -c 'write 0 4k' "$NBD"
	assertFalse "a write is refused" "[ $STATUS = 0 ]"
	release
	preload=$(holder_preload)
	run env ${preload:+"LD_PRELOAD=$preload"} nbdkit "$PLUGIN" --dump-plugin
	assert_out '^thread_model=parallel$'
	assert_out '^magic_config_key=file$'
	assert_out '^chain_version='
}

# What is known to be zero or a hole is said, so that a copy need not read it.
testExtents()
{
	need_holder || return 0
	new A.qcow2 100M
	fill A.qcow2 1 10M 1M
	over D.qcow2 A.qcow2
	fill D.qcow2 2 20M 512k
	put D.qcow2 'write -z 10M 64k'
	hold D.qcow2
	run nbdinfo --map "$NBD"
	assertEquals "bytes of data" $((960 * 1024 + 512 * 1024)) \
		"$(awk '$3 == 0 { n += $2 } END { print n + 0 }' "$WORK/out")"
	assertEquals "all of the disk" $((100 << 20)) \
		"$(awk '{ n += $2 } END { print n }' "$WORK/out")"
	release
}

testFilters()
{
	local filter

	need_holder || return 0
	for filter in log delay error rate stats cow cache readahead fua noextents nozero; do
		nbdkit --filter=$filter null --dump-plugin >/dev/null 2>&1 || continue
		make_chain
		HOLD_FILTERS=(--filter="$filter")
		case $filter in
		log) hold D.qcow2 logfile="$WORK/requests" ;;
		stats) hold D.qcow2 statsfile="$WORK/stats" ;;
		delay) hold D.qcow2 rdelay=1ms wdelay=1ms ;;
		error) hold D.qcow2 error-rate=0% ;;
		rate) hold D.qcow2 rate=1G ;;
		*) hold D.qcow2 ;;
		esac
		assertEquals "$filter" "$HASH" "$(guest_content)"
		guest 'write -P 9 1000 100k' flush 'read -P 9 1000 100k'
		release
		HOLD_FILTERS=()
		assert_sound D.qcow2
	done
	assertTrue "requests were logged" "grep -q Write '$WORK/requests'"
}

# --- what it refuses ------------------------------------------------------------

# refused WHAT SENTENCE [ARGUMENT...]: status 1, one line with the sentence, no socket
refused()
{
	local what=$1 sentence=$2 preload

	shift 2
	preload=$(holder_preload)
	LIMIT=20 run env ${preload:+"LD_PRELOAD=$preload"} \
		nbdkit -f -U "$WORK/none" "$PLUGIN" "$@"
	assertEquals "$what: $(cat "$WORK/err")" 1 "$STATUS"
	assertEquals "$what: one line: $(cat "$WORK/err")" 1 "$(wc -l <"$WORK/err")"
	assert_err "^nbdkit: error: .*$sentence"
	assertFalse "$what: no socket" "[ -e '$WORK/none' ]"
	rm -f "$WORK/none"
}

testRefusesArguments()
{
	need_holder || return 0
	make_chain
	refused "no image" 'which image'
	refused "two images" 'file is given twice' D.qcow2 file=C.qcow2
	refused "an unknown word" 'colour' D.qcow2 colour=blue
	refused "no boolean" 'maybe' D.qcow2 readonly=maybe
	refused "no size" 'cache-size' D.qcow2 cache-size=1
}

testRefusesImages()
{
	need_holder || return 0
	make_chain
	refused "missing" 'E.qcow2.*No such file' E.qcow2
	refused "a folder" '/' "$PWD"
	qemu-img convert -O raw D.qcow2 D.raw
	refused "raw" 'D.raw' D.raw
	qemu-img convert -O vmdk D.qcow2 D.vmdk
	refused "another format" 'D.vmdk' D.vmdk
	poke D.qcow2 44 ff ff
	refused "damaged" 'D.qcow2' D.qcow2
	make_kind v3
	dd if=/dev/zero of=D.qcow2 bs=4k count=1 conv=notrunc status=none
	refused "without its header" \
		'D.qcow2: is called qcow2, but does not begin like it: is it damaged[?]' D.qcow2
	make_kind v3
	mv B.qcow2 B
	refused "a layer is missing" 'B.qcow2.*No such file' D.qcow2
	mv B B.qcow2
	qemu-img rebase -u -f qcow2 -F qcow2 -b D.qcow2 A.qcow2
	refused "a loop" 'qcow2' D.qcow2
	make_kind v3
	# the corrupt bit
	poke D.qcow2 79 02
	refused "marked as corrupt" 'D.qcow2' D.qcow2
	# the table of a snapshot's first 512 MiB, for the guest's second ones
	over E.qcow2 A.qcow2 1G
	put E.qcow2 'write 0 64k'
	qemu-img snapshot -c s E.qcow2
	poke E.qcow2 0x30008 00 00 00 00 00 04 00 00
	poke E.qcow2 0x30000 00 00 00 00 00 00 00 00
	assert_sound E.qcow2
	refused "one table, two places" 'E.qcow2: .*stands for two parts of the disk' E.qcow2
	rm D.qcow2
	luks D.qcow2
	refused "encrypted" 'D.qcow2.*encrypt' D.qcow2
}

# count_past_end FILE: where the count of the first cluster past its end is
count_past_end()
{
	local block clusters

	block=$((16#$(peek "$1" $((16#$(peek "$1" 48 8))) 8)))
	clusters=$((($(bytes "$1") + 65535) / 65536))
	echo $((block + clusters * 2))
}

# An image that was cut short, as by a copy that was interrupted: what is missing would read as
# zeros.
testRefusesCutShort()
{
	local length

	need_holder || return 0
	make_chain
	fill D.qcow2 7 2M 2M
	mv D.qcow2 whole.qcow2
	over lazy.qcow2 A.qcow2 -o lazy_refcounts=on
	qemu-io -f qcow2 -c 'write -P 7 2M 2M' -c abort lazy.qcow2 >/dev/null 2>&1
	head -c 1000000 lazy.qcow2 >D.qcow2
	for WHAT in readonly=false readonly=true; do
		refused "dirty, $WHAT" 'D.qcow2: .*past the end of the file' D.qcow2 $WHAT
	done
	# with the refcount block behind, with an external data file, in a snapshot alone
	new gap.qcow2 64M -o cluster_size=4k
	put gap.qcow2 'write -P 7 0 40M'
	qemu-io -f qcow2 -d unmap -c 'discard 6M 4M' gap.qcow2 >/dev/null
	head -c 7340032 gap.qcow2 >D.qcow2
	refused "no block" 'D.qcow2: .*past the end of the file' D.qcow2
	new apart.qcow2 64M -o cluster_size=4k,data_file=apart.raw
	put apart.qcow2 'write -P 7 0 40M'
	head -c 45056 apart.qcow2 >D.qcow2
	refused "data file" 'D.qcow2: .*past the end of the file' D.qcow2
	new snap.qcow2 64M -o cluster_size=4k
	put snap.qcow2 'write 0 1M' 'write -P 7 20M 20M' 'discard 0 256k'
	qemu-img snapshot -c s snap.qcow2
	put snap.qcow2 'write -z -u 20M 20M'
	head -c 21000000 snap.qcow2 >D.qcow2
	refused snapshot 'D.qcow2: .*past the end of the file' D.qcow2
	# in the middle of a table, behind which there was nothing: a disk that was trimmed
	new below.qcow2 64M
	fill below.qcow2 7 0 64M
	over trimmed.qcow2 below.qcow2
	put trimmed.qcow2 'write -z 0 64M'
	head -c -32768 trimmed.qcow2 >D.qcow2
	refused table 'D.qcow2: .*past the end of the file; the image is truncated' D.qcow2
	assert_status 65 chain-stream D.qcow2
	over E.qcow2 D.qcow2
	assert_status 65 chain-stream -b below.qcow2 E.qcow2
	for length in 393216 1000000 2000000; do
		head -c $length whole.qcow2 >D.qcow2
		freeze ./*.qcow2
		for WHAT in readonly=false readonly=true; do
			refused "$length, $WHAT" "D.qcow2: .*past the end of the file; \
the image is truncated or damaged" D.qcow2 $WHAT
		done
		assert_frozen
	done
}

# Of a daemon nobody would read it later; and who wants to merge hears what is wrong.
testNoFolderForThePage()
{
	local preload

	need_holder || return 0
	make_chain
	chmod 755 "$CHAIN_RUNTIME_DIR"
	preload=$(holder_preload)
	rm -f "$WORK/sock" "$WORK/holder.pid"
	run env ${preload:+"LD_PRELOAD=$preload"} "ASAN_OPTIONS=$ASAN_OPTIONS:detect_leaks=0" nbdkit -U "$WORK/sock" --pidfile "$WORK/holder.pid" "$PLUGIN" D.qcow2
	assertEquals 0 "$STATUS"
	until_true 5 test -s "$WORK/holder.pid"
	later "kill $(cat "$WORK/holder.pid")"
	assertEquals "$(cat "$WORK/err")" 1 "$(grep -c 'no merge can reach us' "$WORK/err")"
	assert_err "no merge can reach us: $CHAIN_RUNTIME_DIR: the folder has mode 0755 and not 0700;.* the guest is served all the same"
	assert_status 75 chain-stream D.qcow2
	assert_one_error
	assert_err "in use by pid $(cat "$WORK/holder.pid") .* and nobody can be asked to merge it: $CHAIN_RUNTIME_DIR: the folder has mode 0755"
	kill "$(cat "$WORK/holder.pid")"
	until_true 10 gone "$(cat "$WORK/holder.pid")"
	# and in the foreground it is said once
	hold D.qcow2 || return 0
	assertEquals "$(cat "$WORK/holder.err")" 1 "$(grep -c 'no merge can reach us' "$WORK/holder.err")"
	release
	chmod 700 "$CHAIN_RUNTIME_DIR"
}

# A word that places data elsewhere in an external data file than the guest has it: an error, as
# from QEMU, and not the bytes of either place.
testDataFileElsewhere()
{
	local command

	need_holder || return 0
	new A.qcow2 1M
	over D.qcow2 A.qcow2 -o data_file=D.data
	fill D.qcow2 1 0 192k
	poke D.qcow2 0x40000 80 00 00 00 00 01 00 00
	assert_sound D.qcow2
	freeze D.qcow2 D.data
	hold D.qcow2 || return 0
	for command in 'read 0 512' 'write 0 512' 'write 0 64k' 'write -z 0 64k' 'discard 0 64k'; do
		run qemu-io -f raw -c "$command" "$NBD"
		assertEquals "$command: $(cat "$WORK/out")" 1 "$STATUS"
	done
	guest 'read 64k 128k'
	assert_status 65 chain-stream -q D.qcow2
	assert_err 'D.qcow2: the cluster of guest offset 0 should be at the same offset'
	release
	assert_frozen
}

# What is only counted past the end is what a crash leaves.
testServesWhatIsOnlyCounted()
{
	local n at died=0

	need_holder || return 0
	make_faults || return 0
	make_chain
	mv D.qcow2 fresh.qcow2
	for n in 0 1 2 3 4; do
		cp fresh.qcow2 D.qcow2
		if [ $n = 0 ]; then
			poke D.qcow2 $(($(count_past_end D.qcow2) + 10)) 00 01
		else
			# a merge that died, and the disk then lost how long the file had become
			with_faults FAULT_EXIT=$n FAULT_CUT=1 chain-stream -q D.qcow2
			at=$(count_past_end D.qcow2)
			[ "$(peek D.qcow2 "$at" 2)" = 0001 ] || continue
			: $((died++))
		fi
		hold D.qcow2 readonly=true || return 0
		assertEquals "$n: a reader" "$HASH" "$(guest_content)"
		release
		hold D.qcow2 || return 0
		assertEquals "$n: a writer" "$HASH" "$(guest_content)"
		guest 'write -P 7 0 1M' 'read -P 7 0 1M'
		release
		[ $n = 0 ] || assert_sound D.qcow2
		assert_leaks_at_worst D.qcow2
	done
	assertTrue "it died $died times with more counted" "[ $died -ge 1 ]"
}

testRefusesInUse()
{
	need_holder || return 0
	make_chain
	qemu_io_holds D.qcow2
	LIMIT=30 refused "held by qemu-io" "D.qcow2.*\\b$PID\\b.*qemu-io|D.qcow2.*qemu-io.*\\b$PID\\b" \
		D.qcow2
	exec 7>&-
	wait "$PID"
	hold D.qcow2
	PID=$HOLDER
	refused "held by a holder" "D.qcow2.*\\b$PID\\b" D.qcow2
	refused "its layer" "C.qcow2" C.qcow2
	release
}

# --- locks ----------------------------------------------------------------------

testLocks()
{
	local f

	need_holder || return 0
	make_chain
	hold D.qcow2
	assert_status 0 qemu-img info -U D.qcow2
	assert_status 1 qemu-img check D.qcow2
	assert_err 'lock'
	for f in A B C D; do
		assert_status 1 qemu-io -f qcow2 -c 'write 0 4k' $f.qcow2
	done
	# layers may be read by all
	assert_status 0 qemu-img info C.qcow2
	assert_status 0 qemu-img convert -O raw C.qcow2 c.raw
	release
	assert_status 0 qemu-img check D.qcow2
	hold D.qcow2
	kill_holder
	assert_status 0 qemu-io -f qcow2 -c 'write 0 4k' D.qcow2
}

# A reader shares the image with readers, and with them only.
testReaderLocks()
{
	need_holder || return 0
	make_chain
	hold D.qcow2 readonly=true
	assert_status 0 qemu-img convert -O raw D.qcow2 d.raw
	assert_status 1 qemu-io -f qcow2 -c 'write 0 4k' D.qcow2
	refused "a writer beside a reader" 'D.qcow2' D.qcow2
	release
}

# shellcheck disable=SC1091
. shunit2
