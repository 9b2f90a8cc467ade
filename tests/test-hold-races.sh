#!/bin/bash
# SPDX-License-Identifier: MIT
#
# A holder whose disk fails at an awkward moment.

# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=tests/lib-live.sh
. "$TOP/tests/lib-live.sh"

# A commit found no room for a refcount; the flush after it is about later writes as well.
testFlushAfterAFullDisk()
{
	need_holder || return 0
	make_faults || return 0
	new D.qcow2 64M
	# the one refcount block of a new image
	HOLD_WITH=(LD_PRELOAD="$(holder_preload) $WORK/faults.so" FAULT_FILE=/D.qcow2
		FAULT_ERRNO=28 FAULT_FROM=0x20000 FAULT_TO=0x30000)
	hold D.qcow2 || return 0
	HOLD_WITH=()
	# each write with FUA; the end of qemu-io would be another flush
	run qemu-io -f raw -c 'write -P 1 0 64k' -c 'write -P 2 20M 64k' -c 'sigraise 9' "$NBD"
	kill_holder
	assertContains "the first one fails" "$(cat "$WORK/out" "$WORK/err")" "No space left"
	assertContains "the second one does not" "$(cat "$WORK/out")" "wrote 65536/65536"
	run qemu-io -r -f qcow2 -c 'read -P 2 20M 64k' D.qcow2
	assertNotContains "what was flushed" "$(cat "$WORK/out" "$WORK/err")" "failed"
	assert_leaks_at_worst D.qcow2
}

# shellcheck disable=SC1091
. shunit2
