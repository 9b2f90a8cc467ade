#!/bin/bash
# SPDX-License-Identifier: MIT
#
# The man pages are clean, and know exactly the options that --help knows.

# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"

PROGRAMS="chain-info chain-snapshot chain-stream chain-rebase"

testLint()
{
	local f

	need mandoc || return 0
	for f in "$TOP"/man/*.[17]; do
		mandoc -T lint -W warning "$f" >"$WORK/out" 2>&1 ||
			fail "$(cat "$WORK/out")"
	done
	for f in $PROGRAMS; do
		assertTrue "$f.1" "[ -f '$TOP/man/$f.1' ]"
	done
	assertTrue chain-tools.7 "[ -f '$TOP/man/chain-tools.7' ]"
	assertTrue chain-page.7 "[ -f '$TOP/man/chain-page.7' ]"
}

# The long options of the rendered page, and those of --help
testOptions()
{
	local p

	need mandoc || return 0
	for p in $PROGRAMS; do
		run $p --help
		grep -oE '^ +(-., +)?--[a-z-]+' "$WORK/out" | grep -oE -- '--[a-z-]+' | sort -u >help
		[ -s help ] || fail "$p --help names no option"
		# in the page an option is introduced by the item of a list: a line that is not
		# indented by more than the list is
		mandoc -T ascii "$TOP/man/$p.1" | col -b | grep -E '^ {1,9}-' |
			grep -oE -- '--[a-z-]+' | sort -u >page
		assertEquals "options of $p in --help and in its page" "$(cat help)" "$(cat page)"
	done
}

# Every page names the exit statuses, or the page that does.
testStatuses()
{
	local p

	for p in $PROGRAMS; do
		assertTrue "$p.1 has EXIT STATUS" "grep -q '^.Sh EXIT STATUS' '$TOP/man/$p.1'"
	done
	for p in 64 65 66 69 74 75 77 129 130 143; do
		assertTrue "chain-tools.7 names $p" "grep -qw $p '$TOP/man/chain-tools.7'"
	done
}

# shellcheck disable=SC1091
. shunit2
