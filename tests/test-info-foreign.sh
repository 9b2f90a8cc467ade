#!/bin/bash
# SPDX-License-Identifier: MIT
#
# chain-info of images of other formats: their headers say what `qemu-img info` says they say,
# and what that refuses is refused. vmdk: test-info-vmdk.sh.
# shellcheck source=lib.sh disable=SC1091
. "$(dirname "$0")/lib.sh"
# shellcheck source=lib-info.sh disable=SC1091
. "$TOP/tests/lib-info.sh"

TOOL=$TOP/tests/foreign-tool
# a hostile file takes no longer than one second (of a machine that has other things to do)
SOON=5

prepare()
{
	ABOVE=
	STRICT=1
	need qemu-img jq python3
}

# above FORMAT FILE: a qcow2 image over it, the working folder's "above"
above()
{
	rm -f above
	FORMAT=$1 over above "$2" 1M -u
	ABOVE="$1 $2"
}

# both FORMAT FILE: said alike of the image and of a qcow2 image over it
both()
{
	same "$2" 65
	above "$1" "$2"
	same above 65
}

# agreed FORMAT FILE WHAT: taken as that format both programs say the same, or both refuse it;
# ours may tell the header of what QEMU refuses unless STRICT
agreed()
{
	local q

	[ "$ABOVE" = "$1 $2" ] || above "$1" "$2"
	q=$(timeout 20 qemu-img info --backing-chain --output=json above 2>/dev/null)
	LIMIT=$SOON run chain-info --json above
	# 66: it names a backing file that there is not
	[ "$STATUS" = 65 ] || [ "$STATUS" = 66 ] || fail "$3 of $2: status $STATUS"
	if [ -n "$q" ]; then
		[ "$(jq -s "$SUPERSET" <(echo "$q") "$WORK/out")" = true ] ||
			fail "$3 of $2 differs: $(jq -c '.[1]' <<<"$q")
$(jq -c '.[1]' "$WORK/out")"
	elif [ "$STRICT" ] && ! jq -e '.[-1] | has("virtual-size") | not' "$WORK/out" >/dev/null; then
		fail "$3 of $2 is refused by QEMU, and not here: $(cat "$WORK/out")"
	fi
}

# variants FORMAT FILE "OFFSET HEX..."...: damage, each from the whole image again
variants()
{
	local format=$1 file=$2 v

	shift 2
	cp --sparse=always "$file" whole
	for v; do
		cp --sparse=always whole "$file"
		# shellcheck disable=SC2086 # words
		poke "$file" $v
		[[ ! $format =~ ^(vpc|vhdx)$ ]] || "$TOOL" seal "$file"
		agreed "$format" "$file" "$v"
	done
	cp --sparse=always whole "$file"
}

# flipped FORMAT FILE: random damage, the same one each time; QEMU may see more of it
flipped()
{
	local seed STRICT=

	cp --sparse=always "$2" whole
	for seed in {1..8}; do
		cp --sparse=always whole "$2"
		"$TOOL" flip "$2" "$seed"
		agreed "$1" "$2" "seed $seed"
	done
}

testQcow()
{
	made qcow a 1G
	both qcow a
	made qcow b 5000 -u -b a -F qcow
	both qcow b
	made qcow aes 1M --object secret,id=s,data=abc -o encrypt.format=aes,encrypt.key-secret=s
	both qcow aes
	# a name of no bytes; too long; in no place
	variants qcow b '16 00 00 00 00' '16 00 00 04 00' '8 70' '8 00 00 00 7f' '24 ff' '32 08' \
		'32 11' '33 05' '33 0e' '36 00 00 00 02' '40 80' '24 00 00 00 00 00 00 00 01' \
		'24 ff ff ff ff ff ff ff ff'
	# a table of 2 GiB
	variants qcow a '24 00 02 00 00 00 00 00 00'
	flipped qcow b
}

testQed()
{
	new base 1M
	truncate -s 1M raw
	made qed a 1G
	both qed a
	made qed b 1G -b base -F qcow2 -o cluster_size=4096,table_size=2
	both qed b
	made qed c 1G -b raw -F raw
	both qed c
	# to be checked
	poke c 16 07
	both qed c
	variants qed c '16 08' '4 00 08' '4 00 00 00 08' '8 01' '8 03' '8 20' '12 01 00 01' \
		'40 01' '42 08' '48 01' '54 01' '56 ff ff' '60 ff 0f' '60 00 00' '16 05' \
		'60 00 10'
	flipped qed c
}

testVdi()
{
	made vdi a 5000
	both vdi a
	made vdi b 3M -o static=on
	both vdi b
	variants vdi a '68 02' '340 01' '344 01' '360 00 04' '368 ff' '376 00 00 20' '384 00' \
		'384 ff ff ff 1f' '387 20' '424 01' '440 01' '368 00 00 10 00 00 00 00 00'
	flipped vdi a
}

testVpc()
{
	local app

	for options in subformat=dynamic subformat=fixed force_size=on subformat=fixed,force_size=on; do
		made vpc a 5000000 -o "$options"
		above vpc a
		same above 65
	done
	same a # a fixed one has nothing at its beginning, so by itself it is raw
	for app in '77 69 6e 20' '71 65 6d 32' '64 32 76 20' '74 61 70 00' '43 54 58 53' \
		'71 65 6d 75' '74 61 70 20'; do
		made vpc a 300M
		# shellcheck disable=SC2086 # words
		poke a 28 $app
		"$TOOL" seal a
		both vpc a
	done
	# more than a geometry can say
	made vpc big 2040G
	both vpc big
	made vpc b 300M
	poke b 70 ff
	agreed vpc b checksum
	# sizes, type, header, then its table and blocks
	variants vpc b '56 ff ff 10 ff' '56 ff ff ff ff' '48 ff' '60 00 00 00 02' '60 00 00 00 04' \
		'16 70' '16 00 00 00 7f' '512 00' '540 00 00 00 01' \
		'540 7f' '544 00 00 01 00' '544 00 30 00 00' '544 40' \
		'0 00' '56 00 00'
	# where the table is, and where it says that blocks are
	STRICT='' variants vpc b '528 70' '528 00 00 00 7f' '540 1f ff ff ff' '1536 00 00 00 04' '1536 7f'
	flipped vpc b
	# the largest disk, and one of a sector more
	made vpc c 300M -o subformat=fixed,force_size=on
	local at=$(($(bytes c) - 512 + 48))
	variants vpc c "$at 00 00 01 fe 00 00 00 00" "$at 00 00 01 fe 00 00 02 00"
	made vpc c 300M -o subformat=fixed
	flipped vpc c
}

testVhdx()
{
	for options in block_size=1M block_size=256M subformat=fixed log_size=3M; do
		made vhdx a 20M -o "$options"
		both vhdx a
	done
	made vhdx a 64T
	both vhdx a
	made vhdx empty 0
	both vhdx empty
	made vhdx a 100M
	qemu-io -f vhdx -c 'write 30M 1M' a >/dev/null
	# identifier, headers (one, both, of other versions, equal), log, regions, their kinds
	variants vhdx a '0 00' '65536 00' '65602 02' '65536 00' '65544 ff' '131080 ff' \
		'65600 01' '65608 00 00 f0' '65604 01' '196608 00' '196616 03' '196616 ff 08' \
		'196640 00' '196652 01'
	STRICT='' variants vhdx a '196624 00' '196640 01' '196648 08 00 00'
	# metadata: signature, count, kinds; sizes of blocks, disk and sectors; a parent
	local at=$((16#$(peek a 196674 1) << 16))
	variants vhdx a "$at 00" "$((at + 10)) 04" "$((at + 10)) ff 08" "$((at + 32)) 00" \
		"$((at + 56)) 00" "$((at + 48)) ff" "$((at + 65536)) 00" "$((at + 65538)) 08" \
		"$((at + 65538)) 18" "$((at + 65540)) 02" "$((at + 65540)) 01" "$((at + 65544)) 01 02" \
		"$((at + 65551)) 7f"
	# one entry more than there is room for
	variants vhdx a '196616 00 08' "$((at + 10)) 00 08" "$((at + 10)) ff 07"
	cp --sparse=always a unsigned
	poke unsigned 65536 48
	poke unsigned 131072 48
	"$TOOL" seal unsigned
	agreed vhdx unsigned 'no signature'
	variants vhdx a "$((at + 65576)) 00 10"
	flipped vhdx a
}

testParallels()
{
	made parallels a 100M
	both parallels a
	# in use
	poke a 44 59 6e 6f 74
	both parallels a
	poke a 6 46 72 65 53 70 61 63 45 78 74
	both parallels a
	variants parallels a '16 03' '28 00 00 00 00' '28 00 00 00 7f' '35 7f' \
		'32 ff ff ff 7f' '43 7f' '43 ff' '41 ff' '0 00'
	# as many sectors as a disk can have, one more, and in 2^64 bytes
	variants parallels a '36 00 00 e0 ff ff ff 3f' '36 01 00 e0 ff ff ff 3f' \
		'36 ff ff ff ff ff ff 3f'
	# the older one has 32 bits of them
	cp a old
	poke old 6 74 46 72 65 65 53 70 61 63 65
	variants parallels old '40 00' '40 ff' '40 00 00 e0 ff' '36 ff ff ff ff ff ff ff ff'
	# a table too long, an extension that is none
	STRICT='' variants parallels a '32 ff ff ff 1f' '56 01' '63 80' '63 40'
	flipped parallels a
}

testLuks()
{
	local options

	for options in cipher-alg=aes-256 cipher-alg=aes-128,cipher-mode=cbc,ivgen-alg=plain \
		cipher-alg=serpent-256,cipher-mode=cbc cipher-alg=twofish-256,hash-alg=sha512 \
		cipher-mode=cbc,ivgen-alg=essiv,ivgen-hash-alg=sha256; do
		luks_file "$options" -o "$options"
		both luks "$options"
		luks=$options
	done
	cp "$luks" a
	# names, payload, width of the key, iterations, and a slot's fields
	variants luks a '40 63' '104 7f' '108 00 00 00 10' '108 00 00 00 18'
	STRICT='' variants luks a '8 62' '11 20' '44 78' '54 37' '72 00' '104 00 00 00 07' \
		'108 00 00 00 21' '164 00 00 00 00' '208 00 00 00 01' '212 00 00 00 00' \
		'248 00 00 00 07' '248 7f' '252 00 00 00 01' '296 00 00 00 08' '256 00 ac 71 f3'
	truncate -s $((16#$(peek a 104 4) * 512 + 5)) a
	both luks a
	truncate -s 4096 a
	agreed luks a short
	# version 2 is no format of QEMU's
	cp "$luks" a
	poke a 6 00 02
	same a
	agreed luks a version
	# of a hash is told only with the generator that has one
	cp "$luks" a
	same a 65
	assertEquals sha256 "$(jq -r '.[0]."format-specific".data."ivgen-hash-alg"' "$WORK/out")"
	poke a 44 70 6c 61 69 6e
	same a 65
	assertEquals null "$(jq -r '.[0]."format-specific".data."ivgen-hash-alg"' "$WORK/out")"
	cp "$luks" a
	flipped luks a
}

testBochs()
{
	"$TOOL" bochs a 1 1032192 4 524288
	both bochs a
	"$TOOL" bochs b 2 8388608000 100000 1048576
	both bochs b
	variants bochs b '0 00' '22 20' '32 00' '48 00' '64 01' '66 03' '72 ff ff ff 01' '74 00' \
		'74 11' '80 00 01 00 00' '80 00 02 00 00' '80 01' '82 81' '83 01' '93 ff' '95 7f' \
		'68 ff ff ff ff'
	flipped bochs b
}

testCloop()
{
	"$TOOL" cloop a 65536 100 200 70000 0
	both cloop a
	"$TOOL" cloop one 512 1
	both cloop one
	# probed by its first lines, and taken for one without them
	poke a 0 20
	agreed cloop a 'no script'
	variants cloop a '128 00 00 00 00' '128 00 00 02 01' '128 04 00 02 00' '128 04 00 00 00' \
		'132 04' '132 ff ff ff ff' '132 00 00 00 00'
	# blocks that do not follow each other, or that there are not
	STRICT='' variants cloop a '136 7f' '144 7f' '148 09' '132 03 ff ff ff' '132 00 00 00 05' \
		'132 00 7f ff ff'
	flipped cloop a
}

testDmg()
{
	local where

	for where in plist fork; do
		"$TOOL" dmg a.dmg 5000 $where 0:100:0 0x80000005:2048:5000 0x80000006:999999:9
		both dmg a.dmg
		local at=$(($(bytes a.dmg) - 512))
		variants dmg a.dmg "$at 00" "$((at + 24)) 7f" "$((at + 40)) 01" "$((at + 48)) 01" \
			"$((at + 55)) 00" "$((at + 216)) 01" "$((at + 224)) 01" "$((at + 231)) 00" \
			"$((at + 492)) 80" "$((at + 493)) 80" "$((at + 494)) ff"
		# what the trailer names
		STRICT='' variants dmg a.dmg '512 7f' '515 00' '520 7f' '523 00' '528 ff' '531 00' \
			'540 00' "$((at - 12)) 00" "$((at - 12)) 41"
		flipped dmg a.dmg
	done
	# the name only says so, in small letters
	cp a.dmg other
	same other
	cp a.dmg b.DMG
	same b.DMG
	truncate -s 1M raw.dmg
	agreed dmg raw.dmg 'nothing in it'
	: >empty.dmg
	same empty.dmg
	assertEquals raw "$(jq -r '.[0].format' "$WORK/out")"
	# the trailer need not end with the file, as long as it ends with its sector
	for where in 1 2 400 512; do
		cp a.dmg odd.dmg
		truncate -s +$where odd.dmg
		agreed dmg odd.dmg "$where bytes more"
	done
}

# No format is recorded, so it is the one that the file begins like.
testProbed()
{
	local format file

	"$TOOL" bochs bochs 2 1032192 4 524288
	"$TOOL" cloop cloop 65536 100
	"$TOOL" dmg dmg.dmg 5000 plist 0:100:0
	luks_file luks
	for format in qcow qed vdi vpc vhdx parallels; do
		made $format $format 10M
	done
	for format in bochs cloop dmg luks qcow qed vdi vpc vhdx parallels; do
		file=$format
		[ -e "$file" ] || file=dmg.dmg
		above $format "$file"
		# no format any more: the extension becomes one that nobody knows
		poke above 112 11 22 33 44
		same above 65
		assertEquals "$format" "$(jq -r '.[1].format' "$WORK/out")"
	done
	# a file shorter than what is looked at has zeros behind its end
	head -c 400 vdi >short
	same short 65
	printf '#!/bin/sh\n' >short
	same short
}

. shunit2
