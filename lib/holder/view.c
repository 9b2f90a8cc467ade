/* SPDX-License-Identifier: MIT */
#include "holder/view.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/fail.h"

int view_new(struct view **out, uint64_t gen, struct active *active,
	     const struct chain_link *links, size_t count)
{
	struct view *v = calloc(1, sizeof(*v));
	int err;

	*out = NULL;
	if (!v)
		return fail(ENOMEM, "out of memory");
	pthread_mutex_init(&v->walk_lock, NULL);
	pthread_mutex_init(&v->source_lock, NULL);
	v->gen = gen;
	v->active = active;
	v->chain.links = calloc(count, sizeof(*links));
	if (!v->chain.links) {
		view_free(v);
		return fail(ENOMEM, "out of memory");
	}
	memcpy(v->chain.links, links, count * sizeof(*links));
	v->chain.count = count;
	err = chain_walk_init(&v->walk, &v->chain, 1, count);
	if (err) {
		view_free(v);
		return err;
	}
	*out = v;
	return 0;
}

void view_free(struct view *v)
{
	if (!v)
		return;
	for (unsigned i = 0; i < v->n_sources; i++)
		source_release(&v->sources[i]);
	chain_walk_release(&v->walk);
	free(v->chain.links);
	pthread_mutex_destroy(&v->walk_lock);
	pthread_mutex_destroy(&v->source_lock);
	free(v);
}

/* The one that was put back last comes first: it may have the very cluster inflated. */
int view_source_get(struct view *v, struct source *s)
{
	{
		LOCK_SCOPE(&v->source_lock);

		if (v->n_sources) {
			*s = v->sources[--v->n_sources];
			return 0;
		}
	}
	return source_init(s);
}

void view_source_put(struct view *v, struct source *s)
{
	{
		LOCK_SCOPE(&v->source_lock);

		if (v->n_sources < VIEW_SOURCES) {
			v->sources[v->n_sources++] = *s;
			return;
		}
	}
	source_release(s);
}
