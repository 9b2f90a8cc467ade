# shellcheck shell=bash disable=SC2034 # NBD, HOLDER and the like are for the tests
# SPDX-License-Identifier: MIT
#
# A holder (nbdkit with our plugin) and its guest, for the tests of images in use. After
# lib.sh:
#
#	hold D.qcow2		the holder is HOLDER, its socket SOCK, its address NBD
#	guest 'write 0 64k'	commands of qemu-io, as the guest
#	release			let it end, as at a shutdown

PLUGIN=$BUILD/nbdkit-chain-plugin.so

# The sanitizers that the plugin is built with, if any
SANITIZERS=$(nm -D "$PLUGIN" 2>/dev/null | sed -n 's/^.* U __\([at]san\)_init$/\1/p')

# A plugin with sanitizers needs their library in the program that loads it, and behind that
# what tests/preload/demangle.c is for. HOLDER_SLEEPS: tests/proof/races/sleeps.c, compiled.
holder_preload()
{
	local name more=$WORK/demangle.so

	for name in $SANITIZERS; do
		[ -e "$more" ] || ${CC:-gcc} -shared -fPIC -o "$more" "$TOP/tests/preload/demangle.c"
		more="$(${CC:-gcc} -print-file-name="lib$name.so") $more"
		echo "$more${HOLDER_SLEEPS:+ $HOLDER_SLEEPS}"
		return
	done
	echo "${HOLDER_SLEEPS:-}"
}

# Why a test is left out, where there can be no holder. Use as: need_holder || return 0
need_holder()
{
	need nbdkit nbdinfo qemu-io qemu-img jq || return 1
	[ -e "$PLUGIN" ] && return 0
	skip "there is no $PLUGIN"
	return 1
}

# hold IMAGE [ARGUMENT...]: HOLD_WITH=(...) goes before nbdkit, HOLD_FILTERS=(...) behind
hold()
{
	local preload leaks=1

	preload=$(holder_preload)
	# what nbdkit's filters do not free is not ours
	[ ${#HOLD_FILTERS[@]} = 0 ] || leaks=0
	SOCK=$WORK/sock
	NBD="nbd+unix:///?socket=$SOCK"
	rm -f "$SOCK" "$WORK/holder.pid"
	env ${preload:+"LD_PRELOAD=$preload"} "ASAN_OPTIONS=$ASAN_OPTIONS:detect_leaks=$leaks" \
		"${HOLD_WITH[@]}" \
		nbdkit -f -U "$SOCK" --pidfile "$WORK/holder.pid" "${HOLD_FILTERS[@]}" \
		"$PLUGIN" "$@" >"$WORK/holder.out" 2>"$WORK/holder.err" </dev/null &
	HOLDER=$!
	later "kill -9 $HOLDER"
	if ! until_true 10 holder_answers; then
		fail "no holder of $1: $(head -c 2000 "$WORK/holder.err")"
		return 1
	fi
}

# Its socket answers, and so its page is there.
holder_answers()
{
	[ -s "$WORK/holder.pid" ] && nbdinfo --size "$NBD"
}

# Wait until a merge of the image (D.qcow2) is under way, and has copied something.
live_runs()
{
	# shellcheck disable=SC2016
	until_true 10 bash -c 'chain-info --jobs --json "$1" |
		jq -e ".[] | select(.alive and .copied > 0)"' - "${1:-D.qcow2}" ||
		fail "no merge runs"
}

# nbdkit 1.32 loses a few bytes of a connection that ends when the server does, whatever its
# plugin: is that all that the address sanitizer found?
leaks_of_nbdkit()
{
	grep -q 'ERROR: LeakSanitizer' "$WORK/holder.err" &&
		! grep ' #1 ' "$WORK/holder.err" | grep -qv '/nbdkit+'
}

# The holder ends in order; its status in STATUS.
release()
{
	kill "$HOLDER" 2>/dev/null
	wait "$HOLDER" 2>/dev/null
	STATUS=$?
	[ $STATUS != 99 ] || ! leaks_of_nbdkit || STATUS=0
	assertEquals "the holder's end: $(head -c 2000 "$WORK/holder.err")" 0 "$STATUS"
}

# As by the kernel when memory runs out.
kill_holder()
{
	kill -9 "$HOLDER"
	wait "$HOLDER" 2>/dev/null
}

# guest QEMU-IO-COMMAND...
guest()
{
	local commands=() c

	for c in "$@"; do
		commands+=(-c "$c")
	done
	qemu-io -f raw "${commands[@]}" "$NBD" >"$WORK/guest" 2>&1 ||
		fail "the guest: $(cat "$WORK/guest")"
	! grep -qi 'fail\|error' "$WORK/guest" || fail "the guest: $(cat "$WORK/guest")"
}

# guest_fill SEED OFFSET LENGTH: as fill, by the guest
guest_fill()
{
	guest "write -s $(seed_file "$1") $2 $3" flush
}

# The guest's bytes as the guest reads them, as a hash (compare with content).
guest_content()
{
	content "$NBD" raw
}

# The backing string in the header of an image in use, and that of its holder's chain.
assert_backing()
{
	assertEquals "backing string of $1" "$2" "$(backing "$1")"
}
