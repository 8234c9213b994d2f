/*
 * What a virtio-blk request costs above the disk: 4 KiB random reads on a null back end, through
 * the driver of the device tests, on split and on packed rings.
 *
 *	blk_null             CPU-seconds per million requests, and the counts
 *	blk_null --check     the counts alone; exit status 1 if one of them depends on the requests
 *	blk_null --profile RING
 *	                     a fixed number of requests, for callgrind --toggle-collect=loop_step
 *
 * Counted are allocations and locks, by functions of this program in place of libc's, and system
 * calls, by tracing a child. A batch of requests behind one kick must cost as many of each as
 * one request behind one kick: so what there is belongs to the kick and the completion, and
 * none to a request. The time is that of the device's loop, without the driver's part.
 */
#include <assert.h>
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "block/block_int.h"
#include "device/rig.h"
#include "device/virtio/blk.h"
#include "spec/virtio_blk.h"

#define DISK	     (1 * GiB)
#define BLOCK	     4096u
#define DEPTH	     64u
#define WARM_UP	     100u
#define BATCHES	     1000u
#define TIMED	     20000u /* batches: more than a million requests */
#define PROFILED     200u
#define FEATURE(bit) (UINT64_C(1) << (bit))

/* --- counting allocations and locks --- */

static _Atomic unsigned long allocations, locks;

void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t m);
void *__libc_realloc(void *p, size_t n);
void *__libc_memalign(size_t a, size_t n);
void *malloc(size_t n)
{
	allocations++;
	return __libc_malloc(n);
}
void *calloc(size_t n, size_t m)
{
	allocations++;
	return __libc_calloc(n, m);
}
void *realloc(void *p, size_t n)
{
	allocations++;
	return __libc_realloc(p, n);
}
void *aligned_alloc(size_t a, size_t n)
{
	allocations++;
	return __libc_memalign(a, n);
}

#define COUNTED_LOCK(name, type)                                                               \
	int name(type *lock)                                                                   \
	{                                                                                      \
		static int (*real)(type *);                                                    \
                                                                                               \
		if (!real) {                                                                   \
			real = (int (*)(type *))dlsym(RTLD_NEXT, #name);                       \
		}                                                                              \
		locks++;                                                                       \
		return real(lock);                                                             \
	}
COUNTED_LOCK(pthread_mutex_lock, pthread_mutex_t)
COUNTED_LOCK(pthread_mutex_trylock, pthread_mutex_t)
COUNTED_LOCK(pthread_rwlock_rdlock, pthread_rwlock_t)
COUNTED_LOCK(pthread_rwlock_wrlock, pthread_rwlock_t)
COUNTED_LOCK(pthread_spin_lock, pthread_spinlock_t)

/* --- the machine --- */

struct bench {
	struct rig r;
	struct blk_node *node;
	gpa_t hdr, status, data;
	uint64_t seed, ns;
};

static void bench_init(struct bench *b, bool packed)
{
	struct err err = {.msg = ""};
	struct virtio_dev *vd;
	uint64_t want = FEATURE(VIRTIO_F_EVENT_IDX) | FEATURE(VIRTIO_F_INDIRECT_DESC);
	int r;

	memset(b, 0, sizeof(*b));
	rig_init(&b->r, false, 0);
	r = blk_null_new("null", DISK, false, &b->node);
	assert(r == 0);
	r = virtio_blk_new(&b->r.fv->vm, b->node, &(struct virtio_blk_config){0}, "disk0", &vd,
			   &err);
	assert(r == 0);
	virtio_offer_packed(vd);
	rig_add(&b->r, vd, "disk0");
	vdrv_start(&b->r.d, want | (packed ? FEATURE(VIRTIO_F_RING_PACKED) : 0), 0);
	b->hdr = vdrv_alloc(&b->r.d, 4096, 4096);
	b->status = vdrv_alloc(&b->r.d, 4096, 4096);
	b->data = vdrv_alloc(&b->r.d, DEPTH * BLOCK, BLOCK);
	b->seed = 1;
}

static void bench_fini(struct bench *b)
{
	rig_fini(&b->r);
	blk_unref(b->node);
}

static uint64_t now_cpu(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void step(struct bench *b, bool timed)
{
	uint64_t start = timed ? now_cpu() : 0;

	loop_step(b->r.fv->vm.loop, 0);
	b->ns += timed ? now_cpu() - start : 0;
}

/* `depth` requests, one kick, one interrupt. */
static void batch(struct bench *b, unsigned depth, bool timed)
{
	struct vdrv *d = &b->r.d;
	unsigned before = vdrv_used_total(&d->q[0]), back = 0;
	uint16_t head;
	uint32_t len;

	for (unsigned i = 0; i < depth; i++) {
		struct virtio_blk_req_hdr *h = vdrv_ptr(d, b->hdr + 16 * i, sizeof(*h));
		struct vdrv_seg seg[3] = {{b->hdr + 16 * i, sizeof(*h)},
					  {b->data + i * (uint64_t)BLOCK, BLOCK},
					  {b->status + i, 1}};
		int r;

		b->seed = b->seed * UINT64_C(6364136223846793005) + 1442695040888963407;
		*h = (struct virtio_blk_req_hdr){
			le32_of(VIRTIO_BLK_T_IN), le32_of(0),
			le64_of((b->seed >> 33) % (DISK / BLOCK) * (BLOCK / 512))};
		r = vdrv_add(&d->q[0], seg, 1, 2, VDRV_INDIRECT);
		assert(r >= 0);
	}
	vdrv_irq_on(&d->q[0]);
	vdrv_kick(&d->q[0]);
	while ((uint16_t)(vdrv_used_total(&d->q[0]) - before) < depth) {
		step(b, timed);
	}
	step(b, timed); /* the interrupt, before the loop sleeps */
	for (; vdrv_used(&d->q[0], &head, &len); back++) {
		assert(len == BLOCK + 1);
	}
	assert(back == depth);
}

static void batches(struct bench *b, unsigned n, unsigned depth)
{
	for (unsigned i = 0; i < n; i++) {
		batch(b, depth, false);
	}
}

/* --- counts --- */

struct counts {
	unsigned long allocations, locks, calls; /* in BATCHES batches */
};

/* The child's part: nothing else calls this function, so it marks begin and end. */
static void mark(void)
{
	syscall(SYS_getpgid, 0);
}

static unsigned long calls_count(bool packed, unsigned depth)
{
	unsigned long calls = 0;
	bool inside = false, entry = true;
	int status;
	pid_t pid = fork();

	assert(pid >= 0);
	if (pid == 0) {
		struct bench b;

		bench_init(&b, packed);
		batches(&b, WARM_UP, depth);
		if (ptrace(PTRACE_TRACEME, 0, NULL, NULL)) {
			_exit(2);
		}
		raise(SIGSTOP);
		mark();
		batches(&b, BATCHES, depth);
		mark();
		_exit(0);
	}
	while (waitpid(pid, &status, 0) == pid && WIFSTOPPED(status)) {
		if (WSTOPSIG(status) == SIGSTOP) {
			ptrace(PTRACE_SETOPTIONS, pid, NULL,
			       PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL);
		} else if (WSTOPSIG(status) == (SIGTRAP | 0x80)) {
			struct __ptrace_syscall_info info;

			ptrace(PTRACE_GET_SYSCALL_INFO, pid, sizeof(info), &info);
			if (entry && info.entry.nr == SYS_getpgid) {
				inside = !inside;
			} else if (entry && inside) {
				calls++;
			}
			entry = !entry;
		}
		ptrace(PTRACE_SYSCALL, pid, NULL, NULL);
	}
	if (!WIFEXITED(status) || WEXITSTATUS(status)) {
		fprintf(stderr,
			"blk_null: the traced child failed; is ptrace forbidden here?\n");
		exit(2);
	}
	return calls;
}

static struct counts count(bool packed, unsigned depth)
{
	struct counts c = {.calls = calls_count(packed, depth)};
	struct bench b;
	uint64_t irqs;

	bench_init(&b, packed);
	batches(&b, WARM_UP, depth);
	irqs = vdrv_irqs(&b.r.d, 1);
	c.allocations = allocations;
	c.locks = locks;
	batches(&b, BATCHES, depth);
	c.allocations = allocations - c.allocations;
	c.locks = locks - c.locks;
	assert(vdrv_irqs(&b.r.d, 1) == irqs + BATCHES);
	bench_fini(&b);
	return c;
}

static bool check(bool packed)
{
	struct counts one = count(packed, 1), many = count(packed, DEPTH);

	printf("%s: per kick with %u requests (with 1): %.3f (%.3f) system calls, "
	       "%.3f (%.3f) locks, %.3f (%.3f) allocations\n",
	       packed ? "packed" : "split", DEPTH, (double)many.calls / BATCHES,
	       (double)one.calls / BATCHES, (double)many.locks / BATCHES,
	       (double)one.locks / BATCHES, (double)many.allocations / BATCHES,
	       (double)one.allocations / BATCHES);
	/* one more call now and then: a batch that takes another round of the loop */
	return many.calls < one.calls + BATCHES / 10 && many.locks == one.locks &&
	       !many.allocations && !one.allocations;
}

static double timed(bool packed)
{
	struct bench b;
	double s;

	bench_init(&b, packed);
	batches(&b, WARM_UP, DEPTH);
	for (unsigned i = 0; i < TIMED; i++) {
		batch(&b, DEPTH, true);
	}
	s = (double)b.ns / 1e9 / (TIMED * (double)DEPTH) * 1e6;
	bench_fini(&b);
	return s;
}

int main(int argc, char **argv)
{
	bool ok = true;

	if (argc == 3 && !strcmp(argv[1], "--profile")) {
		struct bench b;

		bench_init(&b, !strcmp(argv[2], "packed"));
		batches(&b, PROFILED, DEPTH);
		bench_fini(&b);
		return 0;
	}
	for (int packed = 0; packed < 2; packed++) {
		bool good = check(packed);

		ok &= good;
		if (argc > 1) { /* --check: one test each, as TAP says it */
			printf("%sok %d - %s ring\n", good ? "" : "not ", packed + 1,
			       packed ? "packed" : "split");
		}
	}
	if (argc > 1) {
		printf("1..2\n");
	}
	for (int packed = 0; packed < 2 && argc == 1; packed++) {
		printf("%s: %.3f CPU-seconds per million 4 KiB random reads\n",
		       packed ? "packed" : "split", timed(packed));
	}
	return ok ? 0 : 1;
}
