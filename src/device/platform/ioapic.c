/*
 * I/O APIC. Intel 82093AA datasheet, section 3, with the EOI register of version 0x20.
 *
 * KVM has the local APICs; this is the rest of a split irqchip. A pin that may fire sends its
 * message with msi_send(). Beside that each unmasked pin's message is the MSI route of the GSI
 * of the same number, which is how KVM knows for which vectors to report the EOI.
 *
 * A pin
 *   edge:  a rising line on an unmasked pin sends once; on a masked pin it is lost (82093AA,
 *          3.2.4, interrupt mask). Nothing is remembered.
 *   level: while the line is high, the pin unmasked and Remote IRR clear, it sends and sets
 *          Remote IRR; the EOI clears that and the rule applies again.
 *
 * Invariants
 *  1. `level` holds the line of each pin, whatever the redirection entry says.
 *  2. Remote IRR is set only in entries that are level triggered; turning an entry to edge
 *     clears it (which is how software without the EOI register gets rid of a stuck one).
 *  3. The route of GSI n says what entry n says: entries change only on the control loop,
 *     routes there too.
 *
 * Threads and locks: `lock` guards everything guest-visible. Register writes run on the control
 * loop (routes are set there, without the lock), register reads on vCPU threads, lines and EOIs
 * on any thread. Messages are sent with the lock released: at most PINS for one call.
 * Untrusted: the guest. An EOI storm (a line nobody lowers) costs the guest's own time only,
 * since each round needs an EOI of the guest.
 */
#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/util.h"
#include "device/platform/ioapic.h"
#include "device/platform/platform_int.h"
#include "device/platform/trace.h"
#include "spec/ioapic.h"
#include "spec/platform_x86.h"

#define PINS PLAT_IOAPIC_PINS
_Static_assert(PINS <= 32, "one bit for each pin in a uint32_t");

/* Bits of an entry that the guest can write. The reserved ones read 0. */
#define RTE_WRITABLE                                                                           \
	(IOAPIC_RTE_VECTOR | IOAPIC_RTE_DELMODE | IOAPIC_RTE_DEST_LOGIC |                      \
	 IOAPIC_RTE_ACTIVE_LOW | IOAPIC_RTE_LEVEL | IOAPIC_RTE_MASKED | IOAPIC_RTE_EXT_DEST |  \
	 IOAPIC_RTE_DEST)

struct ioapic {
	struct device dev;
	struct vm *vm;
	struct bus_region region;

	pthread_mutex_t lock;
	uint8_t select;
	uint8_t id;
	uint64_t rte[PINS];
	uint32_t level;	      /* bit n: the line of pin n is high */
	uint32_t routed;      /* bit n: GSI n has a route; control loop only */
	uint64_t route[PINS]; /* the entry it was made from; control loop only */
};

struct message {
	uint64_t addr;
	uint32_t data;
};

static struct message rte_message(uint64_t rte)
{
	uint64_t dest = (rte & IOAPIC_RTE_DEST) >> 56;
	uint64_t ext = (rte & IOAPIC_RTE_EXT_DEST) >> 49;
	unsigned mode = (rte & IOAPIC_RTE_DELMODE) >> 8;
	struct message m = {
		.addr = MSI_ADDR_BASE | dest << MSI_ADDR_DEST_SHIFT |
			ext << MSI_ADDR_EXT_DEST_SHIFT,
		.data = (uint32_t)(rte & IOAPIC_RTE_VECTOR) | mode << MSI_DATA_DELMODE_SHIFT,
	};

	if (rte & IOAPIC_RTE_DEST_LOGIC) {
		m.addr |= MSI_ADDR_LOGICAL;
	}
	if (mode == IOAPIC_DELMODE_LOWEST) {
		m.addr |= MSI_ADDR_REDIRECT;
	}
	if (rte & IOAPIC_RTE_LEVEL) {
		m.data |= MSI_DATA_LEVEL | MSI_DATA_ASSERT;
	}
	return m;
}

/* ExtINT would ask an 8259 for the vector, and there is none: such a pin never fires. */
static bool rte_fires(uint64_t rte)
{
	return !(rte & IOAPIC_RTE_MASKED) &&
	       (rte & IOAPIC_RTE_DELMODE) >> 8 != IOAPIC_DELMODE_EXTINT;
}

/* The rule for level pins: true if a message is due now. */
static bool level_due_locked(struct ioapic *io, unsigned pin)
{
	uint64_t rte = io->rte[pin];

	if (!(rte & IOAPIC_RTE_LEVEL) || (rte & IOAPIC_RTE_REMOTE_IRR) || !rte_fires(rte) ||
	    !(io->level & 1u << pin)) {
		return false;
	}
	io->rte[pin] = rte | IOAPIC_RTE_REMOTE_IRR;
	return true;
}

static void send(struct ioapic *io, uint64_t rte)
{
	struct message m = rte_message(rte);

	/* An error means that nobody is at the destination: the guest's own mistake. */
	io->vm->irq->ops->msi_send(io->vm->irq, m.addr, m.data, 0);
}

static void line_set(void *opaque, unsigned pin, bool level)
{
	struct ioapic *io = opaque;
	uint32_t bit = 1u << pin;
	bool due = false;
	uint64_t rte;

	trace_ioapic_line(pin, level);
	pthread_mutex_lock(&io->lock);
	rte = io->rte[pin];
	if (!level) {
		io->level &= ~bit;
	} else if (!(io->level & bit)) {
		io->level |= bit;
		due = rte & IOAPIC_RTE_LEVEL ? level_due_locked(io, pin) : rte_fires(rte);
	}
	pthread_mutex_unlock(&io->lock);
	if (due) {
		send(io, rte);
	}
}

struct irq_line ioapic_line(struct ioapic *io, unsigned pin)
{
	assert(pin < PINS);
	return (struct irq_line){.set = line_set, .opaque = io, .pin = pin};
}

void ioapic_eoi(struct ioapic *io, uint8_t vector)
{
	uint64_t due[PINS];
	unsigned n = 0;

	trace_ioapic_eoi(vector);
	pthread_mutex_lock(&io->lock);
	for (unsigned pin = 0; pin < PINS; pin++) {
		uint64_t rte = io->rte[pin];

		if (!(rte & IOAPIC_RTE_REMOTE_IRR) || (rte & IOAPIC_RTE_VECTOR) != vector) {
			continue;
		}
		io->rte[pin] &= ~IOAPIC_RTE_REMOTE_IRR;
		if (level_due_locked(io, pin)) {
			due[n++] = rte;
		}
	}
	pthread_mutex_unlock(&io->lock);
	for (unsigned i = 0; i < n; i++) {
		send(io, due[i]);
	}
}

/* Invariant 3, on the control loop, after rte[pin] changed. */
static void route_update(struct ioapic *io, unsigned pin, uint64_t rte)
{
	struct irqchip *irq = io->vm->irq;
	bool valid = rte_fires(rte);
	bool was = io->routed & 1u << pin;
	struct message m = rte_message(rte);
	int ret;

	rte &= RTE_WRITABLE;
	if (valid == was && (!valid || io->route[pin] == rte)) {
		return;
	}
	ret = irq->ops->route_set(irq, (int)pin, valid, m.addr, m.data, 0);
	if (ret) {
		log_guest(io->dev.id, "cannot route pin %u: %s; its EOIs are not seen", pin,
			  strerror(-ret));
		valid = false;
	}
	io->routed = valid ? io->routed | 1u << pin : io->routed & ~(1u << pin);
	io->route[pin] = rte;
}

static void rte_write(struct ioapic *io, unsigned pin, bool high, uint32_t value)
{
	uint64_t mask = RTE_WRITABLE & (high ? UINT64_C(0xffffffff) << 32 : 0xffffffffu);
	uint64_t v = high ? (uint64_t)value << 32 : value;
	uint64_t rte;
	bool due;

	pthread_mutex_lock(&io->lock);
	rte = (io->rte[pin] & ~mask) | (v & mask);
	if (!(rte & IOAPIC_RTE_LEVEL)) {
		rte &= ~IOAPIC_RTE_REMOTE_IRR;
	}
	io->rte[pin] = rte;
	pthread_mutex_unlock(&io->lock);

	/* the route first: the EOI of what is sent next must be seen */
	route_update(io, pin, rte);

	pthread_mutex_lock(&io->lock);
	due = level_due_locked(io, pin);
	rte = io->rte[pin];
	pthread_mutex_unlock(&io->lock);
	if (due) {
		send(io, rte);
	}
}

static uint32_t window_read_locked(const struct ioapic *io)
{
	unsigned reg = io->select;

	switch (reg) {
	case IOAPIC_REG_ID:
	case IOAPIC_REG_ARB:
		return (uint32_t)io->id << 24;
	case IOAPIC_REG_VER:
		return IOAPIC_VERSION_EOI | (PINS - 1) << 16;
	default:
		if (reg >= IOAPIC_REG_REDTBL && reg < IOAPIC_REG_REDTBL + 2 * PINS) {
			uint64_t rte = io->rte[(reg - IOAPIC_REG_REDTBL) / 2];

			return (uint32_t)(reg & 1 ? rte >> 32 : rte);
		}
		return 0;
	}
}

static uint64_t ioapic_read(void *opaque, uint64_t off, unsigned size)
{
	struct ioapic *io = opaque;
	uint64_t v = 0;

	pthread_mutex_lock(&io->lock);
	if (off == IOAPIC_IOREGSEL) {
		v = io->select;
	} else if (off == IOAPIC_IOWIN && size == 4) {
		v = window_read_locked(io);
	}
	pthread_mutex_unlock(&io->lock);
	return v;
}

static void ioapic_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
	struct ioapic *io = opaque;
	unsigned reg;

	if (off == IOAPIC_IOREGSEL) {
		pthread_mutex_lock(&io->lock);
		io->select = (uint8_t)value;
		pthread_mutex_unlock(&io->lock);
		return;
	}
	if (off == IOAPIC_EOI) {
		ioapic_eoi(io, (uint8_t)value);
		return;
	}
	if (off != IOAPIC_IOWIN || size != 4) {
		return;
	}
	pthread_mutex_lock(&io->lock);
	reg = io->select;
	if (reg == IOAPIC_REG_ID) {
		io->id = value >> 24 & 0x0f;
	}
	pthread_mutex_unlock(&io->lock);
	if (reg >= IOAPIC_REG_REDTBL && reg < IOAPIC_REG_REDTBL + 2 * PINS) {
		rte_write(io, (reg - IOAPIC_REG_REDTBL) / 2, reg & 1, (uint32_t)value);
	}
}

static const struct bus_ops ioapic_bus_ops = {
	.read = ioapic_read,
	.write = ioapic_write,
	.min_size = 1,
	.max_size = 4,
};

/* --- state --- */

struct pin_state {
	uint64_t rte;
};
struct ioapic_state {
	uint8_t select, id;
	uint32_t level;
	struct pin_state pin[PINS];
};

static int pin_validate(const void *p, struct err *err)
{
	const struct pin_state *st = p;

	if (st->rte & ~(RTE_WRITABLE | IOAPIC_RTE_REMOTE_IRR) ||
	    (st->rte & IOAPIC_RTE_REMOTE_IRR && !(st->rte & IOAPIC_RTE_LEVEL))) {
		return err_set(err, EINVAL,
			       "the state has an impossible redirection entry 0x%llx",
			       (unsigned long long)st->rte);
	}
	return 0;
}

static const struct state_desc pin_desc = {
	.name = "ioapic-pin",
	.version = 1,
	.min_version = 1,
	.size = sizeof(struct pin_state),
	.fields =
		(const struct state_field[]){
			STATE_F_U64(struct pin_state, rte),
			STATE_F_END,
		},
	.validate = pin_validate,
};
static const struct state_desc ioapic_desc = {
	.name = "ioapic",
	.version = 1,
	.min_version = 1,
	.size = sizeof(struct ioapic_state),
	.fields =
		(const struct state_field[]){
			STATE_F_U8(struct ioapic_state, select),
			STATE_F_RANGE(STATE_U8, struct ioapic_state, id, 0, 0x0f),
			STATE_F_RANGE(STATE_U32, struct ioapic_state, level, 0,
				      (1u << PINS) - 1),
			STATE_F_ARRAY(struct ioapic_state, pin, &pin_desc),
			STATE_F_END,
		},
};

static int ioapic_save(struct device *d, void *p, struct err *err)
{
	struct ioapic *io = container_of(d, struct ioapic, dev);
	struct ioapic_state *st = p;

	pthread_mutex_lock(&io->lock);
	st->select = io->select;
	st->id = io->id;
	st->level = io->level;
	for (unsigned pin = 0; pin < PINS; pin++) {
		st->pin[pin].rte = io->rte[pin];
	}
	pthread_mutex_unlock(&io->lock);
	return 0;
}

static int ioapic_load(struct device *d, const void *p, struct err *err)
{
	struct ioapic *io = container_of(d, struct ioapic, dev);
	const struct ioapic_state *st = p;

	pthread_mutex_lock(&io->lock);
	io->select = st->select;
	io->id = st->id;
	io->level = st->level;
	for (unsigned pin = 0; pin < PINS; pin++) {
		io->rte[pin] = st->pin[pin].rte;
	}
	pthread_mutex_unlock(&io->lock);
	for (unsigned pin = 0; pin < PINS; pin++) {
		route_update(io, pin, st->pin[pin].rte);
	}
	return 0;
}

/* --- life --- */

static void ioapic_reset(struct device *d)
{
	struct ioapic *io = container_of(d, struct ioapic, dev);

	pthread_mutex_lock(&io->lock);
	io->select = 0;
	io->id = PLAT_IOAPIC_ID;
	for (unsigned pin = 0; pin < PINS; pin++) {
		io->rte[pin] = IOAPIC_RTE_MASKED;
	}
	/* `level` stays: the lines belong to the devices, which lower them in their own reset */
	pthread_mutex_unlock(&io->lock);
	for (unsigned pin = 0; pin < PINS; pin++) {
		route_update(io, pin, IOAPIC_RTE_MASKED);
	}
}

static void ioapic_destroy(struct device *d)
{
	struct ioapic *io = container_of(d, struct ioapic, dev);

	bus_del(io->vm->bus, &io->region);
	for (unsigned pin = 0; pin < PINS; pin++) {
		route_update(io, pin, IOAPIC_RTE_MASKED);
	}
	pthread_mutex_destroy(&io->lock);
	free(io);
}

static const struct device_state_ops ioapic_state_ops = {
	.desc = &ioapic_desc,
	.save = ioapic_save,
	.load = ioapic_load,
};
static const struct device_ops ioapic_ops = {
	.name = "ioapic",
	.reset = ioapic_reset,
	.destroy = ioapic_destroy,
	.state = (const struct device_state_ops *const[]){&ioapic_state_ops, NULL},
};

int ioapic_new(struct vm *vm, struct ioapic **out, struct err *err)
{
	struct ioapic *io = calloc(1, sizeof(*io));
	int ret;

	if (!io) {
		return err_set(err, ENOMEM, "no memory for the I/O APIC");
	}
	io->vm = vm;
	pthread_mutex_init(&io->lock, NULL);
	ioapic_reset(&io->dev);
	io->region = (struct bus_region){
		.name = "ioapic",
		.space = BUS_MMIO,
		.base = PLAT_IOAPIC_BASE,
		.size = PLAT_IOAPIC_SIZE,
		.ops = &ioapic_bus_ops,
		.opaque = io,
		.owner = vm->loop,
	};
	ret = platform_add(vm, &io->dev, &ioapic_ops, "ioapic", &io->region, err);
	if (ret) {
		pthread_mutex_destroy(&io->lock);
		free(io);
		return ret;
	}
	*out = io;
	return 0;
}
