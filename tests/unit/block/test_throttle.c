/*
 * driver=throttle: how many requests a second, on a virtual clock to the request and on the
 * real one; bursts, groups, changes, drains, options.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "block/throttle.h"
#include "blkrig.h"

#define MS UINT64_C(1000000)

/* A disk on null-co behind a throttle node, with `depth` requests always under way. */
struct disk {
	struct loop *loop;
	struct blk_node *node;
	struct blk_chan *chan;
	struct job {
		struct blk_req req;
		struct disk *disk;
		struct iovec iov;
	} job[64];
	_Atomic unsigned busy;
	_Atomic unsigned done;
	_Atomic bool stop;
	char *buf;
};

static void job_done(struct blk_req *req, int result)
{
	struct job *j = container_of(req, struct job, req);

	assert_int_equal(result, 0);
	j->disk->done++;
	if (j->disk->stop) {
		j->disk->busy--;
	} else {
		blk_submit(j->disk->chan, req);
	}
}

static struct blk_limits limits(enum blk_limit which, uint64_t avg, uint64_t max,
				uint64_t length)
{
	struct blk_limits l = {0};

	for (unsigned i = 0; i < BLK_LIMITS; i++) {
		l.limit[i].length = 1;
	}
	l.limit[which] = (struct blk_limit_value){avg, max, length};
	return l;
}

static void disk_open(struct disk *d, struct blk_graph *g, struct loop *l, const char *group)
{
	struct opts o = {.what = "-blockdev"};
	struct err err;

	memset(d, 0, sizeof(*d));
	d->loop = l;
	d->buf = calloc(1, MiB);
	assert_int_equal(opts_add(&o, "driver", "throttle", &err), 0);
	assert_int_equal(opts_add(&o, "throttle-group", group, &err), 0);
	assert_int_equal(opts_add(&o, "file.driver", "null-co", &err), 0);
	assert_int_equal(blk_open(g, &o, &d->node, &err), 0);
	opts_fini(&o);
	assert_int_equal(blk_chan_open(d->node, l, &d->chan, &err), 0);
}

static void disk_start(struct disk *d, enum blk_op op, unsigned depth, uint64_t len)
{
	d->busy = depth;
	d->done = 0;
	d->stop = false;
	for (unsigned i = 0; i < depth; i++) {
		struct job *j = &d->job[i];

		j->disk = d;
		j->iov = (struct iovec){d->buf, len};
		j->req = (struct blk_req){
			.op = op, .len = len, .iov = &j->iov, .niov = 1, .done = job_done};
		blk_submit(d->chan, &j->req);
	}
}

static void settle(struct loop *l)
{
	for (int i = 0; i < 5; i++) {
		loop_step(l, 0);
	}
}

static void run(struct loop *l, unsigned ms)
{
	settle(l);
	for (unsigned i = 0; i < ms * 4; i++) {
		loop_clock_advance(l, MS / 4);
		settle(l);
	}
}

static void disk_stop(struct disk *d)
{
	d->stop = true;
	blk_chan_hurry(d->chan);
	settle(d->loop);
	assert_int_equal(d->busy, 0);
}

static void disk_close(struct disk *d)
{
	blk_chan_close(d->chan);
	blk_unref(d->node);
	free(d->buf);
}

static void within(uint64_t have, uint64_t want, unsigned percent)
{
	if (have * 100 < want * (100 - percent) || have * 100 > want * (100 + percent)) {
		fail_msg("%llu in place of %llu", (unsigned long long)have,
			 (unsigned long long)want);
	}
}

/* 1: with one disk on a virtual clock. */
static void test_exact(void **state)
{
	static const struct {
		enum blk_limit which;
		uint64_t avg, len;
		unsigned depth;
		enum blk_op op;
	} cases[] = {
		{BLK_IOPS_TOTAL, 100, 512, 1, BLK_READ},
		{BLK_IOPS_TOTAL, 1000, 4096, 16, BLK_WRITE},
		{BLK_IOPS_READ, 20000, 512, 64, BLK_READ},
		{BLK_IOPS_WRITE, 333, 512, 3, BLK_WRITE_ZEROES},
		{BLK_BPS_TOTAL, 10000000, 4096, 8, BLK_READ},
		{BLK_BPS_WRITE, 3000000, 65536, 4, BLK_WRITE},
		{BLK_BPS_READ, 100000000, 1 << 20, 2, BLK_READ},
	};

	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		struct blk_limits l = limits(cases[i].which, cases[i].avg, 0, 1);
		struct blk_graph *g;
		struct disk d;
		struct loop *loop;
		struct err err;
		uint64_t unit = cases[i].which < BLK_IOPS_TOTAL ? cases[i].len : 1;

		assert_int_equal(blk_graph_new(&g), 0);
		assert_int_equal(loop_new(&loop, "throttle", LOOP_VIRTUAL), 0);
		assert_int_equal(blk_throttle_group_new(g, "g", &l, &err), 0);
		disk_open(&d, g, loop, "g");
		disk_start(&d, cases[i].op, cases[i].depth, cases[i].len);
		run(loop, 1000);
		/* the first request of all waits for nothing */
		within((d.done - 1) * unit, cases[i].avg, 2);
		run(loop, 9000);
		within(d.done * unit, 10 * cases[i].avg, 1);
		disk_stop(&d);
		/* the other direction is free */
		if (cases[i].which % 3) {
			enum blk_op other = cases[i].which % 3 == 1 ? BLK_WRITE : BLK_READ;

			disk_start(&d, other, 4, 512);
			run(loop, 10);
			assert_true(d.done > 100);
			disk_stop(&d);
		}
		disk_close(&d);
		blk_graph_free(g);
		loop_free(loop);
	}
	(void)state;
}

static void test_burst_and_size(void **state)
{
	struct blk_limits l = limits(BLK_IOPS_TOTAL, 100, 1000, 1);
	struct blk_graph *g;
	struct loop *loop;
	struct disk d;
	struct err err;

	assert_int_equal(blk_graph_new(&g), 0);
	assert_int_equal(loop_new(&loop, "throttle", LOOP_VIRTUAL), 0);
	assert_int_equal(blk_throttle_group_new(g, "g", &l, &err), 0);
	disk_open(&d, g, loop, "g");
	/* a thousand at once, then a hundred a second */
	disk_start(&d, BLK_READ, 8, 512);
	run(loop, 1000);
	within(d.done, 1100, 2);
	run(loop, 1000);
	within(d.done, 1200, 2);
	disk_stop(&d);
	/* a thousand a second for three seconds, not faster */
	l = limits(BLK_IOPS_TOTAL, 100, 1000, 3);
	assert_int_equal(blk_throttle_group_set(g, "g", &l, &err), 0);
	run(loop, 10000);
	disk_start(&d, BLK_READ, 8, 512);
	run(loop, 1000);
	within(d.done, 1000, 3);
	run(loop, 1000);
	within(d.done, 2000, 3);
	run(loop, 8000);
	within(d.done, 3000 + 1000, 4);
	disk_stop(&d);
	/* requests of 4 KiB count as two of 2 KiB */
	l = limits(BLK_IOPS_TOTAL, 1000, 0, 1);
	l.iops_size = 2048;
	assert_int_equal(blk_throttle_group_set(g, "g", &l, &err), 0);
	disk_start(&d, BLK_READ, 8, 4096);
	run(loop, 1000);
	within(d.done, 500, 2);
	/* while it runs: faster, slower, none */
	l = limits(BLK_IOPS_TOTAL, 5000, 0, 1);
	assert_int_equal(blk_throttle_group_set(g, "g", &l, &err), 0);
	d.done = 0;
	run(loop, 1000);
	within(d.done, 5000, 2);
	l = limits(BLK_IOPS_TOTAL, 10, 0, 1);
	assert_int_equal(blk_throttle_group_set(g, "g", &l, &err), 0);
	d.done = 0;
	run(loop, 10000);
	within(d.done, 100, 2);
	l = limits(BLK_IOPS_TOTAL, 0, 0, 1);
	assert_int_equal(blk_throttle_group_set(g, "g", &l, &err), 0);
	d.done = 0;
	run(loop, 100);
	assert_true(d.done > 1000);
	disk_stop(&d);
	disk_close(&d);
	blk_graph_free(g);
	loop_free(loop);
	(void)state;
}

/* A greedy disk and a modest one share a group evenly. */
static void test_group_is_fair(void **state)
{
	struct blk_limits l = limits(BLK_IOPS_TOTAL, 1000, 0, 1);
	struct blk_graph *g;
	struct loop *loop;
	struct disk *d = calloc(3, sizeof(*d));
	struct err err;

	assert_int_equal(blk_graph_new(&g), 0);
	assert_int_equal(loop_new(&loop, "throttle", LOOP_VIRTUAL), 0);
	assert_int_equal(blk_throttle_group_new(g, "g", &l, &err), 0);
	for (int i = 0; i < 3; i++) {
		disk_open(&d[i], g, loop, "g");
		disk_start(&d[i], BLK_READ, i == 0 ? 64 : 2, 512);
	}
	run(loop, 2000);
	within(d[0].done + d[1].done + d[2].done, 2000, 2);
	for (int i = 0; i < 3; i++) {
		within(d[i].done, 667, 5);
	}
	/* one stops: the others have its share */
	disk_stop(&d[0]);
	d[1].done = d[2].done = 0;
	run(loop, 2000);
	within(d[1].done, 1000, 8); /* it paid for what hurried */
	for (int i = 1; i < 3; i++) {
		disk_stop(&d[i]);
	}
	for (int i = 0; i < 3; i++) {
		disk_close(&d[i]);
	}
	blk_graph_free(g);
	loop_free(loop);
	free(d);
	(void)state;
}

static void count_up(void *opaque)
{
	(*(unsigned *)opaque)++;
}

/* A drain does not wait for a limit of one request a minute; cancelled requests do not,
 * either. */
static void test_drain_and_cancel(void **state)
{
	struct blk_limits l = limits(BLK_BPS_TOTAL, 1000, 0, 1);
	struct blk_graph *g;
	struct loop *loop;
	struct blk_drain drain;
	struct disk d;
	struct err err;
	unsigned told = 0;
	struct blkreq q = {.done = false};
	struct blkrig r = {0};

	assert_int_equal(blk_graph_new(&g), 0);
	assert_int_equal(loop_new(&loop, "throttle", LOOP_VIRTUAL), 0);
	assert_int_equal(blk_throttle_group_new(g, "g", &l, &err), 0);
	disk_open(&d, g, loop, "g");
	disk_start(&d, BLK_WRITE, 8, 65536);
	run(loop, 100);
	assert_int_equal(d.done, 1);
	r.loop = loop;
	r.chan = d.chan;
	blkrig_submit(&r, &q, BLK_READ, 0, 0, 512, d.buf);
	settle(loop);
	assert_false(q.done);
	blk_cancel(&q.req);
	settle(loop);
	assert_true(q.done && q.result == -ECANCELED);
	drain = (struct blk_drain){.loop = loop, .drained = count_up, .opaque = &told};
	d.stop = true;
	blk_drain_begin(d.node, &drain);
	settle(loop);
	assert_int_equal(told, 1);
	assert_int_equal(d.busy, 0);
	blk_drain_end(&drain);
	settle(loop);
	disk_close(&d);
	blk_graph_free(g);
	loop_free(loop);
	(void)state;
}

/* --- the real clock, two loops --- */

static void start_on_loop(void *arg)
{
	disk_start(arg, BLK_READ, 32, 512);
}

static void stop_on_loop(void *arg)
{
	struct disk *d = arg;

	d->stop = true;
	blk_chan_hurry(d->chan);
}

static void close_on_loop(void *arg)
{
	blk_chan_close(((struct disk *)arg)->chan);
}

static void test_real_clock(void **state)
{
	struct blk_limits l = limits(BLK_IOPS_TOTAL, 2000, 0, 1);
	struct disk *d = calloc(2, sizeof(*d));
	struct blk_graph *g;
	struct loop *loop[2];
	struct err err;
	uint64_t t, done;

	assert_int_equal(blk_graph_new(&g), 0);
	assert_int_equal(blk_throttle_group_new(g, "g", &l, &err), 0);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(loop_new(&loop[i], "io", 0), 0);
		disk_open(&d[i], g, loop[i], "g");
		assert_int_equal(loop_thread_start(loop[i], NULL, NULL), 0);
		loop_call(loop[i], start_on_loop, &d[i]);
	}
	t = now_ns();
	done = d[0].done + d[1].done;
	usleep(1000000);
	done = d[0].done + d[1].done - done;
	t = now_ns() - t;
	/* never more; less only if this machine has no time for it */
	assert_true(done * 1000 * MS <= 2000 * t / 100 * 102);
	assert_true(done * 1000 * MS >= 2000 * t / 100 * 80);
	assert_true(d[0].done > 500 && d[1].done > 500);
	for (int i = 0; i < 2; i++) {
		loop_call(loop[i], stop_on_loop, &d[i]);
	}
	for (int i = 0; i < 2; i++) {
		while (d[i].busy) {
			usleep(1000);
		}
		loop_call(loop[i], close_on_loop, &d[i]);
		loop_thread_join(loop[i]);
		blk_unref(d[i].node);
		free(d[i].buf);
		loop_free(loop[i]);
	}
	blk_graph_free(g);
	free(d);
	(void)state;
}

static int read_limits(const char *text, struct blk_limits *l, struct err *err)
{
	struct opts o;
	bool any;
	int r = opts_parse(&o, "-object", text, NULL, err);

	assert_int_equal(r, 0);
	memset(l, 0, sizeof(*l));
	r = blk_limits_read(&o, "x-", l, &any, err);
	opts_fini(&o);
	return r;
}

static void test_options(void **state)
{
	static const char *const bad[] = {
		"x-iops-total=10,x-iops-read=5",
		"x-bps-total=1M,x-bps-write=1M",
		"x-iops-total-max=10",
		"x-iops-total=10,x-iops-total-max=5",
		"x-iops-total=10,x-iops-total-max-length=2",
		"x-iops-total=10,x-iops-total-max=20,x-iops-total-max-length=0",
		"x-iops-size=4096",
		"x-iops-total=-1",
		"x-iops-total=9999999999999999",
	};
	struct blk_limits l;
	struct blk_graph *g;
	struct blk_node *n;
	struct opts o = {.what = "-blockdev"};
	struct err err;

	assert_int_equal(
		read_limits("x-iops-total=100,x-iops-total-max=200,x-iops-total-max-length=3,"
			    "x-iops-size=4096,x-bps-read=1M",
			    &l, &err),
		0);
	assert_int_equal(l.limit[BLK_IOPS_TOTAL].avg, 100);
	assert_int_equal(l.limit[BLK_IOPS_TOTAL].max, 200);
	assert_int_equal(l.limit[BLK_IOPS_TOTAL].length, 3);
	assert_int_equal(l.limit[BLK_BPS_READ].avg, 1048576);
	assert_int_equal(l.iops_size, 4096);
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_true(read_limits(bad[i], &l, &err) < 0);
	}
	assert_int_equal(blk_graph_new(&g), 0);
	assert_int_equal(opts_add(&o, "driver", "throttle", &err), 0);
	assert_int_equal(opts_add(&o, "throttle-group", "nobody", &err), 0);
	assert_int_equal(opts_add(&o, "file.driver", "null-co", &err), 0);
	assert_int_equal(blk_open(g, &o, &n, &err), -ENOENT);
	assert_non_null(strstr(err.msg, "nobody"));
	opts_fini(&o);
	assert_int_equal(blk_throttle_group_set(g, "nobody", &l, &err), -ENOENT);
	l = limits(BLK_IOPS_TOTAL, 1, 0, 1);
	assert_int_equal(blk_throttle_group_new(g, "a", &l, &err), 0);
	assert_int_equal(blk_throttle_group_new(g, "a", &l, &err), -EEXIST);
	assert_true(blk_throttle_group_find(g, "a", &l));
	assert_false(blk_throttle_group_find(g, "b", &l));
	blk_graph_free(g);
	(void)state;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_exact),	      cmocka_unit_test(test_burst_and_size),
		cmocka_unit_test(test_group_is_fair), cmocka_unit_test(test_drain_and_cancel),
		cmocka_unit_test(test_real_clock),    cmocka_unit_test(test_options),
	};

	return cmocka_run_group_tests_name("block throttle", tests, NULL, NULL);
}
