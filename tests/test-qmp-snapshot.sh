#!/bin/bash
# SPDX-License-Identifier: MIT
#
# chain-snapshot --qmp: the guest of a QEMU goes on with an overlay that we made.

# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=tests/lib-live.sh
. "$TOP/tests/lib-live.sh"
# shellcheck source=tests/lib-qmp.sh
. "$TOP/tests/lib-qmp.sh"

testSnapshot()
{
	need_daemon || return 0
	make_chain -o cluster_size=128k
	daemon D.qcow2
	guest 'write -P 9 0 64k'
	HASH=$(guest_content)
	assert_status 0 chain-snapshot -v --qmp="$QMP" D.qcow2 E.qcow2
	assert_err 'E.qcow2: a new overlay of D.qcow2 .qcow2., 5 MiB; the guest writes to it now'
	assert_err 'cluster_size=131072'
	assertEquals "the guest's disk" "$HASH" "$(guest_content)"
	freeze D.qcow2
	guest_fill 7 1M 300k
	NEW=$(guest_content)
	assert_frozen
	assert_tidy
	kill_holder
	assert_content E.qcow2 "$NEW"
	assert_content D.qcow2 "$HASH"
	assert_sound D.qcow2
	assertEquals D.qcow2 "$(backing E.qcow2)"
	assertEquals qcow2 "$(backing_format E.qcow2)"
}

# The guest's discard goes on, and a copy to another place is a snapshot and a merge
testCopyElsewhere()
{
	need_daemon || return 0
	make_chain
	mkdir other
	daemon D.qcow2
	assert_status 0 chain-snapshot --qmp="$QMP" --absolute D.qcow2 other/E.qcow2
	guest_fill 7 1M 300k
	guest 'discard 2M 1M' flush
	NEW=$(guest_content)
	assert_status 0 chain-stream --qmp="$QMP" other/E.qcow2
	kill_holder
	assert_content other/E.qcow2 "$NEW"
	assertEquals "" "$(backing other/E.qcow2)"
	assert_content D.qcow2 "$HASH"
	assert_sound D.qcow2
}

testSeveral()
{
	need_machine || return 0
	make_chain
	cp D.qcow2 X.qcow2
	machine D.qcow2 -drive file=X.qcow2,format=qcow2,if=virtio
	# all or none
	new F.qcow2 5M
	assert_status 64 chain-snapshot --qmp="$QMP" D.qcow2 E.qcow2 X.qcow2 F.qcow2
	assert_one_error
	assertFalse "none" "[ -e E.qcow2 ]"
	rm F.qcow2
	assert_status 64 chain-snapshot --qmp="$QMP" D.qcow2 E.qcow2 D.qcow2 F.qcow2
	assert_status 69 chain-snapshot --qmp="$QMP" D.qcow2 E.qcow2 A.qcow2 F.qcow2
	assert_status 64 chain-snapshot --qmp="$QMP" D.qcow2 E.qcow2 X.qcow2
	assert_status 64 chain-snapshot D.qcow2 E.qcow2 X.qcow2 F.qcow2
	cp A.qcow2 rest.qcow2
	CHAIN_QMP=$QMP assert_status 64 chain-snapshot rest.qcow2 E.qcow2 A.qcow2 F.qcow2
	assertFalse "none" "[ -e E.qcow2 -o -e F.qcow2 ]"
	CHAIN_QMP=$QMP assert_status 0 chain-snapshot --json D.qcow2 E.qcow2 X.qcow2 F.qcow2
	assertEquals "E.qcow2 true F.qcow2 true" "$(jq -r '"\(.filename) \(.live)"' "$WORK/out" | xargs)"
	assertEquals "E F" "$(say '{"execute": "query-block"}' |
		jq -r '.[].inserted.image.filename' | sed -E 's|.*/(.).qcow2|\1|' | xargs)"
	kill_holder
	assert_content E.qcow2 "$HASH"
	assert_content F.qcow2 "$HASH"
}

# session_cut WORD WHERE: at `cut` a proxy that ends the session at the client's message with this
# WORD, "before" QEMU has it, "after" its answer (withheld), or when it was "answered"
session_cut()
{
	rm -f cut
	python3 -c 'import json, os, socket, sys
word, where, target = sys.argv[1:]
server = socket.socket(socket.AF_UNIX)
server.bind("cut~")
server.listen(1)
os.rename("cut~", "cut")
peer = server.accept()[0]
client = peer.makefile("rw")
qemu = socket.socket(socket.AF_UNIX)
qemu.connect(target)
qemu = qemu.makefile("rw")
client.write(qemu.readline())
client.flush()
for line in client:
    hit = word in line
    if hit and where == "before":
        break
    qemu.write(line)
    qemu.flush()
    for answer in qemu:
        if hit:
            peer.shutdown(socket.SHUT_RD)  # nothing more is taken
        client.write("" if hit and where == "after" else answer)
        if "event" not in json.loads(answer):
            break
    client.flush()
    if hit:
        break' "$@" "$QMP" 2>"$WORK/cut.err" &
	later "kill -9 $!"
	until_true 5 test -S cut
}

# snapshots SOCKET: of both disks
snapshots()
{
	chain-snapshot --qmp="$1" D.qcow2 E.qcow2 X.qcow2 F.qcow2
}

# The second overlay cannot be made when the first one is there already; and a session that
# ends while QEMU lives on
testSecondFails()
{
	need_machine || return 0
	make_chain
	cp D.qcow2 X.qcow2
	machine D.qcow2 -drive file=X.qcow2,format=qcow2,if=virtio
	assert_status 66 chain-snapshot --qmp="$QMP" D.qcow2 E.qcow2 X.qcow2 nowhere/F.qcow2
	assert_one_error
	assertFalse "none" "[ -e E.qcow2 ]"
	assert_tidy
	export -f snapshots
	# nothing was said yet
	session_cut query-named-block-nodes answered
	assert_status 69 bash -c 'snapshots cut'
	assert_one_error
	assertFalse "not a word of it" "grep -q E.qcow2 '$WORK/err'"
	assertFalse "none" "[ -e E.qcow2 -o -e F.qcow2 ]"
	# said, and not heard
	session_cut transaction before
	assert_status 69 bash -c 'snapshots cut'
	assert_one_error
	assert_err 'E.qcow2, F.qcow2 .*lives and does not have it open.* remove it before'
	assert_content E.qcow2 "$HASH"
	rm E.qcow2 F.qcow2
	# heard, but not answered
	session_cut transaction after
	assert_status 69 bash -c 'snapshots cut'
	assert_err 'has E.qcow2, F.qcow2 open: the guest writes there by now'
	kill_holder
	assert_content E.qcow2 "$HASH"
	assert_content F.qcow2 "$HASH"
}

# What goes wrong when the guest is on the overlay is no error any more
testFailsAfterwards()
{
	need_daemon && make_faults || return 0
	make_chain
	daemon D.qcow2
	with_faults FAULT_SYNC=5 chain-snapshot --qmp="$QMP" D.qcow2 E.qcow2
	assertEquals 0 "$STATUS"
	assert_err 'D.qcow2: .*Input/output error; .*the guest writes to E.qcow2 now'
	guest_fill 7 1M 300k
	assert_content D.qcow2 "$HASH"
}

# It is synced, too (the process dies when it does that)
testDataFile()
{
	need_daemon && make_faults || return 0
	new D.qcow2 2M -o data_file=D.data
	fill D.qcow2 1 0 1M
	HASH=$(content D.qcow2)
	daemon D.qcow2
	with_faults FAULT_FILE=/D.data FAULT_EXIT=1 chain-snapshot --qmp="$QMP" D.qcow2 E.qcow2
	assertEquals 86 "$STATUS"
	assertEquals "$HASH" "$(guest_content)"
}

# QEMU refuses: a job of somebody else has the image
testRefused()
{
	need_daemon || return 0
	make_slow_chain 8
	daemon D.qcow2
	say '{"execute": "block-stream", "arguments": {"device": "disk", "job-id": "other", "speed": 65536}}' >out
	assert_status 75 chain-snapshot --qmp="$QMP" D.qcow2 E.qcow2
	assert_one_error
	assertFalse "no overlay" "[ -e E.qcow2 ]"
	assert_status 75 chain-stream --qmp="$QMP" D.qcow2
	assert_one_error
	say '{"execute": "job-cancel", "arguments": {"id": "other"}}' >out
	new E.qcow2 16M
	freeze E.qcow2
	assert_status 64 chain-snapshot --qmp="$QMP" D.qcow2 E.qcow2
	assert_frozen
	until_true 5 chain-snapshot --qmp="$QMP" --reuse D.qcow2 E.qcow2 || fail "reuse"
	assertEquals D.qcow2 "$(backing E.qcow2)"
	assertEquals "$HASH" "$(guest_content)"
}

# A job that ended and is still there must not make us kill QEMU by a question
testUndismissed()
{
	need_daemon || return 0
	make_chain
	daemon D.qcow2
	say '{"execute": "block-stream", "arguments": {"device": "disk", "job-id": "other", "auto-dismiss": false}}' >out
	job_is concluded
	assert_status 75 chain-snapshot --qmp="$QMP" D.qcow2 E.qcow2
	assert_err 'its job other has ended'
	assert_status 75 chain-stream --qmp="$QMP" D.qcow2
	assertTrue "QEMU lives" "kill -0 $HOLDER"
	say '{"execute": "job-dismiss", "arguments": {"id": "other"}}' >out
	assert_status 0 chain-snapshot --qmp="$QMP" D.qcow2 E.qcow2
}

testRaw()
{
	need_machine || return 0
	truncate -s 3M disk.raw
	seq 100000 | dd of=disk.raw conv=notrunc status=none
	# what a guest may write: a raw disk that looks like an image
	new fake.qcow2 1M
	dd if=fake.qcow2 of=disk.raw bs=64k count=1 conv=notrunc status=none
	HASH=$(content disk.raw raw)
	FORMAT=raw machine disk.raw
	assert_status 65 chain-stream --qmp="$QMP" disk.raw
	assert_status 0 chain-snapshot --qmp="$QMP" disk.raw E.qcow2
	assertEquals raw "$(backing_format E.qcow2)"
	kill_holder
	assert_content E.qcow2 "$HASH"
	# the disk ends with a sector that the file has in part
	rm E.qcow2
	truncate -s 1000001 disk.raw
	FORMAT=raw machine disk.raw
	assert_status 0 chain-snapshot --qmp="$QMP" disk.raw E.qcow2
	assertEquals 1000448 "$(info E.qcow2 | jq '."virtual-size"')"
	kill_holder
	# not the whole of it
	FORMAT=raw,size=65536 machine disk.raw
	assert_status 69 chain-snapshot --qmp="$QMP" disk.raw F.qcow2
	assert_err 'a disk of 65536 bytes where the file has 1000448'
	assertFalse "none" "[ -e F.qcow2 ]"
}

testNobodyUsesIt()
{
	need_daemon || return 0
	make_chain
	daemon D.qcow2
	say '{"execute": "block-export-del", "arguments": {"id": "guest"}}' >out
	assert_status 0 chain-snapshot --qmp="$QMP" D.qcow2 E.qcow2
	assert_err 'no device and no export of it, so it has not opened E.qcow2'
	assert_content E.qcow2 "$HASH"
}

testSentence()
{
	need_daemon || return 0
	make_chain
	daemon D.qcow2
	assert_status 75 chain-snapshot D.qcow2 E.qcow2
	assert_one_error
	assert_err "--qmp=$QMP asks"
	# a layer of its guest is at rest, and so is what somebody else reads or writes
	CHAIN_QMP=$QMP assert_status 0 chain-snapshot A.qcow2 N.qcow2
	over X.qcow2 A.qcow2
	qemu_io_holds X.qcow2
	CHAIN_QMP=$QMP assert_status 75 chain-snapshot X.qcow2 F.qcow2
	CHAIN_QMP=$QMP assert_status 75 chain-stream X.qcow2
	CHAIN_QMP=$QMP assert_status 0 chain-snapshot D.qcow2 E.qcow2
	assertEquals "$HASH" "$(guest_content)"
}

# shellcheck disable=SC1091
. shunit2
