#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Kinds of images that are shown but not written, with a sentence that says why.

# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"

# Layers are not decrypted into a plain overlay.
testEncryptedLayer()
{
	luks A.qcow2
	qemu-img create -q -u -f qcow2 -b A.qcow2 -F qcow2 D.qcow2 1M
	freeze ./*.qcow2
	assert_status 65 chain-stream -q D.qcow2
	assert_one_error
	assert_err 'A.qcow2.*encrypt'
	assert_status 65 chain-rebase -q -b '' D.qcow2
	assert_status 0 chain-info D.qcow2
	assert_out A.qcow2
	assert_status 0 chain-info --json D.qcow2
	assertEquals true "$(jq '.[1].encrypted' "$WORK/out")"
	assert_frozen
}

testEncryptedTop()
{
	new A.qcow2 1M
	luks D.qcow2 -b A.qcow2 -F qcow2
	freeze ./*.qcow2
	assert_status 65 chain-stream -q D.qcow2
	assert_err encrypt
	assert_status 65 chain-rebase -q -b '' D.qcow2
	assert_status 0 chain-info D.qcow2
	assert_frozen
}

testProtocols()
{
	local name

	for name in nbd://localhost/x nbd+unix:///x?socket=/nowhere nbd:localhost:10809 \
		'json:{"driver":"nbd","host":"localhost"}' ssh://h/x https://h/x; do
		rm -f D.qcow2
		qemu-img create -q -u -f qcow2 -b "$name" -F raw D.qcow2 2M
		freeze D.qcow2
		assert_status 65 chain-stream -q D.qcow2
		assert_one_error
		run chain-info D.qcow2
		assertTrue "$name: $STATUS" "[ $STATUS = 0 ] || [ $STATUS = 65 ]"
		assert_out D.qcow2
		run chain-info --json D.qcow2
		assertEquals "$name" "$(jq -r '.[0]."backing-filename"' "$WORK/out")"
		assert_frozen
	done
}

testRawTop()
{
	truncate -s 1M disk.raw
	new A.qcow2 1M
	freeze disk.raw A.qcow2
	assert_status 65 chain-stream -q disk.raw
	assert_one_error
	assert_err overlay
	assert_status 65 chain-rebase -q -b A.qcow2 disk.raw
	assert_err overlay
	assert_status 0 chain-info disk.raw
	assert_out raw
	assert_frozen
	# what the sentence advises works
	assert_status 0 chain-snapshot disk.raw top.qcow2
	assertEquals raw "$(backing_format top.qcow2)"
	assert_status 0 chain-stream -q top.qcow2
	assert_sound top.qcow2
}

testOtherFormats()
{
	local command

	qemu-img create -q -f vmdk A.vmdk 1M
	FORMAT=vmdk over D.qcow2 A.vmdk
	freeze D.qcow2
	assert_status 65 chain-stream -q D.qcow2
	assert_err vmdk
	run chain-info D.qcow2
	assert_out A.vmdk
	assert_frozen
	# nor is it raw, of which an overlay could be made
	for command in chain-stream 'chain-rebase -b X' 'chain-rebase -u -F raw -b X'; do
		# shellcheck disable=SC2086 # several words
		assert_status 65 $command A.vmdk
		assert_one_error
		assert_err 'A.vmdk: it looks like format "vmdk"'
	done
}

# QEMU takes it for raw, for it knows another version; it is not recorded as that for ever.
testOtherVersions()
{
	make_chain
	printf 'LUKS\xba\xbe\0\2' >luks
	printf 'WithoutFreeSpace\3' >parallels
	printf 'Bochs Virtual HD Image' >bochs
	truncate -s 1M luks parallels bochs
	freeze D.qcow2
	for f in luks parallels bochs; do
		assert_status 0 chain-info -o format $f
		assert_out '^raw'
		assert_status 65 chain-snapshot $f x.qcow2
		assert_one_error
		assert_err "$f: it looks like format \"$f\".*qemu-img convert"
		assert_status 65 chain-rebase -b $f D.qcow2
		assert_err "it looks like format \"$f\""
		assert_status 65 chain-rebase -u -b $f D.qcow2
		FORMAT=raw over over-$f $f
		# no format any more: the extension becomes one that nobody knows
		poke over-$f 112 11 22 33 44
		assert_status 65 chain-stream -q over-$f
		assert_err "$f: it looks like format"
	done
	assert_frozen
	assertFalse "an overlay was made" "[ -e x.qcow2 ]"
	# only its name says so
	truncate -s 1M disk.dmg
	assert_status 65 chain-snapshot disk.dmg x.qcow2
	assert_err 'disk.dmg: is called .dmg.*say so or rename it'
	assert_status 0 chain-snapshot -q -o backing_fmt=raw disk.dmg x.qcow2
}

# The format before qcow2 begins with the same four bytes.
testQcow()
{
	qemu-img create -q -f qcow A.qcow 1M
	assert_status 65 chain-info A.qcow
	assert_err '"qcow"'
	assert_no_out qcow2
	FORMAT=qcow over D.qcow2 A.qcow
	assert_status 65 chain-stream -q D.qcow2
	assert_err '"?qcow"?'
}

# An image without the recorded format below is merged, with a warning.
testNoFormat()
{
	new A.qcow2 2M
	fill A.qcow2 1 0 1M
	new B.qcow2 2M
	over D.qcow2 B.qcow2
	# QEMU 7 does not make one without a format: take the extension's type away
	poke D.qcow2 112 00 00 00 00
	HASH=$(content D.qcow2)
	assert_status 0 chain-stream D.qcow2
	assert_merged D.qcow2 "$HASH" ""
}

# Where the guest's bytes are the data file's there is no room for a backing file.
testRawDataFile()
{
	new X.qcow2 2M
	fill X.qcow2 1 0 1M
	new D.qcow2 2M -o data_file=D.data,data_file_raw=on
	fill D.qcow2 2 1M 512k
	freeze X.qcow2 D.qcow2 D.data
	assert_status 65 chain-rebase -q -F qcow2 -b X.qcow2 D.qcow2
	assert_one_error
	assert_err 'D.qcow2.*raw external data file'
	assert_status 65 chain-rebase -q -n -F qcow2 -b X.qcow2 D.qcow2
	assert_status 65 chain-rebase -q -u -F qcow2 -b X.qcow2 D.qcow2
	assert_one_error
	assert_err 'D.qcow2.*raw external data file'
	assert_frozen
}

# shellcheck disable=SC1091
. shunit2
