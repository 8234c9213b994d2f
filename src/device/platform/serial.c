/* See serial_int.h. */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/util.h"
#include "chardev/chr.h"
#include "device/platform/platform_int.h"
#include "device/platform/serial_int.h"

#define STALL_NS UINT64_C(500000000)

void serial_irq_set_locked(struct serial *s, bool level)
{
	if (level != s->irq_level) {
		s->irq_level = level;
		irq_line_set(&s->line, level);
	}
}

/* --- receiving --- */

static void rx_push_locked(struct serial *s, uint8_t byte, uint8_t error)
{
	bool overrun = s->rx_count >= serial_rx_capacity(s);
	unsigned at = (s->rx_head + s->rx_count) % SERIAL_FIFO;

	if (!overrun) {
		s->rx[at] = byte;
		s->rx_error[at] = error;
		s->rx_count++;
	}
	s->ops->received(s, error, overrun);
}

static void waiting_locked(struct serial *s)
{
	if (s->ops->waiting && !s->paused) {
		s->ops->waiting(s);
	}
}

static size_t rx_room_locked(const struct serial *s)
{
	unsigned capacity = serial_rx_capacity(s);

	return s->paused || s->loopback || s->rx_count >= capacity ? 0 : capacity - s->rx_count;
}

/* The guest made room, or left bytes below the trigger level. */
static void rx_work_fn(void *opaque)
{
	struct serial *s = opaque;
	bool room;

	pthread_mutex_lock(&s->lock);
	waiting_locked(s);
	room = s->rx_stalled && rx_room_locked(s);
	pthread_mutex_unlock(&s->lock);
	if (room && s->chr) {
		chr_rx_room(s->chr);
	}
}

static size_t chr_cb_rx_room(void *opaque)
{
	struct serial *s = opaque;
	size_t room;

	pthread_mutex_lock(&s->lock);
	room = rx_room_locked(s);
	s->rx_stalled = !room;
	pthread_mutex_unlock(&s->lock);
	return room;
}

static void came_in_locked(struct serial *s)
{
	waiting_locked(s);
	s->ops->update(s);
}

static void chr_cb_rx(void *opaque, const uint8_t *buf, size_t len)
{
	struct serial *s = opaque;

	pthread_mutex_lock(&s->lock);
	for (size_t i = 0; i < len; i++) {
		/* room was asked for; the guest may have turned the FIFO off since */
		rx_push_locked(s, buf[i], 0);
	}
	came_in_locked(s);
	pthread_mutex_unlock(&s->lock);
}

uint8_t serial_receive_locked(struct serial *s, uint8_t *error)
{
	unsigned at = s->rx_head;

	if (error) {
		*error = s->rx_count ? s->rx_error[at] : 0;
	}
	if (!s->rx_count) {
		return 0;
	}
	s->rx_head = (at + 1) % SERIAL_FIFO;
	s->rx_count--;
	/* bytes come in again when the FIFO is half empty */
	if (s->rx_stalled && s->rx_count <= serial_rx_capacity(s) / 2) {
		loop_post(s->vm->loop, &s->rx_work);
	}
	return s->rx[at];
}

void serial_flush_locked(struct serial *s)
{
	s->rx_head = 0;
	s->rx_count = 0;
	if (s->rx_stalled) {
		loop_post(s->vm->loop, &s->rx_work);
	}
}

void serial_look_locked(struct serial *s)
{
	loop_post(s->vm->loop, &s->rx_work);
}

/* --- sending --- */

/* The control loop was here. */
static void tx_done_locked(struct serial *s)
{
	if (s->tx_due && serial_tx_room(s)) {
		s->tx_due = false;
		s->ops->sent(s);
	}
}

/* Gives the back end what it takes, at most a ring at a time. Control loop. */
static void tx_drain(struct serial *s)
{
	size_t budget = SERIAL_RING;

	while (s->chr && !s->tx_blocked) {
		size_t n, done;

		pthread_mutex_lock(&s->lock);
		n = MIN(MIN(s->tx_count, SERIAL_RING - s->tx_head), budget);
		pthread_mutex_unlock(&s->lock);
		if (!n) {
			break;
		}
		done = chr_write(s->chr, s->tx + s->tx_head, n); /* invariant 2 */
		pthread_mutex_lock(&s->lock);
		s->tx_head = (s->tx_head + (unsigned)done) % SERIAL_RING;
		s->tx_count -= (unsigned)done;
		s->tx_blocked = done < n;
		pthread_mutex_unlock(&s->lock);
		budget -= n;
		if (!budget) {
			loop_post(s->vm->loop, &s->tx_work); /* others first */
		}
	}
}

static void tx_work_fn(void *opaque)
{
	struct serial *s = opaque;

	if (s->paused) {
		return;
	}
	tx_drain(s);
	pthread_mutex_lock(&s->lock);
	tx_done_locked(s);
	if (serial_tx_room(s)) {
		loop_timer_disarm(&s->stall_timer);
	} else if (!s->stall_timer.armed) {
		loop_timer_arm(&s->stall_timer, loop_now_ns(s->vm->loop) + STALL_NS);
	}
	pthread_mutex_unlock(&s->lock);
}

static void chr_cb_tx_ready(void *opaque)
{
	struct serial *s = opaque;

	pthread_mutex_lock(&s->lock);
	s->tx_blocked = false;
	s->tx_dropping = false;
	pthread_mutex_unlock(&s->lock);
	tx_work_fn(s);
}

static void chr_cb_event(void *opaque, enum chr_event ev)
{
	struct serial *s = opaque;

	if (ev != CHR_BREAK) {
		/* another peer, or none: what blocked the one before is over */
		if (s->tx_blocked) {
			chr_cb_tx_ready(s);
		}
		return;
	}
	pthread_mutex_lock(&s->lock);
	if (!s->loopback) {
		rx_push_locked(s, 0, s->ops->break_error);
		came_in_locked(s);
	}
	pthread_mutex_unlock(&s->lock);
}

static void stall_timer_fn(void *opaque)
{
	struct serial *s = opaque;

	log_guest(s->dev.id, "%s is not read; output is dropped until it is", chr_id(s->chr));
	pthread_mutex_lock(&s->lock);
	s->tx_dropping = true;
	tx_done_locked(s);
	pthread_mutex_unlock(&s->lock);
}

void serial_send_locked(struct serial *s, uint8_t byte)
{
	s->tx_due = true;
	if (s->loopback) {
		rx_push_locked(s, byte, 0);
		loop_post(s->vm->loop, &s->rx_work); /* for what waits */
	} else if (s->chr && s->tx_count < SERIAL_RING) {
		s->tx[(s->tx_head + s->tx_count) % SERIAL_RING] = byte;
		s->tx_count++;
	}
	loop_post(s->vm->loop, &s->tx_work);
}

/* --- state --- */

void serial_save_locked(const struct serial *s, struct serial_state *st)
{
	st->irq_level = s->irq_level;
	st->rx_count = s->rx_count;
	for (unsigned i = 0; i < s->rx_count; i++) {
		st->rx[i] = s->rx[(s->rx_head + i) % SERIAL_FIFO];
		st->rx_error[i] = s->rx_error[(s->rx_head + i) % SERIAL_FIFO];
	}
	st->tx_count = s->tx_count;
	for (unsigned i = 0; i < s->tx_count; i++) {
		st->tx[i] = s->tx[(s->tx_head + i) % SERIAL_RING];
	}
}

void serial_load_locked(struct serial *s, const struct serial_state *st, uint8_t error_mask)
{
	/* the line's level is in the state of the interrupt controller, so is what it caused */
	s->irq_level = st->irq_level;
	s->rx_head = 0;
	s->rx_count = MIN(st->rx_count, serial_rx_capacity(s));
	memcpy(s->rx, st->rx, sizeof(s->rx));
	for (unsigned i = 0; i < SERIAL_FIFO; i++) {
		s->rx_error[i] = st->rx_error[i] & error_mask;
	}
	s->tx_head = 0;
	s->tx_count = s->chr ? st->tx_count : 0;
	memcpy(s->tx, st->tx, st->tx_count);
}

/* --- life --- */

void serial_pause(struct device *d)
{
	struct serial *s = container_of(d, struct serial, dev);

	tx_work_fn(s);
	pthread_mutex_lock(&s->lock);
	s->paused = true;
	pthread_mutex_unlock(&s->lock);
	loop_timer_disarm(&s->stall_timer);
}

void serial_resume(struct device *d)
{
	struct serial *s = container_of(d, struct serial, dev);

	pthread_mutex_lock(&s->lock);
	s->paused = false;
	pthread_mutex_unlock(&s->lock);
	tx_work_fn(s);
	rx_work_fn(s);
}

void serial_del(struct serial *s)
{
	bus_del(s->vm->bus, &s->region);
	if (s->chr) {
		tx_drain(s); /* the last lines of the guest */
		chr_detach(s->chr);
	}
	loop_work_cancel(s->vm->loop, &s->tx_work);
	loop_work_cancel(s->vm->loop, &s->rx_work);
	loop_timer_disarm(&s->stall_timer);
	pthread_mutex_destroy(&s->lock);
}

int serial_add(struct serial *s, struct vm *vm, const struct serial_config *cfg,
	       const struct serial_ops *ops, const struct device_ops *dev, struct err *err)
{
	const struct chr_client client = {
		.rx_room = chr_cb_rx_room,
		.rx = chr_cb_rx,
		.tx_ready = chr_cb_tx_ready,
		.event = chr_cb_event,
		.opaque = s,
	};
	int ret;

	s->vm = vm;
	s->line = cfg->line;
	s->chr = cfg->chr;
	s->ops = ops;
	s->region.base = cfg->base;
	s->region.opaque = s;
	pthread_mutex_init(&s->lock, NULL);
	s->tx_work = (struct loop_work){.fn = tx_work_fn, .arg = s};
	s->rx_work = (struct loop_work){.fn = rx_work_fn, .arg = s};
	loop_timer_init(vm->loop, &s->stall_timer, stall_timer_fn, s);
	ret = platform_add(vm, &s->dev, dev, cfg->id, &s->region, err);
	if (ret) {
		goto free_port;
	}
	ret = s->chr ? chr_attach(s->chr, &client, err) : 0;
	if (ret) {
		device_remove(&s->dev);
		bus_del(vm->bus, &s->region);
		goto free_port;
	}
	return 0;

free_port:
	pthread_mutex_destroy(&s->lock);
	free(s);
	return ret;
}
