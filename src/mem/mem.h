/*
 * Guest memory: regions, checked copies, spans, dirty marking.
 *
 * gpa_t is never cast to a pointer: only mem/ makes host pointers, after checking the whole
 * range. A range may run over two adjacent regions. The region table is immutable once
 * published; a change publishes a new one, so readers take no lock. Regions are added and
 * removed by the control loop only; reads, writes and spans are for any thread.
 * Untrusted: every gpa and length comes from the guest.
 */
#ifndef MEM_MEM_H
#define MEM_MEM_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/err.h"
#include "base/util.h"

typedef uint64_t gpa_t;

struct mem;
struct mem_region;

enum mem_kind {
	MEM_RAM,      /* shared with every listener (vhost, VFIO, vhost-user later) */
	MEM_FIRMWARE, /* flash and ROM: KVM only, read-only to the guest, never a DMA target */
};
enum {
	MEM_READONLY = 1, /* guest writes exit; devices cannot write it either */
};

/* Maximum number of regions at a time. */
#define MEM_MAX_REGIONS 64

int mem_new(struct mem **out);
void mem_free(struct mem *m); /* unmaps what it mapped; listeners must be gone */

/* Maps anonymous zeroed memory [gpa, gpa + size) (page multiples), MADV_HUGEPAGE, not dumped
 * into cores; overlapping another region is -EEXIST; -ENOMEM with a sentence that names the
 * size. The region is visible to the guest when the call returns. */
int mem_region_add(struct mem *m, const char *name, gpa_t gpa, uint64_t size,
		   enum mem_kind kind, unsigned flags, struct mem_region **out,
		   struct err *err);
/* Takes host memory of the caller's instead (mmap'ed, page aligned, stays the caller's). */
int mem_region_add_host(struct mem *m, const char *name, gpa_t gpa, uint64_t size, void *host,
			enum mem_kind kind, unsigned flags, struct mem_region **out,
			struct err *err);
/* Nothing may be accessing the region: vCPUs paused, devices drained. */
void mem_region_del(struct mem *m, struct mem_region *r);
/* A ROM device (flash): while "direct" the region is a slot that the guest reads at full speed;
 * when it is not, listeners see it removed and every access exits. */
int mem_region_set_direct(struct mem *m, struct mem_region *r, bool direct);

const char *mem_region_name(const struct mem_region *r);
gpa_t mem_region_gpa(const struct mem_region *r);
uint64_t mem_region_size(const struct mem_region *r);
enum mem_kind mem_region_kind(const struct mem_region *r);
unsigned mem_region_flags(const struct mem_region *r);
/* For the region's creator and listeners (loading firmware, KVM slots), not for devices. */
void *mem_region_host(const struct mem_region *r);
/* Calls fn for each region in address order; stops at and returns the first non-zero value. */
int mem_for_each(struct mem *m, int (*fn)(struct mem_region *r, void *arg), void *arg);

/* Copies; -EFAULT (nothing more is done) if any byte is outside RAM; writes mark dirty. Reads
 * may come from MEM_FIRMWARE too, writes never go there. */
int mem_read(struct mem *m, gpa_t gpa, void *buf, size_t len);
int mem_write(struct mem *m, gpa_t gpa, const void *buf, size_t len);

/* Host pieces of [gpa, gpa + len) of RAM: fills iov[max], returns the number of entries,
 * -EFAULT outside RAM, -E2BIG if max is too small. len 0 gives 0 entries. For device writes
 * the caller marks what it wrote with mem_dirty(). Valid until the region is removed (devices
 * are drained before that). */
int mem_span(struct mem *m, gpa_t gpa, uint64_t len, bool write, struct iovec *iov, int max);
/* One contiguous host piece or NULL: for rings, which are mapped once when enabled. */
void *mem_ptr(struct mem *m, gpa_t gpa, uint64_t len, bool write);

/* Marks [gpa, gpa+len) dirty; one load and a branch when no log is on. */
void mem_dirty(struct mem *m, gpa_t gpa, uint64_t len);
/* As mem_dirty(), for a host piece that mem_span() gave. */
void mem_dirty_iov(struct mem *m, const struct iovec *iov, int cnt, uint64_t len);

/* --- memory map listeners: KVM slots now; vhost, vhost-user, VFIO later --- */
struct mem_listener;
struct mem_listener_ops {
	const char *name;
	bool firmware; /* wants MEM_FIRMWARE regions too (KVM only) */
	int (*region_add)(struct mem_listener *l, struct mem_region *r, struct err *err);
	void (*region_del)(struct mem_listener *l, struct mem_region *r);
	int (*log_start)(struct mem_listener *l);
	void (*log_stop)(struct mem_listener *l);
	/* ORs the pages that this listener's side wrote into the region's bitmap (bit n = page
	 * n of 4 KiB) with mem_region_dirty_or(). */
	int (*log_sync)(struct mem_listener *l, struct mem_region *r);
};
struct mem_listener {
	const struct mem_listener_ops *ops;
	struct list node;
};
/* Replays region_add for what is there. 0 or -errno with a sentence, then nothing is added. */
int mem_listener_add(struct mem *m, struct mem_listener *l, struct err *err);
void mem_listener_del(struct mem *m, struct mem_listener *l); /* region_del for each */

/* --- dirty log --- */
/* Regions added while the log is on are dirty as a whole. -EALREADY, -ENOMEM, or what a
 * listener says; then no log is on. */
int mem_log_start(struct mem *m);
void mem_log_stop(struct mem *m);
/* Collects from the listeners and devices and hands out the pages dirtied since the last call:
 * bitmap of mem_region_pages() bits, cleared inside. -EINVAL for firmware, which is no part of
 * the log, when none is on, or if there are too few words. */
int mem_log_sync(struct mem *m, struct mem_region *r, uint64_t *bitmap, size_t words);
uint64_t mem_region_pages(const struct mem_region *r);
void mem_region_dirty_or(struct mem_region *r, const uint64_t *bitmap, size_t words);

#endif
