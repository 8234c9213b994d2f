/*
 * What block.c promises for every node, and the nodes that exist for tests: memory, null,
 * fault.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "blkrig.h"

static void test_memory(void **state)
{
	uint8_t *data, buf[1024];
	struct blk_node *n;
	struct blkrig r;

	assert_int_equal(blk_mem_new("m0", 65536, &n, &data), 0);
	assert_string_equal(blk_name(n), "m0");
	blkrig_node(&r, n);
	memset(buf, 0x5a, sizeof(buf));
	assert_int_equal(blkrig_do(&r, BLK_WRITE, 0, 1000, sizeof(buf), buf), 0);
	assert_memory_equal(data + 1000, buf, sizeof(buf));
	assert_int_equal(data[999] | data[2024], 0);
	memset(buf, 0, sizeof(buf));
	assert_int_equal(blkrig_do(&r, BLK_READ, 0, 1000, sizeof(buf), buf), 0);
	assert_int_equal(buf[0] & buf[1023], 0x5a);
	assert_int_equal(blkrig_do(&r, BLK_WRITE_ZEROES, 0, 1000, 1, NULL), 0);
	assert_int_equal(data[1000], 0);
	assert_int_equal(blkrig_do(&r, BLK_DISCARD, 0, 1001, 1, NULL), 0);
	assert_int_equal(data[1001], 0);
	assert_int_equal(data[1002], 0x5a);
	assert_int_equal(blkrig_do(&r, BLK_READ, 0, 65536, 1, buf), -EINVAL);
	blkrig_close(&r);
	(void)state;
}

static void test_null(void **state)
{
	uint8_t buf[512];
	struct blk_node *n;
	struct blkrig r;

	assert_int_equal(blk_null_new(NULL, 1 << 20, false, &n), 0);
	assert_int_equal(blk_name(n)[0], '#');
	blkrig_node(&r, n);
	memset(buf, 1, sizeof(buf));
	assert_int_equal(blkrig_do(&r, BLK_WRITE, 0, 0, sizeof(buf), buf), 0);
	assert_int_equal(blkrig_do(&r, BLK_READ, 0, 0, sizeof(buf), buf), 0);
	assert_int_equal(buf[0] | buf[511], 0);
	assert_int_equal(blkrig_do(&r, BLK_FLUSH, 0, 0, 0, NULL), 0);
	blkrig_close(&r);
	assert_int_equal(blk_null_new("n", 512, true, &n), 0);
	blkrig_node(&r, n);
	assert_int_equal(blkrig_do(&r, BLK_WRITE, 0, 0, sizeof(buf), buf), -EROFS);
	blkrig_close(&r);
	(void)state;
}

#define SHARE_NO_WRITE (BLK_PERM_ALL & ~BLK_PERM_WRITE)
#define READ_WRITE     (BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE)

static void test_users(void **state)
{
	struct blk_user *a, *b, *c;
	struct blk_node *n;
	struct err err;

	assert_int_equal(blk_null_new("disk0", 512, false, &n), 0);
	assert_int_equal(
		blk_attach(n, "device 'a'", READ_WRITE, SHARE_NO_WRITE, NULL, NULL, &a, &err),
		0);
	assert_int_equal(
		blk_attach(n, "device 'b'", READ_WRITE, BLK_PERM_ALL, NULL, NULL, &b, &err),
		-EBUSY);
	assert_non_null(strstr(err.msg, "disk0"));
	assert_non_null(strstr(err.msg, "device 'a'"));
	/* a reader that suffers writers */
	assert_int_equal(blk_attach(n, "device 'b'", BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL,
				    NULL, NULL, &b, &err),
			 0);
	/* and one that does not */
	assert_int_equal(blk_attach(n, "device 'c'", BLK_PERM_CONSISTENT_READ, SHARE_NO_WRITE,
				    NULL, NULL, &c, &err),
			 -EBUSY);
	/* a shares, then b may write, and a may not take that back */
	assert_int_equal(blk_user_set_perm(b, READ_WRITE, BLK_PERM_ALL, &err), -EBUSY);
	assert_int_equal(blk_user_set_perm(a, READ_WRITE, BLK_PERM_ALL, &err), 0);
	assert_int_equal(blk_user_set_perm(b, READ_WRITE, BLK_PERM_ALL, &err), 0);
	assert_int_equal(blk_user_set_perm(a, READ_WRITE, SHARE_NO_WRITE, &err), -EBUSY);
	blk_detach(a);
	blk_detach(b);
	blk_unref(n);
	assert_int_equal(blk_null_new("disk1", 512, true, &n), 0);
	assert_int_equal(blk_attach(n, "x", READ_WRITE, BLK_PERM_ALL, NULL, NULL, &a, &err),
			 -EROFS);
	assert_non_null(strstr(err.msg, "disk1"));
	blk_unref(n);
	(void)state;
}

static void fault_open(struct blkrig *r, uint8_t **data)
{
	struct blk_node *mem, *fault;

	assert_int_equal(blk_mem_new("m", 65536, &mem, data), 0);
	assert_int_equal(blk_fault_new("f", mem, &fault), 0);
	blkrig_node(r, fault);
}

static void test_fault_rules(void **state)
{
	uint8_t *data, buf[512] = {1};
	struct blkrig r;

	fault_open(&r, &data);
	blk_fault_set(r.node, &(struct blk_fault_rule){
				      .ops = 1 << BLK_WRITE,
				      .off = 4096,
				      .len = 512,
				      .skip = 1,
				      .count = 2,
				      .error = -ENOSPC,
			      });
	assert_int_equal(blkrig_do(&r, BLK_WRITE, 0, 4096, 512, buf), 0);
	assert_int_equal(blkrig_do(&r, BLK_WRITE, 0, 4096 - 256, 512, buf), -ENOSPC);
	assert_int_equal(blkrig_do(&r, BLK_WRITE, 0, 4608, 512, buf), 0);
	assert_int_equal(blkrig_do(&r, BLK_READ, 0, 4096, 512, buf), 0);
	assert_int_equal(blkrig_do(&r, BLK_WRITE, 0, 4096, 512, buf), -ENOSPC);
	assert_int_equal(blkrig_do(&r, BLK_WRITE, 0, 4096, 512, buf), 0);
	blk_fault_set(r.node, &(struct blk_fault_rule){.ops = 1 << BLK_FLUSH, .error = -EIO});
	assert_int_equal(blkrig_do(&r, BLK_FLUSH, 0, 0, 0, NULL), -EIO);
	blk_fault_set(r.node, NULL);
	assert_int_equal(blkrig_do(&r, BLK_FLUSH, 0, 0, 0, NULL), 0);
	assert_int_equal(data[4096], 1);
	blkrig_close(&r);
	(void)state;
}

/* A write that fails may have happened in part. */
static void test_fault_torn(void **state)
{
	uint8_t *data, buf[3][700];
	struct blkreq q;
	struct blkrig r;

	fault_open(&r, &data);
	for (unsigned i = 0; i < 3; i++) {
		memset(buf[i], (int)i + 1, sizeof(buf[i]));
		q.iov[i] = (struct iovec){buf[i], sizeof(buf[i])};
	}
	blk_fault_set(r.node, &(struct blk_fault_rule){
				      .ops = 1 << BLK_WRITE, .error = -EIO, .torn = 1000});
	blkrig_submit_iov(&r, &q, BLK_WRITE, 0, 512, 3);
	assert_int_equal(blkrig_wait(&r, &q), -EIO);
	assert_int_equal(data[511], 0);
	assert_int_equal(data[512], 1);
	assert_int_equal(data[512 + 699], 1);
	assert_int_equal(data[512 + 700], 2);
	assert_int_equal(data[512 + 999], 2);
	assert_int_equal(data[512 + 1000], 0);
	/* of a flush nothing can happen in part */
	blk_fault_set(r.node, &(struct blk_fault_rule){
				      .ops = 1 << BLK_FLUSH, .error = -EIO, .torn = 1});
	assert_int_equal(blkrig_do(&r, BLK_FLUSH, 0, 0, 0, NULL), -EIO);
	blkrig_close(&r);
	(void)state;
}

/* A request that is late has happened, and ends after one that began later. */
static void test_fault_delay(void **state)
{
	const uint64_t delay = UINT64_C(30000000);
	uint8_t *data, buf[512] = {7};
	struct blkreq late, next;
	struct blkrig r;
	uint64_t began;

	fault_open(&r, &data);
	blk_fault_set(r.node, &(struct blk_fault_rule){
				      .ops = 1 << BLK_WRITE, .count = 1, .delay_ns = delay});
	began = loop_now_ns(r.loop);
	blkrig_submit(&r, &late, BLK_WRITE, 0, 0, 512, buf);
	blkrig_submit(&r, &next, BLK_WRITE, 0, 512, 512, buf);
	assert_int_equal(blkrig_wait(&r, &next), 0);
	assert_int_equal(data[0], 7);
	assert_int_equal(blkrig_wait(&r, &late), 0);
	assert_true(loop_now_ns(r.loop) - began >= delay);
	/* with an error it is late, too, and has not happened */
	blk_fault_set(r.node, &(struct blk_fault_rule){
				      .ops = 1 << BLK_WRITE, .error = -EIO, .delay_ns = delay});
	began = loop_now_ns(r.loop);
	assert_int_equal(blkrig_do(&r, BLK_WRITE, 0, 1024, 512, buf), -EIO);
	assert_true(loop_now_ns(r.loop) - began >= delay);
	assert_int_equal(data[1024], 0);
	blkrig_close(&r);
	(void)state;
}

static void test_fault_hold(void **state)
{
	uint8_t *data, buf[3] = {1, 2, 3};
	struct blkreq q[3];
	struct blkrig r;

	fault_open(&r, &data);
	blk_fault_hold(r.node, true);
	for (int i = 0; i < 3; i++) {
		blkrig_submit(&r, &q[i], BLK_WRITE, 0, 100, 1, &buf[i]);
	}
	for (int i = 0; i < 5; i++) {
		loop_step(r.loop, 0);
	}
	assert_int_equal(blk_fault_held(r.node), 3);
	assert_int_equal(blk_chan_inflight(r.chan), 3);
	assert_false(q[0].done || q[1].done || q[2].done);
	blk_fault_hold(r.node, false);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(blkrig_wait(&r, &q[i]), 0);
	}
	assert_int_equal(data[100], 3); /* in order */
	assert_int_equal(blk_fault_held(r.node), 0);
	blkrig_close(&r);
	(void)state;
}

/* A request submitted from inside done(), again and again: rounds of the loop, not recursion.
 */
struct chain {
	struct blk_req req;
	struct blkrig *r;
	unsigned left;
	bool inside;
};

static void chain_done(struct blk_req *req, int result)
{
	struct chain *c = container_of(req, struct chain, req);

	assert_int_equal(result, 0);
	assert_false(c->inside);
	if (c->left-- > 0) {
		c->inside = true;
		blk_submit(c->r->chan, &c->req);
		c->inside = false;
	}
}

static void test_resubmit_inside_done(void **state)
{
	struct blk_node *n;
	struct blkrig r;
	struct chain c = {.r = &r, .left = 5000, .req = {.op = BLK_FLUSH, .done = chain_done}};

	assert_int_equal(blk_null_new(NULL, 512, false, &n), 0);
	blkrig_node(&r, n);
	blk_submit(r.chan, &c.req);
	for (int i = 0; i < 20000 && blk_chan_inflight(r.chan); i++) {
		loop_step(r.loop, 0);
	}
	assert_int_equal(c.left, UINT32_MAX);
	blkrig_close(&r);
	(void)state;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_memory),	   cmocka_unit_test(test_null),
		cmocka_unit_test(test_users),	   cmocka_unit_test(test_fault_rules),
		cmocka_unit_test(test_fault_torn),	  cmocka_unit_test(test_fault_delay),
		cmocka_unit_test(test_fault_hold), cmocka_unit_test(test_resubmit_inside_done),
	};

	return cmocka_run_group_tests_name("block nodes", tests, NULL, NULL);
}
