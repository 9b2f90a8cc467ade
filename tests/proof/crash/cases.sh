# shellcheck shell=bash disable=SC2034 # ACTIVE and the like are for record.sh
# SPDX-License-Identifier: MIT
#
# The runs that are recorded. case_NAME makes a chain in the working folder, calls `before`,
# and then what is recorded, with RECORD before each program. It may set
#
#	ACTIVE=D.qcow2		what may be the active image, the first that is there counts;
#				NAME+: only once it has a backing file
#	BACKING=-		the backing string when all has ended, -: not looked at
#	RESUME=()		the command that goes on after a power cut
#
# Peers are named peer-...: the same of QEMU, printed beside ours. Those of $LIVE are of
# images in use; $REFLINK is recorded on a file system that can clone.

AT_REST="to-base to-none zlib zstd packed-active extended extended-16k v2 v2-base c512 c512-base
	growth snapshots snapshots-v2 data-file lazy r1 short raw-odd rebase rebase-extended
	snapshot snapshot-v2 reuse"
REFLINK="reflink reflink-base reflink-growth"
LIVE="live-merge live-to-none live-extended live-v2 live-data-file live-c4k live-packed
	live-quiet live-rebase live-snapshot live-snapshots live-snapshots-v2
	live-snapshots-16k"
PEERS="peer-rebase-base peer-rebase-none peer-rebase-extended peer-rebase-zlib
	peer-stream-base peer-stream-none peer-stream-zlib"
# What stands beside these peers
BESIDE="to-base to-none extended-base zlib"

# merge KIND [BASE]
merge()
{
	make_kind "$1"
	BACKING=${2:-}
	RESUME=(chain-stream -q ${2:+-b "$2"} D.qcow2)
	before
	"${RECORD[@]}" "${RESUME[@]}"
}

case_to-base() { merge v3 A.qcow2; }
case_to-none() { merge v3; }
case_zlib() { merge zlib; }
case_zstd() { merge zstd; }
case_packed-active() { merge packed-active; }
case_extended() { merge extended; }
case_extended-base() { merge extended A.qcow2; }
case_extended-16k() { merge extended-16k; }
case_v2() { merge v2; }
case_v2-base() { merge v2 A.qcow2; }
case_c512() { merge c512; }
case_c512-base() { merge c512 A.qcow2; }
case_snapshots() { merge snapshots; }
case_snapshots-v2() { merge snapshots-v2; }
case_data-file() { merge data-file; }
case_lazy() { merge lazy; }
case_r1() { merge r1; }
case_short() { merge short A.qcow2; }
case_raw-odd() { merge raw-odd A.raw; }
case_reflink() { merge v3; }
case_reflink-base() { merge v3 A.qcow2; }

# grow CLUSTER SIZE WRITTEN: a full base of that size is merged; refcounts need much room.
grow()
{
	local o=cluster_size=$1,refcount_bits=64

	new A.qcow2 "$2" -o "$o"
	fill A.qcow2 1 0 "$2"
	over D.qcow2 A.qcow2 -o "$o"
	fill D.qcow2 2 100k "$3"
	BACKING=
	RESUME=(chain-stream -q D.qcow2)
	before
	"${RECORD[@]}" "${RESUME[@]}"
}

# New refcount blocks are shown while clones are made.
case_reflink-growth() { grow 4k 12M 40k; }

# The refcount table of so small clusters is soon full and moves.
case_growth() { grow 512 4M 10k; }

# To an image that is not in the chain, and has some of it
rebase()
{
	make_kind "$1"
	new N.qcow2 5M
	fill N.qcow2 1 0 2M
	fill N.qcow2 9 4M 300k
	BACKING=N.qcow2
	RESUME=(chain-rebase -q -b N.qcow2 -F qcow2 D.qcow2)
	before
	"${RECORD[@]}" "${RESUME[@]}"
}

case_rebase() { rebase v3; }
case_rebase-extended() { rebase extended; }

# With nothing of the overlay durable, D is what the guest is started from.
snapshot()
{
	make_kind "$1"
	ACTIVE=E.qcow2,D.qcow2
	BACKING=D.qcow2
	before
	"${RECORD[@]}" chain-snapshot D.qcow2 E.qcow2
}

case_snapshot() { snapshot v3; }
case_snapshot-v2() { snapshot v2; }

# E is there before, empty: D is the active image until E has its backing file.
case_reuse()
{
	make_kind v3
	over E.qcow2 D.qcow2
	qemu-img rebase -q -u -b '' E.qcow2
	ACTIVE=E.qcow2+,D.qcow2
	BACKING=D.qcow2
	before
	"${RECORD[@]}" chain-snapshot --reuse D.qcow2 E.qcow2
}

# --- in use -------------------------------------------------------------------

# live COMMAND...: while a guest writes
live()
{
	local sock=$WORK/sock i

	before
	rm -f "$sock" "$WORK/holder.pid"
	"${RECORD[@]}" nbdkit -f -U "$sock" --pidfile "$WORK/holder.pid" "$PLUGIN" D.qcow2 \
		2>"$WORK/holder.err" &
	HOLDER=$!
	for ((i = 0; i < 200; i++)); do
		[ -s "$WORK/holder.pid" ] && break
		sleep 0.05
	done
	env ${QUIET:+QUIET=1} RECORD_LOG="$RECORD_LOG" RECORD_FOLDER="$RECORD_FOLDER" "$HERE/guest.py" \
		"$RECORDER" "$SEED" "$CONTENT" "nbd+unix:///?socket=$sock" >"$WORK/guest.out" &
	GUEST=$!
	for ((i = 0; i < 200; i++)); do
		[ -s "$WORK/guest.out" ] && break
		sleep 0.05
	done
	"${RECORD[@]}" "$@" || fail "status $?: $*"
	sleep 0.1
	kill $GUEST
	wait $GUEST || fail "the guest: $?"
	GUEST=
	kill $HOLDER
	wait $HOLDER || fail "the holder: $? $(cat "$WORK/holder.err")"
	HOLDER=
}

# live_merge KIND [BASE]: long enough for the guest, unless RATE is empty
RATE=4M
live_merge()
{
	make_kind "$1"
	BACKING=${2:-}
	RESUME=(chain-stream -q ${2:+-b "$2"} D.qcow2)
	live chain-stream -q ${RATE:+-r "$RATE"} ${2:+-b "$2"} D.qcow2
}

case_live-merge() { live_merge v3 A.qcow2; }
case_live-to-none() { live_merge v3; }
case_live-extended() { live_merge extended; }
case_live-v2() { live_merge v2 A.qcow2; }
case_live-data-file() { live_merge data-file; }
case_live-c4k() { live_merge c4k; }
case_live-quiet() { RATE='' QUIET=1 live_merge v3; }
case_live-packed() { live_merge packed-active; }
# with internal snapshots
case_live-snapshots() { live_merge snapshots; }
case_live-snapshots-v2() { live_merge snapshots-v2 A.qcow2; }
case_live-snapshots-16k() { live_merge snapshots-16k; }

# To an image that is not in the chain
case_live-rebase()
{
	make_kind v3
	new N.qcow2 5M
	fill N.qcow2 1 0 2M
	BACKING=N.qcow2
	RESUME=(chain-rebase -q -b N.qcow2 -F qcow2 D.qcow2)
	live chain-rebase -q -r 4M -b N.qcow2 -F qcow2 D.qcow2
}

case_live-snapshot()
{
	make_kind v3
	ACTIVE=E.qcow2,D.qcow2
	BACKING=D.qcow2
	live chain-snapshot D.qcow2 E.qcow2
}

# --- QEMU ---------------------------------------------------------------------

# peer_rebase KIND [BASE]
peer_rebase()
{
	make_kind "$1"
	BACKING=${2:-}
	before
	"${RECORD[@]}" qemu-img rebase -b "${2:-}" ${2:+-F qcow2} D.qcow2
}

case_peer-rebase-base() { peer_rebase v3 A.qcow2; }
case_peer-rebase-none() { peer_rebase v3; }
case_peer-rebase-extended() { peer_rebase extended A.qcow2; }
case_peer-rebase-zlib() { peer_rebase zlib; }

# until_line PATTERN: of what the daemon says
until_line()
{
	local line

	while IFS= read -r -t 60 line <&"${DAEMON[0]}"; do
		[[ $line != *$1* ]] || return 0
	done
	fail "the daemon did not say $1"
}

# peer_stream KIND [NODE]: of the chain of nodes D C B A. Not of extended L2: the daemon of
# QEMU 7.2 dies of an assertion (bdrv_co_do_copy_on_readv).
peer_stream()
{
	local node below='' nodes=() pid

	make_kind "$1"
	BACKING=${2:+$2.qcow2}
	before
	for node in A B C D; do
		nodes+=(--blockdev "driver=qcow2,node-name=$node,file.driver=file$(
			)${below:+,backing=$below},file.filename=$node.qcow2,file.aio=threads")
		below=$node
	done
	coproc DAEMON { exec "${RECORD[@]}" qemu-storage-daemon "${nodes[@]}" \
		--chardev stdio,id=q --monitor chardev=q; }
	pid=$DAEMON_PID
	echo '{"execute": "qmp_capabilities"}' >&"${DAEMON[1]}"
	echo "{\"execute\": \"block-stream\", \"arguments\": {\"job-id\": \"j\",
		\"device\": \"D\"${2:+, \"base-node\": \"$2\"}}}" >&"${DAEMON[1]}"
	until_line BLOCK_JOB_COMPLETED
	echo '{"execute": "quit"}' >&"${DAEMON[1]}"
	wait "$pid"
}

case_peer-stream-base() { peer_stream v3 A; }
case_peer-stream-none() { peer_stream v3; }
case_peer-stream-zlib() { peer_stream zlib; }
