/* SPDX-License-Identifier: MIT */
/*
 * A session of QMP with a peer whose answers are there before they are asked for: what its
 * errors mean, what is kept, and that nothing it sends keeps us from ending.
 */
#include "qemu/qmp.h"

#undef NDEBUG
#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/size.h"

#define HELLO                                                                   \
	"{\"QMP\": {\"version\": {}, \"capabilities\": []}}\n{\"return\": {}, " \
	"\"id\": 1}\n"

static volatile sig_atomic_t stop;

/* A session of a peer that has said this after its greeting; *end is its end. */
static struct qmp *session(const char *said, int *end)
{
	struct qmp *q;
	int ends[2];

	assert(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
	assert(write(ends[1], HELLO, strlen(HELLO)) == (ssize_t)strlen(HELLO));
	assert(write(ends[1], said, strlen(said)) == (ssize_t)strlen(said));
	assert(qmp_adopt(&q, ends[0], "peer", &stop, 0) == 0);
	*end = ends[1];
	return q;
}

static void refuses(const char *text, int wanted)
{
	char line[512];
	struct qmp *q;
	int end;

	snprintf(
		line, sizeof(line),
		"{\"error\": {\"class\": \"GenericError\", \"desc\": \"%s\"}, \"id\": 2}",
		text);
	q = session(line, &end);
	assert(qmp_call(q, "x", NULL, NULL) == wanted);
	assert(qmp_refused(q));
	qmp_close(q);
	close(end);
}

/* As QEMU 7.2 says it */
static void test_errors(void)
{
	refuses("Node '#block975' is not a backing image of '#block123'", -ENXIO);
	refuses("Cannot find device='' nor node-name='#block1'", -ENXIO);
	refuses("Block node is read-only", -ENXIO);
	refuses("Node 'disk' is busy: block device is in use by block job: stream",
		-EAGAIN);
	refuses("Job ID 'chain-1' already in use", -EAGAIN);
	refuses("Failed to get \\\"write\\\" lock", -EAGAIN);
	refuses("Failed to get shared \\\"write\\\" lock", -EAGAIN);
	refuses("Could not open 'E': No space left on device", -ENOSPC);
	refuses("Could not open 'E': Permission denied", -EACCES);
}

/* Numbers that no integer holds make reals of all of that message. */
static void test_large_number(void)
{
	json_t *reply;
	int end;
	struct qmp *q = session("{\"return\": {\"big\": 18446744073709551615, \"list\": "
				"[7, 0.5]}, \"id\": 2}",
				&end);

	assert(qmp_call(q, "x", NULL, &reply) == 0);
	assert(json_is_real(json_object_get(reply, "big")));
	assert(json_integer_value(json_array_get(json_object_get(reply, "list"), 0)) ==
	       7);
	assert(json_real_value(json_array_get(json_object_get(reply, "list"), 1)) == 0.5);
	json_decref(reply);
	qmp_close(q);
	close(end);
}

/* What ended the session is told again, and what was not sent is known. */
static void test_end(void)
{
	int end;
	struct qmp *q = session("{\"return\": {}, \"id\": 7}", &end);

	assert(qmp_call(q, "x", NULL, NULL) == -EPROTO && qmp_sent(q));
	assert(qmp_call(q, "x", NULL, NULL) == -EPROTO && !qmp_sent(q));
	assert(qmp_wait(q, 0) == -EPROTO);
	qmp_close(q);
	close(end);
	q = session("", &end);
	close(end);
	assert(qmp_call(q, "x", NULL, NULL) == -ENXIO && !qmp_sent(q));
	qmp_close(q);
}

/* Events, one after the other, and no reply */
static void *flood(void *opaque)
{
	const char event[] = "{\"event\": \"X\"}\n";
	int fd = *(int *)opaque;

	while (send(fd, event, sizeof(event) - 1, MSG_NOSIGNAL) > 0)
		continue;
	return NULL;
}

static void test_flood(void)
{
	pthread_t thread;
	int end;
	struct qmp *q = session("", &end);
	uint64_t begin = clock_ms();

	assert(pthread_create(&thread, NULL, flood, &end) == 0);
	stop = 1;
	assert(qmp_call(q, "x", NULL, NULL) == -EINTR);
	assert(clock_ms() - begin < 30000);
	/* the session goes on, once, within this time */
	assert(qmp_call(q, "x", NULL, NULL) == -EINTR);
	qmp_hurry(q, 50);
	assert(qmp_call(q, "x", NULL, NULL) == -ETIMEDOUT);
	assert(qmp_call(q, "x", NULL, NULL) == -ETIMEDOUT);
	qmp_close(q);
	close(end);
	assert(pthread_join(thread, NULL) == 0);
	stop = 0;
}

int main(void)
{
	test_errors();
	test_large_number();
	test_end();
	test_flood();
	return 0;
}
