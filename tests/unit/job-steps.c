/* SPDX-License-Identifier: MIT */
/* Steps that are kept: a walk over them finds what was found, cluster by cluster. */
#undef NDEBUG
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "job/steps.h"

#define CLUSTER 65536ull
#define CLUSTERS 5000u

static unsigned seed = 1;

static unsigned draw(unsigned below)
{
	return (unsigned)rand_r(&seed) % below;
}

/* What is to be done with each cluster: kind + 1, or 0; subclusters of FILL; who has it. */
static struct {
	unsigned what;
	uint32_t want;
	bool compare, indivisible;
	struct image *image;
	uint64_t host;
} model[CLUSTERS];

static struct image layers[2];

/* Steps as a plan finds them; some places are come to twice, at their end or in the middle. */
static void find(struct steps *s)
{
	memset(model, 0, sizeof(model));
	for (unsigned i = 0; i < CLUSTERS;) {
		unsigned n = 1 + draw(9), twice = draw(n);
		struct step step = {.pos = i * CLUSTER, .work = draw(3) != 0};

		step.kind = (enum item_kind)draw(6);
		step.indivisible = step.kind == ITEM_COPY && draw(4) == 0;
		if (step.kind == ITEM_FILL) {
			n = 1;
			step.want = 1 + draw(1000);
			step.compare = draw(2);
		}
		if (step.kind == ITEM_CLONE) {
			step.image = &layers[draw(2)];
			/* in order, mostly, so that they may be joined */
			step.host = (i + draw(2) * CLUSTERS) * CLUSTER;
		}
		if (i + n > CLUSTERS)
			n = CLUSTERS - i;
		step.length = n * CLUSTER;
		assert(steps_add(s, &step) == 0);
		for (unsigned j = i; j < i + n && step.work; j++) {
			model[j].what = step.kind + 1u;
			model[j].want = step.want;
			model[j].compare = step.compare;
			model[j].indivisible = step.indivisible;
			model[j].image = step.image;
			model[j].host = step.host + (j - i) * CLUSTER;
		}
		if (twice < n && draw(2)) {
			step.pos += twice * CLUSTER;
			step.length -= twice * CLUSTER;
			step.host += twice * CLUSTER;
			assert(steps_add(s, &step) == 0);
		}
		i += n;
	}
}

static void walk(const struct steps *s)
{
	size_t next = 0;

	for (size_t i = 1; i < s->count; i++)
		assert(s->items[i].pos >= s->items[i - 1].pos + s->items[i - 1].length);
	for (unsigned i = 0; i < CLUSTERS;) {
		struct step step = steps_at(s, &next, i * CLUSTER, CLUSTERS * CLUSTER);
		unsigned n = (unsigned)(step.length / CLUSTER);

		assert(step.pos == i * CLUSTER && n && i + n <= CLUSTERS);
		/* as who takes a part of it */
		if (draw(3) == 0)
			n = 1 + draw(n);
		for (unsigned j = i; j < i + n; j++) {
			assert(model[j].what == (step.work ? step.kind + 1u : 0));
			assert(model[j].want == step.want);
			assert(model[j].compare == step.compare);
			assert(model[j].indivisible == step.indivisible);
			assert(model[j].image == step.image);
			assert(!step.image ||
			       model[j].host == step.host + (j - i) * CLUSTER);
		}
		i += n;
	}
}

static void step(struct steps *s, uint64_t cluster, enum item_kind kind, bool indivisible)
{
	struct step one = {.pos = cluster * CLUSTER,
			   .length = CLUSTER,
			   .kind = kind,
			   .work = true,
			   .indivisible = indivisible};

	assert(steps_add(s, &one) == 0);
}

/* What is one compressed cluster, or has a want of its own, stays a step. */
static void test_joining(void)
{
	struct steps s = {0};

	for (uint64_t i = 0; i < 10; i++)
		step(&s, i, ITEM_CLONE, false);
	assert(s.count == 1);
	for (uint64_t i = 10; i < 20; i++)
		step(&s, i, ITEM_COPY, true);
	assert(s.count == 11);
	for (uint64_t i = 20; i < 30; i++)
		step(&s, i, ITEM_FILL, false);
	assert(s.count == 21);
	steps_release(&s);
	/* nor what lies elsewhere, or in another layer */
	for (uint64_t i = 0; i < 30; i++) {
		struct step one = {.pos = i * CLUSTER,
				   .length = CLUSTER,
				   .kind = ITEM_CLONE,
				   .work = true,
				   .image = &layers[i / 20],
				   .host = i / 10 == 1 ? i * CLUSTER : (i + 5) * CLUSTER};

		assert(steps_add(&s, &one) == 0);
	}
	assert(s.count == 3);
	steps_release(&s);
	/* not everything in one, or an item would hold more than it may */
	for (uint64_t i = 0; i < 10 * STEPS_JOINED; i++)
		step(&s, i, ITEM_CLONE, false);
	assert(s.count == 10);
	steps_release(&s);
}

static void test_too_many(void)
{
	struct steps s = {0};

	for (uint64_t i = 0; i < STEPS_MOST; i++)
		step(&s, 2 * i, ITEM_ZERO, false);
	assert(!s.too_many && s.count == STEPS_MOST);
	step(&s, 2 * STEPS_MOST, ITEM_ZERO, false);
	assert(s.too_many && !s.items);
	step(&s, 2 * STEPS_MOST + 2, ITEM_ZERO, false);
	assert(s.too_many && !s.items);
	steps_release(&s);
}

/* A step that goes on where others end is not cut: better no list than one with a gap. */
static void test_overlap(void)
{
	struct steps s = {0};
	struct step one = {.pos = CLUSTER, .length = 3 * CLUSTER, .work = true};

	step(&s, 0, ITEM_CLONE, false);
	step(&s, 1, ITEM_ZERO, false);
	assert(steps_add(&s, &one) == 0);
	assert(s.too_many);
	steps_release(&s);
}

/* The same bytes, however they are cut; others are not the same, as many as there are. */
static void test_footprint(void)
{
	struct footprint a = {0}, b = {0}, c = {0};

	footprint_add(&a, 3 * CLUSTER, 5 * CLUSTER);
	footprint_add(&a, 100 * CLUSTER, 7);
	footprint_add(&b, 100 * CLUSTER, 3);
	footprint_add(&b, 100 * CLUSTER + 3, 4);
	for (uint64_t i = 3; i < 8; i++)
		footprint_add(&b, i * CLUSTER, CLUSTER);
	assert(a.length == b.length && a.offsets == b.offsets);
	footprint_add(&c, 4 * CLUSTER, 5 * CLUSTER);
	footprint_add(&c, 100 * CLUSTER, 7);
	assert(a.length == c.length && a.offsets != c.offsets);
}

int main(void)
{
	for (unsigned round = 0; round < 50; round++) {
		struct steps s = {0};

		find(&s);
		walk(&s);
		steps_release(&s);
	}
	test_joining();
	test_too_many();
	test_overlap();
	test_footprint();
	return 0;
}
