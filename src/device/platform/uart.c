/*
 * 16550A UART. National Semiconductor PC16550D datasheet, section 8. serial_int.h has the flow of
 * bytes, its invariants, threads and locks; here are the registers.
 *
 * THRE and TEMT stay set while there is room to send. The trigger level and the character timeout
 * work as in the datasheet, the timeout by the baud rate that the guest has set. Error flags travel
 * with their byte; only breaks occur.
 *
 * Interrupts in order of priority: line status, data or timeout, THRE, modem status. The line is
 * the OR of what is enabled and pending; reading IIR clears THRE's. OUT2 does not gate it, as not
 * every driver of a described (not legacy) UART sets it. In loopback (MCR bit 4) transmitted
 * bytes come back and the modem outputs are the inputs; otherwise CTS, DSR and DCD are on.
 *
 * Untrusted: the guest; the peer of the back end.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/util.h"
#include "device/platform/serial_int.h"
#include "spec/uart16550.h"

#define TIMEOUT_MAX UINT64_C(1000000000) /* of the character timeout, whatever the baud rate */
#define MODEM_ON    (UART_MSR_CTS | UART_MSR_DSR | UART_MSR_DCD)
#define LSR_ERRORS  (UART_LSR_OE | UART_LSR_PE | UART_LSR_FE | UART_LSR_BI)
_Static_assert(SERIAL_FIFO == UART_FIFO_SIZE, "PC16550D");

struct uart {
	struct serial s; /* first: the port is freed by it, and is the bus region's opaque */
	/* s.lock */
	uint8_t ier, lcr, mcr, scr, dll, dlm;
	uint8_t fcr;	       /* FIFO enable and trigger level; 0: FIFOs off */
	uint8_t msr_delta;     /* UART_MSR_D* and TERI, until MSR is read */
	uint8_t lsr_error;     /* OE, BI, … until LSR is read */
	bool thri;	       /* the THRE interrupt is pending; s.tx_due: … and is to be */
	bool timeout;	       /* the character timeout has happened */
	uint64_t rx_active_ns; /* when a byte came or went */

	struct loop_timer rx_timer; /* control loop */
};

/* --- what the registers say --- */

static struct uart *uart_of(struct serial *s)
{
	return container_of(s, struct uart, s);
}

static unsigned rx_trigger(const struct uart *u)
{
	static const uint8_t level[4] = {1, 4, 8, 14};

	return u->s.fifo ? level[u->fcr >> 6] : 1;
}

static uint8_t lsr_value(const struct uart *u)
{
	uint8_t v = u->lsr_error;

	if (u->s.rx_count) {
		v |= UART_LSR_DR | u->s.rx_error[u->s.rx_head];
	}
	for (unsigned i = 0; u->s.fifo && i < u->s.rx_count; i++) {
		if (u->s.rx_error[(u->s.rx_head + i) % UART_FIFO_SIZE]) {
			v |= UART_LSR_ERRF;
		}
	}
	if (serial_tx_room(&u->s)) {
		v |= UART_LSR_THRE | UART_LSR_TEMT;
	}
	return v;
}

static uint8_t modem_lines(uint8_t mcr)
{
	if (!(mcr & UART_MCR_LOOP)) {
		return MODEM_ON;
	}
	return (uint8_t)((mcr & UART_MCR_DTR ? UART_MSR_DSR : 0) |
			 (mcr & UART_MCR_RTS ? UART_MSR_CTS : 0) |
			 (mcr & UART_MCR_OUT1 ? UART_MSR_RI : 0) |
			 (mcr & UART_MCR_OUT2 ? UART_MSR_DCD : 0));
}

/* The most urgent interrupt that is enabled and pending, as in IIR. */
static uint8_t iir_value(const struct uart *u)
{
	if (u->ier & UART_IER_ELSI && lsr_value(u) & LSR_ERRORS) {
		return UART_IIR_RLSI;
	}
	if (u->ier & UART_IER_ERBFI && u->s.rx_count >= rx_trigger(u)) {
		return UART_IIR_RDI;
	}
	if (u->ier & UART_IER_ERBFI && u->timeout) {
		return UART_IIR_TIMEOUT;
	}
	if (u->ier & UART_IER_ETBEI && u->thri) {
		return UART_IIR_THRI;
	}
	if (u->ier & UART_IER_EDSSI && u->msr_delta) {
		return UART_IIR_MSI;
	}
	return UART_IIR_NONE;
}

static void irq_update_locked(struct serial *s)
{
	serial_irq_set_locked(s, iir_value(uart_of(s)) != UART_IIR_NONE);
}

/* --- receiving --- */

/* Four characters at the guest's baud rate. */
static uint64_t timeout_ns(const struct uart *u)
{
	uint64_t divisor = u->dll | (uint64_t)u->dlm << 8;
	uint64_t bits = 1 + 5 + (u->lcr & UART_LCR_WLS) + (u->lcr & UART_LCR_PEN ? 1 : 0) +
			(u->lcr & UART_LCR_STB ? 2 : 1);

	divisor = divisor ? divisor : 1;
	return MIN(4 * bits * divisor * 16 * 1000000000 / UART_CLOCK_HZ, TIMEOUT_MAX);
}

static void received_locked(struct serial *s, uint8_t error, bool overrun)
{
	struct uart *u = uart_of(s);

	if (overrun) {
		u->lsr_error |= UART_LSR_OE;
		return;
	}
	u->timeout = false;
	u->rx_active_ns = loop_now_ns(s->vm->loop);
}

static void rx_clear_locked(struct uart *u)
{
	serial_flush_locked(&u->s);
	u->timeout = false;
}

/* Bytes that wait below the trigger level need the timer. */
static void waiting_locked(struct serial *s)
{
	struct uart *u = uart_of(s);

	if (s->fifo && s->rx_count && !u->timeout && !u->rx_timer.armed) {
		loop_timer_arm(&u->rx_timer, u->rx_active_ns + timeout_ns(u));
	}
}

static void rx_timer_fn(void *opaque)
{
	struct uart *u = opaque;

	pthread_mutex_lock(&u->s.lock);
	if (u->s.rx_count && u->s.fifo) {
		if (loop_now_ns(u->s.vm->loop) >= u->rx_active_ns + timeout_ns(u)) {
			u->timeout = true;
			irq_update_locked(&u->s);
		} else if (!u->s.paused) {
			waiting_locked(&u->s);
		}
	}
	pthread_mutex_unlock(&u->s.lock);
}

static uint8_t rbr_read_locked(struct uart *u)
{
	uint8_t v;

	if (!u->s.rx_count) {
		return 0;
	}
	v = serial_receive_locked(&u->s, NULL);
	u->timeout = false;
	u->rx_active_ns = loop_now_ns(u->s.vm->loop);
	if (u->s.rx_count && u->s.rx_count < rx_trigger(u)) {
		serial_look_locked(&u->s); /* what is left needs the timer */
	}
	return v;
}

/* --- sending --- */

/* THR is empty. */
static void sent_locked(struct serial *s)
{
	uart_of(s)->thri = true;
	irq_update_locked(s);
}

static const struct serial_ops uart_serial_ops = {
	.received = received_locked,
	.update = irq_update_locked,
	.waiting = waiting_locked,
	.sent = sent_locked,
	.break_error = UART_LSR_BI,
};

/* --- registers --- */

static void fcr_set_locked(struct uart *u, uint8_t v)
{
	u->fcr = v & UART_FCR_ENABLE ? v & (UART_FCR_ENABLE | UART_FCR_TRIGGER) : 0;
	u->s.fifo = v & UART_FCR_ENABLE;
}

static void fcr_write_locked(struct uart *u, uint8_t v)
{
	bool toggled = (v ^ u->fcr) & UART_FCR_ENABLE;

	if (toggled || (v & UART_FCR_ENABLE && v & UART_FCR_CLEAR_RX)) {
		rx_clear_locked(u);
	}
	/* Clearing the transmitter drops nothing: what is in the ring was sent long ago. */
	fcr_set_locked(u, v);
}

static void mcr_set_locked(struct uart *u, uint8_t v)
{
	u->mcr = v;
	u->s.loopback = v & UART_MCR_LOOP;
}

static void mcr_write_locked(struct uart *u, uint8_t v)
{
	uint8_t before = modem_lines(u->mcr), after;

	v &= UART_MCR_MASK;
	if ((u->mcr & ~v & UART_MCR_LOOP) && u->s.rx_stalled) {
		serial_look_locked(&u->s);
	}
	mcr_set_locked(u, v);
	after = modem_lines(v);
	u->msr_delta |=
		(uint8_t)(((before ^ after) & (UART_MSR_CTS | UART_MSR_DSR | UART_MSR_DCD)) >>
			  4);
	if (before & ~after & UART_MSR_RI) {
		u->msr_delta |= UART_MSR_TERI;
	}
}

static void ier_write_locked(struct uart *u, uint8_t v)
{
	v &= UART_IER_MASK;
	if ((v ^ u->ier) & UART_IER_ETBEI) {
		u->thri = v & UART_IER_ETBEI && serial_tx_room(&u->s);
		u->s.tx_due &= !u->thri;
	}
	u->ier = v;
}

static uint8_t reg_read_locked(struct uart *u, unsigned reg)
{
	bool dlab = u->lcr & UART_LCR_DLAB;
	uint8_t v;

	switch (reg) {
	case UART_RBR:
		return dlab ? u->dll : rbr_read_locked(u);
	case UART_IER:
		return dlab ? u->dlm : u->ier;
	case UART_IIR:
		v = iir_value(u);
		if (v == UART_IIR_THRI) {
			u->thri = false;
		}
		return v | (u->s.fifo ? UART_IIR_FIFO : 0);
	case UART_LCR:
		return u->lcr;
	case UART_MCR:
		return u->mcr;
	case UART_LSR:
		v = lsr_value(u);
		u->lsr_error = 0;
		if (u->s.rx_count) {
			u->s.rx_error[u->s.rx_head] = 0;
		}
		return v;
	case UART_MSR:
		v = modem_lines(u->mcr) | u->msr_delta;
		u->msr_delta = 0;
		return v;
	default:
		return u->scr;
	}
}

static uint64_t uart_read(void *opaque, uint64_t off, unsigned size)
{
	struct uart *u = opaque;
	uint8_t v;

	pthread_mutex_lock(&u->s.lock);
	v = reg_read_locked(u, (unsigned)off);
	irq_update_locked(&u->s);
	pthread_mutex_unlock(&u->s.lock);
	return v;
}

static void uart_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
	struct uart *u = opaque;
	uint8_t v = (uint8_t)value;
	bool dlab;

	pthread_mutex_lock(&u->s.lock);
	dlab = u->lcr & UART_LCR_DLAB;
	switch (off) {
	case UART_THR:
		if (dlab) {
			u->dll = v;
		} else {
			u->thri = false;
			serial_send_locked(&u->s, v);
		}
		break;
	case UART_IER:
		if (dlab) {
			u->dlm = v;
		} else {
			ier_write_locked(u, v);
		}
		break;
	case UART_FCR:
		fcr_write_locked(u, v);
		break;
	case UART_LCR:
		u->lcr = v;
		break;
	case UART_MCR:
		mcr_write_locked(u, v);
		break;
	case UART_SCR:
		u->scr = v;
		break;
	default:
		break; /* LSR, MSR: factory test, nothing to write */
	}
	irq_update_locked(&u->s);
	pthread_mutex_unlock(&u->s.lock);
}

static const struct bus_ops uart_bus_ops = {
	.read = uart_read,
	.write = uart_write,
	.min_size = 1,
	.max_size = 1,
};

/* --- state --- */

struct uart_state {
	uint8_t ier, lcr, mcr, scr, dll, dlm, fcr, msr_delta, lsr_error;
	bool thri, thri_due, timeout;
	struct serial_state serial;
};

static int uart_validate(const void *p, struct err *err)
{
	const struct uart_state *st = p;

	if (st->serial.rx_count > 1 && !(st->fcr & UART_FCR_ENABLE)) {
		return err_set(err, EINVAL, "the state has %u bytes in a UART without FIFO",
			       st->serial.rx_count);
	}
	return 0;
}

static const struct state_desc uart_desc = {
	.name = "uart",
	.version = 1,
	.min_version = 1,
	.size = sizeof(struct uart_state),
	.fields =
		(const struct state_field[]){
			STATE_F_RANGE(STATE_U8, struct uart_state, ier, 0, UART_IER_MASK),
			STATE_F_U8(struct uart_state, lcr),
			STATE_F_RANGE(STATE_U8, struct uart_state, mcr, 0, UART_MCR_MASK),
			STATE_F_U8(struct uart_state, scr),
			STATE_F_U8(struct uart_state, dll),
			STATE_F_U8(struct uart_state, dlm),
			STATE_F_U8(struct uart_state, fcr),
			STATE_F_RANGE(STATE_U8, struct uart_state, msr_delta, 0, 0x0f),
			STATE_F_RANGE(STATE_U8, struct uart_state, lsr_error, 0, LSR_ERRORS),
			STATE_F_BOOL(struct uart_state, thri),
			STATE_F_BOOL(struct uart_state, thri_due),
			STATE_F_BOOL(struct uart_state, timeout),
			SERIAL_STATE_FIELDS(struct uart_state),
			STATE_F_END,
		},
	.validate = uart_validate,
};

static int uart_save(struct device *d, void *p, struct err *err)
{
	struct uart *u = container_of(d, struct uart, s.dev);
	struct uart_state *st = p;

	pthread_mutex_lock(&u->s.lock);
	st->ier = u->ier;
	st->lcr = u->lcr;
	st->mcr = u->mcr;
	st->scr = u->scr;
	st->dll = u->dll;
	st->dlm = u->dlm;
	st->fcr = u->fcr;
	st->msr_delta = u->msr_delta;
	st->lsr_error = u->lsr_error;
	st->thri = u->thri;
	st->thri_due = u->s.tx_due;
	st->timeout = u->timeout;
	serial_save_locked(&u->s, &st->serial);
	pthread_mutex_unlock(&u->s.lock);
	return 0;
}

static int uart_load(struct device *d, const void *p, struct err *err)
{
	struct uart *u = container_of(d, struct uart, s.dev);
	const struct uart_state *st = p;

	pthread_mutex_lock(&u->s.lock);
	u->ier = st->ier;
	u->lcr = st->lcr;
	mcr_set_locked(u, st->mcr);
	u->scr = st->scr;
	u->dll = st->dll;
	u->dlm = st->dlm;
	fcr_set_locked(u, st->fcr);
	u->msr_delta = st->msr_delta;
	u->lsr_error = st->lsr_error;
	u->thri = st->thri;
	u->s.tx_due = st->thri_due;
	u->timeout = st->timeout;
	serial_load_locked(&u->s, &st->serial, LSR_ERRORS);
	u->rx_active_ns = loop_now_ns(u->s.vm->loop);
	irq_update_locked(&u->s);
	pthread_mutex_unlock(&u->s.lock);
	return 0;
}

/* --- life --- */

static void uart_reset(struct device *d)
{
	struct uart *u = container_of(d, struct uart, s.dev);

	pthread_mutex_lock(&u->s.lock);
	u->ier = 0;
	u->lcr = 0;
	mcr_set_locked(u, 0);
	u->scr = 0;
	fcr_set_locked(u, 0);
	u->dll = 12; /* 9600 baud */
	u->dlm = 0;
	u->msr_delta = 0;
	u->lsr_error = 0;
	u->thri = false;
	u->s.tx_due = false;
	rx_clear_locked(u);
	irq_update_locked(&u->s);
	pthread_mutex_unlock(&u->s.lock);
	/* what was sent before the reset is still sent */
}

static void uart_pause(struct device *d)
{
	struct uart *u = container_of(d, struct uart, s.dev);

	serial_pause(d);
	loop_timer_disarm(&u->rx_timer);
	device_paused(d);
}

static void uart_destroy(struct device *d)
{
	struct uart *u = container_of(d, struct uart, s.dev);

	serial_del(&u->s);
	loop_timer_disarm(&u->rx_timer);
	free(u);
}

static const struct device_state_ops uart_state_ops = {
	.desc = &uart_desc,
	.save = uart_save,
	.load = uart_load,
};
static const struct device_ops uart_ops = {
	.name = "uart",
	.reset = uart_reset,
	.pause = uart_pause,
	.resume = serial_resume,
	.destroy = uart_destroy,
	.state = (const struct device_state_ops *const[]){&uart_state_ops, NULL},
};

int uart_new(struct vm *vm, const struct serial_config *cfg, struct err *err)
{
	struct uart *u = calloc(1, sizeof(*u));

	if (!u) {
		return err_set(err, ENOMEM, "no memory for the UART %s", cfg->id);
	}
	u->dll = 12;
	loop_timer_init(vm->loop, &u->rx_timer, rx_timer_fn, u);
	u->s.region = (struct bus_region){
		.name = "uart",
		.space = BUS_PIO,
		.size = 8,
		.ops = &uart_bus_ops,
	};
	return serial_add(&u->s, vm, cfg, &uart_serial_ops, &uart_ops, err);
}
