#!/bin/bash
# SPDX-License-Identifier: MIT
#
# The recipes of README.md, run as they stand.

# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=tests/lib-live.sh
. "$TOP/tests/lib-live.sh"
# shellcheck source=tests/lib-qmp.sh
. "$TOP/tests/lib-qmp.sh"

# chapter TITLE: its lines
chapter()
{
	awk -v title="## $1" '/^## / { on = $0 == title } on' "$TOP/README.md"
}

# block TITLE N: of this chapter the N-th fenced block that is marked sh
block()
{
	chapter "$1" |
		awk -v n="$2" '/^```sh$/ { i++; on = i == n; next } /^```$/ { on = 0 } on'
}

# count TITLE
count()
{
	chapter "$1" | grep -c '^```sh$'
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

# bytes_of WORD FILE: in a report
bytes_of()
{
	awk -v word="$1" '$1 == word { print $(NF - 1) }' "$2"
}

# After a crash less is copied than was to be copied before.
shows_less()
{
	local before after

	before=$(bytes_of copy "$WORK/out")
	after=$(bytes_of copied "$WORK/err")
	assertTrue "$after bytes of $before after the crash" \
		"[ $after -gt 0 ] && [ $after -lt $before ]"
}

testRecipes()
{
	local i n

	n=$(count Recipes)
	assertTrue "there are recipes" "[ $n -ge 6 ]"
	for ((i = 1; i <= n; i++)); do
		folder
		block Recipes $i >"$WORK/recipe"
		LIMIT=60 run bash -e -o pipefail "$WORK/recipe"
		assertEquals "recipe $i: $(cat "$WORK/recipe" "$WORK/err")" 0 "$STATUS"
		! grep -q KILL "$WORK/recipe" || shows_less
		for f in disk.qcow2 elsewhere/disk.qcow2; do
			[ -e $f ] || continue
			assert_content $f "$HASH"
			assert_sound $f
		done
	done
}

# nbdkit finds the plugin of this build by its name, with the library it was built for.
our_nbdkit()
{
	mkdir -p "$WORK/path"
	cat >"$WORK/path/nbdkit" <<-END
		#!/bin/bash
		export LD_PRELOAD="$(holder_preload)"
		for word; do
			shift
			[ "\$word" = chain ] && word=$PLUGIN
			set -- "\$@" "\$word"
		done
		exec $(command -v nbdkit) "\$@"
	END
	chmod 755 "$WORK/path/nbdkit"
	PATH=$WORK/path:$PATH
}

# One after the other, in one folder: the guest reads the same disk after each.
testRecipesInUse()
{
	local i n holder

	need_holder || return 0
	n=$(count "Images in use")
	assertTrue "there are recipes" "[ $n -ge 5 ]"
	our_nbdkit
	folder
	NBD="nbd+unix:///?socket=$PWD/vm.sock"
	for ((i = 1; i <= n; i++)); do
		block "Images in use" $i >"$WORK/recipe"
		LIMIT=60 run bash -e -o pipefail "$WORK/recipe"
		assertEquals "recipe $i: $(cat "$WORK/recipe" "$WORK/err")" 0 "$STATUS"
		[ $i != 1 ] || {
			until_true 10 test -s vm.pid
			holder=$(cat vm.pid)
		}
		later "kill -9 $holder"
		[ $i = "$n" ] || assertEquals "the guest after recipe $i" "$HASH" "$(guest_content)"
		[ $i != 2 ] || assert_out '^stream +(running|waiting) '
	done
	until_true 10 bash -c "! kill -0 $holder" || fail "the server goes on"
	assert_merged elsewhere/disk.qcow2 "$HASH" ""
	assert_merged evening.qcow2 "$HASH" disk.qcow2
	assert_merged disk.qcow2 "$HASH" base.qcow2
	assert_content elsewhere/backup.qcow2 "$HASH"
}

# A QEMU has the images, and its guest reads the same disk after each
testRecipesOfQemu()
{
	local i n

	need_daemon || return 0
	n=$(count "Guests of QEMU")
	assertEquals "recipes" 2 "$n"
	folder
	daemon disk.qcow2
	ln -s "$QMP" vm.qmp
	for ((i = 1; i <= n; i++)); do
		block "Guests of QEMU" $i >"$WORK/recipe"
		LIMIT=60 run bash -e -o pipefail "$WORK/recipe"
		assertEquals "recipe $i: $(cat "$WORK/recipe" "$WORK/err")" 0 "$STATUS"
		assertEquals "the guest after recipe $i" "$HASH" "$(guest_content)"
	done
	kill_holder
	assertEquals base.qcow2 "$(backing disk.qcow2)"
	assertEquals "" "$(backing elsewhere/disk.qcow2)"
	assert_content elsewhere/disk.qcow2 "$HASH"
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
