/*
 * virtio-console through the PCI transport, with real character back ends (unix sockets): the
 * control protocol as drivers speak it, data both ways, peers that never read, drivers that
 * flood, malformed chains, stops in mid-operation, state.
 */
#include <errno.h>
#include <malloc.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/log.h"
#include "device/virtio/console.h"
#include "rig.h"
#include "spec/virtio_console.h"

#define F(bit) (UINT64_C(1) << (bit))
#define ALL                                                                                    \
	(F(VIRTIO_F_INDIRECT_DESC) | F(VIRTIO_F_EVENT_IDX) | F(VIRTIO_F_RING_RESET) |          \
	 F(VIRTIO_CONSOLE_F_MULTIPORT))
#define CRX	    VIRTIO_CONSOLE_Q_CTRL_RX
#define CTX	    VIRTIO_CONSOLE_Q_CTRL_TX
#define NEEDS_RESET VIRTIO_STATUS_DEVICE_NEEDS_RESET
#define PORTS	    3
#define BUF	    256u

struct con_rig {
	struct rig r;
	struct virtio_dev *vd;
	struct chr *chr[PORTS];
	char path[PORTS][64];
	int peer[PORTS];
	unsigned max_ports;
	struct {
		int head;
		gpa_t gpa;
	} crx[64];
};

static unsigned rxq(unsigned port)
{
	return port ? 2 * port + 2 : 0;
}

static unsigned txq(unsigned port)
{
	return rxq(port) + 1;
}

static void settle(struct con_rig *t)
{
	for (int i = 0; i < 10; i++) {
		fake_vm_settle(t->r.fv);
	}
}

static void peer_open(struct con_rig *t, unsigned i)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};

	strcpy(sa.sun_path, t->path[i]);
	t->peer[i] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	assert_true(t->peer[i] >= 0);
	assert_int_equal(connect(t->peer[i], (struct sockaddr *)&sa, sizeof(sa)), 0);
	settle(t);
}

static void peer_close(struct con_rig *t, unsigned i)
{
	close(t->peer[i]);
	t->peer[i] = -1;
	settle(t);
}

/* Port 0 a console, port 1 named "org.example.1", port 2 without a name; peers at all. */
static struct con_rig *rig_new(unsigned max_ports, unsigned ports)
{
	struct con_rig *t = calloc(1, sizeof(*t));
	struct err err = {.msg = ""};
	struct virtio_serial_config c = {.max_ports = max_ports};

	assert_non_null(t);
	t->max_ports = max_ports;
	rig_init(&t->r, false, 0);
	assert_int_equal(virtio_serial_new(&t->r.fv->vm, &c, "ser0", &t->vd, &err), 0);
	for (unsigned i = 0; i < PORTS; i++) {
		t->peer[i] = -1;
	}
	for (unsigned i = 0; i < ports; i++) {
		struct virtio_port_config pc = {
			.console = i == 0,
			.nr = UINT32_MAX,
			.name = i == 1 ? "org.example.1" : NULL,
		};
		struct opts o;
		char text[160];

		snprintf(t->path[i], sizeof(t->path[i]), "/tmp/nemu-con-%d-%p-%u",
			 (int)getpid(), (void *)t, i);
		snprintf(text, sizeof(text), "socket,id=c%u,path=%s,server=on,wait=off", i,
			 t->path[i]);
		assert_int_equal(opts_parse(&o, "-chardev", text, "backend", &err), 0);
		assert_int_equal(chr_open(t->r.fv->vm.loop, &o, &t->chr[i], &err), 0);
		opts_fini(&o);
		pc.chr = t->chr[i];
		assert_int_equal(virtio_serial_add_port(t->vd, &pc, &err), 0);
		/* taken now */
		if (i + 1 < max_ports) {
			assert_int_equal(virtio_serial_add_port(t->vd, &pc, &err), -EBUSY);
		}
	}
	rig_add(&t->r, t->vd, "ser0");
	for (unsigned i = 0; i < ports; i++) {
		peer_open(t, i);
	}
	return t;
}

static void rig_free(struct con_rig *t)
{
	struct device_list *l = &t->r.fv->devices;
	struct list *pos;
	bool paused = false;

	list_for_each (pos, &l->devices) {
		paused |= list_entry(pos, struct device, node)->paused;
	}
	if (!paused) {
		fake_vm_pause(t->r.fv);
	}
	device_list_destroy(l); /* before what it uses */
	for (unsigned i = 0; i < PORTS; i++) {
		if (t->peer[i] >= 0) {
			close(t->peer[i]);
		}
		if (t->chr[i]) {
			unlink(chr_socket_path(t->chr[i]));
			chr_close(t->chr[i]);
		}
	}
	rig_fini(&t->r);
	free(t);
}

/* --- the driver's side of the control queues --- */

static void crx_add(struct con_rig *t, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		gpa_t gpa = vdrv_alloc(&t->r.d, BUF, 8);
		int head = vdrv_add(&t->r.d.q[CRX], (struct vdrv_seg[]){{gpa, BUF}}, 0, 1, 0);

		assert_true(head >= 0 && head < 64);
		t->crx[head].gpa = gpa;
	}
	vdrv_kick(&t->r.d.q[CRX]);
}

static void ctl_send(struct con_rig *t, uint32_t id, uint16_t event, uint16_t value)
{
	struct virtio_console_control m = {le32_of(id), le16_of(event), le16_of(value)};
	gpa_t gpa = vdrv_alloc(&t->r.d, sizeof(m), 8);
	uint16_t head;
	uint32_t len;

	memcpy(vdrv_ptr(&t->r.d, gpa, sizeof(m)), &m, sizeof(m));
	vdrv_add(&t->r.d.q[CTX], (struct vdrv_seg[]){{gpa, sizeof(m)}}, 1, 0, 0);
	vdrv_kick(&t->r.d.q[CTX]);
	assert_true(vdrv_wait(&t->r.d.q[CTX], &head, &len));
	assert_int_equal(len, 0);
}

static void ctl_expect(struct con_rig *t, uint32_t id, uint16_t event, uint16_t value,
		       const char *text)
{
	struct virtio_console_control m;
	uint16_t head;
	uint32_t len;
	const char *p;

	assert_true(vdrv_wait(&t->r.d.q[CRX], &head, &len));
	assert_int_equal(len, sizeof(m) + (text ? strlen(text) : 0));
	p = vdrv_ptr(&t->r.d, t->crx[head].gpa, len);
	memcpy(&m, p, sizeof(m));
	assert_int_equal(le32_get(m.id), id);
	assert_int_equal(le16_get(m.event), event);
	assert_int_equal(le16_get(m.value), value);
	if (text) {
		assert_memory_equal(p + sizeof(m), text, strlen(text));
	}
}

static void ctl_none(struct con_rig *t)
{
	uint16_t head;
	uint32_t len;

	settle(t);
	assert_false(vdrv_used(&t->r.d.q[CRX], &head, &len));
}

/* What Linux does until all ports are open. */
static void driver_up(struct con_rig *t, unsigned ports)
{
	vdrv_start(&t->r.d, ALL, 0);
	crx_add(t, 32);
	ctl_send(t, 0, VIRTIO_CONSOLE_DEVICE_READY, 1);
	for (unsigned i = 0; i < ports; i++) {
		ctl_expect(t, i, VIRTIO_CONSOLE_DEVICE_ADD, 1, NULL);
	}
	for (unsigned i = 0; i < ports; i++) {
		ctl_send(t, i, VIRTIO_CONSOLE_PORT_READY, 1);
		if (i == 0) {
			ctl_expect(t, i, VIRTIO_CONSOLE_CONSOLE_PORT, 1, NULL);
		}
		if (i == 1) {
			ctl_expect(t, i, VIRTIO_CONSOLE_PORT_NAME, 1, "org.example.1");
		}
		ctl_expect(t, i, VIRTIO_CONSOLE_PORT_OPEN, 1, NULL);
		ctl_send(t, i, VIRTIO_CONSOLE_PORT_OPEN, 1);
	}
	ctl_none(t);
}

/* --- data --- */

static int tx_put(struct con_rig *t, unsigned port, const void *data, uint32_t len,
		  uint32_t cut)
{
	gpa_t gpa = vdrv_alloc(&t->r.d, len, 1);
	struct vdrv_seg seg[] = {{gpa, cut ? cut : len}, {gpa + cut, len - cut}};
	int head;

	memcpy(vdrv_ptr(&t->r.d, gpa, len), data, len);
	head = vdrv_add(&t->r.d.q[txq(port)], seg, cut ? 2 : 1, 0, 0);
	vdrv_kick(&t->r.d.q[txq(port)]);
	return head;
}

static void tx_done(struct con_rig *t, unsigned port)
{
	uint16_t head;
	uint32_t len;

	assert_true(vdrv_wait(&t->r.d.q[txq(port)], &head, &len));
	assert_int_equal(len, 0);
}

static void peer_expect(struct con_rig *t, unsigned port, const void *data, size_t len)
{
	uint8_t *buf = malloc(len + 1);
	size_t got = 0;
	uint64_t since = now_ns();

	while (got < len && now_ns() - since < UINT64_C(10000000000)) {
		ssize_t n = read(t->peer[port], buf + got, len - got);

		if (n > 0) {
			got += (size_t)n;
		}
		settle(t);
	}
	assert_int_equal(got, len);
	assert_memory_equal(buf, data, len);
	assert_true(read(t->peer[port], buf, 1) < 0);
	free(buf);
}

static gpa_t rx_put(struct con_rig *t, unsigned port, uint32_t len)
{
	gpa_t gpa = vdrv_alloc(&t->r.d, len, 1);

	assert_true(
		vdrv_add(&t->r.d.q[rxq(port)],
			 (struct vdrv_seg[]){{gpa, len / 2}, {gpa + len / 2, len - len / 2}}, 0,
			 2, 0) >= 0);
	vdrv_kick(&t->r.d.q[rxq(port)]);
	return gpa;
}

static void rx_expect(struct con_rig *t, unsigned port, gpa_t gpa, const char *text)
{
	uint16_t head;
	uint32_t len;

	assert_true(vdrv_wait(&t->r.d.q[rxq(port)], &head, &len));
	assert_int_equal(len, strlen(text));
	assert_memory_equal(vdrv_ptr(&t->r.d, gpa, len), text, len);
}

static void peer_send(struct con_rig *t, unsigned port, const char *text)
{
	assert_int_equal(write(t->peer[port], text, strlen(text)), strlen(text));
	settle(t);
}

static bool queue_silent(struct con_rig *t, unsigned q)
{
	uint16_t head;
	uint32_t len;

	settle(t);
	return !vdrv_used(&t->r.d.q[q], &head, &len);
}

/* --- tests --- */

static void test_configuration(void **state)
{
	struct con_rig *t = rig_new(31, 1);
	struct virtio_dev *vd = NULL;
	struct err err = {.msg = ""};
	struct virtio_port_config pc = {.chr = t->chr[0], .nr = UINT32_MAX};
	struct chr *null;
	char name[200];

	assert_int_equal(VDRV_COMMON(&t->r.d, num_queues), 64);
	assert_int_equal(vdrv_config(&t->r.d, 4, 4), 31);
	assert_true(vdrv_offered(&t->r.d) & F(VIRTIO_CONSOLE_F_MULTIPORT));
	rig_free(t);

	t = rig_new(2, 2);
	assert_int_equal(t->r.d.nqueues, 6);
	assert_int_equal(chr_open_legacy(t->r.fv->vm.loop, "n", "null", &null, &err), 0);
	pc.chr = null;
	assert_int_equal(virtio_serial_add_port(t->vd, &pc, &err), -ENOSPC);
	assert_non_null(strstr(err.msg, "max_ports"));
	pc.nr = 1;
	assert_int_equal(virtio_serial_add_port(t->vd, &pc, &err), -EBUSY);
	pc.nr = 2;
	assert_int_equal(virtio_serial_add_port(t->vd, &pc, &err), -ENOSPC);
	for (uint32_t n = 0; n <= 32; n += 32) {
		struct virtio_serial_config c = {.max_ports = n};

		assert_int_equal(virtio_serial_new(&t->r.fv->vm, &c, "s", &vd, &err), -EINVAL);
		assert_non_null(strstr(err.msg, "max_ports"));
	}
	assert_int_equal(virtio_serial_new(&t->r.fv->vm,
					   &(struct virtio_serial_config){.max_ports = 4}, "s",
					   &vd, &err),
			 0);
	pc.nr = 0;
	assert_int_equal(virtio_serial_add_port(vd, &pc, &err), -EINVAL); /* for a console */
	memset(name, 'x', sizeof(name));
	name[199] = 0;
	pc.nr = 3;
	pc.name = name;
	assert_int_equal(virtio_serial_add_port(vd, &pc, &err), -EINVAL);
	name[127] = 0;
	assert_int_equal(virtio_serial_add_port(vd, &pc, &err), 0);
	vd->ops->destroy(vd);
	chr_close(null);
	rig_free(t);
	(void)state;
}

static void test_control_and_data(void **state)
{
	struct con_rig *t = rig_new(4, PORTS);
	gpa_t gpa;

	driver_up(t, PORTS);
	for (unsigned i = 0; i < PORTS; i++) {
		tx_put(t, i, "hello, host\n", 12, i);
		tx_done(t, i);
		peer_expect(t, i, "hello, host\n", 12);
		gpa = rx_put(t, i, 64);
		peer_send(t, i, "hello, guest");
		rx_expect(t, i, gpa, "hello, guest");
	}
	/* the peer leaves and comes back: a console does not notice, a port does */
	peer_close(t, 0);
	peer_close(t, 1);
	ctl_expect(t, 1, VIRTIO_CONSOLE_PORT_OPEN, 0, NULL);
	tx_put(t, 0, "into the void", 13, 0);
	tx_done(t, 0);
	peer_open(t, 0);
	peer_open(t, 1);
	ctl_expect(t, 1, VIRTIO_CONSOLE_PORT_OPEN, 1, NULL);
	ctl_none(t);
	tx_put(t, 1, "again", 5, 0);
	tx_done(t, 1);
	peer_expect(t, 1, "again", 5);
	rig_free(t);
	(void)state;
}

/* Bytes wait at the host while the guest has not opened the port or has no buffer. */
static void test_receive_room(void **state)
{
	struct con_rig *t = rig_new(4, PORTS);
	gpa_t a, b;

	driver_up(t, PORTS);
	peer_send(t, 1, "0123456789");
	a = rx_put(t, 1, 4);
	rx_expect(t, 1, a, "0123");
	assert_true(queue_silent(t, rxq(1)));
	a = rx_put(t, 1, 4);
	b = rx_put(t, 1, 4);
	rx_expect(t, 1, a, "4567");
	rx_expect(t, 1, b, "89");
	ctl_send(t, 1, VIRTIO_CONSOLE_PORT_OPEN, 0);
	a = rx_put(t, 1, 64);
	peer_send(t, 1, "later");
	assert_true(queue_silent(t, rxq(1)));
	ctl_send(t, 1, VIRTIO_CONSOLE_PORT_OPEN, 1);
	rx_expect(t, 1, a, "later");
	rig_free(t);
	(void)state;
}

/* A driver without MULTIPORT: port 0 works at once, nothing is said on the control queues. */
static void test_single_port(void **state)
{
	struct con_rig *t = rig_new(4, PORTS);
	gpa_t gpa;

	vdrv_start(&t->r.d, ALL & ~F(VIRTIO_CONSOLE_F_MULTIPORT), 0);
	crx_add(t, 4);
	tx_put(t, 0, "console", 7, 3);
	tx_done(t, 0);
	peer_expect(t, 0, "console", 7);
	gpa = rx_put(t, 0, 16);
	peer_send(t, 0, "root\n");
	rx_expect(t, 0, gpa, "root\n");
	ctl_none(t);
	rig_free(t);
	(void)state;
}

/* A peer that never reads stops its own port; what it missed comes later, whole and in order. */
static void test_peer_never_reads(void **state)
{
	struct con_rig *t = rig_new(4, PORTS);
	static uint8_t big[40 * 65536];
	struct vdrv *d = &t->r.d;
	unsigned done = 0;
	uint16_t head;
	uint32_t len;

	for (size_t i = 0; i < sizeof(big); i++) {
		big[i] = (uint8_t)(i >> 3 ^ i);
	}
	driver_up(t, PORTS);
	for (unsigned i = 0; i < 40; i++) {
		assert_true(tx_put(t, 1, big + i * 65536, 65536, i * 100) >= 0);
	}
	settle(t);
	while (vdrv_used(&d->q[txq(1)], &head, &len)) {
		done++;
	}
	assert_in_range(done, 0, 39);
	assert_int_equal(t->vd->queue[txq(1)].inflight, 1);
	/* the others do not notice */
	tx_put(t, 0, "still here", 10, 0);
	tx_done(t, 0);
	peer_expect(t, 0, "still here", 10);
	/* stopped and continued in the middle of a chain */
	fake_vm_pause(t->r.fv);
	assert_int_equal(t->vd->queue[txq(1)].inflight, 0);
	device_list_resume(&t->r.fv->devices);
	peer_expect(t, 1, big, sizeof(big));
	while (done < 40) {
		tx_done(t, 1);
		done++;
	}
	/* a reset of the queue forgets what was left, and nothing is skipped afterwards */
	for (unsigned i = 0; i < 20; i++) {
		tx_put(t, 1, big, 65536, 0);
	}
	settle(t);
	assert_int_equal(t->vd->queue[txq(1)].inflight, 1);
	assert_true(vdrv_queue_reset(d, txq(1)));
	while (read(t->peer[1], big, sizeof(big)) > 0) {
	}
	settle(t);
	vdrv_queue_setup(d, txq(1), 0);
	vdrv_queue_enable(d, txq(1));
	tx_put(t, 1, "from the start", 14, 5);
	tx_done(t, 1);
	peer_expect(t, 1, "from the start", 14);
	/* the peer goes while a chain is stuck: it is let go */
	for (unsigned i = 0; i < 20; i++) {
		tx_put(t, 1, big, 65536, 0);
	}
	settle(t);
	peer_close(t, 1);
	for (unsigned i = 0; i < 20; i++) {
		tx_done(t, 1);
	}
	rig_free(t);
	(void)state;
}

/* Control messages are derived: asked ten thousand times without buffers, then told once. */
static void test_control_flood(void **state)
{
	struct con_rig *t = rig_new(4, PORTS);

	vdrv_start(&t->r.d, ALL, 0);
	for (int i = 0; i < 2000; i++) {
		ctl_send(t, (uint32_t)i % 9,
			 i % 3 ? VIRTIO_CONSOLE_PORT_READY : VIRTIO_CONSOLE_DEVICE_READY, 1);
		t->r.d.mem_next -= 8;
	}
	ctl_send(t, 0xffffffff, VIRTIO_CONSOLE_PORT_OPEN, 1);
	ctl_send(t, 1, 99, 1);
	ctl_send(t, 1, VIRTIO_CONSOLE_PORT_READY, 0);
	ctl_send(t, 0, VIRTIO_CONSOLE_DEVICE_READY, 0);
	crx_add(t, 1);
	ctl_expect(t, 0, VIRTIO_CONSOLE_DEVICE_ADD, 1, NULL);
	ctl_none(t);
	crx_add(t, 16);
	ctl_expect(t, 1, VIRTIO_CONSOLE_DEVICE_ADD, 1, NULL);
	ctl_expect(t, 1, VIRTIO_CONSOLE_PORT_NAME, 1, "org.example.1");
	ctl_expect(t, 1, VIRTIO_CONSOLE_PORT_OPEN, 1, NULL);
	ctl_expect(t, 2, VIRTIO_CONSOLE_DEVICE_ADD, 1, NULL);
	ctl_expect(t, 2, VIRTIO_CONSOLE_PORT_OPEN, 1, NULL);
	ctl_none(t);
	assert_int_equal(vdrv_status(&t->r.d) & NEEDS_RESET, 0);
	rig_free(t);
	(void)state;
}

static void chain_that_breaks(unsigned q, unsigned n_out, unsigned n_in, uint32_t len)
{
	struct con_rig *t = rig_new(4, PORTS);
	struct vdrv_seg seg[4];
	gpa_t gpa;

	driver_up(t, PORTS);
	gpa = vdrv_alloc(&t->r.d, 256, 1);
	for (unsigned i = 0; i < n_out + n_in; i++) {
		seg[i] = (struct vdrv_seg){gpa + 64 * i, len};
	}
	if (q == CRX) { /* the good buffers first */
		vdrv_start(&t->r.d, ALL, 0);
	}
	assert_true(vdrv_add(&t->r.d.q[q], seg, n_out, n_in, 0) >= 0);
	vdrv_kick_always(&t->r.d.q[q]);
	if (q == rxq(1)) {
		peer_send(t, 1, "x");
	}
	if (q == CRX) {
		ctl_send(t, 0, VIRTIO_CONSOLE_DEVICE_READY, 1);
	}
	settle(t);
	assert_int_equal(vdrv_status(&t->r.d) & NEEDS_RESET, NEEDS_RESET);
	peer_send(t, 2, "nobody takes this now");
	tx_put(t, 0, "x", 1, 0);
	vdrv_kick_always(&t->r.d.q[txq(0)]);
	assert_true(queue_silent(t, txq(0)));
	driver_up(t, PORTS);
	tx_put(t, 0, "well again", 10, 0);
	tx_done(t, 0);
	peer_expect(t, 0, "well again", 10);
	rig_free(t);
}

static void test_malformed_chains(void **state)
{
	chain_that_breaks(txq(1), 0, 1, 16);
	chain_that_breaks(txq(1), 1, 1, 16);
	chain_that_breaks(rxq(1), 1, 0, 16);
	chain_that_breaks(rxq(1), 1, 1, 16);
	chain_that_breaks(CTX, 1, 0, 7);
	chain_that_breaks(CTX, 0, 1, 16);
	chain_that_breaks(CRX, 0, 1, 7);
	chain_that_breaks(CRX, 1, 0, 16);
	(void)state;
}

/* Queues of ports that are not there may be used; nothing happens. */
static void test_absent_ports(void **state)
{
	struct con_rig *t = rig_new(8, 1);

	driver_up(t, 1);
	tx_put(t, 5, "x", 1, 0);
	vdrv_kick_always(&t->r.d.q[txq(5)]);
	rx_put(t, 6, 64);
	vdrv_kick_always(&t->r.d.q[rxq(6)]);
	assert_true(queue_silent(t, txq(5)));
	assert_true(vdrv_reset(&t->r.d));
	driver_up(t, 1);
	rig_free(t);
	(void)state;
}

/* One byte at a time over indirect tables of the largest size. */
static void test_tiny_pieces(void **state)
{
	struct con_rig *t = rig_new(4, PORTS);
	struct vdrv_seg *seg = calloc(1024, sizeof(*seg));
	char text[1025];
	gpa_t gpa;

	driver_up(t, PORTS);
	gpa = vdrv_alloc(&t->r.d, 1024, 1);
	for (unsigned i = 0; i < 1024; i++) {
		seg[i] = (struct vdrv_seg){gpa + i, 1};
		text[i] = (char)('a' + i % 26);
	}
	text[1024] = 0;
	memcpy(vdrv_ptr(&t->r.d, gpa, 1024), text, 1024);
	vdrv_add(&t->r.d.q[txq(2)], seg, 1024, 0, VDRV_INDIRECT);
	vdrv_kick(&t->r.d.q[txq(2)]);
	peer_expect(t, 2, text, 1024);
	tx_done(t, 2);
	memset(vdrv_ptr(&t->r.d, gpa, 1024), 0, 1024);
	vdrv_add(&t->r.d.q[rxq(2)], seg, 0, 1024, VDRV_INDIRECT);
	vdrv_kick(&t->r.d.q[rxq(2)]);
	peer_send(t, 2, text);
	rx_expect(t, 2, gpa, text);
	rig_free(t);
	free(seg);
	(void)state;
}

static size_t heap(void)
{
	struct mallinfo2 m = mallinfo2();

	return m.uordblks + m.hblkhd;
}

/* Peers that never read, flood, and come and go: what they cost, in bytes and in lines of the log. */
static void test_hostile_peers_in_numbers(void **state)
{
	struct con_rig *t = rig_new(4, PORTS);
	FILE *log = tmpfile();
	static char big[65536];
	size_t before, sent = 0;
	ssize_t n;
	gpa_t gpa;

	assert_non_null(log);
	log_set_fd(fileno(log));
	driver_up(t, PORTS);
	before = heap();
	/* one never reads: the driver's ring fills, and that is all */
	for (unsigned i = 0; i < 60; i++) {
		tx_put(t, 1, big, sizeof(big), 0);
	}
	settle(t);
	assert_int_equal(t->vd->queue[txq(1)].inflight, 1);
	/* one floods a guest that gives no buffers: the socket fills, and that is all */
	for (int idle = 0; idle < 20; idle++) {
		while ((n = write(t->peer[2], big, sizeof(big))) > 0) {
			sent += (size_t)n;
			assert_true(sent < 4u << 20);
		}
		settle(t);
	}
	/* one comes and goes, with something to say each time */
	for (int i = 0; i < 500; i++) {
		peer_close(t, 0);
		peer_open(t, 0);
		peer_send(t, 0, "again");
	}
	assert_int_equal(heap(), before);
	assert_int_equal(lseek(fileno(log), 0, SEEK_END), 0);
	assert_int_equal(vdrv_status(&t->r.d) & NEEDS_RESET, 0);
	/* the port of the last one works, whatever the others do */
	gpa = rx_put(t, 0, 64);
	settle(t);
	rx_expect(t, 0, gpa, "again");
	tx_put(t, 0, "and back", 8, 0);
	tx_done(t, 0);
	peer_expect(t, 0, "and back", 8);
	log_set_fd(2);
	fclose(log);
	rig_free(t);
	(void)state;
}

static void test_transfer(void **state)
{
	struct con_rig *a = rig_new(4, PORTS), *z, *poor;
	static uint8_t big[30 * 65536];
	struct err err = {.msg = ""};
	size_t got = 0;
	ssize_t n;
	gpa_t gpa;

	for (size_t i = 0; i < sizeof(big); i++) {
		big[i] = (uint8_t)(i * 31 >> 4);
	}
	driver_up(a, PORTS);
	ctl_send(a, 2, VIRTIO_CONSOLE_PORT_OPEN, 0);
	gpa = rx_put(a, 0, 64);
	for (unsigned i = 0; i < 30; i++) {
		tx_put(a, 1, big + i * 65536, 65536, 0);
	}
	settle(a);
	z = rig_new(4, PORTS);
	poor = rig_new(4, 2);
	peer_close(z, 1); /* the other machine has nobody there: the driver is told */
	fake_vm_pause(a->r.fv);
	fake_vm_pause(z->r.fv);
	fake_vm_pause(poor->r.fv);
	memcpy(mem_region_host(z->r.fv->ram), mem_region_host(a->r.fv->ram),
	       mem_region_size(a->r.fv->ram));
	memcpy(mem_region_host(poor->r.fv->ram), mem_region_host(a->r.fv->ram),
	       mem_region_size(a->r.fv->ram));
	assert_true(fake_vm_transfer(a->r.fv, poor->r.fv, &err) < 0);
	assert_non_null(strstr(err.msg, "port 2"));
	rig_free(poor);
	assert_int_equal(fake_vm_transfer(a->r.fv, z->r.fv, &err), 0);
	vdrv_adopt(&z->r.d, &a->r.d, z->r.fv, &z->r.root);
	memcpy(z->crx, a->crx, sizeof(a->crx));
	while ((n = read(a->peer[1], big, sizeof(big))) > 0) {
		got += (size_t)n; /* what the first machine had written */
	}
	for (size_t i = 0; i < sizeof(big); i++) {
		big[i] = (uint8_t)(i * 31 >> 4);
	}
	assert_in_range(got, 1, sizeof(big) - 1);
	peer_open(z, 1);
	device_list_resume(&z->r.fv->devices);
	peer_expect(z, 1, big + got, sizeof(big) - got);
	peer_send(z, 0, "moved");
	rx_expect(z, 0, gpa, "moved");
	peer_close(z, 2);
	ctl_expect(z, 2, VIRTIO_CONSOLE_PORT_OPEN, 0, NULL);
	rig_free(z);
	rig_free(a);
	(void)state;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_configuration),
		cmocka_unit_test(test_control_and_data),
		cmocka_unit_test(test_receive_room),
		cmocka_unit_test(test_single_port),
		cmocka_unit_test(test_peer_never_reads),
		cmocka_unit_test(test_control_flood),
		cmocka_unit_test(test_malformed_chains),
		cmocka_unit_test(test_absent_ports),
		cmocka_unit_test(test_tiny_pieces),
		cmocka_unit_test(test_hostile_peers_in_numbers),
		cmocka_unit_test(test_transfer),
	};

	signal(SIGPIPE, SIG_IGN); /* as the program does */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
