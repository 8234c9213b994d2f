/* Port and memory accesses of a real guest, reset, and the ends of a vCPU. */
#include "guest.h"

#include <string.h>

#include "arch/x86/regs.h"
#include "base/util.h"

GUEST_CODE_OF(io);
GUEST_CODE_OF(fault);
GUEST_CODE_OF(nowhere);
GUEST_CODE_OF(msrs);
__asm__(".pushsection .rodata\n"
	/* real mode: every width, both directions, strings, and memory that is not there */
	".code16\n"
	"io_start:\n"
	"	mov $0x42, %al\n"
	"	out %al, $0x10\n"
	"	in $0x11, %al\n"
	"	out %al, $0x10\n"
	"	mov $0x1234, %ax\n"
	"	out %ax, $0x0E\n"
	"	mov $0x12345678, %eax\n"
	"	out %eax, $0x0C\n"
	"	in $0x99, %al\n" /* nobody there */
	"	out %al, $0x10\n"
	"	mov %cs, %ax\n"
	"	mov %ax, %ds\n"
	"	mov $(io_text - io_start), %si\n"
	"	mov $5, %cx\n"
	"	mov $0x10, %dx\n"
	"	cld\n"
	"	rep outsb\n"
	"	xor %ax, %ax\n"
	"	mov %ax, %es\n"
	"	mov $0x500, %di\n"
	"	mov $4, %cx\n"
	"	mov $0x12, %dx\n"
	"	rep insb\n" /* 1 2 3 4 */
	"	mov %es:0x500, %eax\n"
	"	out %eax, $0x0C\n"
	"	mov $0xA000, %ax\n"
	"	mov %ax, %ds\n"
	"	movl $0x11223344, 0x10\n"
	"	movb $0x55, 0x14\n"
	"	mov 0x10, %eax\n"
	"	out %eax, $0x0C\n"
	"	mov 0x2000, %eax\n" /* nobody there */
	"	out %eax, $0x0C\n"
	"	out %al, $0xF4\n"
	"1:	hlt\n"
	"	jmp 1b\n"
	"io_text: .ascii \"hello\"\n"
	"io_end:\n"
	/* 64-bit mode: an exception without handlers */
	".code64\n"
	"fault_start:\n"
	"	lidt fault_idt(%rip)\n"
	"	ud2\n"
	"fault_idt: .word 0\n"
	"	.quad 0\n"
	"fault_end:\n"
	/* runs off into a device */
	"nowhere_start:\n"
	"	mov $0xA0000, %eax\n"
	"	jmp *%rax\n"
	"nowhere_end:\n"
	/* says MTRR_DEF_TYPE and LSTAR, changes LSTAR */
	"msrs_start:\n"
	"	mov $0x2FF, %ecx\n"
	"	rdmsr\n"
	"	out %eax, $0x0C\n"
	"	mov $0xC0000082, %ecx\n"
	"	rdmsr\n"
	"	out %eax, $0x0C\n"
	"	mov $0x1234, %eax\n"
	"	xor %edx, %edx\n"
	"	wrmsr\n"
	"	rdmsr\n"
	"	out %eax, $0x0C\n"
	"	out %al, $0xF4\n"
	"1:	hlt\n"
	"	jmp 1b\n"
	"msrs_end:\n"
	".popsection\n");

static uint8_t device_bytes[0x100];
static unsigned device_writes;

static uint64_t device_read(void *opaque, uint64_t off, unsigned size)
{
	uint64_t v = 0;

	memcpy(&v, device_bytes + off, size);
	return v;
}

static void device_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
	memcpy(device_bytes + off, &value, size);
	device_writes++;
}

static const struct bus_ops device_ops = {.read = device_read, .write = device_write};

static void expect_io(struct guest *g, unsigned at)
{
	const uint32_t want[] = {0x42, 0x5A, 0x1234, 0x12345678, 0xFF, 'h', 'e', 'l', 'l', 'o'};
	const uint8_t sizes[] = {1, 1, 2, 4, 1, 1, 1, 1, 1, 1};

	assert_int_equal(atomic_load(&g->said_count), at + 13);
	for (unsigned i = 0; i < ARRAY_SIZE(want); i++) {
		assert_int_equal(g->said[at + i], want[i]);
		assert_int_equal(g->said_size[at + i], sizes[i]);
	}
	assert_int_equal(g->said[at + 11], 0x11223344);
	assert_int_equal(g->said[at + 12], 0xFFFFFFFF);
}

static void test_io(void **state)
{
	struct guest g = {0};
	struct bus_region device = {
		.name = "device",
		.space = BUS_MMIO,
		.base = 0xA0000,
		.size = 0x100,
		.ops = &device_ops,
	};
	struct kvm_vcpu *v;

	guest_need_kvm();
	guest_new(&g, 1);
	assert_int_equal(bus_add(g.bus, &device), 0);
	guest_load(&g, io_start, io_end);
	guest_reset_real(&g);
	device_writes = 0;
	guest_run(&g);
	expect_io(&g, 0);
	assert_int_equal(g.said[10], 0x04030201); /* what insb stored */
	assert_int_equal(device_writes, 2);
	assert_int_equal(device_bytes[0x14], 0x55);
	assert_int_equal(atomic_load(&g.inits), 1);

	v = kvm_vm_vcpu(g.vm, 0);
	assert_int_equal(kvm_vcpu_stat(v, KVM_STAT_MMIO), 4);
	assert_in_range(kvm_vcpu_stat(v, KVM_STAT_PIO), 11, 20); /* strings may be batched */
	assert_int_equal(kvm_vcpu_stat(v, KVM_STAT_ERROR), 0);
	assert_string_equal(kvm_stat_name(KVM_STAT_MMIO), "mmio");
	assert_true(kvm_vcpu_tid(v) > 0);
	assert_null(kvm_vm_vcpu(g.vm, 1));

	/* and once more from reset */
	guest_pause(&g);
	guest_reset_real(&g);
	guest_run(&g);
	expect_io(&g, 13);
	guest_pause(&g);
	bus_del(g.bus, &device);
	guest_free(&g);
}

/* What the guest changed in MSRs does not survive a reset. */
static void test_reset_msrs(void **state)
{
	struct guest g = {0};

	guest_need_kvm();
	guest_new(&g, 1);
	guest_load(&g, msrs_start, msrs_end);
	for (unsigned i = 0; i < 3; i++) {
		guest_reset_long(&g);
		guest_run(&g);
		guest_pause(&g);
		assert_int_equal(g.said[3 * i], X86_BOOT_MTRR);
		assert_int_equal(g.said[3 * i + 1], 0);
		assert_int_equal(g.said[3 * i + 2], 0x1234);
	}
	guest_free(&g);
}

static void expect_stop(const uint8_t *start, const uint8_t *end, enum power_request want,
			enum kvm_stat stat)
{
	struct guest g = {0};

	guest_need_kvm();
	guest_new(&g, 1);
	guest_load(&g, start, end);
	guest_reset_long(&g);
	guest_run(&g);
	assert_int_equal(atomic_load(&g.power_request), want);
	assert_int_equal(kvm_vcpu_stat(kvm_vm_vcpu(g.vm, 0), stat), 1);
	/* it stays stopped: resuming does not bring it back */
	guest_pause(&g);
	kvm_vcpus_resume(g.vm);
	guest_pause(&g);
	assert_int_equal(kvm_vcpu_stat(kvm_vm_vcpu(g.vm, 0), stat), 1);
	/* a reset does */
	guest_load(&g, msrs_start, msrs_end);
	guest_reset_long(&g);
	guest_run(&g);
	assert_int_equal(atomic_load(&g.said_count), 3);
	guest_free(&g);
}

static void test_triple_fault(void **state)
{
	expect_stop(fault_start, fault_end, POWER_RESET, KVM_STAT_SHUTDOWN);
}

static void test_internal_error(void **state)
{
	expect_stop(nowhere_start, nowhere_end, POWER_PANIC, KVM_STAT_ERROR);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_io),
		cmocka_unit_test(test_reset_msrs),
		cmocka_unit_test(test_triple_fault),
		cmocka_unit_test(test_internal_error),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
