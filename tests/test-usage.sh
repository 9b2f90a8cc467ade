#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Wrong usage is 64, with a hint; --help, --usage and --version are there.

# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"

testCommonOptions()
{
	local p o

	for p in chain-info chain-snapshot chain-stream chain-rebase; do
		assert_status 0 $p --help
		assert_out Usage
		assert_status 0 $p --usage
		assert_status 0 $p --version
		assert_out "^$p \(chain-tools\) [0-9]"
		run $p --help
		assertTrue "$p takes -q, -v, --json" \
			"grep -q -- --json '$WORK/out' && grep -q -- -q, '$WORK/out' && grep -q -- -v, '$WORK/out'"
		assert_status 64 $p --nonsense
		assert_err "^$p: .*--nonsense"
		assert_one_error
		for o in -Z --quiet=1 --opt= --=; do
			assert_status 64 $p $o D.qcow2
			assert_one_error
		done
	done
	chain-info --help >/dev/full 2>/dev/null
	assertEquals "a failed write" 74 $?
}

# What getopt refuses is told in its words, but escaped as all names are, and by our name.
testOddOptions()
{
	local p word wanted

	for p in chain-info chain-snapshot chain-stream chain-rebase; do
		while IFS='|' read -r word wanted; do
			printf -v word %b "$word"
			# shellcheck disable=SC2016
			assert_status 64 bash -c 'exec -a "$0" "$@"' $'\e[31m' "$(type -P $p)" "$word"
			assert_one_error
			assertEquals "$p: $wanted" "$(head -c $((${#p} + ${#wanted} + 2)) "$WORK/err")"
			assert_err '; see --help$'
			assertEquals "nothing else" "" "$(cat "$WORK/out")"
		done <<-'END'
			--\e[31mx\a|unrecognized option '--\x1b[31mx\x07'
			--a\nb=\\\xe2\x80\xaec\xff|unrecognized option '--a\nb=\\\xe2\x80\xaec\xff'
			--ver=\e|option '--ver=\x1b' is ambiguous; possibilities: '--ver
			-q\e[31m|invalid option -- '\x1b'
			-ü|invalid option -- '\xc3'
			--quiet=\e|option '--quiet' doesn't allow an argument
		END
	done
	assert_status 64 chain-stream D.qcow2 --rate
	assertEquals "chain-stream: option '--rate' requires an argument; see --help" "$(cat "$WORK/err")"
	chain-info -o help >/dev/full 2>err
	assertEquals "what ends while it is parsed says why it failed" \
		"chain-info: standard output: cannot write: No space left on device" "$(cat err)"
}

testWrongArguments()
{
	local args

	make_chain
	freeze ./*.qcow2
	while read -r args; do
		# shellcheck disable=SC2086
		assert_status 64 $args
		assert_one_error
	done <<-END
		chain-stream -b A.qcow2 --depth=2 D.qcow2
		chain-stream --depth=0 D.qcow2
		chain-stream --depth=x D.qcow2
		chain-stream D.qcow2 --depth
		chain-stream --rate
		chain-stream --depth=-1 D.qcow2
		chain-stream D.qcow2 C.qcow2
		chain-stream --rate=fast D.qcow2
		chain-stream --rate=-1 D.qcow2
		chain-stream --time-limit=soon D.qcow2
		chain-stream -j 0 D.qcow2
		chain-stream -j many D.qcow2
		chain-stream --on-error=panic D.qcow2
		chain-stream --print-merged=1 D.qcow2
		chain-stream --pause --resume D.qcow2
		chain-stream -b D.qcow2 D.qcow2
		chain-stream --pause
		chain-stream --time-limit=0 D.qcow2
		chain-stream --rate=0.5 D.qcow2
		chain-stream --rate=0.0009k D.qcow2
		chain-stream --set-rate=0.9 D.qcow2
		chain-stream --backing-string=A.qcow2 D.qcow2
		chain-stream --backing-string=A.qcow2 --depth=1 D.qcow2
		chain-rebase D.qcow2
		chain-rebase -b A.qcow2
		chain-rebase -b A.qcow2 -F nonsense D.qcow2
		chain-snapshot D.qcow2
		chain-snapshot --qmp= D.qcow2 E.qcow2
		chain-snapshot --qmp=socket D.qcow2 E.qcow2 C.qcow2
		chain-stream --qmp= D.qcow2
		chain-snapshot A.qcow2 B.qcow2 C.qcow2
		chain-info --map --check D.qcow2
		chain-info --dot --json D.qcow2
		chain-info --watch=x
		chain-info --watch=0
		chain-info -o NAME D.qcow2
		chain-info --jobs -o NAME
		chain-info --jobs -o IMAGE D.qcow2
		chain-info --watch -o IMAGE
		chain-info --map -o IMAGE D.qcow2
		chain-info --check -o IMAGE D.qcow2
		chain-info --dot -o IMAGE D.qcow2
		chain-info --check -b D.qcow2
		chain-info --dot -n D.qcow2
		chain-info --json -b D.qcow2
		chain-info --json -n D.qcow2
		chain-info --json --map -n D.qcow2
		chain-info --json --jobs -b
		chain-stream --pause --json D.qcow2
		chain-stream --set-rate=1M --json D.qcow2
	END
	assert_status 64 chain-snapshot '' E.qcow2
	assert_err 'IMAGE is empty'
	assert_status 64 chain-snapshot D.qcow2 ''
	assert_err 'OVERLAY is empty'
	for args in "chain-stream" "chain-info" "chain-snapshot" "chain-rebase -b A.qcow2"; do
		# shellcheck disable=SC2086
		assert_status 64 $args
		assert_one_error
		assert_err 'which IMAGE'
	done
	for args in "chain-stream" "chain-info" "chain-rebase -b A.qcow2"; do
		# shellcheck disable=SC2086
		assert_status 64 $args ''
		assert_one_error
	done
	assert_frozen
}

# A value that may be left out stands behind a =; who writes a blank is told.
testOptionalValues()
{
	local args

	make_chain
	while read -r args; do
		# shellcheck disable=SC2086
		assert_status 64 $args
		assert_one_error
		assert_err 'stands behind a =, as in --(wait-lock=5s|print-merged=0), '
	done <<-END
		chain-stream --wait-lock 5s D.qcow2
		chain-stream D.qcow2 --wait-lock 5s
		chain-rebase -b A.qcow2 --wait-lock 5s -n D.qcow2
		chain-stream --print-merged 0 D.qcow2
	END
	assert_status 64 chain-stream --wait-lock D.qcow2 C.qcow2
	assert_err 'one IMAGE at a time'
	assert_status 66 chain-info --watch 5 D.qcow2
	assert_one_error
	assert_err '5: .* --watch=5'
}

# As with --set-rate: 0 is no limit, and no rate at which nothing would be copied.
testRateOfNothing()
{
	make_chain
	assert_status 0 chain-stream -q --rate=0 -b A.qcow2 D.qcow2
	assert_merged D.qcow2 "$HASH" A.qcow2
}

testControlWithoutMerge()
{
	make_chain
	for o in --pause --resume --cancel --set-rate=1M; do
		assert_status 69 chain-stream $o D.qcow2
		assert_one_error
		assert_err "no merge of this image by this user runs \(looked in $CHAIN_RUNTIME_DIR\)$"
	done
	[ "$(id -u)" = 0 ] || return 0
	assert_status 69 env -u CHAIN_RUNTIME_DIR chain-stream --pause D.qcow2
	assert_err 'no merge of this image runs \(looked in /dev/shm/chain-\*\)$'
}

# In the locale that cron has, names are what they are elsewhere, and no lines are drawn.
testPlainLocale()
{
	local name=$'\xc3\xbcber\xff.qcow2' locale

	make_chain
	over "$name" D.qcow2
	for locale in C POSIX C.UTF-8; do
		LIMIT=10 assert_status 0 env LC_ALL=$locale chain-info "$name"
		assert_out '^über\\xff.qcow2 +qcow2'
		LIMIT=10 assert_status 0 env LC_ALL=$locale chain-info --map "$name"
		LIMIT=10 assert_status 0 env LC_ALL=$locale chain-info --jobs "$name"
		LIMIT=10 assert_status 0 env LC_ALL=$locale chain-stream -n -b A.qcow2 "$name"
		assert_out '^über\\xff.qcow2: would merge 3 images'
	done
}

# A closed stdout or stderr does no harm.
testClosedDescriptors()
{
	make_chain
	chain-stream -q -b A.qcow2 D.qcow2 >&- 2>&- <&-
	assertEquals 0 $?
	assert_merged D.qcow2 "$HASH" A.qcow2
}

# Nor where there is no /dev/null to put in their place: what is said never gets to an image.
testClosedWithoutDevices()
{
	local fd

	need_root || return 0
	need unshare || return 0
	make_slow_chain 8
	# but for /dev/shm, where the tests may be
	mkdir -p empty/shm
	start unshare -m bash -c 'mount --rbind /dev/shm empty/shm && mount --rbind empty /dev &&
		exec chain-stream --json --rate=2M -b A.qcow2 D.qcow2 >&- 2>&- <&-'
	merge_runs || fail "the merge does not start"
	for fd in 0 1 2; do
		assertEquals "file of descriptor $fd" / "$(readlink "/proc/$PID/fd/$fd")"
	done
	finish
	assertEquals 74 "$STATUS"
	assert_merged D.qcow2 "$HASH" A.qcow2
}

# Too few open files is no other process's doing, which would be tried again.
testFewFiles()
{
	local n

	make_chain
	for n in 4 5 6 7 8 9; do
		run prlimit --nofile=$n:$n chain-stream -q -n D.qcow2
		assertTrue "$n files: status $STATUS: $(cat "$WORK/err")" \
			"[ $STATUS = 74 ] || [ $STATUS = 0 ]"
		run prlimit --nofile=$n:$n chain-stream -q D.qcow2
		assertTrue "$n files: status $STATUS: $(cat "$WORK/err")" \
			"[ $STATUS = 74 ] || [ $STATUS = 0 ]"
		assert_content D.qcow2 "$HASH"
	done
}

# shellcheck disable=SC1091
. shunit2
