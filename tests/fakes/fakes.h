/*
 * A machine without KVM: everything a device may use, each part recording what it was asked.
 * Nothing here is global, so several fake machines live in one process.
 *
 * The test's thread is the control loop unless it starts the loop's thread itself; other
 * threads play vCPUs with a struct fake_cpu of their own.
 */
#ifndef FAKES_FAKES_H
#define FAKES_FAKES_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/bus.h"
#include "core/device.h"
#include "core/doorbell.h"
#include "core/irq.h"
#include "core/power.h"
#include "core/vm.h"
#include "event/loop.h"
#include "mem/mem.h"

/* --- interrupts: what KVM does with routes and irqfds, counted --- */
#define FAKE_GSIS 512
#define FAKE_MSGS 1024

struct fake_gsi {
	bool used, valid; /* allocated; has a route */
	uint64_t addr;
	uint32_t data, source;
	int fd;		/* bound irqfd, -1: none */
	uint64_t count; /* interrupts delivered */
	unsigned routes_set;
};
struct fake_msg { /* a message, by whichever way it was sent */
	uint64_t addr;
	uint32_t data;
	uint64_t count;
};
struct fake_irq {
	struct irqchip chip;
	pthread_mutex_t lock;
	unsigned gsi_first, gsi_limit; /* gsi_alloc() hands out [first, limit) */
	struct fake_gsi gsi[FAKE_GSIS];
	struct fake_msg msg[FAKE_MSGS];
	unsigned nmsgs;
	uint64_t lost;	 /* a bound eventfd fired without a valid route */
	uint64_t direct; /* msi_send() calls */
	unsigned binds, unbinds;
	uint32_t line[8];    /* levels of pins 0..255 */
	uint64_t edges[256]; /* rising edges of pins */
};
/* All of these take what is in the bound eventfds first, as the kernel would have at once. */
uint64_t fake_irq_count(struct fake_irq *fi, int gsi);
uint64_t fake_irq_msi_count(struct fake_irq *fi, uint64_t addr, uint32_t data);
uint64_t fake_irq_data_count(struct fake_irq *fi, uint32_t data); /* any address */
uint64_t fake_irq_total(struct fake_irq *fi);
unsigned fake_irq_gsis_used(struct fake_irq *fi);
/* A line of a platform device that ends here. */
struct irq_line fake_irq_line(struct fake_irq *fi, unsigned pin);

/* --- doorbells --- */
#define FAKE_DOORBELLS 1024
struct fake_doorbell {
	uint64_t addr;
	unsigned size;
	int fd;
};
struct fake_doorbells {
	struct doorbells db;
	pthread_mutex_t lock;
	struct fake_doorbell bell[FAKE_DOORBELLS];
	unsigned count;
	uint64_t rung;
};
/* The eventfd registered for a write of len bytes at addr, or -1. */
int fake_doorbell_find(struct fake_doorbells *fd, uint64_t addr, unsigned len);

/* --- power --- */
struct fake_power {
	struct power power;
	_Atomic unsigned count[4]; /* by enum power_request */
};

/* --- a machine --- */
struct fake_vm_config {
	unsigned ram_mib;      /* RAM at 0; 0: 16 */
	unsigned ram_high_mib; /* RAM at 4 GiB; 0: none */
	bool real_clock;       /* default: the virtual clock */
};
struct fake_vm {
	struct vm vm; /* what devices get */
	struct device_list devices;
	struct fake_irq irq;
	struct fake_doorbells doorbells;
	struct fake_power power;
	struct mem_region *ram, *ram_high;
	struct bus_reader *reader; /* of the test's own thread */
	bool all_paused;	   /* set by fake_vm_pause()'s callback */
};
/* NULL cfg: the defaults. Asserts that everything can be had. Allocated, because a struct vm is
 * pointed to. */
struct fake_vm *fake_vm_new(const struct fake_vm_config *cfg);
/* Destroys the devices that are left, then everything else. */
void fake_vm_free(struct fake_vm *fv);
/* A few rounds of the loop, without waiting: for work that is posted and eventfds that are
 * signalled. */
void fake_vm_settle(struct fake_vm *fv);
/* Pauses every device and runs the loop until all are; resume with device_list_resume(). */
void fake_vm_pause(struct fake_vm *fv);
/* Saves the devices of one machine and loads them into another one (both paused); returns what
 * device_list_load() did. */
int fake_vm_transfer(struct fake_vm *from, struct fake_vm *to, struct err *err);

/* --- a vCPU: one per thread that accesses --- */
struct fake_cpu {
	struct fake_vm *fv;
	struct bus_reader *reader;
};
void fake_cpu_init(struct fake_cpu *c, struct fake_vm *fv);
void fake_cpu_fini(struct fake_cpu *c);
/* As KVM does: a registered doorbell takes the write, else the bus has it. */
void fake_cpu_mmio_write(struct fake_cpu *c, uint64_t addr, uint64_t value, unsigned len);
uint64_t fake_cpu_mmio_read(struct fake_cpu *c, uint64_t addr, unsigned len);
void fake_cpu_pio_write(struct fake_cpu *c, uint16_t port, uint32_t value, unsigned len);
uint32_t fake_cpu_pio_read(struct fake_cpu *c, uint16_t port, unsigned len);
/* The same from the test's own thread. */
void fake_mmio_write(struct fake_vm *fv, uint64_t addr, uint64_t value, unsigned len);
uint64_t fake_mmio_read(struct fake_vm *fv, uint64_t addr, unsigned len);
void fake_pio_write(struct fake_vm *fv, uint16_t port, uint32_t value, unsigned len);
uint32_t fake_pio_read(struct fake_vm *fv, uint16_t port, unsigned len);

#endif
