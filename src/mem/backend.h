/*
 * Host memory that becomes the guest's: anonymous, a memfd, or a file, with the properties of
 * QEMU's memory-backend-… objects.
 *
 * Everything happens at start, before the process is isolated: the file is opened, mapped and
 * closed again, pages are bound to nodes and populated. Nothing is done for each page unless
 * prealloc asks for it, so untouched memory costs address space alone. Control loop.
 * Trusted: the options are the operator's. Whoever may write the file owns the guest
 * (THREATS.md).
 */
#ifndef MEM_BACKEND_H
#define MEM_BACKEND_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/opts.h"

enum mem_backend_kind { MEM_BACKEND_RAM, MEM_BACKEND_MEMFD, MEM_BACKEND_FILE };
enum mem_policy {
	MEM_POLICY_DEFAULT, MEM_POLICY_PREFERRED, MEM_POLICY_BIND, MEM_POLICY_INTERLEAVE,
};
#define MEM_MAX_HOST_NODES   128
#define MEM_PREALLOC_THREADS 64 /* more are taken as this */

/* Owns its strings. All zero with a size is the memory of a machine that names no back end. */
struct mem_backend_config {
	char *what; /* "-object memory-backend-ram,id=x", for messages */
	enum mem_backend_kind kind;
	uint64_t size;
	bool share;   /* writes reach the file or memfd */
	bool reserve; /* the host promises all of it at start (overcommit accounting) */
	bool prealloc;
	uint32_t prealloc_threads; /* 0: one */
	int policy;		   /* enum mem_policy */
	uint64_t host_nodes[MEM_MAX_HOST_NODES / 64];
	/* memfd */
	bool hugetlb, seal;
	uint64_t hugetlbsize; /* 0: the host's default */
	/* file */
	char *path; /* a directory: a file in it that nobody else sees */
	uint64_t align;
	bool discard_data; /* the file's contents are dropped when the machine ends */
	bool readonly;	   /* the file is only read; what the guest writes is its own copy */
};

/* "ram", "memfd", "file" behind "memory-backend-"; NULL if qom_type is none of them. */
bool mem_backend_kind_of(const char *qom_type, enum mem_backend_kind *kind);
/* Reads every key but qom-type and id. -EINVAL with a sentence that begins with c->what. */
int mem_backend_parse(struct opts *o, const char *id, enum mem_backend_kind kind,
		      struct mem_backend_config *c, struct err *err);
void mem_backend_config_fini(struct mem_backend_config *c);

struct mem_backend {
	void *host; /* NULL: not open */
	uint64_t size;
	uint64_t page; /* what the host backs it with at the least */
	bool discard;
};
/* Maps it where its address has the offset of gpa within a huge page, so that one huge page of
 * the host can back one of the guest's. On error nothing is left behind. */
int mem_backend_open(const struct mem_backend_config *c, uint64_t gpa, struct mem_backend *out,
		     struct err *err);
void mem_backend_close(struct mem_backend *b); /* no region may use it any more */

/* Locks what the process has mapped (mlockall), and what it will map if the limit allows it. */
int mem_lock_all(struct err *err);

#endif
