/*
 * virtio-console with MULTIPORT. Virtio 1.2, section 5.3.
 *
 * A port joins two queues and a character back end:
 *
 *   guest → host: a chain is popped and given to chr_write() from guest memory, at most TX_CHUNK
 *     bytes in one go. What the back end does not take stays in the chain, which stays popped
 *     until tx_ready(); no other is taken meanwhile. So a peer that never reads stops its own
 *     port, costs no memory, and disturbs no other port.
 *   host → guest: rx_room() pops a buffer and says its size, rx() fills and pushes it. Without a
 *     buffer, or while the guest has not opened the port, the room is 0 and the back end is
 *     not read; the next kick, or the opening, wakes it.
 *
 * Control messages to the driver are not queued but derived: a port has flags of what the driver
 * is still to be told (`pending`, and told_open against what is so). They are sent as far as the
 * driver gives buffers, in the order ADD, CONSOLE, NAME, OPEN of a port. So however often a
 * driver asks, nothing grows; a connection that goes and comes back before it could be told is
 * not told at all.
 *
 * Invariants:
 * 1. at most one chain of each queue is in flight: port->tx or port->rx;
 * 2. when a queue stops, its chain goes back into the ring; of a transmitted one tx_skip says how
 *    much is written already, unless the queue is being reset;
 * 3. nothing is allocated after a port was added.
 *
 * Threads: the control loop. Untrusted: the driver; the peer's bytes are opaque.
 */
#include "device/virtio/console.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/iov.h"
#include "base/log.h"
#include "spec/virtio.h"
#include "spec/virtio_console.h"

#define QUEUE_SIZE   128
#define TX_CHUNK     (64u * 1024) /* bytes of a port before the loop gets to its other work */
#define TX_PIECE     128u	  /* what a write counts for at least */
#define TX_CHAINS    64u
#define CTRL_BURST   64u
#define CTRL_SEGS    64
#define NAME_MAX_LEN 127
#define CTRL_LEN     sizeof(struct virtio_console_control)

enum { PEND_ADD = 1, PEND_CONSOLE = 2, PEND_NAME = 4 };

struct port {
	struct virtio_serial *serial;
	struct chr *chr;
	uint32_t nr;
	bool console;
	char name[NAME_MAX_LEN + 1];

	bool connected;	 /* somebody is at the host's end */
	bool ready;	 /* PORT_READY: the driver knows it */
	bool guest_open; /* PORT_OPEN of the driver */
	bool told_open;	 /* the last PORT_OPEN to the driver */
	unsigned pending;

	bool tx_busy, rx_busy; /* a chain is popped */
	bool tx_wait;	       /* the back end has no room: tx_ready() goes on */
	struct virtq_chain tx, rx;
	struct iov_cur tx_cur;
	uint32_t tx_done; /* bytes of it that are written */
	uint32_t tx_skip; /* the same, of the chain that will be popped next (saved) */
	struct iovec tx_iov[VIRTQ_MAX_SEGS], rx_iov[VIRTQ_MAX_SEGS];
};

struct virtio_serial {
	struct virtio_dev vd;
	uint32_t max_ports;
	bool driver_ready;
	struct port *port[VIRTIO_SERIAL_MAX_PORTS];
};

static struct virtio_serial *of_vd(struct virtio_dev *vd)
{
	return container_of(vd, struct virtio_serial, vd);
}

/* [5.3.2]: 0, 1, then the control pair, then 4, 5 for port 1 … */
static unsigned rx_index(uint32_t nr)
{
	return nr ? 2 * nr + 2 : 0;
}

static struct virtq *rx_queue(struct port *p)
{
	return &p->serial->vd.queue[rx_index(p->nr)];
}

static struct virtq *tx_queue(struct port *p)
{
	return &p->serial->vd.queue[rx_index(p->nr) + 1];
}

static struct port *port_find(struct virtio_serial *s, uint32_t nr)
{
	return nr < s->max_ports ? s->port[nr] : NULL;
}

static struct port *port_of_queue(struct virtq *q)
{
	unsigned i = q->index;

	return port_find(of_vd(q->vd), i < 2 ? 0 : i / 2 - 1);
}

static bool is_broken(struct virtio_serial *s)
{
	return atomic_load(&s->vd.broken);
}

/* Does the driver take bytes of this port? Without MULTIPORT there is port 0 alone, always open. */
static bool port_open(const struct port *p)
{
	if (!virtio_has(&p->serial->vd, VIRTIO_CONSOLE_F_MULTIPORT)) {
		return p->nr == 0;
	}
	return p->guest_open;
}

/* --- control messages to the driver --- */

/* False: no buffer now; the next kick of the queue comes back here. */
static bool message_send(struct virtio_serial *s, struct port *p, uint16_t event,
			 uint16_t value, const char *text)
{
	struct virtq *q = &s->vd.queue[VIRTIO_CONSOLE_Q_CTRL_RX];
	struct virtio_console_control m = {le32_of(p->nr), le16_of(event), le16_of(value)};
	size_t len = text ? strlen(text) : 0;
	struct iovec iov[CTRL_SEGS];
	struct virtq_chain c;
	struct iov_cur cur;

	if (virtq_pop(q, &c, iov, CTRL_SEGS) <= 0) {
		return false;
	}
	if (c.n_out || c.in_len < CTRL_LEN) {
		virtio_broken(&s->vd, "control buffer that cannot hold a message");
		virtq_unpop(q, &c);
		return false;
	}
	if (len > c.in_len - CTRL_LEN) {
		log_guest(s->vd.name,
			  "port %u: the driver's buffer is too small for the name '%s'", p->nr,
			  text);
		len = c.in_len - CTRL_LEN;
	}
	cur = iov_cur_init(iov, c.n_in);
	iov_cur_write(&cur, &m, sizeof(m));
	iov_cur_write(&cur, text, len);
	virtq_push(q, &c, (uint32_t)(CTRL_LEN + len));
	return true;
}

/* False: no buffer now. */
static bool port_tell(struct virtio_serial *s, struct port *p)
{
	static const struct {
		unsigned flag;
		uint16_t event;
	} steps[] = {
		{PEND_ADD, VIRTIO_CONSOLE_DEVICE_ADD},
		{PEND_CONSOLE, VIRTIO_CONSOLE_CONSOLE_PORT},
		{PEND_NAME, VIRTIO_CONSOLE_PORT_NAME},
	};
	bool open = p->connected || p->console;

	for (size_t i = 0; i < ARRAY_SIZE(steps); i++) {
		if (!(p->pending & steps[i].flag)) {
			continue;
		}
		if (!message_send(s, p, steps[i].event, 1,
				  steps[i].flag == PEND_NAME ? p->name : NULL)) {
			return false;
		}
		p->pending &= ~steps[i].flag;
	}
	if (p->ready && p->told_open != open) {
		if (!message_send(s, p, VIRTIO_CONSOLE_PORT_OPEN, open, NULL)) {
			return false;
		}
		p->told_open = open;
	}
	return true;
}

static void control_send(struct virtio_serial *s)
{
	struct virtq *q = &s->vd.queue[VIRTIO_CONSOLE_Q_CTRL_RX];
	bool all;

	if (!virtq_running(q) || !s->driver_ready) {
		return;
	}
	do {
		all = true;
		for (uint32_t i = 0; all && i < s->max_ports; i++) {
			all = !s->port[i] || port_tell(s, s->port[i]);
		}
		virtq_notify(q);
	} while (!all && virtq_kicks_on(q));
}

/* --- guest to host --- */

/* Writes what is left of the popped chain, at most *budget bytes. True: the chain is done. */
static bool tx_write(struct port *p, size_t *budget)
{
	struct iov_cur *cur = &p->tx_cur;

	while (p->tx_done < p->tx.out_len) {
		size_t n, taken;

		if (cur->off == cur->iov->iov_len) {
			cur->iov++;
			cur->cnt--;
			cur->off = 0;
			continue;
		}
		n = MIN(cur->iov->iov_len - cur->off, *budget);
		if (!n) {
			return false;
		}
		taken = chr_write(p->chr, (const uint8_t *)cur->iov->iov_base + cur->off, n);
		cur->off += taken;
		p->tx_done += (uint32_t)taken;
		*budget -= MIN(*budget, MAX(taken, TX_PIECE));
		if (taken < n) {
			p->tx_wait = true;
			return false;
		}
	}
	return true;
}

/* False: nothing to do, or the device is broken. */
static bool tx_take(struct port *p, struct virtq *q)
{
	if (virtq_pop(q, &p->tx, p->tx_iov, VIRTQ_MAX_SEGS) <= 0) {
		return false;
	}
	if (p->tx.n_in) {
		virtio_broken(q->vd, "queue %u: transmit buffer to be written to", q->index);
		virtq_unpop(q, &p->tx);
		return false;
	}
	p->tx_busy = true;
	p->tx_cur = iov_cur_init(p->tx_iov, p->tx.n_out);
	/* Begun before a pause. The driver may have changed the chain: it is its own loss. */
	p->tx_done = (uint32_t)iov_cur_skip(&p->tx_cur, p->tx_skip);
	p->tx_skip = 0;
	return true;
}

/* True: come back at once, there may be more. */
static bool tx_round(struct port *p, struct virtq *q, size_t *budget, unsigned *chains)
{
	while (*budget && *chains && !p->tx_wait) {
		if (!p->tx_busy && !tx_take(p, q)) {
			return false;
		}
		if (!tx_write(p, budget)) {
			continue;
		}
		virtq_push(q, &p->tx, 0);
		p->tx_busy = false;
		(*chains)--;
	}
	return !p->tx_wait;
}

static void tx_run(struct port *p)
{
	struct virtq *q = tx_queue(p);
	size_t budget = TX_CHUNK;
	unsigned chains = TX_CHAINS;
	bool more;

	if (p->tx_wait || !virtq_running(q) || is_broken(p->serial)) {
		return;
	}
	do {
		virtq_kicks_off(q);
		more = tx_round(p, q, &budget, &chains);
		virtq_notify(q);
		if (more) {
			virtq_kick_self(q);
			return;
		}
	} while (!p->tx_wait && virtq_kicks_on(q));
}

static void port_tx_ready(void *opaque)
{
	struct port *p = opaque;

	p->tx_wait = false;
	tx_run(p);
}

/* --- host to guest --- */

static size_t port_rx_room(void *opaque)
{
	struct port *p = opaque;
	struct virtq *q = rx_queue(p);

	if (p->rx_busy) {
		return port_open(p) ? p->rx.in_len : 0;
	}
	if (!virtq_running(q) || !port_open(p)) {
		return 0;
	}
	do {
		int r = virtq_pop(q, &p->rx, p->rx_iov, VIRTQ_MAX_SEGS);

		if (r < 0) {
			return 0;
		}
		if (r > 0) {
			if (p->rx.n_out) {
				virtio_broken(q->vd, "queue %u: receive buffer to be read",
					      q->index);
				virtq_unpop(q, &p->rx);
				return 0;
			}
			virtq_kicks_off(q);
			p->rx_busy = true;
			return p->rx.in_len;
		}
	} while (virtq_kicks_on(q));
	return 0;
}

static void port_rx(void *opaque, const uint8_t *buf, size_t len)
{
	struct port *p = opaque;
	struct virtq *q = rx_queue(p);
	struct iov_cur cur = iov_cur_init(p->rx_iov, p->rx.n_in);
	size_t n = iov_cur_write(&cur, buf, len);

	virtq_push(q, &p->rx, (uint32_t)n);
	p->rx_busy = false;
	virtq_notify(q);
}

static void port_event(void *opaque, enum chr_event ev)
{
	struct port *p = opaque;

	if (ev == CHR_BREAK) {
		return;
	}
	p->connected = ev == CHR_OPENED;
	control_send(p->serial);
}

/* --- control messages from the driver --- */

static void device_ready(struct virtio_serial *s, uint16_t value)
{
	if (!value) {
		log_guest(s->vd.name, "the driver says that it cannot use the device");
		return;
	}
	s->driver_ready = true;
	for (uint32_t i = 0; i < s->max_ports; i++) {
		if (s->port[i]) {
			s->port[i]->pending |= PEND_ADD;
		}
	}
}

static void port_ready(struct port *p, uint16_t value)
{
	if (!value) {
		log_guest(p->serial->vd.name, "the driver says that it cannot use port %u",
			  p->nr);
		return;
	}
	p->ready = true;
	p->told_open = false;
	p->pending |= (p->console ? PEND_CONSOLE : 0u) | (p->name[0] ? PEND_NAME : 0u);
}

static void control_handle(struct virtio_serial *s, const struct virtio_console_control *m)
{
	uint16_t event = le16_get(m->event), value = le16_get(m->value);
	struct port *p = port_find(s, le32_get(m->id));

	if (event == VIRTIO_CONSOLE_DEVICE_READY) {
		device_ready(s, value);
		return;
	}
	if (!p) {
		log_guest(s->vd.name, "the driver names port %u, which is not there",
			  le32_get(m->id));
		return;
	}
	switch (event) {
	case VIRTIO_CONSOLE_PORT_READY:
		port_ready(p, value);
		break;
	case VIRTIO_CONSOLE_PORT_OPEN:
		p->guest_open = value != 0;
		if (p->guest_open) {
			chr_rx_room(p->chr);
		}
		break;
	default:
		log_guest(s->vd.name, "unknown control message %u of the driver", event);
		break;
	}
}

static bool control_one(struct virtio_serial *s, struct virtq *q)
{
	struct virtio_console_control m;
	struct iovec iov[CTRL_SEGS];
	struct virtq_chain c;
	struct iov_cur cur;

	if (virtq_pop(q, &c, iov, CTRL_SEGS) <= 0) {
		return false;
	}
	cur = iov_cur_init(iov, c.n_out);
	if (iov_cur_read(&cur, &m, sizeof(m)) < sizeof(m)) {
		virtio_broken(&s->vd, "control message shorter than its header");
		virtq_unpop(q, &c);
		return false;
	}
	virtq_push(q, &c, 0);
	control_handle(s, &m);
	return true;
}

static void control_kick(struct virtio_serial *s, struct virtq *q)
{
	unsigned done = 0;

	do {
		virtq_kicks_off(q);
		while (done < CTRL_BURST && control_one(s, q)) {
			done++;
		}
		virtq_notify(q);
		control_send(s);
		if (done == CTRL_BURST) {
			virtq_kick_self(q);
			return;
		}
	} while (virtq_kicks_on(q));
}

/* --- queues --- */

static void serial_queue_kick(struct virtq *q)
{
	struct virtio_serial *s = of_vd(q->vd);
	struct port *p;

	if (q->index == VIRTIO_CONSOLE_Q_CTRL_RX) {
		control_send(s);
		return;
	}
	if (q->index == VIRTIO_CONSOLE_Q_CTRL_TX) {
		control_kick(s, q);
		return;
	}
	p = port_of_queue(q);
	if (!p) {
		return; /* a port that is not there: its buffers stay where they are */
	}
	if (q == tx_queue(p)) {
		tx_run(p);
	} else {
		chr_rx_room(p->chr);
	}
}

static void serial_queue_stop(struct virtq *q)
{
	struct port *p = port_of_queue(q);
	bool reset = q->resetting || q->vd->resetting;

	if (q->index == VIRTIO_CONSOLE_Q_CTRL_RX || q->index == VIRTIO_CONSOLE_Q_CTRL_TX ||
	    !p) {
		virtq_stopped(q);
		return;
	}
	if (q == tx_queue(p)) {
		if (p->tx_busy) {
			virtq_unpop(q, &p->tx);
			p->tx_skip = p->tx_done;
		}
		if (reset) {
			p->tx_skip = 0;
		}
		p->tx_busy = p->tx_wait = false;
	} else if (p->rx_busy) {
		virtq_unpop(q, &p->rx);
		p->rx_busy = false;
	}
	virtq_stopped(q);
}

/* --- configuration --- */

static uint64_t serial_features(struct virtio_dev *vd)
{
	(void)vd;
	return UINT64_C(1) << VIRTIO_CONSOLE_F_MULTIPORT;
}

static void serial_config_read(struct virtio_dev *vd, unsigned off, void *buf, unsigned len)
{
	struct virtio_console_config_layout c = {
		.max_nr_ports = le32_of(of_vd(vd)->max_ports),
	};

	memcpy(buf, (const char *)&c + off, len);
}

static void serial_reset(struct virtio_dev *vd)
{
	struct virtio_serial *s = of_vd(vd);

	s->driver_ready = false;
	for (uint32_t i = 0; i < s->max_ports; i++) {
		struct port *p = s->port[i];

		if (p) {
			p->ready = p->guest_open = p->told_open = false;
			p->pending = 0;
			p->tx_skip = 0;
		}
	}
}

/* --- state --- */

struct port_state {
	bool present, ready, guest_open, told_open;
	uint8_t pending;
	uint32_t tx_skip;
};
struct serial_state {
	bool driver_ready;
	struct port_state port[VIRTIO_SERIAL_MAX_PORTS];
};
static const struct state_field port_fields[] = {
	STATE_F_BOOL(struct port_state, present),
	STATE_F_BOOL(struct port_state, ready),
	STATE_F_BOOL(struct port_state, guest_open),
	STATE_F_BOOL(struct port_state, told_open),
	STATE_F_RANGE(STATE_U8, struct port_state, pending, 0, 7),
	STATE_F_U32(struct port_state, tx_skip),
	STATE_F_END,
};
static const struct state_desc port_state_desc = {
	.name = "virtio-console-port",
	.version = 1,
	.min_version = 1,
	.size = sizeof(struct port_state),
	.fields = port_fields,
};
static const struct state_field serial_fields[] = {
	STATE_F_BOOL(struct serial_state, driver_ready),
	STATE_F_ARRAY(struct serial_state, port, &port_state_desc),
	STATE_F_END,
};
static const struct state_desc serial_state_desc = {
	.name = "virtio-console",
	.version = 1,
	.min_version = 1,
	.size = sizeof(struct serial_state),
	.fields = serial_fields,
};

static int serial_save(struct virtio_dev *vd, void *st, struct err *err)
{
	struct virtio_serial *s = of_vd(vd);
	struct serial_state *out = st;

	(void)err;
	out->driver_ready = s->driver_ready;
	for (uint32_t i = 0; i < s->max_ports; i++) {
		struct port *p = s->port[i];

		if (p) {
			out->port[i] = (struct port_state){
				.present = true,
				.ready = p->ready,
				.guest_open = p->guest_open,
				.told_open = p->told_open,
				.pending = (uint8_t)p->pending,
				.tx_skip = p->tx_skip,
			};
		}
	}
	return 0;
}

static int serial_load(struct virtio_dev *vd, const void *st, struct err *err)
{
	struct virtio_serial *s = of_vd(vd);
	const struct serial_state *in = st;

	for (uint32_t i = 0; i < VIRTIO_SERIAL_MAX_PORTS; i++) {
		if (in->port[i].present != (port_find(s, i) != NULL)) {
			return err_set(
				err, EINVAL,
				"%s: port %u is only in %s; start the machine with the same "
				"ports",
				vd->name, i,
				in->port[i].present ? "the saved machine" : "this machine");
		}
	}
	s->driver_ready = in->driver_ready;
	for (uint32_t i = 0; i < s->max_ports; i++) {
		const struct port_state *f = &in->port[i];
		struct port *p = s->port[i];

		if (p) {
			p->ready = f->ready;
			p->guest_open = f->guest_open;
			p->told_open = f->told_open;
			p->pending = f->pending;
			p->tx_skip = f->tx_skip;
		}
	}
	return 0;
}

/* --- life --- */

static void serial_destroy(struct virtio_dev *vd)
{
	struct virtio_serial *s = of_vd(vd);

	virtio_dev_fini(vd);
	for (uint32_t i = 0; i < s->max_ports; i++) {
		if (s->port[i]) {
			chr_detach(s->port[i]->chr);
			free(s->port[i]);
		}
	}
	free(s);
}

static const struct virtio_ops serial_ops = {
	.name = "virtio-console",
	.device_id = VIRTIO_ID_CONSOLE,
	.pci_class = 0x078000, /* simple communication controller, other */
	.config_len = sizeof(struct virtio_console_config_layout),
	.features = serial_features,
	.config_read = serial_config_read,
	.queue_kick = serial_queue_kick,
	.queue_stop = serial_queue_stop,
	.reset = serial_reset,
	.destroy = serial_destroy,
	.state = &serial_state_desc,
	.save = serial_save,
	.load = serial_load,
};

int virtio_serial_new(struct vm *vm, const struct virtio_serial_config *cfg, const char *id,
		      struct virtio_dev **out, struct err *err)
{
	struct virtio_serial *s;
	int r;

	if (cfg->max_ports < 1 || cfg->max_ports > VIRTIO_SERIAL_MAX_PORTS) {
		return err_set(err, EINVAL, "%s: max_ports=%u is not from 1 to %u", id,
			       cfg->max_ports, VIRTIO_SERIAL_MAX_PORTS);
	}
	s = calloc(1, sizeof(*s));
	if (!s) {
		return err_set(err, ENOMEM, "%s: out of memory", id);
	}
	s->max_ports = cfg->max_ports;
	r = virtio_dev_init(&s->vd, vm, &serial_ops, id, 2 * (cfg->max_ports + 1), QUEUE_SIZE,
			    NULL);
	if (r < 0) {
		err_set(err, -r, "%s: no eventfd (%s)", id, strerror(-r));
		serial_destroy(&s->vd);
		return r;
	}
	*out = &s->vd;
	return 0;
}

/* The number for a new port, or -errno with a sentence. */
static int port_number(struct virtio_serial *s, const struct virtio_port_config *cfg,
		       struct err *err)
{
	const char *id = s->vd.name;

	if (cfg->nr == UINT32_MAX) {
		for (uint32_t i = cfg->console ? 0 : 1; i < s->max_ports; i++) {
			if (!s->port[i]) {
				return (int)i;
			}
		}
		return err_set(err, ENOSPC,
			       "%s: all %u ports are taken; raise max_ports (at most %u) "
			       "or add another virtio-serial-pci",
			       id, s->max_ports, VIRTIO_SERIAL_MAX_PORTS);
	}
	if (cfg->nr >= s->max_ports) {
		return err_set(err, ENOSPC, "%s: there is no port nr=%u; the last one is %u",
			       id, cfg->nr, s->max_ports - 1);
	}
	if (s->port[cfg->nr]) {
		return err_set(err, EBUSY, "%s: port nr=%u is taken by another device", id,
			       cfg->nr);
	}
	if (!cfg->nr && !cfg->console) {
		return err_set(err, EINVAL,
			       "%s: port nr=0 is for a virtconsole; take another number", id);
	}
	return (int)cfg->nr;
}

int virtio_serial_add_port(struct virtio_dev *serial, const struct virtio_port_config *cfg,
			   struct err *err)
{
	struct virtio_serial *s = of_vd(serial);
	int nr = port_number(s, cfg, err), r;
	struct chr_client client;
	struct port *p;

	if (nr < 0) {
		return nr;
	}
	if (cfg->name && strlen(cfg->name) > NAME_MAX_LEN) {
		return err_set(err, EINVAL,
			       "%s: the port name '%.40s…' is longer than %d bytes",
			       serial->name, cfg->name, NAME_MAX_LEN);
	}
	p = calloc(1, sizeof(*p));
	if (!p) {
		return err_set(err, ENOMEM, "%s: out of memory", serial->name);
	}
	p->serial = s;
	p->chr = cfg->chr;
	p->nr = (uint32_t)nr;
	p->console = cfg->console;
	if (cfg->name) {
		memcpy(p->name, cfg->name, strlen(cfg->name));
	}
	client = (struct chr_client){
		.rx_room = port_rx_room,
		.rx = port_rx,
		.tx_ready = port_tx_ready,
		.event = port_event,
		.opaque = p,
	};
	r = chr_attach(cfg->chr, &client, err);
	if (r < 0) {
		err_prefix(err, "%s", serial->name);
		free(p);
		return r;
	}
	p->connected = chr_connected(cfg->chr);
	s->port[nr] = p;
	return 0;
}
