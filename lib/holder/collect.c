/* SPDX-License-Identifier: MIT */
#include "holder/collect.h"

#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/fail.h"
#include "base/size.h"
#include "image/cache.h"
#include "image/map.h"

/* Of words that were published one after the other. */
struct run {
	uint64_t cluster; /* of the first */
	size_t index; /* of the first, in pending.words */
	size_t count;
};

/* The tables that this commit makes: a copy of the old one first, and their L1 words. */
static int collect_tables(struct active *a, const struct pending *p,
			  struct commit_set *set)
{
	uint64_t bytes = image_cluster_size(a->img);
	uint8_t buf[CACHE_SLICE];
	int err = 0;

	for (size_t i = 0; i < p->n_tables && !err; i++) {
		const struct table_change *t = &p->tables[i];

		for (uint64_t at = 0; t->old && at < bytes && !err; at += sizeof(buf)) {
			size_t n = min_u64(bytes - at, sizeof(buf));

			err = cache_read(a->img->cache, t->old + at, buf, n);
			if (!err)
				err = cache_write(a->img->cache, t->host + at, buf, n);
		}
		if (!err)
			err = changes_add(&set->l1_words[1],
					  a->img->tables[0].l1_offset + 8 * t->l1_index,
					  (struct qcow2_word){t->host | QCOW2_COPIED, 0});
	}
	return err;
}

/*
 * Where the L2 table of this L1 entry will be after this commit. *next: so many of the tables
 * lie before those of the words so far, which come in order as the tables do.
 */
static int find_table(struct active *a, const struct pending *p, uint64_t l1_index,
		      size_t *next, uint64_t *host, bool *fresh)
{
	int err;

	while (*next < p->n_tables && p->tables[*next].l1_index < l1_index)
		++*next;
	*fresh = *next < p->n_tables && p->tables[*next].l1_index == l1_index;
	if (*fresh) {
		*host = p->tables[*next].host;
		return 0;
	}
	err = image_l2_offset(a->img, 0, l1_index, host);
	if (!err && !*host)
		err = fail(EINVAL, "no L2 table was made for L1 entry %ju",
			   (uintmax_t)l1_index);
	return err;
}

/* As they came, neighbours joined or each by itself. How many. */
static size_t list_runs(const struct pending *p, bool joined, struct run *runs)
{
	size_t n = 0;

	for (size_t i = 0; i < p->n_words; i++) {
		uint64_t cluster = p->words[i].cluster;

		if (joined && n && cluster == runs[n - 1].cluster + runs[n - 1].count)
			runs[n - 1].count++;
		else
			runs[n++] = (struct run){cluster, i, 1};
	}
	return n;
}

static int by_cluster(const void *a, const void *b)
{
	const struct run *x = a, *y = b;

	if (x->cluster != y->cluster)
		return x->cluster < y->cluster ? -1 : 1;
	return (x->index > y->index) - (x->index < y->index);
}

/* By cluster, those of one cluster as they came. false: they overlap. */
static bool sort_runs(struct run *runs, size_t n)
{
	bool sorted = true, apart = true;

	for (size_t i = 1; i < n && sorted; i++)
		sorted = runs[i - 1].cluster <= runs[i].cluster;
	if (!sorted)
		qsort(runs, n, sizeof(*runs), by_cluster);
	for (size_t i = 1; i < n && apart; i++)
		apart = runs[i - 1].cluster + runs[i - 1].count <= runs[i].cluster;
	return apart;
}

/* A worker links by runs, so they are few to sort; a guest may have changed one once more. */
static size_t runs_of(const struct pending *p, struct run *runs)
{
	size_t n = list_runs(p, true, runs);

	if (sort_runs(runs, n))
		return n;
	n = list_runs(p, false, runs);
	sort_runs(runs, n);
	return n;
}

struct place {
	uint64_t index; /* L1 index; UINT64_MAX: none yet */
	size_t next; /* see find_table */
	uint64_t host; /* of its table */
	bool fresh;
};

static int add_word(struct active *a, const struct pending *p,
		    const struct word_change *w, struct place *at, struct commit_set *set)
{
	uint64_t entries = qcow2_l2_entries(&a->img->header);
	unsigned bytes = qcow2_word_bytes(&a->img->header);
	int err = 0;

	if (w->cluster / entries != at->index) {
		at->index = w->cluster / entries;
		err = find_table(a, p, at->index, &at->next, &at->host, &at->fresh);
	}
	return err ? err
		   : changes_add(at->fresh ? &set->fresh_words : &set->words[1],
				 at->host + (w->cluster & (entries - 1)) * bytes,
				 w->word);
}

static int collect_words(struct active *a, const struct pending *p,
			 struct commit_set *set)
{
	CLEANUP_FREE struct run *runs = calloc(p->n_words + 1, sizeof(*runs));
	struct place at = {.index = UINT64_MAX};
	size_t n = runs ? runs_of(p, runs) : 0;
	int err = runs ? 0 : fail(ENOMEM, "out of memory");

	for (size_t i = 0; i < n && !err; i++) {
		/* the later one counts */
		if (i + 1 < n && runs[i + 1].cluster == runs[i].cluster)
			continue;
		for (size_t k = 0; k < runs[i].count && !err; k++)
			err = add_word(a, p, &p->words[runs[i].index + k], &at, set);
	}
	return err;
}

int collect_changes(struct active *a, const struct pending *p, struct commit_set *set)
{
	int err = collect_tables(a, p, set);

	return err ? err : collect_words(a, p, set);
}
