/*
 * What qcow2 costs beside raw: random 4 KiB requests on one loop, all metadata in the cache, as CPU time for
 * a million requests and requests a second; and how long it takes to open a large image, with what memory.
 *
 *   blk_qcow2 run OPTIONS SIZE read|write DEPTH COUNT
 *   blk_qcow2 open OPTIONS
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "block/block.h"
#include "block/io.h"

#define BLOCK 4096

struct slot {
	struct blk_req req;
	struct iovec iov;
};

static uint64_t left, done, size;
static uint32_t seed = 1;
static enum blk_op op;

static void next(struct blk_req *r, int result)
{
	struct blk_chan *c = r->opaque;

	if (result < 0) {
		fprintf(stderr, "blk_qcow2: a request failed: %s\n", strerror(-result));
		exit(1);
	}
	done++;
	if (!left) {
		return;
	}
	left--;
	seed = seed * 1664525 + 1013904223;
	r->op = op;
	r->flags = 0;
	r->off = (uint64_t)(seed >> 4) % (size / BLOCK) * BLOCK;
	r->len = BLOCK;
	blk_submit(c, r);
}

static double cpu(void)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
	       (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static double wall(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static struct blk_node *node_of(const char *text, struct blk_graph *g)
{
	struct opts o = {0};
	struct err err = {0};
	struct blk_node *n;

	if (opts_parse(&o, "image", text, "driver", &err) || blk_open(g, &o, &n, &err)) {
		fprintf(stderr, "blk_qcow2: %s\n", err.msg);
		exit(1);
	}
	opts_fini(&o);
	return n;
}

static void bench(struct blk_node *n, unsigned depth, uint64_t count)
{
	struct slot *s = calloc(depth, sizeof(*s));
	struct blk_user *user;
	struct blk_io *io;
	struct err err = {0};
	double c0, w0;
	char buf[65536] = {0};

	if (blk_attach(n, "bench", op == BLK_WRITE ? BLK_PERM_WRITE : BLK_PERM_CONSISTENT_READ,
		       BLK_PERM_ALL, NULL, NULL, &user, &err) ||
	    blk_io_open(n, &io, &err)) {
		fprintf(stderr, "blk_qcow2: %s\n", err.msg);
		exit(1);
	}
	for (uint64_t off = 0; off < size; off += sizeof(buf)) {
		op == BLK_WRITE ? blk_io_write(io, off, buf, sizeof(buf), 0)
				: blk_io_read(io, off, buf, sizeof(buf));
	}
	blk_io_flush(io);
	c0 = cpu();
	w0 = wall();
	left = count;
	for (unsigned i = 0; i < depth; i++) {
		s[i].iov = (struct iovec){aligned_alloc(4096, BLOCK), BLOCK};
		memset(s[i].iov.iov_base, 1, BLOCK);
		s[i].req = (struct blk_req){
			.iov = &s[i].iov, .niov = 1, .done = next, .opaque = blk_io_chan(io)};
		next(&s[i].req, 0);
	}
	while (done < count + depth) {
		loop_step(blk_io_loop(io), -1);
	}
	printf("%.2f CPU-s a million, %.0f requests a second\n",
	       (cpu() - c0) * 1e6 / (double)count, (double)count / (wall() - w0));
	blk_io_close(io);
	blk_detach(user);
}

int main(int argc, char **argv)
{
	struct blk_graph *g;
	struct blk_node *n;

	if (argc < 3 || blk_graph_new(&g)) {
		return 2;
	}
	if (!strcmp(argv[1], "open")) {
		struct rusage before, after;
		double w0 = wall();

		getrusage(RUSAGE_SELF, &before);
		n = node_of(argv[2], g);
		getrusage(RUSAGE_SELF, &after);
		printf("%.2f ms, %ld KiB\n", (wall() - w0) * 1e3,
		       after.ru_maxrss - before.ru_maxrss);
	} else {
		size = strtoull(argv[3], NULL, 0);
		op = !strcmp(argv[4], "write") ? BLK_WRITE : BLK_READ;
		n = node_of(argv[2], g);
		bench(n, (unsigned)strtoul(argv[5], NULL, 0), strtoull(argv[6], NULL, 0));
	}
	blk_unref(n);
	return 0;
}
