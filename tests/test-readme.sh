#!/bin/bash
# SPDX-License-Identifier: MIT
#
# The recipes of README.md, run as they stand.

# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"

# block N: the N-th fenced block that is marked sh
block()
{
	awk -v n="$1" '/^```sh$/ { i++; on = i == n; next } /^```$/ { on = 0 } on' \
		"$TOP/README.md"
}

count()
{
	grep -c '^```sh$' "$TOP/README.md"
}

# Everything that the recipes name: base.qcow2 <- monday <- tuesday <- disk.qcow2
folder()
{
	rm -rf ./*
	make_chain
	mv A.qcow2 base.qcow2
	mv B.qcow2 monday.qcow2
	mv C.qcow2 tuesday.qcow2
	mv D.qcow2 disk.qcow2
	qemu-img rebase -u -f qcow2 -F qcow2 -b base.qcow2 monday.qcow2
	qemu-img rebase -u -f qcow2 -F qcow2 -b monday.qcow2 tuesday.qcow2
	qemu-img rebase -u -f qcow2 -F qcow2 -b tuesday.qcow2 disk.qcow2
	mkdir elsewhere
}

testRecipes()
{
	local i n

	n=$(count)
	assertTrue "there are recipes" "[ $n -ge 6 ]"
	for ((i = 1; i <= n; i++)); do
		folder
		block $i >"$WORK/recipe"
		LIMIT=60 run bash -e -o pipefail "$WORK/recipe"
		assertEquals "recipe $i: $(cat "$WORK/recipe" "$WORK/err")" 0 "$STATUS"
		for f in disk.qcow2 elsewhere/disk.qcow2; do
			[ -e $f ] || continue
			assert_content $f "$HASH"
			assert_sound $f
		done
	done
}

# The two commands are there, and name targets that exist.
testTwoCommands()
{
	assertTrue "make deps demo" "grep -q 'make deps demo' '$TOP/README.md'"
	assertTrue "make deps check" "grep -q 'make deps check' '$TOP/README.md'"
	for t in deps demo check lint bench fuzz coverage install uninstall clean format; do
		assertTrue "target $t" "grep -q '^$t:' '$TOP/GNUmakefile'"
		assertTrue "target $t is explained" "grep -qE '^#  .*\b$t\b' '$TOP/GNUmakefile'"
	done
	assertEquals "tests/deps finds packages" 0 "$(bash -c "grep -cE '^build: ' '$TOP/INSTALL' >/dev/null; echo \$?")"
}

# Nothing at the top that does not belong there
testTopLevel()
{
	local name

	for name in "$TOP"/*; do
		case ${name##*/} in
		cmd | lib | man | tests | GNUmakefile | INSTALL | README.md | LICENSE | build*) ;;
		*) fail "$name" ;;
		esac
	done
}

# shellcheck disable=SC1091
. shunit2
