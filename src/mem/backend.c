/*
 * Back ends of guest memory: see backend.h. mmap(2), memfd_create(2), mbind(2), madvise(2),
 * mlockall(2); Documentation/admin-guide/mm/hugetlbpage.rst of Linux.
 *
 * Invariants
 *  1. The host address has the guest address's offset within the largest page that may back it.
 *  2. The descriptor is closed when the memory is mapped: nothing that the process holds later
 *     could change the size of the file under the guest.
 *  3. Order: bind, then populate, so that populated pages are on the nodes asked for.
 *
 * Threads: the control loop at start; populating uses threads of its own, joined before it
 * returns. Nothing here runs after isolation but the unmapping at the end.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/mempolicy.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/util.h"
#include "mem/backend.h"
#include "mem/mem_int.h"

void mem_size_text(uint64_t size, char *buf, size_t len)
{
	if (size % GiB == 0) {
		snprintf(buf, len, "%llu GiB", (unsigned long long)(size / GiB));
	} else if (size % MiB == 0) {
		snprintf(buf, len, "%llu MiB", (unsigned long long)(size / MiB));
	} else {
		snprintf(buf, len, "%llu KiB", (unsigned long long)(size / KiB));
	}
}

/*
 * Room with up to `align` to spare, mapped over at the right address, the surplus given back.
 * #syscalls(main): mmap munmap madvise
 */
void *mem_map(uint64_t gpa, uint64_t size, uint64_t align, int flags, int fd)
{
	uint64_t total, head;
	uint8_t *room, *host;

	align = size >= MEM_HUGE_PAGE ? MAX(align, MEM_HUGE_PAGE) : MAX(align, MEM_PAGE_SIZE);
	if (u64_add(size, align, &total) || total > SIZE_MAX / 2) {
		errno = ENOMEM;
		return NULL;
	}
	room = mmap(NULL, total, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (room == MAP_FAILED) {
		return NULL;
	}
	head = (gpa - (uintptr_t)room) & (align - 1);
	host = mmap(room + head, size, PROT_READ | PROT_WRITE, flags | MAP_FIXED, fd, 0);
	if (host == MAP_FAILED) {
		int e = errno;

		munmap(room, total);
		errno = e;
		return NULL;
	}
	if (head) {
		munmap(room, head);
	}
	if (align - head) {
		munmap(host + size, align - head);
	}
	/* Advice only: a kernel without transparent huge pages refuses the first. */
	(void)madvise(host, size, MADV_HUGEPAGE);
	(void)madvise(host, size, MADV_DONTDUMP);
	return host;
}

/* --- what is mapped --- */

/* #syscalls(start): memfd_create ftruncate fcntl */
static int open_memfd(const struct mem_backend_config *c, int *fd, struct err *err)
{
	unsigned flags = MFD_CLOEXEC | (c->seal ? MFD_ALLOW_SEALING : 0u);
	char text[32];

	if (c->hugetlb) {
		flags |= MFD_HUGETLB;
		if (c->hugetlbsize) {
			flags |= (unsigned)__builtin_ctzll(c->hugetlbsize) << MAP_HUGE_SHIFT;
		}
	}
	*fd = memfd_create("nemu-ram", flags);
	if (*fd < 0 && c->hugetlb) {
		mem_size_text(c->hugetlbsize, text, sizeof(text));
		return err_set(err, errno,
			       "%s: this host has no huge pages of %s: %s; see "
			       "/sys/kernel/mm/hugepages for what it has",
			       c->what, c->hugetlbsize ? text : "its default size",
			       strerror(errno));
	}
	if (*fd < 0) {
		return err_set(err, errno, "%s: memfd_create: %s", c->what, strerror(errno));
	}
	return 0;
}

/* A new file is private to this user whatever the umask. *created: to be removed on failure.
 * #syscalls(start): openat unlink */
static int open_file(const struct mem_backend_config *c, int *fd, bool *created,
		     struct err *err)
{
	int flags = (c->readonly ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
	char *name;

	*created = false;
	*fd = open(c->path, flags);
	if (*fd < 0 && errno == ENOENT && !c->readonly) {
		*fd = open(c->path, flags | O_CREAT | O_EXCL, 0600);
		*created = *fd >= 0;
	}
	if (*fd < 0 && errno == EISDIR) {
		if (asprintf(&name, "%s/nemu-ram.XXXXXX", c->path) < 0) {
			return err_set(err, ENOMEM, "%s: out of memory", c->what);
		}
		*fd = mkostemp(name, O_CLOEXEC);
		if (*fd >= 0) {
			unlink(name);
		}
		free(name);
	}
	if (*fd < 0) {
		return err_set(err, errno,
			       "%s: mem-path=%s: %s; give a file, or a directory for a "
			       "temporary one",
			       c->what, c->path, strerror(errno));
	}
	return 0;
}

/* An empty file gets the size; one that is too small is somebody else's, or a mistake.
 * #syscalls(start): ftruncate fstat newfstatat fstatfs fcntl */
static int size_fd(const struct mem_backend_config *c, int fd, uint64_t *page, struct err *err)
{
	char size[32], unit[32];
	struct statfs fs;
	struct stat st;

	if (fstat(fd, &st) || fstatfs(fd, &fs)) {
		return err_set(err, errno, "%s: %s", c->what, strerror(errno));
	}
	if (!S_ISREG(st.st_mode)) {
		return err_set(err, EINVAL, "%s: mem-path=%s is not a regular file; give one",
			       c->what, c->path);
	}
	if (fs.f_type == HUGETLBFS_MAGIC) {
		*page = (uint64_t)fs.f_bsize;
	}
	mem_size_text(c->size, size, sizeof(size));
	mem_size_text(*page, unit, sizeof(unit));
	if (c->size % *page) {
		return err_set(err, EINVAL,
			       "%s: %s are not a multiple of its pages of %s; change the "
			       "size",
			       c->what, size, unit);
	}
	if (!st.st_size && !c->readonly && ftruncate(fd, (off_t)c->size)) {
		return err_set(err, errno, "%s: cannot be given a size of %s: %s", c->what,
			       size, strerror(errno));
	}
	if ((st.st_size || c->readonly) && (uint64_t)st.st_size < c->size) {
		return err_set(err, EINVAL,
			       "%s: mem-path=%s has %llu bytes, fewer than the size of %s; "
			       "make it larger, or remove it and it is made again",
			       c->what, c->path, (unsigned long long)st.st_size, size);
	}
	if (c->seal && fcntl(fd, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL)) {
		return err_set(err, errno, "%s: cannot be sealed: %s; say seal=off", c->what,
			       strerror(errno));
	}
	return 0;
}

static int map_failed(const struct mem_backend_config *c, uint64_t page, struct err *err)
{
	char size[32], unit[32];
	int e = errno;

	mem_size_text(c->size, size, sizeof(size));
	mem_size_text(page, unit, sizeof(unit));
	if (page > MEM_PAGE_SIZE) {
		return err_set(err, e,
			       "%s: the host has not enough free huge pages of %s for %s: %s; "
			       "reserve more in /sys/kernel/mm/hugepages",
			       c->what, unit, size, strerror(e));
	}
	return err_set(
		err, e,
		"%s: cannot map %s of memory: %s; ask for less, free memory on the host%s",
		c->what, size, strerror(e), c->reserve ? ", or say reserve=off" : "");
}

/* --- nodes and pages --- */

/* The kernel drops nodes that are not there as long as one is; here each has to be.
 * #syscalls(start): get_mempolicy */
static int check_nodes(const struct mem_backend_config *c, struct err *err)
{
	unsigned long allowed[1024 / (8 * sizeof(long))] = {0}; /* as many as any kernel has */

	if (syscall(SYS_get_mempolicy, NULL, allowed, sizeof(allowed) * 8, NULL,
		    MPOL_F_MEMS_ALLOWED)) {
		return err_set(err, errno,
			       "%s: host-nodes: this host has no NUMA policies: %s; leave "
			       "policy and host-nodes out",
			       c->what, strerror(errno));
	}
	for (unsigned i = 0; i < MEM_MAX_HOST_NODES; i++) {
		if (c->host_nodes[i / 64] >> i % 64 & 1 && !(allowed[i / 64] >> i % 64 & 1)) {
			return err_set(err, EINVAL,
				       "%s: host-nodes: memory cannot be had from node %u; see "
				       "/sys/devices/system/node/has_memory and the cpuset of "
				       "this process",
				       c->what, i);
		}
	}
	return 0;
}

/* linux/mempolicy.h; without libnuma, which would be one more library for two calls.
 * #syscalls(start): mbind */
static int bind_nodes(const struct mem_backend_config *c, void *host, struct err *err)
{
	unsigned count = 0;
	int mode, ret;

	for (size_t i = 0; i < ARRAY_SIZE(c->host_nodes); i++) {
		count += (unsigned)__builtin_popcountll(c->host_nodes[i]);
	}
	switch ((enum mem_policy)c->policy) {
	case MEM_POLICY_PREFERRED:
		mode = count > 1 ? MPOL_PREFERRED_MANY : MPOL_PREFERRED;
		break;
	case MEM_POLICY_BIND:
		mode = MPOL_BIND;
		break;
	case MEM_POLICY_INTERLEAVE:
		mode = MPOL_INTERLEAVE;
		break;
	default:
		return 0;
	}
	ret = check_nodes(c, err);
	if (ret) {
		return ret;
	}
	/* Pages that the file has already are moved. The kernel takes one bit less than told. */
	if (syscall(SYS_mbind, host, c->size, mode, c->host_nodes, MEM_MAX_HOST_NODES + 1,
		    MPOL_MF_STRICT | MPOL_MF_MOVE)) {
		return err_set(err, errno,
			       "%s: the memory cannot be bound to host-nodes with this policy: "
			       "%s",
			       c->what, strerror(errno));
	}
	return 0;
}

struct populate {
	pthread_t thread;
	uint8_t *from;
	uint64_t len;
	int error;
};

/* In pieces, so that a signal that ends the process does not have to wait.
 * #syscalls(start): madvise */
static void *populate_thread(void *arg)
{
	struct populate *p = arg;

	while (p->len && !p->error) {
		uint64_t n = MIN(p->len, GiB);

		if (!madvise(p->from, n, MADV_POPULATE_WRITE)) {
			p->from += n;
			p->len -= n;
		} else if (errno != EINTR && errno != EAGAIN) {
			p->error = errno;
		}
	}
	return NULL;
}

static int populate_failed(const struct mem_backend_config *c, int e, struct err *err)
{
	char size[32];

	mem_size_text(c->size, size, sizeof(size));
	if (e == EINVAL) {
		return err_set(err, ENOTSUP,
			       "%s: prealloc needs Linux 5.14 on the host; leave it out",
			       c->what);
	}
	return err_set(err, e,
		       "%s: %s cannot be allocated: %s; ask for less, or free memory or huge "
		       "pages on the host",
		       c->what, size, e == EFAULT ? "no memory" : strerror(e));
}

/* #syscalls(start): clone futex */
static int populate(const struct mem_backend_config *c, struct mem_backend *b, struct err *err)
{
	struct populate p[MEM_PREALLOC_THREADS] = {0};
	uint64_t pages = b->size / b->page;
	unsigned n = MAX(MIN(c->prealloc_threads, MEM_PREALLOC_THREADS), 1);
	unsigned started = 0;
	int error = 0;

	n = (unsigned)MIN(n, pages);
	for (unsigned i = 0; i < n; i++) {
		uint64_t from = pages * i / n * b->page, to = pages * (i + 1) / n * b->page;

		p[i].from = (uint8_t *)b->host + from;
		p[i].len = to - from;
	}
	while (started + 1 < n &&
	       !pthread_create(&p[started].thread, NULL, populate_thread, &p[started])) {
		started++;
	}
	/* The rest here: the last part, and those for which there was no thread. */
	for (unsigned i = started; i < n; i++) {
		populate_thread(&p[i]);
	}
	for (unsigned i = 0; i < started; i++) {
		pthread_join(p[i].thread, NULL);
	}
	for (unsigned i = 0; i < n; i++) {
		error = error ? error : p[i].error;
	}
	return error ? populate_failed(c, error, err) : 0;
}

/* --- open, close --- */

/* #syscalls(start): close unlink */
int mem_backend_open(const struct mem_backend_config *c, uint64_t gpa, struct mem_backend *out,
		     struct err *err)
{
	struct mem_backend b = {.size = c->size, .page = MEM_PAGE_SIZE};
	int flags = c->share ? MAP_SHARED : MAP_PRIVATE;
	bool created = false;
	int fd = -1, ret = 0;

	if (c->kind == MEM_BACKEND_MEMFD) {
		ret = open_memfd(c, &fd, err);
	} else if (c->kind == MEM_BACKEND_FILE) {
		ret = open_file(c, &fd, &created, err);
	} else {
		flags |= MAP_ANONYMOUS;
	}
	if (!ret && fd >= 0) {
		ret = size_fd(c, fd, &b.page, err);
	}
	if (ret) {
		goto close_fd;
	}
	/* An alignment that was asked for is one of the address; a huge page has no offset. */
	b.host = mem_map(c->align || gpa % b.page ? 0 : gpa, c->size, MAX(b.page, c->align),
			 flags | (c->reserve ? 0 : MAP_NORESERVE), fd);
	if (!b.host) {
		ret = map_failed(c, b.page, err);
		goto close_fd;
	}
	b.discard = c->discard_data && c->share;
	ret = bind_nodes(c, b.host, err);
	if (!ret && c->prealloc) {
		ret = populate(c, &b, err);
	}
	if (ret) {
		mem_backend_close(&b);
	} else {
		*out = b;
	}
close_fd:
	if (fd >= 0) {
		close(fd);
	}
	if (ret && created) {
		unlink(c->path);
	}
	return ret;
}

/* #syscalls(main): madvise munmap */
void mem_backend_close(struct mem_backend *b)
{
	if (!b->host) {
		return;
	}
	if (b->discard) {
		(void)madvise(b->host, b->size, MADV_REMOVE);
	}
	munmap(b->host, b->size);
	b->host = NULL;
}

/*
 * The right to exceed the limit goes with the capabilities, before the threads get their
 * stacks: so the limit is lifted where that is allowed, and where a limit remains, later
 * mappings are not locked, as they could then fail at any time.
 * #syscalls(start): prlimit64 mlockall
 */
int mem_lock_all(struct err *err)
{
	struct rlimit lim = {RLIM_INFINITY, RLIM_INFINITY};
	bool unlimited = !setrlimit(RLIMIT_MEMLOCK, &lim);

	if (!unlimited && !getrlimit(RLIMIT_MEMLOCK, &lim)) {
		lim.rlim_cur = lim.rlim_max;
		(void)setrlimit(RLIMIT_MEMLOCK, &lim);
		unlimited = lim.rlim_cur == RLIM_INFINITY;
	}
	if (mlockall(MCL_CURRENT | (unlimited ? MCL_FUTURE : 0))) {
		return err_set(
			err, errno,
			"-overcommit mem-lock=on: memory cannot be locked: %s; raise the "
			"limit (ulimit -l), or start nemu with CAP_IPC_LOCK",
			strerror(errno));
	}
	return 0;
}
