/* The whole state of a vCPU, through a stream into another VM, which goes on where it was. */
#include "guest.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/util.h"
#include "kvm/x86_int.h"
#include "spec/x86.h"

GUEST_CODE_OF(life);
extern const uint8_t life_timer[];
__asm__(".pushsection .rodata\n"
	".code64\n"
	/* Fills registers, arms its deadline timer far enough ahead, then counts: says a checksum
	 * of what it holds, and the TSC, each time it is let go. The timer says 0x40. */
	"life_start:\n"
	"	mov %cr4, %rax\n"
	"	or $0x600, %rax\n" /* SSE */
	"	mov %rax, %cr4\n"
	"	mov $0xFEE00000, %ebx\n"
	"	movl $0x1FF, 0xF0(%rbx)\n"
	"	movl $0x40040, 0x320(%rbx)\n" /* LVT timer: TSC deadline, vector 0x40 */
	"	mov $0xC0000082, %ecx\n"      /* LSTAR */
	"	mov $0x11223344, %eax\n"
	"	xor %edx, %edx\n"
	"	wrmsr\n"
	"	mov $0x0123456789ABCDEF, %r15\n"
	"	mov %r15, 0x630\n"
	"	movdqu 0x630, %xmm7\n"
	"	mov $0x5A5A, %r14d\n"
	"	mov %r14, %dr0\n"
	"	rdtsc\n"
	"	shl $32, %rdx\n"
	"	or %rdx, %rax\n"
	"	add 0x610, %rax\n" /* the test says how far */
	"	mov %rax, %rdx\n"
	"	shr $32, %rdx\n"
	"	mov $0x6E0, %ecx\n"
	"	wrmsr\n"
	"	xor %r12, %r12\n"
	"1:	inc %r12\n"
	"	mov %r12d, %eax\n"
	"	out %eax, $0x0C\n"
	"	movdqu %xmm7, 0x640\n"
	"	mov 0x640, %rax\n"
	"	mov %dr0, %rcx\n"
	"	add %rcx, %rax\n"
	"	out %eax, $0x0C\n"
	"	mov $0xC0000082, %ecx\n"
	"	rdmsr\n"
	"	out %eax, $0x0C\n"
	"	rdtsc\n"
	"	mov %eax, 0x620\n"
	"	mov %edx, 0x624\n"
	"	out %al, $0xF4\n"
	"	cmp $6, %r12\n"
	"	jb 1b\n"
	"2:	sti\n"
	"	hlt\n"
	"	jmp 2b\n"
	"life_timer:\n"
	"	movl $0, 0xB0(%rbx)\n"
	"	mov $0x40, %al\n"
	"	out %al, $0x10\n"
	"	out %al, $0xF4\n"
	"	iretq\n"
	"life_end:\n"
	".popsection\n");

static uint64_t peek64(struct guest *g, gpa_t at)
{
	uint64_t v;

	assert_int_equal(mem_read(g->mem, at, &v, sizeof(v)), 0);
	return v;
}

static void start(struct guest *g, uint64_t ahead)
{
	guest_load(g, life_start, life_end);
	guest_set_gate(g, 0x40, life_timer - life_start);
	assert_int_equal(mem_write(g->mem, 0x610, &ahead, sizeof(ahead)), 0);
	guest_reset_long(g);
}

/* The n-th round of the guest's life, said from `at` on. */
static void expect_round(struct guest *g, unsigned at, unsigned n)
{
	assert_int_equal(atomic_load(&g->said_count), at + 3);
	assert_int_equal(g->said[at], n);
	assert_int_equal(g->said[at + 1], (uint32_t)(0x89ABCDEF + 0x5A5A));
	assert_int_equal(g->said[at + 2], 0x11223344);
}

struct saved {
	struct state_out *out;
	uint8_t *ram;
};

static void save(struct guest *g, struct saved *s)
{
	struct err err = {0};

	assert_int_equal(state_out_new(&s->out), 0);
	if (kvm_clock_save(g->vm, s->out, &err) < 0) {
		fail_msg("%s", err.msg);
	}
	for (unsigned i = 0; i < kvm_vm_vcpu_count(g->vm); i++) {
		if (kvm_vcpu_save(kvm_vm_vcpu(g->vm, i), s->out, &err) < 0) {
			fail_msg("%s", err.msg);
		}
	}
	s->ram = malloc(GUEST_RAM);
	assert_int_equal(mem_read(g->mem, 0, s->ram, GUEST_RAM), 0);
}

static int load(struct guest *g, struct saved *s, struct err *err)
{
	struct state_in *in;
	const void *data;
	size_t len;
	int r;

	assert_int_equal(state_out_finish(s->out, &data, &len), 0);
	assert_int_equal(state_in_open(&in, data, len, err), 0);
	assert_int_equal(mem_write(g->mem, 0, s->ram, GUEST_RAM), 0);
	r = kvm_clock_load(g->vm, in, err);
	for (unsigned i = 0; i < kvm_vm_vcpu_count(g->vm) && r == 0; i++) {
		r = kvm_vcpu_load(kvm_vm_vcpu(g->vm, i), in, err);
	}
	if (r == 0) {
		r = state_in_check_used(in, err);
	}
	state_in_free(in);
	return r;
}

static void saved_free(struct saved *s)
{
	state_out_free(s->out);
	free(s->ram);
}

/* kvm_pvm keeps the host's TSC whatever it is told: see lab.md. */
static bool tsc_settable(struct guest *g)
{
	struct kvm_vcpu *v = kvm_vm_vcpu(g->vm, 0);
	uint64_t before, after;

	assert_int_equal(x86_msr_read(v, MSR_IA32_TSC, &before), 0);
	assert_int_equal(x86_msr_write(v, MSR_IA32_TSC, before + (UINT64_C(1) << 50)), 0);
	assert_int_equal(x86_msr_read(v, MSR_IA32_TSC, &after), 0);
	return after - before >= UINT64_C(1) << 50;
}

static void test_continue_elsewhere(void **state)
{
	struct guest a = {0}, b = {0};
	struct saved s;
	struct err err = {0};
	uint64_t before, after, khz;
	bool settable;

	guest_need_kvm();
	guest_new(&a, 1);
	khz = 3000000; /* near enough for "two seconds" on any host */
	start(&a, khz * 2000);
	for (unsigned i = 0; i < 3; i++) {
		guest_run(&a);
		expect_round(&a, 3 * i, i + 1);
	}
	guest_pause(&a);
	before = peek64(&a, 0x620);
	save(&a, &s);
	settable = tsc_settable(&a);
	guest_free(&a);
	/* longer than the timer had left: time must stand still meanwhile */
	sleep(3);

	guest_new(&b, 1);
	if (load(&b, &s, &err) < 0) {
		fail_msg("%s", err.msg);
	}
	saved_free(&s);
	for (unsigned i = 0; i < 3; i++) {
		guest_run(&b);
		expect_round(&b, 3 * i, i + 4);
	}
	after = peek64(&b, 0x620);
	assert_true(after > before);
	if (settable) {
		assert_true(after - before < khz * 1500); /* not the seconds in between */
	}
	/* and the timer still fires, in the new VM */
	guest_run(&b);
	assert_int_equal(atomic_load(&b.said_count), 10);
	assert_int_equal(b.said[9], 0x40);
	guest_free(&b);
}

/* The TSCs of several vCPUs keep their distance, kvmclock its value. */
static void test_clock(void **state)
{
	struct guest a = {0}, b = {0};
	struct kvm_clock_data ca = {0}, cb = {0};
	uint64_t ta[2], tb[2], da, db;
	struct saved s;
	struct err err = {0};
	int64_t drift;
	bool settable;

	guest_need_kvm();
	guest_new(&a, 2);
	start(&a, UINT64_C(1) << 50);
	guest_run(&a);
	guest_pause(&a);
	/* a guest that wrote one of its TSCs */
	settable = tsc_settable(&a);
	assert_int_equal(x86_msr_read(kvm_vm_vcpu(a.vm, 0), MSR_IA32_TSC, &ta[0]), 0);
	assert_int_equal(
		x86_msr_write(kvm_vm_vcpu(a.vm, 1), MSR_IA32_TSC, ta[0] + (UINT64_C(1) << 40)),
		0);
	assert_int_equal(kvm_ioctl(a.vm->fd, KVM_GET_CLOCK, &ca), 0);
	assert_int_equal(x86_msr_read(kvm_vm_vcpu(a.vm, 0), MSR_IA32_TSC, &ta[0]), 0);
	assert_int_equal(x86_msr_read(kvm_vm_vcpu(a.vm, 1), MSR_IA32_TSC, &ta[1]), 0);
	save(&a, &s);
	guest_free(&a);
	usleep(300000);

	guest_new(&b, 2);
	if (load(&b, &s, &err) < 0) {
		fail_msg("%s", err.msg);
	}
	saved_free(&s);
	assert_int_equal(kvm_ioctl(b.vm->fd, KVM_GET_CLOCK, &cb), 0);
	assert_int_equal(x86_msr_read(kvm_vm_vcpu(b.vm, 0), MSR_IA32_TSC, &tb[0]), 0);
	assert_int_equal(x86_msr_read(kvm_vm_vcpu(b.vm, 1), MSR_IA32_TSC, &tb[1]), 0);
	/* the clock stood still */
	assert_true(cb.clock > ca.clock && cb.clock - ca.clock < 200000000);
	if (!settable) {
		print_message("the TSC cannot be set here: only kvmclock is checked\n");
		guest_free(&b);
		return;
	}
	da = ta[1] - ta[0];
	db = tb[1] - tb[0];
	/* two reads are microseconds apart; 2^40 is minutes */
	assert_in_range(da, (UINT64_C(1) << 40) - 50000000, (UINT64_C(1) << 40) + 50000000);
	assert_in_range(db, (UINT64_C(1) << 40) - 50000000, (UINT64_C(1) << 40) + 50000000);
	/* and both clocks moved by the same time since */
	drift = (int64_t)((tb[0] - ta[0]) * 1000000 /
			  (uint64_t)ioctl(kvm_vm_vcpu(b.vm, 0)->fd, KVM_GET_TSC_KHZ, 0)) -
		(int64_t)(cb.clock - ca.clock);
	assert_true(llabs(drift) < 20000000);
	guest_free(&b);
}

static void test_refusals(void **state)
{
	struct guest a = {0}, b = {0};
	struct x86_vcpu_state *st;
	struct saved s;
	struct err err = {0};

	guest_need_kvm();
	guest_new(&a, 1);
	start(&a, UINT64_C(1) << 50);
	guest_run(&a);
	guest_pause(&a);
	save(&a, &s);

	/* another topology is another CPU */
	guest_new(&b, 2);
	assert_int_equal(load(&b, &s, &err), -EINVAL);
	assert_non_null(strstr(err.msg, "-smp"));
	guest_free(&b);
	saved_free(&s);

	/* the MSR that KVM refuses is named with its value, whatever stands around it */
	st = calloc(1, sizeof(*st));
	assert_int_equal(x86_vcpu_capture(kvm_vm_vcpu(a.vm, 0), st, &err), 0);
	assert_true(st->msr_count > 20 && st->msr_count < KVM_MAX_MSRS);
	st->msrs[st->msr_count++] = (struct x86_msr){0x4B564DF0, 0xDEAD};
	assert_int_equal(x86_vcpu_apply(kvm_vm_vcpu(a.vm, 0), st, &err), -EINVAL);
	assert_non_null(strstr(err.msg, "0x4b564df0"));
	assert_non_null(strstr(err.msg, "0xdead"));
	st->msr_count--;
	/* a CPU that cannot be */
	st->sys.cr0 = 0x80000000;
	assert_true(x86_vcpu_apply(kvm_vm_vcpu(a.vm, 0), st, &err) < 0);
	assert_non_null(strstr(err.msg, "special registers"));
	free(st);
	/* and after all that a reset still helps */
	start(&a, UINT64_C(1) << 50);
	guest_run(&a);
	assert_int_equal(a.said[3], 1);
	guest_free(&a);
}

/* What is captured, applied and captured again is the same, byte by byte. */
static void test_round_trip(void **state)
{
	struct x86_vcpu_state *x, *y;
	struct guest g = {0};
	struct err err = {0};
	struct kvm_vcpu *v;

	guest_need_kvm();
	guest_new(&g, 1);
	start(&g, UINT64_C(1) << 50);
	guest_run(&g);
	guest_run(&g);
	guest_pause(&g);
	v = kvm_vm_vcpu(g.vm, 0);
	x = calloc(1, sizeof(*x));
	y = calloc(1, sizeof(*y));
	assert_int_equal(x86_vcpu_capture(v, x, &err), 0);
	if (x86_vcpu_apply(v, x, &err) < 0) {
		fail_msg("%s", err.msg);
	}
	assert_int_equal(x86_vcpu_capture(v, y, &err), 0);
	assert_memory_equal(&x->gprs, &y->gprs, sizeof(x->gprs));
	assert_memory_equal(&x->debug, &y->debug, sizeof(x->debug));
	assert_memory_equal(x->xsave, y->xsave, x->xsave_size);
	for (uint32_t i = 0; i < x->msr_count; i++) {
		if (x->msrs[i].value != y->msrs[i].value) {
			fail_msg("MSR %#x: %#jx became %#jx", x->msrs[i].index,
				 (uintmax_t)x->msrs[i].value, (uintmax_t)y->msrs[i].value);
		}
	}
	assert_memory_equal(x->lapic, y->lapic, 0x390); /* then the running count */
	assert_int_equal(x->sys.cr4, y->sys.cr4);
	assert_int_equal(x->sys.cs.base, y->sys.cs.base);
	assert_int_equal(x->sys.gdt.base, y->sys.gdt.base);
	assert_int_equal(x->mp_state, y->mp_state);
	free(x);
	free(y);
	guest_free(&g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_continue_elsewhere),
		cmocka_unit_test(test_clock),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_round_trip),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
