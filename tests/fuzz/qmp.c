/* SPDX-License-Identifier: MIT */
/*
 * A session with whoever says these bytes: connect, what it can do, its nodes, its jobs, and
 * whatever else it tells. The program's ends of the wire are real.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fail.h"
#include "qemu/flush.h"
#include "qemu/job.h"
#include "qemu/node.h"
#include "qemu/schema.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void look_at_nodes(struct qmp *q)
{
	struct nodes nodes = {0};
	struct node node;
	size_t at = 0;

	if (nodes_query(q, &nodes) == 0) {
		while (nodes_next(&nodes, 1, 1, &at, &node))
			if (strlen(node.name) >= NODE_NAME)
				abort();
		nodes_active(&nodes, NULL, 1, 1, &node);
		if (nodes_active(&nodes, "disk", 1, 1, &node) == 0 && !node.driver)
			abort();
	}
	nodes_release(&nodes);
}

static void look_at_jobs(struct qmp *q)
{
	struct job job = {0};

	if (job_find(q, &job, 1, 2) == 0 && job.found &&
	    (job.offset > job.len || strncmp(job.id, "chain-1-2-", 10) != 0))
		abort();
	if (job.found && job.error && job_failure(&job) >= 0)
		abort();
	job_release(&job);
}

static void talk(struct qmp *q)
{
	struct schema schema = {0};
	json_t *event;

	if (schema_query(q, &schema) == 0) {
		schema_has(&schema, "block-stream", "job-id");
		flush_can(&schema);
	}
	schema_release(&schema);
	look_at_jobs(q);
	look_at_nodes(q);
	for (int i = 0; i < 8 && qmp_wait(q, 0) > 0; i++) {
		event = qmp_event(q);
		if (!event)
			abort();
		json_decref(event);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct qmp *q;
	int ends[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
		abort();
	if (write(ends[1], data, size) != (ssize_t)size)
		abort();
	shutdown(ends[1], SHUT_WR);
	if (qmp_adopt(&q, ends[0], "fuzz", NULL, 0) == 0) {
		talk(q);
		qmp_close(q);
	}
	close(ends[1]);
	fail_clear();
	return 0;
}
