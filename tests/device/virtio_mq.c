/*
 * Several queues of a device on several loops: virtio-blk and virtio-net.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "block/block_int.h"
#include "device/virtio/blk.h"
#include "device/virtio/net_int.h"
#include "netport.h"
#include "rig.h"
#include "spec/virtio_blk.h"

#define F(bit)	    (UINT64_C(1) << (bit))
#define QUEUES	    4
#define LOOPS	    2
#define PART	    (64 * KiB) /* of the disk, for each queue */
#define NEEDS_RESET VIRTIO_STATUS_DEVICE_NEEDS_RESET

/* --- loops with threads, queue i on loop i % LOOPS --- */

struct loops {
	struct loop *loop[LOOPS];
	struct loop *of_queue[QUEUES];
};

static void loops_init(struct loops *l)
{
	for (unsigned i = 0; i < LOOPS; i++) {
		assert_int_equal(loop_new(&l->loop[i], "io", 0), 0);
		assert_int_equal(loop_thread_start(l->loop[i], NULL, NULL), 0);
	}
	for (unsigned i = 0; i < QUEUES; i++) {
		l->of_queue[i] = l->loop[i % LOOPS];
	}
}

static void loops_fini(struct loops *l)
{
	for (unsigned i = 0; i < LOOPS; i++) {
		loop_thread_join(l->loop[i]);
		loop_free(l->loop[i]);
	}
}

/* --- blk --- */

struct blk_mq {
	struct loops l;
	struct rig r;
	struct blk_node *node;
	uint8_t *disk;
	gpa_t buf[QUEUES]; /* header at 0, status at 64, data at 4096 */
};

static void blk_init(struct blk_mq *b, bool threads)
{
	unsigned chans = 0;
	struct list *pos;
	struct virtio_blk_config c = {.num_queues = QUEUES, .queue_size = 64};
	struct err err = {.msg = ""};
	struct virtio_dev *vd;

	memset(b, 0, sizeof(*b));
	loops_init(&b->l);
	rig_init(&b->r, true, 0);
	assert_int_equal(blk_mem_new("mem", QUEUES * PART, &b->node, &b->disk), 0);
	c.queue_loop = threads ? b->l.of_queue : NULL;
	assert_int_equal(virtio_blk_new(&b->r.fv->vm, b->node, &c, "disk0", &vd, &err), 0);
	/* a channel for each loop, not for each queue */
	list_for_each (pos, &b->node->chans) {
		chans++;
	}
	assert_int_equal(chans, threads ? LOOPS : 1);
	rig_add(&b->r, vd, "disk0");
	for (unsigned i = 0; i < QUEUES; i++) {
		b->buf[i] = vdrv_alloc(&b->r.d, 8192, 4096);
		assert_ptr_equal(vd->queue[i].loop,
				 threads ? b->l.loop[i % LOOPS] : b->r.fv->vm.loop);
	}
}

static void blk_fini(struct blk_mq *b)
{
	rig_fini(&b->r);
	loops_fini(&b->l);
	blk_unref(b->node);
}

static void blk_request(struct blk_mq *b, struct vdrv *d, unsigned queue, uint32_t type,
			uint64_t sector)
{
	gpa_t at = b->buf[queue];
	struct virtio_blk_req_hdr *h = vdrv_ptr(d, at, sizeof(*h));
	bool out = type == VIRTIO_BLK_T_OUT;
	struct vdrv_seg seg[] = {{at, sizeof(*h)}, {at + 4096, 512}, {at + 64, 1}};

	*h = (struct virtio_blk_req_hdr){le32_of(type), le32_of(0), le64_of(sector)};
	*(uint8_t *)vdrv_ptr(d, at + 64, 1) = 0xff;
	assert_true(vdrv_add(&d->q[queue], seg, out ? 2 : 1, out ? 1 : 2, 0) >= 0);
	vdrv_kick(&d->q[queue]);
}

struct vcpu {
	struct blk_mq *b;
	struct vdrv d; /* the same device, through this thread's CPU */
	struct fake_cpu cpu;
	pthread_t thread;
	unsigned queue;
	_Atomic bool done, ok;
};

/* Writes and reads back sectors of its own part through its own queue. */
static void *vcpu_main(void *arg)
{
	struct vcpu *v = arg;
	struct vdrv *d = &v->d;
	uint8_t *data = vdrv_ptr(d, v->b->buf[v->queue] + 4096, 512);
	uint8_t *status = vdrv_ptr(d, v->b->buf[v->queue] + 64, 1);
	bool ok = true;

	for (unsigned i = 0; ok && i < 300; i++) {
		uint64_t sector = v->queue * (PART / 512) + i / 2 % (PART / 512);
		bool write = i % 2 == 0;
		uint16_t head;
		uint32_t len;

		memset(data, write ? (int)(i + v->queue) : 0, 512);
		blk_request(v->b, d, v->queue, write ? VIRTIO_BLK_T_OUT : VIRTIO_BLK_T_IN,
			    sector);
		ok = vdrv_wait(&d->q[v->queue], &head, &len) && *status == VIRTIO_BLK_S_OK &&
		     data[7] == (uint8_t)(i - !write + v->queue);
	}
	atomic_store(&v->ok, ok);
	atomic_store(&v->done, true);
	return NULL;
}

/* A thread for each queue, while the device is stopped and continued again and again. */
static void test_blk_all_at_once(void **state)
{
	struct vcpu *v = calloc(QUEUES, sizeof(*v));
	struct blk_mq b;
	unsigned done = 0;

	blk_init(&b, true);
	vdrv_start(&b.r.d, UINT64_MAX, 0);
	assert_true(b.r.d.features >> VIRTIO_BLK_F_MQ & 1);
	assert_int_equal(
		vdrv_config(&b.r.d, offsetof(struct virtio_blk_config_layout, num_queues), 2),
		QUEUES);
	for (unsigned i = 0; i < QUEUES; i++) {
		v[i].b = &b;
		v[i].queue = i;
		v[i].d = b.r.d;
		for (unsigned k = 0; k < QUEUES; k++) {
			v[i].d.q[k].d = &v[i].d;
		}
		fake_cpu_init(&v[i].cpu, b.r.fv);
		v[i].d.cpu = &v[i].cpu;
		assert_int_equal(pthread_create(&v[i].thread, NULL, vcpu_main, &v[i]), 0);
	}
	while (done < QUEUES) {
		fake_vm_pause(b.r.fv);
		device_list_resume(&b.r.fv->devices);
		loop_step(b.r.fv->vm.loop, 1);
		done = 0;
		for (unsigned i = 0; i < QUEUES; i++) {
			done += atomic_load(&v[i].done);
		}
	}
	for (unsigned i = 0; i < QUEUES; i++) {
		pthread_join(v[i].thread, NULL);
		assert_true(atomic_load(&v[i].ok));
		fake_cpu_fini(&v[i].cpu);
		/* the last write of each part is on the disk */
		assert_int_equal(b.disk[i * PART + 149 % (PART / 512) * 512],
				 (uint8_t)(298 + i));
	}
	blk_fini(&b);
	free(v);
	(void)state;
}

/* One queue is reset while the others go on, then works again with another size. */
static void test_blk_queue_reset(void **state)
{
	struct blk_mq b;
	struct vdrv *d = &b.r.d;
	uint16_t head;
	uint32_t len;

	blk_init(&b, true);
	vdrv_start(d, UINT64_MAX, 0);
	for (unsigned round = 0; round < 8; round++) {
		unsigned q = round % QUEUES;

		blk_request(&b, d, q, VIRTIO_BLK_T_IN, 0);
		assert_true(vdrv_queue_reset(d, q));
		for (unsigned i = 0; i < QUEUES; i++) {
			if (i != q) {
				blk_request(&b, d, i, VIRTIO_BLK_T_IN, i);
				assert_true(vdrv_wait(&d->q[i], &head, &len));
				assert_int_equal(len, 513);
			}
		}
		vdrv_queue_setup(d, q, 8);
		vdrv_queue_enable(d, q);
		blk_request(&b, d, q, VIRTIO_BLK_T_IN, 0);
		assert_true(vdrv_wait(&d->q[q], &head, &len));
	}
	/* one that is malformed breaks them all */
	vdrv_add(&d->q[1], (struct vdrv_seg[]){{b.buf[0], 4}}, 1, 0, 0);
	vdrv_kick(&d->q[1]);
	for (unsigned i = 0; i < 10000 && !(vdrv_status(d) & NEEDS_RESET); i++) {
		vdrv_settle(d);
	}
	assert_true(vdrv_status(d) & NEEDS_RESET);
	vdrv_start(d, UINT64_MAX, 0);
	blk_request(&b, d, 3, VIRTIO_BLK_T_IN, 0);
	assert_true(vdrv_wait(&d->q[3], &head, &len));
	blk_fini(&b);
	(void)state;
}

static void test_blk_one_loop(void **state)
{
	struct virtio_blk_config c = {.num_queues = VIRTIO_MAX_QUEUES + 1};
	struct err err = {.msg = ""};
	struct virtio_dev *vd;
	struct blk_mq b;
	uint16_t head;
	uint32_t len;

	blk_init(&b, false);
	assert_int_equal(virtio_blk_new(&b.r.fv->vm, b.node, &c, "disk1", &vd, &err), -EINVAL);
	assert_non_null(strstr(err.msg, "num-queues=65"));
	vdrv_start(&b.r.d, UINT64_MAX, 0);
	for (unsigned i = 0; i < QUEUES; i++) {
		blk_request(&b, &b.r.d, i, VIRTIO_BLK_T_IN, i);
		assert_true(vdrv_wait(&b.r.d.q[i], &head, &len));
		fake_vm_settle(b.r.fv);
		assert_true(vdrv_irqs(&b.r.d, i + 1) > 0);
	}
	blk_fini(&b);
	(void)state;
}

/* --- net --- */

struct net_mq {
	struct loops l;
	struct rig r;
	struct netport port[QUEUES];
	struct net_port *more[QUEUES - 1];
	struct virtio_net *n;
	gpa_t buf;
};

static struct net_mq *net_new(bool threads)
{
	struct virtio_net_config c = {
		.mac_set = true,
		.mac = {2},
		.csum = true,
		.guest_csum = true,
		.mrg_rxbuf = true,
		.rx_queue_size = 128,
		.tx_queue_size = 32,
		.mq = true,
	};
	struct net_mq *t = calloc(1, sizeof(*t));
	struct err err = {.msg = ""};
	struct virtio_dev *vd;

	loops_init(&t->l);
	rig_init(&t->r, true, 0);
	for (unsigned i = 0; i < QUEUES; i++) {
		netport_init(&t->port[i], NET_OFF_CSUM);
		if (i) {
			t->more[i - 1] = &t->port[i].port;
		}
	}
	t->port[0].port.more = t->more;
	t->port[0].port.nmore = QUEUES - 1;
	c.pair_loop = threads ? t->l.of_queue : NULL;
	assert_int_equal(virtio_net_new(&t->r.fv->vm, &t->port[0].port, &c, "net0", &vd, &err),
			 0);
	t->n = container_of(vd, struct virtio_net, vd);
	rig_add(&t->r, vd, "net0");
	t->buf = vdrv_alloc(&t->r.d, 65536, 4096);
	return t;
}

static void net_free(struct net_mq *t)
{
	rig_fini(&t->r);
	loops_fini(&t->l);
	for (unsigned i = 0; i < QUEUES; i++) {
		netport_fini(&t->port[i]);
	}
	free(t);
}

/* A command on control queue q, with data in pieces as a driver may cut it; the answer. */
static uint8_t command(struct net_mq *t, unsigned q, uint8_t class, uint8_t cmd,
		       const void *data, uint32_t len)
{
	struct vdrv *d = &t->r.d;
	gpa_t at = t->buf + 60000;
	uint8_t *p = vdrv_ptr(d, at, 64);
	struct vdrv_seg seg[] = {{at, 2}, {at + 2, len}, {at + 63, 1}};
	uint16_t head;
	uint32_t got;

	p[0] = class;
	p[1] = cmd;
	memcpy(p + 2, data, len);
	p[63] = 0xff;
	assert_true(vdrv_add(&d->q[q], seg, 2, 1, 0) >= 0);
	vdrv_kick(&d->q[q]);
	assert_true(vdrv_wait(&d->q[q], &head, &got));
	assert_int_equal(got, 1);
	return p[63];
}

static uint8_t pairs(struct net_mq *t, uint16_t n)
{
	return command(t, 2 * QUEUES, VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, &n,
		       2);
}

/* A frame into the port's queue i; whether the driver gets it. */
static bool receives(struct net_mq *t, unsigned i)
{
	struct vdrv_queue *q = &t->r.d.q[2 * i];
	uint8_t frame[60] = {(uint8_t)i};
	uint16_t head;
	uint32_t len;

	if (!q->pending) {
		assert_true(vdrv_add(q, (struct vdrv_seg[]){{t->buf + 2048 * i, 2048}}, 0, 1,
				     0) >= 0);
		vdrv_kick(q);
	}
	netport_put(&t->port[i], NULL, frame, sizeof(frame));
	for (unsigned k = 0; k < 40; k++) {
		if (vdrv_used(q, &head, &len)) {
			assert_int_equal(len, 72);
			assert_int_equal(
				*(uint8_t *)vdrv_ptr(&t->r.d, t->buf + 2048 * i + 12, 1), i);
			return true;
		}
		vdrv_settle(&t->r.d);
	}
	return false;
}

static void drain(struct net_mq *t, unsigned i)
{
	while (netport_waiting(&t->port[i])) {
		pthread_mutex_lock(&t->port[i].lock);
		free(t->port[i].in[t->port[i].in_head++ % NETPORT_FRAMES].data);
		pthread_mutex_unlock(&t->port[i].lock);
	}
}

static void sends(struct net_mq *t, unsigned i)
{
	struct vdrv_queue *q = &t->r.d.q[2 * i + 1];
	uint16_t head;
	uint32_t len;

	netport_forget(&t->port[i]);
	memset(vdrv_ptr(&t->r.d, t->buf + 32768, 100), 0, 100);
	vdrv_add(q, (struct vdrv_seg[]){{t->buf + 32768, 100}}, 1, 0, 0);
	vdrv_kick(q);
	assert_true(vdrv_wait(q, &head, &len));
	assert_int_equal(netport_sent(&t->port[i]), 1);
}

static void test_net_pairs(void **state)
{
	static const uint16_t bad[] = {0, QUEUES + 1, 0x8000, 0xffff};
	struct net_mq *t = net_new(true);
	struct vdrv *d = &t->r.d;
	uint32_t long_one = 2;
	uint64_t offloads = 0;

	vdrv_start(d, UINT64_MAX, 0);
	assert_true(d->features >> VIRTIO_NET_F_MQ & 1);
	assert_int_equal(vdrv_config(d, 8, 2), QUEUES);
	assert_int_equal(d->q[0].size, 128);
	assert_int_equal(d->q[2].size, 128);
	assert_int_equal(d->q[3].size, 32);
	assert_int_equal(d->q[2 * QUEUES].size, 64);
	/* one pair until the driver asks for more */
	assert_true(receives(t, 0));
	assert_false(receives(t, 1));
	drain(t, 1);
	assert_int_equal(pairs(t, 3), VIRTIO_NET_OK);
	for (unsigned i = 0; i < 3; i++) {
		assert_true(receives(t, i));
		sends(t, i);
	}
	assert_false(receives(t, 3));
	drain(t, 3);
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_int_equal(pairs(t, bad[i]), VIRTIO_NET_ERR);
	}
	assert_int_equal(command(t, 2 * QUEUES, VIRTIO_NET_CTRL_MQ, 0, &long_one, 4),
			 VIRTIO_NET_ERR);
	assert_int_equal(command(t, 2 * QUEUES, VIRTIO_NET_CTRL_MQ, 1, &long_one, 2),
			 VIRTIO_NET_ERR);
	assert_int_equal(t->n->active, 3);
	/* every pair hears of the offloads */
	assert_int_equal(command(t, 2 * QUEUES, VIRTIO_NET_CTRL_GUEST_OFFLOADS,
				 VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET, &offloads, 8),
			 VIRTIO_NET_OK);
	for (unsigned i = 0; i < QUEUES; i++) {
		assert_int_equal(t->n->pair[i].offloads, 0);
	}
	assert_int_equal(pairs(t, 2), VIRTIO_NET_OK);
	assert_true(receives(t, 1));
	assert_false(receives(t, 2));
	drain(t, 2);
	assert_int_equal(pairs(t, QUEUES), VIRTIO_NET_OK);
	assert_true(receives(t, 3));
	assert_true(receives(t, 2));
	/* after a reset one again */
	vdrv_start(d, UINT64_MAX, 0);
	assert_true(receives(t, 0));
	assert_false(receives(t, 3));
	net_free(t);
	(void)state;
}

/* A driver without MQ: the control queue is number 2, and those behind it do nothing. */
static void test_net_without_mq(void **state)
{
	struct net_mq *t = net_new(true);
	struct vdrv *d = &t->r.d;
	uint8_t mac[6] = {2, 2, 2, 2, 2, 2};
	uint16_t two = 2;

	for (unsigned round = 0; round < 2; round++) {
		vdrv_start(d, ~F(VIRTIO_NET_F_MQ), 0);
		assert_int_equal(d->q[NET_Q_CTRL].size, 64);
		assert_int_equal(command(t, NET_Q_CTRL, VIRTIO_NET_CTRL_MAC,
					 VIRTIO_NET_CTRL_MAC_ADDR_SET, mac, 6),
				 VIRTIO_NET_OK);
		assert_int_equal(command(t, NET_Q_CTRL, VIRTIO_NET_CTRL_MQ, 0, &two, 2),
				 VIRTIO_NET_ERR);
		assert_true(receives(t, 0));
		sends(t, 0);
		vdrv_add(&d->q[2 * QUEUES], (struct vdrv_seg[]){{t->buf, 100}}, 0, 1, 0);
		vdrv_kick_always(&d->q[2 * QUEUES]);
		vdrv_add(&d->q[3], (struct vdrv_seg[]){{t->buf, 100}}, 1, 0, 0);
		vdrv_kick_always(&d->q[3]);
		assert_true(receives(t, 0));
		assert_int_equal(vdrv_used_total(&d->q[2 * QUEUES]), 0);
		assert_int_equal(vdrv_used_total(&d->q[3]), 0);
		/* and with it, on the same device */
		vdrv_start(d, UINT64_MAX, 0);
		assert_int_equal(pairs(t, 2), VIRTIO_NET_OK);
		assert_true(receives(t, 1));
	}
	net_free(t);
	(void)state;
}

static void test_net_transfer(void **state)
{
	struct net_mq *a = net_new(true), *b = net_new(false);
	struct err err = {.msg = ""};

	vdrv_start(&a->r.d, UINT64_MAX, 0);
	assert_int_equal(pairs(a, 3), VIRTIO_NET_OK);
	assert_true(receives(a, 2));
	fake_vm_pause(a->r.fv);
	fake_vm_pause(b->r.fv);
	memcpy(mem_region_host(b->r.fv->ram), mem_region_host(a->r.fv->ram),
	       mem_region_size(a->r.fv->ram));
	if (fake_vm_transfer(a->r.fv, b->r.fv, &err)) {
		fail_msg("%s", err.msg);
	}
	vdrv_adopt(&b->r.d, &a->r.d, b->r.fv, &b->r.root);
	b->buf = a->buf;
	net_free(a);
	device_list_resume(&b->r.fv->devices);
	assert_int_equal(b->n->active, 3);
	assert_true(receives(b, 2));
	assert_true(receives(b, 1));
	assert_false(receives(b, 3));
	drain(b, 3);
	assert_int_equal(pairs(b, 4), VIRTIO_NET_OK);
	assert_true(receives(b, 3));
	net_free(b);
	(void)state;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_blk_all_at_once), cmocka_unit_test(test_blk_queue_reset),
		cmocka_unit_test(test_blk_one_loop),	cmocka_unit_test(test_net_pairs),
		cmocka_unit_test(test_net_without_mq),	cmocka_unit_test(test_net_transfer),
	};

	return cmocka_run_group_tests_name("virtio, several queues", tests, NULL, NULL);
}
