# shellcheck shell=bash disable=SC2034 # NBD, HOLDER and the like are for the tests
# SPDX-License-Identifier: MIT
#
# A QEMU as the holder, for the tests of --qmp. After lib.sh and lib-live.sh:
#
#	daemon D.qcow2 [ARGUMENT...]	a storage daemon; QMP is its socket, QMP2 another for
#					the test, and NBD the guest's way in (`guest`)
#	machine D.qcow2 [ARGUMENT...]	a qemu-system that does not run
#	say COMMAND...			through QMP2
#	kill_holder			as by the kernel when memory runs out

need_daemon()
{
	need qemu-storage-daemon qemu-io qemu-img jq python3 nbdinfo
}

need_machine()
{
	need qemu-system-x86_64 qemu-io qemu-img jq python3
}

# Its sockets answer
qemu_answers()
{
	[ -S "$QMP2" ] && say '{"execute": "query-jobs"}'
}

# begin_qemu COMMAND...
begin_qemu()
{
	"$@" >"$WORK/holder.out" 2>"$WORK/holder.err" </dev/null &
	HOLDER=$!
	later "kill -9 $HOLDER"
	until_true 10 qemu_answers ||
		fail "no QEMU: $(head -c 2000 "$WORK/holder.err")"
}

daemon()
{
	local image=$1

	shift
	QMP=$WORK/qmp
	QMP2=$WORK/qmp2
	SOCK=$WORK/sock
	NBD="nbd+unix:///disk?socket=$SOCK"
	rm -f "$QMP" "$QMP2" "$SOCK"
	begin_qemu qemu-storage-daemon \
		--chardev "socket,id=one,path=$QMP,server=on,wait=off" --monitor chardev=one \
		--chardev "socket,path=$QMP2,id=two,server=on,wait=off" --monitor chardev=two \
		--nbd-server "addr.type=unix,addr.path=$SOCK" \
		"$@" \
		--blockdev "driver=qcow2,node-name=disk,discard=unmap,file.driver=file,file.filename=$image${BACKING:-}" \
		--export type=nbd,id=guest,node-name=disk,name=disk,writable=on
}

machine()
{
	local image=$1

	shift
	QMP=$WORK/qmp
	QMP2=$WORK/qmp2
	rm -f "$QMP" "$QMP2"
	begin_qemu qemu-system-x86_64 -accel tcg -m 64 -nodefaults -no-user-config \
		-display none -S -qmp "unix:$QMP,server=on,wait=off" \
		-chardev "socket,id=two,path=$QMP2,server=on,wait=off" \
		-mon chardev=two,mode=control \
		-drive "file=$image,format=${FORMAT:-qcow2},if=virtio,discard=unmap" "$@"
}

say()
{
	"$TOP/tests/qmp-tool" say "$QMP2" "$@"
}

# Nothing of ours is left in it: no job, no filter, and its guest is not paused.
assert_tidy()
{
	say '{"execute": "query-jobs"}' '{"execute": "query-named-block-nodes"}' >"$WORK/tidy"
	assertEquals "jobs left" "[]" "$(head -n 1 "$WORK/tidy")"
	assertEquals "filters left" "" "$(tail -n 1 "$WORK/tidy" |
		jq -r '.[] | select(.drv == "copy-on-read")."node-name"')"
}

# Wait until the job of ours in it is in that state.
job_is()
{
	# shellcheck disable=SC2016
	until_true 10 bash -c '"$0" say "$1" "{\"execute\": \"query-jobs\"}" |
		jq -e --arg s "$2" ".[] | select(.status == \$s)"' "$TOP/tests/qmp-tool" "$QMP2" "$1" ||
		fail "no job is $1: $(say '{"execute": "query-jobs"}')"
}

# The merge that `start` started is under way: QEMU has its job, and so has the page.
qmp_merge_runs()
{
	job_is running
	merge_runs
}
