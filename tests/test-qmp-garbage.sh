#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Whoever listens where a QEMU was said to: not what QMP promises is an error in one line.

# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=tests/lib-qmp.sh
. "$TOP/tests/lib-qmp.sh"

HELLO='{"QMP": {"version": {"qemu": {}}, "capabilities": []}}'
DONE='{"return": {}, "id": @ID@}'

# against STATUS LINE...: a server that says these lines
against()
{
	local wanted=$1

	shift
	rm -f fake
	printf '%s\n' "$@" >script
	"$TOP/tests/qmp-tool" fake fake script 2>"$WORK/fake" &
	later "kill -9 $!"
	until_true 5 test -S fake
	assert_status "$wanted" chain-stream --qmp=fake D.qcow2
	assert_one_error
	wait $!
	assert_frozen
}

testGarbage()
{
	need python3 || return 0
	make_chain
	freeze ./*.qcow2
	against 74 'SSH-2.0-OpenSSH_9.2'
	against 74 '{}'
	against 74 '{"QMP": 1}'
	against 74 '{"QMP": }'
	against 74 '[]'
	against 74 '}'
	against 74 '{"QMP": {"version": "\ud800"}}'
	against 69 "$(printf '{"a": %2000s' '' | tr ' ' '[')"
	against 74 "$(printf '{"a": %3000s}' '' | sed 's/ /[/g')$(printf '%3000s}' '' | tr ' ' ']')"
	# the session ends
	against 69 "$HELLO"
	against 69 "$HELLO" "$DONE"
	# replies
	against 74 "$HELLO" '{"return": {}, "id": 77}'
	against 74 "$HELLO" '{"return": {}}'
	against 74 "$HELLO" '{"return": {}, "id": "1"}'
	against 74 "$HELLO" '{"id": @ID@}'
	against 74 "$HELLO" '{"error": "no", "id": @ID@}'
	against 69 "$HELLO" '{"error": {"class": "GenericError", "desc": "no such thing"}, "id": @ID@}'
	against 74 "$HELLO" '{"event": 1}'
	against 74 "$HELLO" '{"event": "X", "data": 5}'
	# a QEMU that knows nothing
	against 69 "$HELLO" "$DONE" '{"return": [], "id": @ID@}'
	against 69 "$HELLO" "$DONE" '{"return": 7, "id": @ID@}'
	against 69 "$HELLO" "$DONE" '{"return": [1, {}, {"name": 3}, {"name": "job-pause"}], "id": @ID@}'
	# events before the greeting and between
	against 74 '{"event": "POWERDOWN"}' "$HELLO"
	against 69 "$HELLO" '{"event": "POWERDOWN"}\n{"return": {}, "id": @ID@}' \
		'{"event": "X", "data": {}}\n{"event": "Y"}\n{"return": [], "id": @ID@}'
}

# What a real QEMU says it can do, so that the lists are asked for
testLists()
{
	local list schema

	need_daemon || return 0
	make_chain
	daemon D.qcow2
	# it stays, and has the image that a fake says to have
	schema=$(say '{"execute": "query-qmp-schema"}')
	freeze ./*.qcow2
	for list in 7 '[1, {}, {"device": 7}, {"device": "chain-1"}]' '[{"device": "x", "status": 5}]'; do
		against 69 "$HELLO" "$DONE" "{\"return\": $schema, \"id\": @ID@}" \
			"{\"return\": $list, \"id\": @ID@}"
	done
	for list in 7 '[]' '[1, [], {}, {"node-name": ""}, {"node-name": 1, "drv": 2, "file": 3}]' \
		'[{"node-name": "a", "drv": "qcow2", "file": "json:{"}]' \
		'[{"node-name": "a", "drv": "qcow2", "file": "json:{\"file\": {\"file\": 1}}"}]' \
		'[{"node-name": "0123456789012345678901234567890123456789", "drv": "qcow2", "file": "D.qcow2"}]'; do
		# a fake has no working folder that would matter: it is ours
		against "$([ "$list" = 7 ] && echo 74 || echo 69)" "$HELLO" "$DONE" \
			"{\"return\": $schema, \"id\": @ID@}" '{"return": [], "id": @ID@}' \
			'{"return": [], "id": @ID@}' "{\"return\": $list, \"id\": @ID@}"
	done
	# an image that could not be merged, with a layer that is no name
	against 69 "$HELLO" "$DONE" "{\"return\": $schema, \"id\": @ID@}" '{"return": [], "id": @ID@}' \
		'{"return": [], "id": @ID@}' \
		'{"return": [{"node-name": "a", "drv": "qcow2", "ro": false, "file": "D.qcow2", "image": {"filename": 5, "backing-image": 6}}], "id": @ID@}'
	assert_err 'than the headers name'
	# a node that nobody ever heard of
	against 69 "$HELLO" "$DONE" "{\"return\": $schema, \"id\": @ID@}" '{"return": [], "id": @ID@}' \
		'{"return": [], "id": @ID@}' \
		'{"return": [{"node-name": "a", "drv": "qcow2", "ro": false, "file": "D.qcow2"}], "id": @ID@}' \
		'{"error": {"class": "DeviceNotFound", "desc": "no a"}, "id": @ID@}'
	assert_err 'refuses [a-z-]*: no a'
}

# shellcheck disable=SC1091
. shunit2
