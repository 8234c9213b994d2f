/*
 * PCI under load (run under TSAN too). The control loop has a thread of its own; other threads
 * play vCPUs and devices:
 *  - MSI-X vectors are masked and unmasked, by entry, function and bus mastering, while devices
 *    and kernel back ends trigger them: every piece of work is announced, nothing fires while
 *    masked, nothing fires more often than it was triggered;
 *  - BARs move and are switched off under accesses: each access reaches the right register
 * block or nobody.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <assert.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <unistd.h>

#include "fakes/fake_pci.h"
#include "pci/msix.h"
#include "spec/pci.h"
#include "toy.h"

#define BDF	0x10u
#define VECTORS 3
#define ROUNDS	400

struct fixture {
	struct fake_vm *fv;
	struct toy *t;
	struct fake_cpu cpu;
	uint64_t entry[VECTORS];
};

static int setup(void **state)
{
	static struct fixture f;
	struct pci_bus *root;

	f.fv = fake_vm_new(&(struct fake_vm_config){.real_clock = true});
	root = fake_pci_host(f.fv);
	f.t = toy_new(&f.fv->vm, root, BDF, TOY_NVEC, 1);
	fake_pci_assign(f.fv, root);
	for (unsigned i = 0; i < VECTORS; i++) {
		f.entry[i] = fake_msix_entry(f.fv, BDF, i);
		fake_msix_program(f.fv, BDF, i, FAKE_MSI_ADDR, i, false);
	}
	fake_msix_control(f.fv, BDF, true, false);
	assert_int_equal(loop_thread_start(f.fv->vm.loop, NULL, NULL), 0);
	fake_cpu_init(&f.cpu, f.fv);
	*state = &f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	fake_cpu_fini(&f->cpu);
	loop_thread_join(f->fv->vm.loop);
	fake_vm_free(f->fv);
	return 0;
}

struct producer {
	struct pci_func *func;
	unsigned vec;
	int fd;		       /* a kernel back end's; -1: a device */
	_Atomic uint64_t work; /* announced by an interrupt each time it is raised */
	uint64_t triggers;
	_Atomic bool stop;
};

static void *produce(void *arg)
{
	struct producer *p = arg;
	uint64_t one = 1;

	while (!atomic_load(&p->stop)) {
		atomic_fetch_add(&p->work, 1);
		p->triggers++;
		if (p->fd >= 0) {
			assert(write(p->fd, &one, sizeof(one)) == sizeof(one));
		} else {
			msix_trigger(p->func, p->vec);
		}
		if (p->triggers % 8 == 0) {
			sched_yield();
		}
	}
	return NULL;
}

/* The guest's handler: on an interrupt, does all the work there is. */
static void handle(struct fixture *f, struct producer *p, uint64_t *seen)
{
	uint64_t n = fake_irq_msi_count(&f->fv->irq, FAKE_MSI_ADDR, p->vec);

	if (n != *seen) {
		*seen = n;
		atomic_exchange(&p->work, 0);
	}
}

static void cfg_write16(struct fixture *f, unsigned off, uint16_t v)
{
	fake_cpu_mmio_write(&f->cpu, FAKE_ECAM + (BDF << 12) + off, v, 2);
}

static void test_masks_under_load(void **state)
{
	struct fixture *f = *state;
	struct producer p[VECTORS] = {0};
	uint64_t seen[VECTORS] = {0};
	unsigned msix = fake_pci_cap(f->fv, BDF, PCI_CAP_MSIX, 0);
	pthread_t t[VECTORS];

	for (unsigned i = 0; i < VECTORS; i++) {
		p[i].func = &f->t->func;
		p[i].vec = i;
		p[i].fd = i == VECTORS - 1 ? msix_eventfd(&f->t->func, i) : -1;
		assert_int_equal(pthread_create(&t[i], NULL, produce, &p[i]), 0);
	}
	for (unsigned round = 0; round < ROUNDS; round++) {
		unsigned vec = round % VECTORS;
		uint64_t frozen[VECTORS];

		/* One vector, or all of them. */
		switch (round % 4) {
		case 0:
		case 1:
			fake_cpu_mmio_write(&f->cpu, f->entry[vec] + 12, 1, 4);
			break;
		case 2:
			cfg_write16(f, msix + PCI_MSIX_CONTROL,
				    PCI_MSIX_ENABLE | PCI_MSIX_FUNCTION_MASK);
			break;
		case 3:
			cfg_write16(f, PCI_COMMAND, PCI_COMMAND_MEMORY);
			break;
		}
		for (unsigned i = 0; i < VECTORS; i++) {
			handle(f, &p[i], &seen[i]);
			frozen[i] = seen[i];
		}
		fake_cpu_mmio_read(&f->cpu, f->entry[0] + 0x1000, 8); /* the pending bits */
		sched_yield();
		for (unsigned i = 0; i < VECTORS; i++) {
			handle(f, &p[i], &seen[i]);
			if (round % 4 >= 2 || i == vec) {
				assert_int_equal(seen[i], frozen[i]);
			}
		}
		switch (round % 4) {
		case 0:
		case 1:
			fake_cpu_mmio_write(&f->cpu, f->entry[vec] + 12, 0, 4);
			break;
		case 2:
			cfg_write16(f, msix + PCI_MSIX_CONTROL, PCI_MSIX_ENABLE);
			break;
		case 3:
			cfg_write16(f, PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
			break;
		}
		for (unsigned i = 0; i < VECTORS; i++) {
			handle(f, &p[i], &seen[i]);
		}
	}
	for (unsigned i = 0; i < VECTORS; i++) {
		p[i].stop = true;
		pthread_join(t[i], NULL);
		handle(f, &p[i], &seen[i]);
		assert_int_equal(p[i].work, 0);	       /* none lost */
		assert_true(seen[i] <= p[i].triggers); /* none invented */
		assert_true(seen[i] > 0);
	}
	assert_int_equal(f->fv->irq.lost, 0);
	assert_int_equal(fake_irq_gsis_used(&f->fv->irq), VECTORS);
}

struct accessor {
	struct fixture *f;
	_Atomic uint64_t hits, misses;
	uint64_t bad;
	_Atomic bool stop;
};

static const uint64_t places[] = {0xc8000000, 0xc8001000, 0xd0000000, 0xf0000000};

static void *access_all(void *arg)
{
	struct accessor *a = arg;
	struct fake_cpu cpu;

	fake_cpu_init(&cpu, a->f->fv);
	while (!atomic_load(&a->stop)) {
		for (unsigned i = 0; i < ARRAY_SIZE(places); i++) {
			uint64_t v = fake_cpu_mmio_read(&cpu, places[i] + 8, 4);

			if (v == TOY_MARK + 256) {
				a->hits++;
			} else if (v == 0xffffffff) {
				a->misses++;
			} else {
				a->bad++;
			}
			fake_cpu_mmio_write(&cpu, places[i] + 8, 0x1234, 4);
			v = fake_cpu_mmio_read(&cpu, FAKE_ECAM + (BDF << 12) + PCI_BAR0, 4);
			a->bad += v != 0 && v != places[0] && v != places[1] &&
				  v != places[2] && v != places[3];
		}
	}
	fake_cpu_fini(&cpu);
	return NULL;
}

static void test_bar_moves_under_load(void **state)
{
	struct fixture *f = *state;
	uint64_t command = FAKE_ECAM + (BDF << 12) + PCI_COMMAND;
	uint64_t bar = FAKE_ECAM + (BDF << 12) + PCI_BAR0;
	struct accessor a[2] = {{.f = f}, {.f = f}};
	pthread_t t[2];

	fake_cpu_mmio_write(&f->cpu, bar, places[0], 4);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(pthread_create(&t[i], NULL, access_all, &a[i]), 0);
		while (a[i].hits == 0 || a[i].misses == 0) {
			sched_yield();
		}
	}
	for (unsigned i = 0; i < ROUNDS; i++) {
		fake_cpu_mmio_write(&f->cpu, bar, places[i % ARRAY_SIZE(places)], 4);
		if (i % 5 == 0) {
			fake_cpu_mmio_write(&f->cpu, command, 0, 2);
			/* Once the write is done, it is away for this vCPU. */
			assert_int_equal(fake_cpu_mmio_read(&f->cpu, places[i % 4] + 8, 4),
					 0xffffffff);
			fake_cpu_mmio_write(&f->cpu, command, PCI_COMMAND_MEMORY, 2);
		}
		assert_int_equal(fake_cpu_mmio_read(&f->cpu, places[i % 4] + 8, 4),
				 TOY_MARK + 256);
	}
	for (int i = 0; i < 2; i++) {
		a[i].stop = true;
		pthread_join(t[i], NULL);
		assert_int_equal(a[i].bad, 0);
	}
	assert_int_equal(f->t->written[0], 0x1234);
	assert_int_equal(f->t->addr[0], places[(ROUNDS - 1) % 4]);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_masks_under_load),
		T(test_bar_moves_under_load),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
