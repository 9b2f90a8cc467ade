#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Which file is it that a QEMU has? Its names are those it was given, and may lead to
# something else by now.

# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=tests/lib-live.sh
. "$TOP/tests/lib-live.sh"
# shellcheck source=tests/lib-qmp.sh
. "$TOP/tests/lib-qmp.sh"

# replace FILE: by a copy of it, so that QEMU has a file without a name
replace()
{
	cp "$1" copy
	mv copy "$1"
}

# refused COMMAND...: with status 69, and nothing was done
refused()
{
	assert_status 69 "$@"
	assert_one_error
	assert_frozen
	assertFalse "no overlay: $*" "[ -e E.qcow2 ]"
}

testReplaced()
{
	local node

	need_daemon || return 0
	make_chain
	daemon D.qcow2
	# a layer
	cp A.qcow2 kept
	replace A.qcow2
	freeze ./*.qcow2
	refused chain-stream --qmp="$QMP" -b A.qcow2 D.qcow2
	assert_err 'has another file .*A.qcow2'
	# the image itself
	replace D.qcow2
	for node in "" ,disk; do
		refused chain-snapshot --qmp="$QMP$node" D.qcow2 E.qcow2
		assert_err 'D.qcow2: .*another file'
		refused chain-stream --qmp="$QMP$node" D.qcow2
		assert_err 'D.qcow2: .*another file'
	done
	assert_tidy
}

# The node is said, and its name leads nowhere: only what QEMU has open is taken
testMoved()
{
	need_daemon || return 0
	make_chain
	daemon D.qcow2
	mv D.qcow2 M.qcow2
	cp M.qcow2 X.qcow2
	freeze ./*.qcow2
	refused chain-snapshot --qmp="$QMP,disk" X.qcow2 E.qcow2
	assert_err 'X.qcow2: .*another file'
	assert_status 0 chain-snapshot --qmp="$QMP,disk" M.qcow2 E.qcow2
	assertEquals "the guest's disk" "$HASH" "$(guest_content)"
	assertEquals M.qcow2 "$(backing E.qcow2)"
}

# The process of another user does not show what it has open; its locks do
testOfAnotherUser()
{
	local user=(setpriv --reuid=65534 --regid=65534 --clear-groups env "PATH=$PATH"
		"CHAIN_RUNTIME_DIR=$PWD/run")

	need_daemon && need_root && need setpriv || return 0
	make_chain
	daemon "$PWD/D.qcow2"
	chmod -R a+rwX . "$QMP"
	mkdir -m 700 run
	chown 65534 run
	"${user[@]}" test -x "$BUILD/bin/chain-snapshot" || {
		skip "the programs are not everybody's"
		return 0
	}
	cp D.qcow2 copy
	chmod a+rw copy
	mv D.qcow2 open
	mv copy D.qcow2
	freeze D.qcow2
	refused "${user[@]}" chain-snapshot --qmp="$QMP" --absolute "$PWD/D.qcow2" "$PWD/E.qcow2"
	mv open D.qcow2
	assert_status 0 "${user[@]}" chain-snapshot --qmp="$QMP" "$PWD/D.qcow2" "$PWD/E.qcow2"
	assertEquals "the guest's disk" "$HASH" "$(guest_content)"
}

# Nodes without names, and a base that QEMU has once for each disk: it refuses those of others
testTwoDisksOnOneBase()
{
	need_machine || return 0
	make_chain
	over X.qcow2 A.qcow2
	machine D.qcow2 -drive file=X.qcow2,format=qcow2,if=virtio
	assert_status 0 chain-stream --qmp="$QMP" -b A.qcow2 D.qcow2
	kill_holder
	assert_content D.qcow2 "$HASH"
	assertEquals A.qcow2 "$(backing D.qcow2)"
	# whichever of them it lists first
	over D.qcow2 C.qcow2
	HASH=$(content D.qcow2)
	machine X.qcow2 -drive file=D.qcow2,format=qcow2,if=virtio
	assert_status 0 chain-stream --qmp="$QMP" -b A.qcow2 D.qcow2
	kill_holder
	assert_content D.qcow2 "$HASH"
}

# A daemon goes to / once it is started, where its relative names lead nowhere.
testDaemonized()
{
	need_machine || return 0
	make_chain
	qemu-system-x86_64 -accel tcg -m 64 -nodefaults -no-user-config -display none -S \
		-qmp unix:vm.qmp,server=on,wait=off -pidfile pid -daemonize \
		-drive file=D.qcow2,format=qcow2,if=virtio,node-name=disk || fail "no QEMU"
	HOLDER=$(cat pid)
	later "kill -9 $HOLDER"
	assert_status 75 chain-stream D.qcow2
	assert_err 'a QEMU; --qmp=vm.qmp asks it'
	assert_status 69 chain-stream --qmp=vm.qmp D.qcow2
	assert_err '--qmp=SOCKET,NODE names its node, of those that query-named-block-nodes lists'
	assert_status 0 chain-stream -q --qmp=vm.qmp,disk D.qcow2
	kill_holder
	assert_merged D.qcow2 "$HASH" ""
}

# A layer that cannot be read, and errors that do not matter: thousands of events
testManyErrors()
{
	need_daemon || return 0
	python3 -c 'import sys
for i in range(8192):
    sys.stdout.buffer.write(bytes([i % 255 + 1]) * 4096 + bytes(4096))' >raw
	qemu-img convert -O qcow2 -o cluster_size=4k raw B.qcow2
	over D.qcow2 B.qcow2 -o cluster_size=4k
	BACKING=,backing=b daemon D.qcow2 \
		--blockdev driver=blkdebug,node-name=faults,read-only=on,image.driver=file,image.filename=B.qcow2,inject-error.0.event=read_aio,inject-error.0.errno=5,inject-error.0.once=off,inject-error.0.immediately=off \
		--blockdev driver=qcow2,node-name=b,read-only=on,file=faults
	start chain-stream --qmp="$QMP" --on-error=ignore D.qcow2
	until_true 5 grep -q 'met an error' "$WORK/bg.err"
	kill -INT "$PID"
	until_true 3 gone "$PID" || fail "a signal was not heeded"
	kill -9 "$PID"
	finish
	assertEquals 130 "$STATUS"
	assert_tidy
}

# shellcheck disable=SC1091
. shunit2
