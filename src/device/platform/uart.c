/*
 * 16550A UART. National Semiconductor PC16550D datasheet, section 8.
 *
 * To a guest that polls, the line is infinitely fast: THRE and TEMT stay set while the ring of
 * TX_SIZE bytes has room for a FIFO. The control loop empties the ring into the character back
 * end and then raises the THRE interrupt, once for all that was written meanwhile; a byte costs a
 * wake-up of the loop only when the loop was idle. When the back end takes no more the ring fills
 * and THRE goes out. If it stays full for STALL_NS, THRE comes back and what is written is
 * dropped until the back end moves: a terminal that nobody reads does not hold up the guest.
 *
 * Received bytes go to a FIFO of 16 (1 with FIFOs off); the back end is read only as far as there
 * is room. The trigger level and the character timeout work as in the datasheet, the timeout by
 * the baud rate that the guest has set. Error flags travel with their byte; only breaks occur.
 *
 * Interrupts in order of priority: line status, data or timeout, THRE, modem status. The line is
 * the OR of what is enabled and pending; reading IIR clears THRE's. OUT2 does not gate it, as not
 * every driver of a described (not legacy) UART sets it. In loopback (MCR bit 4) transmitted
 * bytes come back and the modem outputs are the inputs; otherwise CTS, DSR and DCD are on.
 *
 * Invariants
 *  1. irq_level is what was last given to the line; the line is set under `lock`, so levels
 *     cannot overtake each other.
 *  2. The ring's bytes [tx_head, tx_head + tx_count) change only by consumption on the control
 *     loop, so it hands them to the back end without the lock.
 *  3. rx_stalled: the back end was told that there is no room and waits for chr_rx_room().
 *
 * Threads and locks: registers on vCPU threads under `lock`; back end, timers and posted work on
 * the control loop. The back end is never called with the lock held (it may call back).
 * Untrusted: the guest; the peer of the back end.
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
#include "device/platform/uart.h"
#include "event/loop.h"
#include "spec/uart16550.h"

#define TX_SIZE	    4096u
#define STALL_NS    UINT64_C(500000000)
#define TIMEOUT_MAX UINT64_C(1000000000) /* of the character timeout, whatever the baud rate */
#define MODEM_ON    (UART_MSR_CTS | UART_MSR_DSR | UART_MSR_DCD)
#define LSR_ERRORS  (UART_LSR_OE | UART_LSR_PE | UART_LSR_FE | UART_LSR_BI)

struct uart {
	struct device dev;
	struct vm *vm;
	struct bus_region region;
	struct irq_line line;
	struct chr *chr; /* NULL: none */

	pthread_mutex_t lock;
	uint8_t ier, lcr, mcr, scr, dll, dlm;
	uint8_t fcr;	   /* FIFO enable and trigger level; 0: FIFOs off */
	uint8_t msr_delta; /* UART_MSR_D* and TERI, until MSR is read */
	uint8_t lsr_error; /* OE, BI, … until LSR is read */
	bool thri;	   /* the THRE interrupt is pending */
	bool thri_due; /* … and is to be when the control loop has taken what was written */
	bool timeout;  /* the character timeout has happened */
	bool irq_level;

	uint8_t rx[UART_FIFO_SIZE], rx_error[UART_FIFO_SIZE];
	unsigned rx_head, rx_count;
	bool rx_stalled;
	uint64_t rx_active_ns; /* when a byte came or went */

	uint8_t tx[TX_SIZE];
	unsigned tx_head, tx_count;
	bool tx_blocked;  /* the back end is full and will call tx_ready */
	bool tx_dropping; /* it has been for too long */

	/* control loop */
	bool paused;
	struct loop_work tx_work, rx_work;
	struct loop_timer rx_timer, stall_timer;
};

/* --- what the registers say --- */

static bool fifo_on(const struct uart *u)
{
	return u->fcr & UART_FCR_ENABLE;
}

static unsigned rx_capacity(const struct uart *u)
{
	return fifo_on(u) ? UART_FIFO_SIZE : 1;
}

static unsigned rx_trigger(const struct uart *u)
{
	static const uint8_t level[4] = {1, 4, 8, 14};

	return fifo_on(u) ? level[u->fcr >> 6] : 1;
}

static bool tx_room(const struct uart *u)
{
	return u->tx_dropping || TX_SIZE - u->tx_count >= UART_FIFO_SIZE;
}

static uint8_t lsr_value(const struct uart *u)
{
	uint8_t v = u->lsr_error;

	if (u->rx_count) {
		v |= UART_LSR_DR | u->rx_error[u->rx_head];
	}
	for (unsigned i = 0; fifo_on(u) && i < u->rx_count; i++) {
		if (u->rx_error[(u->rx_head + i) % UART_FIFO_SIZE]) {
			v |= UART_LSR_ERRF;
		}
	}
	if (tx_room(u)) {
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
	if (u->ier & UART_IER_ERBFI && u->rx_count >= rx_trigger(u)) {
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

static void irq_update_locked(struct uart *u)
{
	bool level = iir_value(u) != UART_IIR_NONE;

	if (level != u->irq_level) {
		u->irq_level = level;
		irq_line_set(&u->line, level);
	}
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

static void rx_push_locked(struct uart *u, uint8_t byte, uint8_t error)
{
	unsigned at;

	if (u->rx_count == rx_capacity(u)) {
		u->lsr_error |= UART_LSR_OE;
		return;
	}
	at = (u->rx_head + u->rx_count) % UART_FIFO_SIZE;
	u->rx[at] = byte;
	u->rx_error[at] = error;
	u->rx_count++;
	u->timeout = false;
	u->rx_active_ns = loop_now_ns(u->vm->loop);
}

static void rx_clear_locked(struct uart *u)
{
	u->rx_head = 0;
	u->rx_count = 0;
	u->timeout = false;
}

/* Bytes that wait below the trigger level need the timer; control loop. */
static void rx_timer_arm_locked(struct uart *u)
{
	if (fifo_on(u) && u->rx_count && !u->timeout && !u->rx_timer.armed && !u->paused) {
		loop_timer_arm(&u->rx_timer, u->rx_active_ns + timeout_ns(u));
	}
}

static void rx_timer_fn(void *opaque)
{
	struct uart *u = opaque;

	pthread_mutex_lock(&u->lock);
	if (u->rx_count && fifo_on(u)) {
		if (loop_now_ns(u->vm->loop) >= u->rx_active_ns + timeout_ns(u)) {
			u->timeout = true;
			irq_update_locked(u);
		} else {
			rx_timer_arm_locked(u);
		}
	}
	pthread_mutex_unlock(&u->lock);
}

/* The guest made room, or left bytes below the trigger level. */
static void rx_work_fn(void *opaque)
{
	struct uart *u = opaque;
	bool room;

	pthread_mutex_lock(&u->lock);
	rx_timer_arm_locked(u);
	room = u->rx_stalled && !u->paused && !(u->mcr & UART_MCR_LOOP) &&
	       u->rx_count < rx_capacity(u);
	pthread_mutex_unlock(&u->lock);
	if (room && u->chr) {
		chr_rx_room(u->chr);
	}
}

static size_t chr_cb_rx_room(void *opaque)
{
	struct uart *u = opaque;
	size_t room;

	pthread_mutex_lock(&u->lock);
	room = u->paused || u->mcr & UART_MCR_LOOP ? 0 : rx_capacity(u) - u->rx_count;
	u->rx_stalled = !room;
	pthread_mutex_unlock(&u->lock);
	return room;
}

static void chr_cb_rx(void *opaque, const uint8_t *buf, size_t len)
{
	struct uart *u = opaque;

	pthread_mutex_lock(&u->lock);
	for (size_t i = 0; i < len; i++) {
		/* room was asked for; the guest may have turned the FIFO off since */
		rx_push_locked(u, buf[i], 0);
	}
	rx_timer_arm_locked(u);
	irq_update_locked(u);
	pthread_mutex_unlock(&u->lock);
}

static uint8_t rbr_read_locked(struct uart *u)
{
	uint8_t v;

	if (!u->rx_count) {
		return 0;
	}
	v = u->rx[u->rx_head];
	u->rx_head = (u->rx_head + 1) % UART_FIFO_SIZE;
	u->rx_count--;
	u->timeout = false;
	u->rx_active_ns = loop_now_ns(u->vm->loop);
	/* bytes come in again when the FIFO is half empty; what is left below the trigger level
	 * needs the timer */
	if ((u->rx_stalled && u->rx_count <= rx_capacity(u) / 2) ||
	    (u->rx_count && u->rx_count < rx_trigger(u))) {
		loop_post(u->vm->loop, &u->rx_work);
	}
	return v;
}

/* --- sending --- */

/* The control loop was here: THR is empty if there is room. */
static void tx_done_locked(struct uart *u)
{
	if (u->thri_due && tx_room(u)) {
		u->thri_due = false;
		u->thri = true;
		irq_update_locked(u);
	}
}

/* Gives the back end what it takes, at most a ring at a time. Control loop. */
static void tx_drain(struct uart *u)
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

static void tx_work_fn(void *opaque)
{
	struct uart *u = opaque;

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
	struct uart *u = opaque;

	pthread_mutex_lock(&u->lock);
	u->tx_blocked = false;
	u->tx_dropping = false;
	pthread_mutex_unlock(&u->lock);
	tx_work_fn(u);
}

static void chr_cb_event(void *opaque, enum chr_event ev)
{
	struct uart *u = opaque;

	if (ev != CHR_BREAK) {
		/* another peer, or none: what blocked the one before is over */
		if (u->tx_blocked) {
			chr_cb_tx_ready(u);
		}
		return;
	}
	pthread_mutex_lock(&u->lock);
	if (!(u->mcr & UART_MCR_LOOP)) {
		rx_push_locked(u, 0, UART_LSR_BI);
		rx_timer_arm_locked(u);
		irq_update_locked(u);
	}
	pthread_mutex_unlock(&u->lock);
}

static void stall_timer_fn(void *opaque)
{
	struct uart *u = opaque;

	log_guest(u->dev.id, "%s is not read; output is dropped until it is", chr_id(u->chr));
	pthread_mutex_lock(&u->lock);
	u->tx_dropping = true;
	tx_done_locked(u);
	pthread_mutex_unlock(&u->lock);
}

static void thr_write_locked(struct uart *u, uint8_t v)
{
	u->thri = false;
	u->thri_due = true;
	if (u->mcr & UART_MCR_LOOP) {
		rx_push_locked(u, v, 0);
		loop_post(u->vm->loop, &u->rx_work); /* for the timeout */
	} else if (u->chr && u->tx_count < TX_SIZE) {
		u->tx[(u->tx_head + u->tx_count) % TX_SIZE] = v;
		u->tx_count++;
	}
	loop_post(u->vm->loop, &u->tx_work);
}

/* --- registers --- */

static void fcr_write_locked(struct uart *u, uint8_t v)
{
	bool toggled = (v ^ u->fcr) & UART_FCR_ENABLE;

	if (toggled || (v & UART_FCR_ENABLE && v & UART_FCR_CLEAR_RX)) {
		rx_clear_locked(u);
		if (u->rx_stalled) {
			loop_post(u->vm->loop, &u->rx_work);
		}
	}
	/* Clearing the transmitter drops nothing: what is in the ring was sent long ago. */
	u->fcr = v & UART_FCR_ENABLE ? v & (UART_FCR_ENABLE | UART_FCR_TRIGGER) : 0;
}

static void mcr_write_locked(struct uart *u, uint8_t v)
{
	uint8_t before = modem_lines(u->mcr), after;

	v &= UART_MCR_MASK;
	if ((u->mcr & ~v & UART_MCR_LOOP) && u->rx_stalled) {
		loop_post(u->vm->loop, &u->rx_work);
	}
	u->mcr = v;
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
		u->thri = v & UART_IER_ETBEI && tx_room(u);
		u->thri_due &= !u->thri;
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
		return v | (fifo_on(u) ? UART_IIR_FIFO : 0);
	case UART_LCR:
		return u->lcr;
	case UART_MCR:
		return u->mcr;
	case UART_LSR:
		v = lsr_value(u);
		u->lsr_error = 0;
		if (u->rx_count) {
			u->rx_error[u->rx_head] = 0;
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

	pthread_mutex_lock(&u->lock);
	v = reg_read_locked(u, (unsigned)off);
	irq_update_locked(u);
	pthread_mutex_unlock(&u->lock);
	return v;
}

static void uart_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
	struct uart *u = opaque;
	uint8_t v = (uint8_t)value;
	bool dlab;

	pthread_mutex_lock(&u->lock);
	dlab = u->lcr & UART_LCR_DLAB;
	switch (off) {
	case UART_THR:
		if (dlab) {
			u->dll = v;
		} else {
			thr_write_locked(u, v);
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
	irq_update_locked(u);
	pthread_mutex_unlock(&u->lock);
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
	bool thri, thri_due, timeout, irq_level;
	uint8_t rx[UART_FIFO_SIZE], rx_error[UART_FIFO_SIZE];
	uint32_t rx_count;
	uint8_t tx[TX_SIZE];
	uint32_t tx_count;
};

static int uart_validate(const void *p, struct err *err)
{
	const struct uart_state *st = p;

	if (st->rx_count > 1 && !(st->fcr & UART_FCR_ENABLE)) {
		return err_set(err, EINVAL, "the state has %u bytes in a UART without FIFO",
			       st->rx_count);
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
			STATE_F_BOOL(struct uart_state, irq_level),
			STATE_F_RANGE(STATE_U32, struct uart_state, rx_count, 0,
				      UART_FIFO_SIZE),
			STATE_F_BYTES(struct uart_state, rx),
			STATE_F_BYTES(struct uart_state, rx_error),
			STATE_F_BUF(struct uart_state, tx, tx_count),
			STATE_F_END,
		},
	.validate = uart_validate,
};

static int uart_save(struct device *d, void *p, struct err *err)
{
	struct uart *u = container_of(d, struct uart, dev);
	struct uart_state *st = p;

	pthread_mutex_lock(&u->lock);
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
	st->thri_due = u->thri_due;
	st->timeout = u->timeout;
	st->irq_level = u->irq_level;
	st->rx_count = u->rx_count;
	for (unsigned i = 0; i < u->rx_count; i++) {
		st->rx[i] = u->rx[(u->rx_head + i) % UART_FIFO_SIZE];
		st->rx_error[i] = u->rx_error[(u->rx_head + i) % UART_FIFO_SIZE];
	}
	st->tx_count = u->tx_count;
	for (unsigned i = 0; i < u->tx_count; i++) {
		st->tx[i] = u->tx[(u->tx_head + i) % TX_SIZE];
	}
	pthread_mutex_unlock(&u->lock);
	return 0;
}

static int uart_load(struct device *d, const void *p, struct err *err)
{
	struct uart *u = container_of(d, struct uart, dev);
	const struct uart_state *st = p;

	pthread_mutex_lock(&u->lock);
	u->ier = st->ier;
	u->lcr = st->lcr;
	u->mcr = st->mcr;
	u->scr = st->scr;
	u->dll = st->dll;
	u->dlm = st->dlm;
	u->fcr = st->fcr & UART_FCR_ENABLE ? st->fcr & (UART_FCR_ENABLE | UART_FCR_TRIGGER) : 0;
	u->msr_delta = st->msr_delta;
	u->lsr_error = st->lsr_error;
	u->thri = st->thri;
	u->thri_due = st->thri_due;
	u->timeout = st->timeout;
	/* the pin's level is in the state of the interrupt controller, so is what it caused */
	u->irq_level = st->irq_level;
	u->rx_head = 0;
	u->rx_count = st->rx_count;
	memcpy(u->rx, st->rx, sizeof(u->rx));
	for (unsigned i = 0; i < UART_FIFO_SIZE; i++) {
		u->rx_error[i] = st->rx_error[i] & LSR_ERRORS;
	}
	u->tx_head = 0;
	u->tx_count = u->chr ? st->tx_count : 0;
	memcpy(u->tx, st->tx, st->tx_count);
	u->rx_active_ns = loop_now_ns(u->vm->loop);
	irq_update_locked(u);
	pthread_mutex_unlock(&u->lock);
	return 0;
}

/* --- life --- */

static void uart_reset(struct device *d)
{
	struct uart *u = container_of(d, struct uart, dev);

	pthread_mutex_lock(&u->lock);
	u->ier = 0;
	u->lcr = 0;
	u->mcr = 0;
	u->scr = 0;
	u->fcr = 0;
	u->dll = 12; /* 9600 baud */
	u->dlm = 0;
	u->msr_delta = 0;
	u->lsr_error = 0;
	u->thri = false;
	u->thri_due = false;
	rx_clear_locked(u);
	irq_update_locked(u);
	pthread_mutex_unlock(&u->lock);
	/* what was sent before the reset is still sent */
	loop_post(u->vm->loop, &u->rx_work);
}

static void uart_pause(struct device *d)
{
	struct uart *u = container_of(d, struct uart, dev);

	tx_work_fn(u);
	pthread_mutex_lock(&u->lock);
	u->paused = true;
	pthread_mutex_unlock(&u->lock);
	loop_timer_disarm(&u->rx_timer);
	loop_timer_disarm(&u->stall_timer);
	device_paused(d);
}

static void uart_resume(struct device *d)
{
	struct uart *u = container_of(d, struct uart, dev);

	pthread_mutex_lock(&u->lock);
	u->paused = false;
	pthread_mutex_unlock(&u->lock);
	tx_work_fn(u);
	rx_work_fn(u);
}

static void uart_destroy(struct device *d)
{
	struct uart *u = container_of(d, struct uart, dev);

	bus_del(u->vm->bus, &u->region);
	if (u->chr) {
		tx_drain(u); /* the last lines of the guest */
		chr_detach(u->chr);
	}
	loop_work_cancel(u->vm->loop, &u->tx_work);
	loop_work_cancel(u->vm->loop, &u->rx_work);
	loop_timer_disarm(&u->rx_timer);
	loop_timer_disarm(&u->stall_timer);
	pthread_mutex_destroy(&u->lock);
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
	.resume = uart_resume,
	.destroy = uart_destroy,
	.state = (const struct device_state_ops *const[]){&uart_state_ops, NULL},
};

int uart_new(struct vm *vm, const struct uart_config *cfg, struct err *err)
{
	struct uart *u = calloc(1, sizeof(*u));
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
	u->dll = 12;
	pthread_mutex_init(&u->lock, NULL);
	u->tx_work = (struct loop_work){.fn = tx_work_fn, .arg = u};
	u->rx_work = (struct loop_work){.fn = rx_work_fn, .arg = u};
	loop_timer_init(vm->loop, &u->rx_timer, rx_timer_fn, u);
	loop_timer_init(vm->loop, &u->stall_timer, stall_timer_fn, u);
	u->region = (struct bus_region){
		.name = "uart",
		.space = BUS_PIO,
		.base = cfg->port,
		.size = 8,
		.ops = &uart_bus_ops,
		.opaque = u,
	};
	ret = bus_add(vm->bus, &u->region);
	if (ret) {
		err_set(err, -ret, "%s: cannot use the ports at 0x%x: %s", cfg->id, cfg->port,
			strerror(-ret));
		goto free_uart;
	}
	ret = device_add(vm->devices, &u->dev, &uart_ops, cfg->id, err);
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
