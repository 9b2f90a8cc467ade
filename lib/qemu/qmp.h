/* SPDX-License-Identifier: MIT */
/*
 * A QMP session: one Unix socket, one client at a time (docs/interop/qmp-spec).
 *
 *	err = qmp_connect(&q, "/run/vm.qmp", stop, 0);
 *	err = qmp_call(q, "query-jobs", NULL, &reply);
 *	...
 *	while (qmp_wait(q, 100) > 0)
 *		event = qmp_event(q);
 *	qmp_close(q);
 *
 * Whoever answers is not trusted: what is not JSON, or not what QMP promises, is -EPROTO
 * with a sentence, and the session is over then. Events that come while a reply is waited
 * for are kept. One thread at a time. Nothing that QEMU does depends on the session, so it
 * may end at any message.
 */
#ifndef QEMU_QMP_H
#define QEMU_QMP_H

#include <jansson.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct qmp;

/*
 * Connect, take the greeting, leave the negotiation. wait_ms: how long to wait for a session
 * of somebody else to end (a few seconds at least, since a busy QEMU greets late).
 *
 * -ENOENT: no such socket; -ENXIO: nobody listens there; -EAGAIN: somebody else has the
 * session; -EPROTO: no QMP; -EINTR: *stop; -EACCES and others of connect(2).
 */
int qmp_connect(struct qmp **out, const char *socket, const volatile sig_atomic_t *stop,
		uint64_t wait_ms);
/* The same on a descriptor that is connected; it is closed in every case. */
int qmp_adopt(struct qmp **out, int fd, const char *name,
	      const volatile sig_atomic_t *stop, uint64_t wait_ms);
/* NULL: nothing. The thread's sentence stays. */
void qmp_close(struct qmp *q);

/* Who made the socket, 0: not known. The socket's path. */
pid_t qmp_pid(const struct qmp *q);
const char *qmp_name(const struct qmp *q);

/*
 * Send a command and wait for its reply. arguments (NULL: none) is taken over; *reply
 * (reply may be NULL) is the caller's, and NULL on an error.
 *
 * QEMU refused: qmp_refused, and -EAGAIN (busy), -ENOSPC, -EACCES or -ENXIO with QEMU's
 * words. -ENXIO: the session ended; -EPROTO: no QMP; -ETIMEDOUT: no reply for minutes;
 * -EINTR: *stop, and no reply for some seconds after it.
 */
int qmp_call(struct qmp *q, const char *command, json_t *arguments, json_t **reply);

/* Was the last error of qmp_call an answer of QEMU, so that the session goes on? */
bool qmp_refused(const struct qmp *q);

/*
 * Was the last command sent as a whole? Only then QEMU may have carried it out, whatever
 * became of the session.
 */
bool qmp_sent(const struct qmp *q);

/*
 * From now on no signal counts; what is left to do has to end within ms. 0: take that back,
 * with the signal.
 */
void qmp_hurry(struct qmp *q, uint64_t ms);

/*
 * Wait at most ms for an event: 1, or 0 if there is none. Errors as qmp_call's, without
 * -EINTR.
 */
int qmp_wait(struct qmp *q, unsigned ms);

/* The oldest event (the whole message), the caller's; NULL: none. */
json_t *qmp_event(struct qmp *q);

#endif
