/* Pause and resume under load: no vCPU is missed, nothing moves while paused. */
#include "guest.h"

#include <string.h>
#include <unistd.h>

#include "base/util.h"

GUEST_CODE_OF(busy);
GUEST_CODE_OF(spin);
GUEST_CODE_OF(halt);
__asm__(".pushsection .rodata\n"
	".code64\n"
	/* starts CPU 1, then counts by port for ever: an exit each time */
	"busy_start:\n"
	"	mov $0xFEE00000, %ebx\n"
	"	movl $0x1FF, 0xF0(%rbx)\n"
	"	movl $0x01000000, 0x310(%rbx)\n"
	"	movl $0x4500, 0x300(%rbx)\n"
	"	movl $0x4620, 0x300(%rbx)\n"
	"1:	xor %eax, %eax\n"
	"	in $0x12, %eax\n"
	"	mov %eax, 0x600\n"
	"	jmp 1b\n"
	"busy_end:\n"
	"halt_start:\n"
	"	cli\n"
	"	out %al, $0xF4\n"
	"1:	hlt\n"
	"	jmp 1b\n"
	"halt_end:\n"
	/* the other CPU counts in memory: no exits */
	".code16\n"
	"spin_start:\n"
	"	xor %ax, %ax\n"
	"	mov %ax, %ds\n"
	"1:	incl 0x604\n"
	"	jmp 1b\n"
	"spin_end:\n"
	".code64\n"
	".popsection\n");

static uint32_t peek(struct guest *g, gpa_t at)
{
	uint32_t v;

	assert_int_equal(mem_read(g->mem, at, &v, sizeof(v)), 0);
	return v;
}

static uint32_t seen_port, seen_memory;

static bool both_moved(struct guest *g)
{
	return peek(g, 0x600) != seen_port && peek(g, 0x604) != seen_memory;
}

static void pause_under_load(bool on_loop)
{
	struct guest g = {.count_on_loop = on_loop};

	guest_need_kvm();
	guest_new(&g, 2);
	guest_load(&g, busy_start, busy_end);
	assert_int_equal(mem_write(g.mem, 0x20000, spin_start, spin_end - spin_start), 0);
	guest_reset_long(&g);
	seen_port = seen_memory = 0;
	kvm_vcpus_resume(g.vm);
	for (unsigned i = 0; i < 100; i++) {
		guest_wait(&g, both_moved);
		guest_pause(&g);
		seen_port = peek(&g, 0x600);
		seen_memory = peek(&g, 0x604);
		/* the value that was read last has arrived in the register, if not in memory */
		assert_in_range(atomic_load(&g.counter) - seen_port, 0, 1);
		usleep(i % 10 ? 0 : 2000);
		assert_int_equal(peek(&g, 0x600), seen_port);
		assert_int_equal(peek(&g, 0x604), seen_memory);
		kvm_vcpus_resume(g.vm);
	}
	guest_free(&g);
}

static void test_pause_under_load(void **state)
{
	pause_under_load(false);
}

/* The vCPU waits for the very loop that pauses it, most of the time. */
static void test_pause_in_loop_call(void **state)
{
	pause_under_load(true);
}

/* A halted vCPU, the shortest possible runs, and pausing what is paused. */
static void test_pause_halted(void **state)
{
	struct guest g = {0};

	guest_need_kvm();
	guest_new(&g, 2);
	guest_load(&g, halt_start, halt_end);
	guest_pause(&g); /* nothing was ever resumed */
	guest_reset_long(&g);
	guest_run(&g);
	for (unsigned i = 0; i < 300; i++) {
		guest_pause(&g);
		if (i % 3 == 0) {
			guest_pause(&g);
		}
		kvm_vcpus_resume(g.vm);
	}
	guest_free(&g);
}

/* A pause that arrives while a port is read: the value is in the register before done(). */
static _Atomic bool ask;

static void ask_pause(struct guest *g)
{
	if (atomic_load(&g->counter) == 1000) {
		loop_stop(g->loop);
		while (!atomic_load(&ask)) {
			usleep(100);
		}
	}
}

static bool quiet(struct guest *g)
{
	atomic_store(&ask, true);
	return g->paused;
}

static void done(void *opaque)
{
	struct guest *g = opaque;

	g->paused = true;
}

static void test_pause_completes_access(void **state)
{
	struct guest g = {.on_count = ask_pause};

	guest_need_kvm();
	guest_new(&g, 1);
	guest_load(&g, busy_start, busy_end);
	guest_reset_long(&g);
	atomic_store(&ask, false);
	guest_run(&g); /* returns with the vCPU inside the handler */
	assert_int_equal(peek(&g, 0x600), 999);
	kvm_vcpus_pause(g.vm, done, &g);
	loop_step(g.loop, 10);
	assert_false(g.paused); /* it cannot be */
	guest_wait(&g, quiet);
	assert_int_equal(atomic_load(&g.counter), 1000);
	/* refused entry: the next instructions have not run, but nothing was lost */
	assert_int_equal(peek(&g, 0x600), 999);
	g.on_count = NULL;
	seen_port = 999;
	seen_memory = -1u;
	kvm_vcpus_resume(g.vm);
	guest_wait(&g, both_moved);
	guest_pause(&g);
	assert_in_range(atomic_load(&g.counter) - peek(&g, 0x600), 0, 1);
	guest_free(&g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pause_under_load),
		cmocka_unit_test(test_pause_in_loop_call),
		cmocka_unit_test(test_pause_halted),
		cmocka_unit_test(test_pause_completes_access),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
