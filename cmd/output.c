/* SPDX-License-Identifier: MIT */
#include "output.h"

#include <limits.h>
#include <poll.h>
#include <stdint.h>
#include <unistd.h>

#include "base/size.h"
#include "common.h"

#define LOOK_MS 50
#define PATIENCE_MS 1000
#define TERMINAL_PIECE 128

static uint64_t hurry_ms; /* of clock_ms: since when we are to end */

/* What fails is no reason to wait: the write says why. */
static bool would_go_on(int fd, int ms)
{
	struct pollfd out = {.fd = fd, .events = POLLOUT};

	return poll(&out, 1, ms) != 0 && out.revents;
}

bool output_has_room(int fd)
{
	return would_go_on(fd, 0);
}

size_t output_piece(int fd)
{
	return isatty(fd) ? TERMINAL_PIECE : PIPE_BUF;
}

void output_hurry(void)
{
	if (!hurry_ms)
		hurry_ms = clock_ms();
}

bool output_wait(int fd)
{
	while (!would_go_on(fd, LOOK_MS)) {
		if (stop_signal)
			output_hurry();
		if (hurry_ms && clock_ms() - hurry_ms >= PATIENCE_MS)
			return false;
	}
	return true;
}

bool output_put(FILE *to, const char *text, size_t length)
{
	size_t piece = output_piece(fileno(to));

	for (size_t at = 0, n; at < length; at += n) {
		n = min_u64(piece, length - at);
		if (!output_wait(fileno(to)))
			return false;
		if (fwrite(text + at, 1, n, to) != n || fflush(to) != 0)
			return false;
	}
	return true;
}
