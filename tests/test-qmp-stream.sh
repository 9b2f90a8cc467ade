#!/bin/bash
# SPDX-License-Identifier: MIT
#
# chain-stream --qmp: a storage daemon or a qemu-system merges, and what it merged is safe.

# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=tests/lib-live.sh
. "$TOP/tests/lib-live.sh"
# shellcheck source=tests/lib-qmp.sh
. "$TOP/tests/lib-qmp.sh"

# merged_safely BACKING OPTION...: merge, kill QEMU at once, all is there
merged_safely()
{
	local backing=$1

	shift
	assert_status 0 chain-stream --qmp="$QMP" "$@" D.qcow2
	kill_holder
	assert_content D.qcow2 "$HASH"
	assert_leaks_at_worst D.qcow2
	assertEquals "backing string" "$backing" "$(backing D.qcow2)"
}

testDaemon()
{
	need_daemon || return 0
	make_chain
	daemon D.qcow2
	guest_fill 9 4M 200k
	HASH=$(guest_content)
	assert_status 0 chain-stream -v --qmp="$QMP" -b B.qcow2 D.qcow2
	assert_err 'D.qcow2: merged 1 image; backing file: B.qcow2'
	assert_tidy
	assertEquals "the guest's disk" "$HASH" "$(guest_content)"
	assertEquals B.qcow2 "$(backing D.qcow2)"
	guest_fill 9 100k 200k
	HASH=$(guest_content)
	merged_safely A.qcow2 -b A.qcow2
	daemon D.qcow2
	merged_safely ""
	assertFalse "silent" "[ -s '$WORK/err' ]"
}

testMachine()
{
	need_machine || return 0
	make_chain
	machine D.qcow2
	merged_safely A.qcow2 --depth=2
	machine D.qcow2
	assert_status 0 chain-stream --qmp="$QMP" D.qcow2
	assert_tidy
	assert_status 0 chain-stream --qmp="$QMP" D.qcow2
	assert_err 'nothing to do: has no backing file'
	kill_holder
	assert_content D.qcow2 "$HASH"
	assertEquals "" "$(backing D.qcow2)"
}

# Every kind of image that has something of its own
testKinds()
{
	local options

	need_daemon || return 0
	for options in "-o compat=0.10" "-o cluster_size=512" \
		"-o compression_type=zstd,refcount_bits=1"; do
		rm -f ./*.qcow2
		# shellcheck disable=SC2086
		make_chain $options
		daemon D.qcow2
		merged_safely A.qcow2 -b A.qcow2
	done
}

# alone NODE: what this is for: QEMU loses a stream that it said was complete
alone()
{
	say "{\"execute\": \"block-stream\", \"arguments\": {\"device\": \"$1\", \"job-id\": \"alone\"}}" >out
	until_true 10 bash -c "'$TOP/tests/qmp-tool' say '$QMP2' '{\"execute\": \"query-jobs\"}' | grep -qx '\[\]'"
	kill_holder
	assertNotEquals "QEMU alone keeps it, so our flushes are for nothing" "$HASH" "$(content D.qcow2)"
}

testQemuAloneLosesIt()
{
	need_daemon || return 0
	make_chain
	cp D.qcow2 pristine
	daemon D.qcow2
	alone disk
	need_machine || return 0
	cp pristine D.qcow2
	machine D.qcow2
	alone virtio0
	# and the same with us
	cp pristine D.qcow2
	machine D.qcow2
	merged_safely ""
}

testWorkingFolderOfQemu()
{
	need_daemon || return 0
	mkdir images elsewhere
	cd images && make_chain && cd ../elsewhere || return
	daemon ../images/D.qcow2
	cd .. || return
	assert_status 0 chain-stream --qmp="$QMP" -b images/A.qcow2 images/D.qcow2
	kill_holder
	assertEquals A.qcow2 "$(backing images/D.qcow2)"
	assert_content images/D.qcow2 "$HASH"
}

testOptions()
{
	need_daemon || return 0
	make_chain
	daemon D.qcow2
	assert_status 69 chain-stream --qmp="$QMP" --verify D.qcow2
	assert_one_error
	freeze ./*.qcow2
	assert_status 0 chain-stream --qmp="$QMP" -n -b A.qcow2 D.qcow2
	assert_frozen
	assert_status 0 chain-stream --qmp="$QMP,disk" --print-merged -b A.qcow2 \
		--backing-string="$PWD/A.qcow2" D.qcow2
	assertEquals "$PWD/C.qcow2 $PWD/B.qcow2 " "$(tr '\n' ' ' <"$WORK/out")"
	assertEquals "$PWD/A.qcow2" "$(backing D.qcow2)"
	kill_holder
	assert_content D.qcow2 "$HASH"
}

testJson()
{
	need_daemon || return 0
	make_chain
	daemon D.qcow2
	assert_status 0 chain-stream --qmp="$QMP" --json -b A.qcow2 D.qcow2
	assertEquals "QEMU's own" "created running waiting pending concluded null" \
		"$(jq -r 'select(.event == "JOB_STATUS_CHANGE" and (.data.id | startswith("chain-"))) |
			.data.status' "$WORK/out" | xargs)"
	assertEquals "and ours" "created running waiting pending concluded null" \
		"$(jq -r 'select(.event == "JOB_STATUS_CHANGE" and .data.id == "D.qcow2") |
			.data.status' "$WORK/out" | xargs)"
	assertEquals merged "$(jq -r 'select(.event == "CHAIN_MERGE_RESULT").data.result' "$WORK/out")"
}

testControl()
{
	need_daemon || return 0
	make_slow_chain 32
	daemon D.qcow2
	start chain-stream --qmp="$QMP" --rate=1M D.qcow2
	qmp_merge_runs
	run chain-info --jobs --json D.qcow2
	assertEquals "$HOLDER qemu stream" "$(jq -r '.[] |
		"\(."owner-pid") \(."owner-kind") \(.type)"' "$WORK/out")"
	run chain-info --jobs
	assert_out "$HOLDER qemu-storage"
	# through another socket, too
	assert_status 75 chain-stream --qmp="$QMP2" D.qcow2
	assert_one_error
	assert_err "D.qcow2: chain-stream \(process $PID\) merges it, .* wait .*--cancel"
	assert_status 0 chain-stream --pause D.qcow2
	job_is paused
	assert_status 0 chain-stream --resume D.qcow2
	job_is running
	assert_status 0 chain-stream --set-rate=2M D.qcow2
	until_true 5 bash -c "'$TOP/tests/qmp-tool' say '$QMP2' '{\"execute\": \"query-block-jobs\"}' |
		jq -e '.[].speed == 2097152'" || fail "the rate"
	assert_status 0 chain-stream --cancel D.qcow2
	finish
	assertEquals 75 "$STATUS"
	assert_tidy
	assertEquals B.qcow2 "$(backing D.qcow2)"
	assert_status 75 chain-stream --qmp="$QMP" --rate=1M --time-limit=1 D.qcow2
	assert_err 'the next run goes on from there'
	assert_tidy
	# QEMU's own events wait for a reader, and the merge not for them
	mkfifo pipe
	exec 8<>pipe
	head -c 65536 /dev/zero >&8
	timeout 20 chain-stream --json --qmp="$QMP" --rate=1M --time-limit=1 D.qcow2 >&8 2>"$WORK/err"
	STATUS=$?
	assertEquals "$(cat "$WORK/err")" 75 "$STATUS"
	exec 8>&-
	assert_tidy
	start chain-stream --qmp="$QMP" --rate=1M D.qcow2
	qmp_merge_runs
	kill -INT "$PID"
	finish
	assertEquals 130 "$STATUS"
	assert_tidy
	merged_safely ""
}

# stands_still: the merge in the background says so
stands_still()
{
	until_true 10 grep -q 'no space left.*until chain-stream --resume' "$WORK/bg.err" ||
		fail "it goes on: $(cat "$WORK/bg.err")"
}

# The last 256 MiB are the guest's: a pause until there is room again
testNoRoom()
{
	need_daemon && mount_new tmpfs 260M small || return 0
	make_slow_chain 16
	over small/D.qcow2 "$PWD/B.qcow2"
	HASH=$(content small/D.qcow2)
	daemon small/D.qcow2
	start chain-stream --qmp="$QMP" --rate=4M --on-error=enospc small/D.qcow2
	stands_still
	job_is paused
	assert_status 0 chain-stream --cancel small/D.qcow2
	finish
	assertEquals "$(cat "$WORK/bg.err")" 75 "$STATUS"
	assert_tidy
	assertTrue "it began" "[ $(stat -c %b small/D.qcow2) -gt 4096 ]"
	assertTrue "the guest has room" "[ $(df --output=avail small | tail -n 1) -gt 245760 ]"
	freeze small/D.qcow2
	assert_status 74 chain-stream --qmp="$QMP" small/D.qcow2
	assert_one_error
	assert_err 'no space left: .* kept for the guest'
	rm "$WORK/bg.err"
	start chain-stream --qmp="$QMP" --on-error=stop small/D.qcow2
	stands_still
	assert_frozen
	mount -o remount,size=1G small
	assert_status 0 chain-stream --resume small/D.qcow2
	finish
	assertEquals "$(cat "$WORK/bg.err")" 0 "$STATUS"
	kill_holder
	assert_content small/D.qcow2 "$HASH"
}

# faulty ONCE ERRNO: a daemon whose nodes were all given by name, and where reading B fails
faulty()
{
	daemon D.qcow2 --blockdev driver=qcow2,node-name=a,read-only=on,file.driver=file,file.filename=A.qcow2 \
		--blockdev "driver=blkdebug,node-name=faults,read-only=on,image.driver=file,image.filename=B.qcow2,inject-error.0.event=read_aio,inject-error.0.errno=$2,inject-error.0.once=$1,inject-error.0.immediately=off" \
		--blockdev driver=qcow2,node-name=b,read-only=on,file=faults,backing=a \
		--blockdev driver=qcow2,node-name=c,read-only=on,file.driver=file,file.filename=C.qcow2,backing=b
}

testErrors()
{
	local BACKING=,backing=c how

	need_daemon || return 0
	make_chain
	cp D.qcow2 pristine
	faulty off 5
	assert_status 74 chain-stream --qmp="$QMP" -b A.qcow2 D.qcow2
	assert_one_error
	assert_err 'Input/output error'
	assert_status 74 chain-stream --qmp="$QMP" --on-error=ignore -b A.qcow2 D.qcow2
	assertEquals C.qcow2 "$(backing D.qcow2)"
	assert_tidy
	kill_holder
	for how in stop/5/error enospc/28/no.space.left; do
		IFS=/ read -ra how <<<"$how"
		cp pristine D.qcow2
		faulty on "${how[1]}"
		rm -f "$WORK/bg.err"
		start chain-stream --qmp="$QMP" --on-error="${how[0]}" -b A.qcow2 D.qcow2
		job_is paused
		until_true 5 grep -q "${how[2]}.* until chain-stream --resume" "$WORK/bg.err" ||
			fail "$(cat "$WORK/bg.err")"
		assert_status 0 chain-stream --resume D.qcow2
		finish
		assertEquals 0 "$STATUS"
		kill_holder
		assert_content D.qcow2 "$HASH"
		assertEquals A.qcow2 "$(backing D.qcow2)"
	done
}

# What QEMU would get wrong without a word
testRefused()
{
	need_daemon || return 0
	new A.qcow2 4M
	fill A.qcow2 1 0 4M
	over B.qcow2 A.qcow2 1M
	over C.qcow2 B.qcow2 4M
	cp C.qcow2 D.qcow2
	HASH=$(content D.qcow2)
	daemon D.qcow2
	assert_status 69 chain-stream --qmp="$QMP" -b A.qcow2 D.qcow2
	assert_one_error
	assert_err 'B.qcow2, the layer below it, has only 1 MiB'
	# without a base it is right
	merged_safely ""
	rm -f ./*.qcow2
	make_snapshot_chain
	daemon D.qcow2
	assert_status 69 chain-stream --qmp="$QMP" -b A.qcow2 D.qcow2
	assert_one_error
	assert_err '2 internal snapshots'
	assert_tidy
	kill_holder
	assertEquals "$S1" "$(snapshot_content D.qcow2 s1)"
}

# An assertion of QEMU 7.2 would end the guest
testExtended()
{
	need_daemon || return 0
	make_chain -o extended_l2=on
	daemon D.qcow2
	run chain-stream --qmp="$QMP" -b A.qcow2 D.qcow2
	assertTrue "QEMU lives" "kill -0 $HOLDER"
	# a QEMU where it is mended merges
	if say '{"execute": "query-qmp-schema"}' | grep -q '"block-job-change"'; then
		assertEquals 0 "$STATUS"
	else
		assertEquals 69 "$STATUS"
		assert_one_error
		assert_err 'extended L2'
	fi
	kill_holder
	assert_content D.qcow2 "$HASH"
}

testWrongOnes()
{
	need_daemon || return 0
	make_chain
	new X.qcow2 1M
	assert_status 64 chain-stream --qmp= D.qcow2
	assert_status 66 chain-stream --qmp=nowhere D.qcow2
	assert_status 69 chain-stream --qmp=A.qcow2 D.qcow2
	daemon D.qcow2
	assert_status 69 chain-stream --qmp="$QMP" X.qcow2
	assert_err 'does not have it open'
	assert_status 69 chain-stream --qmp="$QMP,nobody" D.qcow2
	assert_err 'no qcow2 or raw node "nobody"'
	assert_status 69 chain-stream --qmp="$QMP,disk" X.qcow2
	assert_err 'is another file'
	assert_status 69 chain-stream --qmp="$QMP" C.qcow2
	assert_err 'for reading only'
	assert_status 64 chain-stream --qmp="$QMP" -b X.qcow2 D.qcow2
	assert_status 64 chain-stream --qmp="$QMP," D.qcow2
	assert_status 66 chain-stream --qmp="$QMP" Y.qcow2
	assert_tidy
	kill_holder
	assert_status 69 chain-stream --qmp="$QMP" D.qcow2
	assert_one_error
}

testBusySession()
{
	need_daemon || return 0
	make_chain
	daemon D.qcow2
	mkfifo go
	python3 -c 'import socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
s.recv(10)
open("here", "w")
open("go").read()' "$QMP" &
	later "kill -9 $!"
	until_true 5 test -e here
	assert_status 75 chain-stream --qmp="$QMP" D.qcow2
	assert_one_error
	assert_err 'in use by another client'
	start chain-stream --qmp="$QMP" --wait-lock=30s D.qcow2
	# it has called, and nobody has greeted it
	until_true 5 bash -c "readlink /proc/$PID/fd/* | grep -q socket:" || fail "it does not call"
	echo >go
	finish
	assertEquals "$(cat "$WORK/bg.err")" 0 "$STATUS"
}

testSentence()
{
	need_daemon || return 0
	make_chain
	daemon D.qcow2
	assert_status 75 chain-stream D.qcow2
	assert_one_error
	assert_err "in use by pid $HOLDER \(qemu-storage-da\) of user .*--qmp=$QMP asks"
	# of a layer only its reader has, QMP is no way
	assert_status 75 chain-stream B.qcow2
	assert_one_error
	assert_err "B.qcow2: is a layer of $PWD/D.qcow2, which pid $HOLDER \(qemu-storage-da\) "
	assert_err "name that image instead, with --qmp=$QMP\$"
	CHAIN_QMP=$QMP assert_status 0 chain-stream -b A.qcow2 D.qcow2
	kill_holder
	# at rest it is not asked
	CHAIN_QMP=$QMP assert_status 0 chain-stream D.qcow2
	assert_merged D.qcow2 "$HASH" ""
	need_machine || return 0
	machine D.qcow2
	assert_status 75 chain-stream D.qcow2
	assert_err "--qmp=$QMP asks"
}

testRebase()
{
	need_daemon || return 0
	make_chain
	new X.qcow2 5M
	daemon D.qcow2
	assert_status 69 chain-rebase --qmp="$QMP" -b X.qcow2 -F qcow2 D.qcow2
	assert_one_error
	assert_err 'X.qcow2 is not in its chain.* stop the guest'
	assert_status 66 chain-rebase --qmp="$QMP" -b typo.qcow2 D.qcow2
	assert_err 'typo.qcow2: cannot open'
	assert_status 75 chain-rebase --qmp="$QMP" -u -b A.qcow2 -F qcow2 D.qcow2
	assert_one_error
	# and nobody is sent there for it
	refused_too 75 chain-rebase -u -b A.qcow2 -F qcow2 D.qcow2
	assert_one_error
	assert_err "D.qcow2: held by pid $HOLDER .*; stop it first, or rebase without -u$"
	assertFalse "$(cat "$WORK/err")" "grep -q -e --qmp '$WORK/err'"
	assert_status 64 chain-rebase --qmp="$QMP" -b A.qcow2 -F raw D.qcow2
	assert_status 0 chain-rebase --qmp="$QMP" -b "$PWD/B.qcow2" -F qcow2 D.qcow2
	assertEquals "$PWD/B.qcow2" "$(backing D.qcow2)"
	# the file decides, not how it is spelled
	assert_status 0 chain-rebase --qmp="$QMP" -b B.qcow2 D.qcow2
	assert_err 'nothing to do: the base is the direct backing file already'
	assert_status 0 chain-rebase --qmp="$QMP" -b '' D.qcow2
	assert_tidy
	kill_holder
	assert_content D.qcow2 "$HASH"
	assertEquals "" "$(backing D.qcow2)"
}

# shellcheck disable=SC1091
. shunit2
