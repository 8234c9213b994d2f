/*
 * Dispatch of guest accesses by address.
 *
 * One immutable table per change: two sorted arrays of regions, one for each space. A reader
 * announces itself (its epoch), searches, copies what it needs out of the region it found and
 * withdraws before any handler runs; the writer publishes the next table, then waits until
 * nobody is left who may be searching the old one. Those waits are a binary search long.
 *
 * Invariants:
 *  1. Regions of a space do not overlap, so the one whose base is the last at or below an
 *     address is the only candidate.
 *  2. A reader's epoch is 0 while it is in a handler, so a handler may itself add and remove
 *     regions (a BAR move does) and the writer never waits for a handler.
 *  3. A handler that runs on its owner looks the region up again there. When the owner is the
 *     control loop, which alone changes the table, it is thus never called after bus_del().
 *
 *  4. Each reader has counters of its own, which its thread alone writes: no line of the cache
 *     is shared, no instruction locked. A region's index is set before it can be found.
 *
 * Threads: bus_add/bus_del the control loop; a reader one thread at a time (while a vCPU waits
 * for an owner's loop, that loop uses the vCPU's reader).
 * Untrusted: addresses, lengths and data are the guest's.
 */
#include "core/bus.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "core/trace.h"

#define BUS_SPACES 2

enum { STAT_UNASSIGNED, STAT_OTHER, STAT_FIRST };

struct bus_table {
	unsigned capacity;
	unsigned count[BUS_SPACES];
	struct bus_region **region[BUS_SPACES]; /* into slots[] */
	struct bus_region *slots[];
};

struct bus {
	_Atomic(struct bus_table *) table;
	/* The table before, which nobody searches any more: room for the next one. It had one
	 * region more or less than the current, so bus_del() never has to allocate. */
	struct bus_table *spare;
	_Atomic uint64_t epoch; /* starts at 1 */
	pthread_mutex_t readers_lock;
	struct list readers;
	char *stat_name[BUS_STATS];
	unsigned nstats; /* names; STAT_FIRST at first */
};

struct bus_reader {
	_Alignas(64) _Atomic uint64_t epoch; /* 0: not searching */
	struct bus *bus;
	struct list node;
	struct bus_count {
		_Atomic uint64_t n[2]; /* reads, writes */
	} stat[BUS_STATS];
};

int bus_new(struct bus **out)
{
	struct bus *b = calloc(1, sizeof(*b));
	struct bus_table *t = calloc(1, sizeof(*t));
	struct bus_table *spare = calloc(1, sizeof(*spare));

	if (!b || !t || !spare) {
		free(spare);
		free(t);
		free(b);
		return -ENOMEM;
	}
	atomic_init(&b->table, t);
	b->spare = spare;
	atomic_init(&b->epoch, 1);
	pthread_mutex_init(&b->readers_lock, NULL);
	list_init(&b->readers);
	b->nstats = STAT_FIRST;
	*out = b;
	return 0;
}

void bus_free(struct bus *b)
{
	if (!b) {
		return;
	}
	assert(list_empty(&b->readers));
	pthread_mutex_destroy(&b->readers_lock);
	for (unsigned i = STAT_FIRST; i < b->nstats; i++) {
		free(b->stat_name[i]);
	}
	free(atomic_load(&b->table));
	free(b->spare);
	free(b);
}

int bus_reader_new(struct bus *b, struct bus_reader **out)
{
	struct bus_reader *rd = aligned_alloc(_Alignof(struct bus_reader), sizeof(*rd));

	if (!rd) {
		return -ENOMEM;
	}
	memset(rd, 0, sizeof(*rd));
	rd->bus = b;
	pthread_mutex_lock(&b->readers_lock);
	list_add_tail(&b->readers, &rd->node);
	pthread_mutex_unlock(&b->readers_lock);
	*out = rd;
	return 0;
}

void bus_reader_free(struct bus_reader *rd)
{
	if (!rd) {
		return;
	}
	pthread_mutex_lock(&rd->bus->readers_lock);
	list_del(&rd->node);
	pthread_mutex_unlock(&rd->bus->readers_lock);
	free(rd);
}

/* --- statistics --- */

const char *bus_stat_name(const struct bus *b, unsigned i)
{
	static const char *const fixed[] = {
		[STAT_UNASSIGNED] = "unassigned",
		[STAT_OTHER] = "other",
	};

	return i < STAT_FIRST ? fixed[i] : i < b->nstats ? b->stat_name[i] : NULL;
}

uint64_t bus_reader_stat(const struct bus_reader *rd, unsigned i, bool write)
{
	return i < BUS_STATS ? atomic_load_explicit(&rd->stat[i].n[write], memory_order_relaxed) : 0;
}

/* The index of a region's counters. A BAR that moves, or comes back after a reset, goes on. */
static unsigned stat_index(struct bus *b, const struct bus_region *r)
{
	char name[96];

	snprintf(name, sizeof(name), "%s%s%s", r->device ? r->device : "", r->device ? "/" : "",
		 r->name ? r->name : "?");
	for (unsigned i = STAT_FIRST; i < b->nstats; i++) {
		if (!strcmp(b->stat_name[i], name)) {
			return i;
		}
	}
	if (b->nstats == BUS_STATS || !(b->stat_name[b->nstats] = strdup(name))) {
		return STAT_OTHER;
	}
	return b->nstats++;
}

static void stat_count(struct bus_reader *rd, unsigned i, bool write)
{
	_Atomic uint64_t *n = &rd->stat[i].n[write];

	/* one writer: no read-modify-write needed */
	atomic_store_explicit(n, atomic_load_explicit(n, memory_order_relaxed) + 1,
			      memory_order_relaxed);
}

/* --- the table --- */

/* Publishes the spare table; the one before becomes the spare once nobody can be searching it.
 * Sequentially consistent: either the reader's epoch is seen here, or the reader sees the new
 * table.
 * #syscalls(main): sched_yield */
static void bus_publish(struct bus *b)
{
	struct bus_table *old = atomic_exchange(&b->table, b->spare);
	uint64_t now = atomic_fetch_add(&b->epoch, 1) + 1;
	struct list *n;

	pthread_mutex_lock(&b->readers_lock);
	list_for_each(n, &b->readers) {
		struct bus_reader *rd = list_entry(n, struct bus_reader, node);
		uint64_t e;

		while ((e = atomic_load(&rd->epoch)) != 0 && e < now) {
			sched_yield();
		}
	}
	pthread_mutex_unlock(&b->readers_lock);
	b->spare = old;
}

/* The index of the last region with base <= addr, or -1. */
static int table_search(const struct bus_table *t, enum bus_space space, uint64_t addr)
{
	unsigned lo = 0, hi = t->count[space];

	while (lo < hi) {
		unsigned mid = (lo + hi) / 2;

		if (t->region[space][mid]->base <= addr) {
			lo = mid + 1;
		} else {
			hi = mid;
		}
	}
	return (int)lo - 1;
}

/* Makes the spare table the current one with r put in at `at`, or (add false) with the one
 * there left out. The spare has room. */
static void table_change(struct bus *b, struct bus_region *r, unsigned at, bool add)
{
	const struct bus_table *old = atomic_load(&b->table);
	struct bus_table *t = b->spare;
	struct bus_region **slot = t->slots;

	for (unsigned s = 0; s < BUS_SPACES; s++) {
		t->region[s] = slot;
		for (unsigned i = 0; i <= old->count[s]; i++) {
			bool here = s == r->space && i == at;

			if (here && add) {
				*slot++ = r;
			}
			if (i < old->count[s] && (!here || add)) {
				*slot++ = old->region[s][i];
			}
		}
		t->count[s] = (unsigned)(slot - t->region[s]);
	}
	assert((unsigned)(slot - t->slots) <= t->capacity);
}

/* Makes room for `total` regions in the spare table. 0 or -ENOMEM. */
static int spare_reserve(struct bus *b, unsigned total)
{
	struct bus_table *t = b->spare;

	if (total > t->capacity) {
		unsigned capacity = MAX(2 * t->capacity, MAX(total, 16u));

		t = realloc(t, sizeof(*t) + capacity * sizeof(t->slots[0]));
		if (!t) {
			return -ENOMEM;
		}
		t->capacity = capacity;
		b->spare = t;
	}
	return 0;
}

static unsigned ops_min(const struct bus_ops *ops)
{
	return ops->min_size ? ops->min_size : 1;
}

static unsigned ops_max(const struct bus_ops *ops)
{
	return ops->max_size ? ops->max_size : 8;
}

int bus_add(struct bus *b, struct bus_region *r)
{
	const struct bus_table *t = atomic_load(&b->table);
	unsigned total = t->count[BUS_MMIO] + t->count[BUS_PIO];
	uint64_t last = r->base + (r->size - 1);
	int before;

	assert(!r->added && r->ops && (r->ops->read || r->ops->write));
	assert(is_pow2(ops_min(r->ops)) && is_pow2(ops_max(r->ops)));
	assert(ops_min(r->ops) <= ops_max(r->ops) && ops_max(r->ops) <= 8);
	if (r->size == 0 || last < r->base || (r->space == BUS_PIO && last > UINT16_MAX)) {
		return -EINVAL;
	}
	if (total >= BUS_MAX_REGIONS) {
		return -ENOSPC;
	}
	/* The candidate with the highest base that could overlap. */
	before = table_search(t, r->space, last);
	if (before >= 0) {
		const struct bus_region *o = t->region[r->space][before];

		if (o->base + (o->size - 1) >= r->base) {
			return -EEXIST;
		}
	}
	if (spare_reserve(b, total + 1) < 0) {
		return -ENOMEM;
	}
	r->stat = stat_index(b, r);
	table_change(b, r, (unsigned)(before + 1), true);
	r->added = true;
	bus_publish(b);
	return 0;
}

void bus_del(struct bus *b, struct bus_region *r)
{
	const struct bus_table *t = atomic_load(&b->table);
	int at;

	if (!r->added) {
		return;
	}
	at = table_search(t, r->space, r->base);
	assert(at >= 0 && t->region[r->space][at] == r);
	table_change(b, r, (unsigned)at, false);
	r->added = false;
	bus_publish(b);
}

/* What is needed of a region once the search is over. */
struct bus_hit {
	const struct bus_region *region; /* to compare, not to follow */
	const struct bus_ops *ops;
	void *opaque;
	struct loop *owner;
	bool owner_reads;
	uint64_t off;
	unsigned stat;
};

/* The region that holds all of [addr, addr + len); false if there is none. */
static bool bus_find(struct bus_reader *rd, enum bus_space space, uint64_t addr, unsigned len,
		     struct bus_hit *hit)
{
	struct bus *b = rd->bus;
	const struct bus_table *t;
	bool found = false;
	int at;

	atomic_store(&rd->epoch, atomic_load(&b->epoch));
	t = atomic_load(&b->table);
	at = table_search(t, space, addr);
	if (at >= 0) {
		const struct bus_region *r = t->region[space][at];

		if (range_within(addr - r->base, len, r->size)) {
			*hit = (struct bus_hit){r,	  r->ops,	  r->opaque,
						r->owner, r->owner_reads, addr - r->base,
						r->stat};
			found = true;
		}
	}
	atomic_store_explicit(&rd->epoch, 0, memory_order_release);
	return found;
}

/* The next piece of an access of which `left` bytes are to be done. */
static unsigned piece_size(const struct bus_ops *ops, unsigned left)
{
	unsigned size = ops_max(ops);

	while (size > left) {
		size /= 2;
	}
	return size;
}

/* An access is refused as a whole if any of its pieces would be too small. The pieces only get
 * smaller, so the last one tells. */
static bool size_ok(const struct bus_ops *ops, unsigned len)
{
	unsigned piece = 0;

	for (unsigned left = len; left; left -= piece) {
		piece = piece_size(ops, left);
	}
	return piece >= ops_min(ops);
}

static void hit_read(const struct bus_hit *hit, uint8_t *data, unsigned len)
{
	for (unsigned done = 0, size; done < len; done += size) {
		uint64_t v;

		size = piece_size(hit->ops, len - done);
		v = hit->ops->read(hit->opaque, hit->off + done, size);
		memcpy(data + done, &v, size);
	}
}

static void hit_write(const struct bus_hit *hit, const uint8_t *data, unsigned len)
{
	for (unsigned done = 0, size; done < len; done += size) {
		uint64_t v = 0;

		size = piece_size(hit->ops, len - done);
		memcpy(&v, data + done, size);
		hit->ops->write(hit->opaque, hit->off + done, v, size);
	}
}

/* An access that the owner carries out for a waiting vCPU. */
struct bus_call {
	struct bus_reader *rd;
	const struct bus_region *region;
	enum bus_space space;
	uint64_t addr;
	unsigned len;
	uint8_t *data;
	bool write;
};

static void bus_call_owner(void *arg)
{
	struct bus_call *c = arg;
	struct bus_hit hit;

	if (!bus_find(c->rd, c->space, c->addr, c->len, &hit) || hit.region != c->region) {
		return; /* it moved away while the vCPU waited: as if nobody had answered */
	}
	if (c->write) {
		hit_write(&hit, c->data, c->len);
	} else {
		hit_read(&hit, c->data, c->len);
	}
}

void bus_read(struct bus_reader *rd, enum bus_space space, uint64_t addr, void *data,
	      unsigned len)
{
	struct bus_hit hit = {.stat = STAT_UNASSIGNED};
	bool found;

	assert(len >= 1 && len <= 8);
	memset(data, 0xff, len);
	found = bus_find(rd, space, addr, len, &hit);
	stat_count(rd, hit.stat, false);
	if (!found || !hit.ops->read || !size_ok(hit.ops, len)) {
		trace_bus_unassigned_read(space == BUS_PIO, addr, len);
		return;
	}
	if (hit.owner && hit.owner_reads) {
		struct bus_call c = {rd, hit.region, space, addr, len, data, false};

		loop_call(hit.owner, bus_call_owner, &c);
	} else {
		hit_read(&hit, data, len);
	}
}

void bus_write(struct bus_reader *rd, enum bus_space space, uint64_t addr, const void *data,
	       unsigned len)
{
	struct bus_hit hit = {.stat = STAT_UNASSIGNED};
	bool found;

	assert(len >= 1 && len <= 8);
	found = bus_find(rd, space, addr, len, &hit);
	stat_count(rd, hit.stat, true);
	if (!found || !hit.ops->write || !size_ok(hit.ops, len)) {
		uint64_t value = 0;

		memcpy(&value, data, len);
		trace_bus_unassigned_write(space == BUS_PIO, addr, len, value);
		return;
	}
	if (hit.owner) {
		uint8_t copy[8];
		struct bus_call c = {rd, hit.region, space, addr, len, copy, true};

		memcpy(copy, data, len);
		loop_call(hit.owner, bus_call_owner, &c);
	} else {
		hit_write(&hit, data, len);
	}
}
