#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Signals, time limits and rates: stop soon, stay good, go on next time.

# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"

milliseconds()
{
	echo $(($(date +%s%N) / 1000000))
}

# stopped_by SIGNAL STATUS
stopped_by()
{
	local size begin took

	make_slow_chain 32
	size=$(bytes D.qcow2)
	start chain-stream -q --rate=8M D.qcow2
	merge_runs || fail "the merge does not start"
	sleep 0.7
	begin=$(milliseconds)
	kill "-$1" "$PID"
	finish
	took=$(($(milliseconds) - begin))
	assertEquals "status after SIG$1: $(cat "$WORK/bg.err")" "$2" "$STATUS"
	assertTrue "stopped after $took ms" "[ $took -le $((1000 * SLOW)) ]"
	assert_merged D.qcow2 "$HASH" B.qcow2
	assertTrue "says how far it is" "[ -s '$WORK/bg.err' ]"
	assertTrue "keeps what it did: $size $(bytes D.qcow2)" \
		"[ $(bytes D.qcow2) -ge $((size + 1048576)) ]"
	assertEquals "no page is left" "" "$(find "$CHAIN_RUNTIME_DIR" -type f)"
	assert_status 0 chain-stream -q D.qcow2
	assert_merged D.qcow2 "$HASH" ""
}

testInterrupt()
{
	stopped_by INT 130
}

testTerminate()
{
	stopped_by TERM 143
}

testHangup()
{
	stopped_by HUP 129
}

# Whoever ignores a signal (SIGHUP by nohup, SIGINT for what a script runs beside itself) goes
# on ignoring it.
testIgnored()
{
	local signal

	for signal in HUP INT TERM; do
		rm -f ./*
		make_slow_chain 8
		start env --ignore-signal="$signal" chain-stream -q --rate=8M D.qcow2
		merge_runs || fail "the merge does not start"
		kill -s "$signal" "$PID"
		finish
		assertEquals "$signal" 0 "$STATUS"
		assert_merged D.qcow2 "$HASH" ""
	done
}

# One event can come twice: timeout(1) signals the process and then its group, and so does a
# terminal that is closed.
testTwice()
{
	local signal

	make_slow_chain 32
	for signal in TERM HUP INT; do
		start chain-stream --rate=4M D.qcow2
		merge_runs || fail "the merge does not start"
		kill -$signal "$PID"
		kill -$signal "$PID"
		sleep 0.02
		kill -$signal "$PID"
		finish
		assertEquals "$signal" $((128 + $(kill -l $signal))) "$STATUS"
		assertTrue "$signal: $(cat "$WORK/bg.err")" "grep -q 'goes on from there' '$WORK/bg.err'"
	done
	assert_status 0 chain-info --check D.qcow2
	assert_no_out leaked
}

# A pipe that is full, and of which nobody reads, is descriptor 8; its name is `pipe`.
full_pipe()
{
	mkfifo pipe
	exec 8<>pipe
	head -c 65536 /dev/zero >&8
}

# unread COMMAND...: as start, with that pipe as its standard output
unread()
{
	# shellcheck disable=SC2016
	start bash -c 'exec "$@" >pipe' - "$@"
}

# Does it end, though nobody reads? The status in STATUS.
ends()
{
	until_true 10 gone "$PID" || fail "it hangs"
	kill -9 "$PID" 2>/dev/null
	finish
}

killed()
{
	kill -TERM "$1"
	gone "$1"
}

# A later one kills what hangs: here on a pipe that nobody reads, for which a merge does not wait.
testLater()
{
	make_slow_chain 32
	full_pipe
	unread chain-snapshot --json D.qcow2 E.qcow2
	until_true 10 grep -q pipe "/proc/$PID/wchan" || fail "it does not wait for a reader"
	kill -TERM "$PID"
	sleep 1.2
	kill -0 "$PID" || fail "it does not hang, so this tests nothing"
	until_true 10 killed "$PID" || kill -9 "$PID"
	finish
	assertEquals 143 "$STATUS"
	exec 8>&-
	assert_status 0 chain-stream -q D.qcow2
	assert_merged D.qcow2 "$HASH" ""
}

# Who does not read what it says does not keep it from ending.
testNobodyReads()
{
	make_slow_chain 32
	full_pipe
	unread chain-stream --json --rate=4M D.qcow2
	merge_runs || fail "the merge does not start"
	sleep 0.5
	kill -TERM "$PID"
	ends
	assertEquals 143 "$STATUS"
	assertTrue "$(cat "$WORK/bg.err")" "grep -q 'goes on from there' '$WORK/bg.err'"
	unread chain-stream --json --rate=4M --time-limit=1s D.qcow2
	ends
	assertEquals "$(cat "$WORK/bg.err")" 75 "$STATUS"
	assertTrue "$(cat "$WORK/bg.err")" "grep -q 'goes on from there' '$WORK/bg.err'"
	assert_merged D.qcow2 "$HASH" B.qcow2
	exec 8>&-
}

# The merge itself waits for no reader. What it said waits for him, until somebody wants it to
# end.
testNobodyReadsTheEnd()
{
	make_slow_chain 8
	cp D.qcow2 fresh.qcow2
	full_pipe
	unread chain-stream --json D.qcow2
	until_true 10 backing_is D.qcow2 "" || fail "it is not merged"
	sleep 0.5
	kill -TERM "$PID"
	ends
	assertEquals 74 "$STATUS"
	assertEquals "chain-stream: D.qcow2: merged; but standard output: cannot write: nobody reads it" \
		"$(cat "$WORK/bg.err")"
	assert_merged D.qcow2 "$HASH" ""
	# what can be asked for no more is on stderr then
	cp fresh.qcow2 D.qcow2
	unread chain-stream --print-merged -b A.qcow2 D.qcow2
	until_true 10 backing_is D.qcow2 A.qcow2 || fail "it is not merged"
	sleep 0.5
	kill -TERM "$PID"
	ends
	assertEquals 74 "$STATUS"
	assertTrue "$(cat "$WORK/bg.err")" \
		"grep -qxF 'chain-stream: D.qcow2: left the chain: $PWD/B.qcow2' '$WORK/bg.err'"
	mv fresh.qcow2 D.qcow2
	unread chain-stream --json D.qcow2
	until_true 10 backing_is D.qcow2 "" || fail "it is not merged"
	head -c 65536 <&8 >zeros
	ends
	assertEquals "$(cat "$WORK/bg.err")" 0 "$STATUS"
	timeout 5 dd bs=64k count=1 status=none <&8 >"$WORK/out"
	assertEquals '"merged"' "$(merge_result result)"
	exec 8>&-
}

# behind_stopped_terminal COMMAND...: as start, with a terminal as its stderr that takes nothing
behind_stopped_terminal()
{
	start python3 -c 'import os, sys, termios
terminal, stderr = os.openpty()
os.set_inheritable(terminal, True)
termios.tcflow(stderr, termios.TCOOFF)
os.dup2(stderr, 2)
os.execvp(sys.argv[1], sys.argv[1:])' "$@"
}

# Nor does who has stopped the terminal (Ctrl-S) on which the bar is drawn.
testStoppedTerminal()
{
	need python3 || return 0
	make_slow_chain 32
	behind_stopped_terminal chain-stream --rate=4M D.qcow2
	merge_runs || fail "the merge does not start"
	sleep 0.5
	kill -TERM "$PID"
	ends
	assertEquals 143 "$STATUS"
	behind_stopped_terminal chain-stream --rate=4M --time-limit=1s D.qcow2
	ends
	assertEquals 75 "$STATUS"
	assert_merged D.qcow2 "$HASH" B.qcow2
}

# unread_terminal FD COMMAND...: as start, with a terminal as its FD that is not stopped, but whose
# other end nobody reads (ssh of a dead network); all but 200 bytes of its room are taken
unread_terminal()
{
	start python3 -c 'import os, sys
def fill(fd, most):
    done = 0
    os.set_blocking(fd, False)
    try:
        while done < most:
            done += os.write(fd, b"x" * min(80, most - done))
    except BlockingIOError:
        pass
    os.set_blocking(fd, True)
    return done
room = fill(os.openpty()[1], 1 << 30)
terminal, other = os.openpty()
os.set_inheritable(terminal, True)
fill(other, room - 200)
os.dup2(other, int(sys.argv[1]))
os.execvp(sys.argv[2], sys.argv[2:])' "$@"
}

# Nor a line that is longer than what there is room for.
testUnreadTerminal()
{
	local long

	need python3 || return 0
	make_slow_chain 32
	unread_terminal 1 chain-stream --json --rate=4M D.qcow2
	merge_runs || fail "the merge does not start"
	sleep 0.5
	kill -TERM "$PID"
	ends
	assertEquals 143 "$STATUS"
	unread_terminal 1 chain-stream --json --rate=4M --time-limit=1s D.qcow2
	ends
	assertEquals 75 "$STATUS"
	# one sentence that is as long
	long=$(printf '%0200d' 0)
	mkdir "$long"
	unread_terminal 2 chain-stream "$long/D.qcow2"
	until_true 5 test -e "/proc/$PID/stat"
	sleep 0.5
	kill -TERM "$PID"
	ends
	assertEquals 66 "$STATUS"
	assert_merged D.qcow2 "$HASH" B.qcow2
}

testTimeLimit()
{
	local begin took size rounds=0

	make_slow_chain 32
	size=$(bytes D.qcow2)
	begin=$(milliseconds)
	assert_status 75 chain-stream -q --rate=8M --time-limit=1s D.qcow2
	took=$(($(milliseconds) - begin))
	assert_one_error
	assertTrue "stopped after $took ms" "[ $took -ge 900 ] && [ $took -le $((2500 * SLOW)) ]"
	assertTrue "keeps what it did" "[ $(bytes D.qcow2) -ge $((size + 2097152)) ]"
	assert_merged D.qcow2 "$HASH" B.qcow2
	# night after night it comes to its end
	STATUS=75
	while [ "$STATUS" = 75 ] && ((rounds++ < 10)); do
		run chain-stream -q --rate=16M --time-limit=0.8s D.qcow2
	done
	assertEquals 0 "$STATUS"
	assertTrue "went on from where it was: $rounds rounds" "[ $rounds -le 6 ]"
	assert_merged D.qcow2 "$HASH" ""
}

# Very loose: not faster than twice the rate.
testRate()
{
	local begin took

	make_slow_chain 16
	begin=$(milliseconds)
	assert_status 0 chain-stream -q -r 8M -b A.qcow2 D.qcow2
	took=$(($(milliseconds) - begin))
	assertTrue "16 MiB at 8 MiB/s took $took ms" "[ $took -ge 1000 ]"
	assert_merged D.qcow2 "$HASH" A.qcow2
}

# A reader of stdout or stderr that goes away does not stop a merge.
testBrokenPipe()
{
	local status

	make_slow_chain 8
	chain-stream --json --rate=16M D.qcow2 2>"$WORK/err" | head -n 1 >/dev/null
	status=${PIPESTATUS[0]}
	assertEquals "merged, then the failed write is told" 74 "$status"
	assert_merged D.qcow2 "$HASH" ""
}

# shellcheck disable=SC1091
. shunit2
