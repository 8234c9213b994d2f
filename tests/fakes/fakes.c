/*
 * Fakes: the recorder irqchip, doorbells and power, and the machine that wires them up.
 *
 * Locks: each recorder has one, because vCPU and I/O threads come here as they come to KVM.
 */
#include "fakes/fakes.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* --- interrupts --- */

static struct fake_irq *to_fake_irq(struct irqchip *c)
{
	return container_of(c, struct fake_irq, chip);
}

static void irq_deliver_locked(struct fake_irq *fi, uint64_t addr, uint32_t data, uint64_t n)
{
	for (unsigned i = 0; i < fi->nmsgs; i++) {
		if (fi->msg[i].addr == addr && fi->msg[i].data == data) {
			fi->msg[i].count += n;
			return;
		}
	}
	assert(fi->nmsgs < FAKE_MSGS);
	fi->msg[fi->nmsgs++] = (struct fake_msg){addr, data, n};
}

/* What the kernel does as soon as the eventfd is signalled. */
static void irq_drain_locked(struct fake_irq *fi, struct fake_gsi *g)
{
	uint64_t n;

	if (g->fd < 0 || read(g->fd, &n, sizeof(n)) != sizeof(n)) {
		return;
	}
	if (!g->valid) {
		fi->lost += n;
		return;
	}
	g->count += n;
	irq_deliver_locked(fi, g->addr, g->data, n);
}

static void irq_drain_all_locked(struct fake_irq *fi)
{
	for (unsigned i = 0; i < FAKE_GSIS; i++) {
		irq_drain_locked(fi, &fi->gsi[i]);
	}
}

static int fake_msi_send(struct irqchip *c, uint64_t addr, uint32_t data, uint32_t source)
{
	struct fake_irq *fi = to_fake_irq(c);

	pthread_mutex_lock(&fi->lock);
	fi->direct++;
	irq_deliver_locked(fi, addr, data, 1);
	pthread_mutex_unlock(&fi->lock);
	return 0;
}

static int fake_gsi_alloc(struct irqchip *c)
{
	struct fake_irq *fi = to_fake_irq(c);
	int gsi = -ENOSPC;

	pthread_mutex_lock(&fi->lock);
	for (unsigned i = fi->gsi_first; i < fi->gsi_limit; i++) {
		if (!fi->gsi[i].used) {
			fi->gsi[i] = (struct fake_gsi){.used = true, .fd = -1};
			gsi = (int)i;
			break;
		}
	}
	pthread_mutex_unlock(&fi->lock);
	return gsi;
}

static void fake_gsi_free(struct irqchip *c, int gsi)
{
	struct fake_irq *fi = to_fake_irq(c);

	pthread_mutex_lock(&fi->lock);
	assert(gsi >= 0 && gsi < FAKE_GSIS && fi->gsi[gsi].used);
	assert(fi->gsi[gsi].fd < 0); /* unbind first */
	fi->gsi[gsi].used = false;
	fi->gsi[gsi].valid = false;
	pthread_mutex_unlock(&fi->lock);
}

static int fake_route_set(struct irqchip *c, int gsi, bool valid, uint64_t addr, uint32_t data,
			  uint32_t source)
{
	struct fake_irq *fi = to_fake_irq(c);
	struct fake_gsi *g;

	pthread_mutex_lock(&fi->lock);
	assert(gsi >= 0 && gsi < FAKE_GSIS);
	g = &fi->gsi[gsi];
	irq_drain_locked(fi, g); /* what came before goes by the old route */
	g->valid = valid;
	g->addr = addr;
	g->data = data;
	g->source = source;
	g->routes_set++;
	pthread_mutex_unlock(&fi->lock);
	return 0;
}

static int fake_irqfd(struct irqchip *c, int gsi, int fd, bool assign)
{
	struct fake_irq *fi = to_fake_irq(c);
	struct fake_gsi *g;
	int rc = 0;

	pthread_mutex_lock(&fi->lock);
	assert(gsi >= 0 && gsi < FAKE_GSIS);
	g = &fi->gsi[gsi];
	if (assign) {
		if (g->fd >= 0) {
			rc = -EBUSY;
		} else {
			g->fd = fd;
			fi->binds++;
		}
	} else if (g->fd != fd) {
		rc = -ENOENT;
	} else {
		irq_drain_locked(fi, g);
		g->fd = -1;
		fi->unbinds++;
	}
	pthread_mutex_unlock(&fi->lock);
	return rc;
}

static const struct irqchip_ops fake_irq_ops = {
	.msi_send = fake_msi_send,
	.gsi_alloc = fake_gsi_alloc,
	.gsi_free = fake_gsi_free,
	.route_set = fake_route_set,
	.irqfd = fake_irqfd,
};

static void fake_irq_init(struct fake_irq *fi)
{
	fi->chip.ops = &fake_irq_ops;
	pthread_mutex_init(&fi->lock, NULL);
	fi->gsi_first = 24; /* after the IOAPIC's pins */
	fi->gsi_limit = FAKE_GSIS;
	for (unsigned i = 0; i < FAKE_GSIS; i++) {
		fi->gsi[i].fd = -1;
	}
}

uint64_t fake_irq_count(struct fake_irq *fi, int gsi)
{
	uint64_t n;

	pthread_mutex_lock(&fi->lock);
	irq_drain_all_locked(fi);
	n = fi->gsi[gsi].count;
	pthread_mutex_unlock(&fi->lock);
	return n;
}

uint64_t fake_irq_msi_count(struct fake_irq *fi, uint64_t addr, uint32_t data)
{
	uint64_t n = 0;

	pthread_mutex_lock(&fi->lock);
	irq_drain_all_locked(fi);
	for (unsigned i = 0; i < fi->nmsgs; i++) {
		if (fi->msg[i].addr == addr && fi->msg[i].data == data) {
			n += fi->msg[i].count;
		}
	}
	pthread_mutex_unlock(&fi->lock);
	return n;
}

uint64_t fake_irq_data_count(struct fake_irq *fi, uint32_t data)
{
	uint64_t n = 0;

	pthread_mutex_lock(&fi->lock);
	irq_drain_all_locked(fi);
	for (unsigned i = 0; i < fi->nmsgs; i++) {
		if (fi->msg[i].data == data) {
			n += fi->msg[i].count;
		}
	}
	pthread_mutex_unlock(&fi->lock);
	return n;
}

uint64_t fake_irq_total(struct fake_irq *fi)
{
	uint64_t n = 0;

	pthread_mutex_lock(&fi->lock);
	irq_drain_all_locked(fi);
	for (unsigned i = 0; i < fi->nmsgs; i++) {
		n += fi->msg[i].count;
	}
	pthread_mutex_unlock(&fi->lock);
	return n;
}

unsigned fake_irq_gsis_used(struct fake_irq *fi)
{
	unsigned n = 0;

	pthread_mutex_lock(&fi->lock);
	for (unsigned i = 0; i < FAKE_GSIS; i++) {
		n += fi->gsi[i].used;
	}
	pthread_mutex_unlock(&fi->lock);
	return n;
}

static void fake_line_set(void *opaque, unsigned pin, bool level)
{
	struct fake_irq *fi = opaque;
	uint32_t bit = UINT32_C(1) << (pin % 32);

	assert(pin < 256);
	pthread_mutex_lock(&fi->lock);
	if (level && !(fi->line[pin / 32] & bit)) {
		fi->edges[pin]++;
	}
	fi->line[pin / 32] = level ? fi->line[pin / 32] | bit : fi->line[pin / 32] & ~bit;
	pthread_mutex_unlock(&fi->lock);
}

struct irq_line fake_irq_line(struct fake_irq *fi, unsigned pin)
{
	return (struct irq_line){.set = fake_line_set, .opaque = fi, .pin = pin};
}

/* --- doorbells --- */

static int fake_doorbell_add(struct doorbells *d, uint64_t addr, unsigned size, int fd)
{
	struct fake_doorbells *fb = container_of(d, struct fake_doorbells, db);
	int rc = 0;

	assert(size == 0 || size == 1 || size == 2 || size == 4 || size == 8);
	pthread_mutex_lock(&fb->lock);
	for (unsigned i = 0; i < fb->count; i++) {
		const struct fake_doorbell *b = &fb->bell[i];

		if (b->addr == addr && (!b->size || !size || b->size == size)) {
			rc = -EEXIST;
		}
	}
	if (rc == 0 && fb->count == FAKE_DOORBELLS) {
		rc = -ENOSPC;
	}
	if (rc == 0) {
		fb->bell[fb->count++] = (struct fake_doorbell){addr, size, fd};
	}
	pthread_mutex_unlock(&fb->lock);
	return rc;
}

static void fake_doorbell_del(struct doorbells *d, uint64_t addr, unsigned size, int fd)
{
	struct fake_doorbells *fb = container_of(d, struct fake_doorbells, db);
	bool found = false;

	pthread_mutex_lock(&fb->lock);
	for (unsigned i = 0; i < fb->count && !found; i++) {
		struct fake_doorbell *b = &fb->bell[i];

		if (b->addr == addr && b->size == size && b->fd == fd) {
			*b = fb->bell[--fb->count];
			found = true;
		}
	}
	pthread_mutex_unlock(&fb->lock);
	assert(found);
}

static const struct doorbells_ops fake_doorbells_ops = {
	.add = fake_doorbell_add,
	.del = fake_doorbell_del,
};

int fake_doorbell_find(struct fake_doorbells *fb, uint64_t addr, unsigned len)
{
	int fd = -1;

	pthread_mutex_lock(&fb->lock);
	for (unsigned i = 0; i < fb->count && fd < 0; i++) {
		const struct fake_doorbell *b = &fb->bell[i];

		if (b->addr == addr && (b->size == 0 || b->size == len)) {
			fd = b->fd;
		}
	}
	pthread_mutex_unlock(&fb->lock);
	return fd;
}

/* Signals under the lock, as an ioeventfd does: after del() returns nobody rings any more. */
static bool doorbell_ring(struct fake_doorbells *fb, uint64_t addr, unsigned len)
{
	uint64_t one = 1;
	bool rung = false;

	pthread_mutex_lock(&fb->lock);
	for (unsigned i = 0; i < fb->count && !rung; i++) {
		const struct fake_doorbell *b = &fb->bell[i];

		if (b->addr == addr && (b->size == 0 || b->size == len)) {
			rung = write(b->fd, &one, sizeof(one)) == sizeof(one);
			fb->rung++;
		}
	}
	pthread_mutex_unlock(&fb->lock);
	return rung;
}

/* --- power --- */

static void fake_power_request(struct power *p, enum power_request what)
{
	struct fake_power *fp = container_of(p, struct fake_power, power);

	fp->count[what]++;
}

/* --- machine --- */

struct fake_vm *fake_vm_new(const struct fake_vm_config *cfg)
{
	static const struct fake_vm_config none;
	struct fake_vm *fv = calloc(1, sizeof(*fv));
	int rc;

	assert(fv);
	cfg = cfg ? cfg : &none;
	rc = loop_new(&fv->vm.loop, "fake", cfg->real_clock ? 0 : LOOP_VIRTUAL);
	assert(rc == 0);
	rc = bus_new(&fv->vm.bus);
	assert(rc == 0);
	rc = bus_reader_new(fv->vm.bus, &fv->reader);
	assert(rc == 0);
	rc = mem_new(&fv->vm.mem);
	assert(rc == 0);
	rc = mem_region_add(fv->vm.mem, "ram", 0, (cfg->ram_mib ? cfg->ram_mib : 16) * MiB,
			    MEM_RAM, 0, &fv->ram, NULL);
	assert(rc == 0);
	if (cfg->ram_high_mib) {
		rc = mem_region_add(fv->vm.mem, "ram-high", 4 * GiB, cfg->ram_high_mib * MiB,
				    MEM_RAM, 0, &fv->ram_high, NULL);
		assert(rc == 0);
	}
	fake_irq_init(&fv->irq);
	fv->doorbells.db.ops = &fake_doorbells_ops;
	pthread_mutex_init(&fv->doorbells.lock, NULL);
	fv->power.power.request = fake_power_request;
	device_list_init(&fv->devices);
	fv->vm.irq = &fv->irq.chip;
	fv->vm.doorbells = &fv->doorbells.db;
	fv->vm.power = &fv->power.power;
	fv->vm.devices = &fv->devices;
	return fv;
}

void fake_vm_free(struct fake_vm *fv)
{
	device_list_destroy(&fv->devices);
	mem_free(fv->vm.mem);
	bus_reader_free(fv->reader);
	bus_free(fv->vm.bus);
	loop_free(fv->vm.loop);
	pthread_mutex_destroy(&fv->doorbells.lock);
	pthread_mutex_destroy(&fv->irq.lock);
	free(fv);
}

void fake_vm_settle(struct fake_vm *fv)
{
	/* The loop does not tell whether it did anything, so a fixed number has to do. */
	for (int i = 0; i < 16; i++) {
		loop_step(fv->vm.loop, 0);
	}
}

static void fake_vm_all_paused(void *opaque)
{
	struct fake_vm *fv = opaque;

	fv->all_paused = true;
}

void fake_vm_pause(struct fake_vm *fv)
{
	fv->all_paused = false;
	device_list_pause(&fv->devices, fake_vm_all_paused, fv);
	for (int i = 0; i < 10000 && !fv->all_paused; i++) {
		loop_step(fv->vm.loop, 1);
	}
	assert(fv->all_paused);
}

int fake_vm_transfer(struct fake_vm *from, struct fake_vm *to, struct err *err)
{
	struct state_out *o;
	struct state_in *in;
	const void *data;
	size_t len;
	int rc;

	rc = state_out_new(&o);
	assert(rc == 0);
	rc = device_list_save(&from->devices, o, err);
	assert(rc == 0);
	rc = state_out_finish(o, &data, &len);
	assert(rc == 0);
	rc = state_in_open(&in, data, len, err);
	assert(rc == 0);
	rc = device_list_load(&to->devices, in, err);
	if (rc == 0) {
		rc = state_in_check_used(in, err);
	}
	state_in_free(in);
	state_out_free(o);
	return rc;
}

/* --- accesses --- */

void fake_cpu_init(struct fake_cpu *c, struct fake_vm *fv)
{
	int rc = bus_reader_new(fv->vm.bus, &c->reader);

	assert(rc == 0);
	c->fv = fv;
}

void fake_cpu_fini(struct fake_cpu *c)
{
	bus_reader_free(c->reader);
}

void fake_cpu_mmio_write(struct fake_cpu *c, uint64_t addr, uint64_t value, unsigned len)
{
	if (!doorbell_ring(&c->fv->doorbells, addr, len)) {
		bus_write(c->reader, BUS_MMIO, addr, &value, len);
	}
}

uint64_t fake_cpu_mmio_read(struct fake_cpu *c, uint64_t addr, unsigned len)
{
	uint64_t v = 0;

	bus_read(c->reader, BUS_MMIO, addr, &v, len);
	return v;
}

void fake_cpu_pio_write(struct fake_cpu *c, uint16_t port, uint32_t value, unsigned len)
{
	bus_write(c->reader, BUS_PIO, port, &value, len);
}

uint32_t fake_cpu_pio_read(struct fake_cpu *c, uint16_t port, unsigned len)
{
	uint32_t v = 0;

	bus_read(c->reader, BUS_PIO, port, &v, len);
	return v;
}

void fake_mmio_write(struct fake_vm *fv, uint64_t addr, uint64_t value, unsigned len)
{
	fake_cpu_mmio_write(&(struct fake_cpu){fv, fv->reader}, addr, value, len);
}

uint64_t fake_mmio_read(struct fake_vm *fv, uint64_t addr, unsigned len)
{
	return fake_cpu_mmio_read(&(struct fake_cpu){fv, fv->reader}, addr, len);
}

void fake_pio_write(struct fake_vm *fv, uint16_t port, uint32_t value, unsigned len)
{
	fake_cpu_pio_write(&(struct fake_cpu){fv, fv->reader}, port, value, len);
}

uint32_t fake_pio_read(struct fake_vm *fv, uint16_t port, unsigned len)
{
	return fake_cpu_pio_read(&(struct fake_cpu){fv, fv->reader}, port, len);
}
