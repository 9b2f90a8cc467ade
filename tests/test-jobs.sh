#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Merges seen and steered from outside: --jobs, --watch, --pause and the rest.

# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"

jobs_json()
{
	run chain-info --jobs --json "$@"
}

# field NAME: of the only job there is
field()
{
	jobs_json
	jq -r ".. | objects | select(has(\"io-status\")) | .\"$1\"" "$WORK/out" | head -n 1
}

prepare()
{
	make_slow_chain 32
}

running()
{
	start chain-stream -q --rate=6M D.qcow2
	merge_runs || fail "the merge does not start"
	until_true 5 field_is status running
}

field_is()
{
	[ "$(field "$1")" = "$2" ]
}

# As everywhere in JSON: what is no UTF-8 is told in a field of its own.
testNamesOfNoUtf8()
{
	mv A.qcow2 $'A\xff'
	qemu-img rebase -u -f qcow2 -F qcow2 -b $'A\xff' B.qcow2 || fail rebase
	mv D.qcow2 $'D\xfe'
	start chain-stream -q --rate=6M -b $'A\xff' $'D\xfe'
	merge_runs || fail "the merge does not start"
	jobs_json
	assertEquals '"D�","D\xfe","D�","D\xfe","A�","A\xff"' "$(jq -r '.[] |
		[.device, ."device-escaped", .image, ."image-escaped", .base, ."base-escaped"] |
		map(split("/")[-1]) | @csv' "$WORK/out")"
}

# As in the other table: another user's text neither speaks to the terminal nor turns a line
# around, and is escaped once.
testOddNames()
{
	local name=$'D\u202e\e[31m\\x41\xff\u00fc' page

	mv D.qcow2 "$name"
	start chain-stream -q --rate=2M "$name"
	merge_runs || fail "the merge does not start"
	assert_status 0 chain-info --jobs -n
	assertEquals 'D\xe2\x80\xae\x1b[31m\\x41\xffü' "$(sed 's|.*/||' "$WORK/out")"
	assert_status 0 env LC_ALL=C chain-info --jobs -n
	assertEquals 'D\xe2\x80\xae\x1b[31m\\x41\xffü' "$(sed 's|.*/||' "$WORK/out")"
	# the type stands behind the names of programs
	for page in "$CHAIN_RUNTIME_DIR"/*; do
		poke "$page" "$(grep -abo stream "$page" | tail -n 1 | cut -d : -f 1)" 73 e2 80 ae 5c 00
	done
	assert_status 0 chain-info --jobs -n
	assert_out '^s\\xe2\\x80\\xae\\\\ +[a-z]+ '
}

testNone()
{
	assert_status 0 chain-info --jobs
	assert_status 0 chain-info --jobs --json
	assertTrue "JSON: $(cat "$WORK/out")" "[ ! -s '$WORK/out' ] || jq . <'$WORK/out' >/dev/null"
	# without headings the lines can be counted
	assert_status 0 chain-info -n --jobs
	assertEquals "" "$(cat "$WORK/out" "$WORK/err")"
	assert_status 0 chain-info -n --jobs D.qcow2
	assertEquals "" "$(cat "$WORK/out" "$WORK/err")"
}

testFields()
{
	local name

	running
	assert_status 0 chain-info --jobs
	assert_out D.qcow2
	assert_status 0 chain-info --jobs D.qcow2
	assert_out D.qcow2
	assert_status 0 chain-info --jobs -b -n D.qcow2
	assertEquals "no headings: $(cat "$WORK/out")" 1 "$(wc -l <"$WORK/out")"
	assert_out '^stream +running +[0-9]+ % +[0-9]{8} '
	assert_no_out '[0-9] [KMG]?i?B|B/s'
	assert_status 0 chain-info --jobs A.qcow2
	assert_no_out D.qcow2
	jobs_json
	for name in type device len offset busy paused speed io-status ready status \
		auto-finalize auto-dismiss; do
		assertTrue "no $name: $(cat "$WORK/out")" \
			"jq -e '.. | objects | select(has(\"io-status\")) | has(\"$name\")' '$WORK/out' >/dev/null"
	done
	assertEquals stream "$(field type)"
	run chain-info --jobs D.qcow2 B.qcow2
	assertEquals "" "$(cat "$WORK/err")"
	assertEquals 6291456 "$(field speed)"
	assertEquals ok "$(field io-status)"
	assertTrue "the worker's pid" "grep -q $PID '$WORK/out'"
}

testPauseAndResume()
{
	local before

	running
	assert_status 0 chain-stream --pause D.qcow2
	until_true 3 field_is status paused || fail "not paused"
	sleep 0.3
	before=$(field offset)
	sleep 0.4
	assertEquals "nothing is copied" "$before" "$(field offset)"
	assert_status 0 chain-stream --set-rate=200M D.qcow2
	assert_status 0 chain-stream --resume D.qcow2
	finish
	assertEquals "$(cat "$WORK/bg.err")" 0 "$STATUS"
	assert_merged D.qcow2 "$HASH" ""
	assert_status 0 chain-info --jobs
	assert_no_out D.qcow2
}

testCancel()
{
	running
	assert_status 0 chain-stream --cancel D.qcow2
	finish
	assertEquals 75 "$STATUS"
	assert_merged D.qcow2 "$HASH" B.qcow2
	assert_status 0 chain-stream -q D.qcow2
	assert_merged D.qcow2 "$HASH" ""
}

# At rest there is no QEMU to ask, whatever the variable says.
testCancelOfNone()
{
	local said

	assert_status 69 chain-stream --cancel D.qcow2
	assert_one_error
	assert_err '^chain-stream: D.qcow2: no merge of this image .*runs'
	said=$(cat "$WORK/err")
	CHAIN_QMP=/any assert_status 69 chain-stream --cancel D.qcow2
	assertEquals "$said" "$(cat "$WORK/err")"
}

testCancelWhilePaused()
{
	running
	assert_status 0 chain-stream --pause D.qcow2
	until_true 3 field_is status paused
	assert_status 0 chain-stream --cancel D.qcow2
	finish
	assertEquals 75 "$STATUS"
	assert_merged D.qcow2 "$HASH" B.qcow2
}

testSetRate()
{
	running
	assert_status 0 chain-stream --set-rate=3M D.qcow2
	until_true 3 field_is speed 3145728 || fail "speed is $(field speed)"
	assert_status 0 chain-stream --set-rate=0 D.qcow2
	finish
	assertEquals 0 "$STATUS"
	assert_merged D.qcow2 "$HASH" ""
}

# A killed worker is not shown as running, and is not in the way of the next.
testKilled()
{
	running
	kill -9 "$PID"
	finish
	assert_status 0 chain-info --jobs
	assert_no_out running
	assert_status 69 chain-stream --pause D.qcow2
	assert_status 0 chain-stream -q D.qcow2
	assert_merged D.qcow2 "$HASH" ""
}

testWatch()
{
	running
	timeout 1 chain-info --watch=0.2 --json >watched 2>/dev/null
	assertTrue "a line per change: $(wc -l <watched)" "[ $(wc -l <watched) -ge 2 ]"
	assertTrue "each is JSON" "jq . <watched >/dev/null"
}

# Who reads it goes away: it ends, also when there is nothing new to print.
testWatchWithoutReader()
{
	# shellcheck disable=SC2016
	start bash -c 'chain-info --jobs --watch=0.2 2>"$0" | head -n 1; echo "${PIPESTATUS[0]}"' \
		"$WORK/said"
	finish
	assertEquals "No active jobs 74" "$(tr '\n' ' ' <"$WORK/bg.out" | sed 's/ $//')"
	assertTrue "$(cat "$WORK/said")" "grep -q 'Broken pipe' '$WORK/said'"
}

# Without CHAIN_RUNTIME_DIR the page lies in /dev/shm/chain-UID.
testDefaultFolder()
{
	[ -w /dev/shm ] || {
		skip "no /dev/shm"
		return 0
	}
	unset CHAIN_RUNTIME_DIR
	start chain-stream -q --rate=6M D.qcow2
	until_true 5 bash -c 'chain-info --jobs --json D.qcow2 | grep -q running' ||
		fail "no job is shown"
	assertEquals 700 "$(stat -c %a "/dev/shm/chain-$(id -u)")"
	kill "$PID"
	finish
	assertEquals 143 "$STATUS"
}

# A umask that takes rights from the user himself: the page is there, and for all to come.
testUmask()
{
	local mask

	for mask in 0177 0277 0777; do
		rm -rf "$CHAIN_RUNTIME_DIR"
		start bash -c "umask $mask && exec chain-stream -q --rate=6M D.qcow2"
		merge_runs || fail "the merge does not start"
		until_true 5 field_is status running || fail "no job is shown"
		assertEquals 700 "$(stat -c %a "$CHAIN_RUNTIME_DIR")"
		assertEquals 600 "$(stat -c %a "$CHAIN_RUNTIME_DIR"/*)"
		kill "$PID"
		finish
	done
}

# A folder that others could write to is not trusted.
testHostileFolder()
{
	chmod 777 "$CHAIN_RUNTIME_DIR"
	run chain-stream -q D.qcow2
	# either refused, or merged without a page; never a page in such a folder
	assertEquals "" "$(ls -A "$CHAIN_RUNTIME_DIR")"
	assert_content D.qcow2 "$HASH"
	assert_sound D.qcow2
	# and that nothing is shown proves nothing
	assert_status 77 chain-info --jobs
	assert_one_error
	assert_err "^chain-info: merges of this user cannot be seen: $CHAIN_RUNTIME_DIR: .* 0700; choose another folder for CHAIN_RUNTIME_DIR$"
	# nobody is told to shut /tmp to others
	chmod 1777 "$CHAIN_RUNTIME_DIR"
	assert_status 77 chain-info --jobs
	assert_err "has mode 1777 and not 0700; choose another folder"
	assert_out '^No active jobs$'
	assert_status 77 chain-info --jobs --json D.qcow2
	assertEquals '[]' "$(cat "$WORK/out")"
	rm -r "$CHAIN_RUNTIME_DIR"
	assert_status 0 chain-info --jobs
	assertEquals "" "$(cat "$WORK/err")"
}

# What cannot be seen is not said to be none.
testControlOfUnseen()
{
	make_slow_chain 32
	start chain-stream --rate=1M D.qcow2
	merge_runs || fail "the merge does not start"
	chmod 755 "$CHAIN_RUNTIME_DIR"
	for WHAT in --pause --resume --cancel --set-rate=1M; do
		assert_status 77 chain-stream $WHAT D.qcow2
		assert_one_error
		assert_err "^chain-stream: D.qcow2: $CHAIN_RUNTIME_DIR: the folder has mode 0755 and not 0700"
	done
	chmod 700 "$CHAIN_RUNTIME_DIR"
	mkdir -m 700 other
	assert_status 69 env CHAIN_RUNTIME_DIR="$PWD/other" chain-stream --pause D.qcow2
	assert_one_error
	assert_err "D.qcow2: no merge of this image by this user runs .looked in $PWD/other.; pid $PID .chain-stream. works on it.* kill $PID stops it$"
	# who is stopped has no rate
	kill -STOP "$PID"
	sleep 5.5
	assert_status 0 chain-info --jobs --json D.qcow2
	assertEquals '["running",0,null]' "$(jq -c '.[0]|[.status,.rate,."time-left"]' "$WORK/out")"
	kill -CONT "$PID"
	kill "$PID"
	finish
	assertEquals 143 "$STATUS"
}

# Not a folder at all
testNoFolder()
{
	local folder

	touch file
	for folder in "$PWD/file" "$PWD/file/below"; do
		CHAIN_RUNTIME_DIR=$folder assert_status 77 chain-info --jobs
		assert_one_error
		assert_err "^chain-info: merges of this user cannot be seen: $folder: .*Not a directory$"
		CHAIN_RUNTIME_DIR=$folder assert_status 77 chain-info --jobs --json D.qcow2
		assertEquals '[]' "$(cat "$WORK/out")"
	done
}

# What can be no image has no merge, and nobody means it.
testNoImage()
{
	mkdir folder
	mkfifo fifo
	LIMIT=10 assert_status 65 chain-info --jobs fifo
	assert_one_error
	assert_err '^chain-info: fifo: is a FIFO, not a disk image$'
	assert_status 65 chain-info --jobs --json folder D.qcow2
	assert_one_error
	assert_err '^chain-info: folder: is a folder, not a disk image$'
	assertEquals '[]' "$(cat "$WORK/out")"
	assert_status 65 chain-info --jobs -q fifo
	assert_one_error
	assert_status 66 chain-info --jobs nosuch
}

# In use by somebody who has no page: whether he merges it is not to be seen.
testNoPage()
{
	qemu_io_holds D.qcow2
	assert_status 0 chain-info --jobs --json D.qcow2 B.qcow2
	assertEquals '[]' "$(cat "$WORK/out")"
	assert_one_error
	assert_err "D.qcow2: in use by pid $PID \(qemu-io\) of user .* in $CHAIN_RUNTIME_DIR, and "
	if [ "$(id -u)" = 0 ]; then
		assertFalse "root is told what root sees" "grep -q 'only root sees' '$WORK/err'"
		# root has looked at all
		assert_status 0 env -u CHAIN_RUNTIME_DIR chain-info --jobs D.qcow2
		assert_err 'no page of a merge of it is in /dev/shm/chain-\*$'
	fi
	assert_status 0 chain-info --jobs -q D.qcow2
	assertEquals "" "$(cat "$WORK/err")"
	exec 7>&-
	wait "$PID"
	assert_status 0 chain-info --jobs D.qcow2
	assertEquals "" "$(cat "$WORK/err")"
}

# shellcheck disable=SC1091
. shunit2
