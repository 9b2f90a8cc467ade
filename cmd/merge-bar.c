/* SPDX-License-Identifier: MIT */
/*
 * The bar. The width is asked for at each drawing, so no signal handler is needed for
 * a window that changes; and a line leaves room at its end for what the terminal shows of a
 * Ctrl-C, so it never wraps.
 */
#include "merge-bar.h"

#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/size.h"
#include "output.h"

#define DRAW_MS 100
#define SAMPLE_MS 500
#define COLUMNS_MAX 160
#define BAR_MIN 10
#define COLUMNS_FREE 2 /* of "^C" */

void merge_bar_init(struct merge_bar *bar, bool wanted)
{
	*bar = (struct merge_bar){.on = wanted && isatty(STDERR_FILENO)};
}

static int window_columns(void)
{
	struct winsize size;

	if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) < 0 || !size.ws_col)
		return 80;
	return size.ws_col < COLUMNS_MAX ? size.ws_col : COLUMNS_MAX;
}

static void sample(struct merge_bar *bar, uint64_t done, uint64_t now)
{
	double current;

	if (!bar->sample_ms) {
		bar->sample_ms = now;
		bar->sample_done = done;
	}
	if (now - bar->sample_ms < SAMPLE_MS)
		return;
	current = (double)(done - bar->sample_done) * 1000 /
		  (double)(now - bar->sample_ms);
	bar->speed = bar->speed > 0 ? 0.8 * bar->speed + 0.2 * current : current;
	bar->sample_ms = now;
	bar->sample_done = done;
}

/* What stands behind the bar. */
static int describe(const struct merge_bar *bar, enum merge_state state,
		    const struct merge_counts *c, uint64_t rate, char *out, size_t room)
{
	char done[SIZE_TEXT], total[SIZE_TEXT], speed[SIZE_TEXT], left[SIZE_TEXT];
	unsigned percent = c->total ? (unsigned)((double)c->done * 100 / (double)c->total)
				    : 0;
	int n = snprintf(out, room, " %3u %%  %s of %s", percent < 100 ? percent : 100,
			 size_format(c->done, done), size_format(c->total, total));

	if (state == MERGE_PAUSED)
		return n + snprintf(out + n, room - (size_t)n, "  paused");
	if (state != MERGE_RUNNING)
		return n + snprintf(out + n, room - (size_t)n, "  finishing");
	if (rate)
		n += snprintf(out + n, room - (size_t)n, "  %s/s",
			      size_format(rate, speed));
	if (bar->speed >= 1 && c->done < c->total)
		n += snprintf(
			out + n, room - (size_t)n, "  %s left",
			time_format(
				(uint64_t)((double)(c->total - c->done) / bar->speed) + 1,
				left));
	return n;
}

/* As much of the line as fits, without a number that is cut in two. */
static int whole_parts(const char *line, int columns)
{
	for (int n = columns; n > 1; n--) {
		if (line[n] == ' ' && line[n + 1] == ' ' && line[n - 1] != ' ')
			return n;
	}
	return 0;
}

static void draw(struct merge_bar *bar, enum merge_state state,
		 const struct merge_counts *c, uint64_t rate)
{
	char text[4 * SIZE_TEXT + 64], line[COLUMNS_MAX + sizeof(text)];
	int columns = window_columns() - COLUMNS_FREE;
	int behind = describe(bar, state, c, rate, text, sizeof(text));
	int width = columns - behind - 2, n = 0;

	if (width > columns / 2)
		width = columns / 2;
	if (width >= BAR_MIN) {
		int full = c->total ? (int)((double)c->done / (double)c->total * width)
				    : 0;

		line[n++] = '[';
		for (int i = 0; i < width; i++)
			line[n++] = i < full ? '=' : i == full ? '>' : ' ';
		line[n++] = ']';
	}
	n += snprintf(line + n, sizeof(line) - (size_t)n, "%s", text);
	if (n > columns)
		n = whole_parts(line, columns);
	/* blanks over the rest of a longer line before */
	fprintf(stderr, "\r%.*s", n, line);
	if (bar->columns > n && n < columns)
		fprintf(stderr, "%*s",
			(bar->columns < columns ? bar->columns : columns) - n, "");
	fflush(stderr);
	bar->columns = n;
}

void merge_bar_update(struct merge_bar *bar, enum merge_state state,
		      const struct merge_counts *counts, uint64_t rate)
{
	uint64_t now;

	if (!bar->on || !counts->total || state == MERGE_CREATED ||
	    state >= MERGE_ABORTING)
		return;
	now = clock_ms();
	sample(bar, counts->done, now);
	if (bar->drawn_ms && state == bar->state && now - bar->drawn_ms < DRAW_MS)
		return;
	if (!output_has_room(STDERR_FILENO)) /* stopped: nobody looks at it */
		return;
	bar->state = state;
	bar->drawn_ms = now;
	draw(bar, state, counts, rate);
}

void merge_bar_clear(struct merge_bar *bar)
{
	int columns = window_columns() - 1;

	if (!bar->columns || !output_wait(STDERR_FILENO))
		return;
	bar->columns += COLUMNS_FREE;
	if (bar->columns > columns)
		bar->columns = columns > 0 ? columns : 0;
	fprintf(stderr, "\r%*s\r", bar->columns, "");
	fflush(stderr);
	bar->columns = 0;
}
