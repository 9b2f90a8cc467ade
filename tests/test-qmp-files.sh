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

# shellcheck disable=SC1091
. shunit2
