#!/bin/bash
# SPDX-License-Identifier: MIT
#
# fio with verify as the guest: several jobs, several connections, a few seconds each.

# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=tests/lib-live.sh
. "$TOP/tests/lib-live.sh"

prepare()
{
	new A.qcow2 128M
	fill A.qcow2 1 0 1M
	fill A.qcow2 2 64M 1M
	over B.qcow2 A.qcow2
	fill B.qcow2 3 65M 1M
	over D.qcow2 B.qcow2
}

need_fio()
{
	need_holder && need fio || return 1
	fio --enghelp=nbd >/dev/null 2>&1 && return 0
	skip "fio has no nbd engine"
	return 1
}

# verified NAME OPTION...: a job of fio that reads back what it wrote
verified()
{
	LIMIT=60 run fio --name="$1" --ioengine=nbd --uri="$NBD" --verify=crc32c \
		--verify_fatal=1 --randrepeat=0 --iodepth=16 --output-format=json \
		--output="$WORK/fio.json" "${@:2}"
	assertEquals "$1: $(tail -n 5 "$WORK/err") $(tail -n 5 "$WORK/out")" 0 "$STATUS"
	assertEquals "$1: errors" 0 "$(jq '[.jobs[].error] | add' "$WORK/fio.json")"
	assertTrue "$1: it read" "[ $(jq '[.jobs[].read.total_ios] | add' "$WORK/fio.json") -gt 0 ]"
}

# Random sizes at random places, then all read back
testRandom()
{
	need_fio || return 0
	hold D.qcow2
	freeze A.qcow2 B.qcow2
	verified random --rw=randwrite --bsrange=512-128k --bs_unaligned=1 --size=32M
	verified again --rw=randrw --bs=4k --size=32M --io_size=32M
	release
	assert_sound D.qcow2
	assert_frozen
}

# Each job has a part of its own, and a connection; flushes and trims in between
testJobs()
{
	need_fio || return 0
	hold D.qcow2
	verified jobs --rw=randwrite --bs=4k --size=16M --numjobs=4 --offset_increment=32M \
		--fsync=64 --group_reporting
	verified mixed --rw=randrw --bs=8k --size=16M --numjobs=4 \
		--offset_increment=32M --verify_backlog=256 --fsync=128 --group_reporting
	release
	assert_sound D.qcow2
}

# The jobs share clusters: 4 KiB in turn
testSharedClusters()
{
	local job

	need_fio || return 0
	hold D.qcow2
	for job in 0 1 2 3; do
		echo "[j$job]"
		echo "offset=$((job * 4))k"
	done >list
	{
		printf '[global]\nioengine=nbd\nuri=%s\nrw=write:12k\nbs=4k\nsize=32M\n' "$NBD"
		printf 'io_size=8M\niodepth=16\nverify=crc32c\nverify_fatal=1\n'
		cat list
	} >job.fio
	LIMIT=60 run fio job.fio
	assertEquals "$(tail -n 5 "$WORK/err") $(tail -n 5 "$WORK/out")" 0 "$STATUS"
	release
	assert_sound D.qcow2
}

# shellcheck disable=SC1091
. shunit2
