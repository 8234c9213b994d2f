/* Interrupts into a real guest: MSI by irqfd and directly, routes, EOIs, INIT and SIPI. */
#include "guest.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/util.h"

GUEST_CODE_OF(isr);
GUEST_CODE_OF(smp);
extern const uint8_t isr_40[], isr_41[];
__asm__(".pushsection .rodata\n"
	".code64\n"
	/* enables its APIC, then sleeps; each interrupt says its vector and ends the run */
	"isr_start:\n"
	"	mov $0xFEE00000, %ebx\n"
	"	movl $0x1FF, 0xF0(%rbx)\n"
	"	out %al, $0xF4\n"
	"1:	sti\n"
	"	hlt\n"
	"	jmp 1b\n"
	"isr_40:\n"
	"	mov $0x40, %al\n"
	"	jmp 2f\n"
	"isr_41:\n"
	"	mov $0x41, %al\n"
	"2:	movl $0, 0xB0(%rbx)\n"
	"	out %al, $0x10\n"
	"	out %al, $0xF4\n"
	"	iretq\n"
	"isr_end:\n"
	/* starts CPU 1 at page 0x20000 and waits for its word */
	"smp_start:\n"
	"	mov $0xFEE00000, %ebx\n"
	"	movl $0x1FF, 0xF0(%rbx)\n"
	"	movl $0x01000000, 0x310(%rbx)\n"
	"	movl $0x4500, 0x300(%rbx)\n"
	"	movl $0x01000000, 0x310(%rbx)\n"
	"	movl $0x4620, 0x300(%rbx)\n"
	"1:	pause\n"
	"	cmpl $0x600D, 0x600\n"
	"	jne 1b\n"
	"	mov $1, %al\n"
	"	out %al, $0x10\n"
	"	out %al, $0xF4\n"
	"2:	hlt\n"
	"	jmp 2b\n"
	"smp_end:\n"
	".popsection\n");

/* The other CPU, in real mode: says so in memory. */
GUEST_CODE_OF(ap);
__asm__(".pushsection .rodata\n"
	".code16\n"
	"ap_start:\n"
	"	xor %ax, %ax\n"
	"	mov %ax, %ds\n"
	"	movl $0x600D, 0x600\n"
	"1:	hlt\n"
	"	jmp 1b\n"
	"ap_end:\n"
	".code64\n"
	".popsection\n");

static void start(struct guest *g)
{
	guest_new(g, 1);
	guest_load(g, isr_start, isr_end);
	guest_reset_long(g);
	guest_set_gate(g, 0x40, isr_40 - isr_start);
	guest_set_gate(g, 0x41, isr_41 - isr_start);
	guest_run(g); /* until the APIC is on */
}

static void test_irqfd(void **state)
{
	struct guest g = {0};
	struct irqchip *c;
	int gsi, fd;

	guest_need_kvm();
	start(&g);
	c = kvm_vm_irqchip(g.vm);
	fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	gsi = c->ops->gsi_alloc(c);
	assert_true(gsi >= KVM_IOAPIC_PINS);
	assert_int_equal(c->ops->route_set(c, gsi, true, 0xFEE00000, 0x40, 0), 0);
	assert_int_equal(c->ops->irqfd(c, gsi, fd, true), 0);
	for (unsigned i = 0; i < 100; i++) {
		assert_int_equal(eventfd_write(fd, 1), 0);
		guest_run(&g);
		assert_int_equal(atomic_load(&g.said_count), i + 1);
		assert_int_equal(g.said[i], 0x40);
	}
	/* another message for the same GSI */
	assert_int_equal(c->ops->route_set(c, gsi, true, 0xFEE00000, 0x41, 0), 0);
	assert_int_equal(eventfd_write(fd, 1), 0);
	guest_run(&g);
	assert_int_equal(g.said[100], 0x41);
	/* without a route, and after unbinding, nothing comes */
	assert_int_equal(c->ops->route_set(c, gsi, false, 0, 0, 0), 0);
	assert_int_equal(eventfd_write(fd, 1), 0);
	usleep(100000); /* see irq.h: KVM looks for the route a little later */
	assert_int_equal(c->ops->route_set(c, gsi, true, 0xFEE00000, 0x41, 0), 0);
	assert_int_equal(c->ops->irqfd(c, gsi, fd, false), 0);
	assert_int_equal(eventfd_write(fd, 1), 0);
	/* by message alone */
	assert_int_equal(c->ops->msi_send(c, 0xFEE00000, 0x40, 0), 0);
	guest_run(&g);
	assert_int_equal(g.said[101], 0x40);
	guest_pause(&g);
	assert_int_equal(atomic_load(&g.said_count), 102);
	c->ops->gsi_free(c, gsi);
	close(fd);
	guest_free(&g);
}

/* A level interrupt of one of the IOAPIC's pins: KVM reports its EOI. */
static bool eoi_came(struct guest *g)
{
	return atomic_load(&g->eois) > 0;
}

static void test_eoi(void **state)
{
	struct guest g = {0};
	struct irqchip *c;

	guest_need_kvm();
	start(&g);
	c = kvm_vm_irqchip(g.vm);
	/* bit 15: level, which is what makes the APIC remember to tell */
	assert_int_equal(c->ops->route_set(c, 9, true, 0xFEE00000, 0xC040, 0), 0);
	assert_int_equal(c->ops->msi_send(c, 0xFEE00000, 0xC040, 0), 0);
	guest_run(&g);
	assert_int_equal(g.said[0], 0x40);
	guest_wait(&g, eoi_came);
	assert_int_equal(atomic_load(&g.eoi_vector), 0x40);
	assert_int_equal(kvm_vcpu_stat(kvm_vm_vcpu(g.vm, 0), KVM_STAT_IOAPIC_EOI), 1);
	guest_free(&g);
}

/* Routes by the thousand: all GSIs once, then freed ones again, in any order. */
static void test_gsi_table(void **state)
{
	struct guest g = {0};
	struct irqchip *c;
	int fd, n = 0, last = -1, gsi;

	guest_need_kvm();
	start(&g);
	c = kvm_vm_irqchip(g.vm);
	while ((gsi = c->ops->gsi_alloc(c)) >= 0) {
		assert_true(gsi > last && gsi >= KVM_IOAPIC_PINS);
		last = gsi;
		n++;
	}
	assert_int_equal(gsi, -ENOSPC);
	assert_true(n >= 1000);
	/* grow the table past its first size and shrink it from the middle */
	for (gsi = last - 150; gsi <= last; gsi++) {
		assert_int_equal(c->ops->route_set(c, gsi, true, 0xFEE00000, 0x40, 0), 0);
		assert_int_equal(c->ops->route_set(c, gsi, true, 0xFEE00000, 0x40, 0), 0);
	}
	for (gsi = last - 149; gsi <= last; gsi += 2) {
		c->ops->gsi_free(c, gsi);
		assert_int_equal(c->ops->route_set(c, gsi, true, 0xFEE00000, 0x40, 0), -EINVAL);
	}
	assert_int_equal(c->ops->gsi_alloc(c), last - 149);
	/* one that moved in the table still works */
	fd = eventfd(0, EFD_CLOEXEC);
	assert_int_equal(c->ops->route_set(c, last - 150, true, 0xFEE00000, 0x41, 0), 0);
	assert_int_equal(c->ops->irqfd(c, last - 150, fd, true), 0);
	assert_int_equal(eventfd_write(fd, 1), 0);
	guest_run(&g);
	assert_int_equal(g.said[0], 0x41);
	assert_int_equal(c->ops->irqfd(c, last - 150, fd, false), 0);

	assert_int_equal(c->ops->route_set(c, -1, true, 0, 0, 0), -EINVAL);
	assert_int_equal(c->ops->route_set(c, 1 << 20, true, 0, 0, 0), -EINVAL);
	assert_int_equal(c->ops->irqfd(c, 1 << 20, fd, true), -EINVAL);
	close(fd);
	guest_free(&g);
}

static void test_smp(void **state)
{
	struct guest g = {0};

	guest_need_kvm();
	guest_new(&g, 2);
	guest_load(&g, smp_start, smp_end);
	assert_int_equal(mem_write(g.mem, 0x20000, ap_start, ap_end - ap_start), 0);
	for (unsigned i = 0; i < 3; i++) {
		uint32_t none = 0;

		/* after a reset the second CPU waits again */
		assert_int_equal(mem_write(g.mem, 0x600, &none, 4), 0);
		guest_reset_long(&g);
		guest_run(&g);
		guest_pause(&g);
		assert_int_equal(atomic_load(&g.said_count), i + 1);
	}
	assert_int_equal(atomic_load(&g.inits), 2);
	guest_free(&g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_irqfd),
		cmocka_unit_test(test_eoi),
		cmocka_unit_test(test_gsi_table),
		cmocka_unit_test(test_smp),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
