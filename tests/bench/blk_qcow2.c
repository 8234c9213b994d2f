/*
 * What qcow2 costs beside raw: random 4 KiB requests on one loop, all metadata in the cache; and how long it
 * takes to open a large image, with what memory.
 *
 *   blk_qcow2 compare OPTIONS OPTIONS SIZE read|write DEPTH ROUNDS
 *   blk_qcow2 open OPTIONS ROUNDS
 *
 * compare: both nodes are open at once and take turns, ROUNDS times a batch of requests each, so that whatever
 * else the machine does meets both. It prints, for each, microseconds of processor time (all threads, user and
 * kernel) and of the clock for a request, medians over the rounds, and then the median of the rounds' ratios, second
 * to first, of both.
 *
 * open: milliseconds of the clock and of processor time, of the first one in the process and the median of the
 * others, and what the first one added to the peak of resident memory.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "block/block.h"
#include "block/io.h"

#define BLOCK 4096
#define BATCH 8192
#define WARM  65536

struct slot {
	struct blk_req req;
	struct iovec iov;
};

struct side { /* a node that is measured */
	struct blk_node *node;
	struct blk_user *user;
	struct blk_io *io;
	struct slot *slot;
	uint64_t left, done;
	uint32_t seed;
	double *cpu, *wall; /* a request of each round, in us */
};

struct bench {
	struct side side[2];
	uint64_t size;
	unsigned depth, rounds;
	enum blk_op op;
};

static struct bench bench;

static _Noreturn void die(const char *text)
{
	fprintf(stderr, "blk_qcow2: %s\n", text);
	exit(1);
}

static double seconds(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int compare_doubles(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(double *v, unsigned n)
{
	qsort(v, n, sizeof(*v), compare_doubles);
	return v[n / 2];
}

static struct blk_node *node_of(const char *text, struct blk_graph *g)
{
	struct opts o = {0};
	struct err err = {0};
	struct blk_node *n = NULL;

	if (opts_parse(&o, "image", text, "driver", &err) || blk_open(g, &o, &n, &err)) {
		die(err.msg);
	}
	opts_fini(&o);
	return n;
}

/* --- requests --- */

static void next(struct blk_req *r, int result)
{
	struct side *s = r->opaque;

	if (result < 0) {
		die(strerror(-result));
	}
	s->done++;
	if (!s->left) {
		return;
	}
	s->left--;
	s->seed = s->seed * 1664525 + 1013904223;
	r->op = bench.op;
	r->flags = 0;
	r->off = (uint64_t)(s->seed >> 4) % (bench.size / BLOCK) * BLOCK;
	r->len = BLOCK;
	blk_submit(blk_io_chan(s->io), r);
}

static void side_open(struct side *s, const char *options, struct blk_graph *g)
{
	struct err err = {0};
	static char buf[WARM];

	s->node = node_of(options, g);
	if (blk_attach(s->node, "bench",
		       bench.op == BLK_WRITE ? BLK_PERM_WRITE : BLK_PERM_CONSISTENT_READ,
		       BLK_PERM_ALL, NULL, NULL, &s->user, &err) ||
	    blk_io_open(s->node, &s->io, &err)) {
		die(err.msg);
	}
	s->seed = 1;
	s->slot = calloc(bench.depth, sizeof(*s->slot));
	s->cpu = calloc(bench.rounds, sizeof(*s->cpu));
	s->wall = calloc(bench.rounds, sizeof(*s->wall));
	if (!s->slot || !s->cpu || !s->wall) {
		die("out of memory");
	}
	for (unsigned i = 0; i < bench.depth; i++) {
		s->slot[i].iov = (struct iovec){aligned_alloc(4096, BLOCK), BLOCK};
		memset(s->slot[i].iov.iov_base, 1, BLOCK);
		s->slot[i].req = (struct blk_req){
			.iov = &s->slot[i].iov, .niov = 1, .done = next, .opaque = s};
	}
	for (uint64_t off = 0; off < bench.size; off += sizeof(buf)) {
		bench.op == BLK_WRITE ? blk_io_write(s->io, off, buf, sizeof(buf), 0)
				      : blk_io_read(s->io, off, buf, sizeof(buf));
	}
	blk_io_flush(s->io);
}

static void side_close(struct side *s)
{
	for (unsigned i = 0; i < bench.depth; i++) {
		free(s->slot[i].iov.iov_base);
	}
	free(s->slot);
	free(s->cpu);
	free(s->wall);
	blk_io_close(s->io);
	blk_detach(s->user);
	blk_unref(s->node);
}

static void batch(struct side *s, unsigned round)
{
	double cpu = seconds(CLOCK_PROCESS_CPUTIME_ID), wall = seconds(CLOCK_MONOTONIC);
	uint64_t count = bench.depth + BATCH;

	s->left = count;
	s->done = 0;
	for (unsigned i = 0; i < bench.depth; i++) {
		next(&s->slot[i].req, 0);
	}
	while (s->done < count + bench.depth) {
		loop_step(blk_io_loop(s->io), -1);
	}
	s->cpu[round] = (seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu) * 1e6 / (double)count;
	s->wall[round] = (seconds(CLOCK_MONOTONIC) - wall) * 1e6 / (double)count;
}

static void compare(char **argv)
{
	struct blk_graph *g;
	double *cpu, *wall;

	bench.size = strtoull(argv[4], NULL, 0);
	bench.op = !strcmp(argv[5], "write") ? BLK_WRITE : BLK_READ;
	bench.depth = (unsigned)strtoul(argv[6], NULL, 0);
	bench.rounds = (unsigned)strtoul(argv[7], NULL, 0);
	cpu = calloc(bench.rounds, sizeof(*cpu));
	wall = calloc(bench.rounds, sizeof(*wall));
	if (!cpu || !wall || !bench.depth || !bench.rounds || bench.size < BLOCK ||
	    blk_graph_new(&g)) {
		die("a number is missing, or memory");
	}
	for (unsigned i = 0; i < 2; i++) {
		side_open(&bench.side[i], argv[2 + i], g);
	}
	for (unsigned round = 0; round < bench.rounds; round++) {
		struct side *s = bench.side;

		batch(&s[round & 1], round);
		batch(&s[!(round & 1)], round);
		cpu[round] = s[0].cpu[round] / s[1].cpu[round];
		wall[round] = s[0].wall[round] / s[1].wall[round];
	}
	for (unsigned i = 0; i < 2; i++) {
		printf("%.3f us of processor, %.3f us of the clock\n",
		       median(bench.side[i].cpu, bench.rounds),
		       median(bench.side[i].wall, bench.rounds));
		side_close(&bench.side[i]);
	}
	printf("%.3f %.3f\n", median(cpu, bench.rounds), median(wall, bench.rounds));
	free(cpu);
	free(wall);
	blk_graph_free(g);
}

/* --- opening --- */

/* KiB. getrusage() has the peak of the program that started this one, too. */
static long peak(void)
{
	FILE *f = fopen("/proc/self/status", "r");
	char line[256];
	long kib = -1;

	while (f && kib < 0 && fgets(line, sizeof(line), f)) {
		sscanf(line, "VmHWM: %ld", &kib);
	}
	if (f) {
		fclose(f);
	}
	return kib;
}

static void measure_open(const char *options, unsigned rounds)
{
	double *cpu = calloc(rounds, sizeof(*cpu)), *wall = calloc(rounds, sizeof(*wall));
	long before, after = 0;
	struct blk_graph *g;

	if (!cpu || !wall || rounds < 2 || blk_graph_new(&g)) {
		die("a number is missing, or memory");
	}
	before = peak();
	for (unsigned i = 0; i < rounds; i++) {
		double c = seconds(CLOCK_PROCESS_CPUTIME_ID), w = seconds(CLOCK_MONOTONIC);
		struct blk_node *n = node_of(options, g);

		wall[i] = (seconds(CLOCK_MONOTONIC) - w) * 1e3;
		cpu[i] = (seconds(CLOCK_PROCESS_CPUTIME_ID) - c) * 1e3;
		if (!i) {
			after = peak();
		}
		blk_unref(n);
	}
	printf("first %.2f ms, %.2f ms of processor, %ld KiB; ", wall[0], cpu[0],
	       after - before);
	printf("then %.2f ms, %.2f ms of processor\n", median(wall + 1, rounds - 1),
	       median(cpu + 1, rounds - 1));
	free(cpu);
	free(wall);
	blk_graph_free(g);
}

int main(int argc, char **argv)
{
	if (argc == 4 && !strcmp(argv[1], "open")) {
		measure_open(argv[2], (unsigned)strtoul(argv[3], NULL, 0));
	} else if (argc == 8 && !strcmp(argv[1], "compare")) {
		compare(argv);
	} else {
		fprintf(stderr, "usage: see the head of tests/bench/blk_qcow2.c\n");
		return 2;
	}
	return 0;
}
