# shellcheck shell=bash
# SPDX-License-Identifier: MIT
# For test files that compare chain-info --json with qemu-img info, on top of lib.sh.

# Is the second an extension of the first? Objects may have more fields, nothing else.
# shellcheck disable=SC2016
SUPERSET='def ext($q; $o):
	if ($q | type) == "object" then
		($o | type) == "object" and all($q | keys[]; ext($q[.]; $o[.]))
	elif ($q | type) == "array" then
		($o | type) == "array" and ($q | length) == ($o | length)
		and all(range($q | length); ext($q[.]; $o[.]))
	else $q == $o end;
	.[0] as $q | .[1] as $o | ext($q; $o)'

# same IMAGE [STATUS]: both programs say the same of it, ours with that status (0)
same()
{
	qemu-img info -U --backing-chain --output=json -- "$1" >"$WORK/q" 2>"$WORK/err" ||
		fail "qemu-img info $1: $(cat "$WORK/err")"
	assert_status "${2:-0}" chain-info --json -- "$1"
	assertEquals "one line" 1 "$(wc -l <"$WORK/out")"
	[ "$(jq -s "$SUPERSET" "$WORK/q" "$WORK/out")" = true ] ||
		fail "$1 differs: $(jq -c . "$WORK/q")
$(cat "$WORK/out")"
}

# made FORMAT FILE SIZE [OPTION...]: an image of another format
made()
{
	local format=$1 file=$2 size=$3

	shift 3
	rm -f "$file"
	qemu-img create -q -f "$format" "$@" -- "$file" "$size" || fail "create $file"
}

# luks_file FILE [OPTION...]: as luks of lib.sh, and this is why it tries again
luks_file()
{
	local file=$1 tries

	shift
	for tries in {1..50}; do
		qemu-img create -q -f luks --object secret,id=s,data=geheim \
			-o key-secret=s,iter-time=10 "$@" "$file" 1M 2>"$WORK/luks" && return 0
	done
	fail "cannot create $file in $tries tries: $(cat "$WORK/luks")"
}
