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

# The parts of a path with blanks are not other paths.
testBlanks()
{
	local to=(DESTDIR="$PWD/de st" prefix="/my tools" includedir="/inc lude"
		plugindir="/plug  ins")

	mkdir -p "de st/inc" de
	touch "de st/inc/foreign"
	install_to "${to[@]}" install
	assertTrue "program" "[ -x 'de st/my tools/bin/chain-info' ]"
	assertTrue "page" "[ -f 'de st/my tools/share/man/man7/chain-tools.7' ]"
	assertTrue "completion" "[ -f 'de st/my tools/share/bash-completion/completions/chain-info' ]"
	assertTrue "headers" "[ -f 'de st/inc lude/chain-tools/job/merge.h' ]"
	assertEquals "the plugin" "$(find "$BUILD" -maxdepth 1 -name '*.so' -printf '%f\n')" \
		"$(ls 'de st/plug  ins')"
	if command -v pkg-config >/dev/null; then
		eval "set -- $(PKG_CONFIG_PATH="$PWD/de st/my tools/lib/pkgconfig" \
			pkg-config --cflags --libs-only-L chain-tools)"
		assertEquals "-I/inc lude/chain-tools|-L/my tools/lib" "$1|$2"
	fi
	assertEquals "nowhere else" "de st/inc/foreign" \
		"$(find de dest "de st/inc" "$TOP/st" "$TOP/tools" ! -type d 2>/dev/null)"
	install_to "${to[@]}" uninstall
	assertEquals "only what was there is left" "de st/inc/foreign" "$(find "de st" ! -type d)"
}

# refused B NAME=VALUE...: by make, which is told B and finds the others in its environment
refused()
{
	local b=$1 command

	shift
	for command in install uninstall; do
		run env DESTDIR="$PWD/dest" "$@" make -s -C "$TOP" -o all B="$b" SAN= $command
		assertEquals "$command $*, B=$b" 2 "$STATUS"
		assertEquals "nothing was done" "dest dest/chain-tools " "$(find dest -printf '%p ')"
	done
}

# What no path can be is told before anything is done. (Of what stands on its command line
# make itself takes the blanks at the beginning away.)
testRefusedPaths()
{
	local word

	mkdir dest/chain-tools
	for word in prefix="/it's" DESTDIR="$PWD/de'st" includedir=$'/inc\nlude' \
		prefix=" $PWD/other" datadir=$'\t'"$PWD/other"; do
		refused "$BUILD" "$word"
		assert_err "^GNUmakefile:.* ${word%%=*}=.*: give a path|^lude.*: give a path"
	done
	for word in includedir mandir plugindir; do
		refused "$BUILD" $word=
		assert_err " $word is empty"
	done
	for word in "$BUILD d" "$BUILD "; do
		refused "$word"
		assert_err " B=.*: give a folder to build in whose name has no blank"
	done
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

# Each header can be the only one that a program has of ours.
testHeaders()
{
	local h

	need cc || return 0
	install_to prefix=/usr plugindir=/plugins install
	cd dest/usr/include/chain-tools || return
	for h in */*.h; do
		run cc -std=gnu17 -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -I. -Wall -Werror \
			-fsyntax-only -include "$h" -x c /dev/null
		assertEquals "$h: $(head -n 5 "$WORK/err")" 0 "$STATUS"
	done
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

# offered WORD...: what bash would offer behind these, as it takes them apart
offered()
{
	# shellcheck disable=SC2016
	bash -c '. "$0/cmd/chain-tools.bash-completion"
		compopt() { :; }
		COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
		_chain_tools
		[ ${#COMPREPLY[@]} = 0 ] || printf "%s\n" "${COMPREPLY[@]}"' "$TOP" "$@" | sort
}

# Each option of each program is offered.
testCompletion()
{
	local p

	for p in chain-info chain-snapshot chain-stream chain-rebase; do
		run $p --help
		assertEquals "$p" "$(grep -oE '^ +(-., +)?--[a-z-]+' "$WORK/out" |
			grep -oE -- '--[a-z-]+' | sort -u)" "$(offered $p -- | sed 's/=$//')"
		assertEquals "$p, short ones" "$(grep -oE '^ +-., ' "$WORK/out" |
			grep -oE -- '-.' | sort -u)" "$(offered $p - | grep -xE -- '-.')"
	done
}

# And what an option may have for a value; file names only where it is one.
testCompletionOfValues()
{
	local words

	new D.qcow2 1M
	chain-info -o help | cut -d ' ' -f 1 | sort >columns
	assertEquals "$(cat columns)" "$(offered chain-info -o '')"
	assertEquals "$(cat columns)" "$(offered chain-info --columns =)"
	assertEquals "OWN OWNER" "$(offered chain-info --columns = OWN | xargs)"
	assertEquals "+IMAGE,OWN +IMAGE,OWNER" "$(offered chain-info -o +IMAGE,OW | xargs)"
	assertEquals "own owner" "$(offered chain-info --columns = own | xargs)"
	assertEquals "+IMAGE,own +IMAGE,owner" "$(offered chain-info -o +IMAGE,ow | xargs)"
	assertEquals "image" "$(offered chain-info -o +im | sed 's/^+//')"
	chain-snapshot -o help | sed 's/ .*/=/' | sort >options
	assertEquals "$(cat options)" "$(offered chain-snapshot -o '')"
	assertEquals "$(cat options)" "$(offered chain-snapshot --options =)"
	assertEquals "0.10 1.1 v2 v3" "$(offered chain-snapshot --options = compat = | xargs)"
	assertEquals "zlib zstd" "$(offered chain-snapshot -o compression_type = z | xargs)"
	assertEquals "4k,compat= 4k,compression_type=" \
		"$(offered chain-snapshot -o cluster_size = 4k,com | xargs)"
	assertEquals "v2 v3" "$(offered chain-snapshot -o cluster_size = 4k,compat = v | xargs)"
	assertEquals 0 "$(offered chain-stream --print-merged =)"
	assertEquals "qcow2 raw" "$(offered chain-rebase -F '' | xargs)"
	for words in --rate --set-rate --time-limit --wait-lock --depth --jobs; do
		assertEquals "$words=" "" "$(offered chain-stream $words =)"
		assertEquals "$words=5" "" "$(offered chain-stream $words = 5)"
	done
	for words in "chain-info --watch = " "chain-stream -j"; do
		# shellcheck disable=SC2086
		assertEquals "$words" "" "$(offered $words '')"
	done
	for words in "chain-stream" "chain-stream --base =" "chain-stream -b" "chain-info -b" \
		"chain-stream --wait-lock" "chain-stream --print-merged" "chain-rebase --qmp ="; do
		# shellcheck disable=SC2086
		assertEquals "$words" D.qcow2 "$(offered $words D)"
	done
}

# shellcheck disable=SC1091
. shunit2
