/*
 * core/bus.h: what is split and what is refused, overlaps, owners, and look-ups on many threads
 * while regions come and go (run under TSAN too).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "base/util.h"
#include "core/bus.h"

/* A region that keeps what is written to it and logs each call. */
struct mem_dev {
	uint8_t bytes[64];
	struct {
		uint64_t off;
		unsigned size;
		bool write;
	} call[16];
	unsigned ncalls;
};

static void record(struct mem_dev *d, uint64_t off, unsigned size, bool write)
{
	assert_true(size == 1 || size == 2 || size == 4 || size == 8);
	assert_true(range_within(off, size, sizeof(d->bytes)));
	d->call[d->ncalls].off = off;
	d->call[d->ncalls].size = size;
	d->call[d->ncalls++].write = write;
}

static uint64_t dev_read(void *opaque, uint64_t off, unsigned size)
{
	struct mem_dev *d = opaque;
	uint64_t v =
		UINT64_C(0xdeadbeefdeadbeef); /* what is above size must not come through */

	record(d, off, size, false);
	memcpy(&v, d->bytes + off, size);
	return v;
}

static void dev_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
	struct mem_dev *d = opaque;

	record(d, off, size, true);
	assert_true(size == 8 || value >> (8 * size) == 0);
	memcpy(d->bytes + off, &value, size);
}

static const struct bus_ops any_ops = {.read = dev_read, .write = dev_write};
static const struct bus_ops word_ops = {
	.read = dev_read, .write = dev_write, .min_size = 2, .max_size = 4};
static const struct bus_ops dword_ops = {
	.read = dev_read, .write = dev_write, .min_size = 4, .max_size = 4};
static const struct bus_ops write_only_ops = {.write = dev_write};

struct fixture {
	struct bus *b;
	struct bus_reader *rd;
	struct mem_dev dev;
	struct bus_region r;
};

static void open_bus(struct fixture *f, const struct bus_ops *ops, enum bus_space space)
{
	memset(f, 0, sizeof(*f));
	assert_int_equal(bus_new(&f->b), 0);
	assert_int_equal(bus_reader_new(f->b, &f->rd), 0);
	for (unsigned i = 0; i < sizeof(f->dev.bytes); i++) {
		f->dev.bytes[i] = (uint8_t)(0x80 + i);
	}
	f->r = (struct bus_region){.name = "dev",
				   .space = space,
				   .base = 0x1000,
				   .size = 64,
				   .ops = ops,
				   .opaque = &f->dev};
	assert_int_equal(bus_add(f->b, &f->r), 0);
}

static void close_bus(struct fixture *f)
{
	bus_del(f->b, &f->r);
	bus_reader_free(f->rd);
	bus_free(f->b);
}

static uint64_t rd(struct fixture *f, uint64_t addr, unsigned len)
{
	uint64_t v = 0;

	f->dev.ncalls = 0;
	bus_read(f->rd, f->r.space, addr, &v, len);
	return v;
}

static void wr(struct fixture *f, uint64_t addr, uint64_t v, unsigned len)
{
	f->dev.ncalls = 0;
	bus_write(f->rd, f->r.space, addr, &v, len);
}

static void expect_calls(struct fixture *f, unsigned n, const unsigned *off_size)
{
	assert_int_equal(f->dev.ncalls, n);
	for (unsigned i = 0; i < n; i++) {
		assert_int_equal(f->dev.call[i].off, off_size[2 * i]);
		assert_int_equal(f->dev.call[i].size, off_size[2 * i + 1]);
	}
}

static void test_sizes(void **state)
{
	struct fixture f;

	open_bus(&f, &any_ops, BUS_MMIO);
	assert_int_equal(rd(&f, 0x1000, 1), 0x80);
	assert_int_equal(rd(&f, 0x1001, 2), 0x8281);
	assert_int_equal(rd(&f, 0x1002, 4), 0x85848382);
	assert_int_equal(rd(&f, 0x1003, 8), UINT64_C(0x8a89888786858483));
	expect_calls(&f, 1, (unsigned[]){3, 8});
	/* Odd lengths (an access that KVM cut at a page's end) come in powers of two. */
	assert_int_equal(rd(&f, 0x1004, 3), 0x868584);
	expect_calls(&f, 2, (unsigned[]){4, 2, 6, 1});
	assert_int_equal(rd(&f, 0x1000, 7), UINT64_C(0x86858483828180));
	expect_calls(&f, 3, (unsigned[]){0, 4, 4, 2, 6, 1});
	wr(&f, 0x1008, UINT64_C(0x1122334455667788), 5);
	expect_calls(&f, 2, (unsigned[]){8, 4, 12, 1});
	assert_int_equal(rd(&f, 0x1008, 8), UINT64_C(0x8f8e8d4455667788));
	close_bus(&f);
}

static void test_split_and_refused(void **state)
{
	struct fixture f;

	open_bus(&f, &word_ops, BUS_MMIO);
	assert_int_equal(rd(&f, 0x1000, 8), UINT64_C(0x8786858483828180));
	expect_calls(&f, 2, (unsigned[]){0, 4, 4, 4});
	assert_int_equal(rd(&f, 0x1000, 6), UINT64_C(0x858483828180));
	expect_calls(&f, 2, (unsigned[]){0, 4, 4, 2});
	/* Too small, or with a piece that would be: all ones, and nobody is called. */
	assert_int_equal(rd(&f, 0x1000, 1), 0xff);
	assert_int_equal(rd(&f, 0x1000, 3), 0xffffff);
	assert_int_equal(rd(&f, 0x1000, 7), UINT64_C(0xffffffffffffff));
	assert_int_equal(f.dev.ncalls, 0);
	wr(&f, 0x1000, 0, 1);
	wr(&f, 0x1000, 0, 5);
	assert_int_equal(f.dev.ncalls, 0);
	assert_int_equal(f.dev.bytes[0], 0x80);
	wr(&f, 0x1010, UINT64_C(0x0102030405060708), 8);
	expect_calls(&f, 2, (unsigned[]){16, 4, 20, 4});
	assert_int_equal(f.dev.bytes[16], 8);
	assert_int_equal(f.dev.bytes[23], 1);
	close_bus(&f);

	open_bus(&f, &dword_ops, BUS_MMIO);
	assert_int_equal(rd(&f, 0x1000, 2), 0xffff);
	assert_int_equal(rd(&f, 0x1000, 6), UINT64_C(0xffffffffffff));
	assert_int_equal(rd(&f, 0x1004, 4), 0x87868584);
	close_bus(&f);
}

static void test_straddle_and_nothing(void **state)
{
	struct fixture f;
	struct bus_region next;
	struct mem_dev dev2 = {0};

	open_bus(&f, &any_ops, BUS_MMIO);
	/* Over either end, even if something else is there: nobody answers. */
	next = f.r;
	next.added = false;
	next.base = 0x1040;
	next.opaque = &dev2;
	assert_int_equal(bus_add(f.b, &next), 0);
	assert_int_equal(rd(&f, 0x103f, 2), 0xffff);
	assert_int_equal(rd(&f, 0x103c, 8), UINT64_MAX);
	assert_int_equal(rd(&f, 0xfff, 2), 0xffff);
	wr(&f, 0x103f, 0, 2);
	wr(&f, 0xffd, 0, 4);
	assert_int_equal(f.dev.ncalls + dev2.ncalls, 0);
	assert_int_equal(rd(&f, 0x1080, 4), 0xffffffff);
	assert_int_equal(rd(&f, 0x1080, 1), 0xff);
	assert_int_equal(rd(&f, 0, 8), UINT64_MAX);
	assert_int_equal(rd(&f, UINT64_MAX, 8), UINT64_MAX);
	wr(&f, UINT64_MAX, 0, 8);
	assert_int_equal(rd(&f, 0x1040, 4), 0);
	assert_int_equal(dev2.ncalls, 1);
	/* The other space is another space. */
	f.r.space = BUS_PIO;
	assert_int_equal(rd(&f, 0x1000, 4), 0xffffffff);
	f.r.space = BUS_MMIO;
	bus_del(f.b, &next);
	assert_int_equal(rd(&f, 0x1040, 4), 0xffffffff);
	close_bus(&f);

	open_bus(&f, &write_only_ops, BUS_MMIO);
	assert_int_equal(rd(&f, 0x1000, 4), 0xffffffff);
	wr(&f, 0x1000, 1, 1);
	assert_int_equal(f.dev.bytes[0], 1);
	close_bus(&f);
}

static void test_add_refused(void **state)
{
	static struct bus_region many[BUS_MAX_REGIONS];
	struct fixture f;
	struct bus_region r;
	unsigned i;

	open_bus(&f, &any_ops, BUS_MMIO);
	r = (struct bus_region){.name = "r", .ops = &any_ops, .opaque = &f.dev};
#define TRY(b_, s_) (r.base = (b_), r.size = (s_), bus_add(f.b, &r))
	assert_int_equal(TRY(0x1000, 1), -EEXIST);
	assert_int_equal(TRY(0x103f, 16), -EEXIST);
	assert_int_equal(TRY(0xfff, 2), -EEXIST);
	assert_int_equal(TRY(0, UINT64_MAX), -EEXIST);
	assert_int_equal(TRY(0x2000, 0), -EINVAL);
	assert_int_equal(TRY(UINT64_MAX, 2), -EINVAL);
	assert_int_equal(TRY(0xfff, 1), 0);
	bus_del(f.b, &r);
	bus_del(f.b, &r); /* harmless */
	assert_int_equal(TRY(UINT64_MAX, 1), 0);
	bus_del(f.b, &r);
	r.space = BUS_PIO;
	assert_int_equal(TRY(0x1000, 64), 0);
	bus_del(f.b, &r);
	assert_int_equal(TRY(0xffff, 2), -EINVAL);
	assert_int_equal(TRY(0xffff, 1), 0);
	bus_del(f.b, &r);

	/* As many as there is room for, half of them below what is there. */
	for (i = 0; i < BUS_MAX_REGIONS - 1; i++) {
		many[i] = (struct bus_region){
			.name = "n", .ops = &any_ops, .opaque = &f.dev, .size = 1};
		many[i].base = i % 2 ? 0x2000 + i : 0xfff - i / 2;
		assert_int_equal(bus_add(f.b, &many[i]), 0);
	}
	r.space = BUS_MMIO;
	assert_int_equal(TRY(0x100000, 1), -ENOSPC);
	assert_int_equal(rd(&f, 0x1000, 1), 0x80);
	assert_int_equal(rd(&f, 0x2001, 1), 0x80);
	for (i = 0; i < BUS_MAX_REGIONS - 1; i++) {
		bus_del(f.b, &many[i]);
	}
	close_bus(&f);
}

/* --- owners --- */

struct owned {
	struct loop *loop;
	pthread_t handler; /* the thread that ran the last handler */
	unsigned writes, reads;
	struct bus *b;
	struct bus_region *del; /* removed by the owner before the access gets there */
};

static uint64_t owned_read(void *opaque, uint64_t off, unsigned size)
{
	struct owned *o = opaque;

	o->reads++;
	o->handler = pthread_self();
	return 0x42;
}

static void owned_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
	struct owned *o = opaque;

	assert_true(loop_is_current(o->loop));
	o->writes++;
	o->handler = pthread_self();
}

static const struct bus_ops owned_ops = {
	.read = owned_read, .write = owned_write, .max_size = 4};

static void test_owner(void **state)
{
	struct owned o = {0};
	struct bus_reader *rdr;
	struct bus_region r;
	uint64_t v = 0;
	struct bus *b;

	assert_int_equal(bus_new(&b), 0);
	assert_int_equal(bus_reader_new(b, &rdr), 0);
	assert_int_equal(loop_new(&o.loop, "owner", 0), 0);
	assert_int_equal(loop_thread_start(o.loop, NULL, NULL), 0);
	r = (struct bus_region){.name = "r",
				.base = 0,
				.size = 8,
				.ops = &owned_ops,
				.opaque = &o,
				.owner = o.loop};
	assert_int_equal(bus_add(b, &r), 0);

	bus_write(rdr, BUS_MMIO, 0, &v, 8); /* two pieces */
	assert_int_equal(o.writes, 2);
	assert_false(pthread_equal(o.handler, pthread_self()));
	bus_read(rdr, BUS_MMIO, 0, &v, 4);
	assert_int_equal(v, 0x42);
	assert_true(pthread_equal(o.handler, pthread_self()));
	bus_del(b, &r);
	r.owner_reads = true;
	assert_int_equal(bus_add(b, &r), 0);
	v = 0;
	bus_read(rdr, BUS_MMIO, 0, &v, 4);
	assert_int_equal(v, 0x42);
	assert_false(pthread_equal(o.handler, pthread_self()));
	assert_int_equal(o.reads, 2);
	bus_del(b, &r);

	loop_thread_join(o.loop);
	loop_free(o.loop);
	bus_reader_free(rdr);
	bus_free(b);
}

/* While a vCPU waits, the owner removes the region: its handler is never called again. */
struct late {
	struct bus *b;
	struct bus_reader *rdr;
	_Atomic bool looking;
};

static void *late_write(void *arg)
{
	struct late *l = arg;
	uint32_t v = 0;

	l->looking = true;
	bus_write(l->rdr, BUS_MMIO, 0, &v, 4);
	return NULL;
}

static void test_removed_while_waiting(void **state)
{
	struct owned o = {0};
	struct late l = {0};
	struct bus_region r;
	pthread_t t;

	assert_int_equal(bus_new(&l.b), 0);
	assert_int_equal(bus_reader_new(l.b, &l.rdr), 0);
	assert_int_equal(loop_new(&o.loop, "owner", 0), 0);
	r = (struct bus_region){.name = "r",
				.base = 0,
				.size = 8,
				.ops = &owned_ops,
				.opaque = &o,
				.owner = o.loop};
	assert_int_equal(bus_add(l.b, &r), 0);
	assert_int_equal(pthread_create(&t, NULL, late_write, &l), 0);
	while (!l.looking) {
		sched_yield();
	}
	for (int i = 0; i < 50; i++) {
		sched_yield(); /* most likely it has posted by now; either way is right */
	}
	bus_del(l.b, &r);
	while (pthread_tryjoin_np(t, NULL) != 0) {
		loop_step(o.loop, 1);
	}
	assert_int_equal(o.writes, 0);
	loop_free(o.loop);
	bus_reader_free(l.rdr);
	bus_free(l.b);
}

/* --- many threads --- */

#define THREADS 3
struct hammer {
	struct bus *b;
	struct mem_dev *keep;
	_Atomic bool *stop;
	_Atomic uint64_t rounds;
	uint64_t bad;
};

static uint64_t const_read(void *opaque, uint64_t off, unsigned size)
{
	return (uintptr_t)opaque;
}
static const struct bus_ops const_ops = {.read = const_read};

static void *hammer(void *arg)
{
	struct hammer *h = arg;
	struct bus_reader *rdr;

	if (bus_reader_new(h->b, &rdr) < 0) {
		return NULL;
	}
	while (!atomic_load(h->stop)) {
		uint64_t v = 0;

		bus_read(rdr, BUS_MMIO, 0x100000, &v, 8);
		h->bad += v != 0x1234;
		v = 0;
		bus_read(rdr, BUS_MMIO, 0x1000 + h->rounds % 64 * 16, &v, 8);
		h->bad += v != UINT64_MAX && v != 0x77; /* there or not, nothing else */
		h->rounds++;
	}
	bus_reader_free(rdr);
	return NULL;
}

static void test_lookups_while_regions_change(void **state)
{
	struct bus_region keep = {.name = "keep",
				  .base = 0x100000,
				  .size = 8,
				  .ops = &const_ops,
				  .opaque = (void *)0x1234};
	_Atomic bool stop = false;
	struct hammer h[THREADS];
	pthread_t t[THREADS];
	struct bus *b;

	assert_int_equal(bus_new(&b), 0);
	assert_int_equal(bus_add(b, &keep), 0);
	for (int i = 0; i < THREADS; i++) {
		h[i] = (struct hammer){.b = b, .stop = &stop};
		assert_int_equal(pthread_create(&t[i], NULL, hammer, &h[i]), 0);
		while (h[i].rounds == 0) {
			sched_yield();
		}
	}
	for (int round = 0; round < 20; round++) {
		/* On the stack of this round: a look-up that comes too late would see garbage.
		 */
		struct bus_region r[64];

		for (unsigned i = 0; i < 64; i++) {
			r[i] = (struct bus_region){.name = "r",
						   .base = 0x1000 + i * 16,
						   .size = 16,
						   .ops = &const_ops,
						   .opaque = (void *)0x77};
			assert_int_equal(bus_add(b, &r[i]), 0);
		}
		for (unsigned i = 0; i < 64; i++) {
			bus_del(b, &r[(i * 37) % 64]);
		}
		memset(r, 0x5a, sizeof(r));
	}
	stop = true;
	for (int i = 0; i < THREADS; i++) {
		pthread_join(t[i], NULL);
		assert_int_equal(h[i].bad, 0);
	}
	bus_del(b, &keep);
	bus_free(b);
}

static uint64_t stat_of(struct bus *b, struct bus_reader *rd, const char *name, bool write)
{
	const char *s;

	for (unsigned i = 0; (s = bus_stat_name(b, i)); i++) {
		if (!strcmp(s, name)) {
			return bus_reader_stat(rd, i, write);
		}
	}
	return UINT64_MAX;
}

/* Each reader counts for itself, by device and region; what moves or comes back goes on. */
static void test_statistics(void **state)
{
	struct mem_dev d = {0};
	struct bus_region uart = {.name = "uart", .space = BUS_PIO, .base = 0x3f8, .size = 8,
				  .ops = &any_ops, .opaque = &d};
	struct bus_region bar = {.name = "common", .device = "nic", .base = 0x1000, .size = 64,
				 .ops = &any_ops, .opaque = &d};
	struct bus_reader *one, *two;
	uint64_t v = 0;
	struct bus *b;

	assert_int_equal(bus_new(&b), 0);
	assert_int_equal(bus_add(b, &uart), 0);
	assert_int_equal(bus_add(b, &bar), 0);
	assert_int_equal(bus_reader_new(b, &one), 0);
	assert_int_equal(bus_reader_new(b, &two), 0);
	bus_write(one, BUS_PIO, 0x3f8, &v, 1);
	bus_write(one, BUS_PIO, 0x3f9, &v, 1);
	bus_read(two, BUS_PIO, 0x3f8, &v, 1);
	bus_read(one, BUS_MMIO, 0x1000, &v, 4);
	bus_del(b, &bar);
	bus_read(one, BUS_MMIO, 0x1000, &v, 4); /* nobody is there now */
	bar.base = 0x9000;
	assert_int_equal(bus_add(b, &bar), 0);
	bus_read(one, BUS_MMIO, 0x9000, &v, 4);
	bus_write(one, BUS_MMIO, 0x1000, &v, 4);
	assert_int_equal(stat_of(b, one, "uart", true), 2);
	assert_int_equal(stat_of(b, one, "uart", false), 0);
	assert_int_equal(stat_of(b, two, "uart", false), 1);
	assert_int_equal(stat_of(b, two, "uart", true), 0);
	assert_int_equal(stat_of(b, one, "nic/common", false), 2);
	assert_int_equal(stat_of(b, one, "unassigned", false), 1);
	assert_int_equal(stat_of(b, one, "unassigned", true), 1);
	assert_int_equal(bus_reader_stat(one, BUS_STATS, false), 0);
	bus_reader_free(one);
	bus_reader_free(two);
	bus_del(b, &uart);
	bus_del(b, &bar);
	bus_free(b);
}

/* More regions than counters: the rest is counted together, nothing is written beyond. */
static void test_statistics_without_room(void **state)
{
	static struct bus_region r[BUS_STATS + 10];
	static char name[BUS_STATS + 10][16];
	struct mem_dev d = {0};
	struct bus_reader *rd;
	uint64_t v;
	struct bus *b;
	unsigned n = 0;

	assert_int_equal(bus_new(&b), 0);
	assert_int_equal(bus_reader_new(b, &rd), 0);
	for (unsigned i = 0; i < ARRAY_SIZE(r); i++) {
		snprintf(name[i], sizeof(name[i]), "r%u", i);
		r[i] = (struct bus_region){.name = name[i], .base = i * 64u, .size = 64,
					   .ops = &any_ops, .opaque = &d};
		assert_int_equal(bus_add(b, &r[i]), 0);
		d.ncalls = 0;
		bus_read(rd, BUS_MMIO, i * 64u, &v, 4);
	}
	while (bus_stat_name(b, n)) {
		n++;
	}
	assert_int_equal(n, BUS_STATS);
	assert_int_equal(stat_of(b, rd, "r0", false), 1);
	assert_int_equal(stat_of(b, rd, "r253", false), 1);
	assert_int_equal(stat_of(b, rd, "r254", false), UINT64_MAX);
	assert_int_equal(stat_of(b, rd, "other", false), 12);
	for (unsigned i = 0; i < ARRAY_SIZE(r); i++) {
		bus_del(b, &r[i]);
	}
	bus_reader_free(rd);
	bus_free(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_split_and_refused),
		cmocka_unit_test(test_straddle_and_nothing),
		cmocka_unit_test(test_add_refused),
		cmocka_unit_test(test_owner),
		cmocka_unit_test(test_removed_while_waiting),
		cmocka_unit_test(test_lookups_while_regions_change),
		cmocka_unit_test(test_statistics),
		cmocka_unit_test(test_statistics_without_room),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
