#!/bin/bash
# SPDX-License-Identifier: MIT
#
# chain-snapshot of an image that a holder serves to a guest, and what chain-info shows of
# such images. SEED.

# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=tests/lib-live.sh
. "$(dirname "$0")/lib-live.sh"

SEED=${SEED:-$RANDOM}

# The page of the holder has this image's name, and no other.
assert_page()
{
	assertEquals "the page of $1" "$(printf '%x-%x' $(($(stat -c %d "$1"))) "$(stat -c %i "$1")")" \
		"$(ls "$CHAIN_RUNTIME_DIR")"
}

# What the guest wrote to D before is in D, what it writes now is in E.
testContent()
{
	need_holder || return 0
	make_chain
	hold D.qcow2 || return 0
	guest_fill 7 3M 200k
	before=$(guest_content)
	assert_status 0 chain-snapshot D.qcow2 E.qcow2
	assertEquals "no terminal, no report" "" "$(cat "$WORK/out" "$WORK/err")"
	freeze A.qcow2 B.qcow2 C.qcow2 D.qcow2
	assertEquals "the disk" "$before" "$(guest_content)"
	assert_page E.qcow2
	cp E.qcow2 other.qcow2
	guest_fill 8 1M 200k
	guest 'write -z 4M 64k' 'discard 128k 64k' 'write -P 9 4900k 10k' flush
	put other.qcow2 "write -s $(seed_file 8) 1M 200k" 'write -z 4M 64k' \
		'write -z 128k 64k' 'write -P 9 4900k 10k'
	HASH=$(content other.qcow2)
	assertEquals "the disk" "$HASH" "$(guest_content)"
	assert_content D.qcow2 "$before"
	release
	assert_merged E.qcow2 "$HASH" D.qcow2
	assertEquals qcow2 "$(backing_format E.qcow2)"
	assert_merged D.qcow2 "$before" C.qcow2
	assert_frozen
	assertEquals "no page" "" "$(ls "$CHAIN_RUNTIME_DIR")"
}

# E is its holder's to write, D a layer that others may read.
testLocks()
{
	need_holder || return 0
	make_chain
	hold D.qcow2 || return 0
	guest 'write 0 64k'
	assert_status 0 chain-snapshot D.qcow2 E.qcow2
	assertFalse "E can be read by nobody" "qemu-io -r -f qcow2 -c 'read 0 512' E.qcow2"
	assertFalse "E is written by its holder" "qemu-io -f qcow2 -c 'write 0 512' E.qcow2"
	assertTrue "D is read by others" "qemu-io -r -f qcow2 -c 'read 0 512' D.qcow2"
	assertTrue "and checked" "qemu-img check -U D.qcow2"
	assertFalse "D is written by nobody" "qemu-io -f qcow2 -c 'write 0 512' D.qcow2"
	assertFalse "C neither" "qemu-io -f qcow2 -c 'write 0 512' C.qcow2"
	assert_status 0 chain-info --check D.qcow2
	assert_status 75 chain-info --check E.qcow2
	# D is at rest: it may have a second overlay
	assert_status 0 chain-snapshot D.qcow2 F.qcow2
	assert_sound F.qcow2
	release
	assertTrue "all is free" "qemu-io -f qcow2 -c 'write 0 512' E.qcow2"
}

# snapshots KIND...: under a load that knows what it wrote; each layer stays as it was
under_load()
{
	local load i last=D.qcow2 next

	need_holder || return 0
	rm -f ./*.qcow2 before frozen made
	make_chain "$@"
	qemu-img convert -O raw D.qcow2 before
	hold D.qcow2 || return 0
	"$TOP/tests/live-load" run --initial before --seed "$SEED" --seconds 300 \
		--until made --final after "$NBD" 2>load.err &
	load=$!
	later "kill -9 $load"
	until_true 10 grep -q begins load.err
	for i in 1 2 3 4; do
		next=E$i.qcow2
		sleep 0.4
		assert_status 0 chain-snapshot $last $next
		cksum $last >>frozen
		last=$next
	done
	assertEquals "still under load" "" "$(grep -v begins load.err)"
	sleep 0.4
	touch made
	wait $load
	STATUS=$?
	assertEquals "seed $SEED: the load: $(tail -n 3 load.err)" 0 $STATUS
	assertEquals "the disk" "$(checksum <after)" "$(guest_content)"
	release
	assertEquals "layers changed" "$(cat frozen)" "$(while read -r _ _ last; do
		cksum "$last"
	done <frozen)"
	assert_merged E4.qcow2 "$(checksum <after)" E3.qcow2
	for i in D E1 E2 E3; do
		assert_sound $i.qcow2
	done
}

testUnderLoad()
{
	under_load
	under_load -o cluster_size=2k
}

testUnderLoadForms()
{
	under_load -o compat=0.10
	under_load -o extended_l2=on,cluster_size=32k
}

# From one file system or folder to another, while the guest writes: snapshot and stream.
testLiveCopy()
{
	need_holder || return 0
	make_slow_chain 16
	mkdir there
	hold D.qcow2 || return 0
	guest_fill 7 3M 200k
	before=$(guest_content)
	assert_status 0 chain-snapshot --absolute D.qcow2 there/F.qcow2
	assertEquals "$PWD/D.qcow2" "$(backing there/F.qcow2)"
	freeze A.qcow2 B.qcow2 D.qcow2
	guest_fill 8 20M 100k
	HASH=$(guest_content)
	start chain-stream -q --rate=16M there/F.qcow2
	live_runs there/F.qcow2
	guest 'write -P 3 9M 64k' 'write -P 9 9M 64k' flush
	finish
	assertEquals "status: $(cat "$WORK/bg.err")" 0 "$STATUS"
	HASH=$(guest_content)
	assert_frozen
	assert_content D.qcow2 "$before"
	assertTrue "D is free" "qemu-io -f qcow2 -c 'read 0 512' D.qcow2"
	release
	rm A.qcow2 B.qcow2 D.qcow2
	assert_merged there/F.qcow2 "$HASH" ""
}

# A worker has the image: the snapshot waits, and says for whom.
testWhileAMergeRuns()
{
	need_holder || return 0
	make_slow_chain 16
	hold D.qcow2 || return 0
	start chain-stream -q --rate=4M D.qcow2
	live_runs
	assert_status 75 chain-snapshot D.qcow2 E.qcow2
	assert_one_error
	assert_err "D.qcow2: chain-stream \(process $PID\) merges it, .*wait.*--cancel"
	assertFalse "nothing is left" "[ -e E.qcow2 ]"
	assert_status 0 chain-stream --set-rate=0 D.qcow2
	finish
	assertEquals "status: $(cat "$WORK/bg.err")" 0 "$STATUS"
	assert_status 0 chain-snapshot D.qcow2 E.qcow2
	assertEquals "the disk" "$HASH" "$(guest_content)"
	release
	assert_merged E.qcow2 "$HASH" D.qcow2
	assert_merged D.qcow2 "$HASH" ""
}

# What was the active image is a layer now: the sentence names the one that is to be named.
testLayerNamed()
{
	local image

	need_holder || return 0
	make_chain
	hold D.qcow2 || return 0
	assert_status 0 chain-snapshot D.qcow2 E.qcow2
	for image in D.qcow2 B.qcow2; do
		LIMIT=20 refused_too 75 chain-stream -q $image
		assert_one_error
		assert_err "$image: is a layer of $PWD/E.qcow2, which pid $HOLDER \(nbdkit\) of user"
		assert_err 'name that image instead$'
	done
	# by the name that it has now, if that is known
	mv E.qcow2 F.qcow2
	LIMIT=20 assert_status 75 chain-stream -q D.qcow2
	assert_err "D.qcow2: is a layer of $PWD/F.qcow2, which "
	rm F.qcow2
	LIMIT=20 assert_status 75 chain-stream -q D.qcow2
	assert_err "D.qcow2: in use by pid $HOLDER \(nbdkit\) of user .* open for reading"
	release
}

# Merge what was the active image a moment ago, and go on.
testSnapshotThenMerge()
{
	need_holder || return 0
	make_chain
	hold D.qcow2 || return 0
	assert_status 0 chain-snapshot D.qcow2 E.qcow2
	guest_fill 7 600k 100k
	assert_status 0 chain-snapshot E.qcow2 F.qcow2
	guest_fill 8 700k 100k
	HASH=$(guest_content)
	assert_status 0 chain-stream -q -b D.qcow2 F.qcow2
	assertEquals "the disk" "$HASH" "$(guest_content)"
	assert_status 0 chain-rebase -q -b A.qcow2 F.qcow2
	assertEquals "the disk" "$HASH" "$(guest_content)"
	release
	assert_merged F.qcow2 "$HASH" A.qcow2
}

testInherits()
{
	need_holder || return 0
	new A.qcow2 3M -o cluster_size=32k,extended_l2=on,compression_type=zstd
	hold A.qcow2 || return 0
	assert_status 0 chain-snapshot --json A.qcow2 E.qcow2
	assertEquals "true 32768 true zstd" "$(jq -r '[.live, ."cluster-size",
		(."format-specific".data | ."extended-l2", ."compression-type")] |
		join(" ")' "$WORK/out")"
	assert_status 0 chain-snapshot -v -o cluster_size=4k,compression_type=zlib E.qcow2 F.qcow2
	assert_err 'F.qcow2: a new overlay of E.qcow2 .*the guest writes to it now'
	guest 'write -P 4 1M 10k' flush
	release
	assertEquals 4096 "$(info F.qcow2 | jq '."cluster-size"')"
	assert_sound F.qcow2
	assert_sound E.qcow2
}

testReuse()
{
	need_holder || return 0
	make_chain
	new E.qcow2 5M -o cluster_size=16k
	mkdir sub
	new sub/F.qcow2 5M
	ln -s sub/F.qcow2 link
	hold D.qcow2 || return 0
	assert_status 0 chain-snapshot --reuse D.qcow2 E.qcow2
	guest_fill 7 1M 100k
	HASH=$(guest_content)
	assert_status 0 chain-snapshot --reuse --absolute E.qcow2 sub/../link
	assert_page sub/F.qcow2
	release
	assert_merged E.qcow2 "$HASH" D.qcow2
	assert_merged sub/F.qcow2 "$HASH" "$PWD/E.qcow2"
}

# refused STATUS ARGUMENT...: and the guest goes on with D
refused()
{
	assert_status "$@"
	assert_one_error
	assert_page D.qcow2
}

testRefused()
{
	local f

	need_holder || return 0
	make_chain
	new small.qcow2 4M
	new full.qcow2 5M
	fill full.qcow2 1 0 64k
	over other.qcow2 A.qcow2
	echo precious >file
	hold D.qcow2 || return 0
	guest 'write 0 64k' flush
	freeze A.qcow2 B.qcow2 C.qcow2 small.qcow2 full.qcow2 other.qcow2 file
	refused 64 chain-snapshot D.qcow2 file
	refused 64 chain-snapshot D.qcow2 D.qcow2
	for f in small full other C D; do
		refused 64 chain-snapshot --reuse D.qcow2 $f.qcow2
	done
	refused 66 chain-snapshot D.qcow2 nowhere/E.qcow2
	refused 64 chain-snapshot -o backing_fmt=raw D.qcow2 E.qcow2
	refused 64 chain-snapshot -o cluster_size=3k D.qcow2 E.qcow2
	CHAIN_RUNTIME_DIR=$WORK/elsewhere assert_status 75 chain-snapshot D.qcow2 E.qcow2
	assert_one_error
	assert_err "in use by pid $HOLDER \(nbdkit\) of user .*$WORK/elsewhere"
	assertFalse "nothing is left" "[ -e E.qcow2 ]"
	# the overlay is in use by somebody else
	new E.qcow2 5M
	qemu_io_holds E.qcow2
	refused 75 chain-snapshot --reuse D.qcow2 E.qcow2
	exec 7>&-
	wait "$PID"
	assert_frozen
	guest 'write 64k 64k' flush
	assert_status 0 chain-snapshot --reuse D.qcow2 E.qcow2
	release
	assert_sound E.qcow2
}

# What the holder says no to goes away again: a folder it may not look into.
testHolderRefuses()
{
	need_root || return 0
	need_ptrace || return 0
	need setpriv || return 0
	need_holder || return 0
	chmod a+x "$WORK"
	make_chain
	chown 65534:65534 . ./*.qcow2
	mkdir -m 700 secret
	# root looks through the pages of all users, in /dev/shm
	unset CHAIN_RUNTIME_DIR
	later "rmdir /dev/shm/chain-65534"
	HOLD_WITH=(setpriv --reuid=65534 --regid=65534 --clear-groups)
	chmod a+rwx "$WORK"
	hold D.qcow2 || return 0
	HOLD_WITH=()
	assert_status 77 chain-snapshot D.qcow2 secret/E.qcow2
	assert_one_error
	assert_err 'D.qcow2: its holder stays with it: .*secret/E.qcow2: .*Permission denied'
	assertFalse "nothing is left" "[ -e secret/E.qcow2 ]"
	mkdir open
	assert_status 0 chain-snapshot D.qcow2 open/E.qcow2
	assertEquals 65534:65534 "$(stat -c %u:%g open/E.qcow2)"
	guest 'write 64k 64k' flush
	# who may not look whether that user has the image does not believe it
	assert_status 75 setpriv --bounding-set=-sys_ptrace --inh-caps=-sys_ptrace \
		chain-stream -q open/E.qcow2
	assert_err 'page says that he holds it, and is not believed'
	assert_status 0 chain-stream -q open/E.qcow2
	release
}

# A holder that only reads lets the image be a layer.
testReadOnlyHolder()
{
	need_holder || return 0
	make_chain
	freeze D.qcow2
	hold D.qcow2 readonly=true || return 0
	assert_status 0 chain-snapshot D.qcow2 E.qcow2
	release
	assert_merged E.qcow2 "$HASH" D.qcow2
	assert_frozen
}

# kill -9 right after it: what the guest flushed is in E.
testHolderKilled()
{
	need_holder || return 0
	make_chain
	hold D.qcow2 || return 0
	guest_fill 7 3M 200k
	HASH=$(guest_content)
	assert_status 0 chain-snapshot D.qcow2 E.qcow2
	kill_holder
	assert_content E.qcow2 "$HASH"
	assert_merged D.qcow2 "$HASH" C.qcow2
	assert_leaks_at_worst E.qcow2
	hold E.qcow2 || return 0
	guest_fill 8 1M 200k
	HASH=$(guest_content)
	kill_holder
	assert_content E.qcow2 "$HASH"
	assert_leaks_at_worst E.qcow2
}

# Killed in the middle of it: the overlay stays, and reads as the disk in either case.
testHolderDies()
{
	need_holder || return 0
	make_chain
	hold D.qcow2 || return 0
	guest_fill 7 3M 200k
	HASH=$(guest_content)
	halt "$HOLDER"
	start chain-snapshot D.qcow2 E.qcow2
	sleep 0.3
	kill_holder
	finish
	assertEquals "$(cat "$WORK/bg.err")" 69 "$STATUS"
	assertEquals "one line: $(cat "$WORK/bg.err")" 1 "$(wc -l <"$WORK/bg.err")"
	[ ! -e E.qcow2 ] || assert_content E.qcow2 "$HASH"
	assert_content D.qcow2 "$HASH"
}

# Killed at any moment: E, if it is there, has all that was flushed.
testHolderKilledInBetween()
{
	local i

	need_holder || return 0
	make_chain
	for i in 1 2 3 4 5 6 7 8; do
		rm -f E.qcow2
		hold D.qcow2 || return 0
		guest_fill "$i" 3M 200k
		HASH=$(guest_content)
		start chain-snapshot -q D.qcow2 E.qcow2
		sleep "0.00$((i * 2 - 2))"
		kill_holder
		finish
		case $STATUS in
		0) [ -e E.qcow2 ] || fail "round $i: no overlay" ;;
		69) grep -q ' died' "$WORK/bg.err" || fail "round $i: $(cat "$WORK/bg.err")" ;;
		*) fail "round $i: status $STATUS, $(cat "$WORK/bg.err")" ;;
		esac
		[ ! -e E.qcow2 ] || assert_content E.qcow2 "$HASH"
		[ ! -e E.qcow2 ] || assert_leaks_at_worst E.qcow2
		assert_content D.qcow2 "$HASH"
		assert_leaks_at_worst D.qcow2
	done
}

# faulty NAME=VALUE...: the next holder's disk is one of tests/preload/faults.c
faulty()
{
	HOLD_WITH=(env "LD_PRELOAD=$(holder_preload) $WORK/faults.so" "$@")
}

# Without the flush at the end that qemu-io makes
guest_writes()
{
	/usr/bin/python3 - "$NBD" <<-'EOF' || fail "the guest's write"
		import nbd, sys
		h = nbd.NBD()
		h.connect_uri(sys.argv[1])
		h.pwrite(b"\x09" * 102400, 4 << 20)
	EOF
}

# It dies at a sync of D in the switch.
testHolderDiesInSwitch()
{
	local n died=0

	need_holder || return 0
	make_faults || return 0
	for n in 1 2 3 4 5; do
		rm -f ./*.qcow2
		make_chain
		faulty FAULT_FILE=/D.qcow2 FAULT_EXIT=$n
		hold D.qcow2 || return 0
		HOLD_WITH=()
		cp D.qcow2 other.qcow2
		guest_writes
		put other.qcow2 'write -P 9 4M 100k'
		run chain-snapshot -q D.qcow2 E.qcow2
		case $STATUS in
		0) ;;
		69) ((++died)) ;;
		*) fail "sync $n: status $STATUS, $(cat "$WORK/err")" ;;
		esac
		! grep -q 'reads as the guest' "$WORK/err" || [ -e E.qcow2 ] ||
			fail "sync $n: no overlay"
		kill_holder 2>/dev/null
		[ -e E.qcow2 ] || continue
		assert_leaks_at_worst E.qcow2
		assert_leaks_at_worst D.qcow2
		# not flushed: the write is there or not
		content E.qcow2 | grep -qx -e "$HASH" -e "$(content other.qcow2)" ||
			fail "sync $n: content"
		assert_status 0 chain-stream -q E.qcow2
		assert_sound E.qcow2
	done
	assertTrue "it died $died times" "[ $died -ge 3 ]"
}

# The last commit of D fails: nothing is switched, and the overlay goes away again.
testSwitchFails()
{
	need_holder || return 0
	make_faults || return 0
	make_chain
	# the L2 table, not the data
	faulty FAULT_FILE=/D.qcow2 FAULT_ERRNO=5 FAULT_FROM=262144 FAULT_TO=327680 \
		FAULT_COUNT=1000
	hold D.qcow2 || return 0
	HOLD_WITH=()
	guest_writes
	refused 74 chain-snapshot D.qcow2 E.qcow2
	assert_err 'D.qcow2: its holder stays with it: .*Input/output error'
	assertFalse "nothing is left" "[ -e E.qcow2 ]"
	assert_status 74 chain-snapshot D.qcow2 E.qcow2
	kill_holder
	assert_leaks_at_worst D.qcow2
	assert_content D.qcow2 "$HASH"
}

# Is the file open in the holder?
holder_has()
{
	find "/proc/$HOLDER/fd" -lname "*/$1" | grep -q .
}

# A signal while its holder switches: that is waited for.
testSignalInSwitch()
{
	need_holder || return 0
	make_faults || return 0
	make_chain
	faulty FAULT_FILE=/D.qcow2 FAULT_SLOW=1500 FAULT_FROM=262144 FAULT_TO=327680 FAULT_COUNT=4
	hold D.qcow2 || return 0
	HOLD_WITH=()
	guest_writes
	start chain-snapshot -q D.qcow2 E.qcow2
	# it is there before the holder is asked; a signal before that ends all
	until_true 5 holder_has E.qcow2
	kill -TERM "$PID"
	finish
	assertEquals "$(cat "$WORK/bg.err")" 0 "$STATUS"
	assert_page E.qcow2
	guest 'write -P 8 3M 64k'
	HASH=$(guest_content)
	release
	assert_merged E.qcow2 "$HASH" D.qcow2
}

# A holder that stands still: a signal ends us; it goes on with D or with E.
testSignal()
{
	need_holder || return 0
	make_chain
	hold D.qcow2 || return 0
	halt "$HOLDER"
	start chain-snapshot D.qcow2 E.qcow2
	sleep 0.2
	kill -TERM "$PID"
	finish
	assertEquals "$(cat "$WORK/bg.err")" 143 "$STATUS"
	assertFalse "nothing was made" "[ -e E.qcow2 ]"
	kill -CONT "$HOLDER"
	assertEquals "the disk" "$HASH" "$(guest_content)"
	assert_status 0 chain-snapshot D.qcow2 E.qcow2
	release
	assert_merged E.qcow2 "$HASH" D.qcow2
}

# Two that race: one of them makes it, the other hears why not.
testRace()
{
	local i pids=() made=0

	need_holder || return 0
	make_chain
	hold D.qcow2 || return 0
	for i in 1 2 3 4; do
		chain-snapshot -q D.qcow2 E$i.qcow2 2>err.$i &
		pids+=($!)
	done
	for i in 0 1 2 3; do
		wait "${pids[i]}" && ((made++))
	done
	# who came later found D a layer again, and made one more overlay of it
	assertTrue "made $made" "[ $made -ge 1 ]"
	assertEquals "$(cat err.*)" $((4 - made)) "$(cat err.* | wc -l)"
	guest 'write -P 9 1M 10k' flush
	assertEquals "the disk of one of them" 1 "$(for i in E?.qcow2; do
		content "$i"
	done | grep -vc "^$HASH")"
	assert_content D.qcow2 "$HASH"
	release
}

testPageDeleted()
{
	need_holder || return 0
	make_chain
	hold D.qcow2 || return 0
	rm "$CHAIN_RUNTIME_DIR"/*
	assert_status 0 chain-snapshot D.qcow2 E.qcow2
	assert_page E.qcow2
	release
	assert_merged E.qcow2 "$HASH" D.qcow2
}

# --- chain-info ------------------------------------------------------------------

# json FILTER: of the top of the chain
json()
{
	chain-info --json "$1" | jq -r ".[0] | $2"
}

testInfo()
{
	need_holder || return 0
	make_chain
	assert_status 0 chain-info D.qcow2
	assert_no_out OWNER
	hold D.qcow2 || return 0
	assert_status 0 chain-info D.qcow2
	assert_out '^IMAGE .* FLAGS +OWNER$'
	assert_out "^D.qcow2 .* in-use +nbdkit $HOLDER since 20[0-9-]+ [0-9:]+, 0 connections$"
	assert_out '^ +`-B.qcow2'
	assert_status 0 chain-info -n -o IMAGE,OWNER D.qcow2
	assert_out "^D.qcow2 +nbdkit $HOLDER since"
	assertEquals "true holder $HOLDER nbdkit $(id -u) 0 null" "$(json D.qcow2 '[."in-use",
		(.owner | .kind, .pid, .program, .uid, .connections), .worker] |
		map(tostring) | join(" ")')"
	assertTrue "since: $(json D.qcow2 .owner.since)" \
		"[ $(($(date +%s) - $(json D.qcow2 '.owner.since | fromdate'))) -lt $((30 * SLOW)) ]"
	qemu-io -f raw -c 'sleep 3000' "$NBD" >/dev/null 2>&1 &
	later "kill -9 $!"
	until_true 3 bash -c 'chain-info D.qcow2 | grep -q ", 1 connection$"' ||
		fail "no connection: $(chain-info D.qcow2)"
	assert_status 75 chain-info --check D.qcow2
	assert_one_error
	assert_err "D.qcow2: in use by pid $HOLDER \(nbdkit\) of user $(id -un): "
	assert_status 0 chain-info --jobs
	assert_out '^No active jobs$'
	assertEquals '[]' "$(chain-info --jobs --json D.qcow2)"
	assert_status 0 chain-snapshot D.qcow2 E.qcow2
	assertEquals "false null" "$(json D.qcow2 '"\(."in-use") \(.owner)"')"
	assertEquals "true holder" "$(json E.qcow2 '"\(."in-use") \(.owner.kind)"')"
	assert_status 69 chain-stream --pause E.qcow2
	kill_holder
	assertEquals "false null" "$(json E.qcow2 '"\(."in-use") \(.owner)"')"
}

# A merge after a snapshot: the page has the new image's name, and is found there.
testJobs()
{
	need_holder || return 0
	make_slow_chain 16
	hold D.qcow2 || return 0
	assert_status 0 chain-snapshot D.qcow2 E.qcow2
	start chain-stream -q --rate=4M E.qcow2
	live_runs E.qcow2
	assert_status 0 chain-info --jobs E.qcow2
	assert_out "^stream +running .* $PID $HOLDER nbdkit +.*E.qcow2"
	assert_status 0 chain-info --jobs D.qcow2
	assert_out '^No active jobs$'
	assertEquals "true true $HOLDER nbdkit holder $PID chain-stream" \
		"$(chain-info --jobs --json | jq -r '.[0] | [.alive, ."owner-alive",
		."owner-pid", ."owner-program", ."owner-kind", ."worker-pid",
		."worker-program"] | map(tostring) | join(" ")')"
	assertEquals "$PID chain-stream stream" \
		"$(json E.qcow2 '.worker | "\(.pid) \(.program) \(.type)"')"
	assert_status 0 chain-info E.qcow2
	assert_out "nbdkit $HOLDER since .*; chain-stream $PID merges$"
	assert_status 0 chain-stream --set-rate=5M E.qcow2
	assert_status 0 chain-stream --pause E.qcow2
	kill -9 "$PID"
	finish
	assertEquals "false true" \
		"$(chain-info --jobs --json | jq -r '.[0] | "\(.alive) \(."owner-alive")"')"
	assert_status 0 chain-info --jobs
	assert_out "^stream +dead .* $PID $HOLDER nbdkit +.*E.qcow2"
	assertEquals null "$(json E.qcow2 .worker)"
	kill_holder
	assertEquals "false false" \
		"$(chain-info --jobs --json | jq -r '.[0] | "\(.alive) \(."owner-alive")"')"
	assert_status 0 chain-info --jobs
	assert_out "$HOLDER nbdkit \(dead\)"
	assert_content E.qcow2 "$HASH"
}

# Looking all the time at an image that is written to: never damage, never a half chain.
testInfoUnderLoad()
{
	local load n

	need_holder || return 0
	make_chain -o cluster_size=512
	qemu-img convert -O raw D.qcow2 before
	hold D.qcow2 || return 0
	"$TOP/tests/live-load" run --initial before --seed "$SEED" --seconds 300 \
		--until looked "$NBD" 2>load.err &
	load=$!
	later "kill -9 $load"
	until_true 10 grep -q begins load.err
	for ((n = 0; n < 12; n++)); do
		((n == 6)) && assert_status 0 chain-stream -q -b A.qcow2 D.qcow2
		kill -0 $load 2>/dev/null || fail "the load has ended"
		assert_status 0 chain-info -v D.qcow2
		assert_out 'A.qcow2 '
		assert_status 0 chain-info --map D.qcow2
	done
	touch looked
	wait $load
	STATUS=$?
	assertEquals "seed $SEED: the load: $(tail -n 3 load.err)" 0 $STATUS
	release
	assert_sound D.qcow2
}

# A snapshot with larger clusters makes zeroing slow that was quick when it was asked for: it
# is done or refused, not half of it and then refused.
testFastZeroMeanwhile()
{
	need_holder || return 0
	/usr/bin/python3 -c 'import nbd' 2>/dev/null || skip "no python3-libnbd" || return 0
	new D.qcow2 64M -o cluster_size=4k
	fill D.qcow2 1 0 64M
	hold D.qcow2
	cat >zeros.py <<-'END'
		import nbd, sys, threading, time
		bad = []
		def run(first):
		    h = nbd.NBD()
		    h.set_strict_mode(0)
		    h.connect_uri(sys.argv[1])
		    for i in range(first, 1024, 6):
		        before = h.pread(12288, i << 16)
		        try:  # three clusters of 4 KiB, one and a half of 8 KiB
		            h.zero(12288, i << 16, nbd.CMD_FLAG_FAST_ZERO)
		        except nbd.Error:
		            if h.pread(12288, i << 16) != before:
		                bad.append(i)
		        time.sleep(0.01)
		    h.shutdown()
		threads = [threading.Thread(target=run, args=(t,)) for t in range(6)]
		for t in threads:
		    t.start()
		for t in threads:
		    t.join()
		print("changed and refused:", bad)
	END
	start /usr/bin/python3 zeros.py "$NBD"
	sleep 0.4
	assert_status 0 chain-snapshot -o cluster_size=8k D.qcow2 E.qcow2
	finish
	assertEquals "changed and refused: []" "$(cat "$WORK/bg.out")"
	release
	assert_sound E.qcow2
}

# shellcheck disable=SC1091
. shunit2
