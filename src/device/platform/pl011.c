/*
 * PrimeCell UART (PL011), also as ACPI's SBSA generic UART. ARM DDI 0183G.
 *
 * To a guest that polls, the line is infinitely fast: the transmit FIFO is full only when the ring
 * of TX_SIZE bytes is. The control loop empties the ring into the character back end and then
 * raises the transmit interrupt, once for all that was written meanwhile. A back end that takes no
 * more for STALL_NS loses what is written until it moves: a terminal that nobody reads does not
 * hold up the guest.
 *
 * Received bytes go to a FIFO of 16 (1 with FIFOs off); the back end is read only as far as there is
 * room. Bytes below the trigger level raise the timeout interrupt at once instead of after 32 bit
 * times: the guest takes what there is either way. In loopback what is sent comes back. Modem
 * inputs are on and never change.
 *
 * Invariants
 *  1. irq_level is what was last given to the line; the line is set under `lock`.
 *  2. The ring's bytes [tx_head, tx_head + tx_count) change only by consumption on the control
 *     loop, so it hands them to the back end without the lock.
 *  3. rx_stalled: the back end was told that there is no room and waits for chr_rx_room().
 *
 * Threads and locks: registers on vCPU threads under `lock`; back end, timer and posted work on the
 * control loop, the back end never with the lock held. Untrusted: the guest; the back end's peer.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/util.h"
#include "chardev/chr.h"
#include "core/bus.h"
#include "core/device.h"
#include "device/platform/pl011.h"
#include "event/loop.h"
#include "spec/pl011.h"

#define TX_SIZE	 4096u
#define STALL_NS UINT64_C(500000000)
#define SIZE	 0x1000u
#define CR_RESET (PL011_CR_TXE | PL011_CR_RXE)

struct pl011 {
	struct device dev;
	struct vm *vm;
	struct bus_region region;
	struct irq_line line;
	struct chr *chr; /* NULL: none */

	pthread_mutex_t lock;
	uint32_t ilpr, ibrd, fbrd, lcrh, cr, ifls, imsc, ris, dmacr;
	bool irq_level;
	bool tx_due; /* the transmit interrupt is to be raised when the ring was emptied */

	uint16_t rx[PL011_FIFO_SIZE]; /* with error flags, as DR has them */
	unsigned rx_head, rx_count;
	bool rx_stalled;

	uint8_t tx[TX_SIZE];
	unsigned tx_head, tx_count;
	bool tx_blocked;  /* the back end is full and will call tx_ready */
	bool tx_dropping; /* it has been for too long */

	/* control loop */
	bool paused;
	struct loop_work tx_work, rx_work;
	struct loop_timer stall_timer;
};

static unsigned rx_capacity(const struct pl011 *u)
{
	return u->lcrh & PL011_LCRH_FEN ? PL011_FIFO_SIZE : 1;
}

static unsigned rx_trigger(const struct pl011 *u)
{
	static const uint8_t level[8] = {2, 4, 8, 12, 14, 14, 14, 14};

	return u->lcrh & PL011_LCRH_FEN ? level[u->ifls >> 3 & 7] : 1;
}

static bool tx_room(const struct pl011 *u)
{
	return u->tx_dropping || u->tx_count < TX_SIZE;
}

static bool rx_open(const struct pl011 *u)
{
	return !u->paused && !(u->cr & PL011_CR_LBE);
}

static void update_locked(struct pl011 *u)
{
	bool level;

	u->ris &= ~(PL011_INT_RX | PL011_INT_RT);
	if (u->rx_count) {
		u->ris |= u->rx_count >= rx_trigger(u) ? PL011_INT_RX : PL011_INT_RT;
	}
	level = u->ris & u->imsc;
	if (level != u->irq_level) {
		u->irq_level = level;
		irq_line_set(&u->line, level);
	}
}

/* --- receiving --- */

static void rx_push_locked(struct pl011 *u, uint16_t word)
{
	if (u->rx_count == rx_capacity(u)) {
		u->ris |= PL011_INT_OE;
		return;
	}
	u->rx[(u->rx_head + u->rx_count) % PL011_FIFO_SIZE] = word;
	u->rx_count++;
}

static void rx_work_fn(void *opaque)
{
	struct pl011 *u = opaque;
	bool room;

	pthread_mutex_lock(&u->lock);
	room = u->rx_stalled && rx_open(u) && u->rx_count < rx_capacity(u);
	pthread_mutex_unlock(&u->lock);
	if (room && u->chr) {
		chr_rx_room(u->chr);
	}
}

static size_t chr_cb_rx_room(void *opaque)
{
	struct pl011 *u = opaque;
	size_t room = 0;

	pthread_mutex_lock(&u->lock);
	if (rx_open(u) && u->rx_count < rx_capacity(u)) {
		room = rx_capacity(u) - u->rx_count;
	}
	u->rx_stalled = !room;
	pthread_mutex_unlock(&u->lock);
	return room;
}

static void chr_cb_rx(void *opaque, const uint8_t *buf, size_t len)
{
	struct pl011 *u = opaque;

	pthread_mutex_lock(&u->lock);
	for (size_t i = 0; i < len; i++) {
		/* room was asked for; the guest may have turned the FIFO off since */
		rx_push_locked(u, buf[i]);
	}
	update_locked(u);
	pthread_mutex_unlock(&u->lock);
}

static uint32_t dr_read_locked(struct pl011 *u)
{
	uint32_t v;

	if (!u->rx_count) {
		return 0;
	}
	v = u->rx[u->rx_head];
	u->rx_head = (u->rx_head + 1) % PL011_FIFO_SIZE;
	u->rx_count--;
	if (u->rx_stalled && u->rx_count <= rx_capacity(u) / 2) {
		loop_post(u->vm->loop, &u->rx_work);
	}
	return v;
}

/* --- sending --- */

/* Gives the back end what it takes, at most a ring at a time. Control loop. */
static void tx_drain(struct pl011 *u)
{
	size_t budget = TX_SIZE;

	while (u->chr && !u->tx_blocked) {
		size_t n, done;

		pthread_mutex_lock(&u->lock);
		n = MIN(MIN(u->tx_count, TX_SIZE - u->tx_head), budget);
		pthread_mutex_unlock(&u->lock);
		if (!n) {
			break;
		}
		done = chr_write(u->chr, u->tx + u->tx_head, n); /* invariant 2 */
		pthread_mutex_lock(&u->lock);
		u->tx_head = (u->tx_head + (unsigned)done) % TX_SIZE;
		u->tx_count -= (unsigned)done;
		u->tx_blocked = done < n;
		pthread_mutex_unlock(&u->lock);
		budget -= n;
		if (!budget) {
			loop_post(u->vm->loop, &u->tx_work); /* others first */
		}
	}
}

static void tx_done_locked(struct pl011 *u)
{
	if (u->tx_due && tx_room(u)) {
		u->tx_due = false;
		u->ris |= PL011_INT_TX;
		update_locked(u);
	}
}

static void tx_work_fn(void *opaque)
{
	struct pl011 *u = opaque;

	if (u->paused) {
		return;
	}
	tx_drain(u);
	pthread_mutex_lock(&u->lock);
	tx_done_locked(u);
	if (tx_room(u)) {
		loop_timer_disarm(&u->stall_timer);
	} else if (!u->stall_timer.armed) {
		loop_timer_arm(&u->stall_timer, loop_now_ns(u->vm->loop) + STALL_NS);
	}
	pthread_mutex_unlock(&u->lock);
}

static void chr_cb_tx_ready(void *opaque)
{
	struct pl011 *u = opaque;

	pthread_mutex_lock(&u->lock);
	u->tx_blocked = false;
	u->tx_dropping = false;
	pthread_mutex_unlock(&u->lock);
	tx_work_fn(u);
}

static void chr_cb_event(void *opaque, enum chr_event ev)
{
	struct pl011 *u = opaque;

	if (ev != CHR_BREAK) {
		/* another peer, or none: what blocked the one before is over */
		if (u->tx_blocked) {
			chr_cb_tx_ready(u);
		}
		return;
	}
	pthread_mutex_lock(&u->lock);
	if (!(u->cr & PL011_CR_LBE)) {
		rx_push_locked(u, PL011_DR_BE);
		u->ris |= PL011_INT_BE;
		update_locked(u);
	}
	pthread_mutex_unlock(&u->lock);
}

static void stall_timer_fn(void *opaque)
{
	struct pl011 *u = opaque;

	log_guest(u->dev.id, "%s is not read; output is dropped until it is", chr_id(u->chr));
	pthread_mutex_lock(&u->lock);
	u->tx_dropping = true;
	tx_done_locked(u);
	pthread_mutex_unlock(&u->lock);
}

static void dr_write_locked(struct pl011 *u, uint8_t v)
{
	u->ris &= ~PL011_INT_TX;
	u->tx_due = true;
	if (u->cr & PL011_CR_LBE) {
		rx_push_locked(u, v);
	} else if (u->chr && u->tx_count < TX_SIZE) {
		u->tx[(u->tx_head + u->tx_count) % TX_SIZE] = v;
		u->tx_count++;
	}
	loop_post(u->vm->loop, &u->tx_work);
}

/* --- registers --- */

static uint32_t fr_value(const struct pl011 *u)
{
	uint32_t v = PL011_FR_CTS | PL011_FR_DSR | PL011_FR_DCD;

	v |= tx_room(u) ? PL011_FR_TXFE : PL011_FR_TXFF | PL011_FR_BUSY;
	if (!u->rx_count) {
		v |= PL011_FR_RXFE;
	} else if (u->rx_count == rx_capacity(u)) {
		v |= PL011_FR_RXFF;
	}
	return v;
}

static uint32_t reg_read_locked(struct pl011 *u, uint64_t off)
{
	/* PeriphID0-3 (revision r1p5) and PCellID0-3 */
	static const uint8_t id[8] = {0x11, 0x10, 0x34, 0x00, 0x0d, 0xf0, 0x05, 0xb1};

	switch (off) {
	case PL011_DR:
		return dr_read_locked(u);
	case PL011_FR:
		return fr_value(u);
	case PL011_ILPR:
		return u->ilpr;
	case PL011_IBRD:
		return u->ibrd;
	case PL011_FBRD:
		return u->fbrd;
	case PL011_LCRH:
		return u->lcrh;
	case PL011_CR:
		return u->cr;
	case PL011_IFLS:
		return u->ifls;
	case PL011_IMSC:
		return u->imsc;
	case PL011_RIS:
		return u->ris;
	case PL011_MIS:
		return u->ris & u->imsc;
	case PL011_DMACR:
		return u->dmacr;
	default:
		return off >= PL011_ID ? id[(off - PL011_ID) / 4] : 0;
	}
}

static void reg_write_locked(struct pl011 *u, uint64_t off, uint32_t v)
{
	switch (off) {
	case PL011_DR:
		dr_write_locked(u, (uint8_t)v);
		break;
	case PL011_ILPR:
		u->ilpr = v & 0xff;
		break;
	case PL011_IBRD:
		u->ibrd = v & 0xffff;
		break;
	case PL011_FBRD:
		u->fbrd = v & 0x3f;
		break;
	case PL011_LCRH:
		if ((u->lcrh ^ v) & PL011_LCRH_FEN) {
			u->rx_head = u->rx_count = 0;
			loop_post(u->vm->loop, &u->rx_work);
		}
		u->lcrh = v & 0xff;
		break;
	case PL011_CR:
		if (u->cr & ~v & PL011_CR_LBE) {
			loop_post(u->vm->loop, &u->rx_work);
		}
		u->cr = v & 0xffff;
		break;
	case PL011_IFLS:
		u->ifls = v & 0x3f;
		break;
	case PL011_IMSC:
		u->imsc = v & PL011_INT_MASK;
		break;
	case PL011_ICR:
		u->ris &= ~(v & PL011_INT_MASK);
		break;
	case PL011_DMACR:
		u->dmacr = v & 7; /* there is no DMA controller */
		break;
	default:
		break;
	}
}

static uint64_t pl011_read(void *opaque, uint64_t off, unsigned size)
{
	struct pl011 *u = opaque;
	uint32_t v;

	if (off & 3) {
		return 0; /* narrow reads are of a register's low bytes */
	}
	pthread_mutex_lock(&u->lock);
	v = reg_read_locked(u, off);
	update_locked(u);
	pthread_mutex_unlock(&u->lock);
	return v;
}

static void pl011_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
	struct pl011 *u = opaque;

	if (off & 3) {
		return;
	}
	pthread_mutex_lock(&u->lock);
	reg_write_locked(u, off, (uint32_t)value);
	update_locked(u);
	pthread_mutex_unlock(&u->lock);
}

static const struct bus_ops pl011_bus_ops = {
	.read = pl011_read,
	.write = pl011_write,
	.min_size = 1,
	.max_size = 4,
};

/* --- state --- */

struct rx_word {
	uint16_t v;
};
struct pl011_state {
	uint32_t ilpr, ibrd, fbrd, lcrh, cr, ifls, imsc, ris, dmacr;
	bool irq_level, tx_due;
	uint32_t rx_count, tx_count;
	struct rx_word rx[PL011_FIFO_SIZE];
	uint8_t tx[TX_SIZE];
};

static const struct state_desc rx_desc = {
	.name = "pl011-received",
	.version = 1,
	.min_version = 1,
	.size = sizeof(struct rx_word),
	.fields =
		(const struct state_field[]){
			STATE_F_RANGE(STATE_U16, struct rx_word, v, 0, 0xfff), STATE_F_END},
};
static const struct state_desc pl011_desc = {
	.name = "pl011",
	.version = 1,
	.min_version = 1,
	.size = sizeof(struct pl011_state),
	.fields =
		(const struct state_field[]){
			STATE_F_RANGE(STATE_U32, struct pl011_state, ilpr, 0, 0xff),
			STATE_F_RANGE(STATE_U32, struct pl011_state, ibrd, 0, 0xffff),
			STATE_F_RANGE(STATE_U32, struct pl011_state, fbrd, 0, 0x3f),
			STATE_F_RANGE(STATE_U32, struct pl011_state, lcrh, 0, 0xff),
			STATE_F_RANGE(STATE_U32, struct pl011_state, cr, 0, 0xffff),
			STATE_F_RANGE(STATE_U32, struct pl011_state, ifls, 0, 0x3f),
			STATE_F_RANGE(STATE_U32, struct pl011_state, imsc, 0, PL011_INT_MASK),
			STATE_F_RANGE(STATE_U32, struct pl011_state, ris, 0, PL011_INT_MASK),
			STATE_F_RANGE(STATE_U32, struct pl011_state, dmacr, 0, 7),
			STATE_F_BOOL(struct pl011_state, irq_level),
			STATE_F_BOOL(struct pl011_state, tx_due),
			STATE_F_VARRAY(struct pl011_state, rx, &rx_desc, rx_count),
			STATE_F_BUF(struct pl011_state, tx, tx_count),
			STATE_F_END,
		},
};

static int pl011_save(struct device *d, void *p, struct err *err)
{
	struct pl011 *u = container_of(d, struct pl011, dev);
	struct pl011_state *st = p;

	pthread_mutex_lock(&u->lock);
	*st = (struct pl011_state){
		.ilpr = u->ilpr,
		.ibrd = u->ibrd,
		.fbrd = u->fbrd,
		.lcrh = u->lcrh,
		.cr = u->cr,
		.ifls = u->ifls,
		.imsc = u->imsc,
		.ris = u->ris,
		.dmacr = u->dmacr,
		.irq_level = u->irq_level,
		.tx_due = u->tx_due,
		.rx_count = u->rx_count,
		.tx_count = u->tx_count,
	};
	for (unsigned i = 0; i < u->rx_count; i++) {
		st->rx[i].v = u->rx[(u->rx_head + i) % PL011_FIFO_SIZE];
	}
	for (unsigned i = 0; i < u->tx_count; i++) {
		st->tx[i] = u->tx[(u->tx_head + i) % TX_SIZE];
	}
	pthread_mutex_unlock(&u->lock);
	return 0;
}

static int pl011_load(struct device *d, const void *p, struct err *err)
{
	struct pl011 *u = container_of(d, struct pl011, dev);
	const struct pl011_state *st = p;

	pthread_mutex_lock(&u->lock);
	u->ilpr = st->ilpr;
	u->ibrd = st->ibrd;
	u->fbrd = st->fbrd;
	u->lcrh = st->lcrh;
	u->cr = st->cr;
	u->ifls = st->ifls;
	u->imsc = st->imsc;
	u->ris = st->ris;
	u->dmacr = st->dmacr;
	u->tx_due = st->tx_due;
	/* the line's level is in the state of the interrupt controller */
	u->irq_level = st->irq_level;
	u->rx_head = 0;
	u->rx_count = MIN(st->rx_count, rx_capacity(u));
	for (unsigned i = 0; i < u->rx_count; i++) {
		u->rx[i] = st->rx[i].v;
	}
	u->tx_head = 0;
	u->tx_count = u->chr ? st->tx_count : 0;
	memcpy(u->tx, st->tx, st->tx_count);
	update_locked(u);
	pthread_mutex_unlock(&u->lock);
	return 0;
}

/* --- life --- */

static void pl011_reset(struct device *d)
{
	struct pl011 *u = container_of(d, struct pl011, dev);

	pthread_mutex_lock(&u->lock);
	u->ilpr = u->ibrd = u->fbrd = u->lcrh = u->imsc = u->ris = u->dmacr = 0;
	u->cr = CR_RESET;
	u->ifls = 0x12;
	u->tx_due = false;
	u->rx_head = u->rx_count = 0;
	update_locked(u);
	pthread_mutex_unlock(&u->lock);
	/* what was sent before the reset is still sent */
	loop_post(u->vm->loop, &u->rx_work);
}

static void pl011_pause(struct device *d)
{
	struct pl011 *u = container_of(d, struct pl011, dev);

	tx_work_fn(u);
	pthread_mutex_lock(&u->lock);
	u->paused = true;
	pthread_mutex_unlock(&u->lock);
	loop_timer_disarm(&u->stall_timer);
	device_paused(d);
}

static void pl011_resume(struct device *d)
{
	struct pl011 *u = container_of(d, struct pl011, dev);

	pthread_mutex_lock(&u->lock);
	u->paused = false;
	pthread_mutex_unlock(&u->lock);
	tx_work_fn(u);
	rx_work_fn(u);
}

static void pl011_destroy(struct device *d)
{
	struct pl011 *u = container_of(d, struct pl011, dev);

	bus_del(u->vm->bus, &u->region);
	if (u->chr) {
		tx_drain(u); /* the last lines of the guest */
		chr_detach(u->chr);
	}
	loop_work_cancel(u->vm->loop, &u->tx_work);
	loop_work_cancel(u->vm->loop, &u->rx_work);
	loop_timer_disarm(&u->stall_timer);
	pthread_mutex_destroy(&u->lock);
	free(u);
}

static const struct device_state_ops pl011_state_ops = {
	.desc = &pl011_desc,
	.save = pl011_save,
	.load = pl011_load,
};
static const struct device_ops pl011_ops = {
	.name = "pl011",
	.reset = pl011_reset,
	.pause = pl011_pause,
	.resume = pl011_resume,
	.destroy = pl011_destroy,
	.state = (const struct device_state_ops *const[]){&pl011_state_ops, NULL},
};

int pl011_new(struct vm *vm, const struct pl011_config *cfg, struct err *err)
{
	struct pl011 *u = calloc(1, sizeof(*u));
	const struct chr_client client = {
		.rx_room = chr_cb_rx_room,
		.rx = chr_cb_rx,
		.tx_ready = chr_cb_tx_ready,
		.event = chr_cb_event,
		.opaque = u,
	};
	int ret;

	if (!u) {
		return err_set(err, ENOMEM, "no memory for the UART %s", cfg->id);
	}
	u->vm = vm;
	u->line = cfg->line;
	u->chr = cfg->chr;
	u->cr = CR_RESET;
	u->ifls = 0x12;
	pthread_mutex_init(&u->lock, NULL);
	u->tx_work = (struct loop_work){.fn = tx_work_fn, .arg = u};
	u->rx_work = (struct loop_work){.fn = rx_work_fn, .arg = u};
	loop_timer_init(vm->loop, &u->stall_timer, stall_timer_fn, u);
	u->region = (struct bus_region){
		.name = "pl011",
		.space = BUS_MMIO,
		.base = cfg->base,
		.size = SIZE,
		.ops = &pl011_bus_ops,
		.opaque = u,
	};
	ret = bus_add(vm->bus, &u->region);
	if (ret) {
		err_set(err, -ret, "%s: cannot use the addresses at %#llx: %s", cfg->id,
			(unsigned long long)cfg->base, strerror(-ret));
		goto free_uart;
	}
	ret = device_add(vm->devices, &u->dev, &pl011_ops, cfg->id, err);
	if (ret) {
		goto del_region;
	}
	if (u->chr) {
		ret = chr_attach(u->chr, &client, err);
		if (ret) {
			goto remove_device;
		}
	}
	return 0;

remove_device:
	device_remove(&u->dev);
del_region:
	bus_del(vm->bus, &u->region);
free_uart:
	pthread_mutex_destroy(&u->lock);
	free(u);
	return ret;
}
