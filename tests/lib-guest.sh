# shellcheck shell=bash disable=SC2034
# SPDX-License-Identifier: MIT
#
# A real guest: Debian's cloud kernel, software emulation, an ext4 on /dev/vda. Inside, files
# are written, checked, moved, deleted and trimmed all the time. After lib.sh.
#
# Kernel and busybox are those installed, or are fetched (27 MB) into the folder of the test.

PACKAGES=$WORK/packages
MODULES="virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_blk"

# fetch PACKAGE: unpack it in $PACKAGES, and what it depends on if that is a kernel
fetch()
{
	local name=$1 real

	real=$(apt-cache depends "$name" 2>/dev/null | sed -n 's/^ *Depends: \(linux-image-.*\)/\1/p')
	mkdir -p "$PACKAGES"
	(cd "$PACKAGES" && apt-get -q download "${real:-$name}" && dpkg -x ./*.deb . &&
		rm ./*.deb) >"$WORK/fetch" 2>&1 && return 0
	skip "package $name is neither installed nor to be had: $(tail -n 1 "$WORK/fetch")"
	return 1
}

# KERNEL, its MODULE_DIR, BUSYBOX
find_guest()
{
	need qemu-system-x86_64 mkfs.ext4 debugfs apt-get dpkg || return 1
	KERNEL=$(find /boot "$PACKAGES/boot" -name 'vmlinuz-*-cloud-amd64' 2>/dev/null | tail -n 1)
	[ -n "$KERNEL" ] || fetch linux-image-cloud-amd64 || return 1
	KERNEL=$(find /boot "$PACKAGES/boot" -name 'vmlinuz-*-cloud-amd64' 2>/dev/null | tail -n 1)
	MODULE_DIR=${KERNEL%/boot/*}/lib/modules/${KERNEL##*/vmlinuz-}
	for BUSYBOX in /bin/busybox "$PACKAGES/bin/busybox"; do
		is_static "$BUSYBOX" && break
	done
	is_static "$BUSYBOX" || fetch busybox-static || return 1
	is_static "$BUSYBOX" && [ -d "$MODULE_DIR" ] && return 0
	skip "no kernel with modules, or no static busybox, in the packages"
	return 1
}

is_static()
{
	[ -x "$1" ] && ! ldd "$1" >/dev/null 2>&1
}

# What runs as process 1 in the guest
write_init()
{
	cat <<-'END'
		#!/bin/sh
		mount -t proc proc /proc
		mount -t devtmpfs dev /dev
		# twice: which one needs which changes with the kernel
		for m in $(cat /order /order); do insmod /$m.ko 2>/dev/null; done
		end() { echo "GUEST $*"; sync; poweroff -f; }
		mount -t ext4 -o discard /dev/vda /mnt || end FAILED mount
		cd /mnt
		sha256sum -c -s first.sums || end FAILED first
		echo GUEST begins
		(read -r line </dev/ttyS0; touch /stop) &
		n=0
		while ! [ -e /stop ]; do
			n=$((n + 1)) k=$((n % 12))
			[ -e f$k ] && { sha256sum -c -s f$k.sum || end FAILED file f$k round $n; }
			dd if=/dev/urandom of=f$k bs=$((n % 7 * 500 + 777)) count=$((n * 37 % 600 + 9)) 2>/dev/null
			[ $((n % 3)) = 0 ] && cat first/1 >>f$k
			sha256sum f$k >f$k.sum
			[ $((n % 4)) = 0 ] && sync
			[ $((n % 5)) = 0 ] && echo 3 >/proc/sys/vm/drop_caches
			[ $((n % 6)) = 0 ] && { rm -f f$(((n + 3) % 12)) f$(((n + 3) % 12)).sum; fstrim /mnt; }
			echo "GUEST round $n"
		done
		sync
		echo 3 >/proc/sys/vm/drop_caches
		cat f*.sum >all.sums
		sha256sum -c -s all.sums || end FAILED at the end
		sha256sum -c -s first.sums || end FAILED first at the end
		cd /
		umount /mnt || end FAILED umount
		end WELL
	END
}

make_initramfs()
{
	local m

	mkdir -p root/{bin,dev,proc,mnt}
	cp "$BUSYBOX" root/bin/busybox
	write_init >root/init
	chmod 755 root/init
	for m in $MODULES; do
		find "$MODULE_DIR" -name "$m.ko" -exec cp {} root \;
		[ -e "root/$m.ko" ] && echo "$m"
	done >root/order
	for m in sh mount insmod sha256sum dd cat rm sync fstrim umount poweroff touch; do
		ln -s busybox "root/bin/$m"
	done
	(cd root && find . | "$BUSYBOX" cpio -o -H newc 2>/dev/null | gzip -1) >initramfs
}

# A with an ext4 of 512 MiB and some files, B and D above it
make_disk()
{
	mkdir -p files/first
	seq 1 20000 >files/first/1
	head -c 3M /dev/urandom >files/first/2
	(cd files && sha256sum first/* >first.sums)
	truncate -s 512M disk.raw
	mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0 -d files disk.raw || return 1
	qemu-img convert -f raw -O qcow2 disk.raw A.qcow2 && rm disk.raw
	over B.qcow2 A.qcow2
	over D.qcow2 B.qcow2
}

# boot DRIVE [ARGUMENT...]: the guest is GUEST, its console the file `console`
boot()
{
	local drive=$1

	shift
	mkfifo keys
	qemu-system-x86_64 -accel tcg,thread=multi -m 256 -nodefaults -no-user-config \
		-display none -no-reboot -kernel "$KERNEL" -initrd initramfs \
		-append 'console=ttyS0 quiet panic=-1' -serial stdio \
		-drive "$drive,if=virtio,discard=unmap" "$@" \
		<keys >console 2>qemu.err &
	GUEST=$!
	later "kill -9 $GUEST"
	exec 6>keys
	until_true 60 grep -aq 'GUEST begins' console ||
		fail "it does not boot: $(tail -c 1500 console) $(tail -n 3 qemu.err)"
}

rounds()
{
	grep -ac 'GUEST round' console
}

rounds_reach()
{
	grep -aq FAILED console || [ "$(rounds)" -ge "$1" ]
}

# go_on: let the guest do some more
go_on()
{
	local want=$(($(rounds) + 6))

	until_true 60 rounds_reach $want || fail "the guest stands still: $(tail -c 500 console)"
}

# The file system of an image is sound, and its files are what their sums say.
assert_files()
{
	local status

	rm -rf out.raw out
	qemu-img convert -O raw "$1" out.raw || fail "convert $1"
	# what a power cut would leave: the journal is played back
	e2fsck -fp out.raw >fsck.out 2>&1
	status=$?
	[ $status -le 1 ] || fail "fsck of $1: $status $(tail -n 5 fsck.out)"
	mkdir out
	debugfs -R "rdump / out" out.raw >/dev/null 2>&1
	(cd out && sha256sum --quiet -c "${2:-first.sums}") >sums.out 2>&1 ||
		fail "files of $1: $(tail -n 3 sums.out)"
}

# Tell it to end, and see that it was content.
guest_ends()
{
	echo >&6
	exec 6>&-
	until_true 60 bash -c "! kill -0 $GUEST" || fail "the guest does not end"
	assertTrue "the guest: $(tail -c 1000 console)" "grep -aq 'GUEST WELL' console"
	assertFalse "errors in the guest: $(grep -a 'I/O error' console | head -n 3)" \
		"grep -aq 'I/O error' console"
}
