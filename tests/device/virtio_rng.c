/*
 * virtio-rng through real rings: bytes come, at the rate that was allowed, from the source that
 * was named.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "device/virtio/rng.h"
#include "rig.h"

#define MS UINT64_C(1000000)

struct rng {
	struct rig r;
	gpa_t buf;
};

static void rng_init(struct rng *g, const struct virtio_rng_config *cfg, bool iothread)
{
	struct virtio_rng_config c = *cfg;
	struct virtio_dev *vd;
	struct err err;

	rig_init(&g->r, iothread, 0);
	c.loop = g->r.iothread;
	assert_int_equal(virtio_rng_new(&g->r.fv->vm, &c, "rng0", &vd, &err), 0);
	rig_add(&g->r, vd, "rng0");
	g->buf = vdrv_alloc(&g->r.d, 65536, 4096);
	memset(vdrv_ptr(&g->r.d, g->buf, 65536), 0, 65536);
}

/* Asks for len bytes; how many came, 0 if none. */
static uint32_t rng_get(struct rng *g, uint32_t len)
{
	struct vdrv_queue *q = &g->r.d.q[0];
	uint16_t head;
	uint32_t got;

	assert_true(vdrv_add(q, (struct vdrv_seg[]){{g->buf, len}}, 0, 1, 0) >= 0);
	vdrv_kick(q);
	return vdrv_wait(q, &head, &got) ? got : 0;
}

static unsigned distinct(struct rng *g, uint32_t len)
{
	const uint8_t *p = vdrv_ptr(&g->r.d, g->buf, len);
	bool seen[256] = {0};
	unsigned n = 0;

	for (uint32_t i = 0; i < len; i++) {
		n += !seen[p[i]];
		seen[p[i]] = true;
	}
	return n;
}

static void serves(const char *filename, bool iothread)
{
	struct rng g;
	uint32_t len;

	rng_init(&g, &(struct virtio_rng_config){.filename = filename}, iothread);
	assert_int_equal(pci_cfg_read(&g.r.root, 0, g.r.d.devfn, 2, 2), 0x1044);
	vdrv_start(&g.r.d, UINT64_MAX, 0);
	for (unsigned i = 1; i <= 64; i++) {
		assert_int_equal(rng_get(&g, i), i);
	}
	len = rng_get(&g, 65536);
	assert_true(len >= 1 && len <= 65536);
	len = rng_get(&g, 4096);
	assert_int_equal(len, 4096);
	assert_true(distinct(&g, 4096) > 200);
	assert_true(vdrv_irqs(&g.r.d, 1) > 0);
	rig_fini(&g.r);
}

static void test_builtin(void **state)
{
	serves(NULL, false);
	serves(NULL, true);
	(void)state;
}

static void test_device_file(void **state)
{
	serves("/dev/urandom", false);
	serves("/dev/urandom", true);
	(void)state;
}

static void test_rate(void **state)
{
	struct rng g;
	struct vdrv *d = &g.r.d;
	uint16_t head;
	uint32_t len, total = 0;

	rng_init(&g, &(struct virtio_rng_config){.max_bytes = 100, .period_ms = 1000}, false);
	vdrv_start(d, UINT64_MAX, 0);
	assert_int_equal(rng_get(&g, 64), 64);
	assert_int_equal(rng_get(&g, 64), 36); /* what is left */
	/* from here on the driver waits for the next period */
	for (int i = 0; i < 3; i++) {
		vdrv_add(&d->q[0], (struct vdrv_seg[]){{g.buf, 64}}, 0, 1, 0);
	}
	vdrv_kick(&d->q[0]);
	for (unsigned period = 0; period < 2; period++) {
		fake_vm_settle(g.r.fv);
		assert_false(vdrv_used(&d->q[0], &head, &len));
		loop_clock_advance(g.r.fv->vm.loop, 999 * MS);
		fake_vm_settle(g.r.fv);
		assert_false(vdrv_used(&d->q[0], &head, &len));
		loop_clock_advance(g.r.fv->vm.loop, 1 * MS);
		fake_vm_settle(g.r.fv);
		while (vdrv_used(&d->q[0], &head, &len)) {
			total += len;
		}
		assert_true(total <= 100 * (period + 1));
		if (period == 0) {
			assert_int_equal(total, 100);
			vdrv_add(&d->q[0], (struct vdrv_seg[]){{g.buf, 64}}, 0, 1, 0);
			vdrv_kick(&d->q[0]);
		}
	}
	assert_true(total > 100);
	rig_fini(&g.r);
	(void)state;
}

/* A reset while requests wait for the period: they are given up, nothing stays behind. */
static void test_reset_while_waiting(void **state)
{
	struct rng g;
	struct vdrv *d = &g.r.d;

	rng_init(&g, &(struct virtio_rng_config){.max_bytes = 8, .period_ms = 1000}, false);
	vdrv_start(d, UINT64_MAX, 0);
	assert_int_equal(rng_get(&g, 64), 8);
	vdrv_add(&d->q[0], (struct vdrv_seg[]){{g.buf, 64}}, 0, 1, 0);
	vdrv_kick(&d->q[0]);
	fake_vm_settle(g.r.fv);
	vdrv_start(d, UINT64_MAX, 0);
	loop_clock_advance(g.r.fv->vm.loop, 2000 * MS);
	fake_vm_settle(g.r.fv);
	assert_int_equal(vdrv_used_total(&d->q[0]), 0);
	assert_int_equal(rng_get(&g, 64), 8);
	rig_fini(&g.r);
	(void)state;
}

static void test_pause_and_transfer(void **state)
{
	struct rng a, b;
	struct vdrv *d = &a.r.d;
	struct err err = {.msg = ""};
	uint16_t head;
	uint32_t len;

	rng_init(&a, &(struct virtio_rng_config){.max_bytes = 8, .period_ms = 1000}, false);
	rng_init(&b, &(struct virtio_rng_config){0}, false);
	vdrv_start(d, UINT64_MAX, 0);
	assert_int_equal(rng_get(&a, 64), 8);
	vdrv_add(&d->q[0], (struct vdrv_seg[]){{a.buf, 64}}, 0, 1, 0);
	vdrv_kick(&d->q[0]);
	fake_vm_settle(a.r.fv);
	fake_vm_pause(a.r.fv);
	fake_vm_pause(b.r.fv);
	memcpy(mem_region_host(b.r.fv->ram), mem_region_host(a.r.fv->ram),
	       mem_region_size(a.r.fv->ram));
	assert_int_equal(fake_vm_transfer(a.r.fv, b.r.fv, &err), 0);
	vdrv_adopt(&b.r.d, d, b.r.fv, &b.r.root);
	b.buf = a.buf;
	rig_fini(&a.r);
	device_list_resume(&b.r.fv->devices);
	/* the request that waited there is served here */
	assert_true(vdrv_wait(&b.r.d.q[0], &head, &len));
	assert_int_equal(len, 64);
	assert_int_equal(rng_get(&b, 64), 64);
	rig_fini(&b.r);
	(void)state;
}

static void test_bad_requests(void **state)
{
	struct rng g;
	struct vdrv *d = &g.r.d;

	rng_init(&g, &(struct virtio_rng_config){0}, false);
	for (unsigned n_in = 0; n_in < 2; n_in++) {
		struct vdrv_seg seg[2] = {{g.buf, 8}, {g.buf, 8}};

		vdrv_start(d, UINT64_MAX, 0);
		vdrv_add(&d->q[0], seg, 1, n_in, 0);
		vdrv_kick(&d->q[0]);
		fake_vm_settle(g.r.fv);
		assert_true(vdrv_status(d) & VIRTIO_STATUS_DEVICE_NEEDS_RESET);
		assert_int_equal(vdrv_used_total(&d->q[0]), 0);
	}
	vdrv_start(d, UINT64_MAX, 0);
	assert_int_equal(rng_get(&g, 64), 64);
	rig_fini(&g.r);
	(void)state;
}

static void test_bad_source(void **state)
{
	static const struct {
		const char *file;
		int error;
	} bad[] = {
		{"/no/such/file", ENOENT},
		{"/etc/passwd", EINVAL},
		{"/tmp", EINVAL},
	};
	struct fake_vm *fv = fake_vm_new(NULL);
	struct virtio_dev *vd;
	struct err err;

	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		struct virtio_rng_config c = {.filename = bad[i].file};

		assert_int_equal(virtio_rng_new(&fv->vm, &c, "rng7", &vd, &err), -bad[i].error);
		assert_non_null(strstr(err.msg, "rng7"));
		assert_non_null(strstr(err.msg, bad[i].file));
	}
	fake_vm_free(fv);
	(void)state;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_builtin),
		cmocka_unit_test(test_device_file),
		cmocka_unit_test(test_rate),
		cmocka_unit_test(test_reset_while_waiting),
		cmocka_unit_test(test_pause_and_transfer),
		cmocka_unit_test(test_bad_requests),
		cmocka_unit_test(test_bad_source),
	};

	return cmocka_run_group_tests_name("virtio-rng", tests, NULL, NULL);
}
