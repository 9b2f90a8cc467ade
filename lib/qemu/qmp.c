/* SPDX-License-Identifier: MIT */
#include "qemu/qmp.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fail.h"
#include "base/size.h"
#include "qemu/frame.h"
#include "qemu/message.h"

#define GREETING_MS 5000u /* a main loop that is busy greets late */
#define REPLY_MS 600000u /* a flush of gigabytes takes its time */
#define PATIENCE_MS 5000u /* after a signal */
#define LOOK_MS 50 /* how long a signal may go unnoticed */
#define MESSAGE_MAX (64u << 20)
#define EVENTS_MAX 10000u /* more than anybody waits for; the oldest go */

struct qmp {
	int fd;
	char *name;
	pid_t pid;
	const volatile sig_atomic_t *stop;
	uint64_t signalled_ms; /* when *stop was seen, 0: it was not */
	uint64_t end_ms; /* of qmp_hurry, 0: none */
	uint64_t number; /* of the last command */
	int broken; /* negative: the session is over */
	bool refused;
	bool sent; /* the last command, as a whole */
	bool skips; /* the reply to a former command may still come */
	char *buf; /* what has come and was not taken */
	size_t have, cap;
	struct frame frame;
	json_t *events;
};

static int broken(struct qmp *q, int err)
{
	q->broken = err;
	return err;
}

static int no_qmp(struct qmp *q, const char *what)
{
	return broken(q, fail(EPROTO, "%s does not speak QMP: %s", q->name, what));
}

/* The session is over: what ended it, also when it is asked again. */
static int over(const struct qmp *q)
{
	switch (q->broken) {
	case -ENXIO:
		return fail(ENXIO, "the QEMU at %s ended, or closed the session",
			    q->name);
	case -EINTR:
		return fail(EINTR, "stopped while the QEMU at %s did not answer",
			    q->name);
	default:
		return fail(-q->broken,
			    "the session with the QEMU at %s ended before: %s", q->name,
			    strerror(-q->broken));
	}
}

static int ended(struct qmp *q)
{
	broken(q, -ENXIO);
	return over(q);
}

/* Why not to wait any longer: 0, or a negative errno. */
static int overdue(struct qmp *q, uint64_t end_ms)
{
	uint64_t now = clock_ms();

	if (q->end_ms)
		end_ms = min_u64(end_ms, q->end_ms);
	else if (!q->signalled_ms && q->stop && *q->stop)
		q->signalled_ms = now;
	if (!q->end_ms && q->signalled_ms && now - q->signalled_ms >= PATIENCE_MS) {
		q->skips = true;
		broken(q, -EINTR);
		return over(q);
	}
	return now >= end_ms ? -ETIMEDOUT : 0;
}

static int make_room(struct qmp *q)
{
	size_t cap = q->cap ? 2 * q->cap : 65536;
	char *buf;

	if (q->cap - q->have >= 4096)
		return 0;
	if (q->have >= MESSAGE_MAX)
		return no_qmp(q, "a message has no end");
	buf = realloc(q->buf, cap);
	if (!buf)
		return broken(q, fail(ENOMEM, "out of memory"));
	q->buf = buf;
	q->cap = cap;
	return 0;
}

/* Some bytes, or -ETIMEDOUT (without a sentence) when it is end_ms. */
static int read_more(struct qmp *q, uint64_t end_ms)
{
	int err = make_room(q);

	while (!err) {
		struct pollfd p = {.fd = q->fd, .events = POLLIN};
		uint64_t now = clock_ms();
		uint64_t wait = end_ms > now ? min_u64(end_ms - now, LOOK_MS) : 0;
		ssize_t n;

		if (poll(&p, 1, (int)wait) > 0) {
			n = read(q->fd, q->buf + q->have, q->cap - q->have);
			if (n > 0) {
				q->have += (size_t)n;
				return 0;
			}
			if (n == 0 || (errno != EINTR && errno != EAGAIN))
				return ended(q);
		}
		err = overdue(q, end_ms);
	}
	return err;
}

/* The next message, whatever it is. -ETIMEDOUT without a sentence. */
static int receive(struct qmp *q, uint64_t end_ms, json_t **out)
{
	ssize_t length;

	*out = NULL;
	if (q->broken)
		return over(q);
	while ((length = frame_scan(&q->frame, q->buf, q->have)) == 0) {
		int err = read_more(q, end_ms);

		/* also where there is always something to read */
		if (!err)
			err = overdue(q, end_ms);
		if (err)
			return err;
	}
	if (length < 0)
		return no_qmp(q, "it sends what is no message");
	*out = message_parse(q->buf, (size_t)length);
	q->have -= (size_t)length;
	memmove(q->buf, q->buf + length, q->have);
	q->frame = (struct frame){0};
	return *out ? 0 : no_qmp(q, "it sends what is no JSON");
}

/* Takes over message. 0, or -EPROTO if it is no event either. */
static int keep_event(struct qmp *q, json_t *message)
{
	const char *name = json_string_value(json_object_get(message, "event"));
	json_t *data = json_object_get(message, "data");

	if (!name || (data && !json_is_object(data))) {
		json_decref(message);
		return no_qmp(q, "a message is neither a reply nor an event");
	}
	if (json_array_size(q->events) >= EVENTS_MAX)
		json_array_remove(q->events, 0);
	json_array_append_new(q->events, message);
	return 0;
}

static int take_error(struct qmp *q, const char *command, const json_t *error)
{
	const char *text = json_string_value(json_object_get(error, "desc"));
	const char *class = json_string_value(json_object_get(error, "class"));

	if (!text || !class)
		return no_qmp(q, "an error says neither its class nor its text");
	q->refused = true;
	return fail(-message_error(text), "the QEMU at %s refuses %s: %s", q->name,
		    command, text);
}

/* A reply that we gave up waiting for. */
static bool is_former(const struct qmp *q, const json_t *message)
{
	json_int_t id = json_integer_value(json_object_get(message, "id"));

	return q->skips && id > 0 && (uint64_t)id < q->number;
}

/* The reply to the last command; events before it are kept. */
static int await_reply(struct qmp *q, const char *command, json_t **reply)
{
	uint64_t end = clock_ms() + REPLY_MS;
	json_t *m, *value;
	int err;

	do {
		/* also when one event comes after the other */
		err = overdue(q, end);
		if (!err)
			err = receive(q, end, &m);
		if (err == -ETIMEDOUT && !q->broken)
			return broken(q, fail(ETIMEDOUT, "the QEMU at %s does not answer",
					      q->name));
		if (err)
			return err;
		if (!json_object_get(m, "return") && !json_object_get(m, "error"))
			err = keep_event(q, m);
		else if (is_former(q, m))
			json_decref(m);
		else
			break;
	} while (!err);
	if (err)
		return err;
	value = json_object_get(m, "id");
	if (!json_is_integer(value) || (uint64_t)json_integer_value(value) != q->number) {
		err = no_qmp(q, "a reply is to another command");
	} else if ((value = json_object_get(m, "return"))) {
		if (reply)
			*reply = json_incref(value);
	} else {
		err = take_error(q, command, json_object_get(m, "error"));
	}
	json_decref(m);
	return err;
}

static int send_all(struct qmp *q, const char *text, size_t length)
{
	uint64_t end = clock_ms() + REPLY_MS;

	while (length) {
		struct pollfd p = {.fd = q->fd, .events = POLLOUT};
		ssize_t n = send(q->fd, text, length, MSG_NOSIGNAL | MSG_DONTWAIT);
		int err;

		if (n > 0) {
			text += n;
			length -= (size_t)n;
			continue;
		}
		if (n < 0 && errno != EAGAIN && errno != EINTR)
			return ended(q);
		poll(&p, 1, LOOK_MS);
		err = overdue(q, end);
		if (err)
			return broken(q, err == -ETIMEDOUT
						 ? fail(ETIMEDOUT,
							"the QEMU at %s does not read",
							q->name)
						 : err);
	}
	return 0;
}

int qmp_call(struct qmp *q, const char *command, json_t *arguments, json_t **reply)
{
	CLEANUP_FREE char *text = NULL;
	json_t *m = json_pack("{s:s, s:I}", "execute", command, "id",
			      (json_int_t)++q->number);
	int err;

	if (reply)
		*reply = NULL;
	q->refused = q->sent = false;
	if (m && arguments)
		json_object_set_new(m, "arguments", arguments);
	text = m ? json_dumps(m, JSON_COMPACT) : NULL;
	json_decref(m);
	if (!text)
		return fail(ENOMEM, "out of memory");
	if (q->broken)
		return over(q);
	err = send_all(q, text, strlen(text));
	/* QEMU counts brackets, too, and does not wait for the end of the line */
	q->sent = !err;
	if (!err)
		err = send_all(q, "\n", 1);
	return err ? err : await_reply(q, command, reply);
}

bool qmp_refused(const struct qmp *q)
{
	return q->refused;
}

bool qmp_sent(const struct qmp *q)
{
	return q->sent;
}

void qmp_hurry(struct qmp *q, uint64_t ms)
{
	q->end_ms = ms ? clock_ms() + ms : 0;
	if (!ms)
		q->signalled_ms = 0;
	/* what was not answered in time before may be now */
	if (q->broken == -EINTR)
		q->broken = 0;
}

int qmp_wait(struct qmp *q, unsigned ms)
{
	uint64_t end = clock_ms() + ms;

	while (!json_array_size(q->events)) {
		json_t *m;
		int err = receive(q, end, &m);

		if (err == -ETIMEDOUT)
			return 0;
		if (!err)
			err = keep_event(q, m);
		if (err)
			return err;
	}
	return 1;
}

json_t *qmp_event(struct qmp *q)
{
	json_t *first = json_incref(json_array_get(q->events, 0));

	if (first)
		json_array_remove(q->events, 0);
	return first;
}

pid_t qmp_pid(const struct qmp *q)
{
	return q->pid;
}

const char *qmp_name(const struct qmp *q)
{
	return q->name;
}

static int in_use(const char *name)
{
	return fail(EAGAIN,
		    "%s is in use by another client (a QMP socket takes one at a time); "
		    "try again later, or give that QEMU a second socket",
		    name);
}

static int stopped(void)
{
	return fail(EINTR, "stopped before anything was done");
}

/* {"QMP": {"version": {...}, "capabilities": [...]}} */
static int take_greeting(struct qmp *q, uint64_t wait_ms)
{
	uint64_t end = clock_ms() + max_u64(GREETING_MS, wait_ms);
	bool good;
	json_t *m;
	int err;

	do {
		if (q->stop && *q->stop)
			return stopped();
		err = receive(q, min_u64(end, clock_ms() + LOOK_MS), &m);
	} while (err == -ETIMEDOUT && clock_ms() < end);
	if (err == -ETIMEDOUT)
		return in_use(q->name);
	if (err)
		return err;
	good = json_is_object(json_object_get(json_object_get(m, "QMP"), "version"));
	json_decref(m);
	return good ? 0 : no_qmp(q, "it does not greet as QMP does");
}

static pid_t peer(int fd)
{
	struct ucred who;
	socklen_t size = sizeof(who);

	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &size) == 0 ? who.pid : 0;
}

int qmp_adopt(struct qmp **out, int fd, const char *name,
	      const volatile sig_atomic_t *stop, uint64_t wait_ms)
{
	struct qmp *q = calloc(1, sizeof(*q));
	int err;

	*out = NULL;
	if (!q) {
		close(fd);
		return fail(ENOMEM, "out of memory");
	}
	q->fd = fd;
	q->name = strdup(name);
	q->pid = peer(fd);
	q->stop = stop;
	q->events = json_array();
	err = q->name && q->events ? 0 : fail(ENOMEM, "out of memory");
	if (!err)
		err = take_greeting(q, wait_ms);
	if (!err)
		err = qmp_call(q, "qmp_capabilities", NULL, NULL);
	if (err)
		qmp_close(q);
	else
		*out = q;
	return err;
}

int qmp_connect(struct qmp **out, const char *path, const volatile sig_atomic_t *stop,
		uint64_t wait_ms)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	const struct timespec pause = {.tv_nsec = LOOK_MS * 1000000};
	uint64_t end = clock_ms() + max_u64(GREETING_MS, wait_ms);
	size_t length = strlen(path);
	CLEANUP_CLOSE int fd = -1;

	*out = NULL;
	if (!length || length >= sizeof(address.sun_path))
		return fail(ENAMETOOLONG, "%s: the path of a socket has 1 to %zu bytes",
			    path, sizeof(address.sun_path) - 1);
	memcpy(address.sun_path, path, length);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return fail_errno(errno, "cannot make a socket");
	while (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
		if (errno == ECONNREFUSED || errno == ENOTSOCK || errno == EPROTOTYPE)
			return fail(ENXIO,
				    "--qmp=%s: no QEMU listens there; give the Unix "
				    "socket of its -qmp or -mon",
				    path);
		if (errno != EAGAIN)
			return fail_errno(errno, "%s: cannot connect", path);
		/* others are waiting for the session of somebody else, as many as may */
		if (clock_ms() >= end)
			return in_use(path);
		if (stop && *stop)
			return stopped();
		nanosleep(&pause, NULL);
	}
	return qmp_adopt(out, take_fd(&fd), path, stop, wait_ms);
}

void qmp_close(struct qmp *q)
{
	if (!q)
		return;
	close(q->fd);
	json_decref(q->events);
	free(q->buf);
	free(q->name);
	free(q);
}
