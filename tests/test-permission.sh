#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Without permission: 77, and the sentence names the file.

# shellcheck disable=SC2086 # NOBODY is several words
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"

# A user who owns nothing here
NOBODY="setpriv --reuid=65534 --regid=65534 --clear-groups"

prepare()
{
	make_chain
}

allowed()
{
	need_root && need setpriv || return 1
	# shellcheck disable=SC2086
	$NOBODY "$BUILD/bin/chain-info" --version >/dev/null 2>&1 &&
		$NOBODY test -r "$PWD/A.qcow2" && return 0
	skip "another user does not get at the programs or at the test's folder"
	return 1
}

testReadOnlyFile()
{
	allowed || return 0
	freeze ./*.qcow2
	assert_status 77 $NOBODY chain-stream -q D.qcow2
	assert_one_error
	assert_err D.qcow2
	assert_status 0 $NOBODY chain-info D.qcow2
	assert_frozen
}

# To foretell what one may not do is no use.
testDryRun()
{
	allowed || return 0
	freeze ./*.qcow2
	refused_too 77 $NOBODY chain-stream -q D.qcow2
	assert_err 'D.qcow2: cannot open for writing: Permission denied'
	refused_too 77 $NOBODY chain-rebase -q -b A.qcow2 D.qcow2
	refused_too 77 $NOBODY chain-rebase -q -u -b A.qcow2 -F qcow2 D.qcow2
	assert_status 0 chain-stream -q -n D.qcow2
	assert_frozen
	over E.qcow2 D.qcow2 -o data_file=E.raw
	chown 65534 E.qcow2
	refused_too 77 $NOBODY chain-stream -q E.qcow2
	assert_err 'E.raw: cannot open for writing: Permission denied'
	chown 65534 E.raw D.qcow2
	assert_status 0 $NOBODY chain-stream -q -n E.qcow2
	assert_status 0 $NOBODY chain-stream -q -n -b A.qcow2 D.qcow2
}

testUnreadableLayer()
{
	allowed || return 0
	chown 65534 D.qcow2
	chmod 600 B.qcow2
	freeze ./*.qcow2
	assert_status 77 $NOBODY chain-stream -q D.qcow2
	assert_one_error
	assert_err B.qcow2
	run $NOBODY chain-info D.qcow2
	assertEquals 77 "$STATUS"
	assert_out B.qcow2
	assert_frozen
}

testSnapshotIntoForeignFolder()
{
	allowed || return 0
	assert_status 77 $NOBODY chain-snapshot D.qcow2 E.qcow2
	assertFalse "no file" "[ -e E.qcow2 ]"
}

# A user who owns the active image only can merge it: layers are only read.
testOwnImage()
{
	allowed || return 0
	chown 65534 D.qcow2
	mkdir -m 700 "$WORK/run2"
	later "rm -rf '$WORK/run2'"
	chown 65534 "$WORK/run2"
	CHAIN_RUNTIME_DIR=$WORK/run2 assert_status 0 $NOBODY chain-stream -q -b A.qcow2 D.qcow2
	assert_merged D.qcow2 "$HASH" A.qcow2
}

# Who holds it may be another user's, or a process that is ending: a short while is given to
# it, then the sentence says that nobody is to be seen.
testHolderNotToBeSeen()
{
	allowed || return 0
	mkdir -m 700 "$WORK/run2"
	later "rm -rf '$WORK/run2'"
	chown 65534 "$WORK/run2" D.qcow2
	start qemu-nbd -t -f qcow2 -k "$WORK/nbd.sock" D.qcow2
	holds "$PID"
	CHAIN_RUNTIME_DIR=$WORK/run2 LIMIT=20 assert_status 75 $NOBODY chain-stream -q D.qcow2
	assert_one_error
	assert_err 'D.qcow2: in use by another process, which /proc does not show to this user'
	(
		sleep 0.3
		kill "$PID"
	) &
	CHAIN_RUNTIME_DIR=$WORK/run2 assert_status 0 $NOBODY chain-stream -q -b A.qcow2 D.qcow2
	assert_merged D.qcow2 "$HASH" A.qcow2
	finish
}

# A folder that the user named, and that is another's, is a wrong choice.
testFolderOfAnother()
{
	allowed || return 0
	mkdir -m 700 "$WORK/run2"
	later "rm -rf '$WORK/run2'"
	chown 65533 "$WORK/run2"
	CHAIN_RUNTIME_DIR=$WORK/run2 assert_status 77 chain-info --jobs
	assert_one_error
	assert_err 'belongs to user 65533 and not to 0; choose another folder for CHAIN_RUNTIME_DIR$'
}

# The page of a merge is its user's: another one is told that there may be one.
testMergeOfAnother()
{
	allowed || return 0
	mkdir -m 700 "$WORK/run2"
	later "rm -rf '$WORK/run2'"
	chown 65534 "$WORK/run2"
	start chain-stream -q --rate=100k D.qcow2
	merge_runs || fail "the merge does not start"
	CHAIN_RUNTIME_DIR=$WORK/run2 assert_status 0 $NOBODY chain-info --jobs D.qcow2
	assert_out '^No active jobs$'
	assert_one_error
	assert_err "D.qcow2: in use by another process, which /proc .* in $WORK/run2"
	CHAIN_RUNTIME_DIR=$WORK/run2 assert_status 75 $NOBODY chain-info --check D.qcow2
	assert_one_error
	assert_err "D.qcow2: in use by another process, which /proc .*: its tables change"
}

testReadOnlyFileSystem()
{
	mkdir ro
	mount_new tmpfs 64M ro || return 0
	cp ./*.qcow2 ro/
	mount -o remount,ro ro
	refused_too 77 chain-stream -q ro/D.qcow2
	assert_one_error
	assert_status 0 chain-info ro/D.qcow2
}

# shellcheck disable=SC1091
. shunit2
