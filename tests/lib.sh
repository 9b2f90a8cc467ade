# shellcheck shell=bash disable=SC2034 # HASH, OUT and the like are for the tests
# SPDX-License-Identifier: MIT
#
# What the test files share. A test file is
#
#	. "$(dirname "$0")/lib.sh"
#	testThis() { ... }
#	. shunit2
#
# Each test function runs in an empty folder of its own (the working folder), with the
# programs of $BUILD first in PATH and a CHAIN_RUNTIME_DIR of its own. What it starts or
# mounts it announces with `later`, which tearDown undoes in reverse order. What a test
# found is written to $RESULTS, one line each: pass, fail or skip, its name, a reason.

unset CDPATH # with it cd prints where it went, or goes elsewhere
TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
BUILD=${BUILD:-$TOP/build}
WORK=${WORK:-$(mktemp -d "${TMPDIR:-/tmp}/chain-test.XXXXXX")}
RESULTS=${RESULTS:-$WORK/results}
# Sanitizers make everything slower; times that a test allows are scaled by this.
SLOW=${SLOW:-1}
export PATH="$BUILD/bin:$PATH:/usr/sbin:/sbin" LC_ALL=C.UTF-8 TZ=UTC
# leaks: see run; link order: tests preload libraries of their own
export ASAN_OPTIONS=${ASAN_OPTIONS:-exitcode=99:detect_leaks=0:verify_asan_link_order=0}
export UBSAN_OPTIONS=${UBSAN_OPTIONS:-halt_on_error=1:exitcode=99}
# a worker whose holder has died ends at once, with threads that nobody joins
export TSAN_OPTIONS=${TSAN_OPTIONS:-exitcode=99:halt_on_error=1:report_thread_leaks=0}
SHUNIT_PARENT=$(readlink -f "$0")
SHUNIT_COLOR=none
export SHUNIT_PARENT SHUNIT_COLOR

LATER=()
SKIPPED=

later()
{
	LATER+=("$1")
}

undo()
{
	local i

	cd "$WORK" || exit 1
	for ((i = ${#LATER[@]} - 1; i >= 0; i--)); do
		eval "${LATER[i]}" >/dev/null 2>&1
	done
	LATER=()
}

setUp()
{
	SKIPPED=
	rm -rf "$WORK/t" "$WORK/run"
	mkdir -m 755 "$WORK/t"
	mkdir -m 700 "$WORK/run"
	export CHAIN_RUNTIME_DIR="$WORK/run"
	cd "$WORK/t" || exit 1
	declare -F prepare >/dev/null && prepare
	return 0
}

# shunit2 sets the variables that begin with an underscore.
tearDown()
{
	local verdict=pass

	undo
	# after the last test shunit2 calls tearDown once more, without a test's name
	# shellcheck disable=SC2154
	if [ -z "${_shunit_test_:-}" ]; then
		rm -rf "$WORK/t"
		return 0
	fi
	if [ -n "${_shunit_name_:-}" ] || [ "${__shunit_testSuccess:-1}" -ne 0 ]; then
		verdict=fail
	elif [ -n "$SKIPPED" ]; then
		verdict=skip
	fi
	echo "$verdict $_shunit_test_ $SKIPPED" >>"$RESULTS"
	return 0
}

# --- leaving a test out -------------------------------------------------------

# Use as: need jq xfs_io || return 0
skip()
{
	SKIPPED=$*
	startSkipping
}

need()
{
	local tool

	for tool in "$@"; do
		command -v "$tool" >/dev/null && continue
		skip "$tool is not installed"
		return 1
	done
}

# What root needs beside that to believe another user's page: CAP_SYS_PTRACE
need_ptrace()
{
	local caps

	caps=$(sed -n 's/^CapEff:\t/0x/p' /proc/self/status)
	((caps >> 19 & 1)) && return 0
	skip "not allowed to look into other users' processes"
	return 1
}

need_root()
{
	[ "$(id -u)" = 0 ] && return 0
	skip "needs root"
	return 1
}

# mount_new TYPE SIZE FOLDER: a new file system of that size; skips without root or loops
mount_new()
{
	local image

	need_root || return 1
	mkdir -p "$3"
	image=$WORK/fs-$(basename "$3").img
	if [ "$1" = tmpfs ]; then
		mount -t tmpfs -o "size=$2" none "$3" 2>/dev/null
	else
		need "mkfs.$1" || return 1
		truncate -s "$2" "$image"
		"mkfs.$1" -q "$image" >/dev/null 2>&1 &&
			mount -o loop "$image" "$3" 2>/dev/null
	fi || {
		rm -f "$image"
		skip "cannot mount a $1 here"
		return 1
	}
	later "rm -f '$image'"
	later "umount '$(readlink -f "$3")'"
}

# --- running ------------------------------------------------------------------

# To look for leaks takes a sanitized program several times as long. So of what a file runs
# the first of each kind does it (the same programs and options, and the status that is
# wanted), and every eighth of all.
declare -A SOUGHT=()
RUNS=0
seeks_leaks()
{
	local kind="status ${WANTED:-}" word

	# the leak checker cannot run under ptrace
	[[ " $* " != *" strace "* ]] || return 1
	for word in "$@"; do
		[[ $word = chain-* || $word = -* ]] && kind+=" ${word%%=*}"
	done
	((RUNS++ % 8 == 0)) || [ -z "${SOUGHT[$kind]:-}" ] || return 1
	SOUGHT[$kind]=1
}

# run COMMAND...: output in $WORK/out and $WORK/err, exit status in STATUS (124: it hung)
run()
{
	local leaks=0

	seeks_leaks "$@" && leaks=1
	ASAN_OPTIONS="$ASAN_OPTIONS:detect_leaks=$leaks" \
		timeout -k 5 $((${LIMIT:-60} * SLOW)) "$@" >"$WORK/out" 2>"$WORK/err" </dev/null
	STATUS=$?
	return 0
}

assert_status()
{
	local wanted=$1

	shift
	WANTED=$wanted run "$@"
	[ "$STATUS" = "$wanted" ] && return 0
	fail "status $STATUS, wanted $wanted: $*
$(head -c 2000 "$WORK/err")"
	return 0
}

# The last run's stdout (stderr) has, or has not, a match of the extended regex.
assert_out()
{
	assertTrue "no /$1/ on stdout: $(head -c 1500 "$WORK/out")" "grep -aqE -- '$1' '$WORK/out'"
}

assert_no_out()
{
	assertFalse "/$1/ on stdout: $(head -c 1500 "$WORK/out")" "grep -aqE -- '$1' '$WORK/out'"
}

assert_err()
{
	assertTrue "no /$1/ on stderr: $(head -c 1500 "$WORK/err")" "grep -aqE -- '$1' '$WORK/err'"
}

# refused_too STATUS COMMAND...: the run is refused, and the dry run in the same words
refused_too()
{
	local said

	assert_status "$@"
	said=$(cat "$WORK/err")
	assert_status "$@" -n
	assertEquals "the dry run of ${*:2}" "$said" "$(cat "$WORK/err")"
	assertEquals "and no prediction" "" "$(cat "$WORK/out")"
}

# An error is one line: program: file: what is wrong
assert_one_error()
{
	assertEquals "one line of error: $(cat "$WORK/err")" 1 "$(wc -l <"$WORK/err")"
	assert_err '^chain-[a-z]+: '
}

# For `with_faults`: the library of tests/preload/faults.c
make_faults()
{
	need cc || return 1
	[ -e "$WORK/faults.so" ] || cc -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -O2 -shared -fPIC \
		-pthread -o "$WORK/faults.so" "$TOP/tests/preload/faults.c" ||
		fail "cannot compile faults.c"
}

# with_faults FAULT_NAME=VALUE... COMMAND...: run, where faults strike D.qcow2
# `start` with "${FAULTY[@]}" for one in the background.
FAULTY=(env LD_PRELOAD="$WORK/faults.so" FAULT_FILE=/D.qcow2)

with_faults()
{
	run "${FAULTY[@]}" "$@"
}

# start COMMAND...: in the background with default signals; its pid in PID
start()
{
	local leaks=0

	seeks_leaks "$@" && leaks=1
	ASAN_OPTIONS="$ASAN_OPTIONS:detect_leaks=$leaks" \
		env --default-signal=INT,HUP,TERM,QUIT "$@" >"$WORK/bg.out" 2>"$WORK/bg.err" </dev/null &
	PID=$!
	later "kill -9 $PID"
}

# The exit status of what start started, in STATUS.
finish()
{
	wait "$PID" 2>/dev/null
	STATUS=$?
}

# until_true SECONDS COMMAND...
until_true()
{
	local tries=$(($1 * SLOW * 20))

	shift
	while ! "$@" >/dev/null 2>&1; do
		((tries-- > 0)) || return 1
		sleep 0.05
	done
}

# Has the process ended, reaped or not? (bash reaps those that it has started by itself.)
gone()
{
	[ ! -e "/proc/$1" ] || grep -q '^State:.Z' "/proc/$1/status"
}

# Wait until the process has locks on some file. (To ask qemu-img would be to lock, too,
# and can make the one that starts fail.)
holds()
{
	# shellcheck disable=SC2016
	until_true 10 bash -c 'grep -q ^lock: /proc/$1/fdinfo/*' - "$1"
}

# halt PID: returns when it stands still; until one of its threads has taken the signal,
# the others run on
halt()
{
	kill -STOP "$1"
	until_true 10 awk '/^State:/ && !/T/ { exit 1 }' /proc/"$1"/task/*/status
}

# qemu_io_holds FILE: open, as qcow2 unless FORMAT says, in a qemu-io (PID) that waits until we
# close descriptor 7; it asks for commands once it has opened the image
qemu_io_holds()
{
	mkfifo "$WORK/fifo"
	later "rm -f '$WORK/fifo' '$WORK/prompt'"
	qemu-io -f "${FORMAT:-qcow2}" "$1" <"$WORK/fifo" >"$WORK/prompt" 2>&1 &
	PID=$!
	later "kill -9 $PID"
	exec 7>"$WORK/fifo"
	until_true 10 grep -q 'qemu-io>' "$WORK/prompt" || fail "qemu-io: $(cat "$WORK/prompt")"
}

# --- images -------------------------------------------------------------------

# new FILE SIZE [OPTION...]
new()
{
	local file=$1 size=$2

	shift 2
	qemu-img create -q -f qcow2 "$@" -- "$file" "$size" || fail "create $file"
}

# luks FILE [ARGUMENT...]: as new, but encrypted. QEMU measures how fast it hashes, and fails
# now and then where the clock of a process has not moved meanwhile.
luks()
{
	local file=$1 tries

	shift
	for tries in {1..50}; do
		qemu-img create -q -f qcow2 --object secret,id=s,data=geheim -o \
			encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10 "$@" "$file" \
			1M 2>"$WORK/luks" && return 0
		grep -q 'CPU usage' "$WORK/luks" || break
	done
	fail "cannot create $file, encrypted, in $tries tries: $(cat "$WORK/luks")"
}

# over FILE BACKING [SIZE] [OPTION...]: an overlay; the backing format is qcow2 unless
# FORMAT says
over()
{
	local file=$1 backing=$2 size=()

	shift 2
	[[ ${1:-} = [0-9]* ]] && size=("$1") && shift
	qemu-img create -q -f qcow2 -b "$backing" -F "${FORMAT:-qcow2}" "$@" -- "$file" "${size[@]}" ||
		fail "create $file"
}

# put FILE QEMU-IO-COMMAND...
put()
{
	local file=$1 commands=() c

	shift
	for c in "$@"; do
		commands+=(-c "$c")
	done
	qemu-io -f qcow2 "${commands[@]}" -- "$file" >"$WORK/qemu-io" 2>&1 ||
		fail "qemu-io $file: $(cat "$WORK/qemu-io")"
}

# A file of bytes that differ by position and by seed, 1 MiB.
seed_file()
{
	local f=$WORK/seed.$1

	[ -e "$f" ] || seq "$1" 7 9999999 | head -c 1M >"$f"
	echo "$f"
}

# fill FILE SEED OFFSET LENGTH [FLAG...]: position-dependent bytes
fill()
{
	local file=$1 seed=$2 offset=$3 length=$4

	shift 4
	put "$file" "write $* -s $(seed_file "$seed") $offset $length"
}

# poke FILE OFFSET HEX...: change bytes of the file itself
poke()
{
	local file=$1 offset=$2

	shift 2
	# shellcheck disable=SC2059 # the bytes are the format
	printf "$(printf '\\x%s' "$@")" |
		dd of="$file" bs=1 seek="$((offset))" conv=notrunc status=none
}

# peek FILE OFFSET LENGTH: bytes of the file itself, as one hexadecimal number
peek()
{
	od -An -v -tx1 -j "$(($2))" -N "$3" -- "$1" | tr -d ' \n'
}

# Of standard input. What differs by accident has the same one once in four thousand million
# times; one that would also stand up to malice takes the tests a tenth of their time.
checksum()
{
	cksum
}

# The guest's bytes, as a checksum. The oracle: taken before the operation.
content()
{
	local raw

	raw=$(mktemp "$WORK/raw.XXXXXX")
	if ! qemu-img convert -U ${2:+-f "$2"} -O raw "$1" "$raw" 2>"$WORK/convert.err"; then
		echo "unreadable $RANDOM: $(cat "$WORK/convert.err")"
	else
		checksum <"$raw"
	fi
	rm -f "$raw"
}

# Of an internal snapshot of the image.
snapshot_content()
{
	local raw

	raw=$(mktemp "$WORK/raw.XXXXXX")
	qemu-img convert -U -l "snapshot.name=$2" -O raw "$1" "$raw" || echo "unreadable $RANDOM"
	checksum <"$raw"
	rm -f "$raw"
}

info()
{
	qemu-img info -U --output=json -- "$1"
}

# The backing string in the header; nothing if there is none.
backing()
{
	info "$1" | jq -r '."backing-filename" // empty'
}

backing_is()
{
	[ "$(backing "$1")" = "$2" ]
}

backing_format()
{
	info "$1" | jq -r '."backing-filename-format" // empty'
}

bytes()
{
	stat -c %s -- "$1"
}

# What qemu-img check said: how it begins, how it ends
checked()
{
	head -n 3 "$WORK/check"
	tail -n 3 "$WORK/check"
}

# qemu-img check finds neither errors nor leaks.
assert_sound()
{
	qemu-img check -f qcow2 -- "$1" >"$WORK/check" 2>&1 ||
		fail "check of $1: $(checked)"
}

# Leaks at worst (status 3).
assert_leaks_at_worst()
{
	local status

	qemu-img check -f qcow2 -- "$1" >"$WORK/check" 2>&1
	status=$?
	[ $status = 0 ] || [ $status = 3 ] ||
		fail "check of $1: $status $(checked)"
}

assert_content()
{
	assertEquals "content of $1" "$2" "$(content "$1")"
}

# assert_merged FILE HASH BACKING: content as before, sound, and this backing string
assert_merged()
{
	assert_content "$1" "$2"
	assert_sound "$1"
	assertEquals "backing string of $1" "$3" "$(backing "$1")"
}

# merge_result FIELD: of what the merge that ran last with --json says at its end
merge_result()
{
	jq "select(.event == \"CHAIN_MERGE_RESULT\").data.\"$1\"" "$WORK/out"
}

# freeze FILE...; later assert_frozen: none of them has changed by a byte
freeze()
{
	FROZEN=("$@")
	cksum -- "$@" >"$WORK/frozen"
}

assert_frozen()
{
	cksum -- "${FROZEN[@]}" >"$WORK/frozen.now" 2>&1
	diff "$WORK/frozen" "$WORK/frozen.now" >"$WORK/frozen.out" ||
		fail "changed: $(cat "$WORK/frozen.out")"
}

# A <- B <- C <- D in the working folder, 5 MiB, each layer with data, zeros and holes
# of its own, the upper ones partly over the lower ones. Arguments go to create.
make_chain()
{
	new A.qcow2 5M "$@"
	fill A.qcow2 1 0 3M
	over B.qcow2 A.qcow2 "$@"
	fill B.qcow2 2 1M 1M
	put B.qcow2 'write -z 2M 512k'
	over C.qcow2 B.qcow2 "$@"
	fill C.qcow2 3 512k 256k
	fill C.qcow2 4 3M 1M
	over D.qcow2 C.qcow2 "$@"
	fill D.qcow2 5 100k 100k
	fill D.qcow2 6 1300k 60k
	put D.qcow2 'write -z 3584k 128k'
	HASH=$(content D.qcow2)
}

# applied SNAPSHOT: its content in D.qcow2, with the size that it had: convert -l reads no
# further than the image's size of today
applied()
{
	cp D.qcow2 applied.qcow2
	qemu-img snapshot -a "$1" applied.qcow2
	content applied.qcow2
	rm applied.qcow2
}

# make_chain, where D has internal snapshots, s1 (early) and s2 (later)
make_snapshot_chain()
{
	make_chain "$@"
	qemu-img snapshot -c s1 D.qcow2
	fill D.qcow2 7 600k 300k
	put D.qcow2 'write -z 100k 50k'
	qemu-img snapshot -c s2 D.qcow2
	fill D.qcow2 8 2M 200k
	HASH=$(content D.qcow2)
	S1=$(snapshot_content D.qcow2 s1)
	S2=$(snapshot_content D.qcow2 s2)
}

# A <- B <- D with $1 MiB in B (default 64), for merges that take a while under --rate
make_slow_chain()
{
	local n=${1:-64} i commands=()

	new A.qcow2 "$((n * 2))M"
	fill A.qcow2 1 0 1M
	over B.qcow2 A.qcow2
	for ((i = 0; i < n; i++)); do
		commands+=("write -s $(seed_file $((i % 3 + 1))) ${i}M 1M")
	done
	put B.qcow2 "${commands[@]}"
	over D.qcow2 B.qcow2
	fill D.qcow2 5 512k 512k
	HASH=$(content D.qcow2)
}

# Wait until the merge started by `start` shows itself on the page.
merge_runs()
{
	# shellcheck disable=SC2016
	until_true 5 bash -c 'ls -A "$CHAIN_RUNTIME_DIR" | grep -q .'
}
