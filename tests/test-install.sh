#!/bin/bash
# SPDX-License-Identifier: MIT
#
# make install puts everything in its place, and uninstall takes it away.

# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=tests/lib-live.sh
. "$TOP/tests/lib-live.sh"

prepare()
{
	mkdir dest
}

# The programs are built already: -o says that they need no look
install_to()
{
	make -s -C "$TOP" -o all B="$BUILD" SAN= DESTDIR="$PWD/dest" "$@" >"$WORK/make" 2>&1 ||
		fail "make: $(tail -n 5 "$WORK/make")"
}

testInstall()
{
	local p f

	install_to prefix=/usr plugindir=/usr/lib/nbdkit/plugins install
	for p in chain-info chain-snapshot chain-stream chain-rebase; do
		assertTrue "$p" "[ -x dest/usr/bin/$p ]"
		assertTrue "$p.1" "[ -f dest/usr/share/man/man1/$p.1 ]"
		f=dest/usr/share/bash-completion/completions/$p
		assertTrue "completion of $p" "[ -f $f ]"
		assertTrue "it is bash" "bash -n $f"
	done
	assertTrue "overview" "[ -f dest/usr/share/man/man7/chain-tools.7 ]"
	assertTrue "library" "[ -f dest/usr/lib/libchain.a ]"
	assertTrue "headers" "[ -f dest/usr/include/chain-tools/job/merge.h ]"
	assertTrue "of the holder" "[ -f dest/usr/include/chain-tools/holder/holder.h ]"
	assertFalse "not its own" "[ -e dest/usr/include/chain-tools/holder/state.h ]"
	assertFalse "nothing that names the build" "grep -rIlF '$BUILD' dest"
	run dest/usr/bin/chain-info --version
	assertEquals 0 "$STATUS"
	install_to prefix=/usr plugindir=/usr/lib/nbdkit/plugins uninstall
	assertEquals "nothing is left" "" "$(find dest ! -type d)"
}

# Without a word about it the plugin goes where nbdkit looks.
testPluginFolder()
{
	local folder

	need_holder || return 0
	folder=$(nbdkit --dump-config | sed -n 's/^plugindir=//p')
	install_to prefix=/usr install
	assertTrue "in $folder" "[ -f 'dest/$folder/nbdkit-chain-plugin.so' ]"
	assertTrue "its page" "[ -f dest/usr/share/man/man1/nbdkit-chain-plugin.1 ]"
	make_chain
	PLUGIN=$PWD/dest/$folder/nbdkit-chain-plugin.so
	hold D.qcow2
	assertEquals "served by it" "$HASH" "$(guest_content)"
	release
	install_to prefix=/usr uninstall
	assertEquals "nothing is left" "" "$(find dest ! -type d)"
}

# A program of one's own against the library, by pkg-config
testLibrary()
{
	need pkg-config gcc || return 0
	case $BUILD in
	*build-*)
		skip "a library with sanitizers needs its programs to have them, too"
		return 0
		;;
	esac
	install_to prefix="$PWD/dest/opt" plugindir="$PWD/dest/opt/plugins" DESTDIR= install
	cat >program.c <<-'END'
		#include <stdio.h>
		#include "chain/chain.h"
		#include "base/fail.h"

		int main(int argc, char **argv)
		{
			struct chain *c = NULL;
			int err = chain_open(&c, argv[1], NULL, 0);

			if (err)
				fprintf(stderr, "%s\n", fail_sentence());
			else
				printf("%zu\n", c->count);
			chain_close(c);
			return err != 0;
		}
	END
	export PKG_CONFIG_PATH=$PWD/dest/opt/lib/pkgconfig
	# shellcheck disable=SC2046
	gcc -o program program.c $(pkg-config --cflags --libs chain-tools) 2>gcc.err ||
		fail "gcc: $(cat gcc.err)"
	make_chain
	assertEquals 4 "$(./program D.qcow2)"
}

# Each option of each program is offered.
testCompletion()
{
	local p words
	# shellcheck disable=SC1091
	for p in chain-info chain-snapshot chain-stream chain-rebase; do
		words=$(bash -c ". '$TOP/cmd/chain-tools.bash-completion'
			compopt() { :; }
			COMP_WORDS=($p --) COMP_CWORD=1
			_chain_tools 2>/dev/null
			printf '%s\n' \"\${COMPREPLY[@]}\"" | sed 's/=$//' | sort -u)
		run $p --help
		assertEquals "$p" "$(grep -oE '^ +(-., +)?--[a-z-]+' "$WORK/out" |
			grep -oE -- '--[a-z-]+' | sort -u)" "$words"
	done
}

# shellcheck disable=SC1091
. shunit2
