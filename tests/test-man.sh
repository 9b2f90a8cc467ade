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
	assertTrue plugin "[ -f '$TOP/man/nbdkit-chain-plugin.1' ]"
}

# options_of COMMAND...: the long options in what it prints
options_of()
{
	"$@" | grep -oE -- '--[a-z]+[a-z-]*' | sort -u
}

# Each option is in the page of its program, or in the page that it refers to for options
# it shares; and what a page introduces as an item of a list, the program knows.
testOptions()
{
	local p

	need mandoc || return 0
	for p in $PROGRAMS; do
		run $p --help
		grep -E '^ +(-., +)?--[a-z-]+' "$WORK/out" >help.text
		options_of sed -E 's/^( +(-., +)?--[a-z-]+).*/\1/' help.text >help
		[ -s help ] || fail "$p --help names no option"
		mandoc -T ascii -O width=400 "$TOP/man/$p.1" | col -b >page
		if grep -qE 'chain-stream\(1\)' page && [ "$p" = chain-rebase ]; then
			mandoc -T ascii -O width=400 "$TOP/man/chain-stream.1" | col -b >>page
			sed -i '/--\(depth\|pause\|resume\|cancel\|set-rate\)/d' page
		fi
		# a line that begins with an option, up to the first word that is none
		grep -E '^ {1,9}-' page | sed -E 's/([^ ,]) .*/\1/' >items
		assertEquals "in $p --help and not in its page" "" \
			"$(comm -23 help <(options_of cat page))"
		assertEquals "in the page of $p and not in --help" "" \
			"$(comm -13 help <(options_of cat items))"
	done
}

# A command that is to be pasted stands on one line of a terminal, as it was written.
testExamples()
{
	local p

	need mandoc || return 0
	for p in "$TOP"/man/*.[17]; do
		mandoc -T ascii -O width=78 "$p" | col -bx >narrow
		assertEquals "${p##*/}: wider than a terminal" "" "$(awk 'length > 80' narrow)"
		sed -n 's/^\.Dl //p' "$p" | sed 's/\\-/-/g; s/\\&//g' >commands
		assertEquals "${p##*/}: on two lines" "" "$(while IFS= read -r line; do
			[[ $line = *"Ns"* ]] || grep -qF -- "$line" narrow || echo "$line"
		done <commands)"
	done
}

# What every page that has it says of the environment
testEnvironment()
{
	local p

	for p in chain-snapshot.1 chain-stream.1 chain-rebase.1 chain-tools.7; do
		assertTrue "$p: CHAIN_QMP" "grep -q '^\.It Ev CHAIN_QMP' '$TOP/man/$p'"
	done
	for p in chain-info.1 chain-stream.1 chain-rebase.1 chain-tools.7 chain-page.7; do
		assertTrue "$p: CHAIN_RUNTIME_DIR" "grep -q 'Ev CHAIN_RUNTIME_DIR' '$TOP/man/$p'"
	done
}

# The parameters that the plugin names are in its page.
testParameters()
{
	local word

	sed -n 's/.*strcmp(key, "\([a-z-]*\)").*/\1/p' "$TOP/cmd/nbdkit-chain-plugin.c" >words
	assertTrue "there are some" "[ -s words ]"
	while read -r word; do
		assertTrue "$word" "grep -q '^\.It .*Cm $word Ns = Ns' '$TOP/man/nbdkit-chain-plugin.1' ||
			grep -q '^\.It .*Cm $word Ns = Oc' '$TOP/man/nbdkit-chain-plugin.1'"
	done <words
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
