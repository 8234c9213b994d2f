/*
 * qcow2: which clusters are metadata, as a hash set of cluster numbers, and the grace period after
 * which nobody uses a cluster any more.
 *
 * The set holds every cluster of the kinds that overlap-check names (by default all but the inactive
 * L2 tables, which take a look at each snapshot). Three rules use it, which together keep a guest's writes off metadata without
 * a look at the set on the fast path:
 *  1. an L2 slice that points at one of them as data is refused when it is loaded (qcow2_map.c);
 *  2. a new cluster must not be one of them (qcow2_refcount.c);
 *  3. a cluster that becomes metadata must not be pointed at by a slice in the cache.
 *
 * Grace: requests of the fast path use host clusters without a lock. Each channel counts those in
 * flight in one of two counters, chosen by `phase`. A cluster that was dropped is free when each counter
 * of each channel was seen at zero since: then all requests from before have ended.
 */
#include <errno.h>
#include <stdlib.h>

#include "block/qcow2_int.h"

#define KIND_SHIFT 53 /* cluster numbers have at most 56 - 9 bits */
#define FREE	   UINT64_C(0)
#define DELETED	   UINT64_C(1)

static const char *const kind_names[] = {
	"main header",	     "active L1 table",	  "active L2 table",
	"refcount table",    "refcount block",	  "snapshot table",
	"inactive L1 table", "inactive L2 table", "bitmap directory",
};

const char *q2_kind_name(unsigned kind)
{
	return kind && kind <= Q2_OL_ALL ? kind_names[__builtin_ctz(kind)] : "data";
}

static uint64_t entry_of(uint64_t cluster, unsigned kind)
{
	return (uint64_t)(__builtin_ctz(kind) + 1) << KIND_SHIFT | (cluster + 2);
}

static size_t place(const struct q2_set *s, uint64_t cluster)
{
	return ((cluster + 2) * UINT64_C(0x9e3779b97f4a7c15) >> 20) & (s->cap - 1);
}

#define NUMBER(e) ((e) & ((UINT64_C(1) << KIND_SHIFT) - 1))

/* At most half full with `want` of them. */
static int rehash(struct q2_set *s, size_t want)
{
	size_t cap = 64;
	struct q2_set n = {0};

	while (cap < want * 2) {
		cap *= 2;
	}
	n.key = calloc(cap, sizeof(*n.key));
	if (!n.key) {
		return -ENOMEM;
	}
	n.cap = cap;
	n.count = s->count;
	for (size_t i = 0; i < s->cap; i++) {
		if (s->key[i] > DELETED) {
			size_t at = place(&n, NUMBER(s->key[i]) - 2);

			while (n.key[at]) {
				at = (at + 1) & (cap - 1);
			}
			n.key[at] = s->key[i];
		}
	}
	free(s->key);
	*s = n;
	return 0;
}

static size_t find(const struct q2_set *s, uint64_t cluster)
{
	size_t at;

	if (!s->cap) {
		return SIZE_MAX;
	}
	for (at = place(s, cluster); s->key[at]; at = (at + 1) & (s->cap - 1)) {
		if (s->key[at] > DELETED && NUMBER(s->key[at]) == cluster + 2) {
			return at;
		}
	}
	return SIZE_MAX;
}

unsigned q2_set_kind(const struct q2_set *s, uint64_t cluster)
{
	size_t at = find(s, cluster);

	return at == SIZE_MAX ? 0 : 1u << ((s->key[at] >> KIND_SHIFT) - 1);
}

int q2_set_reserve(struct q2_set *s, size_t more)
{
	size_t want = s->count + more;

	return want * 2 > s->cap ? rehash(s, want + want / 2) : 0;
}

int q2_set_add(struct q2_set *s, uint64_t cluster, unsigned kind)
{
	size_t at, to = SIZE_MAX;

	if ((s->count + s->dead + 1) * 2 > s->cap && rehash(s, s->count * 2) < 0) {
		return -ENOMEM;
	}
	for (at = place(s, cluster); s->key[at]; at = (at + 1) & (s->cap - 1)) {
		if (s->key[at] == DELETED) {
			to = MIN(to, at);
		} else if (NUMBER(s->key[at]) == cluster + 2) {
			return -EEXIST;
		}
	}
	if (to == SIZE_MAX) {
		to = at;
	} else {
		s->dead--;
	}
	s->key[to] = entry_of(cluster, kind);
	s->count++;
	return 0;
}

void q2_set_del(struct q2_set *s, uint64_t cluster)
{
	size_t at = find(s, cluster);

	if (at != SIZE_MAX) {
		s->key[at] = DELETED;
		s->count--;
		s->dead++;
	}
}

void q2_set_fini(struct q2_set *s)
{
	free(s->key);
	memset(s, 0, sizeof(*s));
}

/* --- grace --- */

void q2_grace_init(struct q2_grace *g)
{
	memset(g, 0, sizeof(*g));
	pthread_mutex_init(&g->lock, NULL);
}

void q2_grace_fini(struct q2_grace *g)
{
	pthread_mutex_destroy(&g->lock);
}

void q2_reader_add(struct q2_grace *g, struct q2_reader *r)
{
	pthread_mutex_lock(&g->lock);
	r->next = g->readers;
	g->readers = r;
	pthread_mutex_unlock(&g->lock);
}

void q2_reader_del(struct q2_grace *g, struct q2_reader *r)
{
	pthread_mutex_lock(&g->lock);
	for (struct q2_reader **p = &g->readers; *p; p = &(*p)->next) {
		if (*p == r) {
			*p = r->next;
			break;
		}
	}
	pthread_mutex_unlock(&g->lock);
}

void q2_grace_begin(struct q2_grace *g)
{
	/* the change of the entry before any look at the counters */
	atomic_thread_fence(memory_order_seq_cst);
	g->saw_idle[0] = g->saw_idle[1] = false;
}

bool q2_grace_over(struct q2_grace *g)
{
	unsigned now = atomic_load(&g->phase) & 1;

	pthread_mutex_lock(&g->lock);
	for (unsigned p = 0; p < 2; p++) {
		bool idle = true;

		for (struct q2_reader *r = g->readers; r; r = r->next) {
			idle = idle && !atomic_load(&r->count[p]);
		}
		g->saw_idle[p] = g->saw_idle[p] || idle;
	}
	pthread_mutex_unlock(&g->lock);
	if (g->saw_idle[!now] && !g->saw_idle[now]) {
		/* new requests go to the other counter, so that this one comes to zero */
		atomic_store(&g->phase, !now);
	}
	return g->saw_idle[0] && g->saw_idle[1];
}
