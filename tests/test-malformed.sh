#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Malformed images that found a defect, or that each get another answer: tests/data/input. Each
# command on each: no crash, no hang, no more than 128 MiB, nothing written, one sentence. Where
# they come from: tests/proof/input.

# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=tests/lib-live.sh
. "$TOP/tests/lib-live.sh"

DRIVE=$TOP/tests/proof/input/drive

# drive FOLDER BUILD [OPTION...]: status in STATUS, what it says in $WORK/out
drive()
{
	local images=$1 build=$2

	shift 2
	mkdir drive
	cd drive || return 1
	run "$DRIVE" --frozen "$images" "$@" "$build"
}

# A half of the commands on each, in turn; with sanitizers, which are slow, a sixth.
testAll()
{
	local preload

	need_holder && need python3 || return 0
	preload=$(holder_preload)
	drive "$TOP/tests/data/input" "$BUILD" --sample 3 --every 2 \
		${preload:+--preload "$preload" --every 6}
	assertEquals "$(head -c 3000 "$WORK/out" "$WORK/err")" 0 "$STATUS"
	assert_out ' 0 wrong$'
}

# Programs that write to a layer, refuse without a sentence, and die
testItLooks()
{
	need_holder && need python3 || return 0
	mkdir -p images fake/bin
	cp "$TOP"/tests/data/input/well*.txt images
	printf '#!/bin/sh\nexit 0\n' >fake/bin/chain-info
	printf '#!/bin/sh\nprintf x >>B.qcow2\n' >fake/bin/chain-stream
	printf '#!/bin/sh\nexit 65\n' >fake/bin/chain-rebase
	printf '#!/bin/sh\nkill -9 $$\n' >fake/bin/chain-snapshot
	chmod +x fake/bin/*
	drive ../images ../fake --only stream --only rebase --only snapshot
	assertEquals "$(head -c 3000 "$WORK/out" "$WORK/err")" 1 "$STATUS"
	assert_out 'stream: status 0, and has written to ..B.qcow2'
	assert_out 'rebase: 0 sentences'
	assert_out 'snapshot: killed by signal 9'
}

# shellcheck disable=SC1091
. shunit2
