#!/bin/bash
# SPDX-License-Identifier: MIT
#
# A low rate makes the pieces of work small, but never cuts one inside a cluster.

# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"

# merged_slowly CLUSTER-SIZE COMMAND...: with 2 MiB to copy
merged_slowly()
{
	rm -f ./*
	new A.qcow2 8M -o cluster_size="$1"
	fill A.qcow2 1 0 8M
	over B.qcow2 A.qcow2 -o cluster_size="$1"
	fill B.qcow2 2 1M 2M
	over D.qcow2 B.qcow2 -o cluster_size="$1"
	HASH=$(content D.qcow2)
	shift
	assert_status 0 "$@" D.qcow2
	assert_merged D.qcow2 "$HASH" A.qcow2
}

testClustersOf128K()
{
	merged_slowly 128k chain-stream -q -r 2M -b A.qcow2
}

testClustersOf2M()
{
	merged_slowly 2M chain-stream -q -r 3M -b A.qcow2
}

testCompared()
{
	merged_slowly 128k chain-rebase -q -r 8M -b A.qcow2
}

# shellcheck disable=SC1091
. shunit2
