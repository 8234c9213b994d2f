/*
 * I/O APIC: edge and level pins, masking, Remote IRR, EOI by message and by register, routes,
 * message format, state in mid-interrupt, lines from several threads.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <stdlib.h>

#include "device/platform/ioapic.h"
#include "fakes/fakes.h"
#include "spec/ioapic.h"
#include "spec/platform_x86.h"

struct env {
	struct fake_vm *fv;
	struct ioapic *io;
};

static int setup(void **state)
{
	struct env *e = calloc(1, sizeof(*e));

	e->fv = fake_vm_new(NULL);
	assert_int_equal(ioapic_new(&e->fv->vm, &e->io, NULL), 0);
	*state = e;
	return 0;
}

static int teardown(void **state)
{
	struct env *e = *state;

	fake_vm_free(e->fv);
	free(e);
	return 0;
}

static void wr(struct env *e, uint8_t reg, uint32_t v)
{
	fake_mmio_write(e->fv, PLAT_IOAPIC_BASE + IOAPIC_IOREGSEL, reg, 4);
	fake_mmio_write(e->fv, PLAT_IOAPIC_BASE + IOAPIC_IOWIN, v, 4);
}

static uint32_t rd(struct env *e, uint8_t reg)
{
	fake_mmio_write(e->fv, PLAT_IOAPIC_BASE + IOAPIC_IOREGSEL, reg, 4);
	return (uint32_t)fake_mmio_read(e->fv, PLAT_IOAPIC_BASE + IOAPIC_IOWIN, 4);
}

static void rte(struct env *e, unsigned pin, uint64_t v)
{
	wr(e, (uint8_t)(0x10 + 2 * pin + 1), (uint32_t)(v >> 32));
	wr(e, (uint8_t)(0x10 + 2 * pin), (uint32_t)v);
}

static uint64_t rte_get(struct env *e, unsigned pin)
{
	return rd(e, (uint8_t)(0x10 + 2 * pin)) | (uint64_t)rd(e, (uint8_t)(0x10 + 2 * pin + 1))
							  << 32;
}

static void line(struct env *e, unsigned pin, bool level)
{
	struct irq_line l = ioapic_line(e->io, pin);

	irq_line_set(&l, level);
}

static uint64_t sent(struct env *e, uint32_t data)
{
	return fake_irq_data_count(&e->fv->irq, data);
}

static void test_registers(void **state)
{
	struct env *e = *state;

	assert_int_equal(rd(e, IOAPIC_REG_VER), 0x00170020);
	wr(e, IOAPIC_REG_ID, 0xffffffff);
	assert_int_equal(rd(e, IOAPIC_REG_ID), 0x0f000000);
	assert_int_equal(rd(e, 0x40), 0);
	assert_int_equal(rd(e, 0xff), 0);
	for (unsigned pin = 0; pin < PLAT_IOAPIC_PINS; pin++) {
		assert_int_equal(rte_get(e, pin), IOAPIC_RTE_MASKED);
	}
	/* read-only and reserved bits stay clear, the last pin is there, the next is not */
	rte(e, 23, UINT64_MAX);
	assert_int_equal(rte_get(e, 23), 0xfffe00000001afff);
	wr(e, 0x10 + 48, 0);
	assert_int_equal(rd(e, 0x10 + 48), 0);
	/* a byte selects as well; other sizes and offsets do nothing */
	fake_mmio_write(e->fv, PLAT_IOAPIC_BASE, 0x01, 1);
	assert_int_equal(fake_mmio_read(e->fv, PLAT_IOAPIC_BASE, 4), 1);
	assert_int_equal(fake_mmio_read(e->fv, PLAT_IOAPIC_BASE + 0x10, 4), 0x00170020);
	fake_mmio_write(e->fv, PLAT_IOAPIC_BASE + 0x10, 0x55, 1);
	fake_mmio_write(e->fv, PLAT_IOAPIC_BASE + 0x20, 0x55, 4);
	assert_int_equal(fake_mmio_read(e->fv, PLAT_IOAPIC_BASE + 0x20, 4), 0);
	device_list_reset(&e->fv->devices);
	assert_int_equal(rte_get(e, 23), IOAPIC_RTE_MASKED);
}

static void test_edge(void **state)
{
	struct env *e = *state;

	/* masked: the edge is lost, also when unmasked while the line is high */
	line(e, 4, true);
	rte(e, 4, 0x30);
	assert_int_equal(sent(e, 0x30), 0);
	line(e, 4, false);
	line(e, 4, true);
	assert_int_equal(sent(e, 0x30), 1);
	line(e, 4, true); /* no edge */
	assert_int_equal(sent(e, 0x30), 1);
	line(e, 4, false);
	line(e, 4, true);
	assert_int_equal(sent(e, 0x30), 2);
	assert_int_equal(rte_get(e, 4) & IOAPIC_RTE_REMOTE_IRR, 0);
	/* an EOI of that vector is nobody's business */
	ioapic_eoi(e->io, 0x30);
	assert_int_equal(sent(e, 0x30), 2);
}

static void test_level(void **state)
{
	struct env *e = *state;
	const uint32_t data = 0x40 | 1 << 14 | 1 << 15;

	line(e, 10, true);
	rte(e, 10, 0x40 | IOAPIC_RTE_LEVEL | IOAPIC_RTE_MASKED);
	assert_int_equal(sent(e, data), 0);
	/* unmasking while the line is high fires */
	rte(e, 10, 0x40 | IOAPIC_RTE_LEVEL);
	assert_int_equal(sent(e, data), 1);
	assert_true(rte_get(e, 10) & IOAPIC_RTE_REMOTE_IRR);
	/* not again before the EOI */
	line(e, 10, false);
	line(e, 10, true);
	rte(e, 10, 0x40 | IOAPIC_RTE_LEVEL);
	assert_int_equal(sent(e, data), 1);
	ioapic_eoi(e->io, 0x41);
	assert_int_equal(sent(e, data), 1);
	ioapic_eoi(e->io, 0x40); /* still high: again */
	assert_int_equal(sent(e, data), 2);
	line(e, 10, false);
	ioapic_eoi(e->io, 0x40);
	assert_int_equal(sent(e, data), 2);
	assert_false(rte_get(e, 10) & IOAPIC_RTE_REMOTE_IRR);
	/* the EOI register does the same */
	line(e, 10, true);
	assert_int_equal(sent(e, data), 3);
	fake_mmio_write(e->fv, PLAT_IOAPIC_BASE + IOAPIC_EOI, 0x40, 4);
	assert_int_equal(sent(e, data), 4);
	/* masked at the time of the EOI: waits for the unmask */
	rte(e, 10, 0x40 | IOAPIC_RTE_LEVEL | IOAPIC_RTE_MASKED);
	ioapic_eoi(e->io, 0x40);
	assert_int_equal(sent(e, data), 4);
	rte(e, 10, 0x40 | IOAPIC_RTE_LEVEL);
	assert_int_equal(sent(e, data), 5);
	/* to edge and back clears Remote IRR */
	rte(e, 10, 0x40 | IOAPIC_RTE_MASKED);
	assert_false(rte_get(e, 10) & IOAPIC_RTE_REMOTE_IRR);
	rte(e, 10, 0x40 | IOAPIC_RTE_LEVEL);
	assert_int_equal(sent(e, data), 6);
	/* two pins with one vector */
	line(e, 11, true);
	rte(e, 11, 0x40 | IOAPIC_RTE_LEVEL);
	assert_int_equal(sent(e, data), 7);
	ioapic_eoi(e->io, 0x40);
	assert_int_equal(sent(e, data), 9);
}

static void test_message(void **state)
{
	struct env *e = *state;
	struct fake_gsi *g = &e->fv->irq.gsi[7];

	/* destination 0x12 logical, lowest priority, vector 0x55 */
	rte(e, 7, UINT64_C(0x12) << 56 | 0x55 | 1 << 8 | IOAPIC_RTE_DEST_LOGIC);
	assert_true(g->valid);
	assert_int_equal(g->addr, 0xfee1200c);
	assert_int_equal(g->data, 0x155);
	/* extended destination 0x5a12, physical, level */
	rte(e, 7, UINT64_C(0x12) << 56 | UINT64_C(0x5a) << 49 | 0x55 | IOAPIC_RTE_LEVEL);
	assert_int_equal(g->addr, 0xfee12000 | 0x5a << 5);
	assert_int_equal(g->data, 0xc055);
	line(e, 7, true);
	assert_int_equal(fake_irq_msi_count(&e->fv->irq, g->addr, g->data), 1);
	/* masked or ExtINT: no route, nothing sent */
	rte(e, 7, 0x55 | IOAPIC_RTE_MASKED);
	assert_false(g->valid);
	line(e, 7, false);
	rte(e, 7, 0x55 | IOAPIC_DELMODE_EXTINT << 8);
	assert_false(g->valid);
	line(e, 7, true);
	assert_int_equal(sent(e, 0x755), 0);
	/* nothing changes, no route is set again */
	rte(e, 7, 0x55);
	assert_true(g->valid);
	{
		unsigned n = g->routes_set;

		rte(e, 7, 0x55);
		assert_int_equal(g->routes_set, n);
	}
	device_list_reset(&e->fv->devices);
	assert_false(g->valid);
}

static void test_state(void **state)
{
	struct env *e = *state, *to = NULL;
	const uint32_t data = 0x60 | 1 << 14 | 1 << 15;
	struct err err;

	setup((void **)&to);
	rte(e, 3, 0x60 | IOAPIC_RTE_LEVEL);
	rte(e, 5, 0x33);
	line(e, 3, true); /* sent, waits for its EOI */
	line(e, 5, true);
	fake_mmio_write(e->fv, PLAT_IOAPIC_BASE, 0x13, 4);
	fake_vm_pause(e->fv);
	fake_vm_pause(to->fv);
	assert_int_equal(fake_vm_transfer(e->fv, to->fv, &err), 0);
	device_list_resume(&to->fv->devices);
	assert_int_equal(fake_mmio_read(to->fv, PLAT_IOAPIC_BASE, 4), 0x13);
	assert_int_equal(sent(to, data), 0); /* it is in the local APIC's state */
	assert_true(to->fv->irq.gsi[3].valid);
	assert_true(to->fv->irq.gsi[5].valid);
	ioapic_eoi(to->io, 0x60);
	assert_int_equal(sent(to, data), 1);
	line(to, 5, true); /* was high: no edge */
	assert_int_equal(sent(to, 0x33), 0);
	line(to, 5, false);
	line(to, 5, true);
	assert_int_equal(sent(to, 0x33), 1);
	teardown((void **)&to);
}

/* Level interrupts as a driver sees them, from several threads: none is lost, none is left. */
#define ROUNDS 3000
struct puller {
	struct env *e;
	unsigned pin;
	_Atomic bool high;
};

static void *puller_main(void *arg)
{
	struct puller *p = arg;

	for (int i = 0; i < ROUNDS; i++) {
		p->high = true;
		line(p->e, p->pin, true);
		while (p->high) { /* lowered by the handler */
			sched_yield();
		}
	}
	return NULL;
}

static void test_threads(void **state)
{
	struct env *e = *state;
	struct puller p[3];
	pthread_t t[3];
	unsigned handled = 0;

	for (unsigned i = 0; i < 3; i++) {
		p[i] = (struct puller){.e = e, .pin = 8 + i};
		rte(e, 8 + i, (0x50 + i) | IOAPIC_RTE_LEVEL);
		assert_int_equal(pthread_create(&t[i], NULL, puller_main, &p[i]), 0);
	}
	while (handled < 3 * ROUNDS) {
		for (unsigned i = 0; i < 3; i++) {
			if (!p[i].high || !(rte_get(e, 8 + i) & IOAPIC_RTE_REMOTE_IRR)) {
				continue;
			}
			line(e, 8 + i, false);
			ioapic_eoi(e->io, (uint8_t)(0x50 + i));
			handled++;
			p[i].high = false;
		}
	}
	for (unsigned i = 0; i < 3; i++) {
		pthread_join(t[i], NULL);
		assert_int_equal(sent(e, (0x50 + i) | 3 << 14), ROUNDS);
	}
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_registers), T(test_edge),  T(test_level),
		T(test_message),   T(test_state), T(test_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
