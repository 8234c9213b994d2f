/*
 * PrimeCell UART (PL011), also as ACPI's SBSA generic UART. ARM DDI 0183G. serial_int.h has the
 * flow of bytes, its invariants, threads and locks; here are the registers.
 *
 * The transmit FIFO is full only when there is no room to send. Bytes below the trigger level raise
 * the timeout interrupt at once instead of after 32 bit times: the guest takes what there is either
 * way. In loopback what is sent comes back. Modem inputs are on and never change.
 *
 * Untrusted: the guest; the back end's peer.
 */
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>

#include "base/util.h"
#include "device/platform/serial_int.h"
#include "spec/primecell.h"

/* Error flags of a byte stand above it in DR. */
#define DR_ERROR_SHIFT 8
_Static_assert(SERIAL_FIFO == PL011_FIFO_SIZE, "DDI 0183G");

struct pl011_regs {
	uint32_t ilpr, ibrd, fbrd, lcrh, cr, ifls, imsc, ris, dmacr;
};
static const struct pl011_regs reset_values = {
	.cr = PL011_CR_TXE | PL011_CR_RXE,
	.ifls = 0x12,
};
/* Those that read as they were written. There is no DMA controller. */
static const struct {
	uint16_t at, mask;
	size_t member;
} plain[] = {
	{PL011_ILPR, 0xff, offsetof(struct pl011_regs, ilpr)},
	{PL011_IBRD, 0xffff, offsetof(struct pl011_regs, ibrd)},
	{PL011_FBRD, 0x3f, offsetof(struct pl011_regs, fbrd)},
	{PL011_LCRH, 0xff, offsetof(struct pl011_regs, lcrh)},
	{PL011_CR, 0xffff, offsetof(struct pl011_regs, cr)},
	{PL011_IFLS, 0x3f, offsetof(struct pl011_regs, ifls)},
	{PL011_IMSC, PL011_INT_MASK, offsetof(struct pl011_regs, imsc)},
	{PL011_DMACR, 0x7, offsetof(struct pl011_regs, dmacr)},
};

struct pl011 {
	struct serial s; /* first: the port is freed by it, and is the bus region's opaque */
	struct pl011_regs r; /* s.lock */
};

static struct pl011 *pl011_of(struct serial *s)
{
	return container_of(s, struct pl011, s);
}

static unsigned rx_trigger(const struct pl011 *u)
{
	static const uint8_t level[8] = {2, 4, 8, 12, 14, 14, 14, 14};

	return u->s.fifo ? level[u->r.ifls >> 3 & 7] : 1;
}

static void update_locked(struct serial *s)
{
	struct pl011 *u = pl011_of(s);

	u->r.ris &= ~(PL011_INT_RX | PL011_INT_RT);
	if (s->rx_count) {
		u->r.ris |= s->rx_count >= rx_trigger(u) ? PL011_INT_RX : PL011_INT_RT;
	}
	serial_irq_set_locked(s, u->r.ris & u->r.imsc);
}

static void received_locked(struct serial *s, uint8_t error, bool overrun)
{
	pl011_of(s)->r.ris |= (overrun ? PL011_INT_OE : 0) | (error ? PL011_INT_BE : 0);
}

static void sent_locked(struct serial *s)
{
	pl011_of(s)->r.ris |= PL011_INT_TX;
	update_locked(s);
}

static const struct serial_ops pl011_serial_ops = {
	.received = received_locked,
	.update = update_locked,
	.sent = sent_locked,
	.break_error = PL011_DR_BE >> DR_ERROR_SHIFT,
};

/* --- registers --- */

/* LCRH and CR say how bytes flow. */
static void modes_apply_locked(struct pl011 *u)
{
	u->s.fifo = u->r.lcrh & PL011_LCRH_FEN;
	u->s.loopback = u->r.cr & PL011_CR_LBE;
}

static uint32_t fr_value(const struct pl011 *u)
{
	uint32_t v = PL011_FR_CTS | PL011_FR_DSR | PL011_FR_DCD;

	v |= serial_tx_room(&u->s) ? PL011_FR_TXFE : PL011_FR_TXFF | PL011_FR_BUSY;
	if (!u->s.rx_count) {
		v |= PL011_FR_RXFE;
	} else if (u->s.rx_count == serial_rx_capacity(&u->s)) {
		v |= PL011_FR_RXFF;
	}
	return v;
}

static uint32_t dr_read_locked(struct pl011 *u)
{
	uint8_t error, byte = serial_receive_locked(&u->s, &error);

	return byte | (uint32_t)error << DR_ERROR_SHIFT;
}

/* The plain register at off, with the bits that it has; NULL: it is none. */
static uint32_t *plain_reg(struct pl011 *u, uint64_t off, uint32_t *mask)
{
	for (size_t i = 0; i < ARRAY_SIZE(plain); i++) {
		if (plain[i].at == off) {
			*mask = plain[i].mask;
			return (uint32_t *)((char *)&u->r + plain[i].member);
		}
	}
	return NULL;
}

static uint32_t reg_read_locked(struct pl011 *u, uint64_t off)
{
	/* PeriphID0-3 (revision r1p5) and PCellID0-3 */
	static const uint8_t id[8] = {0x11, 0x10, 0x34, 0x00, 0x0d, 0xf0, 0x05, 0xb1};
	uint32_t mask, *reg;

	switch (off) {
	case PL011_DR:
		return dr_read_locked(u);
	case PL011_FR:
		return fr_value(u);
	case PL011_RIS:
		return u->r.ris;
	case PL011_MIS:
		return u->r.ris & u->r.imsc;
	default:
		reg = plain_reg(u, off, &mask);
		return reg ? *reg : off >= PRIMECELL_ID ? id[(off - PRIMECELL_ID) / 4] : 0;
	}
}

static void reg_write_locked(struct pl011 *u, uint64_t off, uint32_t v)
{
	uint32_t mask, before, *reg = plain_reg(u, off, &mask);

	if (reg) {
		before = *reg;
		*reg = v & mask;
		if (off == PL011_LCRH && (before ^ v) & PL011_LCRH_FEN) {
			serial_flush_locked(&u->s);
		} else if (off == PL011_CR && before & ~v & PL011_CR_LBE) {
			serial_look_locked(&u->s);
		}
		modes_apply_locked(u);
	} else if (off == PL011_DR) {
		u->r.ris &= ~PL011_INT_TX;
		serial_send_locked(&u->s, (uint8_t)v);
	} else if (off == PL011_ICR) {
		u->r.ris &= ~(v & PL011_INT_MASK);
	}
}

static uint64_t pl011_read(void *opaque, uint64_t off, unsigned size)
{
	struct pl011 *u = opaque;
	uint32_t v;

	if (off & 3) {
		return 0; /* narrow reads are of a register's low bytes */
	}
	pthread_mutex_lock(&u->s.lock);
	v = reg_read_locked(u, off);
	update_locked(&u->s);
	pthread_mutex_unlock(&u->s.lock);
	return v;
}

static void pl011_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
	struct pl011 *u = opaque;

	if (off & 3) {
		return;
	}
	pthread_mutex_lock(&u->s.lock);
	reg_write_locked(u, off, (uint32_t)value);
	update_locked(&u->s);
	pthread_mutex_unlock(&u->s.lock);
}

static const struct bus_ops pl011_bus_ops = {
	.read = pl011_read,
	.write = pl011_write,
	.min_size = 1,
	.max_size = 4,
};

/* --- state --- */

struct pl011_state {
	struct pl011_regs r;
	bool tx_due;
	struct serial_state serial;
};

static const struct state_desc regs_desc = {
	.name = "pl011-registers",
	.version = 1,
	.min_version = 1,
	.size = sizeof(struct pl011_regs),
	.fields =
		(const struct state_field[]){
			STATE_F_RANGE(STATE_U32, struct pl011_regs, ilpr, 0, 0xff),
			STATE_F_RANGE(STATE_U32, struct pl011_regs, ibrd, 0, 0xffff),
			STATE_F_RANGE(STATE_U32, struct pl011_regs, fbrd, 0, 0x3f),
			STATE_F_RANGE(STATE_U32, struct pl011_regs, lcrh, 0, 0xff),
			STATE_F_RANGE(STATE_U32, struct pl011_regs, cr, 0, 0xffff),
			STATE_F_RANGE(STATE_U32, struct pl011_regs, ifls, 0, 0x3f),
			STATE_F_RANGE(STATE_U32, struct pl011_regs, imsc, 0, PL011_INT_MASK),
			STATE_F_RANGE(STATE_U32, struct pl011_regs, ris, 0, PL011_INT_MASK),
			STATE_F_RANGE(STATE_U32, struct pl011_regs, dmacr, 0, 7),
			STATE_F_END,
		},
};
static const struct state_desc pl011_desc = {
	.name = "pl011",
	.version = 1,
	.min_version = 1,
	.size = sizeof(struct pl011_state),
	.fields =
		(const struct state_field[]){
			STATE_F_STRUCT(struct pl011_state, r, &regs_desc),
			STATE_F_BOOL(struct pl011_state, tx_due),
			SERIAL_STATE_FIELDS(struct pl011_state),
			STATE_F_END,
		},
};

static int pl011_save(struct device *d, void *p, struct err *err)
{
	struct pl011 *u = container_of(d, struct pl011, s.dev);
	struct pl011_state *st = p;

	pthread_mutex_lock(&u->s.lock);
	st->r = u->r;
	st->tx_due = u->s.tx_due;
	serial_save_locked(&u->s, &st->serial);
	pthread_mutex_unlock(&u->s.lock);
	return 0;
}

static int pl011_load(struct device *d, const void *p, struct err *err)
{
	struct pl011 *u = container_of(d, struct pl011, s.dev);
	const struct pl011_state *st = p;

	pthread_mutex_lock(&u->s.lock);
	u->r = st->r;
	modes_apply_locked(u);
	u->s.tx_due = st->tx_due;
	serial_load_locked(&u->s, &st->serial, PL011_DR_ERRORS >> DR_ERROR_SHIFT);
	update_locked(&u->s);
	pthread_mutex_unlock(&u->s.lock);
	return 0;
}

/* --- life --- */

static void pl011_reset(struct device *d)
{
	struct pl011 *u = container_of(d, struct pl011, s.dev);

	pthread_mutex_lock(&u->s.lock);
	u->r = reset_values;
	modes_apply_locked(u);
	u->s.tx_due = false;
	serial_flush_locked(&u->s);
	update_locked(&u->s);
	pthread_mutex_unlock(&u->s.lock);
	/* what was sent before the reset is still sent */
}

static void pl011_pause(struct device *d)
{
	serial_pause(d);
	device_paused(d);
}

static void pl011_destroy(struct device *d)
{
	struct pl011 *u = container_of(d, struct pl011, s.dev);

	serial_del(&u->s);
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
	.resume = serial_resume,
	.destroy = pl011_destroy,
	.state = (const struct device_state_ops *const[]){&pl011_state_ops, NULL},
};

int pl011_new(struct vm *vm, const struct serial_config *cfg, struct err *err)
{
	struct pl011 *u = calloc(1, sizeof(*u));

	if (!u) {
		return err_set(err, ENOMEM, "no memory for the UART %s", cfg->id);
	}
	u->r = reset_values;
	u->s.region = (struct bus_region){
		.name = "pl011",
		.space = BUS_MMIO,
		.size = PRIMECELL_SIZE,
		.ops = &pl011_bus_ops,
	};
	return serial_add(&u->s, vm, cfg, &pl011_serial_ops, &pl011_ops, err);
}
