#!/bin/bash
# SPDX-License-Identifier: MIT
#
# A real guest: Debian's cloud kernel with an ext4 on the holder, software emulation. Inside,
# files are written, checked, moved, deleted and trimmed all the time; outside its disk is
# merged, snapshotted and copied elsewhere. Then both the guest and fsck must be content.

# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=tests/lib-live.sh
. "$TOP/tests/lib-live.sh"

# shellcheck source=tests/lib-guest.sh
. "$TOP/tests/lib-guest.sh"

testGuest()
{
	need_holder && find_guest || return 0
	make_initramfs
	make_disk || fail "no disk"
	hold D.qcow2 || return 0
	boot "file=$NBD,format=raw"
	go_on
	# a merge, while it writes
	LIMIT=100 assert_status 0 chain-stream -q -b A.qcow2 D.qcow2
	go_on
	# a snapshot: D is a layer then
	LIMIT=100 assert_status 0 chain-snapshot -q D.qcow2 E.qcow2
	go_on
	cp D.qcow2 then.qcow2
	LIMIT=100 assert_status 0 chain-stream -q --rate=20M -b A.qcow2 E.qcow2
	assert_backing E.qcow2 A.qcow2
	go_on
	# a copy to another place
	mkdir elsewhere
	LIMIT=100 assert_status 0 chain-snapshot -q --absolute E.qcow2 elsewhere/F.qcow2
	LIMIT=100 assert_status 0 chain-stream -q elsewhere/F.qcow2
	assert_backing elsewhere/F.qcow2 ""
	go_on
	guest_ends
	release
	assert_sound elsewhere/F.qcow2
	assert_sound E.qcow2
	assert_sound D.qcow2
	assert_files elsewhere/F.qcow2 all.sums
	# nobody wrote to D after the snapshot
	assertTrue "D is as it was" "cmp -s D.qcow2 then.qcow2"
	assert_files D.qcow2
}

# shellcheck disable=SC1091
. shunit2
