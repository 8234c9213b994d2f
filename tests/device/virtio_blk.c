/*
 * virtio-blk through real rings: what it offers, every request type, every answer, whatever
 * shape the descriptors have. virtio_blk_life.c has resets, state and threads.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "blk_rig.h"

static void test_config(void **state)
{
	struct blk_rig b;
	struct vdrv *d = &b.r.d;

	blk_rig_init(&b, NULL);
	assert_int_equal(pci_cfg_read(&b.r.root, 0, d->devfn, 2, 2), 0x1042);
	assert_int_equal(pci_cfg_read(&b.r.root, 0, d->devfn, 8, 4) >> 8, 0x010000);
	assert_int_equal(vdrv_offered(d) & 0xffffff,
			 F(VIRTIO_BLK_F_SEG_MAX) | F(VIRTIO_BLK_F_BLK_SIZE) |
				 F(VIRTIO_BLK_F_TOPOLOGY) | F(VIRTIO_BLK_F_FLUSH) |
				 F(VIRTIO_BLK_F_CONFIG_WCE) | F(VIRTIO_BLK_F_DISCARD) |
				 F(VIRTIO_BLK_F_WRITE_ZEROES));
	assert_int_equal(CONFIG(d, capacity), BLK_RIG_SIZE / 512);
	assert_int_equal(CONFIG(d, seg_max), 254);
	assert_int_equal(CONFIG(d, blk_size), 512);
	assert_int_equal(CONFIG(d, writeback), 1);
	assert_int_equal(CONFIG(d, num_queues), 1);
	assert_int_equal(CONFIG(d, max_discard_seg), 1);
	assert_true(CONFIG(d, max_discard_sectors) > 0);
	assert_int_equal(CONFIG(d, discard_sector_alignment), 1);
	assert_int_equal(CONFIG(d, max_write_zeroes_seg), 1);
	assert_true(CONFIG(d, max_write_zeroes_sectors) > 0);
	assert_int_equal(CONFIG(d, write_zeroes_may_unmap), 1);
	/* read-only but for writeback, and that only when it was negotiated */
	vdrv_config_set(d, 0, 4, 1);
	vdrv_config_set(d, offsetof(struct virtio_blk_config_layout, writeback), 1, 0);
	assert_int_equal(CONFIG(d, capacity), BLK_RIG_SIZE / 512);
	assert_int_equal(CONFIG(d, writeback), 1);
	blk_rig_fini(&b);
	(void)state;
}

static void test_read_only(void **state)
{
	struct blk_rig b;
	struct vdrv *d = &b.r.d;

	blk_rig_init(&b, &(struct virtio_blk_config){.read_only = true, .queue_size = 16});
	assert_int_equal(vdrv_offered(d) & 0xffffff,
			 F(VIRTIO_BLK_F_SEG_MAX) | F(VIRTIO_BLK_F_BLK_SIZE) |
				 F(VIRTIO_BLK_F_TOPOLOGY) | F(VIRTIO_BLK_F_RO));
	assert_int_equal(CONFIG(d, seg_max), 14);
	vdrv_start(d, UINT64_MAX, 0);
	assert_int_equal(blk_rig_do(&b, VIRTIO_BLK_T_IN, 0, 512), VIRTIO_BLK_S_OK);
	assert_int_equal(blk_rig_do(&b, VIRTIO_BLK_T_OUT, 0, 512), VIRTIO_BLK_S_IOERR);
	assert_int_equal(blk_rig_erase(&b, VIRTIO_BLK_T_DISCARD, 0, 1, 0), VIRTIO_BLK_S_UNSUPP);
	assert_int_equal(blk_rig_erase(&b, VIRTIO_BLK_T_WRITE_ZEROES, 0, 1, 0),
			 VIRTIO_BLK_S_UNSUPP);
	assert_int_equal(b.spy.requests, 1);
	blk_rig_fini(&b);
	(void)state;
}

static void test_read_write(void **state)
{
	struct blk_rig b;
	uint8_t *p;

	blk_rig_init(&b, NULL);
	vdrv_start(&b.r.d, UINT64_MAX, 0);
	p = vdrv_ptr(&b.r.d, b.data, BLK_RIG_DATA);
	for (unsigned i = 1; i <= BLK_RIG_DATA / 512; i *= 2) {
		memset(p, (int)i, i * 512);
		assert_int_equal(blk_rig_do(&b, VIRTIO_BLK_T_OUT, i, i * 512), VIRTIO_BLK_S_OK);
		assert_memory_equal(b.disk + i * 512, p, i * 512);
		memset(p, 0xee, i * 512);
		assert_int_equal(blk_rig_do(&b, VIRTIO_BLK_T_IN, i, i * 512), VIRTIO_BLK_S_OK);
		assert_int_equal(b.used_len, i * 512 + 1);
		assert_memory_equal(b.disk + i * 512, p, i * 512);
	}
	/* the last sector, and no data at all */
	assert_int_equal(blk_rig_do(&b, VIRTIO_BLK_T_OUT, BLK_RIG_SIZE / 512 - 1, 512),
			 VIRTIO_BLK_S_OK);
	assert_int_equal(blk_rig_do(&b, VIRTIO_BLK_T_IN, 3, 0), VIRTIO_BLK_S_OK);
	blk_rig_fini(&b);
	(void)state;
}

/* The same request in every layout that the specification allows (2.7.4.2: no assumption about
 * where descriptors end). */
static void test_layouts(void **state)
{
	static const struct {
		unsigned out[8], in[8]; /* lengths; a header is 16, a status 1 */
	} reads[] =
		{
			{{16}, {1024, 1}},
			{{16}, {1025}},
			{{8, 8}, {512, 512, 1}},
			{{1, 14, 1}, {1, 1022, 1, 1}},
			{{4, 4, 8}, {1, 1, 1, 1021, 1}},
		},
	  writes[] = {
		  {{16, 1024}, {1}},	{{1040}, {1}},		 {{8, 8, 512, 512}, {1}},
		  {{1, 16, 1023}, {1}}, {{15, 2, 1, 1022}, {1}}, {{3, 5, 1032}, {1}},
	  };

	for (unsigned flags = 0; flags <= VDRV_INDIRECT; flags++) {
		struct blk_rig b;

		blk_rig_init(&b, NULL);
		vdrv_start(&b.r.d, UINT64_MAX, 0);
		for (unsigned i = 0; i < 1024; i++) {
			b.disk[2048 + i] = (uint8_t)(i * 7);
		}
		for (unsigned i = 0; i < ARRAY_SIZE(reads); i++) {
			uint8_t in[1025];

			assert_int_equal(blk_rig_raw(&b, VIRTIO_BLK_T_IN, 4, reads[i].out,
						     reads[i].in, NULL, in, flags),
					 VIRTIO_BLK_S_OK);
			assert_memory_equal(in, b.disk + 2048, 1024);
			assert_int_equal(b.used_len, 1025);
		}
		for (unsigned i = 0; i < ARRAY_SIZE(writes); i++) {
			uint8_t out[1024], in[1];

			memset(out, (int)i + 1, sizeof(out));
			out[0] = 0xaa;
			out[1023] = 0xbb;
			assert_int_equal(blk_rig_raw(&b, VIRTIO_BLK_T_OUT, 8, writes[i].out,
						     writes[i].in, out, in, flags),
					 VIRTIO_BLK_S_OK);
			assert_memory_equal(out, b.disk + 4096, 1024);
			assert_int_equal(b.used_len, 1);
		}
		blk_rig_fini(&b);
	}
	(void)state;
}

static void test_flush_and_cache(void **state)
{
	struct blk_rig b;
	struct vdrv *d = &b.r.d;
	const unsigned wb = offsetof(struct virtio_blk_config_layout, writeback);

	blk_rig_init(&b, NULL);
	vdrv_start(d, UINT64_MAX, 0);
	assert_int_equal(blk_rig_do(&b, VIRTIO_BLK_T_OUT, 0, 512), VIRTIO_BLK_S_OK);
	assert_int_equal(b.spy.flags, 0);
	assert_int_equal(blk_rig_do(&b, VIRTIO_BLK_T_FLUSH, 0, 0), VIRTIO_BLK_S_OK);
	assert_int_equal(b.spy.op, BLK_FLUSH);
	/* cache off: every write is durable */
	vdrv_config_set(d, wb, 1, 0);
	assert_int_equal(CONFIG(d, writeback), 0);
	assert_int_equal(blk_rig_do(&b, VIRTIO_BLK_T_OUT, 0, 512), VIRTIO_BLK_S_OK);
	assert_int_equal(b.spy.flags, BLK_FUA);
	assert_int_equal(blk_rig_erase(&b, VIRTIO_BLK_T_WRITE_ZEROES, 0, 1, 1),
			 VIRTIO_BLK_S_OK);
	assert_int_equal(b.spy.flags, BLK_FUA | BLK_MAY_UNMAP);
	vdrv_config_set(d, wb, 1, 1);
	assert_int_equal(blk_rig_do(&b, VIRTIO_BLK_T_OUT, 0, 512), VIRTIO_BLK_S_OK);
	assert_int_equal(b.spy.flags, 0);
	/* a driver that does not know FLUSH gets write-through; reset restores the default */
	vdrv_config_set(d, wb, 1, 0);
	vdrv_start(d, 0, 0);
	assert_int_equal(CONFIG(d, writeback), 1);
	assert_int_equal(blk_rig_do(&b, VIRTIO_BLK_T_OUT, 0, 512), VIRTIO_BLK_S_OK);
	assert_int_equal(b.spy.flags, BLK_FUA);
	blk_rig_fini(&b);
	(void)state;
}

static void test_get_id(void **state)
{
	struct blk_rig b;
	uint8_t *p;

	blk_rig_init(&b, &(struct virtio_blk_config){.serial = "disk-serial"});
	vdrv_start(&b.r.d, UINT64_MAX, 0);
	p = vdrv_ptr(&b.r.d, b.data, 64);
	memset(p, 0xee, 64);
	assert_int_equal(blk_rig_do(&b, VIRTIO_BLK_T_GET_ID, 0, 20), VIRTIO_BLK_S_OK);
	assert_memory_equal(p, "disk-serial\0\0\0\0\0\0\0\0\0", 20);
	assert_int_equal(p[20], 0xee);
	assert_int_equal(b.used_len, 21);
	/* shorter and longer buffers */
	memset(p, 0xee, 64);
	assert_int_equal(blk_rig_do(&b, VIRTIO_BLK_T_GET_ID, 0, 4), VIRTIO_BLK_S_OK);
	assert_memory_equal(p, "disk\xee", 5);
	assert_int_equal(blk_rig_do(&b, VIRTIO_BLK_T_GET_ID, 0, 64), VIRTIO_BLK_S_OK);
	assert_int_equal(p[20], 0xee);
	assert_int_equal(blk_rig_do(&b, VIRTIO_BLK_T_GET_ID, 0, 0), VIRTIO_BLK_S_OK);
	assert_int_equal(b.spy.requests, 0);
	blk_rig_fini(&b);
	(void)state;
}

static void test_discard_and_zeroes(void **state)
{
	const uint64_t sectors = BLK_RIG_SIZE / 512;
	struct blk_rig b;
	struct vdrv *d = &b.r.d;
	uint32_t max;

	blk_rig_init(&b, NULL);
	vdrv_start(d, UINT64_MAX, 0);
	memset(b.disk, 0x77, BLK_RIG_SIZE);
	assert_int_equal(blk_rig_erase(&b, VIRTIO_BLK_T_DISCARD, 8, 16, 0), VIRTIO_BLK_S_OK);
	assert_int_equal(b.spy.op, BLK_DISCARD);
	assert_int_equal(b.disk[8 * 512] | b.disk[24 * 512 - 1], 0);
	assert_int_equal(b.disk[8 * 512 - 1] & b.disk[24 * 512], 0x77);
	assert_int_equal(blk_rig_erase(&b, VIRTIO_BLK_T_WRITE_ZEROES, 100, 1, 0),
			 VIRTIO_BLK_S_OK);
	assert_int_equal(b.spy.op, BLK_WRITE_ZEROES);
	assert_int_equal(b.spy.flags, 0);
	assert_int_equal(b.disk[51200] | b.disk[51711], 0);
	assert_int_equal(blk_rig_erase(&b, VIRTIO_BLK_T_WRITE_ZEROES, 101, 1, 1),
			 VIRTIO_BLK_S_OK);
	assert_int_equal(b.spy.flags, BLK_MAY_UNMAP);
	/* flags that do not exist */
	assert_int_equal(blk_rig_erase(&b, VIRTIO_BLK_T_WRITE_ZEROES, 0, 1, 2),
			 VIRTIO_BLK_S_UNSUPP);
	assert_int_equal(blk_rig_erase(&b, VIRTIO_BLK_T_DISCARD, 0, 1, 1), VIRTIO_BLK_S_UNSUPP);
	assert_int_equal(blk_rig_erase(&b, VIRTIO_BLK_T_DISCARD, 0, 1, 0x80000000),
			 VIRTIO_BLK_S_UNSUPP);
	/* ranges outside the disk or beyond the limits */
	max = (uint32_t)CONFIG(d, max_write_zeroes_sectors);
	assert_int_equal(blk_rig_erase(&b, VIRTIO_BLK_T_WRITE_ZEROES, 0, max + 1, 0),
			 VIRTIO_BLK_S_IOERR);
	assert_int_equal(blk_rig_erase(&b, VIRTIO_BLK_T_DISCARD, sectors, 1, 0),
			 VIRTIO_BLK_S_IOERR);
	assert_int_equal(blk_rig_erase(&b, VIRTIO_BLK_T_DISCARD, sectors - 1, 2, 0),
			 VIRTIO_BLK_S_IOERR);
	assert_int_equal(blk_rig_erase(&b, VIRTIO_BLK_T_DISCARD, UINT64_MAX, 2, 0),
			 VIRTIO_BLK_S_IOERR);
	assert_int_equal(blk_rig_erase(&b, VIRTIO_BLK_T_DISCARD, 1, UINT32_MAX, 0),
			 VIRTIO_BLK_S_IOERR);
	/* no segment, half a segment, two segments */
	assert_int_equal(blk_rig_do(&b, VIRTIO_BLK_T_DISCARD, 0, 0), VIRTIO_BLK_S_IOERR);
	assert_int_equal(blk_rig_do(&b, VIRTIO_BLK_T_DISCARD, 0, 8), VIRTIO_BLK_S_IOERR);
	assert_int_equal(blk_rig_do(&b, VIRTIO_BLK_T_WRITE_ZEROES, 0, 32), VIRTIO_BLK_S_IOERR);
	/* not negotiated */
	vdrv_start(d, 0, 0);
	assert_int_equal(blk_rig_erase(&b, VIRTIO_BLK_T_DISCARD, 8, 16, 0),
			 VIRTIO_BLK_S_UNSUPP);
	blk_rig_fini(&b);
	(void)state;
}

static void test_bad_requests(void **state)
{
	const uint64_t sectors = BLK_RIG_SIZE / 512;
	static const uint32_t types[] = {2, 3, 5, 9, 10, 12, 14, 0x80000000, UINT32_MAX};
	struct blk_rig b;

	blk_rig_init(&b, NULL);
	vdrv_start(&b.r.d, UINT64_MAX, 0);
	for (unsigned i = 0; i < ARRAY_SIZE(types); i++) {
		assert_int_equal(blk_rig_do(&b, types[i], 0, 512), VIRTIO_BLK_S_UNSUPP);
	}
	for (unsigned t = VIRTIO_BLK_T_IN; t <= VIRTIO_BLK_T_OUT; t++) {
		assert_int_equal(blk_rig_do(&b, t, sectors, 512), VIRTIO_BLK_S_IOERR);
		assert_int_equal(blk_rig_do(&b, t, sectors - 1, 1024), VIRTIO_BLK_S_IOERR);
		assert_int_equal(blk_rig_do(&b, t, UINT64_MAX, 512), VIRTIO_BLK_S_IOERR);
		assert_int_equal(blk_rig_do(&b, t, UINT64_MAX / 512, 512), VIRTIO_BLK_S_IOERR);
		assert_int_equal(blk_rig_do(&b, t, UINT64_MAX / 512 + 1, 512),
				 VIRTIO_BLK_S_IOERR);
		assert_int_equal(blk_rig_do(&b, t, 0, 511), VIRTIO_BLK_S_IOERR);
		assert_int_equal(blk_rig_do(&b, t, 0, 513), VIRTIO_BLK_S_IOERR);
	}
	assert_int_equal(b.spy.requests, 0);
	assert_int_equal(vdrv_status(&b.r.d), 0xf);
	assert_int_equal(blk_rig_do(&b, VIRTIO_BLK_T_IN, 0, 512), VIRTIO_BLK_S_OK);
	blk_rig_fini(&b);
	(void)state;
}

/* Chains that are no requests break the device; those in flight are finished. */
static void test_broken_chains(void **state)
{
	static const struct {
		unsigned n_out, n_in;
		uint32_t len[2];
	} chains[] = {
		{1, 0, {16}},
		{0, 1, {512}},
		{1, 1, {15, 1}},
		{2, 0, {16, 512}},
	};
	struct blk_rig b;
	struct vdrv *d = &b.r.d;
	uint16_t head;
	uint32_t len;

	blk_rig_init(&b, NULL);
	for (unsigned i = 0; i < ARRAY_SIZE(chains); i++) {
		struct vdrv_seg seg[2] = {{b.data, chains[i].len[0]},
					  {b.data, chains[i].len[1]}};

		vdrv_start(d, UINT64_MAX, 0);
		blk_rig_hold(&b, true);
		blk_rig_add(&b, 0, VIRTIO_BLK_T_IN, 0, 512);
		vdrv_add(&d->q[0], seg, chains[i].n_out, chains[i].n_in, 0);
		blk_rig_add(&b, 1, VIRTIO_BLK_T_IN, 0, 512);
		vdrv_kick(&d->q[0]);
		fake_vm_settle(b.r.fv);
		assert_true(vdrv_status(d) & VIRTIO_STATUS_DEVICE_NEEDS_RESET);
		assert_int_equal(b.spy.requests, 1);
		b.spy.requests = 0;
		blk_rig_hold(&b, false);
		assert_true(vdrv_wait(&d->q[0], &head, &len));
		assert_int_equal(len, 513);
		fake_vm_settle(b.r.fv);
		assert_false(vdrv_used(&d->q[0], &head, &len));
	}
	vdrv_start(d, UINT64_MAX, 0);
	assert_int_equal(blk_rig_do(&b, VIRTIO_BLK_T_IN, 0, 512), VIRTIO_BLK_S_OK);
	blk_rig_fini(&b);
	(void)state;
}

static void test_host_errors(void **state)
{
	struct blk_rig b;

	blk_rig_init(&b, NULL);
	vdrv_start(&b.r.d, UINT64_MAX, 0);
	blk_fault_set(b.fault, &(struct blk_fault_rule){
				       .ops = 0x1f,
				       .error = -ENOSPC,
			       });
	assert_int_equal(blk_rig_do(&b, VIRTIO_BLK_T_IN, 0, 512), VIRTIO_BLK_S_IOERR);
	assert_int_equal(b.used_len, 0);
	assert_int_equal(blk_rig_do(&b, VIRTIO_BLK_T_OUT, 0, 512), VIRTIO_BLK_S_IOERR);
	assert_int_equal(blk_rig_do(&b, VIRTIO_BLK_T_FLUSH, 0, 0), VIRTIO_BLK_S_IOERR);
	assert_int_equal(blk_rig_erase(&b, VIRTIO_BLK_T_DISCARD, 0, 1, 0), VIRTIO_BLK_S_IOERR);
	assert_int_equal(blk_rig_erase(&b, VIRTIO_BLK_T_WRITE_ZEROES, 0, 1, 0),
			 VIRTIO_BLK_S_IOERR);
	blk_fault_set(b.fault, NULL);
	assert_int_equal(blk_rig_do(&b, VIRTIO_BLK_T_IN, 0, 512), VIRTIO_BLK_S_OK);
	blk_rig_fini(&b);
	(void)state;
}

/* A full ring in one kick: all of it in flight, one interrupt for all of it. */
static void test_batch(void **state)
{
	struct blk_rig b;
	struct vdrv *d = &b.r.d;
	uint64_t irqs;
	uint16_t head;
	uint32_t len;
	unsigned n = 0;

	blk_rig_init(&b, NULL);
	vdrv_start(d, UINT64_MAX, 0);
	irqs = vdrv_irqs(d, 1);
	blk_rig_hold(&b, true);
	while (blk_rig_add_indirect(&b, n % BLK_RIG_SLOTS, VIRTIO_BLK_T_IN, n, 512) >= 0) {
		n++;
	}
	assert_int_equal(n, 256);
	vdrv_kick(&d->q[0]);
	fake_vm_settle(b.r.fv);
	assert_int_equal(blk_fault_held(b.fault), n);
	blk_rig_hold(&b, false);
	for (unsigned i = 0; i < n; i++) {
		assert_true(vdrv_wait(&d->q[0], &head, &len));
		assert_int_equal(len, 513);
	}
	fake_vm_settle(b.r.fv);
	assert_int_equal(vdrv_irqs(d, 1), irqs + 1);
	/* kicks are heard again */
	assert_int_equal(blk_rig_do(&b, VIRTIO_BLK_T_IN, 0, 512), VIRTIO_BLK_S_OK);
	blk_rig_fini(&b);
	(void)state;
}

/* One descriptor made available more often than it can be, while all requests are in flight. */
static void test_same_head_again(void **state)
{
	struct blk_rig b;
	struct vdrv *d = &b.r.d;
	int head;

	blk_rig_init(&b, &(struct virtio_blk_config){.queue_size = 4});
	vdrv_start(d, UINT64_MAX, 0);
	blk_rig_hold(&b, true);
	head = blk_rig_add_indirect(&b, 0, VIRTIO_BLK_T_IN, 0, 512);
	for (int i = 0; i < 8; i++) {
		vdrv_avail_put(&d->q[0], (uint16_t)head);
		vdrv_kick_always(&d->q[0]);
		fake_vm_settle(b.r.fv);
	}
	assert_true(vdrv_status(d) & VIRTIO_STATUS_DEVICE_NEEDS_RESET);
	blk_rig_hold(&b, false);
	vdrv_start(d, UINT64_MAX, 0);
	assert_int_equal(blk_rig_do(&b, VIRTIO_BLK_T_IN, 0, 512), VIRTIO_BLK_S_OK);
	blk_rig_fini(&b);
	(void)state;
}

static void test_bad_options(void **state)
{
	static const uint16_t sizes[] = {1, 2, 3, 6, 100, 2048, 65535};
	struct blk_rig b;
	struct virtio_dev *vd;
	struct blk_node *ro;
	struct err err;

	blk_rig_init(&b, NULL);
	assert_int_equal(
		virtio_blk_new(&b.r.fv->vm, b.fault,
			       &(struct virtio_blk_config){.serial = "123456789012345678901"},
			       "d", &vd, &err),
		-EINVAL);
	assert_non_null(strstr(err.msg, "123456789012345678901"));
	for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
		assert_int_equal(
			virtio_blk_new(&b.r.fv->vm, b.fault,
				       &(struct virtio_blk_config){.queue_size = sizes[i]}, "d",
				       &vd, &err),
			-EINVAL);
		assert_non_null(strstr(err.msg, "queue-size"));
	}
	/* the disk has a writer */
	assert_int_equal(virtio_blk_new(&b.r.fv->vm, b.fault, &(struct virtio_blk_config){0},
					"d", &vd, &err),
			 -EBUSY);
	assert_non_null(strstr(err.msg, "d: "));
	/* a read-only disk makes a read-only device by itself */
	assert_int_equal(blk_null_new("ro", 512, true, &ro), 0);
	assert_int_equal(
		virtio_blk_new(&b.r.fv->vm, ro, &(struct virtio_blk_config){0}, "d", &vd, &err),
		0);
	assert_true(vd->offered & F(VIRTIO_BLK_F_RO));
	vd->ops->destroy(vd);
	blk_unref(ro);
	blk_rig_fini(&b);
	(void)state;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_config),
		cmocka_unit_test(test_read_only),
		cmocka_unit_test(test_read_write),
		cmocka_unit_test(test_layouts),
		cmocka_unit_test(test_flush_and_cache),
		cmocka_unit_test(test_get_id),
		cmocka_unit_test(test_discard_and_zeroes),
		cmocka_unit_test(test_bad_requests),
		cmocka_unit_test(test_broken_chains),
		cmocka_unit_test(test_host_errors),
		cmocka_unit_test(test_batch),
		cmocka_unit_test(test_same_head_again),
		cmocka_unit_test(test_bad_options),
	};

	return cmocka_run_group_tests_name("virtio-blk", tests, NULL, NULL);
}
