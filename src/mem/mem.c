/*
 * Guest memory: the region table and its listeners.
 *
 * Look-up runs on any thread without a lock. There are two copies of the table and a sequence
 * number whose lowest bit says which one is published: a change fills the other copy, then
 * steps the number. A reader that was overtaken twice sees a changed number and starts again,
 * so it never acts on a half-written row, never waits for the writer, and nothing has to be
 * reclaimed.
 *
 * Invariants:
 *  1. region[] and the published table are sorted by address and free of overlaps.
 *  2. A listener has been told of exactly the regions that mem_listener_wants() names.
 *  3. Devices see a region only while every listener does (added last, removed first), but for
 *     a ROM device that is not direct: its contents stay readable to devices.
 *
 * Threads: everything but mem_lookup*() belongs to the control loop.
 * Untrusted here: nothing but the addresses given to mem_lookup().
 */
#include "mem/mem_int.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

int mem_new(struct mem **out)
{
	struct mem *m = calloc(1, sizeof(*m));

	if (!m) {
		return -ENOMEM;
	}
	list_init(&m->listeners);
	*out = m;
	return 0;
}

/* Fills the copy that is not published and publishes it. Release on each row: a reader that
 * sees any of them also sees that the sequence number has moved on from what it started with.
 */
static void mem_publish(struct mem *m)
{
	unsigned seq = atomic_load_explicit(&m->seq, memory_order_relaxed) + 1;
	struct mem_table *t = &m->table[seq & 1];

	for (unsigned i = 0; i < m->count; i++) {
		struct mem_region *r = m->region[i];

		atomic_store_explicit(&t->row[i].gpa, r->gpa, memory_order_release);
		atomic_store_explicit(&t->row[i].last, r->gpa + (r->size - 1),
				      memory_order_release);
		atomic_store_explicit(&t->row[i].host, (uintptr_t)r->host,
				      memory_order_release);
		atomic_store_explicit(&t->row[i].region, r, memory_order_release);
	}
	atomic_store_explicit(&t->count, m->count, memory_order_release);
	atomic_store_explicit(&m->seq, seq, memory_order_release);
}

/* Acquire on each row keeps the closing load of the sequence number behind them all. */
struct mem_region *mem_lookup(struct mem *m, gpa_t gpa)
{
	for (;;) {
		unsigned seq = atomic_load_explicit(&m->seq, memory_order_acquire);
		struct mem_table *t = &m->table[seq & 1];
		unsigned lo = 0;
		unsigned hi = atomic_load_explicit(&t->count, memory_order_acquire);
		struct mem_region *found = NULL;

		while (lo < hi) {
			unsigned mid = (lo + hi) / 2;
			struct mem_row *row = &t->row[mid];

			if (gpa < atomic_load_explicit(&row->gpa, memory_order_acquire)) {
				hi = mid;
			} else if (gpa >
				   atomic_load_explicit(&row->last, memory_order_acquire)) {
				lo = mid + 1;
			} else {
				found = atomic_load_explicit(&row->region,
							     memory_order_acquire);
				break;
			}
		}
		if (atomic_load_explicit(&m->seq, memory_order_relaxed) == seq) {
			return found;
		}
	}
}

/* By a linear search: this serves dirty marking alone, while a log is on. No region but the one
 * that is found may be looked into: another may just be going away. */
struct mem_region *mem_lookup_host(struct mem *m, const void *host)
{
	for (;;) {
		unsigned seq = atomic_load_explicit(&m->seq, memory_order_acquire);
		struct mem_table *t = &m->table[seq & 1];
		unsigned count = atomic_load_explicit(&t->count, memory_order_acquire);
		struct mem_region *found = NULL;

		for (unsigned i = 0; i < count && !found; i++) {
			struct mem_row *row = &t->row[i];
			gpa_t gpa = atomic_load_explicit(&row->gpa, memory_order_acquire);
			gpa_t last = atomic_load_explicit(&row->last, memory_order_acquire);
			uintptr_t base = atomic_load_explicit(&row->host, memory_order_acquire);

			if ((uintptr_t)host - base <= last - gpa) {
				found = atomic_load_explicit(&row->region,
							     memory_order_acquire);
			}
		}
		if (atomic_load_explicit(&m->seq, memory_order_relaxed) == seq) {
			return found;
		}
	}
}

/* Tells the listeners that want r; on failure those already told are told to forget it. */
static int mem_listeners_region_add(struct mem *m, struct mem_region *r, struct err *err)
{
	struct list *n;

	list_for_each(n, &m->listeners) {
		struct mem_listener *l = list_entry(n, struct mem_listener, node);
		int rc = mem_listener_wants(l, r) ? l->ops->region_add(l, r, err) : 0;

		if (rc == 0) {
			continue;
		}
		for (n = n->prev; n != &m->listeners; n = n->prev) {
			l = list_entry(n, struct mem_listener, node);
			if (mem_listener_wants(l, r)) {
				l->ops->region_del(l, r);
			}
		}
		return rc;
	}
	return 0;
}

static void mem_listeners_region_del(struct mem *m, struct mem_region *r)
{
	for (struct list *n = m->listeners.prev; n != &m->listeners; n = n->prev) {
		struct mem_listener *l = list_entry(n, struct mem_listener, node);

		if (mem_listener_wants(l, r)) {
			l->ops->region_del(l, r);
		}
	}
}

/* #syscalls(main): munmap */
static void mem_region_free(struct mem_region *r)
{
	if (r->mapped) {
		munmap(r->host, r->size);
	}
	free(atomic_load_explicit(&r->bitmap, memory_order_relaxed));
	free(r);
}

void mem_free(struct mem *m)
{
	if (!m) {
		return;
	}
	assert(list_empty(&m->listeners));
	for (unsigned i = 0; i < m->count; i++) {
		mem_region_free(m->region[i]);
	}
	free(m);
}

/* Where a region [gpa, last] belongs in region[], or -errno with a sentence. */
static int mem_region_place(struct mem *m, const char *name, gpa_t gpa, uint64_t size,
			    struct err *err)
{
	gpa_t last = gpa + (size - 1);
	unsigned i;

	if (size == 0 || (gpa | size) & (MEM_PAGE_SIZE - 1) || last < gpa) {
		return err_set(err, EINVAL,
			       "memory '%s': 0x%" PRIx64 " bytes at 0x%" PRIx64
			       " are not whole pages below 2^64",
			       name, size, gpa);
	}
	if (m->count == MEM_MAX_REGIONS) {
		return err_set(err, ENOSPC, "memory '%s': there are %d memory regions already",
			       name, MEM_MAX_REGIONS);
	}
	for (i = 0; i < m->count; i++) {
		const struct mem_region *r = m->region[i];

		if (last < r->gpa) {
			break;
		}
		if (gpa <= r->gpa + (r->size - 1)) {
			return err_set(err, EEXIST,
				       "memory '%s' at 0x%" PRIx64
				       " overlaps '%s' at 0x%" PRIx64,
				       name, gpa, r->name, r->gpa);
		}
	}
	return (int)i;
}

static int mem_region_insert(struct mem *m, const char *name, gpa_t gpa, uint64_t size,
			     void *host, enum mem_kind kind, unsigned flags,
			     struct mem_region **out, struct err *err)
{
	int at = mem_region_place(m, name, gpa, size, err);
	struct mem_region *r;
	char text[32];
	int rc;

	if (at < 0) {
		return at;
	}
	mem_size_text(size, text, sizeof(text));
	r = calloc(1, sizeof(*r));
	if (!r) {
		return err_set(err, ENOMEM, "out of memory for the region '%s'", name);
	}
	snprintf(r->name, sizeof(r->name), "%s", name);
	r->gpa = gpa;
	r->size = size;
	r->kind = kind;
	r->flags = flags;
	r->direct = true;
	r->host = host ? host : mem_map(gpa, size, 0, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	r->mapped = !host;
	if (!r->host) {
		free(r);
		return err_set(err, ENOMEM,
			       "cannot map %s of memory for '%s': ask for less or free memory "
			       "on the host",
			       text, name);
	}
	/* What came while a log is on was never sent: all of it is dirty. */
	if (kind == MEM_RAM && atomic_load_explicit(&m->logging, memory_order_relaxed)) {
		rc = mem_region_bitmap_init(r, true);
		if (rc < 0) {
			err_set(err, -rc, "out of memory for the dirty log of '%s'", name);
			goto free_region;
		}
	}
	rc = mem_listeners_region_add(m, r, err);
	if (rc < 0) {
		goto free_region;
	}
	memmove(&m->region[at + 1], &m->region[at], (m->count - at) * sizeof(m->region[0]));
	m->region[at] = r;
	m->count++;
	mem_publish(m);
	*out = r;
	return 0;

free_region:
	mem_region_free(r);
	return rc;
}

int mem_region_add(struct mem *m, const char *name, gpa_t gpa, uint64_t size,
		   enum mem_kind kind, unsigned flags, struct mem_region **out, struct err *err)
{
	return mem_region_insert(m, name, gpa, size, NULL, kind, flags, out, err);
}

int mem_region_add_host(struct mem *m, const char *name, gpa_t gpa, uint64_t size, void *host,
			enum mem_kind kind, unsigned flags, struct mem_region **out,
			struct err *err)
{
	assert(host && ((uintptr_t)host & (MEM_PAGE_SIZE - 1)) == 0);
	return mem_region_insert(m, name, gpa, size, host, kind, flags, out, err);
}

void mem_region_del(struct mem *m, struct mem_region *r)
{
	unsigned i = 0;

	while (i < m->count && m->region[i] != r) {
		i++;
	}
	assert(i < m->count);
	m->count--;
	memmove(&m->region[i], &m->region[i + 1], (m->count - i) * sizeof(m->region[0]));
	mem_publish(m);
	mem_listeners_region_del(m, r);
	mem_region_free(r);
}

int mem_region_set_direct(struct mem *m, struct mem_region *r, bool direct)
{
	int rc = 0;

	if (r->direct == direct) {
		return 0;
	}
	if (direct) {
		r->direct = true; /* mem_listener_wants() looks at it */
		rc = mem_listeners_region_add(m, r, NULL);
		if (rc < 0) {
			r->direct = false;
		}
	} else {
		mem_listeners_region_del(m, r);
		r->direct = false;
	}
	return rc;
}

const char *mem_region_name(const struct mem_region *r)
{
	return r->name;
}

gpa_t mem_region_gpa(const struct mem_region *r)
{
	return r->gpa;
}

uint64_t mem_region_size(const struct mem_region *r)
{
	return r->size;
}

enum mem_kind mem_region_kind(const struct mem_region *r)
{
	return r->kind;
}

unsigned mem_region_flags(const struct mem_region *r)
{
	return r->flags;
}

void *mem_region_host(const struct mem_region *r)
{
	return r->host;
}

int mem_for_each(struct mem *m, int (*fn)(struct mem_region *r, void *arg), void *arg)
{
	for (unsigned i = 0; i < m->count; i++) {
		int rc = fn(m->region[i], arg);

		if (rc) {
			return rc;
		}
	}
	return 0;
}

int mem_listener_add(struct mem *m, struct mem_listener *l, struct err *err)
{
	unsigned i;
	int rc;

	for (i = 0; i < m->count; i++) {
		if (!mem_listener_wants(l, m->region[i])) {
			continue;
		}
		rc = l->ops->region_add(l, m->region[i], err);
		if (rc < 0) {
			goto del_regions;
		}
	}
	if (atomic_load_explicit(&m->logging, memory_order_relaxed) && l->ops->log_start) {
		rc = l->ops->log_start(l);
		if (rc < 0) {
			err_set(err, -rc, "%s cannot log what it writes to memory: %s",
				l->ops->name, strerror(-rc));
			goto del_regions;
		}
	}
	list_add_tail(&m->listeners, &l->node);
	return 0;

del_regions:
	while (i-- > 0) {
		if (mem_listener_wants(l, m->region[i])) {
			l->ops->region_del(l, m->region[i]);
		}
	}
	return rc;
}

void mem_listener_del(struct mem *m, struct mem_listener *l)
{
	list_del(&l->node);
	if (atomic_load_explicit(&m->logging, memory_order_relaxed) && l->ops->log_stop) {
		l->ops->log_stop(l);
	}
	for (unsigned i = m->count; i-- > 0;) {
		if (mem_listener_wants(l, m->region[i])) {
			l->ops->region_del(l, m->region[i]);
		}
	}
}
