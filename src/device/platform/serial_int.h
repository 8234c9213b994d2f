/*
 * What the serial ports share, whatever their registers look like: both directions between the
 * guest's FIFOs and a character back end, and the state of that. A port embeds struct serial as
 * its device and keeps the registers.
 *
 * Sending. To a guest that polls, the line is infinitely fast: there is room while the ring of
 * SERIAL_RING bytes has space for a FIFO. The control loop empties the ring into the back end and
 * then says so (sent()), once for all that was written meanwhile; a byte costs a wake-up of the loop
 * only when the loop was idle. When the back end takes no more the ring fills and there is no room.
 * If that lasts for half a second there is room again, and what is written is dropped until the
 * back end moves: a terminal that nobody reads does not hold up the guest.
 *
 * Receiving. Bytes go to a FIFO of SERIAL_FIFO bytes (1 with FIFOs off), each with error flags of
 * the port's; the back end is read only as far as there is room, and not in loopback, where what
 * is sent comes back.
 *
 * Invariants
 *  1. irq_level is what was last given to the line; the line is set under `lock`, so levels
 *     cannot overtake each other.
 *  2. The ring's bytes [tx_head, tx_head + tx_count) change only by consumption on the control
 *     loop, so it hands them to the back end without the lock.
 *  3. rx_stalled: the back end was told that there is no room and waits for chr_rx_room().
 *
 * Threads and locks: registers on vCPU threads under `lock`, as are functions named _locked; back
 * end, timers and posted work on the control loop. The back end is never called with the lock held
 * (it may call back). Untrusted: the guest; the peer of the back end.
 */
#ifndef DEVICE_PLATFORM_SERIAL_INT_H
#define DEVICE_PLATFORM_SERIAL_INT_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/bus.h"
#include "core/device.h"
#include "device/platform/serial.h"
#include "event/loop.h"

#define SERIAL_FIFO 16u
#define SERIAL_RING 4096u

struct serial;
/* The port's; the lock is held. */
struct serial_ops {
	/* A byte came with these flags; overrun: it was lost, because there was no room. */
	void (*received)(struct serial *s, uint8_t error, bool overrun);
	/* The end of what came: interrupts. On the control loop unless in loopback. */
	void (*update)(struct serial *s);
	/* Something may wait in the FIFO: timers. Control loop; NULL: nothing to do. */
	void (*waiting)(struct serial *s);
	/* What was written is with the back end, and there is room. */
	void (*sent)(struct serial *s);
	uint8_t break_error; /* the flags of a break */
};

struct serial {
	struct device dev;
	struct vm *vm;
	struct bus_region region;
	struct irq_line line;
	struct chr *chr; /* NULL: none */
	const struct serial_ops *ops;

	pthread_mutex_t lock;
	bool fifo, loopback; /* the port's: whether they are on */
	bool irq_level;

	uint8_t rx[SERIAL_FIFO], rx_error[SERIAL_FIFO];
	unsigned rx_head, rx_count;
	bool rx_stalled;

	uint8_t tx[SERIAL_RING];
	unsigned tx_head, tx_count;
	bool tx_due;	  /* sent() is to be called when the ring was emptied */
	bool tx_blocked;  /* the back end is full and will call tx_ready */
	bool tx_dropping; /* it has been for too long */

	/* control loop */
	bool paused;
	struct loop_work tx_work, rx_work;
	struct loop_timer stall_timer;
};

/* The port that begins with s, all zero but for its own registers, on bus and back end; region has
 * what is not in cfg. On error it is freed. */
int serial_add(struct serial *s, struct vm *vm, const struct serial_config *cfg,
	       const struct serial_ops *ops, const struct device_ops *dev, struct err *err);
/* Takes it away from bus and back end; the memory is the caller's. */
void serial_del(struct serial *s);
void serial_pause(struct device *d); /* device_paused() is the port's to call */
void serial_resume(struct device *d);

static inline unsigned serial_rx_capacity(const struct serial *s)
{
	return s->fifo ? SERIAL_FIFO : 1;
}

static inline bool serial_tx_room(const struct serial *s)
{
	return s->tx_dropping || SERIAL_RING - s->tx_count >= SERIAL_FIFO;
}

void serial_irq_set_locked(struct serial *s, bool level);
void serial_send_locked(struct serial *s, uint8_t byte);
/* The oldest byte, 0 if there is none; error (may be NULL) gets its flags. */
uint8_t serial_receive_locked(struct serial *s, uint8_t *error);
/* Forgets what was received. */
void serial_flush_locked(struct serial *s);
/* The port has changed something that lets more in, or makes what waits be looked at. */
void serial_look_locked(struct serial *s);

/* --- state: a part of the port's --- */
struct serial_state {
	bool irq_level;
	uint32_t rx_count;
	uint8_t rx[SERIAL_FIFO], rx_error[SERIAL_FIFO];
	uint8_t tx[SERIAL_RING];
	uint32_t tx_count;
};
/* The fields of T, whose member is `serial`. */
#define SERIAL_STATE_FIELDS(T)                                                                 \
	SERIAL_FIELD_(T, STATE_BOOL, irq_level, 0, -1),                                        \
		SERIAL_FIELD_(T, STATE_U32, rx_count, SERIAL_FIFO, -1),                        \
		SERIAL_FIELD_(T, STATE_BYTES, rx, 0, -1),                                      \
		SERIAL_FIELD_(T, STATE_BYTES, rx_error, 0, -1),                                \
		SERIAL_FIELD_(T, STATE_BUF, tx, 0, offsetof(T, serial.tx_count))
#define SERIAL_FIELD_(T, kind, f, most, count)                                                 \
	{                                                                                      \
		.name = #f, .type = kind, .offset = offsetof(T, serial.f),                     \
		.size = sizeof(((T *)0)->serial.f), .max = most, .count_offset = count         \
	}
void serial_save_locked(const struct serial *s, struct serial_state *st);
/* After the port's own registers. error_mask: the flags that a byte can have. */
void serial_load_locked(struct serial *s, const struct serial_state *st, uint8_t error_mask);

#endif
