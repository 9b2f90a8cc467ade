#!/bin/bash
# SPDX-License-Identifier: MIT
#
# A real guest of a qemu-system that has the images open itself: its disk is merged,
# snapshotted and copied elsewhere over QMP while it works. Then QEMU is killed, right after we
# said that a merge is done, and what it leaves is what a power cut of the guest would.

# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=tests/lib-live.sh
. "$TOP/tests/lib-live.sh"
# shellcheck source=tests/lib-qmp.sh
. "$TOP/tests/lib-qmp.sh"
# shellcheck source=tests/lib-guest.sh
. "$TOP/tests/lib-guest.sh"

begin()
{
	make_initramfs
	make_disk || fail "no disk"
	QMP=$WORK/qmp
	QMP2=$WORK/qmp2
	boot file=D.qcow2,format=qcow2 -qmp "unix:$QMP,server=on,wait=off" \
		-chardev "socket,id=two,path=$QMP2,server=on,wait=off" -mon chardev=two,mode=control
	go_on
}

testGuest()
{
	need_machine && find_guest || return 0
	begin
	# a merge, while it writes
	LIMIT=100 assert_status 0 chain-stream -q --qmp="$QMP" -b A.qcow2 D.qcow2
	assertEquals A.qcow2 "$(backing D.qcow2)"
	go_on
	# a snapshot: D is a layer then
	LIMIT=100 assert_status 0 chain-snapshot -q --qmp="$QMP" D.qcow2 E.qcow2
	cp D.qcow2 then.qcow2
	go_on
	LIMIT=100 assert_status 0 chain-stream -q --qmp="$QMP" --rate=20M -b A.qcow2 E.qcow2
	go_on
	# a copy to another place
	mkdir elsewhere
	LIMIT=100 assert_status 0 chain-snapshot -q --qmp="$QMP" --absolute E.qcow2 elsewhere/F.qcow2
	LIMIT=100 assert_status 0 chain-stream -q --qmp="$QMP" elsewhere/F.qcow2
	assertEquals "" "$(backing elsewhere/F.qcow2)"
	assert_tidy
	assertEquals "it is not paused" running \
		"$(say '{"execute": "query-status"}' | jq -r .status)"
	go_on
	guest_ends
	assert_sound elsewhere/F.qcow2
	assert_sound E.qcow2
	assert_sound D.qcow2
	assert_files elsewhere/F.qcow2 all.sums
	assertTrue "D is as it was" "cmp -s D.qcow2 then.qcow2"
	assert_files D.qcow2
}

testKilledAfterSuccess()
{
	need_machine && find_guest || return 0
	begin
	LIMIT=100 assert_status 0 chain-stream -q --qmp="$QMP" D.qcow2
	kill -9 "$GUEST"
	wait "$GUEST" 2>/dev/null
	assertEquals "" "$(backing D.qcow2)"
	assert_leaks_at_worst D.qcow2
	# the journal is played back, and what was synced in the beginning is there
	assert_files D.qcow2
}

# shellcheck disable=SC1091
. shunit2
