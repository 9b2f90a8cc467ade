#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Chains in which an image of another format has a part: what they run into, who has it open,
# how it is encrypted, where it stands in a graph.
# shellcheck source=lib.sh disable=SC1091
. "$(dirname "$0")/lib.sh"
# shellcheck source=lib-info.sh disable=SC1091
. "$TOP/tests/lib-info.sh"

prepare()
{
	need qemu-img jq
}

# layers EXPRESSION: of each layer that chain-info told as JSON
layers()
{
	jq -r ".[] | $1" "$WORK/out" | xargs
}

# A circle is told where it closes, and the image that is met again only by its name.
testLoop()
{
	local format

	for format in qcow qed; do
		made $format a 1M -u -b b -F $format
		made $format b 1M -u -b a -F $format
		LIMIT=2 assert_status 65 chain-info --json a
		assertEquals $format "unsupported unsupported loop" "$(layers .state)"
		assertEquals $format "1048576 1048576 null" "$(layers '."virtual-size"')"
		assert_out 'the chain runs in a circle: this is a again'
		# the first error of the chain is the one that is said
		LIMIT=2 assert_status 65 chain-info a
		assert_one_error
		assert_err "^chain-info: a: it looks like format \"$format\""
	done
	# of itself
	made qed a 1M -u -b ./a -F qed
	LIMIT=2 assert_status 65 chain-info --json a
	assertEquals "unsupported loop" "$(layers .state)"
	# from qcow2 to it and back
	made qed a 1M -u -b top -F qcow2
	FORMAT=qed over top a 1M -u
	LIMIT=2 assert_status 65 chain-info --json top
	assertEquals "null unsupported loop" "$(layers .state)"
}

# Who cannot do with such an image has no look at what lies below it.
testStrict()
{
	made qed q 1M -u -b missing -F raw
	FORMAT=qed over top q 1M -u
	freeze q top
	refused_too 65 chain-stream top
	assert_one_error
	assert_err '^chain-stream: q: format "qed" is not supported'
	refused_too 65 chain-rebase --base= top
	assert_err ' q: format "qed" is not supported'
	assert_frozen
	# and who only tells, does
	assert_status 65 chain-info --json top
	assert_err '^chain-info: q: format "qed" is not supported'
	assertEquals "null unsupported missing" "$(layers .state)"
}

testInUse()
{
	need qemu-io || return 0
	made qed q 1M
	made qcow q1 1M
	FORMAT=qed over top q 1M -u
	assert_status 65 chain-info --json -o +holders top
	assertEquals "false false" "$(layers '."in-use"')"
	assertEquals "0 0" "$(layers '.holders | length')"
	FORMAT=qed qemu_io_holds q
	assert_status 65 chain-info --json -o +holders top
	assertEquals "false true" "$(layers '."in-use"')"
	assertEquals "[[],[[$PID,\"qemu-io\",true]]]" \
		"$(jq -c '[.[].holders | [.[] | [.pid, .program, .writer]]]' "$WORK/out")"
	assert_status 65 chain-info -o image,flags,holders top
	assert_out "^\W*q +unsupported,in-use +$PID qemu-io$"
	assert_status 65 chain-info --json q
	assertEquals true "$(layers '."in-use"')"
	exec 7>&-
	wait "$PID"
	assert_status 65 chain-info top
	assert_no_out in-use
}

testEncryption()
{
	local image

	luks_file l -o cipher-alg=aes-256
	made qcow a 1M --object secret,id=s,data=abc -o encrypt.format=aes,encrypt.key-secret=s
	made qcow plain 1M
	for image in "l +luks" "a +aes" "plain *"; do
		assert_status 65 chain-info -o image,encryption "${image%% *}"
		assert_out "^$image$"
	done
	assert_status 65 chain-info a
	assert_out '^a .*unsupported,encrypted'
	assert_status 65 chain-info --dot l
	assert_out 'label="l.n.*, encrypted'
}

# One image is one box, however it is called.
testGraph()
{
	mkdir folder
	made vdi x 1M
	FORMAT=vdi over one ./x 1M -u
	FORMAT=vdi over folder/two "$PWD/x" 1M -u
	assert_status 65 chain-info --dot one folder/two
	assertEquals "boxes" 3 "$(grep -oP '^\t\K"[^"]*"(?= \[label)' "$WORK/out" | sort -u | wc -l)"
	assertEquals "both end there" 1 "$(grep -oP -- '-> \K"[^"]*"' "$WORK/out" | sort -u | wc -l)"
	assertEquals "edges" 2 "$(grep -c -- '->' "$WORK/out")"
	assert_out '"[0-9a-f]+-[0-9a-f]+" \[label=".*x.nvdi, 1 ?M'
	# another one is another
	cp x y
	FORMAT=vdi over three y 1M -u
	assert_status 65 chain-info --dot one three
	assertEquals "not the same" 2 "$(grep -oP -- '-> \K"[^"]*"' "$WORK/out" | sort -u | wc -l)"
}

# shellcheck disable=SC1091
. shunit2
